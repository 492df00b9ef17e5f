"""Slopes in random contexts, and how fine a map is, against sums that are known."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from candling.models import Batches, log_odds, logits
from candling.vision.faithfulness import insertion_minus_deletion
from candling.vision.isolation.contexts import open_masks, slopes_in_contexts
from candling.vision.isolation.fills import filled
from candling.vision.isolation.found import Asked
from candling.vision.isolation.grain import candidates, finest, smoothed, weighed
from tests.vision.isolation.models import Reads, box, noise

REGION = box(32, 4, 8, 20, 24)


def asked(count: int = 4) -> Asked:
    model, images = Reads(REGION), noise(count, 3, 32, 32)
    classes = torch.tensor([[0, 2]] * count)
    odds = log_odds(model, logits(model, images)).gather(1, classes)
    return Asked(model=model, images=images, classes=classes, odds=odds, batches=Batches(7))


def test_masks_are_grids_enlarged_and_shifted() -> None:
    grids = noise(2, 8, 8)
    masks = open_masks(grids, torch.zeros(2, 2), (56, 56))
    # Without a shift, a cell is eight pixels, and its middle between the fourth and the fifth.
    middles = (masks[:, 3::8, 3::8] + masks[:, 4::8, 4::8] + masks[:, 3::8, 4::8] + masks[:, 4::8, 3::8]) / 4
    torch.testing.assert_close(middles[:, 1:-1, 1:-1], grids[:, 1:-2, 1:-2], atol=0.13, rtol=0)
    moved = open_masks(grids, torch.tensor([[0.5, 0.0]] * 2), (56, 56))
    torch.testing.assert_close(moved[:, :-4], masks[:, 4:])
    # An even grid has no places.
    even = open_masks(torch.full((1, 8, 8), 0.3), torch.rand(1, 2), (30, 50))
    torch.testing.assert_close(even, torch.full((1, 30, 50), 0.3))


def test_slopes_of_a_sum_are_its_weights_in_every_context() -> None:
    one = asked()
    fills = torch.stack([filled(one.images, "fade"), torch.zeros_like(one.images)], 1)
    maps, passes = slopes_in_contexts(one, fills, 6)
    assert passes == 4 * 2 * 6 * 2
    assert (maps[..., ~REGION] == 0).all()
    # Of three classes with logits g, 0 and -g what speaks for the first speaks against the last.
    assert np.corrcoef(maps[:, 0, REGION].flatten(), maps[:, 1, REGION].flatten())[0, 1] < -0.9
    # In turns from grey and from black: a pixel's slope is of what it differs from both.
    differs = (one.images - fills.mean(1)).sum(1)[:, REGION]
    for row in range(4):
        assert np.corrcoef(maps[row, 0, REGION], differs[row])[0, 1] > 0.9


def test_slopes_are_a_pictures_own() -> None:
    whole = asked()
    fills = filled(whole.images, "blur")[:, None]
    together, _ = slopes_in_contexts(whole, fills, 9)
    alone = Asked(
        model=whole.model, images=whole.images[2:3], classes=whole.classes[2:3], odds=whole.odds[2:3],
        batches=Batches(64),
    )  # fmt: skip
    torch.testing.assert_close(slopes_in_contexts(alone, fills[2:3], 9)[0][0], together[2])


def test_the_most_faithful_map_is_taken() -> None:
    one = asked()
    base = torch.zeros_like(one.images)
    good = (one.images - base).sum(1) * REGION
    maps = torch.stack([noise(4, 32, 32), good, -good])[:, :, None].expand(-1, -1, 2, -1, -1).clone()
    maps[:, :, 1] *= -1
    chosen, passes = finest(one, maps, base)
    assert passes == 3 * 4 * 2 * 16
    torch.testing.assert_close(chosen, maps[1])
    # And it is that by the figure that maps are judged by, which has other steps and another baseline.
    scores = torch.stack(
        [insertion_minus_deletion(one.model, one.images, some, one.classes, baseline="mean") for some in maps]
    )
    assert (scores.mean((1, 2)).argmax() == 1).all()
    same, none = finest(one, maps[:1], base)
    assert none == 0
    torch.testing.assert_close(same, maps[0])


def test_candidates_hold_as_much_as_windows() -> None:
    windows, slopes = noise(2, 1, 32, 32) - 0.5, 50 * (noise(2, 1, 32, 32, seed=1) - 0.5)
    made = candidates(windows, slopes, (0.0, 0.1))
    assert made.shape == (4, 2, 1, 32, 32)
    total = windows.abs().sum((2, 3))
    torch.testing.assert_close(made[2].abs().sum((2, 3)), total)
    torch.testing.assert_close(made[0], (made[2] + smoothed(windows, 0.05)) / 2)
    torch.testing.assert_close(candidates(windows, None, (0.0,))[0], windows)
    # A class without slopes has its windows.
    torch.testing.assert_close(candidates(windows, torch.zeros_like(slopes), (0.0,))[1], windows)


def test_weighing_keeps_the_order_and_the_windows_sums() -> None:
    maps, windows = noise(2, 1, 16, 16) - 0.4, noise(2, 1, 16, 16, seed=1) - 0.6
    out = weighed(maps, windows)
    assert torch.equal(out.flatten(2).argsort(2), maps.flatten(2).argsort(2))
    for sign in (1, -1):
        torch.testing.assert_close(
            (sign * out).clamp_min(0).sum((2, 3)), (sign * windows).clamp_min(0).sum((2, 3))
        )
    # Where windows found nothing against a class, its pixels come last in the order that they had.
    rest = weighed(maps, windows.abs())
    assert torch.equal(rest.flatten(2).argsort(2), maps.flatten(2).argsort(2))
    assert (-rest).clamp_min(0).sum() < 1e-3 * rest.clamp_min(0).sum()


def test_smoothing_is_a_gaussian() -> None:
    rough = (noise(1, 2, 32, 32) - 0.5).double()
    smooth = smoothed(rough, 0.05).numpy()
    expected = gaussian_filter1d(gaussian_filter1d(rough.numpy(), 1.6, 2, truncate=9), 1.6, 3, truncate=9)
    inner = np.s_[..., 10:-10, 10:-10]  # what happens beyond the edge differs
    np.testing.assert_allclose(smooth[inner], expected[inner], atol=1e-5)
