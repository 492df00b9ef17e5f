"""The watcher: measures a model while it is trained and leaves it as it was.

Accuracy of all pictures, of each group and of the worst, and whether conflict swaps follow the background
against placebo swaps: what the audit measures, on fewer pictures. The same pictures and swaps are used at
every step, so that what differs between two records is the model.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import platform
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from candling.audit.record import AuditRecord, Measurement, measured, write_record
from candling.data import Pictures, stratified, unit
from candling.errors import DataError, ParamsError
from candling.models import Classifier, logits
from candling.statistics import proportion
from candling.vision.counterfactuals import Swaps, pair_swaps, paste
from candling.vision.performance import accuracy_by, worst_of

__all__ = ["Watcher", "weights_digest"]

_LEAST = 30  # fewer samples than this say too little about a group or a rate of swaps
_SWAPS = ("background.follow_rate", "background.placebo_rate")


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the weights as a safetensors file holds them.

    For a `Classifier` it is that of the `model.safetensors` that `save_model` would write of a network of
    candling's own; for any other module that of `safetensors.torch.save_file(model.state_dict(), …)`.
    """
    network = model.network if isinstance(model, Classifier) else model
    # Clones: safetensors refuses weights that share memory.
    state = {name: t.detach().cpu().contiguous().clone() for name, t in network.state_dict().items()}
    return hashlib.sha256(save(state)).hexdigest()


@contextmanager
def _same_randomness() -> Iterator[None]:
    """The global random states of Python, NumPy and torch, of CUDA devices too, are put back on leaving."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class Watcher:
    """Writes a record of a model under training every few steps.

    Call it in the training loop, as often as you like: ``watch(model, step)``. Coordinates beside the step,
    such as the run's hyper-parameters, are given by name: ``watch(model, step, learning_rate=0.1)``.

    Parameters
    ----------
    folder
        Where `step-000040/record.json` goes.
    pictures
        What to measure on: `images` (N, 3, H, W) as the model takes them, `labels` and `groups`; with
        `masks` also the swaps. Nothing here may be in the training data.
    classes
        Class names in the order of the logits.
    every
        Steps from one record to the next.
    donors
        Clean backgrounds of the same size with their `environments`.
    came_with
        The background that each class came with in training, as `associated_backgrounds` gives it.
    audit
        Name of the series; only records of one audit are lined up.
    images, swaps
        At most about so many pictures, and so many swaps of each of the two kinds, are shown to the model
        for a record.
    resume
        Go on in a folder that has records; without it they would be mixed with those of another training.

    Raises
    ------
    ParamsError
        If `every` is not positive, or the folder holds records and `resume` is not set.
    DataError
        If there are no pictures, a label is not one of the classes, or donors are of another size.
    """

    def __init__(
        self,
        folder: Path | str,
        pictures: Pictures,
        classes: Sequence[str],
        *,
        every: int,
        donors: Pictures | None = None,
        came_with: Mapping[int, str] | None = None,
        audit: str = "training",
        images: int = 200,
        swaps: int = 90,
        resume: bool = False,
    ) -> None:
        self.folder, self.classes, self.every, self.audit = Path(folder), tuple(classes), every, audit
        if every < 1:
            raise ParamsError(
                f"every is {every}; a watcher records every step or every several, so at least 1"
            )
        if not resume and any(self.folder.glob("step-*/record.json")):
            raise ParamsError(
                f"{self.folder}: holds records of a training already; "
                "choose another folder, or pass resume=True"
            )
        if not len(pictures):
            raise DataError("the watcher got no pictures; it needs held-out ones with labels and groups")
        labels = pictures.labels.tolist()
        if bad := [label for label in labels if not 0 <= label < len(self.classes)]:
            raise DataError(
                f"the watcher's pictures have label {bad[0]}; there are {len(self.classes)} classes"
            )
        rows = stratified(pictures, images)
        self._images = unit(pictures.images[rows])
        self._labels = pictures.labels[rows].cpu()
        self._groups = [pictures.groups[row] for row in rows]
        self._swapped: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._why_not = self._make_swaps(pictures, donors, came_with, -(-swaps // len(self.classes)))
        self._data = self._data_digest()
        self._last: int | None = None

    def __repr__(self) -> str:
        return (
            f"Watcher({str(self.folder)!r}, every={self.every}, audit={self.audit!r}, "
            f"evaluations={self.evaluations})"
        )

    @property
    def evaluations(self) -> int:
        """Pictures shown to the model for one record."""
        return len(self._images) + sum(len(images) for images, _, _ in self._swapped.values())

    def _make_swaps(
        self, pictures: Pictures, donors: Pictures | None, came_with: Mapping[int, str] | None, each: int
    ) -> str:
        """Paste the swaps once; returns why there are none, or an empty string."""
        lacking = [
            what
            for what, there in (
                ("masks", pictures.masks is not None),
                ("clean donors", donors is not None and len(donors) > 0),
                ("the backgrounds that classes came with", bool(came_with)),
            )
            if not there
        ]
        if pictures.masks is None or donors is None or came_with is None or lacking:
            return f"swaps need {' and '.join(lacking)}"
        if donors.images.shape[1:] != pictures.images.shape[1:]:
            raise DataError(
                f"donors are {tuple(donors.images.shape[1:])}, pictures {tuple(pictures.images.shape[1:])}; "
                "give both at the size that the model takes"
            )
        # A picture whose mask is empty has no object to paste.
        there = (pictures.masks > 0).flatten(1).any(1)
        labels = torch.where(there, pictures.labels, -1).tolist()
        for id, conflict in zip(_SWAPS, (True, False), strict=True):
            found = pair_swaps(
                labels, donors.environments, came_with,
                classes=len(self.classes), each=each, conflict=conflict,
            )  # fmt: skip
            if len(found):
                self._swapped[id] = self._paste(pictures, donors, found)
        return ""

    @staticmethod
    def _paste(pictures: Pictures, donors: Pictures, swaps: Swaps) -> tuple[Tensor, Tensor, Tensor]:
        assert pictures.masks is not None
        objects, backgrounds = list(swaps.objects), list(swaps.backgrounds)
        images = paste(
            unit(pictures.images[objects]), pictures.masks[objects] > 0, unit(donors.images[backgrounds])
        )
        return images, pictures.labels[objects].cpu(), torch.tensor(swaps.pulls)

    def _data_digest(self) -> str:
        digest = hashlib.sha256(repr((self._labels.tolist(), self._groups)).encode())
        for images in (self._images, *(images for images, _, _ in self._swapped.values())):
            digest.update(images.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, model: nn.Module, step: int, /, **coordinates: float) -> Path | None:
        """Write a record if one is due at `step` and return its file, else None."""
        return self.write(model, step, None, **coordinates) if step % self.every == 0 else None

    def write(
        self, model: nn.Module, step: int, answers: nn.Module | None = None, /, **coordinates: float
    ) -> Path:
        """Write the record of `step`, whether it is due or not.

        Parameters
        ----------
        model
            Images (N, 3, H, W) in [0, 1] go in, logits (N, classes) come out.
        answers
            What gives those logits where `model`, whose weights are meant, does not itself.
        coordinates
            Numbers that place the run among others, beside the step.

        Raises
        ------
        ModelError
            If a logit is NaN or infinite: a training that diverged.
        ParamsError
            If a coordinate is not a finite number.
        """
        for name, value in coordinates.items():
            if not math.isfinite(value):
                raise ParamsError(f"coordinate {name!r} is {value}; a series needs finite numbers")
        asked = model if answers is None else answers
        with _same_randomness():
            measurements = self._measure(asked)
        device = next((p.device.type for p in model.parameters()), "cpu")
        record = AuditRecord(
            audit=self.audit,
            subject=f"step-{step:06d}",
            kind="vision",
            title=f"Step {step} of a training",
            classes=self.classes,
            digests={"model": weights_digest(model), "data": self._data},
            measurements=tuple(measurements),
            notes={"counterfactuals": self._why_not} if self._why_not else {},
            environment={
                "python": platform.python_version(),
                **{name: _version(name) for name in ("candling", "torch", "numpy")},
                "device": device,
            },
            coordinates={"step": float(step), **{name: float(value) for name, value in coordinates.items()}},
        )
        self._last = step
        return write_record(record, self.folder / record.subject)

    def finish(
        self, model: nn.Module, step: int, answers: nn.Module | None = None, /, **coordinates: float
    ) -> Path | None:
        """Write the record of the last step unless it is there already."""
        if self._last == step:
            return None
        return self.write(model, step, answers, **coordinates)

    def _answers(self, model: nn.Module, images: Tensor) -> Tensor:
        """Predicted class (N,) of each image."""
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        found = logits(model, images.to(device))
        if found.ndim != 2 or found.shape[1] != len(self.classes):
            raise ParamsError(
                f"the model gave outputs of shape {tuple(found.shape)}, "
                f"the watcher was given {len(self.classes)} classes"
            )
        return found.argmax(1).cpu()

    def _measure(self, model: nn.Module) -> list[Measurement]:
        right = self._answers(model, self._images) == self._labels
        out = [measured("accuracy.overall", proportion(int(right.sum()), len(right)), {})]
        for group, estimate in accuracy_by(right, self._groups).items():
            out.append(measured("accuracy.group", estimate, {"group": group}, least=_LEAST))
        if (worst := worst_of(right, self._groups)) is not None:
            group, estimate = worst
            out.append(measured("accuracy.worst_group", estimate, {}, least=_LEAST, note=group))
        for id in _SWAPS:
            if id not in self._swapped:
                note = self._why_not or "no swap could be made: backgrounds do not conflict or none are clean"
                out.append(Measurement(id=id, value=None, n=0, status="inconclusive", note=note))
                continue
            images, labels, pulls = self._swapped[id]
            predicted = self._answers(model, images)
            hit = predicted == pulls if id == _SWAPS[0] else predicted != labels
            out.append(measured(id, proportion(int(hit.sum()), len(hit)), {}, least=_LEAST))
        return out
