"""`candling associate`: tables, JSON, files, and what ends it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import candling.language.mapping
from candling.cli.main import run
from candling.language.associations import LEXICON
from tests.language.test_mapping import LEADS, led

GIVEN = [
    "--control",
    " book",
    "--control",
    " doctor",
    "--length",
    "3",
    "--restarts",
    "12",
    "--budget",
    "3000",
]


@pytest.fixture(autouse=True)
def _planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(candling.language.mapping, "open_language_model", lambda _: led(LEADS))


def test_it_says_what_is_confirmed_and_writes_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["associate", "planted", " girl", "--against", " boy", *GIVEN]) == 0
    out, err = capsys.readouterr()
    assert "little" in out
    assert "confirmed" in out
    assert "ok: 24 of 24 restarts reached it" in out
    assert "beside prompts for ' boy':" in out
    assert "searching prompts for ' girl'" in err
    table = pd.read_parquet("associations/associations.parquet")
    assert set(table.beside) == {"controls", " boy"}
    prompts = pd.read_parquet("associations/prompts.parquet")
    assert set(prompts.concept) == {" girl", " book", " doctor"}
    assert set(prompts.block) == {0, 1}
    # Again into the same place, as JSON.
    assert run(["associate", "planted", " girl", *GIVEN, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["confirmed"] == ["little"]
    assert told["status"] == "ok"
    assert told["paired"] is None


def test_a_place_that_is_taken_is_told_before_anything_is_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "associations").mkdir()
    (tmp_path / "associations" / "mine.txt").write_text("mine")
    assert run(["associate", "planted", " girl", *GIVEN]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "holds 'mine.txt', no part of an earlier map" in err
    assert "searching" not in err


def test_a_lexicon_and_a_frame_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.txt").write_text("little\n")
    given = [*GIVEN, "--lexicon", "small.txt", "--frame", "", "--json"]
    assert run(["associate", "planted", " girl", *given]) == 0
    told = json.loads(capsys.readouterr().out)
    assert LEXICON + "small" in [row["item"] for row in told["associations"]]
    assert run(["associate", "planted", " girl", *GIVEN, "--lexicon", "none.txt"]) == 4
    assert "none.txt: no such lexicon" in capsys.readouterr().err
    assert run(["associate", "planted", " girl", *GIVEN, "--chat"]) == 4
    assert "no chat template" in capsys.readouterr().err
