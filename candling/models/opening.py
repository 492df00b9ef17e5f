"""Opening a model for one look: whatever form it comes in, nothing of it is left on the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

from candling.digests import model_digest
from candling.models.classifier import Classifier
from candling.models.importing import import_model
from candling.models.source import ModelSource
from candling.models.storage import load_model

__all__ = ["open_model"]


def open_model(source: ModelSource | str | Path) -> tuple[Classifier, str]:
    """The model that a source names, and its digest.

    Parameters
    ----------
    source
        A `ModelSource`, its short form as text (see `ModelSource.parse`), or the path of a folder.

    Raises
    ------
    ParamsError
        If the text is of no known form.
    ModelError
        If the model cannot be read, or is not a classifier of images.
    """
    if not isinstance(source, ModelSource):
        source = ModelSource.parse(str(source))
    folder = Path(source.name)
    alone = source == ModelSource("folder", source.name) and not (folder / "config.json").is_file()
    if alone and (not folder.exists() or (folder / "spec.json").is_file()):
        # One of ours needs no import, and one that is not there says so.
        return load_model(folder), model_digest(folder)
    with tempfile.TemporaryDirectory(prefix="candling-") as made:
        folder = Path(made) / "model"
        import_model(source, folder)
        return load_model(folder), model_digest(folder)
