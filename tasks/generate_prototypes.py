"""Step: generate the prototypes of every class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import measured
from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.load_model import Subject
from tasks.params import PrototypeParams
from tasks.store import Stored

if TYPE_CHECKING:
    from candling.data import Pictures
    from candling.models import Classifier
    from candling.vision.prototypes import Climb

__all__ = ["generate", "left_out", "prototype_settings"]


def prototype_settings(params: PrototypeParams) -> Climb:
    """Those of the parameterisation, but for what is given."""
    from candling.vision.prototypes import FOURIER, MACO

    usual = MACO if params.parameterisation == "maco" else FOURIER
    return replace(usual, **params.model_dump(exclude_none=True))


def left_out(pictures: Pictures, *, differentiable: bool) -> dict[str, str]:
    """Notes on what such pictures, and a model with gradients or none, do not tell."""
    if not differentiable:
        return {
            "left_out.prototypes": (
                "Prototypes are climbed by gradients, which a black box does not give; "
                "the model's weights would add them."
            )
        }
    if pictures.clean is None:
        return {
            "left_out.prototype_similarity": (
                "Whether prototypes show the object or its background is not measured; the same pictures "
                "without their objects (a column `clean`) would add that."
            )
        }
    return {}


@task(name="generate prototypes")
def generate(context: Context, subject: Subject) -> Stored:
    """Prototypes with their probability under unseen transforms and their likeness to the object."""
    dataset, settings = context.dataset, context.params.prototypes

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import numpy as np
        import torch
        from safetensors.torch import save_file

        from candling.models import check_differentiable
        from candling.statistics import bootstrap, mean
        from candling.vision.prototypes import fit_prior, generate_prototypes, object_similarity
        from tasks.artifacts import picture

        pictures = dataset.read("eval")
        notes = left_out(pictures, differentiable=model.differentiable)
        if not model.differentiable:
            save_file({"classes": torch.empty(0, dtype=torch.long)}, out / "prototypes.safetensors")
            write_findings(out, [], notes=notes)
            return
        # A gradient of zeros, as behind a rounding, would be climbed without a word and to no end.
        check_differentiable(model, model.spec.image_size)
        engine = prototype_settings(settings)
        found = generate_prototypes(
            model, dataset.audited, fit_prior(pictures.images, pictures.clean), settings=engine, progress=tick
        )
        measurements, artifacts = [], []
        for k in dataset.audited:
            name = dataset.classes[k]
            rows = torch.nonzero(found.classes == k).flatten()
            scope = {"class": name}
            unseen = found.probability[rows].mean(1).double().numpy()
            measurements.append(measured("prototype.probability_unseen_transforms", mean(unseen), scope))
            alike = torch.full((len(rows),), torch.nan)
            own = torch.nonzero(pictures.labels == k).flatten()
            if pictures.clean is not None and len(own):
                alike = object_similarity(
                    model, found.images[rows], pictures.images[own], pictures.clean[own]
                )
                measurements.append(
                    measured(
                        "prototype.object_similarity",
                        bootstrap(lambda sample: np.median(sample, 1), alike.double().numpy()),
                        scope,
                    )
                )
            for row, likeness in zip(rows.tolist(), alike.tolist(), strict=True):
                seed = int(found.seeds[row])
                values = {"probability": float(found.probability[row].mean())}
                if likeness == likeness:
                    values["object_similarity"] = likeness
                artifacts.append(
                    picture(
                        out,
                        f"pictures/prototypes/{k}-{seed}",
                        found.images[row],
                        section="prototypes",
                        scope={"class": name, "seed": str(seed)},
                        caption=f"seed {seed}",
                        values=values,
                    )  # fmt: skip
                )
        save_file({"logits": found.logits, "classes": found.classes}, out / "prototypes.safetensors")
        notes["prototypes.seeds"] = f"{engine.seeds} seeds a class, {engine.steps} steps"
        write_findings(out, measurements, artifacts, notes)

    return examine(
        context, "generate prototypes", subject, ["eval"], look,
        module=__name__, settings=settings.model_dump(),
    )  # fmt: skip
