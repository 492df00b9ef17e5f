"""What the readers of all sources give: samples whose pictures and masks are read when they are needed."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from candling.data.decode import Unreadable
from candling.errors import DataError

__all__ = [
    "Alternative",
    "Label",
    "Mask",
    "Sample",
    "Samples",
    "Value",
    "file_content",
    "few",
    "inside",
    "nearest",
]

Label = str | int
Value = str | int | float | bool | None
Content = bytes | Image.Image
Mask = Callable[[], bytes | Image.Image | NDArray[np.uint8]]


@dataclass(frozen=True)
class Alternative:
    """What else a picture shows: another label, with the mask of that."""

    label: Label
    mask: Mask | None = None


@dataclass(frozen=True)
class Sample:
    """One picture of a source.

    name: as the source calls it. content: its bytes or a picture; raises `Unreadable`. label: a class's name
    or index in the source's words, None where there is none. mask: bytes, a picture, or (H, W) numbers: 0
    background, any other object. clean: the same picture without its object, as `content`; None where there
    is none. alternatives: further labels, best first, for a model that does not know
    `label`. metadata: any other columns.
    """

    name: str
    content: Callable[[], Content]
    label: Label | None = None
    mask: Mask | None = None
    clean: Callable[[], Content] | None = None
    group: str | None = None
    split: str | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict)
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Samples:
    """The pictures of a source, in its order.

    labels: what the user said of labels, as `map_labels` takes it. notes: sentences on what was left out.
    """

    location: Path
    samples: tuple[Sample, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __getitem__(self, row: int) -> Sample:
        return self.samples[row]


def inside(root: Path, name: str, where: str) -> Path:
    """The file `name` of `root`.

    Raises
    ------
    DataError
        If the path leaves the root, also by a link; `where` says who named it.
    """
    try:
        file = (root / name).resolve()
    except (ValueError, OSError) as error:
        raise DataError(f"{where}: {name!r} is no path of a file") from error
    if not file.is_relative_to(root.resolve()):
        raise DataError(
            f"{where}: the path {name!r} leaves {root}; put the file below that folder and name it from there"
        )
    # Not the resolved path: messages should name what the user knows.
    return Path(os.path.normpath(root / name))


def file_content(file: Path) -> Callable[[], bytes]:
    """A reader of a file's bytes, which may fail when it is called."""

    def read() -> bytes:
        try:
            return file.read_bytes()
        except FileNotFoundError as error:
            raise Unreadable("the file is not there") from error
        except OSError as error:
            raise Unreadable(f"the file cannot be read ({error.strerror})") from error

    return read


def nearest(name: str, existing: Iterable[str]) -> str:
    """Which of the existing names may have been meant, as the end of a sentence."""
    names = [str(one) for one in existing]
    folded = {one.casefold(): one for one in names}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return f"the nearest is {folded[found[0]]!r}" if found else f"there are {few(map(repr, names), 12)}"


def few(names: Iterable[str], shown: int = 3) -> str:
    """The first of some names, and how many more there are."""
    every = list(names)
    more = len(every) - shown
    return ", ".join(every[:shown]) + (f" and {more} more" if more > 0 else "")
