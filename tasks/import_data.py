"""Step: bring the pictures of any source into candling's own form, at the size that the model sees."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import measured
from candling.errors import DataError, ParamsError
from tasks.context import Context, Tick, run_step, write_findings
from tasks.load_model import Subject
from tasks.params import SourceParams
from tasks.read_data import Dataset, Located, check_masks, roles
from tasks.revisions import checked_out
from tasks.store import Stored

if TYPE_CHECKING:
    from candling.data import Samples

__all__ = ["import_data"]

_FEW = 20  # classes; of more, only those that the pictures show are audited unless params choose


@task(name="import data")
def import_data(context: Context, subject: Subject) -> Dataset:
    """Every split as the subject's model sees it; its geometry is that of all subjects retrained from it.

    Raises
    ------
    CandlingError
        If a source cannot be read, or shows none of the audited classes.
    """
    from candling.models import read_spec

    params = context.params
    classes = read_spec(subject.folder).classes
    splits, imports = dict(context.dataset.splits), []
    for role, split in roles(params).items():
        if isinstance(split, SourceParams):
            stored = _import(context, subject, role, split, classes)
            imports.append(stored)
            splits[role] = _located(stored, role)
    for name in params.expects:
        if name not in (params.data.classes or classes):
            raise ParamsError(f"expects: {name!r} is none of the model's {len(classes)} classes")
    audited = _audited(params.data.classes, classes, splits["eval"])
    check_masks(params, splits["eval"])
    return replace(context.dataset, classes=classes, audited=audited, splits=splits, imports=tuple(imports))


def _named(role: str) -> str:
    """A role as the name of a split: without the dots that subjects may have."""
    return re.sub(r"[^\w-]", "_", role)


def _located(stored: Stored, role: str) -> Located:
    from candling.data import split_digest

    name = _named(role)
    return Located(stored.path, name, split_digest(stored.path, name))


def _import(
    context: Context, subject: Subject, role: str, split: SourceParams, classes: Sequence[str]
) -> Stored:
    from candling.data import read_source
    from candling.models import read_spec

    spec = read_spec(subject.folder)
    location = checked_out(split.location, context.root)
    samples = read_source(split.source(location, context.root))

    def compute(out: Path, tick: Tick) -> None:
        from candling.data import import_pictures
        from candling.models import load_model
        from candling.statistics import Estimate

        model = load_model(subject.folder, root=context.root)
        report = import_pictures(samples, classes, model.prepare, out, _named(role), expected=spec.image_size)
        lost, strange = len(report.quarantined), sum(report.unmapped.values())
        total = report.images + lost + strange
        scope = {"split": role}
        # Of all pictures that there are, so there is no more to be known about them.
        shares = {"data.quarantined": lost / total, "data.unmapped": strange / total}
        measurements = [
            measured(id, Estimate(part, part, part, total), scope, least=1) for id, part in shares.items()
        ]
        notes = {f"data.{role}": " ".join(report.sentences())}
        if report.quarantined:
            notes[f"data.{role}.quarantined"] = "; ".join(f"{n}: {why}" for n, why in report.quarantined)
        write_findings(out, measurements, notes=notes)

    inputs = {"samples": _digest(samples), "classes": classes, "role": role, "image_size": spec.image_size,
              "resize": spec.resize, "interpolation": spec.interpolation}  # fmt: skip
    return run_step(context, "import data", role, inputs, compute, module=__name__)


def _audited(chosen: Sequence[str] | None, classes: tuple[str, ...], eval: Located) -> tuple[int, ...]:
    """Indices of the chosen classes; by default of all, or of many those that the eval pictures show."""
    import pyarrow.parquet as pq

    from candling.data import map_labels

    labels = pq.read_table(eval.folder / f"{eval.split}.parquet", columns=["label"])["label"].to_pylist()
    shown = {name for name in labels if name}
    if chosen is None:
        found = [k for k, name in enumerate(classes) if len(classes) <= _FEW or name in shown]
    else:
        mapped = map_labels(chosen, classes)
        if mapped.unmapped:
            raise ParamsError(f"data.classes: {next(iter(mapped.unmapped))!r} is none of the model's classes")
        found = [classes.index(mapped.mapped[name]) for name in chosen]
    if len(set(found)) < len(found):
        raise ParamsError(f"data.classes: {classes[_twice(found)]!r} is named twice")
    if not shown & {classes[k] for k in found}:
        raise DataError("no eval picture shows an audited class; check `data.classes` and the labels")
    return tuple(found)


def _twice(values: Sequence[int]) -> int:
    return next(value for value in values if values.count(value) > 1)


def _digest(samples: Samples) -> str:
    """Of all that the pictures of a source are: names, labels, groups, metadata and all bytes."""
    import numpy as np

    from candling.data import Unreadable

    total = hashlib.sha256(json.dumps([dict(samples.labels), samples.notes], sort_keys=True).encode())

    def add(content: object) -> None:
        data = content if isinstance(content, bytes) else np.ascontiguousarray(np.asarray(content)).tobytes()
        total.update(hashlib.sha256(data).digest())

    for sample in samples:
        others = [str(other.label) for other in sample.alternatives]
        said = [sample.name, sample.label, sample.group, sample.split, others, dict(sample.metadata)]
        total.update(json.dumps(said, sort_keys=True, default=str).encode())
        masks = (sample.mask, *(other.mask for other in sample.alternatives))
        if sample.clean is not None:
            total.update(b"clean")  # a mask of the same bytes is something else
        for read in (sample.content, *(other for other in (*masks, sample.clean) if other is not None)):
            try:
                add(read())
            except (Unreadable, DataError) as error:
                total.update(str(error).encode())
    return total.hexdigest()
