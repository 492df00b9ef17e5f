"""`candling predict` with a real model on a real picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from candling.cli.main import run
from candling.models import ModelSpec, build_model, model_digest, save_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    spec = ModelSpec("residual_cnn", ("\x1b[2J", "tank", "tree"), (32, 32), arguments={"widths": [4, 4]})
    save_model(build_model(spec), tmp_path / "model")
    return tmp_path / "model"


def test_predict_prints_the_top_classes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (50, 40), (90, 120, 200)).save(tmp_path / "a.png")
    assert run(["predict", str(model), str(tmp_path / "a.png")]) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert {name for _, name in rows} == {r"\x1b[2J", "tank", "tree"}
    shares = [float(share) for share, _ in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert run(["predict", str(model), str(tmp_path / "a.png"), "--top", "1"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert run(["predict", str(model), str(tmp_path / "a.png"), "--top", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == model_digest(model)
    assert [f"{row['probability']:.4f}" for row in found["classes"]] == [row[0] for row in rows[:2]]
    assert {row["class"] for row in found["classes"]} < {"\x1b[2J", "tank", "tree"}


@pytest.mark.parametrize(("missing", "code"), [("model", 2), ("a.png", 4)])
def test_predict_says_what_is_missing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, code: int
) -> None:
    image = tmp_path / "a.png"
    folder = tmp_path / "nowhere" if missing == "model" else model
    assert run(["predict", str(folder), str(image)]) == code
    assert capsys.readouterr().err.startswith("error: ")
