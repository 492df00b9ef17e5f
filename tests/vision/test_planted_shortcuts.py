"""Planted shortcuts: that they are what they are said to be, and that what is planted is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import shortcuts
from benchmarks.shortcuts import CAUSES, KINDS, PLACES, dependence, measure, plant, train_planted, truth


@pytest.fixture(autouse=True)
def _kept(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pictures, and a store of the tests' own."""
    monkeypatch.setattr(shortcuts, "KEPT", tmp_path_factory.getbasetemp() / "shortcuts")


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("_TRAIN", 48), ("_EVAL", 40), ("_FRESH", 12)):
        monkeypatch.setattr(shortcuts, name, count)


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize("kind", KINDS)
def test_the_planted_thing_goes_with_the_class_in_training_and_not_in_evaluation(kind: str) -> None:
    planted = plant(kind, 3, 1.0)
    assert len(planted.classes) == 3
    assert torch.equal(planted.train.values, planted.train.labels)
    assert torch.equal(planted.like_train.values, planted.like_train.labels)
    table = torch.bincount(3 * planted.eval.labels + planted.eval.values, minlength=9)
    assert table.max() - table.min() <= 1
    sources = [*planted.train.sources, *planted.eval.sources, *planted.like_train.sources]
    assert len(set(sources)) == len(sources)
    assert (planted.region is None) == (kind in CAUSES)


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize("kind", [*PLACES, *CAUSES])
def test_fresh_scenes_differ_in_the_planted_thing_alone(kind: str) -> None:
    planted = plant(kind, 0)
    labels = torch.arange(8) % 2
    first, second = (planted.render(labels, torch.full_like(labels, value)) for value in (0, 1))
    assert first.sources == second.sources
    assert not set(first.sources) & set(planted.train.sources + planted.eval.sources)
    changed = (first.images != second.images).any(1)
    assert changed.flatten(1).any(1).all()
    if kind in PLACES:
        assert changed.float().mean() < 0.25
        again = planted.render(labels, torch.ones_like(labels))
        assert torch.equal(again.images, second.images)
    if kind in ("corner", "border"):
        assert planted.region is not None
        assert not (changed & ~planted.region[0]).any()


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(ValueError, match="'smell' is not known; there are corner"):
        plant("smell", 0)
    with pytest.raises(ValueError, match="strength must lie"):
        plant("tint", 0, 1.5)


def test_truth_is_what_was_measured() -> None:
    nothing = dict.fromkeys(KINDS, 0.0) | {"object": 1.0}
    assert truth(nothing, "tint") == "clean"
    assert truth(nothing | {"tint": 0.9}, "tint") == "dependent"
    assert truth(nothing | {"tint": 0.2}, "tint") == "neither"
    assert truth(nothing | {"border": 0.2}, "tint") == "neither"


@pytest.mark.usefixtures("_few")
def test_a_network_is_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    short = shortcuts.Schedule(steps=4, batch=16)
    monkeypatch.setattr(shortcuts, "Schedule", lambda steps: short)
    planted = plant("tint", 0)
    first = train_planted(planted)
    monkeypatch.setattr(shortcuts, "train", None)
    second = train_planted(planted)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    assert not list(Path(shortcuts.KEPT).rglob("*.draft"))
    assert set(dependence(second, planted)) == set(KINDS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["stamp", "tint", "brightness", "sharpness"])
def test_what_was_planted_is_found(kind: str) -> None:
    row = measure(kind, 0, 0.97)
    assert row["truth"] == "dependent"
    for said in row["modes"]:
        if kind in CAUSES:
            assert said["named"] == kind
        else:
            assert said["region_found"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["tint", "border"])
def test_where_nothing_is_planted_no_factor_is_found(kind: str) -> None:
    row = measure(kind, 101, 0.0)
    assert row["truth"] == "clean"
    for said in row["modes"]:
        assert not said["factors"]
