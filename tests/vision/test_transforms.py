"""Transforms: held to scipy's resampling and to what they say of themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from candling.vision.transforms import ROBUSTNESS, Robustness, move, moves, unseen_transforms


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed))


# --- move --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s", "m", "l"])
@pytest.mark.parametrize("shape", [(2, 3, 24, 24), (1, 1, 17, 30), (2, 13, 9, 8)])
def test_without_draws_nothing_moves(name: str, shape: tuple[int, ...]) -> None:
    images = noise(*shape)
    found = move(images, torch.zeros(shape[0], 4), ROBUSTNESS[name])
    torch.testing.assert_close(found, images, atol=1e-4, rtol=0)


def test_none_does_not_even_resample() -> None:
    images = noise(2, 3, 8, 8)
    assert move(images, moves(generator(), 2), ROBUSTNESS["none"]) is images


@pytest.mark.parametrize(("down", "across"), [(3, 0), (0, -5), (-2, 4)])
@pytest.mark.parametrize("size", [(20, 20), (20, 32), (25, 15)])
def test_a_shift_of_whole_pixels_is_exact(down: int, across: int, size: tuple[int, int]) -> None:
    images = noise(1, 3, *size)
    draws = torch.tensor([[0, 0, across / size[1] / 0.4, down / size[0] / 0.4]])
    found = move(images, draws, Robustness(jitter=0.4))
    expected = ndimage.shift(images[0].numpy(), (0, -down, -across), order=0, mode="reflect")
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


@pytest.mark.parametrize("size", [(24, 24), (18, 31)])
@pytest.mark.parametrize("draw", [(1.0, 0.0, 0.0, 0.0), (0.0, -1.0, 0.0, 0.0), (-0.7, 0.6, 0.5, -0.9)])
@pytest.mark.parametrize("name", ["s", "m", "l"])
def test_it_is_scipys_affine_transform(name: str, draw: tuple[float, ...], size: tuple[int, int]) -> None:
    images, robustness = noise(1, 2, *size), ROBUSTNESS[name]
    found = move(images, torch.tensor([draw]), robustness)[0]
    angle, factor = np.deg2rad(robustness.rotate * draw[0]), np.exp(robustness.scale * draw[1])
    # Places (y, x) of the moved picture to places of the picture, in pixels from the centre.
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / factor
    centre = (np.array(size) - 1) / 2
    shift = robustness.jitter * np.array([draw[3] * size[0], draw[2] * size[1]])
    for plane, expected in zip(found, images[0].double().numpy(), strict=True):
        wanted = ndimage.affine_transform(
            expected, matrix, centre - matrix @ centre + shift, order=1, mode="reflect"
        )
        np.testing.assert_allclose(plane, wanted, atol=1e-4)


def test_a_margin_is_mid_grey_and_shows_the_whole_picture() -> None:
    images = torch.ones(1, 1, 24, 24)
    found = move(images, torch.zeros(1, 4), Robustness(pad=0.25))[0, 0]
    # A margin of a quarter on each side leaves two thirds: 16 of 24 pixels.
    torch.testing.assert_close(found[5:19, 5:19], torch.ones(14, 14))
    for edge in (found[:3], found[-3:], found[:, :3], found[:, -3:]):
        torch.testing.assert_close(edge, torch.full_like(edge, 0.5))


@pytest.mark.parametrize("name", list(ROBUSTNESS))
def test_rows_move_by_themselves_and_stay_pictures(name: str) -> None:
    images, draws = noise(4, 3, 16, 20).requires_grad_(), moves(generator(), 4)
    together = move(images, draws, ROBUSTNESS[name])
    assert together.min() >= 0
    assert together.max() <= 1 + 1e-6
    torch.testing.assert_close(move(images[2:3], draws[2:3], ROBUSTNESS[name]), together[2:3])
    (gradient,) = torch.autograd.grad(together[2].sum(), images)
    assert gradient[2].min() >= 0
    assert gradient[2].max() > 0
    assert not gradient[[0, 1, 3]].any()


def test_presets_grow() -> None:
    assert list(ROBUSTNESS) == ["none", "s", "m", "l", "xl"]
    images, draws = noise(20, 1, 32, 32).cumsum(3) / 32, moves(generator(), 20)
    changes = [float((move(images, draws, r) - images).abs().mean()) for r in ROBUSTNESS.values()]
    assert changes == sorted(changes)
    assert changes[0] == 0
    assert len(set(changes)) == 5


def test_moves_are_uniform_and_of_the_generator() -> None:
    before = torch.get_rng_state()
    found = moves(generator(3), 4000)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found, moves(generator(3), 4000))
    assert found.shape == (4000, 4)
    assert found.min() >= -1
    assert found.max() <= 1
    np.testing.assert_allclose(
        np.quantile(found, [0.25, 0.5, 0.75], axis=0).T, [[-0.5, 0, 0.5]] * 4, atol=0.05
    )


# --- unseen_transforms -------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_unseen_transforms_stay_pictures(channels: int) -> None:
    shape = (3, channels, 24, 20)
    for images in (noise(*shape), torch.zeros(shape), torch.ones(shape)):
        views = unseen_transforms(images, generator())
        assert len(views) == 7
        for view in views:
            assert view.shape == images.shape
            assert view.min() >= 0
            assert view.max() <= 1 + 1e-6


def test_unseen_transforms_change_the_picture_and_differ() -> None:
    images = noise(3, 3, 24, 20)
    views = [images, *unseen_transforms(images, generator())]
    for i, view in enumerate(views):
        for other in views[:i]:
            assert ((view - other).abs().mean((1, 2, 3)) > 0.01).all()
    assert torch.equal(views[1], torch.from_numpy(images.numpy()[..., ::-1].copy()))


def test_unseen_transforms_of_a_row_do_not_depend_on_its_place() -> None:
    images = noise(3, 3, 24, 20)
    together = unseen_transforms(images, generator())
    alone = unseen_transforms(images[2:], generator())
    for view, single in zip(together, alone, strict=True):
        torch.testing.assert_close(view[2:], single)
