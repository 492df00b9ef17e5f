"""Step: generate the prototypes of every class."""

from __future__ import annotations

from collections.abc import Sequence
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
    from torch import Tensor

    from candling.data import Pictures
    from candling.models import Classifier
    from candling.vision.prototypes import Climb, Prototypes
    from candling.vision.trust import Trust

__all__ = ["generate", "left_out", "prototype_settings"]

# Components of trust: as a record calls them, and in words.
_MEASURED = {"agreement": "agreement", "path": "path_similarity"}
_IN_WORDS = {
    "unseen": "the probability under unseen transforms, over chance",
    "agreement": "the agreement over seeds",
    "path": "the path similarity",
}


def prototype_settings(params: PrototypeParams, seed: int) -> Climb:
    """Those of the parameterisation, but for what is given; another seed of the audit has other numbers."""
    from candling.vision.prototypes import FOURIER, MACO

    usual = MACO if params.parameterisation == "maco" else FOURIER
    engine = replace(usual, **params.model_dump(exclude_none=True))
    return replace(engine, first=seed * engine.seeds)


def left_out(
    pictures: Pictures, audited: Sequence[int], seeds: int, *, differentiable: bool
) -> dict[str, str]:
    """Notes on what such pictures, so many seeds, and a model with gradients or none do not tell."""
    from candling.vision.trust import FEWEST

    if not differentiable:
        return {
            "left_out.prototypes": (
                "Prototypes are climbed by gradients, which a black box does not give; "
                "the model's weights would add them."
            )
        }
    notes = {}
    if pictures.clean is None:
        notes["left_out.prototype_similarity"] = (
            "Whether prototypes show the object or its background is not measured; the same pictures "
            "without their objects (a column `clean`) would add that."
        )
    if seeds < 2 or len(audited) < 2:
        notes["left_out.prototype_agreement"] = (
            "Whether prototypes of a class agree is not measured; two seeds or more, of two classes or more, "
            "would add that."
        )
    labels = pictures.labels.tolist()
    enough = {k for k in set(labels) - {-1} if labels.count(k) >= FEWEST}
    known = len(enough & set(audited)) if len(enough) > 1 else 0
    if known < len(audited):
        for_some = f"only for {known} of {len(audited)} classes" if known else "for no class"
        notes["left_out.prototype_path_similarity"] = (
            "Whether the network works on prototypes as it works on photographs is known "
            f"{for_some}; {FEWEST} eval pictures of each class would add that."
        )
    return notes


@task(name="generate prototypes")
def generate(context: Context, subject: Subject) -> Stored:
    """Prototypes with their trust, what it is made of, and their likeness to the object."""
    dataset, settings = context.dataset, context.params.prototypes

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import numpy as np
        import torch
        from safetensors.torch import save_file

        from candling.models import check_differentiable
        from candling.statistics import bootstrap, mean, mean_over_pairs
        from candling.vision.prototypes import fit_prior, generate_prototypes, object_similarity
        from tasks.artifacts import picture

        pictures, engine = dataset.read("eval"), prototype_settings(settings, context.params.seed)
        notes = left_out(pictures, dataset.audited, engine.seeds, differentiable=model.differentiable)
        if not model.differentiable:
            save_file({"classes": torch.empty(0, dtype=torch.long)}, out / "prototypes.safetensors")
            write_findings(out, [], notes=notes)
            return
        # A gradient of zeros, as behind a rounding, would be climbed without a word and to no end.
        check_differentiable(model, model.spec.image_size)
        found = generate_prototypes(
            model, dataset.audited, fit_prior(pictures.images, pictures.clean), settings=engine, progress=tick
        )
        trust, more = _trust(model, found, pictures)
        notes |= more
        scores = {"trust": trust.score}
        scores |= {id: values for name, id in _MEASURED.items()
                   if (values := getattr(trust, name)) is not None}  # fmt: skip
        measurements, artifacts = [], []
        for k in dataset.audited:
            name = dataset.classes[k]
            rows = torch.nonzero(found.classes == k).flatten()
            scope = {"class": name}
            unseen = found.probability[rows].mean(1).double().numpy()
            measurements.append(measured("prototype.probability_unseen_transforms", mean(unseen), scope))
            for id, values in scores.items():
                if not values[rows].isnan().any():
                    own_values = values[rows].double().numpy()
                    # Seeds that agree share the pair in which they do.
                    estimate = mean_over_pairs(own_values) if id == "agreement" else mean(own_values)
                    if estimate is not None:
                        low, high = max(0.0, estimate.low), min(1.0, estimate.high)
                        estimate = estimate._replace(low=low, high=high)
                    note = "" if estimate else "whether seeds agree takes three of them"
                    measurements.append(measured(f"prototype.{id}", estimate, scope, note=note))
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
                shown = {id: float(values[row]) for id, values in scores.items()}
                shown |= {"probability": float(found.probability[row].mean()), "object_similarity": likeness}
                artifacts.append(
                    picture(
                        out,
                        f"pictures/prototypes/{k}-{seed}",
                        found.images[row],
                        section="prototypes",
                        scope={"class": name, "seed": str(seed)},
                        caption=f"seed {seed}",
                        values={id: value for id, value in shown.items() if value == value},
                    )  # fmt: skip
                )
        save_file({"logits": found.logits, "classes": found.classes}, out / "prototypes.safetensors")
        notes["prototypes.seeds"] = f"{engine.seeds} seeds a class, {engine.steps} steps"
        write_findings(out, measurements, artifacts, notes)

    return examine(
        context, "generate prototypes", subject, ["eval"], look,
        module=__name__, settings=settings.model_dump(),
    )  # fmt: skip


def _trust(model: Classifier, found: Prototypes, pictures: Pictures) -> tuple[Trust, dict[str, str]]:
    """Trust in each prototype, with notes on what it is made of and on what of it was not to be had."""
    from candling.errors import ModelError
    from candling.models import penultimate
    from candling.vision.trust import agreement, judge, path_pictures, path_similarity

    notes: dict[str, str] = {}
    agreed: Tensor | None = None
    if len(found.classes.unique()) > 1 and len(found.seeds.unique()) > 1:
        try:
            agreed = agreement(penultimate(model, found.images), found.classes)
        except ModelError as error:  # a network that has no such features can be audited all the same
            notes["left_out.prototype_agreement"] = f"Whether prototypes agree is not measured: {error}."
    path: Tensor | None = None
    labelled = pictures.labels >= 0
    images, labels = pictures.images[labelled], pictures.labels[labelled]
    if len(path_pictures(found.classes, labels)[0]):
        similar = path_similarity(model, found.images, found.classes, images, labels)
        path = None if similar.score.isnan().all() else similar.score
        if similar.reason and (path is None or not similar.speaks.any()):
            key = "left_out.prototype_path_similarity" if path is None else "prototypes.path_similarity"
            notes[key] = f"Path similarity: {similar.reason}."
    chance = 0.5 if model.head == "multilabel" else 1 / found.logits.shape[1]
    trust = judge(found.probability, chance=chance, agreement=agreed, path=path)
    parts = [_IN_WORDS[name] for name in trust.components]
    parts = parts if len(parts) == 1 else [", ".join(parts[:-1]), parts[-1]]
    whole = f"geometric mean of {' and '.join(parts)}" if len(parts) > 1 else parts[0]
    missing = "; where one is not measured, of the others" if path is not None and path.isnan().any() else ""
    notes["prototypes.trust"] = whole + missing
    return trust, notes
