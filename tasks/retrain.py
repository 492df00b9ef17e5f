"""Step: retrain a subject on other data; and the first training, which is a DVC stage of its own.

    python -m tasks.retrain params/tanks.yaml

trains the model of an audit that brings none (`train:` in its params) and writes it where `model:` says.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.errors import ParamsError
from tasks.context import Context, Tick, run_step
from tasks.load_model import Subject
from tasks.params import Params, ScheduleParams, read_params

if TYPE_CHECKING:
    from candling.data import Pictures

__all__ = ["retrain"]


def fit(
    params: Params,
    pictures: Pictures,
    schedule: ScheduleParams,
    start: Path | None,
    out: Path,
    tick: Tick,
) -> None:
    """Train on `pictures`, going on from the model in `start` or from fresh weights, and save to `out`."""
    from candling.models import ModelSpec, build_model, load_model, save_model
    from candling.vision.training import Schedule, train

    if start is not None:
        model = load_model(start)
    else:
        if params.train is None:
            raise ParamsError("training from scratch needs a `train:` section that describes the network")
        spec = ModelSpec(
            "residual_cnn", params.data.classes, params.train.image_size, dict(params.train.arguments)
        )
        model = build_model(spec, seed=params.seed)
    train(
        model,
        pictures.images,
        pictures.labels,
        Schedule(**schedule.model_dump(exclude_none=True)),
        seed=params.seed,
        progress=tick,
    )
    save_model(model, out)


@task(name="retrain")
def retrain(context: Context, name: str, split: str, start: Subject) -> Subject:
    """Make the subject `name` by training on `split` for as many steps as its siblings."""
    from candling.models import model_digest

    params = context.params
    if params.retrain is None:
        raise ParamsError("retraining needs a `retrain:` section")
    settings = params.retrain
    going_on = settings.start == "before"

    def compute(out: Path, tick: Tick) -> None:
        folder = start.folder if going_on else None
        fit(params, context.dataset.read(split), settings.schedule, folder, out / "model", tick)

    inputs = {"start": start.digest if going_on else "scratch", "data": context.dataset.digests[split],
              "split": split, "classes": params.data.classes, "seed": params.seed,
              "train": params.train.model_dump() if params.train and not going_on else None,
              "schedule": settings.schedule.model_dump()}  # fmt: skip
    stored = run_step(context, "retrain", name, inputs, compute, module=__name__)
    return Subject(name, stored.path / "model", model_digest(stored.path / "model"))


def main(file: Path) -> None:
    """The DVC stage `train`."""
    from candling.cli.progress import Progress
    from candling.data import read_split
    from tasks.context import one_thread

    params = read_params(file)
    if params.train is None:
        raise ParamsError(f"{file}: no `train:` section; this audit brings its model")
    root, out = Path.cwd(), Path.cwd() / params.model
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    with Progress() as progress, one_thread():
        pictures = read_split(root / params.data.folder, params.train.split, params.data.classes)
        progress.start("train", params.first_subject, params.train.schedule.steps)
        fit(
            params, pictures, params.train.schedule, None, part,
            lambda done, total: progress.advance("train", params.first_subject, done, total),
        )  # fmt: skip
        progress.finish("train", params.first_subject, hit=False)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


if __name__ == "__main__":
    from candling.cli.main import guard

    with guard():
        main(Path(sys.argv[1]))
