"""Counterfactuals: pasting by identity, associations by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from candling.vision.counterfactuals import associated_backgrounds, feathered, flat_background, paste


def noise(seed: int, count: int = 3) -> Tensor:
    return torch.rand(count, 3, 14, 18, generator=torch.Generator().manual_seed(seed))


def box(top: int, left: int, bottom: int, right: int, count: int = 3) -> Tensor:
    masks = torch.zeros(count, 14, 18, dtype=torch.bool)
    masks[:, top:bottom, left:right] = True
    return masks


# --- associated_backgrounds --------------------------------------------------------------------


def test_planted_backgrounds_are_found() -> None:
    labels = [0] * 100 + [1] * 100
    environments = ["sky"] * 95 + ["grass"] * 5 + ["grass"] * 95 + ["sky"] * 5
    assert associated_backgrounds(labels, environments) == {0: "sky", 1: "grass"}


def test_what_both_have_often_is_nobodys_own() -> None:
    labels = [0] * 10 + [1] * 10
    environments = ["forest"] * 6 + ["sky"] * 4 + ["forest"] * 9 + ["grass"] * 1
    # Lift for class 0: forest 0.6 - 0.9, sky 0.4 - 0; for class 1: forest 0.9 - 0.6, grass 0.1 - 0.
    assert associated_backgrounds(labels, environments) == {0: "sky", 1: "forest"}


def test_classes_of_different_sizes_count_by_share() -> None:
    labels = [0] * 4 + [1] * 100 + [2] * 50
    environments = ["snow"] * 3 + ["sky"] + ["snow"] * 20 + ["sky"] * 80 + ["grass"] * 50
    # Class 0 has 3 of 23 snow scenes, and yet three in four of its own pictures are snow.
    assert associated_backgrounds(labels, environments) == {0: "snow", 1: "sky", 2: "grass"}


def test_order_does_not_matter_and_ties_go_by_name() -> None:
    labels, environments = [0, 0, 1, 1], ["b", "a", "a", "b"]
    assert associated_backgrounds(labels, environments) == {0: "a", 1: "a"}
    assert associated_backgrounds(labels[::-1], environments[::-1]) == {0: "a", 1: "a"}


def test_one_class_has_its_most_frequent_background() -> None:
    assert associated_backgrounds([0, 0, 0], ["a", "b", "b"]) == {0: "b"}


def test_a_label_for_each_environment() -> None:
    with pytest.raises(ValueError, match="zip"):
        associated_backgrounds([0, 1], ["a"])


# --- feathered and paste -----------------------------------------------------------------------


def test_a_single_pixel_is_spread_over_nine() -> None:
    weight = feathered(box(5, 7, 6, 8, count=1))[0, 0]
    expected = torch.zeros(14, 18)
    expected[4:7, 6:9] = 1 / 9
    torch.testing.assert_close(weight, expected)


def test_an_edge_is_one_pixel_wide_and_the_border_is_no_edge() -> None:
    weight = feathered(box(0, 0, 14, 9, count=1))[0, 0]
    expected = torch.tensor([1.0] * 8 + [2 / 3, 1 / 3] + [0.0] * 8).expand(14, 18)
    torch.testing.assert_close(weight, expected)


@pytest.mark.parametrize("masks", [box(3, 4, 9, 12), box(0, 0, 5, 18), box(0, 0, 0, 0), box(0, 0, 14, 18)])
def test_its_own_background_gives_the_picture_back(masks: Tensor) -> None:
    images = noise(0)
    torch.testing.assert_close(paste(images, masks, images), images)


def test_inside_is_the_object_and_outside_the_background() -> None:
    images, backgrounds = noise(0), noise(1)
    out = paste(images, box(3, 4, 9, 12), backgrounds)
    inside, near = box(4, 5, 8, 11), box(2, 3, 10, 13)
    for row in range(3):
        torch.testing.assert_close(out[row][:, inside[row]], images[row][:, inside[row]])
        assert torch.equal(out[row][:, ~near[row]], backgrounds[row][:, ~near[row]])
    assert (out >= torch.minimum(images, backgrounds) - 1e-6).all()
    assert (out <= torch.maximum(images, backgrounds) + 1e-6).all()


def test_each_row_has_a_mask_of_its_own() -> None:
    images, backgrounds = noise(0), noise(1)
    masks = torch.cat([box(3, 4, 9, 12, count=1), box(0, 0, 0, 0, count=1), box(0, 0, 14, 18, count=1)])
    out = paste(images, masks, backgrounds)
    assert torch.equal(out[1], backgrounds[1])
    torch.testing.assert_close(out[2], images[2])
    torch.testing.assert_close(out[0], paste(images[:1], masks[:1], backgrounds[:1])[0])


def test_flat_background() -> None:
    images, masks = noise(0), box(3, 4, 9, 12)
    out = flat_background(images, masks, torch.tensor([0.2, 0.5, 0.8]))
    far = ~box(2, 3, 10, 13)[0]
    torch.testing.assert_close(out[0][:, far], torch.tensor([[0.2], [0.5], [0.8]]).expand(3, int(far.sum())))
    torch.testing.assert_close(out[:, :, 4:8, 5:11], images[:, :, 4:8, 5:11])
