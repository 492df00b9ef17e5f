"""`candling isolate` and `candling.isolate`: files, table, JSON, a notebook's view, and every bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import candling
from candling.cli.main import run
from candling.data import Pictures
from candling.errors import CandlingError, DataError, ParamsError
from candling.models import ModelSpec, build_model, load_model, probabilities, save_model
from candling.vision.faithfulness import insertion_minus_deletion
from candling.vision.isolation import Hierarchical, Windows

SIZE = (24, 32)
NAMES = ("\x1b[2J", "zebra", "tree", "sky")
QUICK = {"method": "windows", "side": 12}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANDLING_DEBUG", "0")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    save_model(
        build_model(ModelSpec("residual_cnn", NAMES, SIZE, {"widths": [4, 6]}), seed=2), tmp_path / "model"
    )
    for seed, name in enumerate(("one.png", "two.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    yield
    torch.set_num_threads(threads)


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(0))


# --- the command -------------------------------------------------------------------------------


def test_isolate_writes_a_folder_and_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["isolate", "model", "one.png", "two.png", "--class", "zebra", "--top", "1"]) == 0
    out, err = capsys.readouterr()
    table = pd.read_parquet("isolations/isolations.parquet")
    assert {path.name for path in Path("isolations").iterdir()} == {
        *table["file"], "isolations.parquet", "isolations.png"
    }  # fmt: skip
    # Each picture as it is, then faded for the class asked for and for the likeliest other.
    assert table["name"].tolist()[:2] == ["", "zebra"]
    assert table["class"].isna().tolist() == [True, False, False] * 2
    assert table["image"].tolist() == ["one.png"] * 3 + ["two.png"] * 3
    expected = candling.isolate(load_model("model"), ["one.png", "two.png"], "zebra", top=1)
    rows = table.dropna(subset="class").reset_index(drop=True).drop(columns="file")
    pd.testing.assert_frame_equal(rows.astype({"class": "int64"}), expected.table)
    for file in table["file"]:
        with Image.open(Path("isolations") / file) as picture:
            assert picture.size == SIZE[::-1]
    head, *printed = (line.split() for line in out.partition("\n\n")[0].splitlines())
    assert head == ["image", "name", "probability", "insertion_minus_deletion"]
    assert len(printed) == 4
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "contact sheet: isolations/isolations.png"
    assert re.fullmatch(r"isolations … done in \d+\.\d s\n", err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["isolations", "model", "one.png", "two.png"]


def test_json_says_all_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--method", "grad-cam", "--class", "3", "--out", "a/b", "--json"]
    assert run(["isolate", "model", "one.png", *arguments]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == "a/b"
    assert said["method"] == "GradCAM(layer=None)"
    assert said["evaluations"] > 0
    assert [row["name"] for row in said["isolations"]] == ["sky"]
    assert "Grad-CAM is of layer" in said["notes"][0]
    assert (Path("a/b") / "isolations.png").is_file()


BAD: dict[str, tuple[list[str], int, str]] = {
    "no picture": (["none.png"], 4, "none.png: no such picture"),
    "not a picture": (["model/spec.json"], 4, "it is no picture"),
    "class": (["one.png", "--class", "zebre"], 4, "zebra"),
    "method": (["one.png", "--method", "grad-camera"], 4, "the nearest is 'grad-cam'"),
    "attention": (["one.png", "--method", "attention"], 2, "no attention between patches"),
    "nothing": (["one.png", "--top", "0"], 4, "no class is asked for"),
    "place": (["one.png", "--out", "model"], 4, "no part of an earlier isolations"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_one_line_and_writes_nothing(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, code, said = BAD[case]
    assert run(["isolate", "model", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.splitlines()[-1].startswith("error: ")
    assert not Path("isolations").exists()


# --- the function ------------------------------------------------------------------------------


def test_classes_asked_for_come_first_and_the_likeliest_others_follow() -> None:
    model, images = load_model("model"), pictures()
    found = candling.isolate(model, images, ["sky", 1], top=2, **QUICK)
    with torch.no_grad():
        shares = probabilities(model, model.eval()(images))
    for row in range(2):
        rows = found.table.iloc[4 * row : 4 * row + 4]
        others = sorted([0, 2], key=lambda k: -float(shares[row, k]))
        assert rows["class"].tolist() == [3, 1, *others]
        assert rows["probability"].tolist() == pytest.approx(
            [float(shares[row, k]) for k in rows["class"]], abs=1e-5
        )
    judged = insertion_minus_deletion(model, images, found.found.maps, found.found.classes)
    assert found.table["insertion_minus_deletion"].tolist() == pytest.approx(
        judged.flatten().tolist(), abs=1e-5
    )
    assert found.table["image"].tolist() == ["image 0"] * 4 + ["image 1"] * 4


def test_a_result_shows_itself() -> None:
    found = candling.isolate(load_model("model"), "one.png", **QUICK)
    page = found._repr_html_()
    assert page.count("<img") == 4  # the picture, and three classes
    assert "\x1b" not in page or "[2J" in page
    assert "Windows(" in repr(found)
    assert found.sheet().size[0] > found.sheet().size[1] / 2
    assert len(found.pictures) == len(found.captions) == 4
    assert torch.equal(found.pictures[0], found.images[0])
    # Faded means nearer to white, everywhere.
    assert (found.pictures[1].int() >= found.pictures[0].int() - 1).all()


def test_forms_of_pictures_are_alike() -> None:
    model, images = load_model("model"), (pictures(1) * 255).byte()
    shown = Pictures(("a",), images, torch.tensor([0]), ("g",), ("",))
    by_name, by_tensor, one = (candling.isolate(model, form, faithfulness=False, **QUICK)
                               for form in (shown, images, images[0]))  # fmt: skip
    assert by_name.table["image"].tolist() == ["a"] * 3
    assert by_name.table["insertion_minus_deletion"].isna().all()
    assert torch.equal(by_name.found.maps, by_tensor.found.maps)
    assert torch.equal(one.found.maps, by_tensor.found.maps)


def test_a_module_of_its_own_takes_files_at_a_size() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    found = candling.isolate(model, "one.png", size=20, names=("cat", "dog"), method=Windows(side=10))
    assert found.images.shape == (1, 3, 20, 20)
    assert set(found.table["name"]) == {"cat", "dog"}


def test_settings_change_the_method() -> None:
    found = candling.isolate(load_model("model"), pictures(1), depths=1, faithfulness=False)
    assert isinstance(found.found.method, Hierarchical)
    assert found.found.method.depths == 1


ASKED: dict[str, tuple[dict[str, Any], type[CandlingError], str]] = {
    "size": ({"images": torch.rand(1, 3, 30, 30)}, DataError, "30 × 30 pixels, the model takes 24 × 32"),
    "range": ({"images": 2 + torch.rand(1, 3, *SIZE)}, DataError, "image 0 has values from 2"),
    "setting": (
        {"sides": 3},
        ParamsError,
        "Windows has no setting 'sides'; the nearest are 'side', 'stride'",
    ),
    "top": ({"top": -1}, ParamsError, "top is -1"),
    "none": ({"images": []}, DataError, "there is no picture"),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_cannot_be_asked(case: str) -> None:
    changes, kind, said = ASKED[case]
    with pytest.raises(kind, match=said):
        candling.isolate(load_model("model"), **{"images": pictures(), "method": "windows", **changes})
