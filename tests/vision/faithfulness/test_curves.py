"""Insertion and deletion against a reference in NumPy, identities and a model whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from candling.errors import DataError, ParamsError
from candling.vision.faithfulness import (
    centre_gaussian,
    curves,
    insertion_minus_deletion,
    order_of,
    random_maps,
)
from candling.vision.faithfulness.curves import bare

SIZE = (12, 10)


class Linear(nn.Module):
    """Logits that are weighted sums of pixels, so that each pixel's evidence is known."""

    def __init__(self, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, 3, *SIZE, generator=generator) * 0.3)

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", images, self.weight)


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, *SIZE, generator=torch.Generator().manual_seed(seed))


def reference(weight: np.ndarray, image: np.ndarray, base: np.ndarray, order: np.ndarray, label: int,
              steps: int) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Both curves of one picture, pixel by pixel in `order`, which holds flat places."""
    total, insertion, deletion = image[0].size, [], []
    for step in range(steps + 1):
        count = int(np.rint(total * step / steps))
        for into, start, end in ((insertion, base, image), (deletion, image, base)):
            seen = start.reshape(3, -1).copy()
            seen[:, order[:count]] = end.reshape(3, -1)[:, order[:count]]
            scores = (weight.reshape(len(weight), -1) * seen.reshape(1, -1)).sum(1)
            shares = np.exp(scores - scores.max())
            into.append(shares[label] / shares.sum())
    return np.array(insertion), np.array(deletion)


@pytest.mark.parametrize("baseline", ["blur", "mean"])
def test_curves_are_those_of_a_loop(baseline: str) -> None:
    model, images, maps, classes = Linear(), pictures(2), noise(2), torch.tensor([2, 0])
    found = curves(model, images, maps, classes, baseline=baseline, steps=7)  # type: ignore[arg-type]
    base = bare(images, baseline)  # type: ignore[arg-type]
    for row in range(2):
        order = np.argsort(-maps[row].numpy().ravel())
        insertion, deletion = reference(
            model.weight.detach().double().numpy(), images[row].double().numpy(), base[row].double().numpy(),
            order, int(classes[row]), 7,
        )  # fmt: skip
        np.testing.assert_allclose(found.insertion[row], insertion, atol=1e-5)
        np.testing.assert_allclose(found.deletion[row], deletion, atol=1e-5)
        shares = np.rint(np.linspace(0, 120, 8)) / 120
        np.testing.assert_allclose(found.insertion_auc[row], np.trapezoid(insertion, shares), atol=1e-5)
        np.testing.assert_allclose(found.deletion_auc[row], np.trapezoid(deletion, shares), atol=1e-5)


def test_baselines_have_lost_what_can_be_recognised() -> None:
    images = pictures(2)
    assert torch.allclose(bare(images, "mean"), images.mean((2, 3), keepdim=True).expand_as(images))
    blurred = bare(images, "blur")
    assert blurred.min() >= 0
    assert blurred.max() <= 1
    assert (blurred.std((2, 3)) < 0.6 * images.std((2, 3))).all()
    flat = torch.full((1, 3, *SIZE), 0.3)
    assert torch.allclose(bare(flat, "blur"), flat, atol=1e-6)


def test_deletion_is_the_insertion_of_the_opposite_map_backwards() -> None:
    model, images, maps, classes = Linear(), pictures(3), noise(3), torch.tensor([0, 1, 2])
    one, other = (curves(model, images, sign * maps, classes, steps=8) for sign in (1, -1))
    assert torch.allclose(one.deletion, other.insertion.flip(-1), atol=1e-6)
    assert torch.allclose(one.difference, -other.difference, atol=1e-6)


def test_only_the_order_of_a_map_counts() -> None:
    model, images, maps, classes = Linear(), pictures(3), noise(3), torch.tensor([0, 1, 2])
    one = insertion_minus_deletion(model, images, maps, classes, steps=8)
    for changed in (maps * 7, maps - 3, maps.sigmoid(), maps**3):
        assert torch.equal(one, insertion_minus_deletion(model, images, changed, classes, steps=8))


def test_the_true_map_of_a_linear_model_is_above_all_others() -> None:
    # Two classes: the log-odds are linear in the pixels, so that their order by evidence is the best one.
    model, images, classes = Linear(classes=2), pictures(20), torch.tensor([0, 1] * 10)
    over = images - bare(images, "blur")
    evidence = torch.einsum("nchw,kchw->nkhw", over, model.weight.detach())
    true = evidence[:, 0] - evidence[:, 1]
    true = torch.where(classes[:, None, None] == 0, true, -true)
    best = insertion_minus_deletion(model, images, true, classes)
    for other in (random_maps(images, draws=1)[:, 0], centre_gaussian(images), true + noise(20), -true):
        assert (best >= insertion_minus_deletion(model, images, other, classes) - 1e-6).all()
    assert (best > 0.05).float().mean() > 0.9


def test_a_constant_map_says_nothing_on_average() -> None:
    model, images, classes = Linear(classes=2), pictures(200), torch.tensor([0, 1] * 100)
    found = insertion_minus_deletion(model, images, torch.ones(200, *SIZE), classes)
    true = Linear(classes=2).weight.detach()
    evidence = torch.einsum("nchw,chw->nhw", images - bare(images, "blur"), true[0] - true[1])
    evidence = torch.where(classes[:, None, None] == 0, evidence, -evidence)
    best = insertion_minus_deletion(model, images, evidence, classes)
    assert abs(float(found.mean())) < 0.1 * float(best.mean())


def test_ties_are_broken_by_chance_and_not_by_place() -> None:
    places = order_of(torch.zeros(2, 20, 20))
    assert torch.equal(places[0], places[1])
    assert torch.equal(places[0].flatten().sort().values, torch.arange(400))
    top = places[0, :10].float().mean()
    assert abs(float(top) - 199.5) < 40
    assert not torch.equal(places, order_of(torch.zeros(2, 20, 20), seed=1))
    # What is not a tie is in its order.
    maps = torch.zeros(20, 20)
    maps[3, 4], maps[7, 7] = 2.0, 1.0
    assert order_of(maps)[3, 4] == 0
    assert order_of(maps)[7, 7] == 1


def test_several_classes_are_those_one_by_one_whatever_the_batch() -> None:
    model, images, maps = Linear(), pictures(3), noise(3, 2)
    classes = torch.tensor([[0, 1], [2, 0], [1, 1]])
    together = curves(model, images, maps, classes, steps=6)
    assert together.insertion.shape == (3, 2, 7)
    for column in range(2):
        for batch in (1, 5):
            alone = curves(model, images, maps[:, column], classes[:, column], steps=6, batch=batch)
            assert torch.allclose(together.insertion[:, column], alone.insertion, atol=1e-6)
            assert torch.allclose(together.deletion[:, column], alone.deletion, atol=1e-6)
    one = curves(model, images[1:2], maps[1:2], classes[1:2], steps=6)
    assert torch.allclose(one.difference[0], together.difference[1], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"steps": 1}, ParamsError, "steps is 1"),
        ({"baseline": "black"}, ParamsError, "no baseline 'black'"),
        ({"classes": torch.tensor([0, 3])}, ParamsError, "no class 3; the model has 3"),
        ({"classes": torch.tensor([[0], [1]])}, ParamsError, "each map has one class"),
        ({"maps": torch.zeros(2, 5, 5)}, DataError, "do not fit 2 pictures of 12 × 10"),
        ({"maps": torch.full((2, *SIZE), torch.nan)}, DataError, "picture 0 holds NaN"),
        ({"images": pictures(2) * 2}, DataError, r"must lie in \[0, 1\]"),
        ({"images": pictures(2) * torch.nan}, DataError, r"must lie in \[0, 1\]"),
        ({"images": (pictures(2) * 255).byte()}, DataError, "must be floats"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, object], error: type[Exception], said: str) -> None:
    given: dict[str, object] = {
        "images": pictures(2), "maps": noise(2), "classes": torch.tensor([0, 1]), "steps": 4,
    } | change  # fmt: skip
    with pytest.raises(error, match=said):
        curves(Linear(), **given)  # type: ignore[arg-type]


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 80, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    curves(model, pictures(2), noise(2), torch.tensor([0, 1]), steps=3)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
