"""Where maps lie: planted maps, references and chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from candling.errors import DataError, ParamsError
from candling.vision.faithfulness import located, pointing_game, rank_accuracy, relevance_mass


def squares() -> torch.Tensor:
    """Three masks of 20 × 20: a square of 6, one at the border, none."""
    masks = torch.zeros(3, 20, 20, dtype=torch.bool)
    masks[0, 4:10, 5:11] = True
    masks[1, 0:6, 0:6] = True
    return masks


def test_a_map_on_the_object_has_all_of_it_and_one_beside_has_nothing() -> None:
    masks = squares()[:2]
    on, beside = masks.float(), (~masks).float()
    for score in (relevance_mass, rank_accuracy):
        assert torch.equal(score(on, masks), torch.ones(2))
        assert torch.equal(score(beside, masks), torch.zeros(2))
    assert torch.equal(pointing_game(on, masks, tolerance=0), torch.ones(2))
    assert torch.equal(pointing_game(beside, masks, tolerance=0), torch.zeros(2))


def test_mass_and_rank_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, masks = torch.randn(5, 9, 7, generator=generator), torch.rand(5, 9, 7, generator=generator) < 0.3
    mass, rank = relevance_mass(maps, masks), rank_accuracy(maps, masks)
    for row in range(5):
        flat, inside = maps[row].numpy().ravel(), masks[row].numpy().ravel()
        positive = np.where(flat > 0, flat, 0)
        assert float(mass[row]) == pytest.approx(positive[inside].sum() / positive.sum(), abs=1e-6)
        first = np.argsort(-flat)[: inside.sum()]
        assert float(rank[row]) == pytest.approx(inside[first].mean(), abs=1e-6)
    assert torch.allclose(relevance_mass(maps * 9, masks), mass, atol=1e-6)
    assert torch.equal(rank_accuracy(maps * 9 - 2, masks), rank)


def test_the_pointing_game_tolerates_what_is_near() -> None:
    masks = squares()[:1]
    for distance in (1, 2, 3, 4):
        maps = torch.zeros(1, 20, 20)
        maps[0, 7, 10 + distance] = 1.0
        for tolerance in (0, 2, 3):
            hit = pointing_game(maps, masks, tolerance=tolerance)
            assert float(hit) == float(distance <= tolerance)


def test_a_constant_map_scores_what_chance_gives() -> None:
    found = located(torch.ones(3, 20, 20), squares(), tolerance=2)
    assert torch.allclose(found.mass[:2], found.area[:2])
    assert torch.allclose(found.pointing[:2], found.nearby[:2])
    assert found.area[:2].tolist() == pytest.approx([36 / 400] * 2)
    # A disc around each corner of a square, so less than all within two pixels a side.
    assert 10 * 10 - 16 < 400 * float(found.nearby[0]) < 10 * 10
    generator = torch.Generator().manual_seed(1)
    hits = pointing_game(torch.rand(2000, 20, 20, generator=generator), squares()[:1].expand(2000, -1, -1),
                         tolerance=2)  # fmt: skip
    assert float(hits.mean()) == pytest.approx(float(found.nearby[0]), abs=0.03)


def test_rank_accuracy_of_a_constant_map_is_about_chance() -> None:
    masks = torch.rand(1, 60, 60, generator=torch.Generator().manual_seed(3)) < 0.4
    assert float(rank_accuracy(torch.ones(1, 60, 60), masks)) == pytest.approx(
        float(masks.float().mean()), abs=0.05
    )


def test_pictures_without_a_mask_are_nan_counted_and_said() -> None:
    found = located(torch.rand(3, 20, 20), squares())
    assert found.missing == 1
    assert "1 of 3 pictures have no mask" in found.note
    for name in ("mass", "rank", "pointing", "area", "nearby"):
        values = getattr(found, name)
        assert torch.isfinite(values[:2]).all()
        assert torch.isnan(values[2])
    assert located(torch.rand(2, 20, 20), squares()[:2]).note == ""


def test_a_map_without_evidence_for_the_class_has_no_mass() -> None:
    assert torch.isnan(relevance_mass(-torch.ones(1, 20, 20), squares()[:1])).all()


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"masks of shape \(3, 20, 20\) do not fit maps of \(3, 10, 10\)"):
        located(torch.ones(3, 10, 10), squares())
    with pytest.raises(DataError, match="NaN"):
        relevance_mass(torch.full((3, 20, 20), torch.nan), squares())
    with pytest.raises(ParamsError, match="tolerance is -1"):
        pointing_game(torch.ones(3, 20, 20), squares(), tolerance=-1)
