"""What an audit will run and what it will cost, told before anything runs.

Evaluations are counted exactly (`tasks.counting`) and timed for a few seconds (`tasks.calibration`). Minutes
come of a simple model: each step takes the model's loading time plus its evaluations at the measured rates;
steps whose inputs are there take turns on as many slots as the audit computes with, in the order in which it
submits them; to that comes what an audit takes whose steps are all in the store, the model's import among it.
The model itself is brought into the store, as the audit would; pictures are not.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image

from candling.data import Samples, import_pictures, read_source, read_split, split_digest
from candling.data.samples import inside
from candling.errors import DataError, ParamsError
from candling.models import Classifier, evaluating, load_model, save_model
from candling.vision.climbing import parameterise, sizes
from candling.vision.training import Schedule
from tasks import counting
from tasks.attack_model import attack_eval_set
from tasks.calibration import Rates, flat_prior, time_import, time_model, time_training
from tasks.compute_entanglement import compute_matrix
from tasks.context import Context, Listener, listener, read_findings
from tasks.counting import Count, Growth, Sight
from tasks.generate_prototypes import generate, prototype_settings
from tasks.import_data import import_data
from tasks.isolate_features import isolate_eval_set
from tasks.language_params import kind_of
from tasks.load_model import Subject, load
from tasks.measure_performance import measure
from tasks.params import SourceParams
from tasks.preflight import check_model, check_writable
from tasks.read_data import Dataset, Located, roles
from tasks.retrain import fresh, retrain
from tasks.revisions import checked_out
from tasks.stand_ins import read_stand_ins, stand_ins
from tasks.store import JSON, Store, Stored
from tasks.test_counterfactuals import test_background
from tasks.test_robustness import test_corruptions
from tasks.test_suspicions import test_suspicions
from tasks.visualize_channels import counts_of_channels, visualize

__all__ = ["Disk", "Plan", "Step", "finished_after", "main", "plan"]

Key = tuple[str, str]

ROOT = Path(__file__).resolve().parents[1]

SECONDS = 2.5  # of calibration, for each kind of evaluation
# Seconds of an audit whose steps are all in the store, but for the model's import: Prefect, report, MLflow.
_START = 15.0
# Of more pictures than these it is not looked up whether they were imported: all their bytes would be read.
_LOOKED_UP = 1000
# Bytes a pixel of the pictures for a report: large ones are JPEG (see `tasks.artifacts.picture`).
_LARGE, _JPEG, _PNG = 128, 0.35, 2.0
_BASE64 = 4 / 3
_PAGE = 300_000  # bytes of a report without its pictures


@dataclass(frozen=True)
class Step:
    """One step for one subject. `seconds` is of computing, not of waiting; `after` are steps it waits for.

    forward, backward: images through the model, alone and with gradients; of attacks the most there can be,
    since pictures that fool leave. pictures: imported by it.
    stored: its result is in the store, so that it costs nothing.
    """

    subject: str
    step: str
    forward: int = 0
    backward: int = 0
    pictures: int = 0
    seconds: float = 0.0
    stored: bool = False
    after: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        return self.subject, self.step


@dataclass(frozen=True)
class Disk:
    """Bytes that an audit adds to the store, to its report, and to MLflow."""

    store: float
    report: float
    tracking: float


@dataclass(frozen=True)
class Plan:
    """What will run, in the order in which it is submitted, and what it will cost.

    seconds: from start to end, with `slots` steps at a time. written: pictures for the report. left_out: what
    will not be measured, and what would add it. notes: what the data are, and what could not be told.
    """

    audit: str
    title: str
    steps: tuple[Step, ...]
    slots: int
    seconds: float
    rates: Rates
    written: int
    disk: Disk
    left_out: Mapping[str, str]
    notes: Mapping[str, str]

    @property
    def forward(self) -> int:
        return sum(step.forward for step in self.steps)

    @property
    def backward(self) -> int:
        return sum(step.backward for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        steps = [{key: value for key, value in asdict(step).items() if key != "after"} for step in self.steps]
        totals = {"forward": self.forward, "backward": self.backward, "seconds": self.seconds}
        return asdict(self) | {"steps": steps, "totals": totals, "left_out": dict(self.left_out),
                               "notes": dict(self.notes)}  # fmt: skip


class _Absent(Exception):
    """A step's result is not in the store."""


class _LookedUp(Store):
    """A store that computes nothing."""

    def step(
        self, name: str, inputs: Mapping[str, JSON], compute: Callable[[Path], None], *, module: str
    ) -> Stored:
        def absent(folder: Path) -> None:
            raise _Absent(name)

        return super().step(name, inputs, absent, module=module)


class _Looking(Context):
    """A context in which steps find their results or raise `_Absent`."""

    @property
    def store(self) -> Store:
        return _LookedUp(self.root / ".candling" / "store")


def _looking(context: Context, dataset: Dataset) -> Context:
    return _Looking(context.root, context.params, context.file, dataset)


# -- What is known of the data ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Data:
    """dataset: of imported pictures, None where some are still to be imported. sources: those, by role."""

    dataset: Dataset | None
    sight: Sight
    sources: Mapping[str, Samples]
    imported: Mapping[str, int]
    notes: Mapping[str, str]


def _look(context: Context, subject: Subject, model: Classifier) -> _Data:
    """Labels, groups, masks and slices of all splits, read off stand-ins of one pixel."""
    sources = {
        role: read_source(split.source(checked_out(split.location, context.root), context.root))
        for role, split in roles(context.params).items()
        if isinstance(split, SourceParams)
    }
    notes: dict[str, str] = {}
    dataset = None
    if (count := sum(map(len, sources.values()))) <= _LOOKED_UP:
        dataset = _ask(import_data, _looking(context, context.dataset), subject)
    else:
        notes["store"] = f"Whether results are in the store was not looked up: all of {count} pictures " \
            "would have to be read for that."  # fmt: skip
    for stored in dataset.imports if dataset else ():
        told = read_findings(stored.path).notes
        notes |= {name: told[name] for name in sorted(told) if name.startswith("data.")}
    classes, located = model.classes, (dataset or context.dataset).splits
    with tempfile.TemporaryDirectory(prefix="candling-") as made:
        folder, splits, imported = Path(made), {}, {}
        for role in roles(context.params):
            name = role.replace(".", "-")
            if role in located:
                splits[role] = read_stand_ins(located[role], folder, name, classes)
            else:
                report = import_pictures(stand_ins(sources[role]), classes, None, folder, name)
                imported[role] = report.images
                notes[f"data.{role}"] = " ".join(report.sentences())
                splits[role] = read_split(folder, name, classes)
        audited = (dataset or _as_imported(context, subject, folder)).audited
    sight = Sight(
        context.params, model.spec, model.differentiable, audited, splits, _size(context, model),
        counts_of_channels(model, context.params), _growth(context, model),
    )  # fmt: skip
    return _Data(dataset, sight, {role: sources[role] for role in imported}, imported, notes)


def _growth(context: Context, model: Classifier) -> Growth:
    """Through which sizes pictures will grow, found as the climb finds it."""
    if not model.differentiable:
        return Growth()
    settings, size = prototype_settings(context.params.prototypes, context.params.seed), _size(context, model)
    asked: list[int] = []
    handle = model.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    try:
        with evaluating(model):
            stages = sizes(model, parameterise(flat_prior(size), settings), settings, torch.device("cpu"))
    finally:
        handle.remove()
    return Growth(stages, sum(asked))


def _as_imported(context: Context, subject: Subject, folder: Path) -> Dataset:
    """What importing would say of the audited classes and of rules that need masks."""
    names = {role: role.replace(".", "-") for role in roles(context.params)}
    data = context.params.data.model_copy(
        update={"folder": folder} | {role: name for role, name in names.items() if "." not in role}
    )
    params = context.params.model_copy(update={"data": data})
    if params.retrain is not None:
        subjects = {name: names[f"retrain.{name}"] for name in params.retrain.subjects}
        params = params.model_copy(
            update={"retrain": params.retrain.model_copy(update={"subjects": subjects})}
        )
    splits = {role: Located(folder, name, split_digest(folder, name)) for role, name in names.items()}
    return import_data.fn(replace(context, params=params, dataset=Dataset(splits=splits)), subject)


def _size(context: Context, model: Classifier) -> tuple[int, int]:
    """Height and width of the pictures: those of the model where they are imported for it."""
    located = context.dataset.splits.get("eval")
    if located is None:
        return model.spec.image_size
    manifest = located.folder / f"{located.split}.parquet"
    name = str(pd.read_parquet(manifest, columns=["path"])["path"].iloc[0])
    file = inside(located.folder, name, str(manifest))
    try:
        with Image.open(file) as picture:
            return picture.height, picture.width
    except OSError as error:
        raise DataError(f"{file}: named in {manifest} and not a picture that can be read") from error


# -- Steps -----------------------------------------------------------------------------------------

_LOOKS: tuple[tuple[Any, Callable[[Sight], Count], tuple[Any, ...]], ...] = (
    # As `flows.audit` submits them: the step, what it asks of the model, and whose results it waits for.
    (generate, counting.prototypes, ()),
    (visualize, counting.channels, ()),
    (compute_matrix, counting.entanglement, (generate,)),
    (isolate_eval_set, counting.isolation, ()),
    (test_suspicions, counting.suspicions, (isolate_eval_set,)),
    (test_background, counting.counterfactuals, ()),
    (measure, counting.performance, ()),
    (test_corruptions, counting.robustness, ()),
    (attack_eval_set, counting.attacks, (compute_matrix,)),
)


@dataclass(frozen=True)
class _Draft:
    """A step without its time; `scratch` if its model is not the one that the audit starts from."""

    step: Step
    count: Count = Count()
    scratch: bool = False


def _drafts(context: Context, first: Subject, data: _Data) -> Iterator[_Draft]:
    """All steps in the order in which the flow submits them."""
    params, sight = context.params, data.sight
    looking = None if data.dataset is None else _looking(context, data.dataset)
    yield _Draft(Step(first.name, load.name, stored=True))
    after: tuple[Key, ...] = ((first.name, load.name),)
    for role, split in roles(params).items():
        if isinstance(split, SourceParams):
            count, there = data.imported.get(role, 0), data.dataset is not None
            yield _Draft(Step(role, import_data.name, pictures=count, stored=there, after=after))
            after = ((role, import_data.name),)
    yield from _examination(looking, first.name, first, sight, after)
    if params.retrain is None:
        return
    scratch = params.retrain.start == "scratch"
    if scratch:
        sight = replace(sight, differentiable=True)  # a network of our own, also after a black box
    for name in params.retrain.subjects:
        subject = None if looking is None else _ask(retrain, looking, name, first)
        stored = subject is not None
        pictures = sight.splits[f"retrain.{name}"]
        count_ = Count() if stored else counting.training(pictures, params.retrain.schedule)
        yield _Draft(Step(name, retrain.name, 0, count_.trained, stored=stored, after=after), count_, scratch)
        yield from _examination(looking, name, subject, sight, ((name, retrain.name),), scratch)


def _examination(
    looking: Context | None,
    name: str,
    subject: Subject | None,
    sight: Sight,
    after: tuple[Key, ...],
    scratch: bool = False,
) -> Iterator[_Draft]:
    """The steps for one subject; `subject` is None where it is not in the store."""
    results: dict[str, Stored | None] = {}
    for task, count_of, needs in _LOOKS:
        if task is visualize and sight.params.channels is None:
            continue
        inputs = [results[need.name] for need in needs]
        known = looking is not None and subject is not None and None not in inputs
        stored = _ask(task, looking, subject, *inputs) if known else None
        results[task.name] = stored
        count = Count() if stored else count_of(sight)
        waits = (*after, *((name, need.name) for need in needs))
        step = Step(name, task.name, count.forward, count.backward, stored=stored is not None, after=waits)
        yield _Draft(step, count, scratch)


def _ask(task: Any, *arguments: Any) -> Any:
    """What a step has in the store, or None."""
    try:
        return task.fn(*arguments)
    except _Absent:
        return None


def finished_after(steps: Sequence[Step], slots: int, alone: float = 1.0) -> float:
    """Seconds until all steps are done, `slots` at a time, the first that are ready first.

    Parameters
    ----------
    alone
        Time that a step takes while no other runs, as a share of what it takes while all slots are busy.
    """
    done = {step.key for step in steps if step.stored}
    waiting = [step for step in steps if not step.stored]
    running: dict[Key, float] = {}
    seconds = 0.0
    while waiting or running:
        for step in [step for step in waiting if done.issuperset(step.after)][: slots - len(running)]:
            running[step.key] = step.seconds
            waiting.remove(step)
        crowd = 1.0 if slots == 1 else (len(running) - 1) / (slots - 1)
        least = min(running.values())
        seconds += least * (alone + (1 - alone) * crowd)
        done |= {key for key, left in running.items() if left == least}
        running = {key: left - least for key, left in running.items() if left > least}
    return seconds


# -- Time and room ---------------------------------------------------------------------------------


def _rates(context: Context, folder: Path, sight: Sight, seconds: float) -> Rates:
    settings = prototype_settings(context.params.prototypes, context.params.seed)
    severities = context.params.robustness.severities
    slots = os.cpu_count() or 1
    return time_model(folder, context.root, sight.size, settings, severities, slots=slots, seconds=seconds)


def _timed(
    context: Context, first: Subject, model: Classifier, data: _Data, drafts: Sequence[_Draft], seconds: float
) -> tuple[Rates, list[Step], float]:
    """The rates of the first model, all steps with their time, and bytes of what is imported."""
    params, sight, slots = context.params, data.sight, os.cpu_count() or 1
    needed = {draft.scratch for draft in drafts if not draft.step.stored}
    rates = {False: _rates(context, first.folder, sight, seconds) if needed else Rates()}
    training = 0.0

    def make() -> Classifier:
        if params.retrain is not None and params.retrain.start == "scratch":
            return fresh(params, model.classes)
        return load_model(first.folder, root=context.root)

    if params.retrain is not None and any(draft.count.trained for draft in drafts):
        schedule = Schedule(**params.retrain.schedule.model_dump(exclude_none=True))
        training = time_training(make, sight.size, schedule, slots=slots, seconds=seconds)
    if True in needed:
        with tempfile.TemporaryDirectory(prefix="candling-") as made:
            save_model(make(), Path(made) / "model")
            rates[True] = _rates(context, Path(made) / "model", sight, seconds)
    each = {role: time_import(samples, model) for role, samples in data.sources.items()}
    steps = []
    for draft in drafts:
        step, count = draft.step, draft.count
        if step.stored:
            steps.append(step)
            continue
        if step.step == import_data.name:
            took = step.pictures * each[step.subject].seconds
        else:
            rate = rates[draft.scratch]
            took = rate.load + count.forward * rate.forward
            took += (count.backward - count.saved) * rate.backward
            took += count.trained * training
            took += count.blurred * rate.blurring + count.corrupted * rate.corrupting
        steps.append(replace(step, seconds=took))
    return rates[False], steps, sum(data.imported[role] * one.size for role, one in each.items())


def _reading(sight: Sight, rates: Rates) -> float:
    """Seconds to decode all splits, which the first steps to need them wait for."""
    files = sum(
        len(split) * (1 + (split.masks is not None) + (split.clean is not None))
        for split in sight.splits.values()
    )
    return files * rates.reading


def _disk(first: Subject, sight: Sight, drafts: Sequence[_Draft], imported: float) -> Disk:
    height, width = sight.size
    pixel = _JPEG if max(height, width) > _LARGE else _PNG
    written = sum(draft.count.written for draft in drafts) * height * width * pixel
    model = sum(file.stat().st_size for file in first.folder.rglob("*") if file.is_file())
    computed = [draft.step for draft in drafts if not draft.step.stored]
    retrained = sum(step.step == retrain.name for step in computed)
    subjects = len({step.subject for step in computed if step.step != import_data.name})
    page = written * _BASE64 + _PAGE if computed else 0
    return Disk(
        store=imported + written + retrained * model,
        report=written + page,
        tracking=written + page + subjects * model,
    )


# -- The plan --------------------------------------------------------------------------------------


def plan(context: Context, progress: Listener, *, seconds: float) -> Plan:
    """What the audit of `context` will run and what it will cost.

    Parameters
    ----------
    progress
        Told of what takes seconds: importing the model, and calibration.
    seconds
        Of calibration, for each kind of evaluation.

    Raises
    ------
    CandlingError
        If the model, the data or the layers that params name cannot be used.
    """
    token, began = listener.set(progress), time.perf_counter()
    try:
        first = load.fn(context, context.params.first_subject)
    finally:
        listener.reset(token)  # what is looked up later is not told as a step that ran
    loading = time.perf_counter() - began
    model = load_model(first.folder, root=context.root)
    data = _look(context, first, model)
    drafts = list(_drafts(context, first, data))
    computing = any(not draft.step.stored for draft in drafts)
    if computing:
        progress.start("calibrate", first.name, None)
    rates, steps, imported = _timed(context, first, model, data, drafts, seconds)
    if computing:
        progress.finish("calibrate", first.name, hit=False)
    slots = os.cpu_count() or 1
    return Plan(
        audit=context.params.name,
        title=context.params.title,
        steps=tuple(steps),
        slots=slots,
        seconds=_START + loading + _reading(data.sight, rates) + finished_after(steps, slots, rates.alone),
        rates=rates,
        written=sum(draft.count.written for draft in drafts),
        disk=_disk(first, data.sight, drafts, imported),
        left_out=counting.left_out(data.sight),
        notes=data.notes,
    )


def main(params: Path, progress: Listener) -> Plan:
    """The plan of the audit that `params` describe; only the model goes into the store.

    Raises
    ------
    CandlingError
        If params, model or data cannot be used.
    """
    if kind_of(params) == "language":
        raise ParamsError(
            f"{params}: a plan counts pictures; of language models there is none yet, run the audit"
        )
    context = Context.of(ROOT, params.resolve())
    check_model(context.params.model, context.root, params)
    check_writable(context.root / ".candling")
    return plan(context, progress, seconds=SECONDS)
