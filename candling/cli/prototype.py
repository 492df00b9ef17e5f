"""`candling prototype`: pictures that maximise a class, and how much each is to be believed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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


def _pictures(model: Any, location: Path, size: tuple[int, int] | None) -> Any:
    """Pictures with labels at a size, the model's by default, and on stderr what became of them."""
    from candling.data import DataSource, import_pictures, read_source, read_split
    from candling.models import Classifier

    if size is not None:
        model = Classifier(model.network, model.spec.at(size))
    with tempfile.TemporaryDirectory(prefix="candling-") as made:
        samples = read_source(DataSource(location))
        report = import_pictures(samples, model.classes, model.prepare, Path(made), "pictures")
        for sentence in report.sentences():
            print(f"pictures: {sentence}", file=sys.stderr)
        return read_split(Path(made), "pictures", model.classes)


@app.command()
def prototype(
    model: Model,
    only: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="A class by name or number; may be repeated."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All classes.")] = False,
    seeds: Seeds = None,
    steps: Steps = None,
    size: SizeOption = None,
    robustness: RobustnessOption = None,
    diversity: Diversity = None,
    parameterisation: ParameterisationOption = None,
    start: StartOption = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--pictures", metavar="FOLDER", help="Natural pictures with labels, for path similarity."
        ),
    ] = None,
    second: Annotated[
        str | None,
        typer.Option("--second", metavar="MODEL", help="A model with the same classes, for transfer."),
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
    """Make prototypes: pictures that maximise a class, each with the trust that it deserves.

    Writes them into the folder `prototypes` unless --out names another. Interrupted, the same command
    goes on.
    """
    said = {"weights": weights, "classes": classes, "preprocessing": preprocessing, "head": head}
    if every == bool(only):
        raise ParamsError("name classes with --class, or all of them with --all; one of the two")
    sides = read_size("--size", size)
    opened = open_model("prototype", model, image_size, **said)
    begin = read_start(start)
    from candling.vision.visualization import prototypes

    natural = None if pictures is None else _pictures(opened.model, pictures, sides)
    other = None if second is None else open_model("prototype", second).model

    def climb(rows: Path, tell: Callable[[Advance], None]) -> Visualizations:
        return prototypes(
            opened.model,
            only or None,
            seeds=seeds,
            steps=steps,
            size=sides,
            pictures=natural,
            second=other,
            start=begin,
            folder=rows,
            progress=tell,
            robustness=robustness,
            diversity=diversity,
            parameterisation=parameterisation,
        )

    columns = {"name": "{}", "seed": "{}", "steps": "{}", "probability": "{:.3f}", "trust": "{:.2f}"}
    make(climb, "prototypes", out, digest=opened.digest, columns=columns, as_json=as_json)
