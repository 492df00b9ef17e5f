"""Recorded layers: what they return, whatever form it has, and that no hook is left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from candling.errors import ModelError
from candling.models import ModelSpec, build_model, layers, recording, scores
from candling.models.blackbox import OnnxNetwork


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@dataclass
class Plain:
    loss: float
    hidden: Tensor


FORMS = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, 0 * x),
    "list": lambda x: [None, x],
    "dict": lambda x: {"loss": 1.0, "hidden": x},
    "named tuple": lambda x: Pair(x, 0 * x),
    "dataclass": lambda x: Plain(1.0, x),
    "model output": lambda x: BaseModelOutput(last_hidden_state=x, hidden_states=(0 * x,)),
}


class Formed(nn.Module):
    """Three times its input, in some form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> object:
        return FORMS[self.form](3 * x)


class Around(nn.Module):
    """Runs a module and returns the mean of a picture."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        self.inner(x)
        return x.mean((2, 3))


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("form", FORMS)
def test_the_first_tensor_of_every_form(form: str) -> None:
    images = torch.rand(2, 3, 4, 4).requires_grad_()
    with recording(Around(Formed(form)), ["inner"]) as seen:
        assert seen == {}
    model = Around(Formed(form))
    with recording(model, ["inner"]) as seen:
        model(images)
    assert list(seen) == ["inner"]
    assert torch.equal(seen["inner"], 3 * images)
    (gradient,) = torch.autograd.grad(seen["inner"].sum(), images)
    assert torch.equal(gradient, torch.full_like(images, 3))
    assert hooks(model) == 0


def test_names_are_those_within_the_network_that_a_classifier_holds() -> None:
    model = build_model(ModelSpec("residual_cnn", ("a", "b"), (16, 16), {"widths": [4, 6]}))
    images = torch.rand(3, 3, 16, 16)
    known = [one for one in layers(model, (16, 16)) if one.output_shape is not None]
    with recording(model, [one.name for one in known]) as seen, torch.no_grad():
        out = model.eval()(images)
    assert {name: tuple(found.shape) for name, found in seen.items()} == {
        one.name: (3, *one.output_shape) for one in known
    }
    assert torch.equal(seen[known[-1].name], out)


def test_what_is_written_over_in_place_is_recorded_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True))
    images = torch.rand(2, 3, 5, 5) - 0.5
    with recording(model, ["0", "1"]) as seen:
        model(images)
    assert (seen["0"] < 0).any()
    torch.testing.assert_close(seen["0"], model[0](images))
    torch.testing.assert_close(seen["1"], seen["0"].clamp_min(0))


def test_the_last_call_counts_and_a_shared_module_has_each_of_its_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.once = nn.Linear(3, 3)
            self.again = self.once
            self.never = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.once(x))

    model, x = Twice(), torch.rand(2, 3)
    with recording(model, ["once", "again", "never"]) as seen:
        out = model(x)
        assert torch.equal(seen["once"], out)
        assert torch.equal(seen["again"], out)
        assert "never" not in seen
        assert torch.equal(model(2 * x), seen["once"])  # of each pass anew
    assert hooks(model) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("where", ["in the model", "in the block"])
def test_hooks_are_gone_after_an_error_and_those_of_others_stay(
    error: type[BaseException], where: str
) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if where == "in the model":
                raise error
            return x

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Fails())
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))

    def run() -> None:
        with recording(model, ["0", "1"]):
            assert hooks(model) == 3
            model(torch.rand(1, 3, 4, 4))
            raise error

    with pytest.raises(error):
        run()
    assert hooks(model) == 1
    assert calls == [1]


@pytest.mark.parametrize(
    ("name", "message"),
    [("layr1.conv", r"no layer 'layr1.conv'; the nearest (is|are) 'layer1.conv'"),
     ("Layer1", "the nearest (is|are) 'layer1'"),
     ("zzz", "no layer 'zzz'; there are 'layer1', 'layer1.conv', 'head'$"),
     ("", "no layer ''")],
)  # fmt: skip
def test_an_unknown_layer_suggests_the_nearest(name: str, message: str) -> None:
    model = nn.Module()
    model.layer1 = nn.Module()
    model.layer1.conv = nn.Conv2d(3, 4, 1)
    model.head = nn.Linear(3, 4)
    with pytest.raises(ModelError, match=message), recording(model, ["head", name]):
        pytest.fail("the block ran")
    assert hooks(model) == 0


def test_many_unlike_names_are_counted() -> None:
    model = nn.Sequential(*(nn.Identity() for _ in range(20)))
    with pytest.raises(ModelError, match="'10', '11' and 8 more"), recording(model, ["conv"]):
        pytest.fail("the block ran")


def test_a_layer_without_a_tensor_and_a_black_box() -> None:
    class Says(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "three"

    model = Around(Says())
    with pytest.raises(ModelError, match="'inner' returns str without a tensor"), recording(model, ["inner"]):
        model(torch.rand(1, 3, 4, 4))
    assert hooks(model) == 0
    closed = nn.Sequential(OnnxNetwork.__new__(OnnxNetwork))
    nn.Module.__init__(closed[0])
    with pytest.raises(ModelError, match="black box"), recording(closed, ["0"]):
        pytest.fail("the block ran")


def test_scores_are_the_classifiers_or_dense() -> None:
    flat, dense = torch.rand(2, 5), torch.rand(2, 5, 3, 4)
    assert torch.equal(scores(flat), flat)
    assert torch.equal(scores({"out": dense, "aux": 0 * dense}), dense)  # torchvision's segmentation
    assert torch.equal(scores({"features": dense, "logits": flat}), flat)
    assert torch.equal(scores((dense, flat)), dense)
    assert torch.equal(scores(flat[:, :, None, None]), flat)
    with pytest.raises(ModelError, match="returns int64"):
        scores(dense.argmax(1, keepdim=True))
    with pytest.raises(ModelError, match="without a tensor"):
        scores("three")
