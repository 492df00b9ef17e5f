"""`candling predict`: what a model makes of one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from candling.cli.options import Debug
from candling.cli.output import emit
from candling.errors import CandlingError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder with model.safetensors and spec.json.")
    ],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes to print.")] = 5,
    debug: Debug = False,
) -> None:
    """Print the softmax top classes for a picture."""
    try:
        from candling import models
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "candling":
            raise
        message = f"predict needs {error.name}; install it with `pip install 'candling[engine]'`"
        raise CandlingError(message) from error
    ranked = models.predict(models.load_model(model), image)

    from candling.report.terminal import clean

    emit("".join(f"{probability:.4f}  {clean(name)}\n" for name, probability in ranked[:top]))
