"""The same twelve pictures in every form that a source can have."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from candling.data import DataSource

Pixels = NDArray[np.uint8]
CLASSES = ("ant", "bee", "cow")


@dataclass(frozen=True)
class One:
    """A picture, its class, and the box of its object: x, y, width, height."""

    name: str
    label: str
    pixels: Pixels
    box: tuple[int, int, int, int]

    @property
    def mask(self) -> NDArray[np.bool_]:
        x, y, width, height = self.box
        there = np.zeros(self.pixels.shape[:2], dtype=bool)
        there[y : y + height, x : x + width] = True
        return there


def _one(row: int) -> One:
    rng = np.random.default_rng([row, 99])
    height, width = (int(side) for side in rng.integers(9, 16, 2))
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[:2, :2] = 255  # a white corner, which may as well be transparent
    if row % 3 == 0:
        pixels[:] = pixels[..., :1]
    box = (int(rng.integers(0, 4)), int(rng.integers(0, 4)), int(rng.integers(2, 6)), int(rng.integers(2, 6)))
    return One(f"p{row:02d}", CLASSES[row // 4], pixels, box)


ALL = [_one(row) for row in range(12)]
DECOYS = [
    One(f"q{row}", label, one.pixels // 2, one.box)
    for row, (label, one) in enumerate(zip(CLASSES, ALL[:3], strict=True))
]


def png(one: One) -> bytes:
    return encoded(Image.fromarray(one.pixels))


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def put(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


# --- the forms ---------------------------------------------------------------------------------


def image_folder(root: Path) -> DataSource:
    for one in ALL:
        put(root / one.label / f"{one.name}.png", png(one))
    return DataSource(root)


def folder_with_splits(root: Path) -> DataSource:
    for part, ones in (("train", DECOYS), ("val", ALL)):
        for one in ones:
            put(root / part / one.label / "deeper" / f"{one.name}.PNG", png(one))
    return DataSource(root, split="val")


def csv_with_paths(root: Path) -> DataSource:
    return _csv(root, "manifest.csv", lambda one: one.label)


def csv_by_index(root: Path) -> DataSource:
    return _csv(root, "list.csv", lambda one: str(CLASSES.index(one.label)))


def csv_by_other_names(root: Path) -> DataSource:
    """A column of another name, labels in words of their own."""
    source = _csv(
        root, "list.csv", lambda one: {"ant": "Formica", "bee": "BEE", "cow": "cow"}[one.label], "kind"
    )
    return DataSource(source.location, columns={"label": "kind"}, labels={"Formica": "ant"})


def _csv(root: Path, file: str, label: Callable[[One], str], column: str = "label") -> DataSource:
    lines = [f"path,{column},mask"]
    for one in ALL:
        put(root / "pictures" / f"{one.name}.png", png(one))
        put(root / "masks" / f"{one.name}.png", encoded(Image.fromarray(one.mask)))
        lines.append(f"pictures/{one.name}.png,{label(one)},masks/{one.name}.png")
    put(root / file, "\n".join(lines).encode("utf-8-sig"))
    return DataSource(root if file == "manifest.csv" else root / file)


def parquet_with_bytes(root: Path) -> DataSource:
    masks = [encoded(Image.fromarray(np.uint8(one.mask))) for one in ALL + DECOYS]
    table = pd.DataFrame({
        "bytes": [png(one) for one in ALL + DECOYS], "label": [one.label for one in ALL + DECOYS],
        "mask": masks, "part": ["a"] * len(ALL) + ["b"] * len(DECOYS),
    })  # fmt: skip
    root.mkdir()
    table.to_parquet(root / "x.parquet")
    return DataSource(root / "x.parquet", columns={"split": "part"}, split="a")


def parquet_by_index_with_gaps(root: Path) -> DataSource:
    """Floating-point indices, as pandas makes of whole numbers beside empty cells; pictures in a struct."""
    root.mkdir()
    labels = [float(CLASSES.index(one.label)) for one in ALL]
    pictures = [{"bytes": png(one), "path": f"{one.name}.png"} for one in ALL]
    pd.DataFrame({"image": pictures, "label": labels}).to_parquet(root / "x.parquet")
    return DataSource(root / "x.parquet", columns={"bytes": "image"})


def coco(segment: Callable[[One], dict[str, Any]]) -> Callable[[Path], DataSource]:
    def make(root: Path) -> DataSource:
        """A larger thing that is no class lies in every third picture; each category has an odd id."""
        images, annotations = [], []
        for row, one in enumerate(ALL):
            put(root / "images" / f"{one.name}.png", png(one))
            height, width = one.mask.shape
            images.append({"id": 70 + row, "file_name": f"{one.name}.png", "height": height, "width": width})
            category = 11 + 2 * CLASSES.index(one.label)
            common = {"image_id": 70 + row, "iscrowd": row % 2}
            annotations.append(
                {"id": row, "category_id": category, "area": int(one.mask.sum()), **common, **segment(one)}
            )
            if row % 3 == 0:
                box = [0, 0, width, height]
                annotations.append(
                    {"id": 100 + row, "category_id": 3, "area": width * height, "bbox": box, **common}
                )
        categories = [
            {"id": 3, "name": "person"},
            *({"id": 11 + 2 * i, "name": n} for i, n in enumerate(CLASSES)),
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        put(root / "instances.json", json.dumps(content).encode())
        return DataSource(root / "instances.json")

    return make


def polygons(one: One) -> dict[str, Any]:
    """Two, which share an edge."""
    x, y, width, height = one.box
    middle = x + 1
    halves = [(x, middle), (middle, x + width)]
    return {"segmentation": [[a, y, b, y, b, y + height, a, y + height] for a, b in halves]}


def runs(one: One) -> dict[str, Any]:
    """Lengths of runs down the columns, the first of background."""
    flat = one.mask.T.ravel()
    ends = [*(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    lengths = np.diff([0, *ends]).tolist()
    return {"segmentation": {"size": list(one.mask.shape), "counts": [0, *lengths] if flat[0] else lengths}}


def compressed_runs(one: One) -> dict[str, Any]:
    pycocotools = pytest.importorskip("pycocotools.mask")
    found = pycocotools.encode(np.asfortranarray(one.mask.astype(np.uint8)))
    return {"segmentation": {"size": found["size"], "counts": found["counts"].decode()}}


def boxes(one: One) -> dict[str, Any]:
    return {"segmentation": [], "bbox": list(one.box)}


def _dataset(ones: list[One], *, masks: bool) -> Any:
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), "kind": datasets.ClassLabel(names=["cow", "ant", "bee"])}
    columns: dict[str, list[Any]] = {
        "image": [{"bytes": png(one), "path": None} for one in ones],
        "kind": [["cow", "ant", "bee"].index(one.label) for one in ones],
    }
    if masks:
        features["mask"] = datasets.Image()
        columns["mask"] = [{"bytes": encoded(Image.fromarray(one.mask)), "path": None} for one in ones]
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def dataset(root: Path) -> DataSource:
    _dataset(ALL, masks=True).save_to_disk(str(root))
    return DataSource(root)


def dataset_dict(root: Path) -> DataSource:
    datasets = pytest.importorskip("datasets")
    parts = {"train": _dataset(DECOYS, masks=False), "test": _dataset(ALL, masks=False)}
    datasets.DatasetDict(parts).save_to_disk(str(root))
    return DataSource(root, split="test")


def odd_modes(root: Path) -> DataSource:
    """Each picture in another mode that loses nothing of it."""
    lines = ["path,label"]
    for row, one in enumerate(ALL):
        content, suffix = _odd(row, one.pixels)
        put(root / f"{one.name}{suffix}", content)
        lines.append(f"{one.name}{suffix},{one.label}")
    put(root / "manifest.csv", "\n".join(lines).encode())
    return DataSource(root / "manifest.csv", format="manifest")


def _odd(row: int, pixels: Pixels) -> tuple[bytes, str]:
    picture = Image.fromarray(pixels)
    if row in (0, 3):  # grey
        levels = pixels[..., 0].astype(np.uint16)
        return (
            (encoded(Image.fromarray(levels * 257)), ".png")
            if row
            else (encoded(picture.convert("L")), ".png")
        )
    if row in (1, 2):  # black hides under what is transparent
        alpha = np.full(pixels.shape[:2], 255, dtype=np.uint8)
        alpha[:2, :2] = 0
        hidden = np.where(alpha[..., None] == 0, 0, pixels).astype(np.uint8)
        return encoded(Image.fromarray(np.dstack([hidden, alpha]))), ".png"
    if row in (4, 5):
        return encoded(
            picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        ), ".png"
    if row == 6:
        return encoded(Image.fromarray(pixels[..., 0].astype(np.float32) / 255), "TIFF"), ".tif"
    if row in (7, 8):
        ink = np.dstack([255 - pixels, np.zeros(pixels.shape[:2], np.uint8)])
        return encoded(_cmyk(ink), "TIFF"), ".tif"
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    return encoded(turned, exif=exif.tobytes()), ".png"


def _cmyk(ink: Pixels) -> Image.Image:
    return Image.merge("CMYK", [Image.fromarray(np.ascontiguousarray(ink[..., i])) for i in range(4)])


FORMS: dict[str, tuple[Callable[[Path], DataSource], bool]] = {
    "image folder": (image_folder, False),
    "image folder with splits": (folder_with_splits, False),
    "CSV with paths": (csv_with_paths, True),
    "CSV by index": (csv_by_index, True),
    "CSV by other names": (csv_by_other_names, True),
    "Parquet with bytes": (parquet_with_bytes, True),
    "Parquet by floating-point index": (parquet_by_index_with_gaps, False),
    "COCO polygons": (coco(polygons), True),
    "COCO compressed runs": (coco(compressed_runs), True),
    "COCO runs": (coco(runs), True),
    "COCO boxes": (coco(boxes), True),
    "Hugging Face dataset": (dataset, True),
    "Hugging Face splits": (dataset_dict, False),
    "odd modes": (odd_modes, False),
}
