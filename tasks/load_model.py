"""Step: take a model from wherever it is into the store, and see that it answers."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.digests import digest_of
from candling.errors import CandlingError
from tasks.context import Context, Tick, run_step
from tasks.tracking import download_model

if TYPE_CHECKING:
    from candling.models import Classifier

__all__ = ["Subject", "brought", "load"]


@dataclass(frozen=True)
class Subject:
    """A model under audit: its name, its folder and the digest of its bytes.

    answers: of a model behind an address, whose bytes are not to be had, the digest of what it says of noise.
    notes: what was detected or assumed of it. weights: the digest of the file that they came in, if any.
    """

    name: str
    folder: Path
    digest: str
    answers: str = ""
    notes: tuple[str, ...] = ()
    weights: str = ""


@task(name="load model")
def load(context: Context, name: str) -> Subject:
    """Import the model that params name, and let it answer a picture of noise.

    Raises
    ------
    CandlingError
        If the model cannot be read, does not fit its classes, or answers NaN.
    """
    from candling.models import load_model, model_digest, read_spec

    with tempfile.TemporaryDirectory(prefix="candling-") as folder:
        # Imported every time: what a source names (shards, a hub's revision, a factory's imports) is known
        # only then, and a key made of less would find old models.
        made = _imported(context, Path(folder))
        digest = model_digest(made)

        def compute(out: Path, tick: Tick) -> None:
            _answers(load_model(made, root=context.root))
            shutil.copytree(made, out / "model")

        stored = run_step(context, "load model", name, {"model": digest}, compute, module=__name__)
        behind = context.params.source().source == "http"
        model = load_model(made, root=context.root) if behind else None
        answers = "" if model is None else _answers(model)
    out = stored.path / "model"
    return Subject(name, out, digest, answers, read_spec(out).notes, _weights(context))


def _weights(context: Context) -> str:
    """The digest of the file that the weights came in, by which the gate knows them, too."""
    source = context.params.source()
    place = source.weights or (source.name if source.source == "onnx" else None)
    file = context.root / place if place else None
    return digest_of(file) if file is not None and file.is_file() else ""


@contextmanager
def brought(context: Context) -> Iterator[Classifier | None]:
    """The model that params name, for a look at it before the audit; None where it cannot be loaded."""
    from candling.models import load_model

    with tempfile.TemporaryDirectory(prefix="candling-") as folder:
        try:
            model: Classifier | None = load_model(_imported(context, Path(folder)), root=context.root)
        except CandlingError:
            model = None
        yield model


def _imported(context: Context, folder: Path) -> Path:
    """The model that params name, in candling's own form within `folder`."""
    from candling.models import downloaded, import_model

    source, made = context.params.source(), folder / "model"
    if source.source == "mlflow":
        source = downloaded(source, download_model(source.name, context.root, folder / "mlflow"))
    import_model(source, made, root=context.root)
    return made


def _answers(model: Classifier) -> str:
    """Digest of the logits of a picture of noise, to three digits."""
    import torch

    from candling.models import logits

    noise = torch.rand(2, 3, *model.spec.image_size, generator=torch.Generator().manual_seed(0))
    rounded = [round(value, 3) for value in logits(model, noise).flatten().tolist()]
    return hashlib.sha256(str(rounded).encode()).hexdigest()
