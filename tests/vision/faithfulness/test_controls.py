"""Maps that know nothing, and what a map gains over them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from candling.errors import ParamsError
from candling.vision.faithfulness import (
    centre_gaussian,
    insertion_minus_deletion,
    over_controls,
    random_maps,
)
from candling.vision.faithfulness.checks import within


class Corner(nn.Module):
    """Sees the top left of the picture alone."""

    def forward(self, images: Tensor) -> Tensor:
        seen = images[:, 0, :6, :6].mean((1, 2))
        return torch.stack([12 * (seen - 0.5), torch.zeros_like(seen)], 1)


def pictures(count: int = 12) -> Tensor:
    images = 0.2 * torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    images[:, :, :6, :6] += 0.8
    return images


def test_random_maps_are_a_pictures_own() -> None:
    images = pictures(4)
    maps = random_maps(images, draws=3)
    assert maps.shape == (4, 3, 24, 24)
    assert 0 <= maps.min() < 0.1 < 0.9 < maps.max() <= 1
    assert torch.equal(maps[2:3], random_maps(images[2:3], draws=3))
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[:, 0], maps[:, 1])
    assert not torch.equal(maps, random_maps(images, draws=3, seed=1))
    # Smooth: neighbours are far more alike than pixels are.
    assert (maps[..., 1:] - maps[..., :-1]).std() < 0.5 * maps.std()


def test_the_centre_is_the_greatest_and_both_sides_are_alike() -> None:
    maps = centre_gaussian(pictures(2))
    assert maps.shape == (2, 24, 24)
    assert torch.allclose(maps, maps.flip(1))
    assert torch.allclose(maps, maps.mT)
    assert maps[0, 11, 11] == maps[0].max()
    assert float(maps[0, 0, 0]) == pytest.approx(float(maps[0].min()))


def test_the_true_map_is_above_both_controls() -> None:
    images, true = pictures(), torch.zeros(12, 24, 24)
    true[:, :6, :6] = 1.0
    classes = torch.zeros(12, dtype=torch.long)
    found = over_controls(Corner(), images, true, classes, steps=20)
    assert found.over_random.low > 0.05
    assert found.over_centre.low > 0.05
    assert found.over_random.n == 12
    assert torch.allclose(found.score, insertion_minus_deletion(Corner(), images, true, classes, steps=20))
    assert found.over_centre.value == pytest.approx(float((found.score - found.centre).mean()), abs=1e-6)


def test_a_control_gains_nothing_over_itself() -> None:
    images = pictures()
    found = over_controls(
        Corner(), images, centre_gaussian(images), torch.zeros(12, dtype=torch.long), steps=8
    )
    assert found.over_centre.value == found.over_centre.low == found.over_centre.high == 0


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ParamsError, match="one map of each picture"):
        over_controls(Corner(), pictures(), torch.ones(12, 2, 24, 24), torch.zeros(12, 2, dtype=torch.long))
    with pytest.raises(ParamsError, match="one draw"):
        random_maps(pictures(), draws=0)
    with pytest.raises(ParamsError, match="spread"):
        centre_gaussian(pictures(), spread=0)


def test_scores_outside_their_range_are_an_error() -> None:
    with pytest.raises(AssertionError, match="a share is 1.1, outside of 0 to 1"):
        within(torch.tensor([0.5, 1.1]), 0, 1, "a share")
    assert within(torch.tensor([1.000001, torch.nan]), 0, 1, "a share")[0] == 1
