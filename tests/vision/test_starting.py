"""Starts: the picture between classes, where algebra knows it, and wherever logits are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import ModelSpec, build_model
from candling.vision.priors import fit_prior, natural_prior
from candling.vision.starting import equidistant

SIZE = (6, 5)
PRIOR = natural_prior(SIZE, 2)


def linear(classes: int = 5, seed: int = 0) -> nn.Sequential:
    """Logits whose gradient is the same everywhere."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 5, classes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def convolutional(classes: int = 4) -> nn.Sequential:
    """A small network of ReLUs that answers pictures of any size, and all classes alike one of stripes."""
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        stripes = 0.5 + 0.3 * torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1) * torch.tensor(
            [1.0, 1.0, -1.0, -1.0]
        )
        model[-1].bias.copy_(-(model(stripes.repeat(1, 1, 16, 4))[0] - model[-1].bias))
    return model


def spread(logits: Tensor) -> float:
    return float(logits.max() - logits.min())


@pytest.mark.parametrize("classes", [(0, 1), (3, 1, 4), (0, 1, 2, 3, 4)])
def test_of_a_linear_network_it_is_the_nearest_that_algebra_knows(classes: tuple[int, ...]) -> None:
    model = linear()
    found = equidistant(model, classes, PRIOR, tolerance=1e-5)
    assert found.shape == (2, *SIZE)
    assert found.dtype == torch.float32
    weights, offsets = (t.detach().double().numpy()[list(classes)] for t in (model[1].weight, model[1].bias))
    weights, offsets = weights - weights.mean(0), offsets - offsets.mean()
    grey = np.full(2 * 6 * 5, 0.5)
    # The foot of the perpendicular from the mean to where all centred logits are zero.
    expected = grey - np.linalg.pinv(weights) @ (weights @ grey + offsets)
    assert 0 < expected.min() < expected.max() < 1, "the case shows nothing where pictures end"
    np.testing.assert_allclose(found.flatten(), expected, atol=1e-4)
    with torch.no_grad():
        logits = model(found[None])[0]
    assert spread(logits[list(classes)]) <= 1e-5
    if len(classes) < 5:
        assert spread(logits) > 0.1, "of other classes nothing is asked"


def test_of_two_classes_by_hand() -> None:
    model = linear(2)
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.ones(60), -torch.ones(60)]) / 60)
        model[1].bias.copy_(torch.tensor([-0.8, 0.0]))
    # Mean m of the pixels has logits m - 0.8 and -m, equal at 0.4.
    found = equidistant(model, (0, 1), PRIOR, tolerance=1e-6)
    torch.testing.assert_close(found, torch.full((2, *SIZE), 0.4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (11, 20)])
@pytest.mark.parametrize("classes", [(0, 3), (0, 1, 2, 3)])
def test_of_a_network_that_bends(size: tuple[int, int], classes: tuple[int, ...]) -> None:
    model = convolutional()
    prior = fit_prior(0.2 + 0.5 * torch.rand(9, 2, *size, generator=torch.Generator().manual_seed(0)))
    mean = torch.sigmoid(prior.mean)
    found = equidistant(model, classes, prior)
    with torch.no_grad():
        before, after = model(mean[None])[0, list(classes)], model(found[None])[0, list(classes)]
    assert spread(after) <= 0.02 < 0.1 < spread(before)
    assert 0 <= found.min() < found.max() <= 1
    assert (found - mean).abs().mean() < 0.3
    assert torch.equal(found, equidistant(model, classes, prior)), "it is no matter of chance"


def test_of_dense_scores_the_means_count() -> None:
    whole = convolutional(3)
    head = nn.Conv2d(8, 3, 1)
    with torch.no_grad():
        head.weight.copy_(whole[-1].weight[:, :, None, None])
        head.bias.copy_(whole[-1].bias)
    # The same network, but that it averages last.
    model = nn.Sequential(*whole[:4], head)
    found = equidistant(model, (0, 1, 2), natural_prior((9, 12), 2))
    with torch.no_grad():
        scores = model(found[None])[0]
    assert scores.shape == (3, 9, 12)
    assert spread(scores.mean((1, 2))) <= 0.02
    assert spread(scores[:, 4, 6]) > 0.02
    torch.testing.assert_close(found, equidistant(whole, (0, 1, 2), natural_prior((9, 12), 2)))


def test_what_is_there_already_is_the_mean() -> None:
    model = linear()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.fill_(1)
    assert torch.equal(equidistant(model, (0, 1), PRIOR), torch.full((2, *SIZE), 0.5))


@pytest.mark.parametrize("classes", [(), (1,), (1, 1)])
def test_too_few_classes(classes: tuple[int, ...]) -> None:
    with pytest.raises(ParamsError, match="needs two classes or more"):
        equidistant(linear(), classes, PRIOR)


@pytest.mark.parametrize(("classes", "missing"), [((0, 5), 5), ((-1, 2), -1)])
def test_a_class_that_is_not_there(classes: tuple[int, ...], missing: int) -> None:
    with pytest.raises(ParamsError, match=f"there is no class {missing}; the model has 5, 0 to 4"):
        equidistant(linear(), classes, PRIOR)


class Ends(nn.Module):
    """Logits that no gradient, or nothing at all, brings together."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.inner = linear(2)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.inner(images.detach() if self.how == "detached" else images)
        if self.how == "rounded":
            found = found.round() * 2
        elif self.how == "apart":
            found = torch.stack([found[:, 0].sigmoid(), 3 + found[:, 1].sigmoid()], 1)
        elif self.how == "nan":
            found = found + (images.mean((1, 2, 3)) - 2).sqrt()[:, None]
        return found + torch.tensor([0.0, 2.0])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            "detached",
            "no gradient leads to a picture that is equidistant between 2 classes; start from noise",
        ),
        ("rounded", "no gradient leads"),
        ("nan", "no gradient leads"),
        ("apart", r"between 2 classes was found in 40 steps: their logits still differ by \d"),
    ],
)
def test_where_there_is_none_the_model_is_left_as_it_was(how: str, says: str) -> None:
    model = Ends(how).train()
    model.inner[1].bias.requires_grad_(False)
    with pytest.raises(ModelError, match=says):
        equidistant(model, (0, 1), PRIOR, steps=40)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, False]
    assert all(p.grad is None for p in model.parameters())


def test_a_classifier_is_read_by_its_head() -> None:
    model = build_model(
        ModelSpec("residual_cnn", ("no", "yes"), (24, 24), {"widths": [4, 6]}, head="binary"), seed=1
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.linspace(0.1, 0.5, len(parameter)))
        picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
        head = model.get_parameter("network.head.bias")
        head.sub_(model.eval()(picture)[0, 1])
    model.train()
    with torch.no_grad():
        found = equidistant(model, (0, 1), natural_prior((24, 24)))
    assert model.training
    with torch.no_grad():
        logits = model.eval()(found[None])[0]
    assert logits.shape == (2,)
    assert abs(float(logits[1] - logits[0])) <= 0.02
