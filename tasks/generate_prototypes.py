"""Step: generate the prototypes of every class."""

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

__all__ = ["generate"]


@task(name="generate prototypes")
def generate(context: Context, subject: Subject) -> Stored:
    """Prototypes with their probability under unseen transforms and their likeness to the object."""
    data, settings = context.params.data, context.params.prototypes

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import numpy as np
        import torch
        from safetensors.torch import save_file

        from candling.statistics import bootstrap, mean
        from candling.vision.prototypes import (
            PrototypeSettings,
            fit_prior,
            generate_prototypes,
            object_similarity,
        )
        from tasks.measuring import measurement, picture

        pictures = context.dataset.read(data.eval)
        engine = PrototypeSettings(**settings.model_dump(exclude_none=True))
        found = generate_prototypes(
            model,
            range(len(data.classes)),
            fit_prior(pictures.images, pictures.clean),
            settings=engine,
            progress=tick,
        )
        measurements, artifacts = [], []
        for k, name in enumerate(data.classes):
            rows = torch.nonzero(found.classes == k).flatten()
            scope = {"class": name}
            unseen = found.probability[rows].mean(1).double().numpy()
            measurements.append(measurement("prototype.probability_unseen_transforms", mean(unseen), scope))
            alike = torch.full((len(rows),), torch.nan)
            own = torch.nonzero(pictures.labels == k).flatten()
            if pictures.clean is not None and len(own):
                alike = object_similarity(
                    model, found.images[rows], pictures.images[own], pictures.clean[own]
                )
                measurements.append(
                    measurement(
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
                        f"pictures/prototypes/{k}-{seed}.png",
                        found.images[row],
                        section="prototypes",
                        scope={"class": name, "seed": str(seed)},
                        caption=f"prototype of {name}, seed {seed}",
                        values=values,
                    )  # fmt: skip
                )
        save_file({"logits": found.logits, "classes": found.classes}, out / "prototypes.safetensors")
        notes = {"prototypes.seeds": f"{engine.seeds} seeds a class, {engine.steps} steps"}
        write_findings(out, measurements, artifacts, notes)

    return examine(
        context, "generate prototypes", subject, [data.eval], look,
        module=__name__, settings=settings.model_dump(),
    )  # fmt: skip
