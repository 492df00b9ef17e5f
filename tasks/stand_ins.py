"""Pictures of one pixel in place of those of an audit, so that all else can be read in a moment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from candling.data import Pictures, Sample, Samples, read_split
from candling.errors import DataError
from tasks.read_data import Located

__all__ = ["read_stand_ins", "stand_ins"]

_FILE = "pixel.png"
_COLUMNS = {"path": "sha256", "mask": "mask_sha256", "clean": "clean_sha256"}


def _picture() -> Image.Image:
    return Image.new("RGB", (1, 1), "white")


def _mask() -> NDArray[np.uint8]:
    return np.full((1, 1), 255, np.uint8)


def stand_ins(samples: Samples) -> Samples:
    """The same samples with pictures of one pixel, and where they have masks, masks that show an object."""

    def one(sample: Sample) -> Sample:
        others = tuple(replace(o, mask=None if o.mask is None else _mask) for o in sample.alternatives)
        mask = None if sample.mask is None else _mask
        clean = None if sample.clean is None else _picture
        return replace(sample, content=_picture, mask=mask, clean=clean, alternatives=others)

    return replace(samples, samples=tuple(one(sample) for sample in samples))


def read_stand_ins(located: Located, folder: Path, name: str, classes: Sequence[str]) -> Pictures:
    """A split in candling's own form, read from its manifest alone; its stand-in is written to `folder`.

    Raises
    ------
    DataError
        As `read_split`, for what is wrong with the manifest.
    """
    table = pd.read_parquet(located.folder / f"{located.split}.parquet")
    _picture().save(folder / _FILE)
    digest = hashlib.sha256((folder / _FILE).read_bytes()).hexdigest()
    for column, digests in _COLUMNS.items():
        if column in table:
            there = table[column].notna()
            table[column] = [_FILE if is_there else None for is_there in there]
            if digests in table:
                table[digests] = [digest if is_there else None for is_there in there]
    table.to_parquet(folder / f"{name}.parquet")
    try:
        return read_split(folder, name, classes)
    except DataError as error:
        # Told of the manifest that a person knows.
        said = str(error).replace(str(folder / name), str(located.folder / located.split))
        raise DataError(said.replace(str(folder), str(located.folder))) from None
