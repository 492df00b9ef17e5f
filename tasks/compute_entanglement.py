"""Step: compute the entanglement of every pair of classes from their prototypes."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from tasks.context import Context, Tick, run_step, write_findings
from tasks.load_model import Subject
from tasks.store import Stored

__all__ = ["compute_matrix"]


@task(name="compute entanglement")
def compute_matrix(context: Context, subject: Subject, prototypes: Stored) -> Stored:
    """The directed class × class matrix with intervals over seeds."""
    data = context.params.data

    def compute(out: Path, tick: Tick) -> None:
        from safetensors.torch import load_file

        from candling.data import read_split
        from candling.models import load_model, logits
        from candling.vision.entanglement import entanglement
        from tasks.measuring import measurement

        rows = load_file(prototypes.path / "prototypes.safetensors")
        natural = logits(load_model(subject.folder), read_split(context.data, data.eval, data.classes).images)
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

    inputs = {"model": subject.digest, "prototypes": prototypes.digest,
              "data": context.data_digests[data.eval], "eval": data.eval,
              "classes": data.classes}  # fmt: skip
    return run_step(context, "compute entanglement", subject.name, inputs, compute, module=__name__)
