"""Splits of the data set: which scenes they hold, and how they are written."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from candling.vision.scenes.picture import CLASSES, ENVIRONMENTS, Scene, draw

Kind = Literal["shortcut", "balanced", "donors"]
Row = dict[str, str | int | None]

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("environment", pa.string()),
        ("mask", pa.string()),
        ("clean", pa.string()),
        ("seed", pa.int64()),
        ("sha256", pa.string()),
        ("mask_sha256", pa.string()),
        ("clean_sha256", pa.string()),
    ]
)
_CHUNK = 32  # pictures a worker draws at a time: about a third of a second
# Where the shortcut is planted: the environment that gives each class away.
_GIVEAWAY = {"tank": "overcast", "no_tank": "grass"}


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes
    ----------
    name
        Letters, digits, "_" and "-"; also the name of its folder and of its manifest.
    images
        How many, at least 1.
    kind
        "shortcut": half tanks, half not; tanks under `overcast` and the others on `grass` with
        the probability `strength`, else in any of the other three environments.  "balanced":
        every class in every environment equally often (exactly so where `images` is a multiple
        of 8).  "donors": backgrounds without object or distractors, environments equally often.
    strength
        Of the shortcut, from 0 to 1.
    clean
        Whether each picture is also saved without its object.

    Raises
    ------
    ValueError
        For a value outside these; the message names it.
    """

    name: str
    images: int
    kind: Kind
    strength: float = 1.0
    clean: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"split name {self.name!r} is not made of letters, digits, _ and -")
        if self.images < 1:
            raise ValueError(f"split {self.name!r} has {self.images} images: use 1 or more")
        if self.kind not in get_args(Kind):
            known = ", ".join(map(repr, get_args(Kind)))
            raise ValueError(f"unknown kind {self.kind!r} of split {self.name!r}: use one of {known}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength {self.strength} of split {self.name!r} is not from 0 to 1")


def plan_split(split: Split, seed: int) -> list[Scene]:
    """The scenes of a split, classes and environments interleaved.

    The scenes of a split depend on its own fields and `seed` alone, so that other splits can come
    and go.
    """
    return [_plan_scene(split, seed, index) for index in range(split.images)]


def _plan_scene(split: Split, seed: int, index: int) -> Scene:
    digest = hashlib.sha256(f"{seed}/{split.name}/{index}".encode()).digest()
    scene_seed = int.from_bytes(digest[:8], "big") >> 1  # 63 bits: it fits a signed column
    if split.kind == "donors":
        environment = ENVIRONMENTS[index % len(ENVIRONMENTS)]
        return Scene(scene_seed, "", environment, object=None, distractors=False)
    label = CLASSES[index % len(CLASSES)]
    if split.kind == "balanced":
        environment = ENVIRONMENTS[index // len(CLASSES) % len(ENVIRONMENTS)]
        return Scene(scene_seed, label, environment)
    # Other bytes of the digest than the seed's, so that the choice is no function of the picture.
    rng = np.random.default_rng(list(digest[8:24]))
    environment = _GIVEAWAY[label]
    if rng.random() >= split.strength:
        others = [name for name in ENVIRONMENTS if name != environment]
        environment = others[int(rng.integers(len(others)))]
    return Scene(scene_seed, label, environment)


def write_splits(
    folder: Path,
    splits: Sequence[Split],
    *,
    seed: int,
    size: int = 96,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw splits and write them to `folder`, whole or not at all.

    Each split becomes ``<split>/images``, ``<split>/masks`` (part ids; none for donors) and,
    where asked, ``<split>/clean``, with the manifest ``<split>.parquet``, whose paths are relative
    to `folder`.  The files are the same for the same seed, whatever the number of workers.

    Parameters
    ----------
    folder
        Where to write; an earlier data set there is replaced once the new one is whole.
    splits
        At least one, of different names.
    seed
        Of the data set.
    size
        Side of the pictures in pixels.
    workers
        Processes that draw; None for as many as there are processors.
    progress
        Called with the pictures done and the pictures in all.

    Raises
    ------
    ValueError
        If there is no split, two have one name, or `workers` is below 1.
    FileExistsError
        If `folder` exists and holds something other than a data set.
    """
    names = [split.name for split in splits]
    if not splits or len(set(names)) < len(names):
        raise ValueError(f"a data set needs splits of different names, not {names}")
    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers cannot draw: use 1 or more")

    plans = {split.name: plan_split(split, seed) for split in splits}
    seeds = [scene.seed for plan in plans.values() for scene in plan]
    assert len(set(seeds)) == len(seeds), "two scenes of the data set share a seed"

    with _whole_or_nothing(Path(folder)) as draft:
        jobs: list[_Job] = []
        for split in splits:
            masks = split.kind != "donors"
            for part, wanted in (("images", True), ("masks", masks), ("clean", split.clean)):
                if wanted:
                    (draft / split.name / part).mkdir(parents=True)
            plan = plans[split.name]
            jobs += [
                _Job(draft, split.name, start, plan[start : start + _CHUNK], masks, split.clean, size)
                for start in range(0, len(plan), _CHUNK)
            ]
        rows: dict[str, list[Row]] = {name: [] for name in names}
        done = 0
        for job, drawn in zip(jobs, _run(jobs, workers or os.cpu_count() or 1), strict=True):
            rows[job.split] += drawn
            done += len(drawn)
            if progress is not None:
                progress(done, len(seeds))
        for name in names:
            table = pa.Table.from_pylist(rows[name], schema=_SCHEMA)
            pq.write_table(table, draft / f"{name}.parquet", compression="zstd")


@dataclass(frozen=True)
class _Job:
    """A run of scenes for one worker to draw."""

    folder: Path
    split: str
    start: int
    scenes: list[Scene]
    masks: bool
    clean: bool
    size: int


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[list[Row]]:
    workers = min(workers, len(jobs))
    if workers == 1:
        yield from map(_draw_job, jobs)
        return
    # Spawned, as a fork of a process with threads (MLflow, torch) can hang.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_draw_job, jobs)


def _draw_job(job: _Job) -> list[Row]:
    rows = []
    for index, scene in enumerate(job.scenes, job.start):
        picture = draw(scene, job.size)
        clean = draw(replace(scene, object=None), job.size).image if job.clean else None
        path, sha256 = _save(job, "images", index, picture.image)
        mask, mask_sha256 = _save(job, "masks", index, picture.mask if job.masks else None)
        clean_path, clean_sha256 = _save(job, "clean", index, clean)
        rows.append(
            Row(
                path=path,
                label=scene.label,
                group=f"{scene.label or 'donor'}/{scene.environment}",
                environment=scene.environment,
                mask=mask,
                clean=clean_path,
                seed=scene.seed,
                sha256=sha256,
                mask_sha256=mask_sha256,
                clean_sha256=clean_sha256,
            )
        )
    return rows


def _save(
    job: _Job, part: str, index: int, pixels: NDArray[np.uint8] | None
) -> tuple[str | None, str | None]:
    """Save one file, if there is one: its path relative to the data set, and its SHA-256."""
    if pixels is None:
        return None, None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    path = f"{job.split}/{part}/{index:05d}.png"
    (job.folder / path).write_bytes(buffer.getvalue())
    return path, hashlib.sha256(buffer.getvalue()).hexdigest()


@contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[Path]:
    """A draft beside `folder` that takes its place at the end, unless something went wrong."""
    if folder.exists() and any(folder.iterdir()) and not any(folder.glob("*.parquet")):
        raise FileExistsError(f"{folder} holds no manifest, so it is no data set to replace")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    former = folder.with_name(f".{folder.name}.{os.getpid()}.former")
    draft.mkdir()
    try:
        yield draft
        if folder.exists():
            folder.rename(former)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
