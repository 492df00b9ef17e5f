"""The same twelve pictures in every form that a source can have, which must import to the same split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from candling.data import DataSource, ImportReport, Pictures, import_pictures, read_source, read_split
from candling.errors import DataError
from tests.data.forms import (
    ALL,
    CLASSES,
    FORMS,
    boxes,
    coco,
    csv_with_paths,
    encoded,
    odd_modes,
    polygons,
    put,
)

SIDE = 8


def shrink(picture: Image.Image, mask: Image.Image | None) -> tuple[Image.Image, Image.Image | None]:
    small = [None if p is None else p.resize((SIDE, SIDE), Image.Resampling.NEAREST) for p in (picture, mask)]
    assert small[0] is not None
    return small[0], small[1]


def reference(pixels: NDArray[Any]) -> NDArray[Any]:
    """Nearest neighbours by indexing alone."""
    rows, columns = (((np.arange(SIDE) + 0.5) * side / SIDE).astype(int) for side in pixels.shape[:2])
    return pixels[rows][:, columns]


def imported(source: DataSource, folder: Path) -> tuple[Pictures, ImportReport]:
    report = import_pictures(read_source(source), CLASSES, shrink, folder, "eval", expected=(SIDE, SIDE))
    return read_split(folder, "eval", CLASSES), report


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_split(form: str, tmp_path: Path) -> None:
    make, has_masks = FORMS[form]
    found, report = imported(make(tmp_path / "source"), tmp_path / "imported")
    assert found.labels.tolist() == [row // 4 for row in range(12)]
    for row, one in enumerate(ALL):
        assert np.array_equal(found.images[row].permute(1, 2, 0), reference(one.pixels)), one.name
    assert (found.masks is not None) == has_masks
    if found.masks is not None:
        assert found.has_mask is not None
        assert found.has_mask.all()
        for row, one in enumerate(ALL):
            assert np.array_equal(found.masks[row] > 0, reference(one.mask)), one.name
    assert report.images == 12
    assert report.classes == {"ant": 4, "bee": 4, "cow": 4}
    assert report.quarantined == ()
    assert report.unmapped == {}
    assert report.without_mask == (0 if has_masks else 12)


def test_odd_modes_are_counted(tmp_path: Path) -> None:
    _, report = imported(odd_modes(tmp_path / "source"), tmp_path / "imported")
    assert report.converted == {
        "composited on white where transparent": 2,
        "converted from CMYK": 2,
        "converted from a palette": 2,
        "converted from grey": 1,
        "scaled from 16-bit grey": 1,
        "scaled from floating-point grey of 0 to 1": 1,
        "turned upright as EXIF says": 3,
    }


def test_a_split_that_was_imported_is_a_source(tmp_path: Path) -> None:
    first, _ = imported(csv_with_paths(tmp_path / "source"), tmp_path / "once")
    again, _ = imported(DataSource(tmp_path / "once/eval.parquet"), tmp_path / "twice")
    assert again.images.equal(first.images)
    assert again.labels.equal(first.labels)
    assert again.masks is not None
    assert first.masks is not None
    assert again.masks.equal(first.masks)
    assert again.groups == first.groups


def with_clean_pictures(root: Path) -> DataSource:
    """A manifest whose column `bare` names each picture without its object: grey all over."""
    csv_with_paths(root)
    table = pd.read_csv(root / "manifest.csv", encoding="utf-8-sig")
    for row, one in enumerate(ALL):
        put(root / "bare" / f"{one.name}.png", encoded(Image.fromarray(np.full_like(one.pixels, row))))
    table["bare"] = [f"bare/{one.name}.png" for one in ALL]
    table.to_csv(root / "manifest.csv", index=False)
    return DataSource(root / "manifest.csv", columns={"clean": "bare"})


def test_a_manifest_names_clean_pictures(tmp_path: Path) -> None:
    found, report = imported(with_clean_pictures(tmp_path / "source"), tmp_path / "once")
    assert found.clean is not None
    assert found.clean.flatten(1).tolist() == [[row] * (3 * SIDE * SIDE) for row in range(12)]
    assert found.slices == {}  # it is no metadata
    assert not any("bare" in sentence for sentence in report.sentences())
    again, _ = imported(DataSource(tmp_path / "once/eval.parquet"), tmp_path / "twice")
    assert again.clean is not None
    assert again.clean.equal(found.clean)

    # As bytes in Parquet.
    table = pd.read_csv(tmp_path / "source/manifest.csv")
    table["clean"] = [(tmp_path / "source" / name).read_bytes() for name in table["bare"]]
    table.drop(columns="bare").to_parquet(tmp_path / "source/x.parquet")
    bytes_, _ = imported(DataSource(tmp_path / "source/x.parquet"), tmp_path / "bytes")
    assert bytes_.clean is not None
    assert bytes_.clean.equal(found.clean)


def test_clean_pictures_stay_below_the_manifest(tmp_path: Path) -> None:
    source = with_clean_pictures(tmp_path / "source")
    lines = source.location.read_text().replace("bare/p03.png", "../p03.png")
    source.location.write_text(lines)
    with pytest.raises(DataError, match=r"row 4: the path '\.\./p03\.png' leaves"):
        read_source(source)


# --- COCO's own rules --------------------------------------------------------------------------


def test_coco_metadata_and_what_was_passed_over(tmp_path: Path) -> None:
    samples = read_source(coco(boxes)(tmp_path))
    assert samples[0].metadata == {"objects": 2, "categories": "ant, person"}
    assert samples[1].metadata == {"objects": 1, "categories": "ant"}
    assert samples[0].label == "person"
    assert [other.label for other in samples[0].alternatives] == ["ant"]
    report = import_pictures(samples, CLASSES, shrink, tmp_path / "imported", "eval")
    assert any("passed over" in sentence and "person 4" in sentence for sentence in report.sentences())
    assert report.unmapped == {}


def test_coco_largest_category_by_total_area_and_the_union_of_its_regions(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encoded(Image.new("RGB", (10, 6))))
    regions = [("ant", [0, 0, 4, 3]), ("bee", [5, 0, 2, 4]), ("bee", [8, 1, 2, 4])]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 10}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": CLASSES.index(name), "bbox": box}
            for i, (name, box) in enumerate(regions)
        ],
    }
    put(tmp_path / "x.json", json.dumps(content).encode())
    (sample,) = read_source(DataSource(tmp_path / "x.json"))
    expected = np.zeros((6, 10), dtype=bool)
    expected[0:4, 5:7] = expected[1:5, 8:10] = True
    assert sample.label == "bee"
    assert sample.mask is not None
    mask = sample.mask()
    assert isinstance(mask, np.ndarray)
    assert np.array_equal(mask > 0, expected)


def change(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(changes)


def first(part: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part][0].update(changes)


def drop(part: str, key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part][0].pop(key)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(images=[]), "the list 'images' is empty"),
        (change(annotations=[]), "the list 'annotations' is empty"),
        (change(categories=None), "no list 'categories'"),
        (drop("images", "file_name"), "image 70 without 'file_name'"),
        (drop("images", "width"), r"height and width of image 70 are \(\d+, None\)"),
        (first("images", file_name="../a.png"), r"image 70: the path '\.\./a\.png' leaves"),
        (first("images", file_name="p01.png"), "'p01.png' is listed twice"),
        (first("images", id=71), "two images have the id 71"),
        (first("annotations", image_id=5), "annotation 0 names the image_id 5"),
        (first("annotations", category_id=5), "annotation 0 names the category_id 5"),
        (first("annotations", bbox=[1, 2, 3]), "annotation 0: neither a segmentation nor a bbox"),
        (first("annotations", segmentation=[[1, 2, 3, 4]]), "annotation 0: a polygon is"),
        (first("annotations", segmentation={"size": [3, 3], "counts": [9]}), r"width \[3, 3\]"),
        (first("annotations", segmentation="all"), "a segmentation is polygons or runs, not str"),
    ],
)  # fmt: skip
def test_coco_that_cannot_be_used(
    damage: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    source = coco(boxes)(tmp_path)
    content = json.loads(source.location.read_text())
    damage(content)
    source.location.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_source(source)


@pytest.mark.parametrize("counts", [[3, 4], [-1, 2], "zz", "", "34", [1.5]])
def test_coco_runs_that_do_not_fill_the_picture(counts: object, tmp_path: Path) -> None:
    source = coco(boxes)(tmp_path)
    content = json.loads(source.location.read_text())
    size = [content["images"][0][side] for side in ("height", "width")]
    content["annotations"][0]["segmentation"] = {"size": size, "counts": counts}
    source.location.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"annotation 0: runs (that do not add up|without counts)"):
        read_source(source)


def test_coco_pictures_elsewhere_missing_and_without_annotation(tmp_path: Path) -> None:
    source = coco(boxes)(tmp_path / "a")
    (tmp_path / "a/images").rename(tmp_path / "pictures")
    with pytest.raises(DataError, match="none of the 12 pictures is in .*p00.png"):
        read_source(source)
    content = json.loads(source.location.read_text())
    content["images"].append({"id": 1, "file_name": "bare.png", "height": 5, "width": 5})
    source.location.write_text(json.dumps(content))
    (tmp_path / "pictures/p05.png").unlink()
    samples = read_source(DataSource(source.location, images=tmp_path / "pictures"))
    assert len(samples) == 12
    report = import_pictures(samples, CLASSES, shrink, tmp_path / "imported", "eval")
    assert report.images == 11
    assert report.quarantined == (("p05.png", "the file is not there"),)
    said = " ".join(report.sentences())
    assert "1 of the 13 images have no annotation" in said
    assert "1 are missing, first p05.png" in said


# --- the plain thing behind all of them ---------------------------------------------------------


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    source = coco(polygons)(tmp_path / "source")
    digests = []
    for name in ("once", "twice"):
        imported(source, tmp_path / name)
        files = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        whole = [(f.relative_to(tmp_path / name).as_posix(), f.read_bytes()) for f in files]
        digests.append(hashlib.sha256(repr(whole).encode()).hexdigest())
    assert len(files) == 25  # pictures, masks, the manifest
    assert digests[0] == digests[1]
