"""What commands that take any model share: the options that describe it, and opening it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from candling.errors import CandlingError, ParamsError

__all__ = ["ClassesOption", "HeadOption", "ImageSize", "Model", "Opened", "PreprocessingOption",
           "WeightsOption", "open_model"]  # fmt: skip

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model's folder, torchvision:NAME@WEIGHTS, timm:NAME@WEIGHTS, transformers:FOLDER, "
        "factory:MODULE:FUNCTION@WEIGHTS, onnx:FILE or an http address.",
    ),
]
WeightsOption = Annotated[str | None, typer.Option("--weights", help="Weights, in place of those after @.")]
ClassesOption = Annotated[str | None, typer.Option("--classes", help="JSON list of the names of classes.")]
PreprocessingOption = Annotated[
    str | None, typer.Option("--preprocessing", help="JSON of resize, center_crop, mean and std.")
]
HeadOption = Annotated[
    str, typer.Option("--head", help="auto, softmax, binary (one output) or multilabel (sigmoids).")
]
ImageSize = Annotated[str | None, typer.Option("--image-size", help="224, or HEIGHTxWIDTH, in pixels.")]


@dataclass(frozen=True)
class Opened:
    """A `candling.models.Classifier`, which only a command that runs may import, and its digest."""

    model: Any
    digest: str


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ParamsError(f"--image-size {text!r}: write 224 or 224x320")
    return int(sides[0]), int(sides[-1])


@contextmanager
def open_model(command: str, text: str, image_size: str | None = None, **said: Any) -> Iterator[Opened]:
    """The model that `text` names, imported into a folder that is gone afterwards.

    Parameters
    ----------
    command
        Who asks, for the error when the engine is not installed.
    image_size, said
        Options; `said` by the names of the fields of `ModelSource`.

    Raises
    ------
    CandlingError
        If the engine is not installed.
    ModelError
        If the model cannot be imported.
    """
    try:
        from candling import models
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "candling":
            raise
        message = f"{command} needs {error.name}; install it with `pip install 'candling[engine]'`"
        raise CandlingError(message) from error
    from dataclasses import replace

    fields = {key: value for key, value in said.items() if value is not None}
    source = replace(models.ModelSource.parse(text), image_size=_size(image_size), **fields)
    if source == models.ModelSource("folder", text) and not (Path(text) / "config.json").is_file():
        folder = Path(text)
        if not folder.is_dir() or (folder / "spec.json").is_file():
            # One of ours needs no import, and one that is not there says so.
            yield Opened(models.load_model(folder), models.model_digest(folder))
            return
    with tempfile.TemporaryDirectory(prefix="candling-") as made:
        folder = Path(made) / "model"
        models.import_model(source, folder)
        yield Opened(models.load_model(folder), models.model_digest(folder))
