"""Splits on disk: read as written, and refused with one sentence when they are not as written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from candling.data import Pictures, read_picture, read_split, split_digest
from candling.errors import DataError

CLASSES = ("clear", "tank")
Table = dict[str, list[object]]


def pixels(row: int, *, size: tuple[int, int] = (6, 8), clean: bool = False) -> np.ndarray:
    return np.random.default_rng([row, clean]).integers(0, 256, (*size, 3), dtype=np.uint8)


def part_ids(row: int, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    return np.random.default_rng([row, 7]).integers(0, 4, size, dtype=np.uint8)


def save(folder: Path, name: str, array: np.ndarray) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / name)
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Three pictures with masks and clean versions, and the columns of their manifest."""
    names = [f"images/{row}.png" for row in range(3)]
    masks = [f"masks/{row}.png" for row in range(3)]
    clean = [f"clean/{row}.png" for row in range(3)]
    return {
        "path": list(names),
        "label": ["tank", "clear", "tank"],
        "group": ["tank/sky", "clear/grass", "tank/deep/snow"],
        "sha256": [save(tmp_path, name, pixels(row)) for row, name in enumerate(names)],
        "mask": list(masks),
        "mask_sha256": [save(tmp_path, name, part_ids(row)) for row, name in enumerate(masks)],
        "clean": list(clean),
        "clean_sha256": [save(tmp_path, name, pixels(row, clean=True)) for row, name in enumerate(clean)],
    }


def write(folder: Path, table: Table) -> None:
    pd.DataFrame(table).to_parquet(folder / "eval.parquet")


def read(folder: Path, table: Table) -> Pictures:
    write(folder, table)
    return read_split(folder, "eval", CLASSES)


# --- what is read ------------------------------------------------------------------------------


def test_a_split_is_read_as_written(tmp_path: Path, table: Table) -> None:
    found = read(tmp_path, table)
    assert len(found) == 3
    assert found.names == ("0", "1", "2")
    assert found.labels.tolist() == [1, 0, 1]
    assert found.groups == ("tank/sky", "clear/grass", "tank/deep/snow")
    assert found.environments == ("sky", "grass", "snow")
    assert found.masks is not None
    assert found.clean is not None
    for row in range(3):
        assert np.array_equal(found.images[row].permute(1, 2, 0), pixels(row))
        assert np.array_equal(found.masks[row], part_ids(row))
        assert np.array_equal(found.clean[row].permute(1, 2, 0), pixels(row, clean=True))


def test_the_environment_column_wins_over_the_group(tmp_path: Path, table: Table) -> None:
    table["environment"] = ["a", "b", "c"]
    assert read(tmp_path, table).environments == ("a", "b", "c")


@pytest.mark.parametrize("nothing", ["", None])
def test_no_label_is_minus_one(tmp_path: Path, table: Table, nothing: object) -> None:
    table["label"][1] = nothing
    assert read(tmp_path, table).labels.tolist() == [1, -1, 1]


def test_masks_and_clean_pictures_may_be_absent(tmp_path: Path, table: Table) -> None:
    table["clean"][2] = None
    bare = read(tmp_path, {name: values for name, values in table.items() if "mask" not in name})
    assert bare.masks is None
    assert bare.clean is None
    assert bare.take([1]).masks is None


def test_some_pictures_have_masks(tmp_path: Path, table: Table) -> None:
    table["mask"][1] = table["mask_sha256"][1] = None
    found = read(tmp_path, table)
    assert found.masks is not None
    assert found.has_mask is not None
    assert found.has_mask.tolist() == [True, False, True]
    assert not found.masks[1].any()
    for row in (0, 2):
        assert np.array_equal(found.masks[row], part_ids(row))
    taken = found.take([1, 2])
    assert taken.has_mask is not None
    assert taken.has_mask.tolist() == [False, True]
    table["mask"] = [None] * 3
    bare = read(tmp_path, table)
    assert bare.masks is None
    assert bare.has_mask is None


def test_slices_are_kept_with_their_pictures(tmp_path: Path, table: Table) -> None:
    assert read(tmp_path, table).slices == {}
    table["slice.time of day"] = ["night", None, "day"]
    found = read(tmp_path, table)
    assert found.slices == {"time of day": ("night", "", "day")}
    assert found.take([2, 0]).slices == {"time of day": ("day", "night")}


def test_two_classes_of_one_name_cannot_be_told_apart(tmp_path: Path, table: Table) -> None:
    write(tmp_path, table)
    with pytest.raises(DataError, match="'tank' is the name of two of the model's classes"):
        read_split(tmp_path, "eval", ("tank", "clear", "tank"))
    assert len(read_split(tmp_path, "eval", ("tank", "clear", "crane", "crane"))) == 3


def test_take_keeps_rows_together(tmp_path: Path, table: Table) -> None:
    found = read(tmp_path, table)
    taken = found.take([2, 0, 2])
    assert taken.names == ("2", "0", "2")
    assert taken.labels.tolist() == [1, 1, 1]
    assert taken.groups == ("tank/deep/snow", "tank/sky", "tank/deep/snow")
    assert taken.environments == ("snow", "sky", "snow")
    for name in ("images", "masks", "clean"):
        assert torch.equal(getattr(taken, name), getattr(found, name)[[2, 0, 2]])
    assert len(found.take([])) == 0


def test_digest_follows_the_manifest(tmp_path: Path, table: Table) -> None:
    write(tmp_path, table)
    first = split_digest(tmp_path, "eval")
    assert first == hashlib.sha256((tmp_path / "eval.parquet").read_bytes()).hexdigest()
    table["sha256"][0] = "0" * 64
    write(tmp_path, table)
    assert split_digest(tmp_path, "eval") != first


# --- what is refused ---------------------------------------------------------------------------


def test_no_manifest(tmp_path: Path) -> None:
    for call in (lambda: read_split(tmp_path, "eval", CLASSES), lambda: split_digest(tmp_path, "eval")):
        with pytest.raises(DataError, match=r"eval\.parquet: no such manifest"):
            call()


def test_a_manifest_that_is_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "eval.parquet").write_text("path,label\n")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_split(tmp_path, "eval", CLASSES)


def test_an_empty_split(tmp_path: Path, table: Table) -> None:
    with pytest.raises(DataError, match="the split is empty"):
        read(tmp_path, {name: [] for name in table})


@pytest.mark.parametrize("name", ["path", "label", "group", "sha256"])
def test_a_missing_column(tmp_path: Path, table: Table, name: str) -> None:
    del table[name]
    with pytest.raises(DataError, match=f"no column '{name}'"):
        read(tmp_path, table)


def test_an_unknown_label(tmp_path: Path, table: Table) -> None:
    table["label"][1] = "lorry"
    with pytest.raises(DataError, match=r"label 'lorry' is none of the model's classes \('clear', 'tank'\)"):
        read(tmp_path, table)


@pytest.mark.parametrize("folder", ["images", "masks", "clean"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes() + b"\0"), r"1\.png: its bytes are not those"),
        (lambda file: file.unlink(), r"1\.png: named in the manifest but not there"),
    ],
)
def test_changed_and_missing_files(
    tmp_path: Path, table: Table, folder: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(tmp_path / folder / "1.png")
    with pytest.raises(DataError, match=message):
        read(tmp_path, table)


def test_a_file_that_is_no_picture(tmp_path: Path, table: Table) -> None:
    content = b"not a picture"
    (tmp_path / "images/1.png").write_bytes(content)
    table["sha256"][1] = hashlib.sha256(content).hexdigest()
    with pytest.raises(DataError, match=r"1\.png: not a picture"):
        read(tmp_path, table)


@pytest.mark.parametrize("form", ["up", "absolute", "link"])
def test_a_path_that_leaves_its_root(tmp_path: Path, form: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "outside.png"
    digest = save(tmp_path, "outside.png", pixels(0))
    (root / "link.png").symlink_to(outside)
    name = {"up": "../outside.png", "absolute": str(outside), "link": "link.png"}[form]
    with pytest.raises(DataError, match="the path leaves"):
        read(root, {"path": [name], "label": ["tank"], "group": ["tank/sky"], "sha256": [digest]})


def test_pictures_of_different_sizes(tmp_path: Path, table: Table) -> None:
    table["sha256"][2] = save(tmp_path, "images/2.png", pixels(2, size=(6, 9)))
    with pytest.raises(DataError, match=r"2\.png: size \(6, 9\) differs from \(6, 8\)"):
        read(tmp_path, table)


def test_masks_and_clean_pictures_of_another_size(tmp_path: Path, table: Table) -> None:
    masks = dict(table)
    masks["mask_sha256"] = [save(tmp_path, f"masks/{row}.png", part_ids(row, (5, 8))) for row in range(3)]
    with pytest.raises(DataError, match=r"masks are \(5, 8\), pictures \(6, 8\)"):
        read(tmp_path, masks)
    clean = {name: values for name, values in table.items() if "mask" not in name}
    clean["clean_sha256"] = [
        save(tmp_path, f"clean/{row}.png", pixels(row, size=(6, 7), clean=True)) for row in range(3)
    ]
    with pytest.raises(DataError, match=r"clean pictures are \(6, 7\), pictures \(6, 8\)"):
        read(tmp_path, clean)


def test_one_picture_is_decoded_as_any(tmp_path: Path) -> None:
    expected = np.random.default_rng(0).integers(0, 256, (4, 7, 3), dtype=np.uint8)
    Image.fromarray(expected).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png")
    assert found.dtype == torch.uint8
    assert (found.permute(1, 2, 0).numpy() == expected).all()
    clear = np.concatenate([expected, np.zeros((4, 7, 1), np.uint8)], 2)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png") == 255).all(), "what is transparent is white"


def test_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: No such file"):
        read_picture(tmp_path / "none.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"torn\.png: "):
        read_picture(tmp_path / "torn.png")
