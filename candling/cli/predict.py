"""`candling predict`: what a model makes of one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from candling.cli.options import Debug
from candling.cli.output import emit
from candling.cli.sources import (
    AsJson,
    ClassesOption,
    HeadOption,
    ImageSize,
    Model,
    PreprocessingOption,
    WeightsOption,
    open_model,
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def predict(
    model: Model,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes to print.")] = 5,
    weights: WeightsOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
    head: HeadOption = "auto",
    image_size: ImageSize = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the most probable classes for a picture."""
    said = {"weights": weights, "classes": classes, "preprocessing": preprocessing, "head": head}
    opened = open_model("predict", model, image_size, **said)
    from candling.models import predict as ranking

    ranked = ranking(opened.model, image)
    if as_json:
        rows = [{"class": name, "probability": probability} for name, probability in ranked[:top]]
        told = {"model": opened.digest, "classes": rows}
        emit(json.dumps(told, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return

    from candling.report.text import clean

    emit("".join(f"{probability:.4f}  {clean(name)}\n" for name, probability in ranked[:top]))
