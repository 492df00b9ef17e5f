"""Step: take a model from wherever it is into the store, and see that it answers."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from tasks.context import Context, Tick, run_step
from tasks.tracking import download_model

if TYPE_CHECKING:
    from candling.models import ModelSource

__all__ = ["Subject", "load"]


@dataclass(frozen=True)
class Subject:
    """A model under audit: its name, its folder and the digest of its bytes."""

    name: str
    folder: Path
    digest: str


@task(name="load model")
def load(context: Context, name: str) -> Subject:
    """Import the model that params name, and let it answer a picture of noise.

    Raises
    ------
    CandlingError
        If the model cannot be read, does not fit its classes, or answers NaN.
    """
    from candling.models import downloaded, model_digest

    source = context.params.source()
    if source.source == "mlflow":
        source = downloaded(source, download_model(source.name, context.root))

    def compute(out: Path, tick: Tick) -> None:
        import torch

        from candling.models import import_model, load_model, logits

        import_model(source, out / "model", root=context.root)
        model = load_model(out / "model", root=context.root)
        noise = torch.rand(2, 3, *model.spec.image_size, generator=torch.Generator().manual_seed(0))
        logits(model, noise)

    # The folder is not part of the key: a model is what it is wherever it lies.
    said = asdict(source) | {"files": _files(source, context.root)}
    if source.source == "folder":
        said["name"] = ""
    stored = run_step(context, "load model", name, {"model": said}, compute, module=__name__)
    folder = stored.path / "model"
    return Subject(name, folder, model_digest(folder))


def _files(source: ModelSource, root: Path) -> dict[str, str]:
    """Sha256 of every local file that the source names."""
    found: dict[str, str] = {}
    named = {"name": source.name, "weights": source.weights, "classes": source.classes,
             "preprocessing": source.preprocessing}  # fmt: skip
    for role, value in named.items():
        path = root / value if isinstance(value, str) and "://" not in value else None
        if path is None or not path.exists():
            continue
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        for file in files:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            inside = "" if path.is_file() else file.relative_to(path).as_posix()
            found[f"{role} {inside}".strip()] = digest
    return found
