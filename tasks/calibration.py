"""How long things take on this machine: the engine's own loops, timed for a few seconds.

As in an audit: one thread each, as many side by side as it computes. Medians of laps after one to warm up.
"""

from __future__ import annotations

import io
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from candling.data import Samples, Unreadable, decode, decode_mask
from candling.models import Classifier, load_model, logits
from candling.vision.corruptions import CORRUPTIONS, corrupt
from candling.vision.isolation import Windows, blurred_fill, isolate
from candling.vision.prototypes import Climb, Prior, generate_prototypes
from candling.vision.training import Schedule, train
from tasks.context import one_thread

__all__ = ["Imported", "Rates", "flat_prior", "time_import", "time_model", "time_training"]

T = TypeVar("T")

_LEAST_LAPS = 2
_LARGEST_GRID = 5  # windows a side: 52 evaluations an image, nearly a batch of 64
_MANY = 100_000  # more images than there is time for
_REPEATS = 3  # of what takes no model
_CLIMBING = 32  # rows of prototypes that climb together
_PICTURES = 6  # of a source that are decoded to see how long that takes


@dataclass(frozen=True)
class Rates:
    """Seconds: to load the model, for one image through it, and for what is done to one picture otherwise.

    blurring: the fill of isolation without donors. corrupting: on average over kinds and severities.
    reading: decoding what was imported. All with as many threads beside each other as the audit has; alone
    is the share of that time which a forward pass takes with no other thread beside it.
    """

    load: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    blurring: float = 0.0
    corrupting: float = 0.0
    reading: float = 0.0
    alone: float = 1.0


@dataclass(frozen=True)
class Imported:
    """Of one picture of a source: seconds to import it, and bytes that it takes."""

    seconds: float
    size: float


class _Enough(Exception):
    """Ends an engine's loop from inside its progress callback."""


@dataclass
class _Laps:
    """A progress callback that times what is done between its calls; ends the loop when there are enough.

    What is done before the first call is the warm-up. laps: seconds for one of what is counted.
    """

    budget: float
    began: float = 0.0
    last: tuple[float, int] | None = None
    laps: list[float] = field(default_factory=list)

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        if self.last is None:
            self.began = now
        else:
            self.laps.append((now - self.last[0]) / (done - self.last[1]))
        self.last = now, done
        if len(self.laps) >= _LEAST_LAPS and now - self.began > self.budget:
            raise _Enough

    @contextmanager
    def timing(self) -> Iterator[None]:
        try:
            yield
        except _Enough:
            return


def time_model(
    folder: Path,
    root: Path,
    size: tuple[int, int],
    settings: Climb,
    severities: tuple[int, ...],
    *,
    slots: int,
    seconds: float,
) -> Rates:
    """Time the model in `folder` on pictures of `size`, in as many threads as `slots`.

    Parameters
    ----------
    settings
        How prototypes are climbed: what is done around the model takes time too.
    severities
        Of the corruptions.
    seconds
        For each kind of evaluation; after a first lap at least two are run, however long they take.

    Raises
    ------
    ModelError
        If the model does not answer, or gives no gradient and is no black box.
    """

    def forward() -> tuple[list[float], float]:
        began = time.perf_counter()
        model = load_model(folder, root=root)
        loading = time.perf_counter() - began
        picture = _picture(size)
        grid = _grid(model, picture, seconds)
        side = -(-max(size) // grid)
        evaluations = 2 + 2 * len(range(0, size[0], side)) * len(range(0, size[1], side))
        laps = _Laps(seconds)
        with laps.timing():
            windows = Windows(donors=picture, donors_per_image=1, side=side, stride=side)
            for done in range(_MANY):
                isolate(model, picture, classes=torch.zeros(1, 1, dtype=torch.long), method=windows)
                laps(done + 1, _MANY)
        return [lap / evaluations for lap in laps.laps], loading

    def backward(rows: int) -> list[float]:
        model = load_model(folder, root=root)
        # At the whole size from the first step on: what is smaller is counted as less.
        endless = replace(settings, seeds=rows, starts=1, steps=1000, growth=((1.0, 1.0),))
        laps = _Laps(seconds)
        with laps.timing():
            generate_prototypes(model, [0], flat_prior(size), settings=endless, progress=laps)
        return laps.laps

    found = _side_by_side(slots, forward)
    rate = statistics.median(lap for laps, _ in found for lap in laps)
    alone = rate
    if slots > 1:
        alone = statistics.median(lap for laps, _ in _side_by_side(1, forward) for lap in laps)
    load = statistics.median(loading for _, loading in found)
    climbing = 0.0
    if load_model(folder, root=root).differentiable:
        # A pass back takes about twice as long as one forward.
        rows = max(1, min(_CLIMBING, int(seconds / (3 * rate))))
        climbing = statistics.median(
            lap for laps in _side_by_side(slots, lambda: backward(rows)) for lap in laps
        )
    picture = _picture(size)
    kinds = [(name, severity) for name in CORRUPTIONS for severity in severities]
    corrupting = _time(slots, lambda: [corrupt(picture, *kind) for kind in kinds]) / len(kinds)
    pixels = (picture[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    content = _png(Image.fromarray(pixels))
    reading = _time(slots, lambda: np.asarray(Image.open(io.BytesIO(content))))
    return Rates(
        load=load,
        forward=rate,
        backward=climbing,
        blurring=_time(slots, lambda: blurred_fill(picture)),
        corrupting=corrupting,
        reading=reading,
        alone=min(1.0, alone / rate),
    )


def flat_prior(size: tuple[int, int]) -> Prior:
    """A prior that says nothing of pictures but their size (height, width)."""
    return Prior(torch.zeros(3, *size), torch.eye(3), torch.ones(3, size[0], size[1] // 2 + 1))


def time_training(make: Callable[[], Classifier], size: tuple[int, int], schedule: Schedule, *, slots: int,
                  seconds: float) -> float:  # fmt: skip
    """Seconds for one image of one step of training, of models that `make` makes."""

    def work() -> list[float]:
        model = make()
        began = time.perf_counter()
        logits(model, _picture(size))
        once = time.perf_counter() - began
        batch = max(2, min(schedule.batch, int(seconds / (3 * once))))
        images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
        labels = torch.zeros(batch, dtype=torch.long)
        laps = _Laps(seconds)
        with laps.timing():
            train(model, images, labels, replace(schedule, batch=batch, steps=1000), seed=0, progress=laps)
        return [lap / batch for lap in laps.laps]

    return statistics.median(lap for laps in _side_by_side(slots, work) for lap in laps)


def time_import(samples: Samples, model: Classifier, pictures: int = _PICTURES) -> Imported:
    """Decode, prepare and write a few pictures of a source; those that cannot be read say nothing."""
    step = max(1, len(samples) // pictures)
    seconds, sizes = [], []
    for row in range(0, len(samples), step)[:pictures]:
        sample = samples[row]
        began = time.perf_counter()
        try:
            picture = decode(sample.content()).picture
            mask = None if sample.mask is None else decode_mask(sample.mask())
        except Unreadable:
            continue
        if mask is not None and mask.size != picture.size:
            continue  # importing tells
        written = [_png(one) for one in model.prepare(picture, mask) if one is not None]
        seconds.append(time.perf_counter() - began)
        sizes.append(sum(map(len, written)))
    if not seconds:
        return Imported(0.0, 0.0)
    return Imported(statistics.median(seconds), statistics.mean(sizes))


def _side_by_side(slots: int, work: Callable[[], T]) -> list[T]:
    """Results of `work` in so many threads at once, each with torch on one thread."""
    start = threading.Barrier(slots)

    def one() -> T:
        start.wait()
        with one_thread():
            return work()

    # What one_thread puts back is the process's as well, so that the first thread to end would spoil it.
    with one_thread(), ThreadPoolExecutor(slots) as threads:
        return [future.result() for future in [threads.submit(one) for _ in range(slots)]]


def _picture(size: tuple[int, int]) -> torch.Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


def _grid(model: Classifier, picture: torch.Tensor, seconds: float) -> int:
    """Windows a side, so that an image is a lap of bearable length for a slow model too."""
    logits(model, picture)
    began = time.perf_counter()
    logits(model, picture)
    once = time.perf_counter() - began
    return next((grid for grid in range(_LARGEST_GRID, 1, -1) if (2 + 2 * grid**2) * once < seconds), 1)


def _time(slots: int, work: Callable[[], object]) -> float:
    """Median seconds that a short piece of work takes."""

    def laps() -> list[float]:
        found = []
        for _ in range(_REPEATS + 1):
            began = time.perf_counter()
            work()
            found.append(time.perf_counter() - began)
        return found[1:]

    return statistics.median(lap for found in _side_by_side(slots, laps) for lap in found)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
