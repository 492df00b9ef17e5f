"""Where pictures come from: how a source is recognised, and one sentence for each that cannot be used."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from candling.data import DataSource, read_source, split_revision
from candling.errors import DataError


def picture(colour: tuple[int, int, int] = (1, 2, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, "PNG")
    return buffer.getvalue()


def tree(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            file.mkdir(exist_ok=True)
        else:
            file.write_bytes(picture())
    return root


# --- image folders ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        (["b/2.png", "a/1.JPG", "a/deep/0.png"], None,
         ["a/1.JPG a None", "a/deep/0.png a None", "b/2.png b None"]),
        (["train/a/1.png", "test/b/2.png"], None, ["test/b/2.png b test", "train/a/1.png a train"]),
        (["train/a/1.png", "train/b/2.png", "val/c/2.png"], "train",
         ["train/a/1.png a train", "train/b/2.png b train"]),
        (["night/a/1.png", "night/b/2.png"], "night", ["night/a/1.png a night", "night/b/2.png b night"]),
        (["test/1.png", "train/2.png"], None, ["test/1.png test None", "train/2.png train None"]),
        (["a/.x.png", ".git/x.png", "a/1.png", "b/2.png", "__MACOSX/a/1.png"], None,
         ["a/1.png a None", "b/2.png b None"]),
    ],
)  # fmt: skip
def test_image_folders(files: list[str], split: str | None, expected: list[str], tmp_path: Path) -> None:
    samples = read_source(DataSource(tree(tmp_path, *files), split=split))
    assert [f"{s.name} {s.label} {s.split}" for s in samples] == expected
    assert samples.notes == ()
    assert samples[0].content() == picture()


def test_stray_files_and_empty_folders_are_said(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "b/2.png", "b/notes.txt", "list.csv", "c/")
    assert read_source(DataSource(tmp_path)).notes == (
        "2 files that are no picture of a class folder left out: list.csv, b/notes.txt.",
        "Class folders without a picture: c.",
    )


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (["a/1.png", "a/2.png"], None, "only one class, 'a'"),
        (["a/", "b/"], None, "no pictures in it"),
        (["a/x.txt", "b/y.txt"], None, "no pictures in it"),
        ([], None, "no pictures in it"),
        (["1.png", "2.png"], None, "put each into the folder of its class"),
        (["Cat/1.png", "cat/2.png"], None, "'Cat' and 'cat' differ only by case"),
        (["train/Cat/1.png", "test/cat/2.png"], None, "differ only by case"),
        (["a/1.png", "b/2.png"], "val", "no split folder 'val' .* the folders are a, b"),
    ],
)
def test_image_folders_that_cannot_be_used(
    files: list[str], split: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_source(DataSource(tree(tmp_path, *files), split=split))


# --- manifests ------------------------------------------------------------------------------------


def csv(text: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        tree(root, "a.png", "b.png", "in/c.png")
        (root / "m.csv").write_text(text, encoding="utf-8")
        return root / "m.csv"

    return make


def parquet(**columns: Any) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        tree(root, "a.png", "b.png")
        pd.DataFrame(columns).to_parquet(root / "m.parquet")
        return root / "m.parquet"

    return make


def test_a_manifest_is_read_as_written(tmp_path: Path) -> None:
    text = 'path,label,group,split,light,"lux, mean",code\n'
    text += 'a.png,"tench, Tinca",sky,x,day,1.5,007\nin/c.png,NA,,y,,2e3,8\n'
    first, second = read_source(DataSource(csv(text)(tmp_path)))
    assert (first.name, first.label, first.group, first.split) == ("a.png", "tench, Tinca", "sky", "x")
    assert first.metadata == {"light": "day", "lux, mean": 1.5, "code": "007"}
    assert (second.label, second.group) == ("NA", None)
    assert second.metadata == {"light": None, "lux, mean": 2000.0, "code": "8"}
    assert first.mask is None


def test_columns_that_hold_no_plain_values_are_said(tmp_path: Path) -> None:
    make = parquet(
        path=["a.png", "b.png"], label=[1, None], tags=[["x"], ["y"]], day=pd.to_datetime(["2020-01-01"] * 2)
    )
    samples = read_source(DataSource(make(tmp_path)))
    assert [sample.label for sample in samples] == [1, None]
    assert samples[0].metadata == {"day": "2020-01-01T00:00:00"}
    assert samples.notes == ("Columns that hold no plain values became no slices: tags.",)


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        (csv("path,Label\na.png,x"), {}, "no column 'label'; the nearest is 'Label'"),
        (csv("filepath,label\na.png,x"), {}, "no column 'path'; the nearest is 'filepath'"),
        (csv("path,label\na.png,x"), {"columns": {"label": "lable"}},
         "no column 'lable' for 'label'; the nearest"),
        (csv("path,label\na.png,x"), {"columns": {"labels": "label"}},
         "maps 'labels', which means nothing; the nearest is"),
        (csv("path,label,label\na.png,x,y"), {}, "two columns are called 'label'"),
        (csv("path,label\na.png,x\nb.png,y, z"), {}, "row 2: 3 values for 2 columns"),
        (csv("path,label\na.png,\"x"), {}, "not a readable CSV file"),
        (csv(""), {}, "the file is empty"),
        (csv("path,label\n"), {}, "lists no pictures"),
        (csv("path,label\na.png,x\nb.png,y\nin/../a.png,x"), {}, "listed twice, in rows 1 and 3"),
        (csv("path,label\na.png,x\n../b.png,y"), {}, r"row 2: the path '\.\./b\.png' leaves"),
        (csv("path,label\n/etc/passwd,x"), {}, "row 1: the path '/etc/passwd' leaves"),
        (csv("path,label,mask\na.png,x,../m.png"), {}, r"row 1: the path '\.\./m\.png' leaves"),
        (csv("path,label\n,x"), {}, "row 1: the path is empty"),
        (csv("path,label\nx.png,x\ny.png,y"), {}, "none of the 2 files .* first 'x.png'"),
        (csv("path,label\na.png,x"), {"split": "val"}, "no column 'split'"),
        (csv("path,label,split\na.png,x,valid"), {"split": "val"}, "split 'val'; the nearest is 'valid'"),
        (parquet(path=["a.png", "b.png"], label=[0.5, 1.0]), {}, "row 1: the label is 0.5"),
        (parquet(path=["a.png", "b.png"], label=[b"x", b"y"]), {}, "row 1: the label is b'x'"),
        (parquet(path=[1, 2], label=["x", "y"]), {}, "row 1: the path is 1"),
        (parquet(path=["a.png", "a.png"], label=["x", "y"]), {}, "'a.png' is listed twice"),
    ],
)  # fmt: skip
def test_manifests_that_cannot_be_used(
    make: Callable[[Path], Path], more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_source(DataSource(make(tmp_path), **more))


def test_a_manifest_that_is_no_table(tmp_path: Path) -> None:
    for name, what in (("m.csv", "CSV"), ("m.parquet", "Parquet")):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00path")
        with pytest.raises(DataError, match=f"not a readable {what} file"):
            read_source(DataSource(tmp_path / name))


def test_a_link_that_leaves_the_manifests_folder(tmp_path: Path) -> None:
    file = csv("path,label\nlink.png,x")(tree(tmp_path / "root", "in/"))
    (tmp_path / "secret.png").write_bytes(picture())
    os.symlink(tmp_path / "secret.png", tmp_path / "root/link.png")
    with pytest.raises(DataError, match=r"row 1: the path 'link\.png' leaves"):
        read_source(DataSource(file))


def test_bytes_of_another_type(tmp_path: Path) -> None:
    samples = read_source(DataSource(parquet(bytes=["text", "text"], label=["x", "y"])(tmp_path)))
    with pytest.raises(DataError, match="row 1: the picture's bytes are of the type str"):
        samples[0].content()


# --- Hugging Face ---------------------------------------------------------------------------------


def test_hugging_face_columns(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    image = {"bytes": picture(), "path": None}
    features = datasets.Features({
        "before": datasets.Image(), "after": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"]),
        "weather": datasets.ClassLabel(names=["sun", "rain"]), "lux": datasets.Value("float32"),
        "tags": datasets.Sequence(datasets.Value("string")),
    })  # fmt: skip
    rows = {
        "before": [image] * 2, "after": [image] * 2, "label": [1, -1], "weather": [0, 1], "lux": [0.5, None],
        "tags": [["a"], ["b"]],
    }  # fmt: skip
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "x"))
    with pytest.raises(DataError, match="no single column of pictures"):
        read_source(DataSource(tmp_path / "x"))
    samples = read_source(DataSource(tmp_path / "x", columns={"bytes": "after"}))
    assert [sample.label for sample in samples] == ["y", None]
    assert [dict(sample.metadata) for sample in samples] == [
        {"weather": "sun", "lux": 0.5},
        {"weather": "rain", "lux": None},
    ]
    assert samples.notes == ("Columns that hold no plain values became no slices: before, tags.",)
    assert samples[1].content() == picture()
    with pytest.raises(DataError, match="no column 'labl' for 'label'; the nearest is 'label'"):
        read_source(DataSource(tmp_path / "x", columns={"bytes": "after", "label": "labl"}))


def test_a_hugging_face_folder_that_is_none_or_damaged(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    tree(tmp_path / "plain", "a/1.png", "b/1.png")
    with pytest.raises(DataError, match="plain: no Hugging Face dataset; save one there"):
        read_source(DataSource(tmp_path / "plain", "huggingface"))
    parts = datasets.DatasetDict({"test": datasets.Dataset.from_dict({"label": [1]})})
    parts.save_to_disk(str(tmp_path / "x"))
    with pytest.raises(DataError, match="no split 'tests'; the nearest is 'test'"):
        read_source(DataSource(tmp_path / "x", split="tests"))
    with pytest.raises(DataError, match="split 'test': no single column of pictures"):
        read_source(DataSource(tmp_path / "x"))
    (tmp_path / "x/test/state.json").write_text("{")
    with pytest.raises(DataError, match="a damaged Hugging Face dataset"):
        read_source(DataSource(tmp_path / "x"))


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"format": "foldr"}, "no data format 'foldr'; the nearest is 'folder'"),
        ({"format": "folder", "columns": {"label": "x"}}, "`columns` says nothing of the format 'folder'"),
        ({"format": "coco", "split": "val"}, "a COCO file has no splits"),
        ({"format": "manifest", "images": Path("x")}, "`images` says nothing of the format 'manifest'"),
        ({"format": "coco"}, "the format 'coco' is a JSON file"),
        ({"format": "manifest"}, "no files called manifest.csv or manifest.parquet"),
        ({"columns": {"label": "x"}}, "`columns` says nothing of the format 'folder'"),
    ],
)
def test_fields_that_do_not_go_together(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(DataError, match=message):
        read_source(DataSource(tmp_path, **more))


def test_no_such_place_and_no_such_form(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read_source(DataSource(tmp_path / "nowhere"))
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"x\.zip: no form of data that is known"):
        read_source(DataSource(tmp_path / "x.zip"))
    with pytest.raises(DataError, match="the format 'folder' is a folder"):
        read_source(DataSource(tmp_path / "x.zip", "folder"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data", ("data", None)),
        ("data@v1.0", ("data", "v1.0")),
        ("data@HEAD@{1}", ("data", "HEAD@{1}")),
        ("me@home", ("me@home", None)),
        ("me@home/data@v2", ("me@home/data", "v2")),
        ("tracked@main", ("tracked", "main")),
        ("gone/pictures@feature/x", ("gone/pictures", "feature/x")),
        ("gone/@scope/pictures", ("gone/@scope/pictures", None)),
    ],
)
def test_revisions(text: str, expected: tuple[str, str | None], tmp_path: Path) -> None:
    tree(tmp_path, "data/", "me@home/data/")
    (tmp_path / "tracked.dvc").write_text("outs: []")
    assert split_revision(text, tmp_path) == expected


def test_a_revision_that_is_not_named() -> None:
    with pytest.raises(DataError, match="'data@' names no revision after the @"):
        split_revision("data@")
