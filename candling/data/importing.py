"""Bring the pictures of any source into the folder form, and say what became of each."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from candling.data.decode import Unreadable, decode, decode_mask
from candling.data.labels import LabelMap, map_labels
from candling.data.samples import Label, Mask, Sample, Samples, Value, few
from candling.data.slices import make_slices
from candling.errors import DataError, ServiceError

__all__ = ["ImportReport", "Prepare", "import_pictures"]

Prepare = Callable[[Image.Image, Image.Image | None], tuple[Image.Image, Image.Image | None]]
"""A model's geometry: an RGB picture and its mask (mode "L") to those that the model sees, of one size."""

_COLUMNS = ("path", "label", "group", "environment", "sha256", "mask", "mask_sha256", "source")
_CLEAN = ("clean", "clean_sha256")  # only where a picture has one
_SHOWN = 12


@dataclass(frozen=True)
class ImportReport:
    """What became of a source's pictures.

    images: how many were imported. quarantined: name and reason of each that could not be. converted: how
    often each conversion was needed. unmapped: how many pictures were left out for each label that is no
    class. mapped: the class of each label. classes: how many pictures each class has, 0 included.
    without_mask, unlabelled: how many of the imported. notes: further sentences.
    """

    images: int
    quarantined: tuple[tuple[str, str], ...] = ()
    converted: Mapping[str, int] = field(default_factory=dict)
    unmapped: Mapping[str, int] = field(default_factory=dict)
    mapped: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    without_mask: int = 0
    unlabelled: int = 0
    notes: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """The report for a record's notes."""
        shown = {name: count for name, count in self.classes.items() if count}
        absent = [name for name, count in self.classes.items() if not count]
        if shown:
            classes = _count(len(shown), "class", "classes")
            found = [f"{_pictures(self.images)} of {classes}: {_counts(shown)}."]
            if absent and len(absent) <= _SHOWN:
                found.append(f"No picture shows {few(map(_short, absent), _SHOWN)}.")
            if self.unlabelled:
                found.append(f"{_pictures(self.unlabelled)} without a label.")
        else:
            # As clean backgrounds are: it says nothing of them that they show no class.
            found = [f"{_pictures(self.images)} without {'a label' if self.images == 1 else 'labels'}."]
        reasons: dict[str, list[str]] = defaultdict(list)
        for name, reason in self.quarantined:
            reasons[reason].append(name)
        for reason, names in sorted(reasons.items()):
            found.append(f"{_pictures(len(names))} left out because {reason}: {few(names)}.")
        if self.unmapped:
            total = sum(self.unmapped.values())
            found.append(
                f"{_pictures(total)} left out because no class has the label: {_counts(self.unmapped)}."
            )
        renamed = [f"{label} to {_short(name)}" for label, name in self.mapped.items() if label != name]
        if renamed:
            found.append(f"Labels were mapped: {few(renamed, _SHOWN)}.")
        if self.converted:
            each = [f"{reason}: {count}" for reason, count in sorted(self.converted.items())]
            found.append(f"Pictures were {'; '.join(each)}.")
        if self.without_mask == self.images:
            found.append("No picture has a mask.")
        elif self.without_mask:
            found.append(f"{self.without_mask} of {_pictures(self.images)} without a mask.")
        return [*found, *self.notes]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _pictures(number: int) -> str:
    return _count(number, "picture", "pictures")


def _counts(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return few((f"{_short(name)} {count}" for name, count in ranked), _SHOWN)


def _short(name: str) -> str:
    """The first of a class's synonyms."""
    return name.partition(",")[0]


def _by_number(label: str) -> tuple[int, str]:
    return (int(label), label) if label.isdecimal() else (-1, label)


@dataclass
class _Row:
    """A line of the manifest in the making."""

    cells: dict[str, str | None]
    metadata: Mapping[str, Value]


def import_pictures(
    samples: Samples,
    classes: Sequence[str],
    prepare: Prepare | None,
    folder: Path,
    split: str,
    *,
    expected: tuple[int, int] | None = None,
) -> ImportReport:
    """Write a split of the folder form, whole or not at all; the same samples give the same bytes.

    Pictures, masks and clean pictures become lossless PNG files, and every column of metadata that divides
    the pictures becomes a slice (see `make_slices`). Pictures that cannot be read and labels that are no
    class are left out and reported.

    Parameters
    ----------
    samples
        From `read_source`.
    classes
        Names in the order of the model's logits.
    prepare
        The model's geometry, given an upright RGB picture and its mask of the same size; None leaves the
        pictures as they are, which then must all have one size.
    folder
        Where the folder form lies; an earlier split of this name there is replaced.
    split
        Letters, digits, "_" and "-".
    expected
        Height and width that `prepare` must give; None for whatever the first picture has.

    Raises
    ------
    DataError
        If a mask or a clean picture has another size than its picture, the prepared pictures are of different
        sizes, labels do not fit the classes (see `map_labels`), or no picture is left.
    ServiceError
        If the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", split):
        raise DataError(f"split name {split!r} is not made of letters, digits, _ and -")
    labels = [label for sample in samples for label, _ in _choices(sample)]
    labelling = map_labels(labels, classes, samples.labels)
    run = _Run(samples, labelling, prepare, expected)
    try:
        with _whole_or_nothing(folder, split) as draft:
            run.write(draft, split)
            names = [name for sample in samples for name in sample.metadata]
            metadata = {n: [row.metadata.get(n) for row in run.rows] for n in dict.fromkeys(names)}
            slices, notes = make_slices(metadata, [row.cells["label"] or "" for row in run.rows])
            columns = (*_COLUMNS, *(_CLEAN if run.has_clean else ()))
            cells = {name: [row.cells[name] for row in run.rows] for name in columns}
            cells |= {f"slice.{name}": values for name, values in slices.items()}
            table = pa.table({name: pa.array(values, pa.string()) for name, values in cells.items()})
            pq.write_table(table, draft / f"{split}.parquet", compression="zstd")
    except OSError as error:
        raise ServiceError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return run.report(classes, notes)


def _choices(sample: Sample) -> list[tuple[Label | None, Mask | None]]:
    return [(sample.label, sample.mask), *((other.label, other.mask) for other in sample.alternatives)]


@dataclass(frozen=True)
class _Prepared:
    """A picture as the model sees it; clean: the same without its object."""

    picture: Image.Image
    mask: Image.Image | None = None
    clean: Image.Image | None = None


class _Run:
    """One import: the rows that were written, and what is to be said."""

    def __init__(
        self, samples: Samples, labelling: LabelMap, prepare: Prepare | None, expected: tuple[int, int] | None
    ) -> None:
        self.samples = samples
        self.labelling = labelling
        self.prepare = prepare
        self.expected = expected
        self.first = "the model"
        self.rows: list[_Row] = []
        self.mapped: dict[str, str] = {}
        self.quarantined: list[tuple[str, str]] = []
        self.converted: Counter[str] = Counter()
        self.unmapped: Counter[str] = Counter()
        self.passed_over: Counter[str] = Counter()

    def write(self, draft: Path, split: str) -> None:
        for sample in self.samples:
            choices = _choices(sample)
            known = [
                i for i, (label, _) in enumerate(choices) if label is None or label in self.labelling.mapped
            ]
            if not known:
                self.unmapped[str(sample.label)] += 1
                continue
            label, mask = choices[known[0]]
            self.passed_over.update(str(passed) for passed, _ in choices[: known[0]])
            try:
                found = self._read(sample, mask)
            except Unreadable as error:
                self.quarantined.append((sample.name, str(error)))
                continue
            self._add(sample, label, found, draft, split)
        if not self.rows:
            raise DataError(self._why_nothing())

    @property
    def has_clean(self) -> bool:
        """Whether any picture is there without its object too."""
        return any(row.cells["clean"] is not None for row in self.rows)

    def _read(self, sample: Sample, mask: Mask | None) -> _Prepared:
        """A picture, its mask and the picture without its object, as the model sees them."""
        where = f"{self.samples.location}: {sample.name}"
        try:
            decoded = decode(sample.content())
        except OSError as error:
            raise Unreadable(f"it cannot be read ({error.strerror or error})") from error
        turned = any("EXIF" in done for done in decoded.conversions)

        def check(what: str, other: Image.Image) -> None:
            if other.size != decoded.picture.size:
                raise DataError(
                    f"{where}: the {what} is {_size(other)} and the picture {_size(decoded.picture)}"
                    f"{' once turned as EXIF says' if turned else ''}; a {what} has the size of its picture"
                )

        object_mask = clean = None
        if mask is not None:
            try:
                object_mask = decode_mask(mask())
            except Unreadable as error:
                raise Unreadable(f"its mask cannot be used: {error}") from error
            check("mask", object_mask)
        if sample.clean is not None:
            try:
                clean = decode(sample.clean()).picture
            except Unreadable as error:
                raise Unreadable(f"its clean picture cannot be used: {error}") from error
            check("clean picture", clean)
        picture = decoded.picture
        if self.prepare is not None:
            picture, object_mask = self.prepare(picture, object_mask)
            picture = picture if picture.mode == "RGB" else picture.convert("RGB")
            if clean is not None:
                clean, _ = self.prepare(clean, None)
                clean = clean if clean.mode == "RGB" else clean.convert("RGB")
        for what, other in (("mask", object_mask), ("clean picture", clean)):
            if other is not None and other.size != picture.size:
                raise DataError(
                    f"{where}: prepared for the model the {what} is {_size(other)}, "
                    f"the picture {_size(picture)}"
                )
        size = (picture.height, picture.width)
        self.expected = self.expected or size
        if size != self.expected:
            height, width = self.expected
            raise DataError(
                f"{where}: the picture is {_size(picture)}, {self.first} has {width}×{height}; "
                "all pictures of a split have one size, to which the model's preprocessing brings them"
            )
        if not self.rows:
            self.first = sample.name if self.first == "the model" else self.first
        self.converted.update(decoded.conversions)
        return _Prepared(picture, object_mask, clean)

    def _add(self, sample: Sample, label: Label | None, found: _Prepared, draft: Path, split: str) -> None:
        name = None if label is None else self.labelling.mapped[label]
        if name is not None:
            self.mapped[str(label)] = name
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(sample.name).stem)[:60]
        file = f"{len(self.rows):05d}-{stem}.png"
        group, environment = _group(sample.group, label, name)
        path, sha256 = _save(draft, f"{split}/images/{file}", found.picture)
        mask_path, mask_sha256 = _save(draft, f"{split}/masks/{file}", found.mask)
        clean_path, clean_sha256 = _save(draft, f"{split}/clean/{file}", found.clean)
        cells = {
            "path": path,
            "label": name or "",
            "group": group,
            "environment": environment,
            "sha256": sha256,
            "mask": mask_path,
            "mask_sha256": mask_sha256,
            "clean": clean_path,
            "clean_sha256": clean_sha256,
            "source": sample.name,
        }
        self.rows.append(_Row(cells, sample.metadata))

    def _why_nothing(self) -> str:
        location = self.samples.location
        if self.quarantined:
            name, reason = self.quarantined[0]
            return (
                f"{location}: none of the {_pictures(len(self.samples))} can be used; "
                f"of the first, {name}, {reason}"
            )
        return (
            f"{location}: no picture has a label that is a class of the model; the labels are "
            f"{few((repr(label) for label in self.unmapped), 8)}: say with `labels` which classes they mean"
        )

    def report(self, classes: Sequence[str], slice_notes: Sequence[str]) -> ImportReport:
        counts = Counter(row.cells["label"] for row in self.rows)
        notes = [*self.samples.notes, *slice_notes]
        lacking = sum(row.cells["clean"] is None for row in self.rows)
        if 0 < lacking < len(self.rows):
            notes.append(
                f"{lacking} of {_pictures(len(self.rows))} without a clean picture (column `clean`), "
                "so none is used: it takes one of every picture."
            )
        if self.passed_over:
            notes.append(
                "Other labels of pictures that show a class were passed over, as no class has them: "
                f"{_counts(self.passed_over)}."
            )
        return ImportReport(
            images=len(self.rows),
            quarantined=tuple(self.quarantined),
            converted=dict(sorted(self.converted.items())),
            unmapped=dict(sorted(self.unmapped.items())),
            mapped={label: self.mapped[label] for label in sorted(self.mapped, key=_by_number)},
            classes={name: counts[name] for name in classes},
            without_mask=sum(row.cells["mask"] is None for row in self.rows),
            unlabelled=counts[""],
            notes=tuple(notes),
        )


def _size(picture: Image.Image) -> str:
    return f"{picture.width}×{picture.height}"


def _group(group: str | None, label: Label | None, name: str | None) -> tuple[str, str]:
    """Group and environment: "class/background" and the background, or the class alone."""
    if group is None or (name is not None and group in (name, str(label))):
        return name or "unlabelled", ""
    if name is None:
        return group, group.rpartition("/")[2]
    for prefix in (f"{name}/", f"{label}/"):
        if group.startswith(prefix):
            group = group.removeprefix(prefix)
            break
    return f"{name}/{group}", group


def _save(draft: Path, path: str, picture: Image.Image | None) -> tuple[str | None, str | None]:
    """Save one file, if there is one: its path, and its SHA-256."""
    if picture is None:
        return None, None
    # A picture may carry times, profiles and comments, which would come along.
    picture.info = {}
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    (draft / path).parent.mkdir(parents=True, exist_ok=True)
    (draft / path).write_bytes(buffer.getvalue())
    return path, hashlib.sha256(buffer.getvalue()).hexdigest()


@contextmanager
def _whole_or_nothing(folder: Path, split: str) -> Iterator[Path]:
    """A draft in `folder` of which a split's folder and manifest take their place at the end."""
    pictures, manifest = folder / split, folder / f"{split}.parquet"
    if pictures.exists() and not manifest.exists():
        raise DataError(
            f"{pictures} is there without {manifest.name}, so it is no split to replace; "
            "choose another folder"
        )
    draft = folder / f".{split}.{os.getpid()}.draft"
    former = folder / f".{split}.{os.getpid()}.former"
    ours = not folder.exists()
    try:
        draft.mkdir(parents=True)
        yield draft
        # The manifest first: until the pictures follow, it names files that are not there, which is refused,
        # and a later import finds a split that it may replace.
        if pictures.exists():
            pictures.rename(former)
        (draft / manifest.name).replace(manifest)
        (draft / split).rename(pictures)
    finally:
        if former.exists() and not pictures.exists():
            former.rename(pictures)
        for leftover in (draft, former):
            shutil.rmtree(leftover, ignore_errors=True)
        if ours and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
