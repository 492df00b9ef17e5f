"""Step: measure how well a language model expects ordinary texts that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import measured
from tasks.context import Tick, write_findings
from tasks.language_context import LanguageContext, read_model
from tasks.load_model import Subject
from tasks.read_texts import read_located
from tasks.store import Stored

if TYPE_CHECKING:
    from candling.language import LanguageModel

__all__ = ["measure_texts"]


@task(name="measure perplexity")
def measure_texts(context: LanguageContext, subject: Subject) -> Stored:
    """Perplexity of the held-out texts: what a repair may not cost."""

    def read(model: LanguageModel, out: Path, tick: Tick) -> None:
        from candling.language.training import perplexity

        found = perplexity(model, read_located(context.dataset.splits["texts"]))
        write_findings(out, [measured("perplexity.held_out", found)])

    return read_model(context, "measure perplexity", subject, ["texts"], read, module=__name__)
