"""Where pictures come from: one form for params and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from candling.data.coco import read_coco
from candling.data.folder import read_folder
from candling.data.huggingface import is_huggingface, read_huggingface
from candling.data.manifest import read_manifest
from candling.data.samples import Samples, nearest
from candling.errors import DataError

__all__ = ["DataFormat", "DataSource", "read_source", "split_revision"]

DataFormat = Literal["auto", "folder", "manifest", "coco", "huggingface"]

_TABLES = (".csv", ".tsv", ".parquet", ".pq")
_MANIFESTS = tuple(f"manifest{suffix}" for suffix in _TABLES)


@dataclass(frozen=True)
class DataSource:
    """Pictures as a person names them; `read_source` finds them.

    Parameters
    ----------
    location
        An image folder, a manifest or the folder of a file ``manifest.csv`` or ``manifest.parquet``, a COCO
        file of instances, or a folder that a Hugging Face dataset was saved to.
    format
        ``auto`` tells by what lies at the location.
    columns
        Our names (path, bytes, label, mask, group, split; for manifests also clean) and what the source
        calls them. For manifests and Hugging Face datasets.
    split
        The source's split to take: a sub-folder, a value of the column `split`, a split of a `DatasetDict`.
        None takes all. A COCO file has none.
    labels
        The source's labels, as text, and the class that each means, where names and indices do not say it.
    images
        For COCO, the folder of the pictures; None for the file's own or `images` in it.

    Raises
    ------
    DataError
        If a field is not one of its values or does not go with the format.
    """

    location: Path
    format: DataFormat = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None

    def __post_init__(self) -> None:
        if self.format not in get_args(DataFormat):
            raise DataError(f"no data format {self.format!r}; {nearest(self.format, get_args(DataFormat))}")
        if self.columns and self.format in ("folder", "coco"):
            raise DataError(f"`columns` says nothing of the format {self.format!r}; leave it out")
        if self.images is not None and self.format not in ("auto", "coco"):
            raise DataError(f"`images` says nothing of the format {self.format!r}; leave it out")
        if self.split is not None and self.format == "coco":
            raise DataError("a COCO file has no splits; give the file of the split and leave `split` out")


def read_source(source: DataSource) -> Samples:
    """Find the pictures of a source; none is read yet.

    Raises
    ------
    DataError
        If the source is not there, is of no known form, or holds no pictures that can be audited.
    """
    location = Path(source.location)
    if not location.exists():
        raise DataError(f"{location}: no such file or folder; name the place of the pictures")
    if source.format == "auto":
        # Made anew, so that what does not go with the format is refused here too.
        source = replace(source, format=_detect(location))
    if location.is_file() != (source.format == "coco") and source.format != "manifest":
        wanted = "a JSON file" if source.format == "coco" else "a folder"
        raise DataError(f"{location}: the format {source.format!r} is {wanted}; name that or another format")
    if source.format == "coco":
        samples = read_coco(location, None if source.images is None else Path(source.images))
    elif source.format == "manifest":
        samples = read_manifest(_manifest(location), source.columns, source.split)
    elif source.format == "huggingface":
        samples = read_huggingface(location, source.columns, source.split)
    else:
        samples = read_folder(location, source.split)
    return replace(samples, labels=source.labels)


def _detect(location: Path) -> DataFormat:
    if location.is_dir():
        if is_huggingface(location):
            return "huggingface"
        return "manifest" if any((location / name).is_file() for name in _MANIFESTS) else "folder"
    if location.suffix.lower() in _TABLES:
        return "manifest"
    if location.suffix.lower() == ".json":
        return "coco"
    raise DataError(
        f"{location}: no form of data that is known; "
        "give a folder, or a .csv, .tsv, .parquet or COCO .json file"
    )


def _manifest(location: Path) -> Path:
    if location.is_dir():
        files = [location / name for name in _MANIFESTS if (location / name).is_file()]
        if len(files) != 1:
            raise DataError(
                f"{location}: {len(files) or 'no'} files called {' or '.join(_MANIFESTS[::2])}; "
                "name the manifest"
            )
        return files[0]
    if location.suffix.lower() not in _TABLES:
        raise DataError(f"{location}: a manifest ends in {', '.join(_TABLES[:-1])} or {_TABLES[-1]}")
    return location


def split_revision(text: str, root: Path = Path()) -> tuple[str, str | None]:
    """Split ``location@revision``; a path that exists with its ``@``, below `root`, is a path.

    Of several ``@`` the first counts that ends an existing path (revisions such as ``HEAD@{1}`` have one
    too), or else the last that is not the start of a name.

    Raises
    ------
    DataError
        If nothing follows the ``@``.
    """
    if (root / text).exists():
        return text, None
    places = [i for i, character in enumerate(text) if character == "@" and i and text[i - 1] != "/"]
    if not places:
        return text, None
    # DVC's own file is there also where the data were never pulled.
    known = [i for i in places if (root / text[:i]).exists() or (root / f"{text[:i]}.dvc").exists()]
    place = known[0] if known else places[-1]
    if not text[place + 1 :]:
        raise DataError(f"{text!r} names no revision after the @; write one, such as data@v1.0")
    return text[:place], text[place + 1 :]
