"""`candling trick`: a picture changed so little that nobody sees it, and taken for another class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

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

_NAME = "trick"


@app.command()
def trick(
    model: Model,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")],
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="NAME", help="A class by name or number; any other if not said."),
    ] = None,
    norm: Annotated[
        str,
        typer.Option(
            "--norm",
            metavar="NAME",
            help="linf: the largest change; l2: all of it.",
            autocompletion=among("linf", "l2"),
        ),
    ] = "linf",
    epsilon: Annotated[
        float | None,
        typer.Option("--epsilon", help="How far pixels in [0, 1] may change; the smallest that is enough."),
    ] = None,
    probability: Annotated[float, typer.Option("--probability", help="That the target must reach.")] = 0.99,
    steps: Annotated[int, typer.Option("--steps", help="Of each walk.")] = 40,
    restarts: Annotated[int, typer.Option("--restarts", help="Walks from random points that follow.")] = 0,
    out: Out = None,
    as_json: AsJson = False,
    weights: WeightsOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
    head: HeadOption = "auto",
    image_size: ImageSize = None,
    debug: Debug = False,
) -> None:
    """Change a picture by as little as can be, so that the model takes it for another class.

    Writes original, noise and result into the folder `trick` unless --out names another.
    """
    said = {"weights": weights, "classes": classes, "preprocessing": preprocessing, "head": head}
    opened = open_model("trick", model, image_size, **said)
    from candling.vision import gallery
    from candling.vision.tricking import trick as tricked

    folder = Path(_NAME) if out is None else out
    gallery.check_place(folder, _NAME)
    with Progress() as progress:
        progress.start(_NAME, "", None)
        found = tricked(
            opened.model,
            image,
            target,
            norm=cast(Literal["linf", "l2"], norm),
            epsilon=epsilon,
            probability=probability,
            steps=steps,
            restarts=restarts,
        )
        found.save(folder)
        progress.finish(_NAME, "", hit=False)
    table: list[dict[Any, Any]] = found.table.to_dict("records")
    facts = {
        "target": found.target,
        "done": found.done,
        "norm": found.norm,
        "epsilon": found.epsilon,
        "distance": found.distance,
        "evaluations": found.evaluations,
    }
    if as_json:
        told = {
            "model": opened.digest,
            "folder": str(folder),
            **facts,
            "notes": list(found.notes),
            _NAME: [{key: plain(value) for key, value in row.items()} for row in table],
        }
        emit(json.dumps(told, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return
    columns = {
        "picture": "{}", "predicted": "{}", "probability": "{:.3f}", "from_probability": "{:.3f}",
        "to_probability": "{:.3f}",
    }  # fmt: skip
    sentences = [
        f"{found.norm} {found.distance:.4f} of {found.epsilon:.4f} allowed, {found.evaluations} evaluations",
        *found.notes,
        f"contact sheet: {folder / f'{_NAME}.png'}",
    ]
    emit(render(table, columns, sentences, terminal=is_terminal(), width=width()))
