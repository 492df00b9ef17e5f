"""`candling prototype` and `candling visualize`: files, table, JSON, interruption, and every bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import candling
from candling.cli.main import run
from candling.models import ModelSpec, build_model, load_model, model_digest, save_model
from candling.vision import kept
from tests.models.blackboxes import onnx_file
from tests.vision.test_visualization import language_model

ROOT = Path(__file__).parents[2]
SIZE = (24, 32)
FEW = ["--steps", "4", "--seeds", "2"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANDLING_DEBUG", "0")
    spec = ModelSpec("residual_cnn", ("\x1b[2J", "zebra", "tree"), SIZE, {"widths": [4, 6]})
    save_model(build_model(spec), tmp_path / "model")


def table_of(out: str) -> list[list[str]]:
    table, _, _ = out.partition("\n\n")
    return [line.split() for line in table.splitlines()]


def test_prototype_writes_a_folder_and_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prototype", "model", "--class", "zebra", "--class", "0", *FEW]) == 0
    out, err = capsys.readouterr()
    table = pd.read_parquet("prototypes/prototypes.parquet")
    assert {path.name for path in Path("prototypes").iterdir()} == {
        *table["file"], "prototypes.parquet", "prototypes.png"
    }  # fmt: skip
    assert list(table["file"])[:2] == ["0000-zebra.png", "0001-zebra.png"]
    head, *rows = table_of(out)
    assert head == ["name", "seed", "steps", "probability", "trust"]
    assert [row[:3] for row in rows] == [
        ["zebra", "0", "4"], ["zebra", "1", "4"], [r"\x1b[2J", "0", "4"], [r"\x1b[2J", "1", "4"]
    ]  # fmt: skip
    for row, probability, trust in zip(rows, table["probability"], table["trust"], strict=True):
        assert row[3:] == [f"{probability:.3f}", f"{trust:.2f}"]
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "contact sheet: prototypes/prototypes.png"
    assert re.fullmatch(r"prototypes … done in \d+\.\d s\n", err)
    expected = candling.prototypes(load_model("model"), ["zebra", 0], seeds=2, steps=4)
    pd.testing.assert_frame_equal(table.drop(columns="file"), expected.table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "prototypes"], "no rows are left"


def test_visualize_writes_a_folder_and_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    layer = ["--layer", "stages.0", "--channel", "1", "--neuron", "2,3,4", "--neuron", "0"]
    more = ["--objective", "logit[zebra] - 2*stem.channel[1]", "--seeds", "1", "--steps", "4"]
    assert run(["visualize", "model", *layer, *more, "--negative", "--out", "a/b"]) == 0
    out, _ = capsys.readouterr()
    table = pd.read_parquet("a/b/visualizations.parquet")
    texts = ["-stages.0.channel[1]", "-stages.0.neuron[2,3,4]", "-stages.0.neuron[0]",
             "-logit[zebra] + 2*stem.channel[1]"]  # fmt: skip
    assert table["objective"].tolist() == texts
    expected = candling.visualize(load_model("model"), texts, seeds=1, steps=4)
    assert table["value"].tolist() == expected.table["value"].tolist()
    assert table_of(out)[1] == ["-stages.0.channel[1]", "0", "4", f"{table['value'][0]:.4g}"]
    with Image.open("a/b/visualizations.png") as sheet:
        assert sheet.width > SIZE[1]


def test_a_layer_alone_is_a_deep_dream(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["visualize", "model", "--layer", "stem", *FEW]) == 0
    assert [row[0] for row in table_of(capsys.readouterr().out)] == ["objective", "stem", "stem"]


@pytest.mark.parametrize("command", ["prototype", "visualize"])
def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str], command: str) -> None:
    what = {"prototype": ["--class", "tree"], "visualize": ["--layer", "stem"]}[command]
    assert run([command, "model", *what, *FEW, "--json", "--size", "20x28", "--robustness", "none"]) == 0
    said = json.loads(capsys.readouterr().out)
    name = f"{command}s" if command == "prototype" else "visualizations"
    assert said["model"] == model_digest(Path("model"))
    assert said["folder"] == name
    assert said["settings"]["robustness"] == "none"
    assert [row["seed"] for row in said[name]] == [0, 1]
    with Image.open(next(Path(name).glob("0000*.png"))) as picture:
        assert picture.size == (28, 20)
    if command == "prototype":
        assert said[name][0]["transfer"] is None
        assert said[name][0]["name"] == "tree"
        assert "without" in said["notes"][0]


@pytest.mark.parametrize("size", [None, "12x16"])
def test_pictures_and_a_second_model_tell_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    for label in ("zebra", "tree"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(4):
            pixels = (torch.rand(30, 40, 3, generator=generator) * 255).byte().numpy()
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{i}.png")
    options = ["--all", "--pictures", "pictures", "--second", "model", *FEW]
    assert run(["prototype", "model", *options, *([] if size is None else ["--size", size])]) == 0
    out, err = capsys.readouterr()
    assert "pictures: 8 pictures of 2 classes: tree 4, zebra 4." in err
    assert "without" not in out
    table = pd.read_parquet("prototypes/prototypes.parquet")
    judged = table[table["name"] != "\x1b[2J"]
    assert judged[["path", "transfer", "agreement", "trust"]].notna().all(axis=None)


def test_a_picture_to_start_from(tmp_path: Path) -> None:
    pixels = (torch.rand(*SIZE, 4, generator=torch.Generator().manual_seed(0)) * 255).byte()
    pixels[..., 3] = 255
    Image.fromarray(pixels.numpy()).save(tmp_path / "start.png")
    start = ["--seeds", "1", "--steps", "1", "--robustness", "none", "--start", "start.png"]
    for command, what in (("prototype", ["--class", "tree"]), ("visualize", ["--objective", "logit[tree]"])):
        assert run([command, "model", *what, *start, "--out", command]) == 0
        with Image.open(next(Path(command).glob("0000*.png"))) as picture:
            found = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
        expected = candling.prototypes(
            load_model("model"), "tree", start=pixels[..., :3].permute(2, 0, 1), seeds=1, steps=1,
            robustness="none",
        )  # fmt: skip
        assert (found == expected.images[0].numpy()).all()
        noise = candling.prototypes(load_model("model"), "tree", seeds=1, steps=1, robustness="none")
        assert np.abs(found - noise.images[0].numpy().astype(float)).mean() > 20


def test_a_start_between_classes(tmp_path: Path) -> None:
    model = build_model(ModelSpec("residual_cnn", ("a", "b"), SIZE, {"widths": [4, 6]}), seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # as training leaves them: not zero, and so grey has a gradient
                parameter.copy_(torch.linspace(0.1, 0.5, len(parameter)))
        head = model.get_parameter("network.head.bias")
        head.sub_(model.eval()(torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)))[0])
    save_model(model, tmp_path / "between")
    few = ["--seeds", "1", "--steps", "2", "--start", "equidistant"]
    assert run(["prototype", "between", "--all", *few]) == 0
    expected = candling.prototypes(load_model("between"), start="equidistant", seeds=1, steps=2)
    table = pd.read_parquet("prototypes/prototypes.parquet")
    pd.testing.assert_frame_equal(table.drop(columns="file"), expected.table)
    assert run(["visualize", "between", "--objective", "margin[a]", *few]) == 0
    shown = candling.visualize(load_model("between"), "margin[0]", start="equidistant", seeds=1, steps=2)
    table = pd.read_parquet("visualizations/visualizations.parquet")
    assert table["value"].tolist() == shown.table["value"].tolist()


def test_an_earlier_result_is_replaced_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["visualize", "model", "--layer", "stem", *FEW, "--out", "out"]) == 0
    assert run(["visualize", "model", "--layer", "stages", *FEW, "--out", "out"]) == 0
    assert pd.read_parquet("out/visualizations.parquet")["objective"].tolist() == ["stages"] * 2
    capsys.readouterr()
    assert run(["prototype", "model", "--all", *FEW, "--out", "out"]) == 4
    assert "no part of an earlier prototypes" in capsys.readouterr().err


# --- interruption --------------------------------------------------------------------------------


def begin(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "candling", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests themselves run in the background, they ignore it, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_the_same_command_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sign: signal.Signals
) -> None:
    # Pictures so large that twelve fit into a batch: others are on their way when the first have left.
    command = [
        "prototype",
        "model",
        "--all",
        "--seeds",
        "20",
        "--steps",
        "9",
        "--size",
        "128",
        "--out",
        "out",
    ]
    rows = tmp_path / ".out.rows"
    process = begin(*command)
    try:
        deadline = time.monotonic() + 60
        while not any(rows.glob("*.safetensors")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(sign)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert not (tmp_path / "out").exists()
    kept_rows = len(list(rows.glob("*.safetensors")))
    assert 0 < kept_rows < 60
    assert out == ""
    if sign == signal.SIGINT:
        assert process.returncode == 130
        assert f"{kept_rows} of 60 rows are kept; the same command goes on from there" in err

    given: list[int] = []
    plain = kept.climb

    def climb(model: Any, asked: Any, *rest: Any, **more: Any) -> None:
        given.append(len(asked))
        plain(model, asked, *rest, **more)

    monkeypatch.setattr(kept, "climb", climb)
    assert run(command) == 0
    assert given == [60 - kept_rows]
    assert len(pd.read_parquet("out/prototypes.parquet")) == 60
    assert not rows.exists()


# --- bad input -----------------------------------------------------------------------------------

WITH = ["prototype", "model", *FEW]
SHOW = ["visualize", "model", *FEW]
BAD: dict[str, tuple[list[str], int, str]] = {
    "no class": ([*WITH], 4, "name classes with --class, or all of them with --all"),
    "classes and all": ([*WITH, "--all", "--class", "tree"], 4, "one of the two"),
    "no such class": ([*WITH, "--class", "zebr"], 4, "there is no class 'zebr'; the nearest is 'zebra'"),
    "no such number": ([*WITH, "--class", "3"], 4, "there is no class 3; the model has 3, 0 to 2"),
    "no such strength": ([*WITH, "--all", "--robustness", "big"], 4, "'big' is none of none, s, m, l, xl"),
    "no such parameterisation": ([*WITH, "--all", "--parameterisation", "voxels"], 4, "'voxels' is none of"),
    "no seeds": ([*WITH, "--all", "--seeds", "0"], 4, "--seeds"),
    "no size": ([*WITH, "--all", "--size", "large"], 4, "--size 'large': write 224 or 224x320"),
    "no pictures": ([*WITH, "--all", "--pictures", "none"], 4, "none: no such file or folder"),
    "no second model": ([*WITH, "--all", "--second", "none"], 2, "none: no spec.json here"),
    "a folder in use": ([*WITH, "--all", "--out", "model"], 4, "no part of an earlier prototypes"),
    "no picture to start from": ([*WITH, "--all", "--start", "none.png"], 4, "none.png: No such file"),
    "a start that is no picture": (
        [*WITH, "--all", "--start", "model/spec.json"], 4, "--start model/spec.json: "
    ),
    "a start between no classes": (
        [*SHOW, "--layer", "stem", "--start", "equidistant"], 4, "lies between classes, and stem has none"
    ),
    "a file in the way": ([*WITH, "--all", "--out", "model/spec.json"], 4, "a file is in the way"),
    "below a file": ([*WITH, "--all", "--out", "model/spec.json/x"], 4, "cannot be written"),
    "no model": (["prototype", "none", "--all"], 2, "none: no spec.json here"),
    "a language model": (["prototype", "llama", "--all"], 2, "'llama': no image classifier can be built"),
    "a black box": (
        ["prototype", "onnx:net.onnx", "--all", "--classes", "abc.json"], 2,
        "the model is a black box (onnx), so its gradient cannot be had",
    ),
    "smaller than the stride": ([*SHOW, "--layer", "stem", "--size", "1"], 4, "pictures of 3 × 1 × 1"),
    "nothing": ([*SHOW], 4, "there is nothing to visualize; name a --layer or an --objective"),
    "no such layer": ([*SHOW, "--layer", "stme"], 2, "no layer 'stme'; the nearest are 'stem'"),
    "no such channel": ([*SHOW, "--layer", "stem", "--channel", "4"], 2, "stem has 4 channels, 0 to 3"),
    "a channel of no layer": ([*SHOW, "--channel", "4"], 4, "are parts of a layer; name it with --layer"),
    "half a place": ([*SHOW, "--layer", "stem", "--neuron", "1,2"], 4, "write CHANNEL for the middle"),
    "no token": ([*SHOW, "--layer", "stem", "--token", "a"], 4, "write TOKEN for all of its units"),
    "a token of a picture": ([*SHOW, "--layer", "stem", "--token", "1,2"], 2, "stem.token[1].unit[2] needs"),
    "no such text": ([*SHOW, "--objective", "logit[1"], 4, "not understood"),
    "no such class in a text": ([*SHOW, "--objective", "logit[zebr]"], 4, "the nearest is 'zebra'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments, code, words = BAD[case]
    if case == "a language model":
        language_model(tmp_path)
    if case == "a black box":
        onnx_file(tmp_path)
        (tmp_path / "abc.json").write_text('["a", "b", "c"]')
    before = sorted(tmp_path.rglob("*"))
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert sorted(tmp_path.rglob("*")) == before
