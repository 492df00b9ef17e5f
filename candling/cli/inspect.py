"""`candling inspect`: what a model is, layer by layer, before anything is asked of it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width
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


def _render(rows: Sequence[Any], facts: Mapping[str, str], *, terminal: bool, width: int) -> str:
    """Layers as a table, then what is known of the whole model, one line each."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from candling.report.text import clean

    buffer = io.StringIO()
    colours: Literal["auto"] | None = "auto" if terminal else None
    console = Console(
        file=buffer, force_terminal=terminal, width=width, color_system=colours, highlight=False
    )
    if rows:
        table = Table(box=box.SIMPLE if terminal else None, pad_edge=False, show_edge=False)
        columns: dict[str, Literal["left", "right"]] = {
            "layer": "left", "kind": "left", "output": "left", "parameters": "right",
        }  # fmt: skip
        for name, justify in columns.items():
            table.add_column(name, justify=justify, overflow="fold")
        for row in rows:
            shape = "–" if row.output_shape is None else "×".join(str(side) for side in row.output_shape)
            cells = (row.name, row.kind, shape, f"{row.parameters:,}")
            table.add_row(*(Text(clean(cell)) for cell in cells))
        console.print(table)
        console.print()
    for key, value in facts.items():
        # Not folded: a digest or a note in a log is one line.
        console.print(Text(f"{key + ':':<15}{clean(value)}"), soft_wrap=not terminal)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _told(row: Any) -> dict[str, object]:
    shape = None if row.output_shape is None else list(row.output_shape)
    return {"layer": row.name, "kind": row.kind, "output": shape, "parameters": row.parameters}


@app.command()
def inspect(
    model: Model,
    weights: WeightsOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
    head: HeadOption = "auto",
    image_size: ImageSize = None,
    depth: Annotated[int, typer.Option("--depth", min=1, help="How many levels of layers to print.")] = 2,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print a model's layers with their shapes, its head, preprocessing and digest."""
    said = {"weights": weights, "classes": classes, "preprocessing": preprocessing, "head": head}
    opened = open_model("inspect", model, image_size, **said)
    from candling.models import describe, layers

    facts = describe(opened.model)
    rows: list[Any] = []
    if opened.model.differentiable:
        found = layers(opened.model, opened.model.spec.image_size)
        rows = [row for row in found if row.name.count(".") < depth]
    else:
        facts = {"layers": "not visible in a black box", **facts}
    if as_json:
        told = {"digest": opened.digest, "facts": facts, "layers": [_told(row) for row in rows]}
        emit(json.dumps(told, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return
    emit(_render(rows, {**facts, "digest": opened.digest}, terminal=is_terminal(), width=width()))
