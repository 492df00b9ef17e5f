"""Galleries: what the optimiser found, as files, as one contact sheet and in a notebook.

Pictures are (R, C, H, W), uint8 or float in [0, 1]. One plane is grey, two are grey and opacity, three RGB,
four RGB and opacity; of any other number the first three are shown as RGB. What is transparent lies over a
light checkerboard, except in the files of single pictures, which keep their opacity.
"""

from __future__ import annotations

import base64
import html
import io
import math
import os
import re
import shutil
import tempfile
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from candling.errors import DataError, ParamsError, ServiceError

__all__ = ["as_html", "check_place", "contact_sheet", "write", "write_page"]

_GAP = 12  # pixels around and between the cells of a sheet
_LEAD = 4  # pixels between a picture and its caption
_FONT = 13  # pixels
_NARROWEST = 96  # pixels of a cell, so that a caption fits also below a small or tall picture
_SHEET = 2**24  # pixels of pictures, about, that a sheet grows to before its pictures get smaller
_PAPER, _INK, _SQUARE = (255, 255, 255), (40, 40, 40), (228, 228, 228)
_IN_HTML = 60  # pictures; a notebook keeps them all in its file
_HTML_SIDE = 224  # pixels
_LONGEST = 300  # characters of a caption's line that are looked at
_PLAINER = str.maketrans("\u2013\u2014\u2212\u00d7", "---x")  # dashes, minus and times, for the font
_EFFORT = 3  # of PNG: a fraction of the time of the default 6, for little more bytes
_OVERSHOOT = 0.01  # beyond [0, 1] that resampling may leave


def contact_sheet(
    images: Tensor, captions: Sequence[str], *, columns: int | None = None, side: int | None = None
) -> Image.Image:
    """All pictures on one page, each above its caption.

    Small pictures are enlarged by whole factors without smoothing, so that each pixel stays a square; larger
    ones than `side` are reduced. Captions are one line or two ("\\n" between them), shortened by measure.
    Pillow's own font is drawn with, which knows plain Latin letters: accents are left out, letters of other
    scripts are boxes (`as_html` has neither limit).

    Parameters
    ----------
    images
        (R, C, H, W) uint8, or float in [0, 1]; R at least 1.
    captions
        R of them.
    columns
        Cells a line; as many as make the page about square by default.
    side
        The most pixels that the longer side of a picture may take; 256 by default, and 128 or 64 for so many
        pictures that the page would grow beyond use.

    Returns
    -------
    RGB.

    Raises
    ------
    DataError
        There is no picture, or they are of another shape, type or range.
    ParamsError
        There are not as many captions as pictures, or `columns` or `side` is below 1.
    """
    _check(images, captions)
    count = len(images)
    if not count:
        raise DataError("a contact sheet needs one picture at least, and there is none")
    for name, value in (("columns", columns), ("side", side)):
        if value is not None and value < 1:
            raise ParamsError(f"{name} of a contact sheet is {value}; it must be 1 or more")
    side = side or next((s for s in (256, 128) if count * s * s <= _SHEET), 64)
    width, height = _shown_size(images, side)
    cell_width = max(width, _NARROWEST)
    lines = [_lines(caption) for caption in captions]
    most = max(map(len, lines))
    line_height = _line_height()
    cell_height = height + (_LEAD + most * line_height if most else 0)
    columns = min(count, columns or math.ceil(math.sqrt(count * (cell_height + _GAP) / (cell_width + _GAP))))
    rows = math.ceil(count / columns)

    size = (_GAP + columns * (cell_width + _GAP), _GAP + rows * (cell_height + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    for index, (picture, texts) in enumerate(zip(_pictures(images), lines, strict=True)):
        left = _GAP + index % columns * (cell_width + _GAP)
        top = _GAP + index // columns * (cell_height + _GAP)
        sheet.paste(_shown(picture, side), (left + (cell_width - width) // 2, top))
        if texts:
            # On a label of its own, so that whatever a glyph does ends at the cell's edge.
            label = Image.new("RGB", (cell_width, len(texts) * line_height), _PAPER)
            draw = ImageDraw.Draw(label)
            for number, text in enumerate(texts):
                short, wide = _shortened(text, cell_width)
                draw.text(((cell_width - wide) // 2, number * line_height), short, _INK, _font())
            sheet.paste(label, (left, top + height + _LEAD))
    return sheet


def write(
    folder: Path | str,
    images: Tensor,
    table: pd.DataFrame,
    *,
    name: str,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    files: Sequence[str] | None = None,
) -> None:
    """Write pictures, their table and a contact sheet into a folder: whole, or not at all.

    The folder holds a PNG a row (``0003-school-bus.png``, or as `files` say), ``<name>.parquet``, which is
    the table with the column ``file`` (name of the row's PNG; one that is there is replaced), and the sheet
    ``<name>.png``.

    Parameters
    ----------
    folder
        A new or empty one, or one that holds nothing but an earlier result of the same name, which is
        replaced.
    images
        (R, C, H, W) uint8, or float in [0, 1], which is rounded to 8 bits; R at least 1.
    table
        R rows.
    captions
        R of them, of which the first lines are also in file names. None: the table's column ``caption`` where
        it has one, otherwise its first two columns.
    columns
        Of the sheet; None: see `contact_sheet`.
    files
        R names of PNGs, each another one.
    name
        Of letters, digits, dots, dashes and underscores, a letter first.

    Raises
    ------
    DataError
        As for `contact_sheet`.
    ParamsError
        The folder holds other things, the table has another number of rows or cannot be saved as Parquet, or
        the name will not do.
    ServiceError
        The folder cannot be written.
    """
    _check_name(name)
    captions = _captions(table) if captions is None else captions
    _check(images, captions)
    if len(table) != len(captions):
        raise ParamsError(f"{len(captions)} pictures need as many rows of a table, not {len(table)}")
    digits = max(4, len(str(len(captions) - 1)))
    if files is None:
        files = [f"{row:0{digits}d}{_slug(caption)}.png" for row, caption in enumerate(captions)]
    with _writing(folder, name) as part:
        for picture, file in zip(_pictures(images), files, strict=True):
            picture.save(part / file, compress_level=_EFFORT)
        contact_sheet(images, captions, columns=columns).save(part / f"{name}.png", compress_level=_EFFORT)
        _save_table(table.assign(file=files), part, name)


def write_page(folder: Path | str, page: Image.Image, table: pd.DataFrame, *, name: str) -> None:
    """Write one picture and the table that it shows into a folder: whole, or not at all.

    The folder holds ``<name>.png`` and ``<name>.parquet``, which is the table with the column ``file``, the
    picture's name.

    Parameters
    ----------
    folder, name
        As for `write`.
    page
        The picture.
    table
        Any number of rows.

    Raises
    ------
    ParamsError, ServiceError
        As for `write`.
    """
    _check_name(name)
    with _writing(folder, name) as part:
        page.save(part / f"{name}.png", compress_level=_EFFORT)
        _save_table(table.assign(file=f"{name}.png"), part, name)


def as_html(images: Tensor, captions: Sequence[str]) -> str:
    """What a result shows in a notebook, light or dark: at most 60 pictures with captions, whatever they say.

    Parameters
    ----------
    images
        (R, C, H, W) uint8, or float in [0, 1]; R may be 0.
    captions
        R of them, of one line or two ("\\n" between them).

    Returns
    -------
    One <div> that needs nothing else: no script, no style sheet, no file.

    Raises
    ------
    DataError, ParamsError
        As for `contact_sheet`.
    """
    _check(images, captions)
    parts = []
    for picture, caption in zip(_pictures(images[:_IN_HTML]), captions, strict=False):
        shown = _shown(picture, _HTML_SIDE)
        buffer = io.BytesIO()
        shown.save(buffer, "PNG", compress_level=_EFFORT)
        data = base64.b64encode(buffer.getvalue()).decode()
        lines = [html.escape(line) for line in _lines(caption)]
        # Text keeps the notebook's own colour; each line takes its direction from its letters.
        text = "".join(f'<div dir="auto">{line}</div>' for line in lines)
        parts.append(
            f'<figure style="margin:0;width:{max(shown.width, _NARROWEST)}px;text-align:center">'
            f'<img src="data:image/png;base64,{data}" alt="{" ".join(lines)}" '
            f'width="{shown.width}" height="{shown.height}" style="margin:0 auto">'
            f'<figcaption style="font-size:small;overflow-wrap:anywhere">{text}</figcaption></figure>'
        )
    if len(images) > _IN_HTML:
        parts.append(f'<p style="align-self:center">{len(images) - _IN_HTML} more</p>')
    if not parts:
        parts.append("no pictures")
    return f'<div style="display:flex;flex-wrap:wrap;gap:{_GAP}px">{"".join(parts)}</div>'


# --- pictures ----------------------------------------------------------------------------------


def _check(images: Tensor, captions: Sequence[str]) -> None:
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(f"pictures must be of shape (R, C, H, W), not {tuple(images.shape)}")
    if len(captions) != len(images):
        raise ParamsError(
            f"{len(images)} pictures need as many captions or rows of a table, not {len(captions)}"
        )
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise DataError(f"pictures must be uint8 or float in [0, 1], not {images.dtype}")
    if not len(images):
        return
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # NaN is neither
        raise DataError(f"pictures of floats must lie in [0, 1]; these go from {low:.3g} to {high:.3g}")


def _pictures(images: Tensor) -> Iterator[Image.Image]:
    """Each row as it is saved: L, LA, RGB or RGBA."""
    for image in images.detach():
        planes = image if len(image) <= 4 else image[:3]
        if planes.dtype != torch.uint8:
            # float64 holds all smaller floats, so nothing is rounded twice.
            planes = (planes.double().clamp(0, 1) * 255).round().byte()
        pixels = planes.permute(1, 2, 0).cpu().contiguous().numpy()
        yield Image.fromarray(pixels[..., 0] if len(planes) == 1 else pixels)


def _shown_size(images: Tensor, side: int) -> tuple[int, int]:
    """Width and height that `_shown` gives pictures."""
    return _fitted(images.shape[3], images.shape[2], side)


def _fitted(width: int, height: int, side: int) -> tuple[int, int]:
    longest = max(width, height)
    if longest <= side:
        return width * (side // longest), height * (side // longest)
    return max(1, round(width * side / longest)), max(1, round(height * side / longest))


def _shown(picture: Image.Image, side: int) -> Image.Image:
    """RGB, enlarged or reduced to fit `side`, over the checkerboard where there is opacity."""
    seen = picture.convert("RGBA" if picture.mode in ("LA", "RGBA") else "RGB")
    size = _fitted(*picture.size, side)
    seen = seen.resize(
        size, Image.Resampling.NEAREST if size[0] >= picture.width else Image.Resampling.LANCZOS
    )
    if seen.mode == "RGB":
        return seen
    return Image.alpha_composite(_checkerboard(size).convert("RGBA"), seen).convert("RGB")


@lru_cache(maxsize=4)
def _checkerboard(size: tuple[int, int], square: int = 8) -> Image.Image:
    board = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(board)
    for top in range(0, size[1], square):
        for left in range(top % (2 * square), size[0], 2 * square):
            draw.rectangle((left, top, left + square - 1, top + square - 1), _SQUARE)
    return board


# --- captions ----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT)


def _line_height() -> int:
    return math.ceil(_font().getbbox("Qgjpqy|")[3]) + 3


def _lines(caption: str) -> list[str]:
    """The lines of a caption, two at most and none of them empty, of characters that can be shown."""
    shown = []
    for line in str(caption).splitlines():
        # Control characters and halves of surrogate pairs: nothing can draw them, and UTF-8 has no halves.
        text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in line[: 2 * _LONGEST])
        text = " ".join(text.split())
        if text:
            shown.append(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")
    return [*shown[:1], " ".join(shown[1:])] if len(shown) > 1 else shown


def _shortened(text: str, width: int) -> tuple[str, int]:
    """The most of a text that fits into `width` pixels, and the pixels that it takes."""
    font = _font()
    text = "".join(map(_drawable, text.translate(_PLAINER)))

    def cut(end: int) -> str:
        return text if end == len(text) else text[:end].rstrip() + "…"

    def measured(end: int) -> int:
        return math.ceil(max(font.getlength(cut(end)), font.getbbox(cut(end))[2]))

    whole = len(text)
    if measured(whole) > width:
        # The end found is one that was measured, so it fits also where kerning makes lengths uneven.
        whole = bisect_right(range(whole), width, key=measured) - 1
    return (cut(whole), measured(whole)) if whole >= 0 else ("", 0)


def _drawable(character: str) -> str:
    """What the font, which has little more than ASCII, can draw for a character."""
    if unicodedata.category(character) in ("Cf", "Mn"):  # marks of direction, joiners and loose accents
        return ""
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if unicodedata.category(c) != "Mn")
    return plain if plain.isascii() else character


def _captions(table: pd.DataFrame) -> list[str]:
    """The column ``caption``, or the first two columns: words as they are, numbers beside their name."""
    if "caption" in table.columns:
        return [str(caption) for caption in table["caption"]]

    def worded(column: object, value: object) -> str:
        if isinstance(value, str):
            return value
        return f"{column} {value:.3g}" if isinstance(value, float) else f"{column} {value}"

    used = list(table.columns[:2])
    return [
        "\n".join(worded(column, value) for column, value in zip(used, row, strict=True))
        for row in table.iloc[:, :2].itertuples(index=False, name=None)
    ]


def _slug(caption: str) -> str:
    """What of a caption's first line is safe in any file system, with a dash before it; "" if nothing is."""
    first = next(iter(_lines(caption)), "")
    plain = unicodedata.normalize("NFKD", first).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain)[:48].strip("-")
    return f"-{words}" if words else ""


# --- folders -----------------------------------------------------------------------------------


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][\w.-]{0,99}", name, re.ASCII):
        raise ParamsError(
            f"{name!r} cannot name files; use letters, digits, dots, dashes and underscores, a letter first"
        )


def _save_table(table: pd.DataFrame, folder: Path, name: str) -> None:
    try:
        table.to_parquet(folder / f"{name}.parquet")
    except (ValueError, TypeError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:200]
        raise ParamsError(f"the table of {name} cannot be saved as Parquet: {why}") from error


@contextmanager
def _writing(folder: Path | str, name: str) -> Iterator[Path]:
    """`_whole`, with one sentence where the folder cannot be written."""
    try:
        with _whole(Path(folder).resolve(), name) as part:
            yield part
    except OSError as error:
        raise ServiceError(
            f"{folder}: cannot be written ({error.strerror or error}); free it and run again"
        ) from error


def check_place(folder: Path | str, name: str) -> None:
    """See that `write` could put a result of this name there, before it takes long to make one.

    Raises
    ------
    ParamsError
        If the folder is a file, or holds other things than an earlier result of the same name.
    ServiceError
        If it cannot be written beside it.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise ParamsError(f"{folder}: a file is in the way of the folder of {name}")
    if folder.is_dir() and (others := {path.name for path in folder.iterdir()} - _own(folder, name)):
        raise ParamsError(
            f"{folder}: holds {sorted(others)[0]!r}, no part of an earlier {name}; name another folder"
        )
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ServiceError(f"{folder}: cannot be written ({above} gives no access); name another folder")


@contextmanager
def _whole(folder: Path, name: str) -> Iterator[Path]:
    """A folder beside `folder` that takes its place if nothing is raised, and is gone if anything is."""
    check_place(folder, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    before = made / "before"
    try:
        inner = made / "result"  # with the usual permissions, which mkdtemp's folder has not
        inner.mkdir()
        yield inner
        if folder.is_dir():
            os.replace(folder, before)
        os.replace(inner, folder)
    finally:
        if before.is_dir() and not folder.exists():
            os.replace(before, folder)
        shutil.rmtree(made, ignore_errors=True)


def _own(folder: Path, name: str) -> set[str]:
    """The files of an earlier result: those that its table names, the table and the sheet."""
    table = folder / f"{name}.parquet"
    if not table.is_file():
        return set()
    try:
        files = pq.read_table(table, columns=["file"]).column("file").to_pylist()
    except (pa.ArrowInvalid, KeyError):
        return set()  # a table of someone else's
    return {str(file) for file in files} | {table.name, f"{name}.png"}
