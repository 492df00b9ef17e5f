"""Manifests: a CSV or Parquet table with a row a picture."""

from __future__ import annotations

import csv
import datetime
import decimal
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from candling.data.decode import Unreadable
from candling.data.samples import Label, Sample, Samples, Value, few, file_content, inside, nearest
from candling.errors import DataError

__all__ = ["COLUMNS", "as_label", "as_value", "in_split", "read_manifest"]

COLUMNS = ("path", "bytes", "label", "mask", "group", "split")
"""Our names of the columns that mean something in a manifest and in a Hugging Face dataset."""

# Every other column is metadata.
_COLUMNS = (*COLUMNS, "clean")

_WHOLE = re.compile(r"-?(0|[1-9]\d*)")
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")

Column = Sequence[Any]


def read_manifest(file: Path, columns: Mapping[str, str] | None = None, split: str | None = None) -> Samples:
    """The pictures that a table lists, in its order.

    Paths are relative to the table's folder and stay below it. A file that is not there is told in a note
    and raises `Unreadable` when it is read.

    Parameters
    ----------
    file
        ``.csv``, ``.tsv``, ``.parquet`` or ``.pq``.
    columns
        Our names (`COLUMNS` and ``clean``) and what the table calls them, where it calls them otherwise.
    split
        The rows to take, by the column `split`; None takes all.

    Raises
    ------
    DataError
        If the table cannot be read, is empty, lacks a column, has a value of a wrong type, lists a picture
        twice or outside its folder, or if none of its files is there.
    """
    table = _read_table(file)
    names = _columns(file, table, columns or {})
    rows = len(table[names["label"]])
    if not rows:
        raise DataError(f"{file}: the manifest lists no pictures")
    taken = in_split(table[names["split"]] if "split" in names else None, rows, split, str(file))
    paths = _paths(file, table[names["path"]]) if "path" in names else None
    labels = [as_label(value, _where(file, row)) for row, value in enumerate(table[names["label"]])]
    others = {name: values for name, values in table.items() if name not in names.values()}
    metadata, dropped = _metadata(others)
    notes = [f"Columns that hold no plain values became no slices: {few(dropped)}."] if dropped else []

    missing = []
    samples = []
    for row in taken:
        name = f"row {row + 1}" if paths is None else paths[row][0]
        if "bytes" in names:
            content = _bytes(file, table[names["bytes"]], row)
        else:
            assert paths is not None
            content = file_content(paths[row][1])
            if not paths[row][1].is_file():
                missing.append(name)
        group = table[names["group"]][row] if "group" in names else None
        samples.append(
            Sample(
                name=name,
                content=content,
                label=labels[row],
                mask=_beside(file, table[names["mask"]], row) if "mask" in names else None,
                clean=_beside(file, table[names["clean"]], row) if "clean" in names else None,
                group=None if as_value(group) in (None, "") else str(as_value(group)),
                split=str(table[names["split"]][row]) if "split" in names else None,
                metadata={name: values[row] for name, values in metadata.items()},
            )
        )
    if missing:
        count = "none" if len(missing) == len(samples) else f"{len(missing)} of {len(samples)} are missing"
        if count == "none":
            raise DataError(
                f"{file}: none of the {len(samples)} files that it names is there, first {missing[0]!r}; "
                "put the pictures beside the manifest, where its paths say"
            )
        notes.append(f"Of the files that {file.name} names {count}, first {missing[0]}.")
    return Samples(file, tuple(samples), notes=tuple(notes))


def in_split(values: Column | None, rows: int, split: str | None, where: str) -> list[int]:
    """The rows of a split, all for None."""
    if split is None:
        return list(range(rows))
    if values is None:
        raise DataError(f"{where}: no column 'split' to find the split {split!r} in; name it in `columns`")
    taken = [row for row in range(rows) if values[row] is not None and str(values[row]) == split]
    if not taken:
        known = sorted({str(value) for value in values if value is not None})
        raise DataError(f"{where}: no row has the split {split!r}; {nearest(split, known)}")
    return taken


def as_label(value: object, where: str) -> Label | None:
    """A label as text or a whole number; None for an empty one."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | str):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise DataError(f"{where}: the label is {value!r}; write the name of a class or its index")


def as_value(value: object) -> Value:
    """A cell as a plain value; None for what is empty or none."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        return as_value(float(value))
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no plain value")


def _where(file: Path, row: int) -> str:
    return f"{file}: row {row + 1}"


def _read_table(file: Path) -> dict[str, Column]:
    if file.suffix.lower() in (".csv", ".tsv"):
        return _read_csv(file, "\t" if file.suffix.lower() == ".tsv" else ",")
    try:
        table = pq.read_table(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({_first_line(error)})") from error
    twice = sorted(name for name in set(table.column_names) if table.column_names.count(name) > 1)
    if twice:
        raise DataError(f"{file}: two columns are called {twice[0]!r}; rename one")
    return {name: _column(table.column(name)) for name in table.column_names}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


class _Lazy(Sequence[Any]):
    """Cells of an Arrow column, converted when they are read: pictures take much room."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> Any:
        return self.column[row].as_py()


def _column(column: pa.ChunkedArray) -> Column:
    kind = column.type
    heavy = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind)
    plain: Column = _Lazy(column) if heavy else column.to_pylist()
    return plain


def _read_csv(file: Path, delimiter: str) -> dict[str, Column]:
    """The columns of a CSV file as text, None for an empty cell."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = [line for line in csv.reader(stream, delimiter=delimiter, strict=True) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not a readable CSV file ({_first_line(error)})") from error
    if not lines:
        raise DataError(f"{file}: the file is empty; a manifest has a line with the columns' names")
    header = [name.strip() for name in lines[0]]
    twice = sorted(name for name in set(header) if header.count(name) > 1)
    if twice:
        raise DataError(f"{file}: two columns are called {twice[0]!r}; rename one")
    for row, line in enumerate(lines[1:]):
        if len(line) != len(header):
            raise DataError(
                f"{_where(file, row)}: {len(line)} values for {len(header)} columns; "
                f"put values that hold a {delimiter!r} in quotes"
            )
    cells = ([line[i] or None for line in lines[1:]] for i in range(len(header)))
    return dict(zip(header, cells, strict=True))


def _columns(file: Path, table: Mapping[str, Column], columns: Mapping[str, str]) -> dict[str, str]:
    """Our names of the columns that are there, and the table's."""
    for ours, theirs in columns.items():
        if ours not in _COLUMNS:
            raise DataError(f"`columns` maps {ours!r}, which means nothing; {nearest(ours, _COLUMNS)}")
        if theirs not in table:
            raise DataError(f"{file}: no column {theirs!r} for {ours!r}; {nearest(theirs, table)}")
    names = {ours: columns.get(ours, ours) for ours in _COLUMNS if columns.get(ours, ours) in table}
    needed = ("label",) if "bytes" in names else ("path", "label")
    for ours in needed:
        if ours not in names:
            raise DataError(
                f"{file}: no column {ours!r}; {nearest(ours, table)} (say which is meant with `columns`)"
            )
    return names


def _paths(file: Path, values: Column) -> list[tuple[str, Path]]:
    """Names and files of all rows."""
    found: list[tuple[str, Path]] = []
    rows: dict[Path, int] = {}
    for row, value in enumerate(values):
        where = _where(file, row)
        if not isinstance(value, str):
            what = "is empty" if value is None else f"is {value!r}"
            raise DataError(f"{where}: the path {what}; write the picture's path from the manifest's folder")
        path = inside(file.parent, value, where)
        if path in rows:
            raise DataError(
                f"{file}: {value!r} is listed twice, in rows {rows[path] + 1} and {row + 1}; "
                "list each picture once"
            )
        rows[path] = row
        found.append((value, path))
    return found


def _bytes(file: Path, values: Column, row: int) -> Callable[[], bytes]:
    def read() -> bytes:
        value = values[row]
        # As Hugging Face writes pictures into Parquet.
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise Unreadable("there are no bytes in its row")
        if not isinstance(content, bytes):
            raise DataError(
                f"{_where(file, row)}: the picture's bytes are of the type {type(content).__name__}; "
                "write them as binary, or paths into a column 'path'"
            )
        return content

    return read


def _beside(file: Path, values: Column, row: int) -> Callable[[], bytes] | None:
    """The mask or the clean picture of a row, as a path or as bytes."""
    value = values[row]
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return file_content(inside(file.parent, value, _where(file, row)))
    return _bytes(file, values, row)


def _metadata(columns: Mapping[str, Column]) -> tuple[dict[str, list[Value]], list[str]]:
    """Plain values of the other columns, numbers as numbers; and the columns that hold something else."""
    found: dict[str, list[Value]] = {}
    dropped = []
    for name, column in columns.items():
        try:
            values = [as_value(value) for value in column]
        except TypeError:
            dropped.append(name)
            continue
        # Our own folder form, read as a source.
        found[name.removeprefix("slice.")] = _numbers(values)
    return found, dropped


def _numbers(values: list[Value]) -> list[Value]:
    """Text that holds nothing but numbers (a CSV file has no other type) as numbers."""
    texts = [value for value in values if value is not None]
    if not texts or not all(isinstance(value, str) for value in texts):
        return values
    for pattern, kind in ((_WHOLE, int), (_NUMBER, float)):
        if all(pattern.fullmatch(str(text)) for text in texts):
            return [None if value is None else kind(value) for value in values]
    return values
