"""`candling isolate`: which parts of pictures speak for a class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from candling.cli.climbing import plain, render
from candling.cli.completing import among
from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width
from candling.cli.progress import Progress
from candling.cli.sources import (
    AsJson,
    ClassesOption,
    HeadOption,
    ImageSize,
    Model,
    Out,
    PreprocessingOption,
    WeightsOption,
    open_model,
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_NAME = "isolations"


@app.command()
def isolate(
    model: Model,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures.")],
    only: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="A class to look for; may be repeated."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="hierarchical, mask, windows, integrated-gradients, grad-cam or attention.",
            autocompletion=among(
                "hierarchical", "mask", "windows", "integrated-gradients", "grad-cam", "attention"
            ),
        ),
    ] = "hierarchical",
    top: Annotated[
        int | None,
        typer.Option("--top", min=0, help="How many more of the likeliest classes; 3, or 0 with --class."),
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
    weights: WeightsOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
    head: HeadOption = "auto",
    image_size: ImageSize = None,
    debug: Debug = False,
) -> None:
    """Show which parts of pictures speak for a class, and how faithful each map is.

    Writes them into the folder `isolations` unless --out names another.
    """
    said = {"weights": weights, "classes": classes, "preprocessing": preprocessing, "head": head}
    opened = open_model("isolate", model, image_size, **said)
    from candling.vision import gallery
    from candling.vision.isolations import isolate as of_pictures

    folder = Path(_NAME) if out is None else out
    gallery.check_place(folder, _NAME)
    with Progress() as progress:
        progress.start(_NAME, "", len(images))
        found = of_pictures(
            opened.model,
            images,
            only or None,
            method=method,
            top=top if top is not None else 0 if only else 3,
            progress=lambda done, of: progress.advance(_NAME, "", done, of),
        )
        found.save(folder)
        progress.finish(_NAME, "", hit=False)
    table: list[dict[Any, Any]] = found.table.to_dict("records")
    if as_json:
        told = {
            "model": opened.digest,
            "folder": str(folder),
            "method": repr(found.found.method),
            "evaluations": found.found.evaluations,
            "notes": list(found.notes),
            _NAME: [{key: plain(value) for key, value in row.items()} for row in table],
        }
        emit(json.dumps(told, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return
    columns = {"image": "{}", "name": "{}", "probability": "{:.3f}", "insertion_minus_deletion": "{:.3f}"}
    facts = [*found.notes, f"contact sheet: {folder / f'{_NAME}.png'}"]
    emit(render(table, columns, facts, terminal=is_terminal(), width=width()))
