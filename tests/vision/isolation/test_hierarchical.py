"""Hierarchical perturbation against one window at a time, planted regions and dependent features."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candling.errors import ParamsError
from candling.models import ModelSpec, build_model, log_odds
from candling.vision.isolation import Hierarchical, evidence_share, isolate
from candling.vision.isolation.fills import FILLS, filled
from tests.vision.isolation.models import Both, Reads, box, noise

Array = NDArray[np.float64]
PLAIN = {"contexts": 0, "grains": (0.0,)}  # windows as they are


def small_cnn_of(side: int) -> nn.Module:
    spec = ModelSpec("residual_cnn", tuple("abcd"), (side, side), {"widths": [4, 6]})
    return build_model(spec, seed=1)


def small_cnn() -> nn.Module:
    return small_cnn_of(32)


# --- one window at a time ----------------------------------------------------------------------


def odds(model: nn.Module, image: Tensor) -> Array:
    with torch.no_grad():
        found: Array = log_odds(model, model.eval()(image[None]))[0].double().numpy()
    return found


def spans(side: int, cells: int) -> list[tuple[int, int]]:
    """Spans of two steps that begin a step before the side, as far as they lie in it."""
    edges = np.round(np.linspace(0, side, 2 * cells + 1)).astype(int)
    inner = [(edges[i], edges[i + 2]) for i in range(len(edges) - 2)]
    return [(0, edges[1]), *inner, (edges[-2], side)]


def one_at_a_time(
    model: nn.Module, image: Tensor, classes: list[int], *, cells: int, depths: int, keep: float
) -> Array:
    """Maps (K, H, W), with a loop for everything."""
    side = image.shape[1]
    fill = filled(image[None], "blur")[0]
    whole, empty = odds(model, image)[classes], odds(model, fill)[classes]
    region, maps, before = np.ones((side, side), bool), None, []
    for depth in range(depths):
        windows = []
        for (top, bottom), (left, right) in itertools.product(spans(side, cells * 2**depth), repeat=2):
            if region[top:bottom, left:right].mean() < 0.5:
                continue
            hidden, shown = image.clone(), fill.clone()
            hidden[:, top:bottom, left:right] = fill[:, top:bottom, left:right]
            shown[:, top:bottom, left:right] = image[:, top:bottom, left:right]
            gain = (whole - odds(model, hidden)[classes] + odds(model, shown)[classes] - empty) / 2
            windows.append((np.s_[top:bottom, left:right], gain))
        density, cover = np.zeros((len(classes), side, side)), np.zeros((side, side))
        for place, gain in windows:
            cover[place] += 1
            density[:, *place] += gain[:, None, None] / cover[place].size
        density /= np.maximum(cover, 1)
        maps = density if maps is None else shared(maps, density, cover > 0, before)
        sizes = np.abs([gain for _, gain in windows])
        least = sizes.min(0) + keep * (sizes.max(0) - sizes.min(0))
        region = np.zeros((side, side), bool)
        for (place, _), size in zip(windows, sizes, strict=True):
            region[place] |= bool((size >= least).any())
        before = [
            np.s_[a:b, c:d] for (a, b), (c, d) in itertools.product(spans(side, cells * 2**depth), repeat=2)
        ]
    assert maps is not None
    return maps


def shared(coarse: Array, fine: Array, seen: NDArray[np.bool_], windows: list[tuple[slice, slice]]) -> Array:
    guess = np.where(seen, fine, coarse)
    out = np.zeros_like(coarse)
    for k, sign in itertools.product(range(len(coarse)), (1, -1)):
        mass, part = np.maximum(sign * coarse[k], 0), np.maximum(sign * guess[k], 0) ** 2
        scale, left, cover = (np.zeros_like(mass) for _ in range(3))
        for place in windows:
            cover[place] += 1
            if part[place].sum() > 1e-20:
                scale[place] += mass[place].sum() / part[place].sum()
            else:
                left[place] += 1
        out[k] += sign * (part * scale + mass * left) / cover
    return out


@pytest.mark.parametrize(("keep", "batch"), [(0.5, None), (0.5, 7), (0.0, 64), (0.9, 3)])
def test_batches_are_one_window_at_a_time(keep: float, batch: int | None) -> None:
    model, images = small_cnn(), noise(3, 3, 32, 32)
    classes = torch.tensor([[0, 2], [1, 3], [3, 0]])
    method = Hierarchical(cells=3, depths=3, keep=keep, most=10**6, **PLAIN)
    found = isolate(model, images, classes=classes, method=method, batch=batch)
    for row, image in enumerate(images):
        expected = one_at_a_time(model, image, classes[row].tolist(), cells=3, depths=3, keep=keep)
        np.testing.assert_allclose(found.maps[row], expected, atol=1e-5)


# --- what is found -----------------------------------------------------------------------------

CORNER = box(64, 0, 0, 16, 16)


@pytest.mark.parametrize("side", [16, 24])
def test_a_corner_that_is_all_that_is_read_holds_the_evidence(side: int) -> None:
    region = box(64, 0, 0, side, side)
    images = torch.where(region, 0.9, 0.4 * noise(4, 3, 64, 64))
    classes = torch.tensor([[0, 2]] * 4)
    found = isolate(Reads(region), images, classes=classes, method=Hierarchical(fill="fade"))
    share = evidence_share(found.maps[:, 0], region.expand(4, -1, -1), sign="for")
    assert share.min() > 0.8, share
    # What speaks for one class speaks against the other.
    assert (found.maps[:, 0, region] > 0).all()
    assert (found.maps[:, 1, region] < 0).all()
    against = evidence_share(-found.maps[:, 1], region.expand(4, -1, -1), sign="for")
    assert against.min() > 0.8, against


@pytest.mark.parametrize("fill", FILLS)
def test_every_fill_puts_more_on_the_corner_than_its_area(fill: str) -> None:
    images = torch.where(CORNER, 0.9, 0.4 * noise(4, 3, 64, 64))
    found = isolate(
        Reads(CORNER), images, method=Hierarchical(fill=fill), classes=torch.zeros(4, 1, dtype=torch.long)
    )
    share = evidence_share(found.maps[:, 0], CORNER.expand(4, -1, -1), sign="for")
    assert share.min() > 6 * CORNER.float().mean(), share


def test_a_trained_network_that_reads_a_corner_gives_it_back() -> None:
    generator = torch.Generator().manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 64, 2),
    )  # fmt: skip
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        images = torch.rand(count, 3, 64, 64, generator=generator)
        labels = torch.randint(2, (count,), generator=generator)
        images[:, :, :16, :16] = 0.35 * images[:, :, :16, :16] + 0.6 * labels[:, None, None, None]
        return images, labels

    for _ in range(60):
        images, labels = draw(32)
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    images, labels = draw(8)
    with torch.no_grad():
        assert (network(images).argmax(1) == labels).all()
    # Slopes also show the little that it has learned of the noise elsewhere.
    for contexts, least in ((0, 0.8), (96, 0.75)):
        method = Hierarchical(fill="fade", contexts=contexts)
        found = isolate(network, images, classes=labels[:, None], method=method)
        share = evidence_share(found.maps[:, 0], CORNER.expand(8, -1, -1), sign="for")
        assert share.mean() > least, share


def test_finer_depths_are_looked_at_only_where_it_matters() -> None:
    images = torch.where(CORNER, 0.9, 0.4 * noise(1, 3, 64, 64))
    model = Reads(CORNER)
    found = isolate(model, images, method=Hierarchical(cells=4, depths=3, **PLAIN))
    everywhere = 2 * (9**2 + 17**2 + 33**2)
    assert found.evaluations == model.seen - 2  # of the two that see to the model before
    assert found.evaluations < everywhere / 4


@pytest.mark.parametrize("most", [60, 301, 640])
def test_an_image_takes_no_more_passes_than_it_may(most: int) -> None:
    images = noise(3, 3, 64, 64)
    method = Hierarchical(keep=0, most=most, **PLAIN)
    together = isolate(small_cnn_of(64), images, method=method)
    assert together.evaluations <= 3 * (most + 1)
    assert together.evaluations > 3 * (most - 3)
    alone = isolate(small_cnn_of(64), images[1:2], method=method)
    torch.testing.assert_close(together.maps[1], alone.maps[0], atol=1e-5, rtol=1e-3)


def test_a_class_that_nothing_matters_to_costs_and_holds_nothing() -> None:
    classes = torch.tensor([[0, 1]])
    blind = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))
    for parameter in blind.parameters():
        nn.init.zeros_(parameter)
    found = isolate(blind, noise(1, 3, 64, 64), classes=classes, method=Hierarchical())
    assert (found.maps == 0).all()
    assert found.evaluations == 1 + 1 + 2 * 5**2 + 4 * 2 * 16  # the last to choose of four grains


def test_one_pass_serves_all_classes_and_batches_are_full() -> None:
    model, images = Reads(CORNER), noise(4, 3, 64, 64)
    method = Hierarchical(cells=4, depths=1, **PLAIN)
    one = isolate(model, images, classes=torch.zeros(4, 1, dtype=torch.long), method=method)
    model.batches.clear()
    three = isolate(model, images, classes=torch.tensor([[0, 1, 2]] * 4), method=method, batch=50)
    assert one.evaluations == three.evaluations == 4 * (2 + 2 * 9**2)
    # The two probes, the pictures, the fills, and windows of all pictures together.
    assert model.batches == [2, 4, 4, *[50] * 12, 48]
    torch.testing.assert_close(one.maps[:, 0], three.maps[:, 0], atol=1e-5, rtol=1e-4)


def test_donors_and_several_fills_are_averaged() -> None:
    model, images = small_cnn(), noise(2, 3, 32, 32)
    donors = noise(4, 3, 32, 32, seed=1)
    classes = torch.tensor([[1], [2]])

    def maps(**settings: object) -> Tensor:
        return isolate(
            model, images, classes=classes, method=Hierarchical(depths=1, **PLAIN, **settings)
        ).maps

    both = (maps(fill="blur") + maps(fill="fade")) / 2
    torch.testing.assert_close(maps(fill=("blur", "fade")), both, atol=1e-6, rtol=1e-4)
    turns = [maps(donors=donors[[i, i]]) for i in range(4)]  # a single donor, at both places
    used = torch.stack([(turns[0][0] + turns[2][0]) / 2, (turns[1][1] + turns[3][1]) / 2])
    torch.testing.assert_close(maps(donors=donors, donors_per_image=2), used, atol=1e-6, rtol=1e-4)


# --- slopes and grain --------------------------------------------------------------------------


class Turned(nn.Module):
    """The log-odds of two classes are a sum of pixels, each with a weight of its own."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(3, side, side, seed=5) - 0.5)

    def forward(self, images: Tensor) -> Tensor:
        gain = (images * self.weight).sum((1, 2, 3)) / 20
        return torch.stack([gain, torch.zeros_like(gain)], 1)


def test_single_pixels_are_told_apart_where_a_model_has_slopes() -> None:
    model, images = Turned(32), noise(3, 3, 32, 32)
    zero = torch.zeros(3, 1, dtype=torch.long)
    found = isolate(model, images, classes=zero, method=Hierarchical(fill="fade", grains=(0.0, 0.06)))
    truth = ((images - 0.5) * model.weight / 20).sum(1).detach()
    agree = [np.corrcoef(found.maps[i, 0].flatten(), truth[i].flatten())[0, 1] for i in range(3)]
    assert min(agree) > 0.75, agree
    windows = isolate(model, images, classes=zero, method=Hierarchical(fill="fade", contexts=0))
    far = [np.corrcoef(windows.maps[i, 0].flatten(), truth[i].flatten())[0, 1] for i in range(3)]
    assert max(far) < min(agree), (far, agree)
    # As much for and against as windows found, whatever the slopes add up to.
    plain = isolate(model, images, classes=zero, method=Hierarchical(fill="fade", **PLAIN)).maps
    for sign in (1, -1):
        torch.testing.assert_close(
            (sign * found.maps).clamp_min(0).sum((1, 2, 3)), (sign * plain).clamp_min(0).sum((1, 2, 3)),
            rtol=1e-3, atol=1e-3,
        )  # fmt: skip


def test_a_model_without_slopes_is_asked_by_windows_alone() -> None:
    class Cut(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                out: Tensor = Reads(CORNER)(images)
            return out

    images = noise(2, 3, 64, 64)
    cut = isolate(Cut(), images)
    assert "windows alone, without slopes: the gradient of the logits does not reach" in cut.notes[-1]
    torch.testing.assert_close(cut.maps, isolate(Reads(CORNER), images, method=Hierarchical(contexts=0)).maps)


def test_slopes_cost_what_they_say() -> None:
    model, images = Reads(CORNER), noise(2, 3, 64, 64)
    for classes in (
        torch.tensor([[0], [2]]),
        torch.tensor([[0, 1, 2], [2, 1, 0]]),
        torch.tensor([[1, 1]] * 2),
    ):
        each = len(classes[0].unique())  # a class that is asked for twice is looked at once
        plain = isolate(model, images, classes=classes, method=Hierarchical(**PLAIN))
        model.seen = 0
        found = isolate(model, images, classes=classes, method=Hierarchical(contexts=10, grains=(0.0, 0.1)))
        assert found.evaluations - plain.evaluations == 2 * each * (10 * 2 + 4 * 16)
        # Of the passes ten are back; two and two probes see to the model before.
        assert model.seen == found.evaluations - 2 * each * 10 + 4
        torch.testing.assert_close(found.maps[1, 0], found.maps[1, -1]) if each == 1 else None


# --- pairs -------------------------------------------------------------------------------------

FIRST, SECOND = box(64, 0, 0, 16, 16), box(64, 32, 32, 48, 48)


def bright() -> Tensor:
    return torch.where(FIRST | SECOND, 0.9, 0.25 * noise(2, 3, 64, 64))


@pytest.mark.parametrize("either", [False, True], ids=["and", "or"])
def test_features_that_depend_on_each_other_come_first(either: bool) -> None:
    model = Both(FIRST, SECOND, either=either)
    found = isolate(
        model, bright(), classes=torch.zeros(2, 1, dtype=torch.long),
        method=Hierarchical(cells=4, pairs=True, fill="fade", depths=1, **PLAIN),
    )  # fmt: skip
    for image in range(2):
        pair = next(pair for pair in found.pairs if pair.image == image)
        assert {pair.first, pair.second} == {(0, 0, 16, 16), (32, 32, 48, 48)}
        # With both or with either of them the log-odds go from one end of [-6, 6] to the other.
        assert (pair.hidden > 2) == either
        assert (pair.shown > 2) == (not either)
        assert (pair.shown < -2) == either
    plain = isolate(model, bright(), method=Hierarchical(cells=4, fill="fade", depths=1, **PLAIN))
    assert found.evaluations - plain.evaluations == 2 * 2 * (8 * 7 // 2)
    assert not plain.pairs


def test_features_that_add_up_are_no_pair() -> None:
    method = Hierarchical(cells=4, pairs=True, fill="fade", depths=1, **PLAIN)
    apart = isolate(build_pair_free(), bright(), classes=torch.zeros(2, 1, dtype=torch.long), method=method)
    assert len(apart.pairs) == 2 * 28
    assert max(pair.strength for pair in apart.pairs) < 1e-4


def build_pair_free() -> nn.Module:
    """Two logits z and 0 with z linear in the pixels, so that log-odds are."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))
    weights = torch.zeros(2, 3, 64, 64)
    weights[0, :, FIRST | SECOND] = 0.01
    model[1].weight.data, model[1].bias.data = weights.flatten(1), torch.zeros(2)
    return model


def test_hiding_alone_says_nothing_of_showing() -> None:
    method = Hierarchical(cells=4, pairs=True, showing=False, fill="fade", depths=1, **PLAIN)
    found = isolate(Both(FIRST, SECOND), bright(), method=method)
    assert all(np.isnan(pair.shown) for pair in found.pairs)
    assert found.evaluations == 2 * (1 + 9**2 + 28)


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cells": 0}, "cells is 0"),
        ({"depths": 1.5}, "depths is 1.5"),
        ({"keep": 2}, "keep is 2"),
        ({"fill": "blurr"}, "no fill 'blurr'; the nearest is 'blur'"),
        ({"fill": ()}, "fill is empty"),
        ({"contexts": -1}, "contexts is -1"),
        ({"grains": ()}, "grains is empty"),
        ({"grains": (0.0, 0.7)}, "a grain is 0.7; it must be a number from 0 to 0.5"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        Hierarchical(**settings)


def test_the_repr_says_what_was_configured() -> None:
    assert repr(Hierarchical(cells=3, donors=noise(2, 3, 8, 8))).startswith("Hierarchical(cells=3, depths=")
    assert "donors=2 pictures" in repr(Hierarchical(donors=noise(2, 3, 8, 8)))
