"""Regularisers: one for photographs of every size, nothing for plain grey, held to NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from candling.errors import ParamsError
from candling.vision.parameterisations import backgrounds
from candling.vision.priors import natural_prior
from candling.vision.regularisers import blur, diversity, high_frequency, l1, l2, total_variation

Penalty = Callable[[Tensor], Tensor]
PENALTIES: list[Penalty] = [total_variation, high_frequency, l1, l2]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed))


# --- penalties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES)
def test_natural_pictures_cost_one_at_every_size(penalty: Penalty) -> None:
    sizes = [(32, 32), (64, 64), (128, 128), (256, 256), (512, 512), (33, 47), (48, 128)]
    found = []
    for size in sizes:
        cost = penalty(backgrounds(natural_prior(size), generator(), 12))
        assert cost.shape == (12,)
        found.append(float(cost.mean()))
    assert found == pytest.approx([1] * len(sizes), abs=0.12)
    assert max(found) / min(found) < 1.25


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("shape", [(2, 1, 9, 9), (2, 3, 32, 21), (2, 13, 8, 30)])
def test_grey_costs_nothing_and_rows_cost_by_themselves(penalty: Penalty, shape: tuple[int, ...]) -> None:
    assert penalty(torch.full(shape, 0.5)).abs().max() < 1e-9
    images = noise(*shape).requires_grad_()
    cost = penalty(images)
    assert (cost > 0).all()
    torch.testing.assert_close(penalty(images[1:]), cost[1:])
    (gradient,) = torch.autograd.grad(cost[1], images)
    assert gradient[1].abs().max() > 0
    assert not gradient[0].any()


@pytest.mark.parametrize("penalty", [total_variation, high_frequency])
def test_white_noise_costs_more_than_a_photograph_of_its_contrast_and_a_ramp_less(penalty: Penalty) -> None:
    for side in (32, 128):
        white = 0.5 + 0.22 * 3**0.5 * (2 * noise(1, 3, side, side) - 1)
        assert penalty(white).item() > 1.7
        wave = 0.5 + 0.3 * torch.sin(2 * torch.pi * torch.arange(side) / side).expand(1, 3, side, side)
        assert penalty(wave).item() < 0.6


def test_contrast_counts_once_or_squared() -> None:
    images = noise(1, 3, 24, 24)
    half = 0.5 + 0.5 * (images - 0.5)
    for penalty, ratio in ((total_variation, 2), (l1, 2), (high_frequency, 4), (l2, 4)):
        assert float(penalty(images) / penalty(half)) == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (16, 7)])
def test_high_frequencies_are_numpys(size: tuple[int, int]) -> None:
    images = noise(2, 3, *size)
    f = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1]))
    power = np.abs(np.fft.fft2(images.double().numpy())) ** 2
    high = (power * (f > 0.25)).sum((2, 3)).mean(1)
    natural = 1 / np.maximum(f * max(size), 1) ** 2
    # Power that sums to the variance of a photograph over all frequencies.
    expected = high / ((natural * (f > 0.25)).sum() / natural.sum() * 0.22**2 * (size[0] * size[1]) ** 2)
    np.testing.assert_allclose(high_frequency(images), expected, rtol=1e-4)


def test_total_variation_of_stripes_by_hand() -> None:
    stripes = torch.tensor([0.4, 0.6]).repeat(6).expand(1, 1, 12, 12)
    f = np.fft.fftfreq(12)
    natural = 1 / np.maximum(np.hypot(f[:, None], f) * 12, 1) ** 2
    step = np.sqrt((natural / natural.sum() * 4 * np.sin(np.pi * f) ** 2).sum())
    expected = 0.2 / (2 * 0.22 * np.sqrt(2 / np.pi) * step)
    assert total_variation(stripes).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("penalty", [total_variation, high_frequency])
def test_one_pixel_has_no_neighbours(penalty: Penalty) -> None:
    with pytest.raises(ParamsError, match="no neighbours"):
        penalty(torch.zeros(1, 3, 1, 8))


# --- blur --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 40), (30, 48), (1, 9)])
@pytest.mark.parametrize("sigma", [0.005, 0.04, 0.5])
def test_blur_is_scipys(size: tuple[int, int], sigma: float) -> None:
    images = noise(2, 3, *size)
    pixels = sigma * max(size)
    radius = int(np.ceil(3 * pixels))
    expected = ndimage.gaussian_filter(
        images.numpy(), (0, 0, pixels, pixels), mode="mirror", radius=(0, 0, radius, radius)
    )
    np.testing.assert_allclose(blur(images, sigma), expected, atol=1e-5)


def test_blur_keeps_planes_and_reaches_as_far_at_every_size() -> None:
    plain = torch.full((1, 2, 5, 4), 0.3)
    torch.testing.assert_close(blur(plain, 0.5), plain)
    assert blur(plain, 0) is plain
    with pytest.raises(ParamsError, match="blur of -1"):
        blur(plain, -1)
    left = []
    for side in (64, 256):
        wave = torch.sin(2 * torch.pi * 4 * (torch.arange(side) + 0.5) / side).expand(1, 1, side, side)
        left.append(float(blur(wave, 0.03).std() / wave.std()))
    assert left[0] == pytest.approx(left[1], rel=0.02)
    assert 0.5 < left[0] < 0.9


# --- diversity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (4, 5, 3), (7, 5)])
def test_diversity_by_hand(shape: tuple[int, ...]) -> None:
    features, groups = noise(5, *shape) - 0.5, torch.tensor([1, 0, 1, 1, 7])
    rows = features.double().numpy()
    if len(shape) == 3:
        rows = np.einsum("rchw,rdhw->rcd", rows, rows)
    elif len(shape) == 2:
        rows = np.einsum("rtd,rte->rde", rows, rows)
    rows = rows.reshape(5, -1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = [
        np.mean([unit[i] @ unit[j] for j in others]) if others else 0
        for i, others in enumerate([[2, 3], [], [0, 3], [0, 2], []])
    ]
    np.testing.assert_allclose(diversity(features, groups), expected, atol=1e-5)


def test_diversity_of_copies_is_one_wherever_things_are() -> None:
    features = noise(1, 4, 6, 6)
    moved = torch.cat([features, features.roll(2, 3), features.flip(2)])
    torch.testing.assert_close(diversity(moved, torch.zeros(3, dtype=torch.int64)), torch.ones(3))


def test_diversity_pushes_apart() -> None:
    features = noise(2, 8).requires_grad_()
    groups = torch.zeros(2, dtype=torch.int64)
    before = diversity(features, groups)
    (gradient,) = torch.autograd.grad(before.sum(), features)
    assert (diversity(features - 0.1 * gradient, groups) < before).all()


def test_features_of_zero_have_a_gradient() -> None:
    features = torch.zeros(3, 4, 2, 2).requires_grad_()
    cost = diversity(features, torch.zeros(3, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(cost.sum(), features)
    assert not cost.any()
    assert gradient.isfinite().all()
