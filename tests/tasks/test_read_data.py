from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import candling.data
from candling.data import split_digest
from tasks.read_data import Dataset, Located


def write_split(folder: Path, colour: tuple[int, int, int]) -> None:
    Image.new("RGB", (4, 4), colour).save(folder / "one.png")
    digest = hashlib.sha256((folder / "one.png").read_bytes()).hexdigest()
    row = {"path": "one.png", "label": "a", "group": "a/field", "sha256": digest}
    pd.DataFrame([row]).to_parquet(folder / "eval.parquet")


def dataset(folder: Path) -> Dataset:
    located = Located(folder, "eval", split_digest(folder, "eval"))
    return Dataset(classes=("a", "b"), audited=(0, 1), splits={"eval": located})


def test_a_split_is_decoded_once_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = candling.data.read_split, []
    monkeypatch.setattr(candling.data, "read_split", lambda *a: calls.append(a) or read(*a))
    write_split(tmp_path, (255, 0, 0))
    first = dataset(tmp_path).read("eval")
    assert dataset(tmp_path).read("eval") is first
    assert len(calls) == 1
    write_split(tmp_path, (0, 255, 0))
    second = dataset(tmp_path).read("eval")
    assert len(calls) == 2
    assert first.images[0, :, 0, 0].tolist() == [255, 0, 0]
    assert second.images[0, :, 0, 0].tolist() == [0, 255, 0]
