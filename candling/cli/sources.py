"""What commands that take any model share: options that describe it and how it is climbed, and opening it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from candling.cli.completing import among, model_folders
from candling.errors import CandlingError, DataError, ParamsError

__all__ = [
    "AsJson",
    "ClassesOption",
    "Diversity",
    "HeadOption",
    "ImageSize",
    "Model",
    "Opened",
    "Out",
    "ParameterisationOption",
    "PreprocessingOption",
    "RobustnessOption",
    "Seeds",
    "SizeOption",
    "StartOption",
    "Steps",
    "WeightsOption",
    "open_model",
    "read_size",
    "read_start",
]

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model's folder, torchvision:NAME@WEIGHTS, timm:NAME@WEIGHTS, transformers:FOLDER, "
        "factory:MODULE:FUNCTION@WEIGHTS, onnx:FILE or an http address.",
        autocompletion=model_folders,
    ),
]
WeightsOption = Annotated[str | None, typer.Option("--weights", help="Weights, in place of those after @.")]
ClassesOption = Annotated[str | None, typer.Option("--classes", help="JSON list of the names of classes.")]
PreprocessingOption = Annotated[
    str | None, typer.Option("--preprocessing", help="JSON of resize, center_crop, mean and std.")
]
HeadOption = Annotated[
    str,
    typer.Option(
        "--head",
        help="auto, softmax, binary (one output) or multilabel (sigmoids).",
        autocompletion=among("auto", "softmax", "binary", "multilabel"),
    ),
]
ImageSize = Annotated[str | None, typer.Option("--image-size", help="224, or HEIGHTxWIDTH, in pixels.")]

SizeOption = Annotated[
    str | None,
    typer.Option("--size", help="224, or HEIGHTxWIDTH, of the pictures to be made; the model's if not said."),
]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="How many pictures of each.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Steps that each picture climbs.")]
RobustnessOption = Annotated[
    str | None,
    typer.Option(
        "--robustness",
        metavar="NAME",
        help="none, s, m, l or xl: how far it is moved.",
        autocompletion=among("none", "s", "m", "l", "xl"),
    ),
]
Diversity = Annotated[
    float | None,
    typer.Option("--diversity", min=0.0, help="How strongly seeds are pushed apart, such as 0.5."),
]
ParameterisationOption = Annotated[
    str | None,
    typer.Option(
        "--parameterisation",
        metavar="NAME",
        help="fourier, maco or pixels.",
        autocompletion=among("fourier", "maco", "pixels"),
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start",
        metavar="PICTURE|equidistant",
        help="A picture, or the one that is of no class more than of another, in place of noise.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="Where to write PNG, Parquet and contact sheet; replaces an earlier one.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the table as JSON, and nothing else.")]


@dataclass(frozen=True)
class Opened:
    """A `candling.models.Classifier`, which only a command that runs may import, and its digest."""

    model: Any
    digest: str


def read_size(option: str, text: str | None) -> tuple[int, int] | None:
    """Height and width, as an option says them; ParamsError if it is not understood."""
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ParamsError(f"{option} {text!r}: write 224 or 224x320")
    return int(sides[0]), int(sides[-1])


def read_start(text: str | None) -> Any:
    """What rows start from, as --start says it: a picture (3, H, W) uint8, the word, or None.

    Raises
    ------
    DataError
        If it is no picture.
    """
    if text is None or text == "equidistant":
        return text
    from candling.data import read_picture

    try:
        return read_picture(Path(text))
    except DataError as error:
        raise DataError(f"--start {error}; name a picture's file, or say equidistant") from error


def open_model(command: str, text: str, image_size: str | None = None, **said: Any) -> Opened:
    """The model that `text` names.

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

    fields = {key: value for key, value in said.items() if value is not None}
    source = replace(
        models.ModelSource.parse(text), image_size=read_size("--image-size", image_size), **fields
    )
    return Opened(*models.open_model(source))
