"""Labelled pictures on disk: a folder with one Parquet manifest a split.

Columns of a manifest: `path`, `label`, `group` ("class/background"), `sha256`; optional `environment`
(the background's name), `mask` (grey PNG: 0 background, any other value object, 1… the parts in order;
null where a picture has none), `clean` (the same picture without the object) and `slice.<name>` (what a
picture belongs to in some other respect). Paths are relative to the folder.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from candling.data.decode import Unreadable, decode
from candling.errors import DataError

__all__ = ["Pictures", "read_picture", "read_split", "split_digest"]


@dataclass(frozen=True)
class Pictures:
    """A split in memory.

    images: uint8 (N, 3, H, W). labels: int64 (N,), -1 where there is no label. masks: uint8 (N, H, W)
    part ids, or None where no picture has a mask. clean: uint8 (N, 3, H, W) without the object, or None.
    has_mask: bool (N,), which of the masks are there (the others are all zero), or None where none is;
    with masks and no `has_mask`, all are. slices: for each name of a slice the value of every picture, ""
    where it has none.
    """

    names: tuple[str, ...]
    images: Tensor
    labels: Tensor
    groups: tuple[str, ...]
    environments: tuple[str, ...]
    masks: Tensor | None = None
    clean: Tensor | None = None
    has_mask: Tensor | None = None
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.masks is not None and self.has_mask is None:
            object.__setattr__(self, "has_mask", torch.ones(len(self.masks), dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int]) -> Pictures:
        """The pictures at these rows, in this order."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        return Pictures(
            names=tuple(self.names[i] for i in rows),
            images=self.images[index],
            labels=self.labels[index],
            groups=tuple(self.groups[i] for i in rows),
            environments=tuple(self.environments[i] for i in rows),
            masks=None if self.masks is None else self.masks[index],
            clean=None if self.clean is None else self.clean[index],
            has_mask=None if self.has_mask is None else self.has_mask[index],
            slices={name: tuple(values[i] for i in rows) for name, values in self.slices.items()},
        )


def _manifest(folder: Path, split: str) -> pd.DataFrame:
    file = folder / f"{split}.parquet"
    if not file.is_file():
        raise DataError(f"{file}: no such manifest; `dvc repro` makes the data of a shipped audit")
    try:
        table = pd.read_parquet(file)
    except (ValueError, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error
    missing = [name for name in ("path", "label", "group", "sha256") if name not in table]
    if missing:
        raise DataError(f"{file}: no column {missing[0]!r}; a manifest has path, label, group and sha256")
    if table.empty:
        raise DataError(f"{file}: the split is empty; an audit needs pictures")
    return table


def split_digest(folder: Path, split: str) -> str:
    """SHA-256 of the manifest, which holds the digest of every picture and mask."""
    file = folder / f"{split}.parquet"
    if not file.is_file():
        raise DataError(f"{file}: no such manifest; `dvc repro` makes the data of a shipped audit")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _load(folder: Path, names: Sequence[str], digests: Sequence[str] | None, mode: str) -> NDArray[np.uint8]:
    """Pictures as uint8 (N, H, W, 3) or (N, H, W), each read once and checked against its digest."""
    root = folder.resolve()
    pixels: NDArray[np.uint8] | None = None
    for row, name in enumerate(names):
        file = (root / name).resolve()
        if not file.is_relative_to(root):
            raise DataError(f"{name}: the path leaves {folder}")
        try:
            content = file.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise DataError(f"{file}: named in the manifest but not there") from error
        if digests is not None and hashlib.sha256(content).hexdigest() != digests[row]:
            raise DataError(f"{file}: its bytes are not those of the manifest; make the data again")
        try:
            with Image.open(io.BytesIO(content)) as picture:
                array = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        except OSError as error:
            raise DataError(f"{file}: not a picture that Pillow can read") from error
        if pixels is None:
            pixels = np.empty((len(names), *array.shape), dtype=np.uint8)
        elif array.shape != pixels.shape[1:]:
            raise DataError(f"{file}: size {array.shape[:2]} differs from {pixels.shape[1:3]} of {names[0]}")
        pixels[row] = array
    assert pixels is not None, "a split or a column without rows is never loaded"
    return pixels


def read_split(folder: Path, split: str, classes: Sequence[str]) -> Pictures:
    """Read a split and check each file against the manifest's digests.

    Parameters
    ----------
    folder
        Where the manifests lie.
    split
        Name of the manifest, without its ending.
    classes
        Class names in the order of the model's logits.

    Raises
    ------
    DataError
        If the split is missing, empty, damaged, or has a label that the model does not know or that
        is the name of two classes.
    """
    table = _manifest(folder, split)
    index = {name: i for i, name in enumerate(classes)}
    twice = {name for name, count in Counter(classes).items() if count > 1}
    labels = []
    for label in table["label"].fillna(""):
        if label and label not in index:
            raise DataError(
                f"{folder / split}.parquet: label {label!r} is none of the model's classes {tuple(classes)}"
            )
        if label in twice:
            raise DataError(
                f"{folder / split}.parquet: label {label!r} is the name of two of the model's classes; "
                "give the classes different names"
            )
        labels.append(index.get(label, -1))
    groups = tuple(str(group) for group in table["group"])
    environments = table["environment"] if "environment" in table else [g.rpartition("/")[2] for g in groups]

    def column(name: str, mode: str, rows: NDArray[np.bool_]) -> NDArray[np.uint8]:
        digest = f"{name}_sha256"
        digests = list(table.loc[rows, digest]) if digest in table else None
        return _load(folder, list(table.loc[rows, name]), digests, mode)

    def there(name: str) -> NDArray[np.bool_]:
        return table[name].notna().to_numpy() if name in table else np.zeros(len(table), dtype=bool)

    pixels = _load(folder, list(table["path"]), list(table["sha256"]), "RGB")
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    masks = clean = None
    masked = there("mask")
    if masked.any():
        found = column("mask", "L", masked)
        if found.shape[1:] != images.shape[2:]:
            raise DataError(
                f"{folder / split}: masks are {found.shape[1:]}, pictures {tuple(images.shape[2:])}"
            )
        masks = torch.zeros(len(table), *found.shape[1:], dtype=torch.uint8)
        masks[torch.from_numpy(masked.copy())] = torch.from_numpy(found)
    if there("clean").all():
        clean = torch.from_numpy(column("clean", "RGB", there("clean"))).permute(0, 3, 1, 2).contiguous()
        if clean.shape != images.shape:
            raise DataError(
                f"{folder / split}: clean pictures are {tuple(clean.shape[2:])}, "
                f"pictures {tuple(images.shape[2:])}"
            )
    return Pictures(
        names=tuple(str(Path(name).stem) for name in table["path"]),
        images=images,
        labels=torch.tensor(labels),
        groups=groups,
        environments=tuple(str(e) for e in environments),
        masks=masks,
        clean=clean,
        has_mask=None if masks is None else torch.from_numpy(masked.copy()),
        slices={
            name.removeprefix("slice."): tuple(str(value) for value in table[name].fillna(""))
            for name in map(str, table)
            if name.startswith("slice.")
        },
    )


def read_picture(file: Path) -> Tensor:
    """One picture, as `decode` reads it: uint8 (3, H, W).

    Raises
    ------
    DataError
        If there is no such file, or it is no picture.
    """
    try:
        picture = decode(file.read_bytes()).picture
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error
    except Unreadable as error:
        raise DataError(f"{file}: {error}") from error
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
