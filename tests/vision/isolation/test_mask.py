"""Learned masks against planted regions, areas that were asked for and single rows."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import ModelSpec, build_model
from candling.vision.isolation import Mask, evidence_share, isolate
from candling.vision.isolation.mask import _to_area
from candling.vision.isolation.resampling import from_cells
from tests.vision.isolation.models import Reads, box, noise

REGION = box(64, 8, 32, 24, 48)


def bright(count: int = 3) -> Tensor:
    return torch.where(REGION, 0.9, 0.4 * noise(count, 3, 64, 64))


def test_the_mask_lies_on_what_is_read() -> None:
    method = Mask(areas=(0.0625,), cells=16, fill="fade")
    found = isolate(Reads(REGION), bright(), classes=torch.zeros(3, 1, dtype=torch.long), method=method)
    maps = found.maps[:, 0]
    assert maps.min() >= 0
    assert maps.max() <= 1
    matrix = from_cells(16, 64, method.spread)
    ideal = matrix @ REGION[::4, ::4].float() @ matrix.T  # a smooth mask cannot end at the region's edge
    most = (ideal * REGION).sum() / ideal.sum()
    share = (maps * REGION).sum((1, 2)) / maps.sum((1, 2))
    assert share.min() > 0.9 * most, (share, most)
    # Of the area that was asked for, as far as a smooth mask can be.
    assert maps.mean((1, 2)).tolist() == pytest.approx([0.0625] * 3, abs=0.02)


def test_evidence_is_the_mean_over_areas() -> None:
    def maps(*areas: float) -> Tensor:
        method = Mask(areas=areas, cells=8, steps=30, still=0)
        return isolate(Reads(REGION), bright(), classes=torch.tensor([[0], [2], [1]]), method=method).maps

    torch.testing.assert_close(maps(0.1, 0.3), (maps(0.1) + maps(0.3)) / 2, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("game", ["keep", "hide", "both"])
def test_each_game_is_won_on_what_is_read(game: str) -> None:
    method = Mask(areas=(0.0625,), cells=16, fill="fade", game=game)
    zero = torch.zeros(3, 1, dtype=torch.long)
    found = isolate(Reads(REGION), bright(), classes=zero, method=method)
    share = evidence_share(found.maps[:, 0], REGION.expand(3, -1, -1), sign="for")
    assert share.min() > 0.5, share  # of a sixteenth of the picture
    assert found.evaluations <= 3 * (1 + 100 * (4 if game == "both" else 2))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_rows_do_not_depend_on_their_neighbours(batch: int) -> None:
    model = build_model(ModelSpec("residual_cnn", tuple("abc"), (32, 32), {"widths": [4, 6]}), seed=1)
    images, classes = noise(3, 3, 32, 32), torch.tensor([[0, 1], [2, 1], [0, 2]])
    method = Mask(areas=(0.1, 0.3), cells=8, steps=12)
    together = isolate(model, images, classes=classes, method=method, batch=batch)
    for row in range(3):
        alone = isolate(model, images[row : row + 1], classes=classes[row : row + 1], method=method, batch=1)
        torch.testing.assert_close(together.maps[row], alone.maps[0], atol=2e-3, rtol=0)


def test_rows_that_stand_still_leave() -> None:
    blind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    for parameter in blind.parameters():
        nn.init.zeros_(parameter)
    told: list[tuple[int, int]] = []
    found = isolate(
        blind, noise(2, 3, 32, 32), method=Mask(cells=8), progress=lambda *step: told.append(step)
    )
    assert found.evaluations < 0.8 * (2 + 2 * 2 * 4 * 4 * 100)
    assert told[-1] == (2, 2)


def test_a_mask_is_enlarged_by_a_gaussian() -> None:
    matrix = from_cells(8, 64, 0.7)
    torch.testing.assert_close(matrix.sum(1), torch.ones(64))
    one = torch.zeros(8, 8)
    one[3, 4] = 1
    large = (matrix @ one @ matrix.T).numpy()
    spike = torch.zeros(64, 64)
    spike[27:29, 35:37] = 1  # the centre of that cell
    blurred = gaussian_filter(spike.numpy(), 0.7 * 8)
    inner = slice(16, 48)
    expected = blurred / blurred.max()
    assert abs(large / large.max() - expected)[inner, inner].max() < 0.05


def test_the_pull_to_the_area_is_down_the_slope_of_sorted_values() -> None:
    masks = noise(3, 5, 6).requires_grad_()
    areas = torch.tensor([0.1, 0.5, 0.9])
    ordered = masks.flatten(1).sort(1, descending=True).values
    ones = (torch.arange(30) < (areas * 30).round()[:, None]).float()
    (slope,) = torch.autograd.grad((ordered - ones).square().sum() / 2, masks)
    torch.testing.assert_close(_to_area(masks.detach(), areas), -slope)


def test_a_slope_that_is_nan_is_an_error() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            mean = images.mean((1, 2, 3))
            return torch.stack([mean + 0 * (mean - mean).sqrt(), -mean], 1)

    with pytest.raises(ModelError, match="NaN"):
        isolate(Broken(), noise(1, 3, 16, 16), method=Mask(cells=4))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"areas": ()}, "areas is empty"),
        ({"areas": (0.1, 1.0)}, "an area is 1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"pull": (0.5, 0.1)}, "the larger last"),
        ({"fill": "gray"}, "no fill 'gray'"),
        ({"game": "hid"}, "no game 'hid'; the nearest is 'hide'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        Mask(**settings)
