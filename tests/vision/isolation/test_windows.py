"""Isolation against exact answers: linear models, planted patches, and Shapley values by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from candling.errors import ModelError
from candling.models import ModelSpec, build_model
from candling.vision.isolation import (
    blurred_fill,
    evidence_share,
    faded,
    isolate,
    object_shapley,
    windows_of,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class ReadsMean(nn.Module):
    """Logits (10·m, 0) where m is the mean of a region: log-odds linear in its pixels, blind elsewhere."""

    def __init__(self, region: Tensor) -> None:
        super().__init__()
        self.region = region
        self.head = nn.Linear(1, 2, bias=False)
        self.head.weight.data = torch.tensor([[10.0], [0.0]])
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.head(images.mean(1)[:, self.region].mean(1, keepdim=True))


def box(size: int, top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


# --- windows and fills -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "side", "stride"),
    [((96, 96), 24, 16), ((33, 50), 24, 16), ((20, 31), 8, 8), ((17, 9), 7, 2), ((5, 5), 24, 16)],
)
def test_windows_cover_every_pixel(size: tuple[int, int], side: int, stride: int) -> None:
    windows = windows_of(size, side, stride)
    assert windows.shape[1:] == size
    assert windows.any(0).all()
    for window in windows:
        rows, columns = window.any(1), window.any(0)
        assert torch.equal(window, rows[:, None] & columns[None])
        assert 1 <= rows.sum() <= side
        assert 1 <= columns.sum() <= side
    coverage = windows.sum(0)
    if side % stride == 0:  # then pixels at the edge weigh as much as those in the middle
        assert coverage.min() == coverage.max() == (side // stride) ** 2


@pytest.mark.parametrize("stride", [0, 9])
def test_windows_with_gaps_are_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"got {stride}"):
        windows_of((32, 32), 8, stride)


def test_blur_is_a_mean_over_a_square() -> None:
    images = noise(2, 3, 20, 30)
    expected = uniform_filter(images.numpy().astype(float), (0, 0, 5, 5), mode="mirror")
    np.testing.assert_allclose(blurred_fill(images), expected, atol=1e-5)
    torch.testing.assert_close(blurred_fill(torch.full((1, 3, 40, 40), 0.3)), torch.full((1, 3, 40, 40), 0.3))


# --- isolate -----------------------------------------------------------------------------------


def exact(weights: Tensor, image: Tensor, fills: Tensor, side: int, stride: int) -> Tensor:
    """Evidence map of a linear model: a window holds what its pixels add over the fill, on average."""
    gain = (weights * (image - fills.mean(0))).sum(0)
    total, count = torch.zeros_like(gain), torch.zeros_like(gain)
    size = len(gain)
    for top in range(stride - side, size, stride):
        for left in range(stride - side, size, stride):
            rows, columns = slice(max(top, 0), top + side), slice(max(left, 0), left + side)
            total[rows, columns] += gain[rows, columns].sum()
            count[rows, columns] += 1
    return total / count


def test_chosen_classes_are_columns_of_all() -> None:
    model, images = (
        build_model(ModelSpec("residual_cnn", tuple("abcd"), (32, 32), {"widths": [4, 6]}), seed=1),
        noise(2, 3, 32, 32),
    )
    every, chosen = isolate(model, images), torch.tensor([[3, 1], [0, 0]])
    some = isolate(model, images, classes=chosen)
    assert some.classes.tolist() == chosen.tolist()
    assert every.classes.tolist() == [[0, 1, 2, 3]] * 2
    torch.testing.assert_close(some.maps, torch.stack([every.maps[i, chosen[i]] for i in range(2)]))


@pytest.mark.parametrize("fill", ["donors", "blur"])
def test_a_linear_model_gets_the_exact_answer(fill: str) -> None:
    images, donors = noise(3, 3, 32, 32), noise(4, 3, 32, 32, seed=1)
    weights = noise(3, 32, 32, seed=2) - 0.5
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    model[1].weight.data = torch.stack([weights.flatten(), -0.5 * weights.flatten()])
    found = isolate(model, images, donors=donors if fill == "donors" else None, side=12, stride=8)
    assert found.fill == fill
    assert found.maps.shape == (3, 2, 32, 32)
    for row, image in enumerate(images):
        fills = donors if fill == "donors" else blurred_fill(images[row : row + 1])
        expected = 1.5 * exact(weights, image, fills, 12, 8)
        torch.testing.assert_close(found.maps[row, 0], expected, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found.maps[row, 1], -expected, atol=1e-3, rtol=1e-3)


def test_evidence_lies_on_the_patch_that_is_read() -> None:
    patch = box(64, 16, 24, 32, 40)
    images, donors = 0.5 + 0.5 * noise(3, 3, 64, 64), 0.4 * noise(6, 3, 64, 64, seed=1)
    found = isolate(ReadsMean(patch), images, donors=donors, side=16, stride=8)
    share = evidence_share(found.maps[:, 0], patch.expand(3, -1, -1))
    assert (share > 4 * patch.float().mean()).all()
    reached = box(64, 1, 9, 47, 55)  # no window that touches the patch lies beyond
    assert (found.maps[:, :, ~reached].abs() < 1e-5).all()
    # The patch is brighter than all donors: evidence for class 0 and against class 1.
    assert (found.maps[:, 0, patch] > 0).all()
    assert (found.maps[:, 1, patch] < 0).all()


def test_a_blur_hides_that_a_smooth_sky_is_read() -> None:
    sky = box(64, 0, 0, 32, 64)
    image = torch.where(sky, torch.tensor(0.8), noise(1, 3, 64, 64))
    donors = torch.where(sky, torch.tensor(0.2), noise(4, 3, 64, 64, seed=1))
    model = ReadsMean(box(64, 0, 0, 16, 64))
    by_blur = isolate(model, image, side=16, stride=8).maps[0, 0]
    by_donors = isolate(model, image, donors=donors, side=16, stride=8).maps[0, 0]
    assert by_blur.abs().max() < 1e-4
    assert by_donors[:16].min() > 0.1
    assert evidence_share(by_donors[None], sky[None]).item() > 0.95


def test_every_evaluation_is_counted_and_every_image_reported() -> None:
    model = ReadsMean(box(32, 0, 0, 8, 8))
    seen: list[tuple[int, int]] = []
    found = isolate(
        model,
        noise(2, 3, 32, 32),
        donors=noise(5, 3, 32, 32),
        side=12,
        stride=8,
        progress=lambda *step: seen.append(step),
    )
    assert found.evaluations == model.seen == 2 * (1 + 4 + 2 * 4 * len(windows_of((32, 32), 12, 8)))
    assert seen == [(1, 2), (2, 2)]


def test_donors_sorted_by_kind_are_used_evenly() -> None:
    bright, dark = torch.full((4, 3, 32, 32), 0.9), torch.full((4, 3, 32, 32), 0.1)
    model, image = ReadsMean(box(32, 0, 0, 32, 32)), torch.full((1, 3, 32, 32), 0.5)
    found = isolate(model, image, donors=torch.cat([bright, dark]), side=16, stride=8)
    assert found.maps.abs().max() < 1e-4  # a half of each: nothing is brighter than the donors
    only = isolate(model, image, donors=dark, side=16, stride=8)
    assert only.maps[:, 0].min() > 0.1


def test_few_donors_and_batches_change_nothing() -> None:
    model, images, donors = ReadsMean(box(32, 4, 4, 20, 20)), noise(2, 3, 32, 32), noise(2, 3, 32, 32, seed=1)
    first = isolate(model, images, donors=donors, donors_per_image=9, side=12, stride=8)
    again = isolate(model, images, donors=donors, donors_per_image=2, side=12, stride=8, batch=7)
    torch.testing.assert_close(first.maps, again.maps, atol=1e-5, rtol=1e-4)


def test_nan_is_an_error_and_the_model_is_put_back() -> None:
    model = ReadsMean(box(32, 0, 0, 8, 8)).train()
    with pytest.raises(ModelError, match="NaN or infinite"):
        isolate(model, torch.full((1, 3, 32, 32), torch.nan), donors=noise(2, 3, 32, 32))
    assert model.training
    assert model.head.weight.requires_grad


# --- evidence_share ----------------------------------------------------------------------------


def test_evidence_share_by_hand() -> None:
    maps = torch.tensor([[[3.0, -1.0], [2.0, -4.0]], [[-1.0, -2.0], [0.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    left = torch.tensor([[True, False], [True, False]]).expand(3, 2, 2)
    both, only_for = evidence_share(maps, left), evidence_share(maps, left, sign="for")
    assert both[:2].tolist() == pytest.approx([5 / 10, 1 / 4])
    assert only_for[0].item() == pytest.approx(1)
    assert torch.isnan(both).tolist() == [False, False, True]
    assert torch.isnan(only_for).tolist() == [False, True, True]
    assert evidence_share(maps, ~left, sign="for")[0].item() == pytest.approx(0)


def test_evidence_shares_of_a_partition_sum_to_one_and_chance_is_area() -> None:
    maps, region = noise(4, 20, 20) - 0.4, noise(4, 20, 20, seed=1) < 0.3
    for sign in ("both", "for"):
        inside, outside = (evidence_share(maps, r, sign=sign) for r in (region, ~region))
        torch.testing.assert_close(inside + outside, torch.ones(4).double())
    uniform = evidence_share(torch.full((4, 20, 20), -0.2), region)
    torch.testing.assert_close(uniform, region.double().mean((1, 2)))


# --- object_shapley ----------------------------------------------------------------------------

MASK = box(24, 6, 6, 18, 18)


def scene(count: int = 4, donors: int = 6) -> dict[str, Tensor]:
    """Objects at one place; all backgrounds are 0.3 behind it, so that only the object differs there."""
    clean = torch.where(MASK, torch.tensor(0.3), noise(count, 3, 24, 24, seed=1))
    return {
        "images": torch.where(MASK, noise(count, 3, 24, 24, seed=2), clean),
        "clean": clean,
        "masks": MASK.expand(count, -1, -1),
        "labels": torch.arange(count) % 2,
        "donors": torch.where(MASK, torch.tensor(0.3), noise(donors, 3, 24, 24, seed=3)),
    }


def odds_by_hand(model: nn.Module, image: Tensor, label: int) -> float:
    with torch.no_grad():
        p = model.eval()(image[None])[0].double().softmax(0)
    return float((p[label] / (1 - p[label])).log())


@pytest.mark.parametrize(("reads", "blind"), [(MASK, 1), (~MASK, 0)], ids=["object", "background"])
def test_shapley_gives_all_to_what_is_read(reads: Tensor, blind: int) -> None:
    model, s = ReadsMean(reads), scene()
    phi = object_shapley(model, **s)
    assert phi.shape == (4, 2)
    assert (phi[:, blind].abs() < 1e-4).all()
    for row in range(4):
        label = int(s["labels"][row])
        both = odds_by_hand(model, s["images"][row], label)
        neither = np.mean([odds_by_hand(model, donor, label) for donor in s["donors"]])
        assert abs(both - neither) > 0.01
        assert phi[row, 1 - blind].item() == pytest.approx(both - neither, abs=1e-4)


def test_shapley_values_by_hand_and_their_sum() -> None:
    model = build_model(ModelSpec("residual_cnn", ("a", "b", "c"), (24, 24), {"widths": [4, 6]}))
    s = scene()
    s["donors"] = noise(6, 3, 24, 24, seed=4)
    s["labels"] = torch.tensor([0, 1, 2, 1])
    phi = object_shapley(model, **s, donors_per_image=8)
    for row in range(4):
        image, label = s["images"][row], int(s["labels"][row])
        both, background = odds_by_hand(model, image, label), odds_by_hand(model, s["clean"][row], label)
        neither = np.mean([odds_by_hand(model, donor, label) for donor in s["donors"]])
        alone = np.mean([odds_by_hand(model, torch.where(MASK, image, d), label) for d in s["donors"]])
        by_hand = [
            (both - background + alone - neither) / 2,
            (both - alone + background - neither) / 2,
        ]
        assert phi[row].tolist() == pytest.approx(by_hand, abs=1e-4)
        assert phi[row].sum().item() == pytest.approx(both - neither, abs=1e-4)


# --- faded -------------------------------------------------------------------------------------


def test_faded_is_white_where_unused_and_itself_where_used_most() -> None:
    image, evidence = noise(3, 10, 10), noise(10, 10, seed=1) - 0.5
    out = faded(image, evidence, smooth=1)
    assert (out[:, evidence <= 0] == 1).all()
    top = evidence == evidence.max()
    torch.testing.assert_close(out[:, top], image[:, top])
    torch.testing.assert_close(faded(image, -evidence.abs()), torch.ones_like(image))


def test_faded_is_smooth_and_stays_between_the_picture_and_white() -> None:
    image, evidence = noise(3, 30, 30), torch.full((30, 30), -1.0)
    evidence[10:20, 10:20] = 2
    out = faded(image, evidence, smooth=9)
    assert (out >= image - 1e-6).all()
    assert (out <= 1).all()
    torch.testing.assert_close(out[:, 14:16, 14:16], image[:, 14:16, 14:16])
    assert (out[:, :6] == 1).all()
    weight = (1 - out[0, 15]) / (1 - image[0, 15])
    expected = uniform_filter((evidence[15] > 0).double().numpy(), 9) ** 0.5
    np.testing.assert_allclose(weight, expected, atol=1e-4)
    torch.testing.assert_close(faded(image, 7 * evidence, smooth=9), out)
