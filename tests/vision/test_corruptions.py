"""Corruptions against SciPy, colorsys and torchvision, at every severity and size."""

from __future__ import annotations

import colorsys
import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchvision.io import decode_jpeg, encode_jpeg

from candling.vision.corruptions import CORRUPTIONS, SEVERITIES, corrupt, strength

NAMES = list(CORRUPTIONS)


def scenes(count: int, side: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth coloured pictures with edges, (N, 3, side, side) in [0, 1]."""
    generator = torch.Generator().manual_seed(side)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    smooth[:, :, side // 3 : side // 2, side // 4 : 3 * side // 4] *= 0.3
    return (0.9 * smooth).to(dtype)


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels of each image."""
    return -10 * (one - other).double().square().mean((1, 2, 3)).log10()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [32, 64, 96])
def test_each_severity_is_worse_than_the_one_before(name: str, side: int) -> None:
    images = scenes(3, side)
    levels = torch.stack([psnr(corrupt(images, name, s), images).mean() for s in SEVERITIES])
    assert (levels.diff() < 0).all()
    # From a change that can be seen to one that still leaves a picture.
    assert 5 < levels.min() < levels.max() < 55


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_do_not_matter(name: str, dtype: torch.dtype) -> None:
    images = scenes(5, 32, dtype)
    whole = corrupt(images, name, 3, seed=7)
    assert whole.dtype == dtype
    assert whole.shape == images.shape
    assert whole.min() >= 0
    assert whole.max() <= 1
    order = [4, 1, 3]
    parts = corrupt(images[order], name, 3, seed=7, indices=order)
    assert torch.equal(parts, whole[order])
    assert torch.equal(corrupt(images, name, 3, seed=7), whole)


def test_noise_is_new_for_each_image_and_seed_and_leaves_the_global_state() -> None:
    images = torch.full((2, 3, 32, 32), 0.5)
    before = torch.random.get_rng_state()
    found = corrupt(images, "noise", 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found, corrupt(images, "noise", 1, seed=1))
    # The same noise grows with the severity.
    more = corrupt(images, "noise", 2)
    assert torch.allclose(more - 0.5, 1.5 * (found - 0.5), atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_published_deviation(severity: int) -> None:
    images = torch.full((1, 3, 224, 224), 0.5)
    difference = corrupt(images, "noise", severity) - images
    expected = CORRUPTIONS["noise"].large[severity - 1]
    inside = difference.abs() < 0.5
    if severity <= 2:
        assert float(difference.std()) == pytest.approx(expected, rel=0.01)
    # Clipping at black and white: as much as a normal has beyond half of white.
    beyond = torch.distributions.Normal(0.0, expected).cdf(torch.tensor(-0.5)) * 2
    assert float(1 - inside.float().mean()) == pytest.approx(float(beyond), abs=0.004)


@pytest.mark.parametrize(("side", "severity"), [(32, 1), (32, 5), (64, 3), (224, 2)])
def test_blur_is_scipys(side: int, severity: int) -> None:
    image = scenes(1, side, torch.float64)
    sigma = strength("blur", severity, side)
    expected = gaussian_filter(image[0].numpy(), (0, sigma, sigma), mode="nearest", truncate=4.0)
    assert corrupt(image, "blur", severity)[0].numpy() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_shrinks_each_channel_around_its_mean(severity: int) -> None:
    image = scenes(1, 224, torch.float64)
    found = corrupt(image, "contrast", severity)
    assert torch.allclose(found.mean((2, 3)), image.mean((2, 3)))
    ratio = found.std((2, 3)) / image.std((2, 3))
    assert ratio.flatten().tolist() == pytest.approx([(0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]] * 3)


def test_brightness_raises_the_value_and_keeps_the_hue() -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 5, 5, generator=generator, dtype=torch.float64)
    image[0, :, 0, 0] = 0.0
    image[0, :, 0, 1] = torch.tensor([0.9, 0.2, 0.4])
    shift = strength("brightness", 4, 5)
    found = corrupt(image, "brightness", 4)
    for pixel, after in zip(image[0].flatten(1).T.tolist(), found[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(value + shift, 1)), abs=1e-9)


@pytest.mark.parametrize("severity", [1, 5])
def test_jpeg_is_that_of_another_encoder(severity: int) -> None:
    image = scenes(1, 96)
    pixels = (image[0] * 255).round().byte()
    quality = round(strength("jpeg", severity, 96))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)
        expected = decode_jpeg(encode_jpeg(pixels, quality=quality)).float() / 255
    found = corrupt(image, "jpeg", severity)[0]
    # The same tables; subsampling of colours may round differently.
    assert float((found - expected).abs().mean()) < 0.01
    assert not torch.equal(found, image[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_strengths_are_the_published_ones_and_lie_between_them(name: str, severity: int) -> None:
    kind = CORRUPTIONS[name]
    small, large = kind.small[severity - 1], kind.large[severity - 1]
    assert strength(name, severity, 32) == pytest.approx(small)
    assert strength(name, severity, 16) == pytest.approx(small)
    assert strength(name, severity, 224) == pytest.approx(large)
    # sqrt(32 · 224) lies half-way on a logarithmic scale.
    assert strength(name, severity, 85) == pytest.approx((small * large) ** 0.5, rel=0.01)
    grown = 512 / 224 if name == "blur" else 1
    assert strength(name, severity, 512) == pytest.approx(large * grown)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 7, 40), (0, 3, 8, 8)])
def test_odd_shapes(name: str, shape: tuple[int, ...]) -> None:
    assert corrupt(torch.full(shape, 0.4), name, 5).shape == shape


@pytest.mark.parametrize(
    ("images", "name", "severity", "words"),
    [
        (torch.zeros(3, 8, 8), "noise", 1, "must be float"),
        (torch.zeros(1, 1, 8, 8), "noise", 1, "must be float"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "noise", 1, "must be float"),
        (torch.full((1, 3, 8, 8), 1.1), "blur", 1, r"must lie in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), torch.nan), "blur", 1, r"must lie in \[0, 1\]"),
        (torch.zeros(1, 3, 8, 8), "snow", 1, "'snow' is not known; there are noise, blur"),
        (torch.zeros(1, 3, 8, 8), "jpeg", 6, "from 1 to 5, got 6"),
        (torch.zeros(1, 3, 8, 8), "jpeg", 0, "from 1 to 5, got 0"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(images: Tensor, name: str, severity: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        corrupt(images, name, severity)


def test_indices_must_fit() -> None:
    with pytest.raises(ValueError, match="2 images need as many indices, got 1"):
        corrupt(torch.zeros(2, 3, 8, 8), "noise", 1, indices=[0])


def test_pictures_that_are_their_own_worst_case_stay_in_range() -> None:
    checker = torch.from_numpy(np.indices((40, 40)).sum(0) % 2).float().expand(2, 3, 40, 40)
    for name in NAMES:
        for severity in SEVERITIES:
            found = corrupt(checker, name, severity)
            assert torch.isfinite(found).all()
            assert 0 <= found.min() <= found.max() <= 1
