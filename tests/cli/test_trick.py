"""`candling trick`: files, table, JSON and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from candling.cli.main import run
from candling.models import ModelSpec, build_model, load_model, logits, model_digest, predict, save_model
from tests.models.blackboxes import onnx_file

SIZE = (24, 32)
CLASSES = ("\x1b[2J", "zebra", "tree")
FEW = ["--steps", "15", "--probability", "0.5"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANDLING_DEBUG", "0")
    model = build_model(ModelSpec("residual_cnn", CLASSES, SIZE, {"widths": [4, 6]}), seed=2)
    pixels = torch.randint(0, 256, (30, 40, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save("a.png")
    cut, _ = model.prepare(Image.open("a.png"))
    seen = torch.from_numpy(np.array(cut)).permute(2, 0, 1)[None]
    with torch.no_grad():  # nearly as many parts of each class, of 'zebra' a little more
        model.get_parameter("network.head.weight").mul_(8)
        bias = model.get_parameter("network.head.bias")
        bias += torch.tensor([0.0, 0.05, 0.0]) - logits(model, seen)[0]
    save_model(model, tmp_path / "model")
    assert predict(load_model("model"), "a.png")[0][0] == "zebra"


def test_it_writes_a_folder_and_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trick", "model", "a.png", "--target", "tree", *FEW]) == 0
    out, err = capsys.readouterr()
    assert {path.name for path in Path("trick").iterdir()} == {
        "original.png", "noise.png", "tricked.png", "trick.png", "trick.parquet"
    }  # fmt: skip
    head, before, after = (line.split() for line in out.splitlines()[:3])
    assert head == ["picture", "predicted", "probability", "from_probability", "to_probability"]
    table = pd.read_parquet("trick/trick.parquet").set_index("picture")
    assert before == ["original", "zebra", *(f"{table[name]['original']:.3f}" for name in head[2:])]
    assert after == ["tricked", "tree", *(f"{table[name]['tricked']:.3f}" for name in head[2:])]
    assert predict(load_model("model"), "trick/tricked.png")[0][0] == "tree"
    assert out.splitlines()[-1] == "contact sheet: trick/trick.png"
    assert err.startswith("trick … done in ")


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--norm", "l2", "--epsilon", "9", "--target", "0", "--json", "--out", "x/y", *FEW]
    assert run(["trick", "model", "a.png", *arguments]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["folder"]) == (model_digest(Path("model")), "x/y")
    assert (said["target"], said["norm"], said["epsilon"], said["done"]) == ("\x1b[2J", "l2", 9.0, True)
    assert 0 < said["distance"] <= 9
    assert said["trick"][1]["to_probability"] >= 0.5
    assert said["evaluations"] > 0
    assert run(["trick", "model", "a.png", "--json", *FEW]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["target"] is None
    assert said["trick"][0]["to_probability"] is None
    assert said["trick"][1]["predicted"] != "zebra"


BAD: dict[str, tuple[list[str], int, str]] = {
    "the prediction": (["model", "a.png", "--target", "zebra"], 4, "takes the picture for 'zebra' as it is"),
    "no such class": (["model", "a.png", "--target", "zebr"], 4, "no class 'zebr'; the nearest is 'zebra'"),
    "no epsilon": (["model", "a.png", "--epsilon", "0"], 4, "epsilon is 0.0; it must be a number above 0"),
    "no such norm": (["model", "a.png", "--norm", "l3"], 4, "norm 'l3' is neither linf nor l2"),
    "no picture": (["model", "none.png"], 4, "none.png: no such picture"),
    "not a picture": (["model", "model/spec.json"], 4, "model/spec.json: "),
    "no model": (["none", "a.png"], 2, "none: no spec.json here"),
    "a folder in use": (["model", "a.png", "--out", "model"], 4, "no part of an earlier trick"),
    "a black box": (
        ["onnx:net.onnx", "a.png", "--classes", "abc.json"], 2,
        "the model is a black box (onnx), so its gradient cannot be had",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments, code, words = BAD[case]
    if case == "a black box":
        onnx_file(tmp_path)
        (tmp_path / "abc.json").write_text('["a", "b", "c"]')
    before = sorted(tmp_path.rglob("*"))
    assert run(["trick", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert sorted(tmp_path.rglob("*")) == before
