"""Parameterisations: what is drawn and what is seen, held to NumPy's Fourier transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from candling.errors import DataError
from candling.vision.parameterisations import (
    Fourier,
    Maco,
    Parameterisation,
    Pixels,
    backgrounds,
    composite,
)
from candling.vision.priors import Prior, fit_prior, isotropic, natural_prior, steeper

ALL = [Pixels, Fourier, Maco]
SIZES = [(24, 24), (17, 30), (32, 21), (9, 9)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed))


def soft(count: int, channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Soft blobs well inside of black and white."""
    coarse = noise(count, channels, 4, 4, seed=seed)
    return 0.2 + 0.6 * F.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def fitted(channels: int, size: tuple[int, int]) -> Prior:
    grain = 0.1 * noise(30, channels, *size, seed=5)
    return fit_prior(0.9 * soft(30, channels, size) + grain)


def correlation(first: Tensor, second: Tensor) -> float:
    return float(np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1])


# --- rendering ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_what_is_drawn_renders_to_pictures(
    kind: type[Parameterisation], size: tuple[int, int], channels: int
) -> None:
    for alpha in (False, True):
        made = kind(natural_prior(size, channels), 0.5, alpha)
        assert (made.size, made.channels) == (size, channels)
        images = made.render(made.draw(generator(), 3))
        assert images.shape == (3, channels + alpha, *size)
        assert images.dtype == torch.float32
        assert 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_rendering_is_numpys(size: tuple[int, int]) -> None:
    prior = fitted(3, size)
    for kind, contrast in ((Maco, 0.7), (Fourier, 0.4)):
        made = kind(prior, contrast)
        drawn = made.draw(generator(), 2)
        used = prior if kind is Maco else isotropic(prior)
        if kind is Maco:
            waves = contrast * used.spectrum.double().numpy() * np.exp(1j * drawn.double().numpy())
        else:
            waves = (drawn[..., 0].double() + 1j * drawn[..., 1].double()).numpy() * used.spectrum.numpy()
        planes = np.fft.irfft2(waves, s=size, norm="ortho")
        logits = used.mean.numpy() + np.einsum("ij,njhw->nihw", used.colours.numpy(), planes)
        np.testing.assert_allclose(made.render(drawn), 1 / (1 + np.exp(-logits)), atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_maco_has_exactly_the_magnitudes_of_the_prior(size: tuple[int, int]) -> None:
    prior = fitted(3, size)
    made = Maco(prior, contrast=0.6)
    images = made.render(made.draw(generator(), 2))
    logits = torch.logit(images.double()) - prior.mean.double()
    planes = torch.einsum("ij,njhw->nihw", torch.linalg.inv(prior.colours.double()), logits)
    # In the first column, and the last of an even width, two phases meet.
    inner = slice(1, (size[1] + 1) // 2)
    found = np.abs(np.fft.rfft2(planes.numpy(), norm="ortho"))[..., inner]
    expected = 0.6 * prior.spectrum[..., inner].expand(found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (4, 9)])
@pytest.mark.parametrize("alpha", [False, True])
def test_gradients_are_those_of_small_steps(
    kind: type[Parameterisation], size: tuple[int, int], alpha: bool
) -> None:
    made = kind(natural_prior(size, 2), 0.5, alpha)
    drawn = made.draw(generator(), 2).double().requires_grad_()
    assert torch.autograd.gradcheck(made.render, (drawn,))


@pytest.mark.parametrize("kind", ALL)
def test_rows_do_not_depend_on_each_other(kind: type[Parameterisation]) -> None:
    made = kind(natural_prior((12, 10)), 0.5)
    drawn = made.draw(generator(), 5).requires_grad_()
    torch.testing.assert_close(made.render(drawn)[3:4], made.render(drawn[3:4]))
    (gradient,) = torch.autograd.grad(made.render(drawn)[3].square().sum(), drawn)
    assert gradient[3].abs().max() > 0
    assert not gradient[[0, 1, 2, 4]].any()


@pytest.mark.parametrize("kind", ALL)
def test_draws_come_from_the_generator_alone(kind: type[Parameterisation]) -> None:
    made = kind(natural_prior((12, 10)), 0.5)
    before = torch.get_rng_state()
    assert torch.equal(made.draw(generator(1), 2), made.draw(generator(1), 2))
    assert not torch.equal(made.draw(generator(1), 2), made.draw(generator(2), 2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ALL)
def test_autocast_leaves_the_picture_in_full_precision(kind: type[Parameterisation]) -> None:
    made = kind(natural_prior((12, 10)), 0.5)
    drawn = made.draw(generator()).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        inside = made.render(drawn)
    assert torch.equal(inside, made.render(drawn))


@pytest.mark.parametrize("kind", [Maco, Fourier])
def test_a_gradient_in_channels_last(kind: type[Parameterisation]) -> None:
    made = kind(natural_prior((12, 10)), 0.5)
    drawn = made.draw(generator(), 2).requires_grad_()
    weights = noise(2, 3, 12, 10)
    expected, found = (
        torch.autograd.grad(made.render(drawn), drawn, w)[0]
        for w in (weights, weights.contiguous(memory_format=torch.channels_last))
    )
    torch.testing.assert_close(found, expected)


# --- how far a climb goes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        (Pixels, {8: 0.2, 32: 0.2, 64: 0.1, 128: 0.05}),
        (Fourier, {8: 0.5, 48: 0.5, 96: 0.25, 480: 0.05}),
        (Maco, {8: 0.3, 80: 0.3, 160: 0.15, 320: 0.075}),
    ],
)
def test_few_steps_are_longer_up_to_a_longest(kind: type[Parameterisation], rates: dict[int, float]) -> None:
    made = kind(natural_prior((8, 8)))
    assert {steps: made.learning_rate(steps) for steps in rates} == pytest.approx(rates)


def contrast_of(made: Parameterisation, drawn: Tensor) -> Tensor:
    """Root mean square of decorrelated colours (R,), measured on the pictures in twice the precision."""
    used = isotropic(made.prior) if isinstance(made, Fourier) else made.prior
    logits = torch.logit(made.render(drawn.double())[:, : made.channels]) - used.mean.double()
    planes = torch.einsum("ij,njhw->nihw", torch.linalg.inv(used.colours.double()), logits)
    return planes.square().mean((1, 2, 3)).sqrt()


@pytest.mark.parametrize("kind", [Pixels, Fourier])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", [False, True])
def test_rows_with_too_much_contrast_are_scaled_to_the_most(
    kind: type[Parameterisation], size: tuple[int, int], alpha: bool
) -> None:
    for prior in (steeper(natural_prior(size), 0.35), fitted(3, size), natural_prior(size, 1)):
        made = kind(prior, 1.0, alpha)
        scale = torch.tensor([0.1, 1.0, 1.5, 0.0]).view(-1, *[1] * (made.draw(generator()).dim() - 1))
        drawn = scale * made.draw(generator(), 4)
        before, held = contrast_of(made, drawn), made.held(drawn, 0.6)
        assert before[0] < 0.6 < before[1:3].min()
        assert torch.equal(held[[0, 3]], drawn[[0, 3]]), "those below are left alone"
        torch.testing.assert_close(
            contrast_of(made, held)[1:3], torch.full((2,), 0.6, dtype=torch.float64), rtol=1e-5, atol=0
        )
        # As a whole: what is moved keeps its direction.
        for row in (1, 2):
            own = slice(0, made.channels)
            torch.testing.assert_close(held[row, own], drawn[row, own] * (0.6 / before[row]).float())
        assert torch.equal(held[:, made.channels :], drawn[:, made.channels :]), "and so is opacity"
        torch.testing.assert_close(made.held(drawn, 100.0), drawn, rtol=0, atol=0)
        torch.testing.assert_close(made.held(drawn[2:3], 0.6), held[2:3])


def test_the_contrast_of_phases_is_fixed() -> None:
    made = Maco(natural_prior((12, 10)), contrast=0.7)
    drawn = made.draw(generator(), 3)
    assert torch.equal(made.held(drawn, 1e-3), drawn)


# --- encode ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("kind", [Pixels, Fourier])
def test_pixels_and_fourier_start_from_any_image(
    kind: type[Parameterisation], size: tuple[int, int], channels: int, alpha: bool
) -> None:
    images = soft(2, channels + alpha, size)
    # A spectrum fitted on so few pixels may have no highest frequencies.
    priors = [natural_prior(size, channels), *([fitted(channels, size)] if min(size) > 9 else [])]
    for prior in priors:
        made = kind(prior, 0.5, alpha)
        torch.testing.assert_close(made.render(made.encode(images)), images, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", [False, True])
def test_a_rendered_picture_renders_again(
    kind: type[Parameterisation], size: tuple[int, int], alpha: bool
) -> None:
    made = kind(natural_prior(size), 0.25, alpha)
    images = made.render(made.draw(generator(), 3))
    torch.testing.assert_close(made.render(made.encode(images)), images, atol=1e-4, rtol=0)


def test_maco_keeps_the_phases_of_an_image() -> None:
    images = soft(3, 3, (32, 32), seed=2)
    made = Maco(fitted(3, (32, 32)))
    for image, started in zip(images, made.render(made.encode(images)), strict=True):
        assert correlation(image, started) > 0.6
        assert not torch.allclose(image, started, atol=0.05)


def test_black_and_white_are_cut_off() -> None:
    made = Pixels(natural_prior((8, 8)))
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    found = made.render(made.encode(images))
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.tensor([0.02, 0.98]))


def test_opaque_images_start_with_alpha() -> None:
    made = Fourier(natural_prior((8, 8)), alpha=True)
    found = made.render(made.encode(soft(2, 3, (8, 8))))
    torch.testing.assert_close(found[:, 3], torch.full((2, 8, 8), 0.98))
    torch.testing.assert_close(found[:, :3], soft(2, 3, (8, 8)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (1, 4, 8, 8), (3, 8, 8)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="resize them to 8 x 8 pixels with 3 channels"):
        Fourier(natural_prior((8, 8))).encode(torch.zeros(shape))


# --- growth ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(9, 9), (15, 11)])
def test_a_grown_spectrum_is_the_same_picture_between_its_pixels(size: tuple[int, int]) -> None:
    made = Fourier(natural_prior(size), contrast=0.5)
    drawn = made.draw(generator(), 2)
    bigger = (3 * size[0], 3 * size[1])
    images = made.resized(bigger).render(made.grown(drawn, bigger))
    # Three times as fine, the middle of each three pixels is where the one was.
    torch.testing.assert_close(images[..., 1::3, 1::3], made.render(drawn), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("size", "bigger"),
    [((24, 24), (48, 48)), ((17, 30), (51, 64)), ((24, 24), (25, 24)), ((48, 48), (24, 36))],
)
@pytest.mark.parametrize("kind", [Pixels, Fourier])
@pytest.mark.parametrize("alpha", [False, True])
def test_growth_keeps_the_picture(
    kind: type[Parameterisation], size: tuple[int, int], bigger: tuple[int, int], alpha: bool
) -> None:
    images = soft(3, 3 + alpha, size)
    for prior in (natural_prior(size), fitted(3, size)):
        made = kind(prior, 0.05, alpha)
        grown = made.resized(bigger).render(made.grown(made.encode(images), bigger))
        assert grown.shape == (3, 3 + alpha, *bigger)
        back = F.interpolate(grown, size=size, mode="bilinear", antialias=True)
        assert min(correlation(a, b) for a, b in zip(images, back, strict=True)) > 0.98
        torch.testing.assert_close(back.mean((2, 3)), images.mean((2, 3)), atol=0.01, rtol=0)
        assert made.grown(images, size) is images


@pytest.mark.parametrize(("size", "bigger"), [((24, 24), (48, 48)), ((17, 30), (51, 64))])
def test_growth_of_phases_keeps_the_picture_and_draws_what_is_finer(
    size: tuple[int, int], bigger: tuple[int, int]
) -> None:
    made = Maco(natural_prior(size))
    drawn = made.draw(generator(), 3)
    larger = made.resized(bigger)
    first, again, other, same = (
        larger.render(made.grown(drawn, bigger, g)) for g in (generator(1), generator(1), generator(2), None)
    )
    small = made.render(drawn)
    for grown in (first, other, same):
        back = F.interpolate(grown, size=size, mode="area")
        assert min(correlation(a, b) for a, b in zip(small, back, strict=True)) > 0.93
        # No contrast is lost at the frequencies that both have.
        assert float(back.std() / small.std()) == pytest.approx(1, abs=0.12)
    assert torch.equal(first, again)
    assert 0.005 < (first - other).abs().mean() < 0.15
    alone = larger.render(made.grown(drawn[1:2], bigger))
    torch.testing.assert_close(alone, same[1:2])


# --- alpha -------------------------------------------------------------------------------------


def test_opacity_starts_half_way() -> None:
    for kind in ALL:
        made = kind(natural_prior((32, 32)), alpha=True)
        opacity = made.render(made.draw(generator(), 16))[:, -1]
        assert float(opacity.mean()) == pytest.approx(0.5, abs=0.07)


def test_composite_by_hand() -> None:
    images, background = noise(3, 4, 5, 6), noise(1, 3, 5, 6, seed=1)
    expected = images[:, :3] * images[:, 3:] + background * (1 - images[:, 3:])
    torch.testing.assert_close(composite(images, background), expected)


def test_backgrounds_look_like_photographs() -> None:
    found = backgrounds(natural_prior((64, 64)), generator(), 12)
    assert found.shape == (12, 3, 64, 64)
    assert 0.2 < float(found.std()) < 0.25
    assert torch.equal(found, backgrounds(natural_prior((64, 64)), generator(), 12))
    planes = found.mean(1) - found.mean((1, 2, 3))[:, None, None]
    power = torch.fft.rfft2(planes).abs().square().mean(0)
    # Four times the frequency, a sixteenth of the power.
    assert float(power[4, 0:4].mean() / power[16, 0:16].mean()) == pytest.approx(16, rel=0.35)
