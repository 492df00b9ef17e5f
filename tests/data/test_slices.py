"""Which columns of metadata become slices, and which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from candling.data.samples import Value
from candling.data.slices import make_slices

LABELS = ["a", "b"] * 12


def test_texts_and_few_numbers_are_slices_as_they_are() -> None:
    columns: dict[str, Sequence[Value]] = {
        "sky": ["grey", "blue", None] * 8, "legs": [2, 4, 6, 8] * 6, "night": [True, False, False] * 8,
    }  # fmt: skip
    slices, notes = make_slices(columns, LABELS)
    assert slices == {
        "sky": ["grey", "blue", None] * 8,
        "legs": ["2", "4", "6", "8"] * 6,
        "night": ["True", "False", "False"] * 8,
    }
    assert notes == []


@pytest.mark.parametrize("scale", [1e-6, 1.0, 12345.678])
def test_many_numbers_become_quartiles_that_cover_what_they_name(scale: float) -> None:
    values = (np.random.default_rng(3).permutation(24) * scale).tolist()
    slices, _ = make_slices({"area": values}, LABELS)
    names = slices["area"]
    assert len(set(names)) == 4
    for name in set(names):
        assert name is not None
        low, high = (float(end) for end in name.split("–"))
        inside = [value for value, at in zip(values, names, strict=True) if at == name]
        assert len(inside) == 6
        assert (low, high) == pytest.approx((min(inside), max(inside)), rel=0.01)


def test_quartiles_of_unequal_and_missing_values() -> None:
    values: list[Value] = [0] * 12 + list(range(1, 12)) + [None]
    slices, _ = make_slices({"birds": values}, LABELS)
    assert slices["birds"][:12] == ["0"] * 12
    assert slices["birds"][-1] is None
    counts = {name: slices["birds"].count(name) for name in set(slices["birds"][12:-1])}
    assert set(counts) == {"1–5", "6–11"}
    assert counts == {"1–5": 5, "6–11": 6}


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("file", [f"f{i}" for i in range(24)], "a value of its own"),
        ("number", list(range(100, 124)), "a value of its own"),
        ("image_id", [i * i for i in range(24)], "a value of its own"),
        ("camera", ["x"] * 24, "all pictures have the same value"),
        ("nothing", [None, ""] * 12, "no picture has a value"),
        ("name", ["ant", "bee"] * 12, "says the same as the label"),
    ],
)
def test_columns_that_divide_nothing_are_said(name: str, values: Sequence[Value], reason: str) -> None:
    slices, notes = make_slices({name: values, "other": ["p", "q", "q"] * 8}, LABELS)
    assert list(slices) == ["other"]
    (note,) = notes
    assert name in note
    assert reason in note


@pytest.mark.parametrize("values", [[i * i for i in range(24)], [i / 7 for i in range(24)]])
def test_different_measurements_of_each_picture_are_no_ids(values: Sequence[Value]) -> None:
    assert len(set(make_slices({"area": values}, LABELS)[0]["area"])) == 4


def test_a_missing_value_is_a_difference_to_a_constant() -> None:
    assert list(make_slices({"flash": ["on", None, None] * 8}, LABELS)[0]) == ["flash"]
