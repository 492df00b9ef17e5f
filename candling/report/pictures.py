"""Pictures of a page: read, checked, made small where there are many, and held as data: URIs."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from candling.audit.record import Artifact
from candling.report.artifacts import NotThere, read_artifact

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Picture", "Room", "embed"]

# Edges to try, in px, until a thumbnail fits; below the smallest a picture shows nothing.
_EDGES = (192, 160, 128, 112, 96, 80, 72, 64, 56, 48, 40, 32, 24)
_TRIAL = 96
_QUALITY = 60  # of WebP: thumbnails are looked over, the file beside the page is looked at
_FINE = 192  # px; with more, a picture has more pixels than the page gives it


@dataclass
class Picture:
    """A picture as a data: URI, or the words that stand in its place.

    rank: 0 is in view, 1 the first that is folded away, and so on: who gets room on the page first. source:
    the data: URI. link: the file itself, where what is embedded is a thumbnail of it. fine: it has more
    pixels than the page gives it, so that it is smoothed, not enlarged.
    """

    artifact: Artifact
    folder: Path
    alt: str
    caption: str
    values: tuple[tuple[str, float], ...]
    rank: int = 0
    source: str = ""
    link: str = ""
    problem: str = ""
    no_room: bool = False
    fine: bool = False


@dataclass(frozen=True)
class Room:
    """What a page may hold, in characters of base64: all pictures, and one that is embedded as it is."""

    page: int = 7_500_000
    picture: int = 1_500_000


def embed(pictures: Sequence[Picture], room: Room, beside: Path | None = None) -> tuple[int, int]:
    """Read pictures into a page, those in view first.

    Where all of them together are too large, those that take more than their share of the room become
    thumbnails within it, which lead to their files where the page lies beside them.

    Parameters
    ----------
    pictures
        They are changed in place.
    room
        What they may take together.
    beside
        The folder in which the page will lie; None: no picture leads to a file.

    Returns
    -------
    tuple of int
        How many are thumbnails, and how many found no room at all.
    """
    # Read twice rather than held all at once: of a thousand classes they are half a gigabyte.
    lengths = {id(picture): length for picture in pictures if (length := _look(picture)) is not None}
    waiting = sorted((p for p in pictures if id(p) in lengths), key=lambda picture: picture.rank)
    left, small, lost = room.page, 0, 0
    shares = _shares([min(lengths[id(p)], room.picture) for p in waiting], room.page)
    for picture, share in zip(waiting, shares, strict=True):
        data = _read(picture)
        if data is None:
            continue
        shown = data if _length(data) <= share else _thumbnail(data, share) or data
        if _length(shown) > min(left, room.picture):
            picture.problem = f"{len(data) / 1e3:,.0f} kB, not embedded: {picture.artifact.path}"
            picture.no_room = True
            lost += 1
            continue
        if shown is not data:
            picture.link = _link(picture, beside)
            small += 1
        picture.source = _data_uri(shown)
        picture.fine = _is_fine(data)
        left -= _length(shown)
    return small, lost


def _shares(lengths: Sequence[int], room: int) -> list[int]:
    """What each may take: as much as it wants, or where there is not so much, all that want more the same."""
    share, left, waiting = room, room, len(lengths)
    for length in sorted(lengths):
        share = left // waiting
        if length > share:
            break
        left, waiting = left - length, waiting - 1
    return [length if length <= share else share for length in lengths]


def _look(picture: Picture) -> int | None:
    """The length of a picture that is there; else what is wrong is said in its place."""
    data = _read(picture)
    return None if data is None else _length(data)


def _read(picture: Picture) -> bytes | None:
    try:
        data = read_artifact(picture.artifact, picture.folder, "picture")
        _media(data)
    except NotThere as error:
        picture.problem = str(error)
        return None
    return data


def _media(data: bytes) -> str:
    """PNG, JPEG or a thumbnail of ours only: an SVG could carry scripts."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    raise NotThere("not a PNG or JPEG picture")


def _length(data: bytes) -> int:
    """Characters of its data: URI, near enough."""
    return 4 * len(data) // 3 + 30


def _data_uri(data: bytes) -> str:
    return f"data:{_media(data)};base64,{base64.b64encode(data).decode('ascii')}"


def _is_fine(data: bytes) -> bool:
    # The width of a PNG is its first field; a JPEG is a photograph.
    return not data.startswith(b"\x89PNG") or int.from_bytes(data[16:20], "big") > _FINE


def _thumbnail(data: bytes, most: int) -> bytes | None:
    """The largest thumbnail within `most` characters, or else the smallest; None where none can be drawn."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
            picture = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    # Bytes grow with the area, nearly: one trial says where to begin.
    trial = _webp(picture, _TRIAL)
    room = _TRIAL * (most / _length(trial)) ** 0.5
    thumbnail = trial
    for edge in (edge for edge in _EDGES if edge <= max(room, _EDGES[-1])):
        thumbnail = trial if edge == _TRIAL else _webp(picture, edge)
        if _length(thumbnail) <= most:
            break
    return thumbnail if len(thumbnail) < len(data) else None


def _webp(picture: Image.Image, edge: int) -> bytes:
    """The picture with its longer side at most `edge`."""
    from PIL import Image

    shrunk = picture.copy()
    shrunk.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shrunk.save(buffer, format="WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()


def _link(picture: Picture, beside: Path | None) -> str:
    """The picture's file as the page reaches it, or nothing where it lies elsewhere."""
    if beside is None:
        return ""
    file = (picture.folder.resolve() / picture.artifact.path).resolve()
    if not file.is_relative_to(beside.resolve()):
        return ""
    # The dot keeps a name with a colon from being read as a scheme.
    return "./" + quote(os.fsencode(file.relative_to(beside.resolve())))
