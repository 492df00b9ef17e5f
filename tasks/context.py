"""What every step is given, and how a step is run: stored, one thread each, its progress told."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from candling.audit.record import Artifact, Finding, Measurement
from tasks.params import AuditParams, Params, read_params
from tasks.read_data import Dataset, locate
from tasks.store import Store, Stored

__all__ = [
    "Context",
    "Found",
    "Listener",
    "Workplace",
    "listener",
    "one_thread",
    "read_findings",
    "run_step",
    "write_findings",
]

Tick = Callable[[int, int], None]


class Listener(Protocol):
    """Who is told how far the steps are."""

    def start(self, step: str, subject: str, total: int | None) -> None: ...
    def advance(self, step: str, subject: str, done: int, total: int) -> None: ...
    def finish(self, step: str, subject: str, hit: bool) -> None: ...


class _Silent:
    def start(self, step: str, subject: str, total: int | None) -> None: ...
    def advance(self, step: str, subject: str, done: int, total: int) -> None: ...
    def finish(self, step: str, subject: str, hit: bool) -> None: ...


listener: ContextVar[Listener] = ContextVar("listener", default=_Silent())  # noqa: B039 (stateless)

# Prefect may run any number of steps at once, most of them waiting; this many compute.
_slots = threading.BoundedSemaphore(os.cpu_count() or 1)


@dataclass(frozen=True)
class Workplace:
    """Where the repository is and what the params of an audit say; small, plain and picklable."""

    root: Path
    params: AuditParams
    file: Path
    dataset: Dataset

    @property
    def store(self) -> Store:
        return Store(self.root / ".candling" / "store")

    @property
    def report(self) -> Path:
        return self.root / "reports" / self.params.name


@dataclass(frozen=True)
class Context(Workplace):
    """The workplace of an audit of pictures."""

    params: Params

    @classmethod
    def of(cls, root: Path, file: Path) -> Context:
        """The context of the audit that `file` describes, in the repository at `root`.

        Raises
        ------
        CandlingError
            If params or data cannot be used.
        """
        params = read_params(file)
        return cls(root, params, file, Dataset(splits=locate(params, root)))

    @property
    def expected_parts(self) -> dict[str, tuple[str, ...]]:
        """Where the evidence for a class should lie, by the model's name of the class."""
        chosen = self.params.data.classes
        named = dict(zip(chosen, self.dataset.names, strict=True)) if chosen else {}
        return {named.get(name, name): parts for name, parts in self.params.expects.items()}


_computing, _deterministic = 0, False
_count = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread with deterministic kernels.

    Sums split over two threads differ from sums split over three, so the number of threads is fixed;
    the cores are kept busy by steps that run side by side. Deterministic kernels are a switch of the whole
    process: the last step to leave puts it back.
    """
    import torch

    global _computing, _deterministic
    threads = torch.get_num_threads()
    with _count:
        if not _computing:
            _deterministic = torch.are_deterministic_algorithms_enabled()
        _computing += 1
        torch.use_deterministic_algorithms(True)
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
        with _count:
            _computing -= 1
            if not _computing:
                torch.use_deterministic_algorithms(_deterministic)


def run_step(
    context: Workplace,
    step: str,
    subject: str,
    inputs: Mapping[str, Any],
    compute: Callable[[Path, Tick], None],
    *,
    module: str,
) -> Stored:
    """Run one step of the audit for one subject, or take it from the store."""
    who = listener.get()

    def work(folder: Path) -> None:
        with _slots, one_thread():
            who.start(step, subject, None)
            compute(folder, lambda done, total: who.advance(step, subject, done, total))

    stored = context.store.step(step.replace(" ", "-"), dict(inputs), work, module=module)
    who.finish(step, subject, stored.hit)
    return stored


class Found(NamedTuple):
    """What a step found, for `decide` to gather."""

    measurements: list[Measurement]
    artifacts: list[Artifact]
    notes: dict[str, str]
    findings: list[Finding]


def write_findings(
    folder: Path,
    measurements: Sequence[Measurement],
    artifacts: Sequence[Artifact] = (),
    notes: Mapping[str, str] | None = None,
    findings: Sequence[Finding] = (),
) -> None:
    """Write what a step found into `folder`, whole."""
    content = {
        "measurements": [m.model_dump(mode="json") for m in measurements],
        "artifacts": [a.model_dump(mode="json") for a in artifacts],
        "notes": dict(notes or {}),
        "findings": [f.model_dump(mode="json") for f in findings],
    }
    (folder / "findings.json").write_text(
        json.dumps(content, sort_keys=True, allow_nan=False), encoding="utf-8"
    )


def read_findings(folder: Path) -> Found:
    """What `write_findings` wrote."""
    content = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    return Found(
        [Measurement.model_validate(m) for m in content["measurements"]],
        [Artifact.model_validate(a) for a in content["artifacts"]],
        content["notes"],
        [Finding.model_validate(f) for f in content["findings"]],
    )
