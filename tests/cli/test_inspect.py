"""`candling inspect` on models of several sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from candling.cli.main import run
from candling.models import ModelSpec, build_model, model_digest, save_model
from tests.models.factories import Tiny

NAMES = ("\x1b[2J", "tank", "tree")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    spec = ModelSpec("residual_cnn", NAMES, (32, 40), arguments={"widths": [4, 6]})
    save_model(build_model(spec), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("depth", "names"), [("1", ["stem", "stages", "head"]), ("2", ["stem.0", "stages.0"])]
)
def test_inspect_prints_layers_and_facts(
    model: Path, capsys: pytest.CaptureFixture[str], depth: str, names: list[str]
) -> None:
    assert run(["inspect", str(model), "--depth", depth]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    table, _, facts = out.partition("\n\n")
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert set(names) <= rows.keys()
    assert ("stages.0.body" in rows) is False
    assert rows["head"] == ["Linear", "3", "21"]
    assert rows["stem"] == ["Sequential", "4×16×20", "308"]
    said = dict(line.split(":", 1) for line in facts.splitlines())
    assert said["digest"].strip() == model_digest(model)
    assert said["head"].strip() == "softmax over 3 classes"
    assert said["classes"].strip() == r"\x1b[2J · tank · tree"
    assert said["parameters"].strip() == f"{sum(p.numel() for p in build_model_of(model).parameters()):,}"


def test_inspect_as_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(model), "--depth", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["digest"] == model_digest(model)
    assert found["facts"]["head"] == "softmax over 3 classes"
    rows = {row["layer"]: row for row in found["layers"]}
    assert rows["head"] == {"layer": "head", "kind": "Linear", "output": [3], "parameters": 21}
    assert rows["stem"]["output"] == [4, 16, 20]


def build_model_of(folder: Path) -> torch.nn.Module:
    from candling.models import load_model

    return load_model(folder)


def test_inspect_and_predict_take_any_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    torch.save(Tiny().state_dict(), tmp_path / "w.pt")
    (tmp_path / "classes.json").write_text(json.dumps(["cat", "dog", "egg"]))
    (tmp_path / "p.json").write_text('{"resize": 20, "center_crop": 16}')
    Image.new("RGB", (50, 40), (90, 120, 200)).save(tmp_path / "a.png")
    options = ["--classes", str(tmp_path / "classes.json"), "--weights", str(tmp_path / "w.pt")]
    source = "factory:tests.models.factories:tiny"
    assert run(["inspect", source, *options, "--preprocessing", str(tmp_path / "p.json")]) == 0
    out = capsys.readouterr().out
    assert "cat · dog · egg" in out
    assert "resize to shortest side 20 (bilinear), cut the central 16×16" in out
    options += ["--image-size", "16x20", "--head", "multilabel"]
    assert run(["predict", source, str(tmp_path / "a.png"), *options]) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert {name for _, name in rows} == {"cat", "dog", "egg"}
    assert sum(float(share) for share, _ in rows) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 2, "no spec.json here"),
        (["torchvision:resnet19@x.pt"], 2, "did you mean"),
        (["torchvision:"], 4, "needs a name"),
        (["onnx:a.onnx", "--head", "sigmoid"], 4, "head of a model is 'sigmoid'"),
        (["onnx:a.onnx", "--image-size", "large"], 4, "write 224 or 224x320"),
        (["models:/a@b"], 2, "the audit resolves MLflow models"),
    ],
)
def test_inspect_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert run(["inspect", *arguments]) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1
