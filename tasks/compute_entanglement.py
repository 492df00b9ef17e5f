"""Step: compute the entanglement of every pair of classes from their prototypes."""

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
    from candling.models import Classifier

__all__ = ["compute_matrix", "left_out"]


def left_out(*, prototypes: bool) -> dict[str, str]:
    """A note on what cannot be had without prototypes."""
    if prototypes:
        return {}
    return {"left_out.entanglement": "Entanglement is read off prototypes, of which there are none."}


@task(name="compute entanglement")
def compute_matrix(context: Context, subject: Subject, prototypes: Stored) -> Stored:
    """The directed class × class matrix of the audited classes, with intervals over seeds."""
    dataset = context.dataset

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        from safetensors.torch import load_file

        from candling.models import logits
        from candling.vision.entanglement import entanglement

        rows = load_file(prototypes.path / "prototypes.safetensors")
        notes = left_out(prototypes=len(rows["classes"]) > 0)
        if notes:
            (note,) = notes.values()
            write_findings(out, [measured("entanglement.strongest_pair", None, note=note)], notes=notes)
            return
        natural = logits(model, dataset.read("eval").images)
        found = entanglement(rows["logits"], rows["classes"], natural, classes=dataset.audited)
        names = dataset.names
        measurements = [
            measured("entanglement.directed", estimate, {"from": names[c], "to": names[k]})
            for c, row in enumerate(found.matrix)
            for k, estimate in enumerate(row)
            if c != k
        ]
        pair = found.strongest_pair()
        note = "" if pair is None else f"{names[pair[0]]} → {names[pair[1]]}"
        measurements.append(
            measured("entanglement.strongest_pair", None if pair is None else pair[2], note=note)
        )
        if len(dataset.classes) == 2:
            notes["entanglement.two_classes"] = (
                "With two classes what excites one inhibits the other: every entry is -1 by construction."
            )
        write_findings(out, measurements, notes=notes)

    return examine(
        context, "compute entanglement", subject, ["eval"], look,
        module=__name__, prototypes=prototypes.digest,
    )  # fmt: skip
