"""Step: take a language model from wherever it is into the store, and see that it answers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from prefect import task

from candling.errors import ParamsError
from tasks.context import Tick, run_step
from tasks.language_context import LanguageContext
from tasks.load_model import Subject

__all__ = ["check_language_model", "load_language"]


def check_language_model(context: LanguageContext) -> None:
    """See that the folder which `model:` names is there; a repository of the hub is a step's to fetch.

    Raises
    ------
    ParamsError
        If it is the name of a folder, and there is none.
    """
    name = context.params.model
    folder = context.root / name
    # A repository of the hub has one slash, and no more; a folder of ours is there.
    if not folder.is_dir() and (name.count("/") != 1 or (context.root / name.split("/")[0]).is_dir()):
        raise ParamsError(
            f"{folder}: no such model; name your model's folder under `model:` in {context.file}, "
            "or let `dvc repro` train the one of a shipped audit"
        )


@task(name="load model")
def load_language(context: LanguageContext, name: str) -> Subject:
    """Import the model that params name, and let it go on with a text.

    Raises
    ------
    ModelError
        If it cannot be read, is no causal language model, or answers NaN.
    """
    from candling.language import open_language_model
    from candling.language.generation import continued
    from candling.language.training import save_language_model
    from candling.models import folder_digest

    params = context.params
    folder = context.root / params.model
    model = open_language_model(folder if folder.is_dir() else params.model)
    with tempfile.TemporaryDirectory(prefix="candling-") as scratch:
        # Written anew, so that only weights, config and tokenizer are what is audited.
        made = Path(scratch) / "model"
        save_language_model(model, made)
        digest = folder_digest(made)

        def compute(out: Path, tick: Tick) -> None:
            continued(model, [model.encode("a")], 2)
            shutil.copytree(made, out / "model")

        stored = run_step(context, "load model", name, {"model": digest}, compute, module=__name__)
    size = sum(p.numel() for p in model.network.parameters())
    note = f"{type(model.network).__name__} with {size:,} weights and {model.vocabulary:,} tokens."
    return Subject(name, stored.path / "model", digest, notes=(note,))
