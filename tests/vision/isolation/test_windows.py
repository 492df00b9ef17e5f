"""Sliding windows against exact answers: linear models and planted patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from candling.models import ModelSpec, build_model
from candling.vision.isolation import Isolation, Windows, blurred_fill, evidence_share, windows_of
from candling.vision.isolation import isolate as isolate_by


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


def isolate(model: nn.Module, images: Tensor, classes: Tensor | None = None, **settings: Any) -> Isolation:
    """By windows, for the classes given, or for two in their order."""
    if classes is None:
        classes = torch.tensor([[0, 1]] * len(images))
    return isolate_by(model, images, classes=classes, method=Windows(**settings))


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
    every = isolate(model, images, torch.tensor([[0, 1, 2, 3]] * 2))
    chosen = torch.tensor([[3, 1], [0, 0]])
    some = isolate(model, images, chosen)
    assert some.classes.tolist() == chosen.tolist()
    torch.testing.assert_close(some.maps, torch.stack([every.maps[i, chosen[i]] for i in range(2)]))


@pytest.mark.parametrize("fill", ["donors", "blur"])
def test_a_linear_model_gets_the_exact_answer(fill: str) -> None:
    images, donors = noise(3, 3, 32, 32), noise(4, 3, 32, 32, seed=1)
    weights = noise(3, 32, 32, seed=2) - 0.5
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    model[1].weight.data = torch.stack([weights.flatten(), -0.5 * weights.flatten()])
    found = isolate(model, images, donors=donors if fill == "donors" else None, side=12, stride=8)
    assert found.notes[-1].endswith("patches of donors") == (fill == "donors")
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
    found = isolate_by(
        model,
        noise(2, 3, 32, 32),
        method=Windows(donors=noise(5, 3, 32, 32), side=12, stride=8),
        progress=lambda *step: seen.append(step),
    )
    assert found.evaluations == 2 * (1 + 4 + 2 * 4 * len(windows_of((32, 32), 12, 8)))
    assert found.evaluations == model.seen - 2  # of the two that see to the model before
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
    settings = Windows(donors=donors, donors_per_image=2, side=12, stride=8)
    again = isolate_by(model, images, classes=first.classes, method=settings, batch=7)
    torch.testing.assert_close(first.maps, again.maps, atol=1e-5, rtol=1e-4)
