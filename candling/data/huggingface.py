"""Hugging Face datasets on disk, as `save_to_disk` writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from candling.data.decode import Unreadable
from candling.data.manifest import COLUMNS, as_label, as_value, in_split
from candling.data.samples import Label, Sample, Samples, Value, few, file_content, inside, nearest
from candling.errors import DataError

__all__ = ["is_huggingface", "read_huggingface"]


def is_huggingface(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def read_huggingface(
    folder: Path, columns: Mapping[str, str] | None = None, split: str | None = None
) -> Samples:
    """The pictures of a `Dataset`, or of a `DatasetDict`'s splits in their order.

    Parameters
    ----------
    folder
        What was given to `save_to_disk`.
    columns
        As for a manifest; without it the column of pictures is the only one of the type Image (or "image"),
        that of labels the only ClassLabel (or "label").
    split
        The split of a `DatasetDict`, or the value of a column `split`; None takes all.

    Raises
    ------
    DataError
        If the folder holds no such dataset, or lacks the split or a column.
    """
    columns = columns or {}
    for ours in columns:
        if ours not in COLUMNS:
            raise DataError(f"`columns` maps {ours!r}, which means nothing; {nearest(ours, COLUMNS)}")
    if not is_huggingface(folder):
        raise DataError(
            f"{folder}: no Hugging Face dataset; save one there with `dataset.save_to_disk`, "
            "or name another format"
        )
    datasets = _datasets()
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: a damaged Hugging Face dataset ({error})") from error
    if isinstance(loaded, datasets.DatasetDict):
        if split is not None and split not in loaded:
            raise DataError(f"{folder}: no split {split!r}; {nearest(split, loaded)}")
        parts = {name: part for name, part in loaded.items() if split in (None, name)}
        found = [_read(folder, part, columns, name, None) for name, part in parts.items()]
    else:
        found = [_read(folder, loaded, columns, None, split)]
    samples = tuple(sample for part in found for sample in part.samples)
    if not samples:
        raise DataError(f"{folder}: the dataset is empty; an audit needs pictures")
    notes = dict.fromkeys(note for part in found for note in part.notes)
    return Samples(folder, samples, notes=tuple(notes))


def _datasets() -> Any:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError("Hugging Face datasets need an extra; `pip install candling[data]`") from error
    return datasets


def _read(
    folder: Path, dataset: Any, columns: Mapping[str, str], name: str | None, split: str | None
) -> Samples:
    datasets = _datasets()
    where = f"{folder}" if name is None else f"{folder}: split {name!r}"
    names = _columns(where, dataset.features, columns, datasets)
    for picture in dict.fromkeys(names[ours] for ours in ("bytes", "mask") if ours in names):
        if isinstance(dataset.features[picture], datasets.Image):
            # Bytes rather than pictures, so that all sources are decoded by the same rules.
            dataset = dataset.cast_column(picture, datasets.Image(decode=False))
    used = [theirs for ours, theirs in names.items() if ours in ("bytes", "mask")]
    plain = {
        column: list(dataset[column])
        for column, feature in dataset.features.items()
        if column not in used and type(feature) in (datasets.Value, datasets.ClassLabel)
    }
    taken = in_split(plain.get(names.get("split", "")), len(dataset), split, where)
    labels = _labels(where, dataset.features[names["label"]], plain[names["label"]])
    others, dropped = _metadata(plain, names, dataset.features, datasets)
    dropped += [c for c in dataset.features if c not in plain and c not in names.values()]
    groups, splits = (plain.get(names.get(ours, "")) for ours in ("group", "split"))
    prefix = "" if name is None else f"{name}/"
    # One column each, so that reading a mask does not read the picture too.
    pictures = dataset.select_columns([names["bytes"]])
    masks = dataset.select_columns([names["mask"]]) if "mask" in names else None
    samples = []
    for row in taken:
        group = None if groups is None else as_value(groups[row])
        samples.append(
            Sample(
                name=f"{prefix}{row}",
                content=_content(folder, pictures, names["bytes"], row),
                label=labels[row],
                mask=None if masks is None else _mask(folder, masks, names["mask"], row),
                group=None if group in (None, "") else str(group),
                split=name if splits is None else str(splits[row]),
                metadata={column: values[row] for column, values in others.items()},
            )
        )
    notes = [f"Columns that hold no plain values became no slices: {few(dropped)}."] if dropped else []
    return Samples(folder, tuple(samples), notes=tuple(notes))


def _columns(
    where: str, features: Mapping[str, Any], columns: Mapping[str, str], datasets: Any
) -> dict[str, str]:
    for ours, theirs in columns.items():
        if theirs not in features:
            raise DataError(f"{where}: no column {theirs!r} for {ours!r}; {nearest(theirs, features)}")
    names = {ours: columns.get(ours, ours) for ours in ("label", "mask", "group", "split")}
    names = {ours: theirs for ours, theirs in names.items() if theirs in features}
    free = [name for name in features if name not in names.values()]
    pictures = [name for name in free if isinstance(features[name], datasets.Image)]
    picture = columns.get("bytes", columns.get("path"))
    picture = picture or (pictures[0] if len(pictures) == 1 else "image")
    if picture not in features:
        raise DataError(
            f"{where}: no single column of pictures; {nearest(picture, features)} "
            "(say which is meant with `columns: {bytes: …}`)"
        )
    classes = [name for name in features if isinstance(features[name], datasets.ClassLabel)]
    if "label" not in names and len(classes) == 1:
        names["label"] = classes[0]
    if "label" not in names:
        raise DataError(
            f"{where}: no column 'label'; {nearest('label', features)} (say which is meant with `columns`)"
        )
    return {**names, "bytes": picture}


def _labels(where: str, feature: Any, values: list[Any]) -> list[Label | None]:
    classes = getattr(feature, "names", None)
    labels = [as_label(value, f"{where}: row {row + 1}") for row, value in enumerate(values)]
    if classes is None:
        return labels
    for label in labels:
        if isinstance(label, int) and not -1 <= label < len(classes):
            raise DataError(f"{where}: label {label} is out of range: there are {len(classes)} classes")
    # -1 is how datasets write that a picture has no label.
    return [None if label is None or label == -1 else classes[label] for label in labels]


def _metadata(
    plain: Mapping[str, list[Any]], names: Mapping[str, str], features: Mapping[str, Any], datasets: Any
) -> tuple[dict[str, list[Value]], list[str]]:
    found: dict[str, list[Value]] = {}
    dropped = []
    for column, values in plain.items():
        if column in names.values():
            continue
        try:
            cells = [as_value(value) for value in values]
        except TypeError:
            dropped.append(column)
            continue
        if isinstance(features[column], datasets.ClassLabel):
            texts = features[column].names
            cells = [texts[int(cell)] if cell is not None and int(cell) >= 0 else None for cell in cells]
        found[column] = cells
    return found, dropped


def _content(folder: Path, dataset: Any, column: str, row: int) -> Callable[[], bytes]:
    def read() -> bytes:
        value: Any = dataset[row][column]
        path = value if isinstance(value, str) else None
        if isinstance(value, dict):
            value, path = value.get("bytes"), value.get("path")
        if isinstance(value, bytes):
            return value
        if path is None:
            raise Unreadable("there are no bytes in its row")
        try:
            file = inside(folder, path, str(folder))
        except DataError as error:
            raise Unreadable(f"the dataset does not hold it but names {path}, outside its folder") from error
        return file_content(file)()

    return read


def _mask(folder: Path, dataset: Any, column: str, row: int) -> Callable[[], bytes] | None:
    return None if dataset[row][column] is None else _content(folder, dataset, column, row)
