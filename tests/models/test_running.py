"""Running models: the shape of their pictures, what they return, and errors of theirs as one sentence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from candling.errors import ModelError
from candling.models import ModelSpec, answer, build_model, input_shape, layers, logits
from candling.models.heads import probes
from tests.models.factories import Tiny


def residual() -> nn.Module:
    return build_model(ModelSpec("residual_cnn", ("a", "b"), (16, 20), {"widths": [4, 6]}))


SHAPES = {
    "a classifier says all": (residual, (), (3, 16, 20)),
    "but for what is asked": (residual, ((8, 8), 3), (3, 8, 8)),
    "a convolution says its channels": (lambda: Tiny(channels=5), (), (5, 224, 224)),
    "which can be asked too": (lambda: Tiny(channels=5), ((8, 9), 2), (2, 8, 9)),
    "a module that says nothing": (lambda: nn.Flatten(), (), (3, 224, 224)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_the_shape_of_a_models_pictures(case: str) -> None:
    make, asked, shape = SHAPES[case]
    assert input_shape(make(), *asked) == shape


def test_layers_of_any_number_of_channels() -> None:
    rows = {row.name: row.output_shape for row in layers(Tiny(channels=5), (12, 10))}
    assert rows == {"conv": (5, 10, 8), "head": (3,)}
    flat = nn.Sequential(nn.Flatten(), nn.Linear(2 * 4 * 5, 3))
    assert layers(flat, (4, 5), 2)[-1].output_shape == (3,)
    with pytest.raises(ModelError, match="does not take a picture of 3 × 4 × 5"):
        layers(flat, (4, 5))
    assert layers(residual()) == layers(residual(), (16, 20), 3)


def test_logits_of_whatever_a_model_returns() -> None:
    images = torch.rand(5, 3, 8, 8)
    plain = Tiny().eval()
    expected = logits(plain, images)
    for after in ("tuple", "dict", "dataclass", "spatial"):
        wrapped = Tiny(after=after).eval()
        wrapped.load_state_dict(plain.state_dict())
        torch.testing.assert_close(logits(wrapped, images), expected)
    dense = nn.Conv2d(3, 4, 1)
    torch.testing.assert_close(logits(dense, images), dense(images).detach().mean((2, 3)))
    with pytest.raises(ModelError, match="returns str without a tensor of scores"):
        logits(Tiny(after="nothing"), images)


class Raises(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        raise self.error


def test_what_a_model_raises_is_one_sentence() -> None:
    images = torch.zeros(1, 3, 4, 5)
    with pytest.raises(ModelError, match=r"a picture of 3 × 4 × 5 \(two lines\); give the channels"):
        answer(Raises(AttributeError("two\n lines.")), images)
    with pytest.raises(ModelError, match=r"\(KeyError\)"):
        answer(Raises(KeyError()), images)
    with pytest.raises(ModelError, match="^as it is$"):
        answer(Raises(ModelError("as it is")), images)
    with pytest.raises(KeyboardInterrupt):
        answer(Raises(KeyboardInterrupt()), images)


def test_probes_of_three_channels_are_those_that_digests_know() -> None:
    assert torch.equal(probes((6, 7)), probes((6, 7), 3))
    assert probes((6, 7), 5).shape == (12, 5, 6, 7)
    assert float(probes((6, 7), 5).std()) > 0.2
