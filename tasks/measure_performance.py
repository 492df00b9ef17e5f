"""Step: measure what every owner of a model expects: accuracy, calibration, confusion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import measured
from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.load_model import Subject
from tasks.store import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from candling.audit.record import Measurement
    from candling.data import Pictures
    from candling.models import Classifier

__all__ = ["left_out", "measure"]

# Fewer images than these say nothing of a group, and nothing of how far confidence can be trusted.
_LEAST = 30
_LEAST_CALIBRATION = 100
_PAIRS = 20  # of classes that are confused most, of many classes


def left_out(pictures: Pictures, head: str) -> dict[str, str]:
    """Notes on what such pictures of audited classes, and such a head of the model, do not tell."""
    notes = {}
    if not any(pictures.environments):
        notes["left_out.groups"] = (
            "Accuracy is not told by group; a column `group` (class/background) would add the worst "
            "group, which is where shortcuts show."
        )
    if not any(any(values) for values in pictures.slices.values()):
        notes["left_out.slices"] = (
            "There are no slices; further columns of the manifest (camera, site, time) would add one each."
        )
    if head == "multilabel":
        notes["left_out.calibration"] = (
            "Calibration is not measured: the probabilities of several labels do not share out one whole."
        )
    return notes


@task(name="measure performance")
def measure(context: Context, subject: Subject) -> Stored:
    """Accuracy of the whole, of each class, slice and group, calibration, and which classes are confused."""
    dataset = context.dataset

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import torch

        from candling.models import logits, probabilities
        from candling.statistics import proportion
        from candling.vision.performance import accuracy_by, worst_of
        from tasks.pictures import audited_rows

        everything = dataset.read("eval")
        pictures = everything.take(audited_rows(everything, dataset.audited))
        likely = probabilities(model, logits(model, pictures.images))
        predicted, labels = likely.argmax(1), pictures.labels
        right = predicted == labels
        measurements = [measured("accuracy.overall", proportion(int(right.sum()), len(right)))]
        names = [dataset.classes[k] for k in labels.tolist()]
        for name, estimate in accuracy_by(right, names).items():
            measurements.append(measured("accuracy.class", estimate, {"class": name}, least=_LEAST))

        def worst(id: str, keys: Sequence[str]) -> None:
            found = worst_of(right, keys, least=_LEAST)
            if found is not None:
                measurements.append(measured(id, found[1], least=_LEAST, note=found[0]))

        if any(pictures.environments):
            for group, estimate in accuracy_by(right, pictures.groups).items():
                measurements.append(measured("accuracy.group", estimate, {"group": group}, least=_LEAST))
            worst("accuracy.worst_group", pictures.groups)
        cells: dict[str, torch.Tensor] = {}
        for column, values in pictures.slices.items():
            for value, estimate in accuracy_by(right, values).items():
                if not value:
                    continue  # pictures of which the column says nothing
                scope = {"slice": column, "value": value}
                measurements.append(measured("accuracy.slice", estimate, scope, least=_LEAST))
                cells[f"{column}: {value}"] = right[torch.tensor([v == value for v in values])]
        if cells:
            # A picture lies in a slice of every column; each slice is judged on its own pictures.
            slices = [name for name, cell in cells.items() for _ in range(len(cell))]
            found = worst_of(torch.cat(list(cells.values())), slices, least=_LEAST)
            if found is not None:
                measurements.append(measured("accuracy.worst_slice", found[1], least=_LEAST, note=found[0]))
        if "like_train" in dataset:
            held_out = dataset.read("like_train")
            held_out = held_out.take(audited_rows(held_out, dataset.audited))
            hits = int((logits(model, held_out.images).argmax(1) == held_out.labels).sum())
            measurements.append(measured("accuracy.like_train", proportion(hits, len(held_out))))
        if model.head != "multilabel":
            measurements += _calibration(likely, labels)
        measurements += _confusion(predicted, labels, dataset.audited, dataset.classes)
        write_findings(out, measurements, notes=left_out(pictures, model.head))

    return examine(context, "measure performance", subject, ["eval", "like_train"], look, module=__name__)


def _calibration(likely: Tensor, labels: Tensor) -> list[Measurement]:
    from candling.statistics import Estimate
    from candling.vision.performance import calibration

    found = calibration(likely, labels)
    measurements = [
        measured("calibration.error", found.error, least=_LEAST_CALIBRATION),
        measured("calibration.overconfidence", found.overconfidence, least=_LEAST),
    ]
    for one in found.bins:
        scope = {"bin": one.name}
        measurements.append(measured("calibration.bin_accuracy", one.accuracy, scope))
        confidence = Estimate(one.confidence, one.confidence, one.confidence, one.accuracy.n)
        measurements.append(measured("calibration.bin_confidence", confidence, scope))
    return measurements


def _confusion(
    predicted: Tensor, labels: Tensor, audited: Sequence[int], classes: Sequence[str]
) -> list[Measurement]:
    """All pairs of few classes, of many those that are confused most; the model may see others still."""
    from candling.vision.performance import confusion

    found = confusion(predicted, labels, audited)
    names = [*(classes[k] for k in audited), "another class"]
    pairs = list(found.pairs(zeros=len(audited) <= _PAIRS))
    if len(audited) > _PAIRS:
        wrong = [pair for pair in pairs if pair[0] != pair[1]]
        pairs = sorted(wrong, key=lambda pair: (pair[2].n < _LEAST, -pair[2].value))[:_PAIRS]
    measurements = [
        measured("confusion.rate", estimate, {"from": names[i], "to": names[j]}, least=_LEAST)
        for i, j, estimate in pairs
    ]
    strongest = found.strongest(least=_LEAST)
    note = "no image was predicted wrongly" if strongest is None else ""
    if strongest is not None:
        note = f"{names[strongest[0]]} → {names[strongest[1]]}"
    estimate = None if strongest is None else strongest[2]
    return [*measurements, measured("confusion.strongest_pair", estimate, least=_LEAST, note=note)]
