"""The step that computes entanglement: what it records, what it writes, and what it says of few classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from candling.audit.record import Measurement
from candling.errors import ParamsError
from candling.models import ModelSpec, build_model, save_model
from tasks.compute_entanglement import WRITTEN, attack_correlation, compute_matrix
from tasks.context import Context, Found, read_findings
from tasks.generate_prototypes import generate
from tasks.import_data import import_data
from tasks.load_model import load
from tasks.store import Stored

SIDE = 24


def ran(root: Path, classes: tuple[str, ...], **more: Any) -> tuple[Stored, Found]:
    """The step's result for an untrained network, with six pictures of each class."""
    generator = np.random.default_rng(0)
    for name in classes:
        folder = root / "pictures" / name
        folder.mkdir(parents=True)
        for row in range(6):
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{row}.png")
    spec = ModelSpec("residual_cnn", classes, (SIDE, SIDE), arguments={"widths": [6, 8]})
    save_model(build_model(spec), root / "model")
    params = {"name": "small", "model": "model", "data": {"eval": {"location": "pictures"}},
              "prototypes": {"parameterisation": "fourier", "seeds": 2, "steps": 8}, **more}  # fmt: skip
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(params))
    context = Context.of(root, file)
    subject = load.fn(context, "model")
    context = replace(context, dataset=import_data.fn(context, subject))
    stored = compute_matrix.fn(context, subject, generate.fn(context, subject))
    return stored, read_findings(stored.path)


def of(found: Found, id: str) -> list[Measurement]:
    return [m for m in found.measurements if m.id == f"entanglement.{id}"]


CLASSES = ("wall clock", "analog clock", "zebra", "umbrella", "tench", "banana")


def test_what_it_records(tmp_path: Path) -> None:
    stored, found = ran(tmp_path, CLASSES)
    assert len(of(found, "directed")) == 30
    assert len(of(found, "symmetric")) == 15
    directed = {(m.scope["from"], m.scope["to"]): m.value for m in of(found, "directed")}
    for m in of(found, "symmetric"):
        pair = m.scope["class"], m.scope["other"]
        if m.value is not None:
            assert m.value == pytest.approx(min(directed[pair] or 0, directed[pair[::-1]] or 0))
            assert m.note.startswith("p ")
    (strongest,) = of(found, "strongest_pair")
    assert strongest.value == max(value for value in directed.values() if value is not None)
    (significant,) = of(found, "significant_pairs")
    assert significant.value is not None
    assert significant.note.startswith(
        f"{round(significant.value * (significant.n or 0))} of {significant.n}"
    )
    assert len(of(found, "confusion_correlation")) == 1
    assert "names, weights of the head explain" in found.notes["entanglement.surprising"]

    assert [artifact.path for artifact in found.artifacts] == [
        "pictures/entanglement.png", "entanglement.parquet", "entanglement-matrix.parquet",
    ]  # fmt: skip
    assert len(found.artifacts) == WRITTEN
    table = pd.read_parquet(stored.path / "entanglement.parquet")
    for row in table.to_dict("records"):
        assert row["value"] == pytest.approx(directed[row["from"], row["to"]], abs=1e-6)


def test_the_costs_of_attacks(tmp_path: Path) -> None:
    stored, found = ran(tmp_path, CLASSES)
    mutual = {(m.scope["class"], m.scope["other"]): m.value for m in of(found, "symmetric")}
    costs = np.full((6, 6), np.nan)
    for (c, k), value in mutual.items():
        if value is not None:
            costs[CLASSES.index(c), CLASSES.index(k)] = costs[CLASSES.index(k), CLASSES.index(c)] = -value
    measured = attack_correlation(stored, costs)
    assert measured.value == pytest.approx(-1)
    assert attack_correlation(stored, np.full((6, 6), 0.1)).status == "inconclusive"


def test_a_hierarchy_explains(tmp_path: Path) -> None:
    hierarchy = {"zebra": "striped", "umbrella": "striped"}
    _, found = ran(tmp_path, CLASSES, entanglement={"hierarchy": hierarchy})
    assert "the hierarchy" in found.notes["entanglement.surprising"]


def test_a_hierarchy_of_strangers(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="mammoth"):
        ran(tmp_path, CLASSES, entanglement={"hierarchy": {"mammoth": "animal"}})


def test_two_classes_are_not_tested(tmp_path: Path) -> None:
    _, found = ran(tmp_path, CLASSES[:2])
    assert "-1 by construction" in found.notes["entanglement.two_classes"]
    assert "entanglement.surprising" not in found.notes
    for id in ("significant_pairs", "confusion_correlation"):
        (m,) = of(found, id)
        assert (m.status, m.value) == ("inconclusive", None)
        assert m.note
    assert {m.value for m in of(found, "directed")} <= {-1.0, None}
