"""Image folders: `class/picture` or `split/class/picture`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from candling.data.samples import Sample, Samples, few, file_content
from candling.errors import DataError

__all__ = ["SPLITS", "read_folder"]

SPLITS = ("train", "val", "valid", "validation", "test", "eval")
"""Names of top folders that are taken for splits rather than classes, where all top folders are."""

# HEIC is not decoded, but a phone's photograph should be listed as unreadable, not as a stray file.
_PICTURES = frozenset(
    f".{ending}"
    for ending in (
        "avif",
        "bmp",
        "dib",
        "gif",
        "heic",
        "heif",
        "ico",
        "j2k",
        "jfif",
        "jp2",
        "jpe",
        "jpeg",
        "jpg",
        "pbm",
        "pcx",
        "pgm",
        "png",
        "pnm",
        "ppm",
        "sgi",
        "tga",
        "tif",
        "tiff",
        "webp",
    )
)


def read_folder(root: Path, split: str | None = None) -> Samples:
    """The pictures of an image folder, sorted by split, class and path; the label is the class folder's name.

    Parameters
    ----------
    root
        Holds a folder a class, or a folder a split with a folder a class in each.
    split
        The split to take; None takes all.

    Raises
    ------
    DataError
        If there is no such split, no picture, only one class, or two classes differ only by case.
    """
    parts, strays = _parts(root, split)
    samples: list[Sample] = []
    empty: list[str] = []
    classes: dict[str, str] = {}
    for name, part in parts:
        folders, loose = _listed(part)
        strays += loose
        for folder in folders:
            twin = classes.setdefault(folder.name.casefold(), folder.name)
            if twin != folder.name:
                raise DataError(
                    f"{root}: the class folders {twin!r} and {folder.name!r} differ only by case; "
                    "rename one, or put their pictures together"
                )
            files = list(_walk(folder))
            pictures = [file for file in files if file.suffix.lower() in _PICTURES]
            strays += [file for file in files if file.suffix.lower() not in _PICTURES]
            if not pictures:
                empty.append(folder.relative_to(root).as_posix())
            samples += [
                Sample(
                    name=file.relative_to(root).as_posix(),
                    content=file_content(file),
                    label=folder.name,
                    split=name,
                )
                for file in pictures
            ]
    if not samples:
        loose_pictures = any(file.suffix.lower() in _PICTURES for file in strays)
        raise DataError(
            f"{root}: the pictures lie beside the class folders; put each into the folder of its class"
            if loose_pictures
            else f"{root}: no pictures in it; an image folder holds a folder a class with pictures in it"
        )
    if len(classes) == 1:
        raise DataError(
            f"{root}: only one class, {next(iter(classes.values()))!r}; an image folder needs "
            "a folder for each of two classes or more"
        )
    notes = []
    if strays:
        names = [file.relative_to(root).as_posix() for file in strays]
        what = "1 file that is" if len(names) == 1 else f"{len(names)} files that are"
        notes.append(f"{what} no picture of a class folder left out: {few(names)}.")
    if empty:
        notes.append(f"Class folders without a picture: {few(empty)}.")
    return Samples(root, tuple(samples), notes=tuple(notes))


def _parts(root: Path, split: str | None) -> tuple[list[tuple[str | None, Path]], list[Path]]:
    """The folders that hold class folders, each with its split's name, and the files beside the splits."""
    tops, strays = _listed(root)
    if split is not None:
        part = root / split
        if part not in tops or not _listed(part)[0]:
            raise DataError(
                f"{root}: no split folder {split!r} with class folders in it; "
                f"the folders are {few((top.name for top in tops), 8) or 'none'}"
            )
        return [(split, part)], strays
    # A class may be called "test"; a split holds folders.
    if tops and all(top.name in SPLITS and _listed(top)[0] for top in tops):
        return [(top.name, top) for top in tops], strays
    return [(None, root)], []


def _listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files directly in a folder, sorted, without hidden ones."""
    entries = sorted(entry for entry in folder.iterdir() if not _hidden(entry.name))
    return [e for e in entries if e.is_dir()], [e for e in entries if not e.is_dir()]


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted, without hidden ones."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        yield from (Path(place, name) for name in sorted(files) if not _hidden(name))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
