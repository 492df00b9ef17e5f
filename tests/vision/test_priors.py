"""Priors: what is planted in pictures is found, and the one that ships is that of photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from candling.errors import DataError, ParamsError
from candling.vision.priors import Prior, fit_prior, isotropic, natural_prior, steeper


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int = 40, side: int = 24, channels: int = 3) -> Tensor:
    """Soft blobs of colour with a little grain."""
    coarse = F.interpolate(noise(count, channels, 4, 4), size=(side, side), mode="bilinear")
    return (0.15 + 0.7 * coarse + 0.05 * noise(count, channels, side, side, seed=1)).clamp(0, 1)


@pytest.fixture(scope="module")
def prior() -> Prior:
    return fit_prior(pictures())


# --- fit_prior ---------------------------------------------------------------------------------


def test_mean_is_that_of_the_empty_pictures() -> None:
    images, empty = pictures(), noise(7, 3, 24, 24, seed=3)
    clipped = empty.clamp(0.02, 0.98).numpy()
    expected = np.log(clipped / (1 - clipped)).mean(0)
    np.testing.assert_allclose(fit_prior(images, empty).mean, expected, atol=1e-5)
    assert not np.allclose(fit_prior(images).mean, expected, atol=0.1)
    np.testing.assert_allclose(fit_prior(empty).mean, expected, atol=1e-5)


def test_colours_are_those_of_the_data(prior: Prior) -> None:
    values = torch.logit(pictures().clamp(0.02, 0.98)).numpy()
    pixels = (values - values.mean(0)).transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(prior.colours @ prior.colours.T, np.cov(pixels), atol=1e-4)


def test_bytes_and_floats_give_the_same_prior() -> None:
    as_bytes = (pictures() * 255).round().to(torch.uint8)
    first, second = fit_prior(as_bytes), fit_prior(as_bytes.float() / 255)
    for name in ("mean", "colours", "spectrum"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name))


def test_a_planted_frequency_stands_out_and_mirrors_are_alike() -> None:
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    phase = 2 * torch.pi * noise(30, 3, 1, 1)
    waves = torch.sin(2 * torch.pi * (3 * y + 5 * x) / 24 + phase)
    images = 0.5 + 0.2 * waves + 0.02 * noise(30, 3, 24, 24, seed=1)
    spectrum, mirrored = fit_prior(images).spectrum, fit_prior(images.flip(3)).spectrum
    torch.testing.assert_close(spectrum, mirrored, atol=1e-2, rtol=1e-2)
    for plane in spectrum:
        peaks = {tuple(divmod(int(i), 13)) for i in plane.flatten().topk(2).indices}
        assert peaks == {(3, 5), (21, 5)}
        assert plane[3, 5] > 10 * plane.median()


def test_pictures_without_colour_have_a_prior() -> None:
    grey = pictures()[:, :1].expand(-1, 3, -1, -1)
    found = fit_prior(grey)
    assert all(getattr(found, name).isfinite().all() for name in ("mean", "colours", "spectrum"))


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_any_number_of_channels(channels: int) -> None:
    images = pictures(channels=channels)
    found = fit_prior(images)
    assert found.channels == channels
    assert found.size == (24, 24)
    assert found.spectrum.shape == (channels, 24, 13)
    values = torch.logit(images.clamp(0.02, 0.98)).numpy()
    pixels = (values - values.mean(0)).transpose(1, 0, 2, 3).reshape(channels, -1)
    np.testing.assert_allclose(
        found.colours @ found.colours.T, np.cov(pixels).reshape(channels, channels), atol=1e-4
    )


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (3, 8, 8)])
def test_without_pictures_there_is_no_prior(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="fitted on pictures"):
        fit_prior(torch.zeros(shape))


# --- natural_prior -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 24), (1, 7)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_natural_spectrum_falls_as_one_over_f_with_pixels_of_variance_one(
    size: tuple[int, int], channels: int
) -> None:
    found = natural_prior(size, channels)
    assert found.mean.shape == (channels, *size)
    assert not found.mean.any()
    height, width = size
    whole = np.zeros((channels, height, width))
    for i in range(height):
        for j in range(width):
            # The other half of the spectrum of a real picture, by its symmetry.
            half = (i, j) if j <= width // 2 else (-i % height, width - j)
            whole[:, i, j] = found.spectrum[:, *half]
    np.testing.assert_allclose((whole**2).sum((1, 2)) / (height * width), 1, rtol=1e-5)
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) * max(size)
    products = (whole * np.maximum(f, 1)).reshape(channels, -1)
    np.testing.assert_allclose(products, products[:, :1].repeat(height * width, 1), rtol=1e-5)


def test_natural_colours_are_mostly_grey() -> None:
    covariance = (lambda c: c @ c.T)(natural_prior((8, 8)).colours)
    deviations = covariance.diagonal().sqrt()
    correlation = covariance / deviations[:, None] / deviations
    assert correlation.min() > 0.7
    assert correlation.max() < 1 + 1e-6
    plain = natural_prior((8, 8), 4).colours
    torch.testing.assert_close(plain, plain[0, 0] * torch.eye(4))
    torch.testing.assert_close(plain[0, 0], deviations.mean(), rtol=0.01, atol=0)


@pytest.mark.parametrize(("size", "channels"), [((0, 8), 3), ((8, 8), 0)])
def test_a_natural_prior_of_nothing(size: tuple[int, int], channels: int) -> None:
    with pytest.raises(ParamsError, match="is not a"):
        natural_prior(size, channels)


# --- resized, isotropic, steeper ---------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 48), (24, 24), (61, 35), (7, 90)])
def test_resizing_keeps_one_over_f(size: tuple[int, int]) -> None:
    small = natural_prior((24, 24), 2)
    found = small.resized(size)
    assert found.size == size
    height, width = size
    cycles = np.hypot(
        np.fft.fftfreq(height, 1 / height)[:, None] * max(size) / height,
        np.fft.rfftfreq(width, 1 / width) * max(size) / width,
    )
    flat = found.spectrum.numpy() * np.maximum(cycles, 1)
    if height == width:
        np.testing.assert_allclose(flat, flat[0, 0, 0], rtol=1e-5)
    # A wave of one cycle, of the same contrast at both sizes.
    at_one = small.spectrum[:, 0, 1] * (height * width) ** 0.5 / 24
    np.testing.assert_allclose(found.spectrum[:, 0, 1], at_one * max(1, 1 / cycles[0, 1]), rtol=1e-5)


def test_resizing_keeps_a_planted_frequency(prior: Prior) -> None:
    spectrum = prior.spectrum.clone()
    spectrum[:, 3, 5] *= 100
    found = Prior(prior.mean, prior.colours, spectrum).resized((50, 60))
    torch.testing.assert_close(
        found.spectrum[:, 3, 5] / found.spectrum[:, 3, 4], spectrum[:, 3, 5] / spectrum[:, 3, 4], rtol=0.1,
        atol=0,
    )  # fmt: skip
    torch.testing.assert_close(found.mean.mean((1, 2)), prior.mean.mean((1, 2)), rtol=0.02, atol=0.01)
    assert prior.resized((24, 24)) is prior
    with pytest.raises(ParamsError, match="not a height and a width"):
        prior.resized((0, 4))


def test_isotropic_has_neither_places_nor_directions(prior: Prior) -> None:
    found = isotropic(prior)
    assert (found.mean == found.mean[:, :1, :1]).all()
    for k in range(1, 12):
        torch.testing.assert_close(found.spectrum[:, k, 0], found.spectrum[:, 0, k])
        ring = [
            float(prior.spectrum[0, i, j] ** 2)
            for i in range(24)
            for j in range(13)
            if round(float(np.hypot(min(i, 24 - i), j))) == k
        ]
        assert float(found.spectrum[0, 0, k]) == pytest.approx(np.sqrt(np.mean(ring)), rel=1e-4)


def power_of(prior: Prior) -> np.ndarray:
    """Of each channel's pictures: the sum over both halves of the spectrum, one of which is kept."""
    spectrum, width = prior.spectrum.double().numpy(), prior.size[1]
    seen = np.concatenate([spectrum, spectrum[:, :, 1 : (width + 1) // 2]], 2)
    assert seen.shape[2] == width
    return (seen**2).sum((1, 2))


@pytest.mark.parametrize("size", [(24, 24), (17, 30), (32, 21)])
@pytest.mark.parametrize("by", [0.35, 1.0, -0.5])
def test_steeper_falls_faster_and_is_as_strong(size: tuple[int, int], by: float) -> None:
    fit = fit_prior(0.8 * noise(20, 2, *size) + 0.1)
    for prior in (natural_prior(size), fit):
        found = steeper(prior, by)
        np.testing.assert_allclose(power_of(found), power_of(prior), rtol=1e-5)
        cycles = np.hypot(np.fft.fftfreq(size[0])[:, None] * max(size), np.fft.rfftfreq(size[1]) * max(size))
        expected = prior.spectrum.double().numpy() * np.maximum(cycles, 1) ** -by
        expected *= np.sqrt(
            power_of(prior) / power_of(Prior(prior.mean, prior.colours, torch.tensor(expected)))
        )[:, None, None]
        np.testing.assert_allclose(found.spectrum, expected, rtol=1e-4, atol=1e-7)
        assert torch.equal(found.mean, prior.mean)
        assert torch.equal(found.colours, prior.colours)


def test_steeper_by_slope() -> None:
    found = steeper(natural_prior((64, 64)), 0.35).spectrum[0, 0]
    slope = np.polyfit(np.log(np.arange(1, 33)), np.log(found[1:].numpy()), 1)[0]
    assert slope == pytest.approx(-1.35, abs=1e-4)


def test_steeper_where_there_is_nothing() -> None:
    prior = natural_prior((8, 8))
    blank = Prior(prior.mean, prior.colours, torch.zeros_like(prior.spectrum))
    assert torch.equal(steeper(blank, 0.35).spectrum, blank.spectrum)
