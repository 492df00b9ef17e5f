"""Planted patterns: a network whose class depends on a known pattern gives that pattern back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import planted
from benchmarks.planted import (
    BOX,
    PATTERNS,
    PLAIN,
    SETTINGS,
    SIDE,
    Glyph,
    Matched,
    Pattern,
    Recovery,
    cnn,
    recover,
    samples,
    trained_cnn,
    trained_vit,
    vit,
)
from candling.vision.climbing import FOURIER

FORMS = pytest.mark.parametrize("form", SETTINGS)
EACH = pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shown(patch: Tensor, top: int = 9, left: int = 20, strength: float = 0.4) -> Tensor:
    """A patch on mid grey: (1, 3, SIDE, SIDE)."""
    image = torch.full((1, 3, SIDE, SIDE), 0.5)
    image[..., top : top + BOX, left : left + BOX] += strength * patch
    return image


# --- what is measured --------------------------------------------------------------------------


@EACH
def test_a_pattern_is_found_where_it_is_and_nowhere_else(pattern: Pattern) -> None:
    there = [shown(pattern.drawn(generator(seed)), top, 27 - top) for seed, top in enumerate((0, 13, 27))]
    decoys = [shown(pattern.decoy(generator(seed))) for seed in range(10)]
    noise = torch.rand(20, 3, SIDE, SIDE, generator=generator())
    assert pattern.recovery(torch.cat(there)).min() > 0.8
    assert pattern.recovery(torch.cat(decoys)).median() < 0.75
    assert pattern.recovery(noise).max() < 0.4
    assert pattern.recovery(torch.full((1, 3, SIDE, SIDE), 0.5)).abs() < 1e-3


def test_a_glyphs_recovery_is_the_largest_correlation_of_any_place() -> None:
    glyph = PATTERNS[-1]
    assert isinstance(glyph, Glyph)
    image = shown(glyph.drawn(generator())) + 0.05 * torch.randn(1, 3, SIDE, SIDE, generator=generator())
    fine, shape = (
        planted._fine(planes)[0, 0].numpy()
        for planes in (image.mean(1, keepdim=True), glyph.drawn(generator())[None, :1])
    )
    places = range(SIDE - BOX + 1)
    correlations = [
        np.corrcoef(fine[top : top + BOX, left : left + BOX].ravel(), shape.ravel())[0, 1]
        for top in places
        for left in places
    ]
    assert glyph.recovery(image).item() == pytest.approx(max(correlations), abs=0.03)


def test_stripes_are_found_by_angle_and_width() -> None:
    rising, falling = PATTERNS[:2]
    image = shown(rising.drawn(generator()))
    assert rising.recovery(image) > 2 * falling.recovery(image)
    # Mirrored, the one is the other.
    assert falling.recovery(image.flip(3)) == pytest.approx(rising.recovery(image).item(), abs=1e-4)


def test_training_pictures_are_half_plain_and_seeded() -> None:
    images, classes = samples(400, generator(3))
    assert images.shape == (400, 3, SIDE, SIDE)
    assert 0 <= images.min() <= images.max() <= 1
    assert 0.4 < (classes == PLAIN).float().mean() < 0.6
    assert classes.unique().tolist() == list(range(PLAIN + 1))
    again, same = samples(400, generator(3))
    assert torch.equal(images, again)
    assert torch.equal(classes, same)


def test_found_means_that_seeds_are_beyond_chance() -> None:
    chance = torch.linspace(0, 0.4, 101)

    def found(*own: float) -> bool:
        return Recovery(PATTERNS[0], torch.tensor(own), chance).found

    assert found(0.39, 0.5, 0.5, 0.5)
    assert not found(0.2, 0.9, 0.9, 0.9), "one seed is no better than chance"
    assert not found(0.36, 0.36, 0.36, 0.36), "all are within chance, if in its upper tenth"


# --- what is got back --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def residual() -> nn.Module:
    return trained_cnn()


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    return trained_vit()


def right(network: nn.Module) -> float:
    images, classes = samples(400, generator(99))
    with torch.no_grad():
        return (network(images).argmax(1) == classes).float().mean().item()


def test_matched_filters_answer_their_patterns_and_no_decoys() -> None:
    network = Matched()
    for own, pattern in enumerate(PATTERNS):
        with torch.no_grad():
            there = network(shown(pattern.drawn(generator(1))))[0]
            decoy = network(shown(pattern.decoy(generator(1))))[0]
        assert there.argmax() == own, pattern.name
        assert there[own] > 1.5 * decoy[own], pattern.name


@FORMS
def test_matched_filters_give_their_patterns_back(form: str) -> None:
    _, found = recover(Matched(), Matched(seed=1), SETTINGS[form])
    for one in found:
        assert len(one.own) == 4
        assert len(one.chance) >= 40
        assert one.own.min() > one.chance.max(), f"{one.pattern.name}: {one.own}"


def test_a_network_that_knows_no_pattern_gives_none_back() -> None:
    _, found = recover(cnn(seed=2), cnn(seed=1), FOURIER)
    assert not any(one.found for one in found if one.pattern.distinct)


@FORMS
def test_a_small_residual_network_gives_back_what_it_was_taught(form: str, residual: nn.Module) -> None:
    assert right(residual) > 0.9
    _, found = recover(residual, cnn(seed=1), SETTINGS[form])
    assert [one.pattern.name for one in found if not one.found] == []


@pytest.mark.slow
@FORMS
def test_a_small_vision_transformer_gives_back_what_it_was_taught(form: str, transformer: nn.Module) -> None:
    assert right(transformer) > 0.9
    _, found = recover(transformer, vit(seed=1), SETTINGS[form])
    assert [one.pattern.name for one in found if not one.found] == []


# --- the command -------------------------------------------------------------------------------


def test_the_command_writes_a_row_for_each_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    brief = replace(FOURIER, steps=1, starts=1)
    monkeypatch.setattr(planted, "SETTINGS", {"fourier": brief, "maco": brief})
    file = tmp_path / "rows.json"
    planted.main(["--only", "matched.fourier", "--json", str(file), "--sheets", str(tmp_path / "sheets")])
    rows = json.loads(file.read_text())
    assert [row["name"] for row in rows] == [
        f"planted_recovery_over_chance.matched.fourier.{name}"
        for name in ("rising_stripes", "falling_stripes", "violet", "triangle", "cross")
    ]
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] == 4 for row in rows)
    assert rows[0]["name"] in capsys.readouterr().out
    assert [sheet.name for sheet in (tmp_path / "sheets").iterdir()] == ["matched-fourier.png"]
