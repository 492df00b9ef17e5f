"""Rows that are kept as they finish, so that a run that was interrupted goes on where it was.

A row is one file, named by the digest of all that determines it: the objective, the seed, the settings, the
prior, the picture it starts from, the model's modules, weights and preprocessing, and the sources of this
package, so that an update does not go on with rows of the version before. What a module's `forward` does
cannot be seen: change that, and name another folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from candling.errors import ServiceError
from candling.models import Classifier
from candling.vision.climbing import Climb, Climbed, Progress, Row, climb
from candling.vision.priors import Prior

__all__ = ["climb_kept"]


def climb_kept(
    model: nn.Module,
    rows: Sequence[Row],
    prior: Prior,
    settings: Climb,
    *,
    start: Tensor | None = None,
    batch: int | None = None,
    folder: Path | None = None,
    finished: Callable[[int, Climbed, bool], None] | None = None,
    progress: Progress | None = None,
) -> list[Climbed]:
    """`climb`, but for rows that are in the folder; what became of each row, in their order.

    Parameters
    ----------
    model, rows, prior, settings, start, batch, progress
        See `climb`; progress counts the rows that are missing alone.
    folder
        Where finished rows are kept, each whole or not at all; made with the first. None: nowhere.
    finished
        Told of each row: its place, what became of it, and whether it was in the folder.

    Raises
    ------
    ModelError
        See `climb`.
    ServiceError
        If the folder cannot be written.
    """
    files: list[Path] = []
    found: dict[int, Climbed] = {}
    if folder is not None:
        run = _run_digest(model, prior, settings, start)
        files = [folder / f"{_digest(run, str(row.objective), row.seed)}.safetensors" for row in rows]
        found = {i: kept for i, file in enumerate(files) if (kept := _read(file)) is not None}
        if settings.diversity:  # what a seed became depends on the other seeds of its objective
            torn = {rows[i].objective for i in range(len(rows)) if i not in found}
            found = {i: kept for i, kept in found.items() if rows[i].objective not in torn}
    missing = [i for i in range(len(rows)) if i not in found]
    if finished is not None:
        for i, kept in found.items():
            finished(i, kept, True)

    def keep(place: int, row: Climbed) -> None:
        i = missing[place]
        found[i] = row
        if files:
            _write(files[i], row)
        if finished is not None:
            finished(i, row, False)

    climb(
        model, [rows[i] for i in missing], prior, settings,
        start=start, batch=batch, finished=keep, progress=progress,
    )  # fmt: skip
    return [found[i] for i in range(len(rows))]


def _digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:32]


@functools.cache
def _sources() -> bytes:
    engine = Path(__file__).parents[1]
    files = sorted(file for part in ("models", "vision") for file in (engine / part).glob("*.py"))
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in files))
    sources.update(torch.__version__.encode())
    return sources.digest()


def _run_digest(model: nn.Module, prior: Prior, settings: Climb, start: Tensor | None) -> str:
    """Of all that rows depend on besides what they are."""
    digest = hashlib.sha256(_sources())
    said = asdict(settings)
    if not settings.diversity:
        del said["seeds"]  # how many others there are makes no difference
    digest.update(json.dumps(said, sort_keys=True).encode())
    digest.update(next(model.parameters(), prior.mean).device.type.encode())
    digest.update(repr(model).encode())
    if isinstance(model, Classifier):
        digest.update(repr(model.spec).encode())

    # Buffers too that are not saved, such as means and deviations.
    tensors = [*model.named_parameters(), *model.named_buffers(), *vars(prior).items()]
    if start is not None:
        tensors.append(("start", start))
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write(file: Path, row: Climbed) -> None:
    """Whole or not at all, also where another process makes the same row."""
    part = file.with_name(f".{file.stem}-{os.getpid()}.part")
    said = {"steps": str(row.steps), "score": repr(row.score)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"image": row.image.contiguous()}, part, said)
        os.replace(part, file)
    except (OSError, SafetensorError) as error:
        raise ServiceError(f"{file.parent}: finished rows cannot be kept there ({error})") from error


def _read(file: Path) -> Climbed | None:
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as kept:
            said = kept.metadata() or {}
            return Climbed(kept.get_tensor("image"), int(said["steps"]), float(said["score"]))
    except (SafetensorError, KeyError, ValueError):
        return None  # damaged: it is made anew
