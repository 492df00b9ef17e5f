"""Step: take a model into the store, and see that it answers."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from prefect import task

from candling.errors import ModelError
from tasks.context import Context, Tick, run_step

__all__ = ["Subject", "load"]


@dataclass(frozen=True)
class Subject:
    """A model under audit: its name, its folder and the digest of its bytes."""

    name: str
    folder: Path
    digest: str


@task(name="load model")
def load(context: Context, name: str, folder: Path) -> Subject:
    """Check the model in `folder` against the audit's classes and on real pictures."""
    from candling.models import model_digest

    digest = model_digest(folder)

    def compute(out: Path, tick: Tick) -> None:
        from candling.models import load_model, logits

        model = load_model(folder)
        if model.classes != context.params.data.classes:
            raise ModelError(
                f"{folder}: the model's classes {model.classes} are not those of the audit, "
                f"{context.params.data.classes}"
            )
        pictures = context.dataset.read(context.params.data.eval)
        if pictures.images.shape[2:] != model.spec.image_size:
            raise ModelError(
                f"{folder}: the model takes {model.spec.image_size} pixels, "
                f"the pictures of {context.params.data.eval!r} are {tuple(pictures.images.shape[2:])}"
            )
        logits(model, pictures.images[:64])
        shutil.copytree(folder, out / "model")

    inputs = {"model": digest, "data": context.dataset.digests[context.params.data.eval],
              "eval": context.params.data.eval, "classes": context.params.data.classes}  # fmt: skip
    stored = run_step(context, "load model", name, inputs, compute, module=__name__)
    return Subject(name, stored.path / "model", digest)
