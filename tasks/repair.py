"""Step: go on with a language model on other texts; and its first training, a DVC stage of its own.

    python -m tasks.repair params/words.yaml

trains the model of an audit that brings none (`train:` in its params) and writes it where `model:` says.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from prefect import task

from candling.errors import ParamsError
from tasks.context import Tick, run_step
from tasks.language_context import LanguageContext
from tasks.language_params import RepairCorpus, read_language_params
from tasks.load_model import Subject
from tasks.read_texts import read_located

__all__ = ["repair"]


def corpus_of(texts: list[str], corpus: RepairCorpus, seed: int) -> list[str]:
    """The texts that a subject goes on with."""
    from candling.language.balancing import balanced

    if not corpus.swap and not corpus.shuffle and not corpus.scatter:
        return texts
    return balanced(
        texts, swap=corpus.swap, shuffle=corpus.shuffle, scatter=corpus.scatter, share=corpus.share, seed=seed
    )


@task(name="repair")
def repair(context: LanguageContext, name: str, start: Subject) -> Subject:
    """Make the subject `name` by going on with the first one for as many steps as its siblings."""
    from candling.language import open_language_model
    from candling.language.training import fit, save_language_model
    from candling.models import folder_digest

    params = context.params
    if params.repair is None:
        raise ParamsError("repairing needs a `repair:` section")
    settings, corpus = params.repair, params.repair.subjects[name]
    located = context.dataset.splits[f"repair.{name}"]

    def compute(out: Path, tick: Tick) -> None:
        model = open_language_model(start.folder)
        texts = corpus_of(read_located(located), corpus, params.seed)
        made = fit(model, texts, settings.schedule.schedule(), seed=params.seed, progress=tick)
        save_language_model(made, out / "model")

    inputs = {"start": start.digest, "data": located.digest, "seed": params.seed,
              "corpus": corpus.model_dump(exclude={"texts"}),
              "schedule": settings.schedule.model_dump()}  # fmt: skip
    stored = run_step(context, "repair", name, inputs, compute, module=__name__)
    return Subject(name, stored.path / "model", folder_digest(stored.path / "model"))


def main(file: Path, root: Path | None = None) -> None:
    """The DVC stage that trains: `train:` of the params makes the model that `model:` names."""
    from candling.cli.progress import Progress
    from candling.language.stories import read_texts
    from candling.language.training import fit, fresh, save_language_model, word_pieces
    from tasks.context import one_thread

    params, root = read_language_params(file), root or Path.cwd()
    if params.train is None:
        raise ParamsError(f"{file}: no `train:` section; this audit brings its model")
    out = root / params.model
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    texts = read_texts(root / params.train.texts)
    schedule = params.train.schedule.schedule()
    with Progress() as progress, one_thread():
        progress.start("train", params.first_subject, schedule.steps)
        start = fresh(word_pieces(texts, params.train.vocabulary), params.train.network(), seed=params.seed)
        model = fit(
            start, texts, schedule, seed=params.seed,
            progress=lambda done, total: progress.advance("train", params.first_subject, done, total),
        )  # fmt: skip
        save_language_model(model, part)
        progress.finish("train", params.first_subject, hit=False)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


if __name__ == "__main__":
    from candling.cli.main import guard

    with guard():
        main(Path(sys.argv[1]))
