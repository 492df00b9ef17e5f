"""`candling visualize`: pictures that excite a layer, a channel, a neuron, a token, or a sum of these."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from candling.cli.climbing import make
from candling.cli.options import Debug
from candling.cli.sources import (
    AsJson,
    ClassesOption,
    Diversity,
    HeadOption,
    ImageSize,
    Model,
    Out,
    ParameterisationOption,
    PreprocessingOption,
    RobustnessOption,
    Seeds,
    SizeOption,
    StartOption,
    Steps,
    WeightsOption,
    open_model,
    read_size,
    read_start,
)
from candling.errors import ParamsError

if TYPE_CHECKING:
    from candling.vision.advance import Advance
    from candling.vision.results import Visualizations

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _parts(
    layer: str | None, channels: Sequence[int], neurons: Sequence[str], tokens: Sequence[str]
) -> list[str]:
    """Texts of the objectives within a layer; the layer itself where none of its parts is asked for."""
    if layer is None:
        if channels or neurons or tokens:
            raise ParamsError("--channel, --neuron and --token are parts of a layer; name it with --layer")
        return []
    texts = [f"{layer}.channel[{channel}]" for channel in channels]
    for text in neurons:
        if not re.fullmatch(r"\d+(,\d+,\d+)?", text):
            raise ParamsError(f"--neuron {text!r}: write CHANNEL for the middle, or CHANNEL,Y,X")
        texts.append(f"{layer}.neuron[{text}]")
    for text in tokens:
        if not re.fullmatch(r"\d+(,\d+)?", text):
            raise ParamsError(f"--token {text!r}: write TOKEN for all of its units, or TOKEN,UNIT")
        token, _, unit = text.partition(",")
        texts.append(f"{layer}.token[{token}]" + (f".unit[{unit}]" if unit else ""))
    return texts or [layer]


@app.command()
def visualize(
    model: Model,
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="NAME", help="As `candling inspect MODEL --depth 9` lists them."),
    ] = None,
    channel: Annotated[
        list[int] | None, typer.Option("--channel", min=0, help="Of the layer; may be repeated.")
    ] = None,
    neuron: Annotated[
        list[str] | None,
        typer.Option(
            "--neuron", metavar="C[,Y,X]", help="A channel of the layer at one place, or the middle."
        ),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option("--token", metavar="T[,UNIT]", help="A token of the layer, or one unit of it."),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option("--objective", metavar="TEXT", help="Such as 'logit[zebra] - 0.5*features.14'."),
    ] = None,
    negative: Annotated[
        bool, typer.Option("--negative", help="What excites them the least, in place of the most.")
    ] = False,
    seeds: Seeds = None,
    steps: Steps = None,
    size: SizeOption = None,
    robustness: RobustnessOption = None,
    diversity: Diversity = None,
    parameterisation: ParameterisationOption = None,
    start: StartOption = None,
    out: Out = None,
    as_json: AsJson = False,
    weights: WeightsOption = None,
    classes: ClassesOption = None,
    preprocessing: PreprocessingOption = None,
    head: HeadOption = "auto",
    image_size: ImageSize = None,
    debug: Debug = False,
) -> None:
    """Make pictures that excite a layer, a channel, a neuron or a token the most.

    Writes them into the folder `visualizations` unless --out names another. Interrupted, the same command
    goes on.
    """
    said = {"weights": weights, "classes": classes, "preprocessing": preprocessing, "head": head}
    texts = [*_parts(layer, channel or (), neuron or (), token or ()), *(objective or ())]
    if not texts:
        raise ParamsError("there is nothing to visualize; name a --layer or an --objective")
    sides = read_size("--size", size)
    opened = open_model("visualize", model, image_size, **said)
    begin = read_start(start)
    from candling.vision.objectives import parse
    from candling.vision.visualization import visualize as visualized

    wanted = [parse(text, opened.model.classes) for text in texts]

    def climb(rows: Path, tell: Callable[[Advance], None]) -> Visualizations:
        return visualized(
            opened.model,
            [-one if negative else one for one in wanted],
            seeds=seeds,
            steps=steps,
            size=sides,
            start=begin,
            folder=rows,
            progress=tell,
            robustness=robustness,
            diversity=diversity,
            parameterisation=parameterisation,
        )

    columns = {"objective": "{}", "seed": "{}", "steps": "{}", "value": "{:.4g}"}
    make(climb, "visualizations", out, digest=opened.digest, columns=columns, as_json=as_json)
