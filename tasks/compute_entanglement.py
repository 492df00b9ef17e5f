"""Step: compute the entanglement of every pair of classes from their prototypes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.load_model import Subject
from tasks.store import Stored

if TYPE_CHECKING:
    from candling.models import Classifier

__all__ = ["compute_matrix"]


@task(name="compute entanglement")
def compute_matrix(context: Context, subject: Subject, prototypes: Stored) -> Stored:
    """The directed class × class matrix with intervals over seeds."""
    data = context.params.data

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        from safetensors.torch import load_file

        from candling.models import logits
        from candling.vision.entanglement import entanglement
        from tasks.measuring import measurement

        rows = load_file(prototypes.path / "prototypes.safetensors")
        natural = logits(model, context.dataset.read(data.eval).images)
        found = entanglement(rows["logits"], rows["classes"], natural)
        measurements = [
            measurement("entanglement.directed", estimate, {"from": data.classes[c], "to": data.classes[k]})
            for c, row in enumerate(found.matrix)
            for k, estimate in enumerate(row)
            if c != k
        ]
        pair = found.strongest_pair()
        note = "" if pair is None else f"{data.classes[pair[0]]} → {data.classes[pair[1]]}"
        measurements.append(
            measurement("entanglement.strongest_pair", None if pair is None else pair[2], note=note)
        )
        notes = {}
        if len(data.classes) == 2:
            notes["entanglement.two_classes"] = (
                "With two classes what excites one inhibits the other: every entry is -1 by construction."
            )
        write_findings(out, measurements, notes=notes)

    return examine(
        context, "compute entanglement", subject, [data.eval], look,
        module=__name__, prototypes=prototypes.digest,
    )  # fmt: skip
