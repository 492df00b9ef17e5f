"""COCO instances: polygons, run-length encodings and boxes as masks.

Only polygons need pycocotools: which pixels a polygon covers is what its rasteriser says. Runs are decoded
here, as its decoder takes runs that do not fill the picture.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candling.data.samples import Alternative, Sample, Samples, few, file_content, inside
from candling.errors import DataError

__all__ = ["read_coco"]

Annotation = Mapping[str, Any]
Size = tuple[int, int]


def read_coco(file: Path, images: Path | None = None) -> Samples:
    """The images of an instances file that have annotations, in its order.

    The label of an image is the category whose annotations have the largest total area; the other categories
    follow as alternatives by falling area, so that a model takes the largest that it knows. The mask is the
    union of that category's annotations, crowds too. Metadata: `objects`, how many annotations there are, and
    `categories`, the names joined by ", ".

    Parameters
    ----------
    file
        The JSON file.
    images
        Folder of the pictures; None for the file's own folder or `images` in it.

    Raises
    ------
    DataError
        If the file is no COCO file or holds no annotated image, if an annotation's image, category or form
        is wrong, or if none of the pictures is there.

    References
    ----------
    https://cocodataset.org/#format-data
    """
    content = _read(file)
    categories = {
        _get(c, "id", file, "category"): str(_get(c, "name", file, "category")) for c in content["categories"]
    }
    by_id: dict[Any, dict[str, Any]] = {}
    for image in content["images"]:
        number = _get(image, "id", file, "image")
        if number in by_id:
            raise DataError(f"{file}: two images have the id {number!r}; each needs its own")
        by_id[number] = image
    annotations: dict[Any, list[Annotation]] = defaultdict(list)
    for annotation in content["annotations"]:
        where = f"annotation {annotation.get('id', '?')!r}"
        for key, known in (("image_id", set(by_id)), ("category_id", set(categories))):
            if _get(annotation, key, file, where) not in known:
                raise DataError(
                    f"{file}: {where} names the {key} {annotation[key]!r}, which is not in the file"
                )
        annotations[annotation["image_id"]].append(annotation)
    if not annotations:
        raise DataError(f"{file}: no image has an annotation; there is nothing to take a label from")

    roots = [images] if images is not None else [file.parent, file.parent / "images"]
    samples: list[Sample] = []
    missing: list[str] = []
    rows: dict[Path, str] = {}
    for number, image in by_id.items():
        name = _get(image, "file_name", file, f"image {number!r}")
        if not isinstance(name, str) or not name:
            raise DataError(
                f"{file}: the file_name of image {number!r} is {name!r}; write the path of its picture"
            )
        paths = [inside(root, name, f"{file}: image {number!r}") for root in roots]
        path = next((path for path in paths if path.is_file()), paths[0])
        if path in rows:
            raise DataError(f"{file}: the picture {name!r} is listed twice; list each picture once")
        rows[path] = name
        if number in annotations:
            if not path.is_file():
                missing.append(name)
            samples.append(_sample(file, image, name, path, annotations[number], categories))
    if len(missing) == len(samples):
        raise DataError(
            f"{file}: none of the {len(missing)} pictures is in {' or '.join(map(str, roots))}, "
            f"first {missing[0]!r}; say with `images` where they are"
        )
    notes = []
    bare = len(by_id) - len(samples)
    if bare:
        notes.append(f"{bare} of the {len(by_id)} images have no annotation and were left out.")
    if missing:
        notes.append(
            f"Of the pictures that {file.name} names {len(missing)} are missing, first {missing[0]}."
        )
    return Samples(file, tuple(samples), notes=tuple(notes))


def _read(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not a readable JSON file ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"{file}: no list {key!r}; a COCO file of instances has images, annotations and categories"
            )
        if not all(isinstance(entry, dict) for entry in content[key]):
            raise DataError(f"{file}: {key!r} holds something that is no object")
        if not content[key]:
            raise DataError(f"{file}: the list {key!r} is empty; there is nothing to audit")
    found: dict[str, list[dict[str, Any]]] = content
    return found


def _get(entry: Mapping[str, Any], key: str, file: Path, what: str) -> Any:
    if key not in entry:
        raise DataError(f"{file}: {what} without {key!r}: {few([json.dumps(entry)[:80]])}")
    value = entry[key]
    if isinstance(value, list | dict):
        raise DataError(f"{file}: the {key} of {what} is {json.dumps(value)[:40]}; write a plain value")
    return value


def _sample(
    file: Path,
    image: Mapping[str, Any],
    name: str,
    path: Path,
    annotations: Sequence[Annotation],
    categories: Mapping[Any, str],
) -> Sample:
    of: dict[str, list[_Region]] = defaultdict(list)
    for annotation in annotations:
        of[categories[annotation["category_id"]]].append(_Region(file, image, annotation))
    # Of equal areas the first by name, so that the order of annotations decides nothing.
    ranked = sorted(of, key=lambda category: (-sum(region.area() for region in of[category]), category))
    found = [Alternative(category, _union(of[category])) for category in ranked]
    return Sample(
        name=name,
        content=file_content(path),
        label=found[0].label,
        mask=found[0].mask,
        metadata={"objects": len(annotations), "categories": ", ".join(sorted(of))},
        alternatives=tuple(found[1:]),
    )


class _Region:
    """Where one annotation lies."""

    def __init__(self, file: Path, image: Mapping[str, Any], annotation: Annotation) -> None:
        self.where = f"{file}: annotation {annotation.get('id', '?')!r}"
        size = (image.get("height"), image.get("width"))
        if not all(type(side) is int and side > 0 for side in size):
            raise DataError(
                f"{file}: height and width of image {image['id']!r} are {size}; write them in pixels"
            )
        self.size: Size = size  # type: ignore[assignment]
        self.annotation = annotation
        self._check()

    def area(self) -> float:
        """In pixels, as annotated where it is."""
        area = self.annotation.get("area")
        if isinstance(area, int | float) and not isinstance(area, bool) and area > 0:
            return float(area)
        return float(self.mask().sum())

    def mask(self) -> NDArray[np.bool_]:
        """Of the image's size."""
        segmentation = self.annotation.get("segmentation")
        if not segmentation:
            return self._box()
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            runs = _decompress(counts) if isinstance(counts, str) else counts
            assert runs is not None, "checked when the file was read"
            return self._from_runs(runs)
        there = np.zeros(self.size, dtype=bool)
        for polygon in _pycocotools().frPyObjects(segmentation, *self.size):
            there |= self._from_runs(_decompress(polygon["counts"].decode()) or [])
        return there

    def _from_runs(self, runs: Sequence[int]) -> NDArray[np.bool_]:
        """Runs go down the columns, background first."""
        height, width = self.size
        values = np.arange(len(runs)) % 2 == 1
        return np.repeat(values, runs).reshape(width, height).T

    def _box(self) -> NDArray[np.bool_]:
        """The pixels whose centres lie in the box."""
        x, y, width, height = self.annotation["bbox"]
        rows, columns = np.arange(self.size[0]) + 0.5, np.arange(self.size[1]) + 0.5
        return np.outer((rows >= y) & (rows < y + height), (columns >= x) & (columns < x + width))

    def _check(self) -> None:
        """Refuse what would be read as something else, before anything is imported."""
        segmentation = self.annotation.get("segmentation")
        if not segmentation:
            box: Any = self.annotation.get("bbox")
            if not (_numbers(box) and len(box) == 4 and box[2] >= 0 and box[3] >= 0):
                raise DataError(f"{self.where}: neither a segmentation nor a bbox of x, y, width, height")
        elif isinstance(segmentation, list):
            for polygon in segmentation:
                if not _numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
                    raise DataError(
                        f"{self.where}: a polygon is a list of x, y of three points or more, "
                        f"not {str(polygon)[:60]}"
                    )
        elif isinstance(segmentation, dict):
            self._check_runs(segmentation)
        else:
            raise DataError(
                f"{self.where}: a segmentation is polygons or runs, not {type(segmentation).__name__}"
            )

    def _check_runs(self, segmentation: Mapping[str, Any]) -> None:
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size != list(self.size):
            raise DataError(
                f"{self.where}: runs of a mask of height and width {size} in an image of {list(self.size)}; "
                "a mask has the size of its picture"
            )
        if isinstance(counts, str):
            runs = _decompress(counts)
        elif isinstance(counts, list) and all(type(run) is int for run in counts):
            runs = counts
        else:
            raise DataError(f"{self.where}: runs without counts, which are a text or a list of whole numbers")
        pixels = self.size[0] * self.size[1]
        if runs is None or min(runs, default=0) < 0 or sum(runs) != pixels:
            raise DataError(f"{self.where}: runs that do not add up to the {pixels} pixels of the image")


def _numbers(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in values
    )


def _decompress(text: str) -> list[int] | None:
    """The runs of COCO's compressed encoding; None for what is none.

    Each run is written in groups of five bits, least first, a sixth bit saying that more follow, as the
    character 48 places on; from the fourth run on it is the difference to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs


def _union(regions: Sequence[_Region]) -> Callable[[], NDArray[np.uint8]]:
    def mask() -> NDArray[np.uint8]:
        # 255, not 1, which is the number of a part.
        there = np.logical_or.reduce([region.mask() for region in regions])
        return np.where(there, 255, 0).astype(np.uint8)

    return mask


def _pycocotools() -> Any:
    try:
        from pycocotools import mask  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError(
            "COCO masks need pycocotools; install it with `pip install candling[data]`"
        ) from error
    return mask
