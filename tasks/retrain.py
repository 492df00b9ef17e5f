"""Step: retrain a subject on other data; and the first training, which is a DVC stage of its own.

    python -m tasks.retrain params/tanks.yaml

trains the model of an audit that brings none (`train:` in its params) and writes it where `model:` says.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.errors import ParamsError
from tasks.context import Context, Tick, run_step
from tasks.load_model import Subject
from tasks.params import Params, ScheduleParams, model_source, read_params

if TYPE_CHECKING:
    from candling.data import Pictures
    from candling.models import Classifier

__all__ = ["retrain"]


def fit(
    model: Classifier, pictures: Pictures, schedule: ScheduleParams, seed: int, out: Path, tick: Tick
) -> None:
    """Train `model` on `pictures` and save it to `out`."""
    from candling.models import save_model
    from candling.vision.training import Schedule, train

    labelled = [row for row, label in enumerate(pictures.labels.tolist()) if label >= 0]
    pictures = pictures.take(labelled)
    known = Schedule(**schedule.model_dump(exclude_none=True))
    train(model, pictures.images, pictures.labels, known, seed=seed, progress=tick)
    save_model(model, out)


def fresh(params: Params, classes: tuple[str, ...]) -> Classifier:
    """The network of the `train:` section with weights of its own."""
    from candling.models import ModelSpec, build_model

    if params.train is None:
        raise ParamsError("training from scratch needs a `train:` section that describes the network")
    spec = ModelSpec("residual_cnn", classes, params.train.image_size, dict(params.train.arguments))
    return build_model(spec, seed=params.seed)


@task(name="retrain")
def retrain(context: Context, name: str, start: Subject) -> Subject:
    """Make the subject `name` by training on its split for as many steps as its siblings."""
    from candling.models import model_digest

    params = context.params
    if params.retrain is None:
        raise ParamsError("retraining needs a `retrain:` section")
    settings = params.retrain
    going_on = settings.start == "before"

    dataset, role = context.dataset, f"retrain.{name}"

    def compute(out: Path, tick: Tick) -> None:
        from candling.models import load_model

        model = load_model(start.folder, root=context.root) if going_on else fresh(params, dataset.classes)
        fit(model, dataset.read(role), settings.schedule, params.seed, out / "model", tick)

    inputs = {"start": start.digest if going_on else "scratch", "data": dataset.splits[role].digest,
              "classes": dataset.classes, "seed": params.seed,
              "train": params.train.model_dump() if params.train and not going_on else None,
              "schedule": settings.schedule.model_dump()}  # fmt: skip
    stored = run_step(context, "retrain", name, inputs, compute, module=__name__)
    return Subject(name, stored.path / "model", model_digest(stored.path / "model"))


def main(file: Path) -> None:
    """The DVC stage that trains: `train:` of the params makes the model that `model:` names."""
    from candling.cli.progress import Progress
    from tasks.context import one_thread

    params, root = read_params(file), Path.cwd()
    if params.train is None or not isinstance(params.model, str):
        raise ParamsError(f"{file}: no `train:` section; this audit brings its model")
    if params.data.classes is None:
        raise ParamsError(f"{file}: training needs `data.classes`, in the order of the logits")
    out = root / params.model
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    with Progress() as progress, one_thread(), tempfile.TemporaryDirectory(prefix="candling-") as folder:
        model = _first_model(params, root, Path(folder))
        pictures = _first_pictures(params, root, Path(folder), model)
        progress.start("train", params.first_subject, params.train.schedule.steps)
        fit(
            model, pictures, params.train.schedule, params.seed, part,
            lambda done, total: progress.advance("train", params.first_subject, done, total),
        )  # fmt: skip
        progress.finish("train", params.first_subject, hit=False)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def _first_model(params: Params, root: Path, folder: Path) -> Classifier:
    """A fresh network, or the one of `train.start` with a new head for the audit's classes."""
    from candling.models import import_model, load_model, with_new_head

    if params.train is None or params.data.classes is None:
        raise ParamsError("training needs `train:` and `data.classes`")
    if params.train.start is None:
        return fresh(params, params.data.classes)
    import_model(model_source(params.train.start), folder / "start", root=root)
    start = load_model(folder / "start", root=root)
    return with_new_head(start, params.data.classes, image_size=params.train.image_size, seed=params.seed)


def _first_pictures(params: Params, root: Path, folder: Path, model: Classifier) -> Pictures:
    from candling.data import import_pictures, read_source, read_split
    from tasks.revisions import checked_out

    if params.train is None or isinstance(params.train.split, str):
        split = "" if params.train is None else str(params.train.split)
        return read_split(root / (params.data.folder or ""), split, model.classes)
    split_params = params.train.split
    samples = read_source(split_params.source(checked_out(split_params.location, root), root))
    import_pictures(samples, model.classes, model.prepare, folder / "pictures", "train")
    return read_split(folder / "pictures", "train", model.classes)


if __name__ == "__main__":
    from candling.cli.main import guard

    with guard():
        main(Path(sys.argv[1]))
