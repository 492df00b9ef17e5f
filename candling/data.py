"""Labelled pictures on disk: a folder with one Parquet manifest a split.

Columns of a manifest: `path`, `label`, `group` ("class/background"), `sha256`; optional `environment`
(the background's name), `mask` (grey PNG: 0 background, any other value object, 1… the parts in order)
and `clean` (the same picture without the object). Paths are relative to the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from candling.errors import DataError

__all__ = ["Pictures", "read_split", "split_digest"]


@dataclass(frozen=True)
class Pictures:
    """A split in memory.

    images: uint8 (N, 3, H, W). labels: int64 (N,), -1 where there is no label. masks: uint8 (N, H, W)
    part ids, or None. clean: uint8 (N, 3, H, W) without the object, or None.
    """

    names: tuple[str, ...]
    images: Tensor
    labels: Tensor
    groups: tuple[str, ...]
    environments: tuple[str, ...]
    masks: Tensor | None = None
    clean: Tensor | None = None

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


def _load(folder: Path, names: Sequence[str], digests: Sequence[str] | None, mode: str) -> Tensor:
    """Pictures as uint8 (N, H, W, 3) or (N, H, W), checked against their digests."""
    root = folder.resolve()
    arrays = []
    for row, name in enumerate(names):
        file = (folder / name).resolve()
        if not file.is_relative_to(root):
            raise DataError(f"{name}: the path leaves {folder}")
        if not file.is_file():
            raise DataError(f"{file}: named in the manifest but not there")
        content = file.read_bytes()
        if digests is not None and hashlib.sha256(content).hexdigest() != digests[row]:
            raise DataError(f"{file}: its bytes are not those of the manifest; make the data again")
        try:
            with Image.open(file) as picture:
                arrays.append(np.array(picture.convert(mode)))
        except OSError as error:
            raise DataError(f"{file}: not a picture that Pillow can read") from error
        if arrays[-1].shape != arrays[0].shape:
            raise DataError(
                f"{file}: size {arrays[-1].shape[:2]} differs from {arrays[0].shape[:2]} of {names[0]}"
            )
    return torch.from_numpy(np.stack(arrays))


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
        If the split is missing, empty, damaged, or has a label that the model does not know.
    """
    table = _manifest(folder, split)
    index = {name: i for i, name in enumerate(classes)}
    labels = []
    for label in table["label"].fillna(""):
        if label and label not in index:
            raise DataError(
                f"{folder / split}.parquet: label {label!r} is none of the model's classes {tuple(classes)}"
            )
        labels.append(index.get(label, -1))
    groups = tuple(str(group) for group in table["group"])
    environments = table["environment"] if "environment" in table else [g.rpartition("/")[2] for g in groups]

    def column(name: str, mode: str) -> Tensor | None:
        if name not in table or table[name].isna().any():
            return None
        digest = f"{name}_sha256"
        return _load(folder, list(table[name]), list(table[digest]) if digest in table else None, mode)

    images = _load(folder, list(table["path"]), list(table["sha256"]), "RGB").permute(0, 3, 1, 2).contiguous()
    masks = column("mask", "L")
    clean = column("clean", "RGB")
    if masks is not None and masks.shape[1:] != images.shape[2:]:
        raise DataError(
            f"{folder / split}: masks are {tuple(masks.shape[1:])}, pictures {tuple(images.shape[2:])}"
        )
    if clean is not None:
        clean = clean.permute(0, 3, 1, 2).contiguous()
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
    )
