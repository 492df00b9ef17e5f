"""What the steps of an audit of a language model are given, and how one that looks at a model is run.

Apart from `tasks.context`, so that a change of the engine for language makes no step of pictures run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.context import Context, Tick, Workplace, run_step
from tasks.language_params import LanguageParams, kind_of, read_language_params
from tasks.load_model import Subject
from tasks.read_data import Dataset
from tasks.read_texts import locate_texts
from tasks.store import JSON, Stored

if TYPE_CHECKING:
    from candling.language.loading import LanguageModel

__all__ = ["LanguageContext", "read_model", "workplace"]

Read = Callable[["LanguageModel", Path, Tick], None]


@dataclass(frozen=True)
class LanguageContext(Workplace):
    """The workplace of an audit of a language model."""

    params: LanguageParams

    @classmethod
    def of(cls, root: Path, file: Path) -> LanguageContext:
        """As `Context.of`."""
        params = read_language_params(file)
        return cls(root, params, file, Dataset(splits=locate_texts(params, root)))


def workplace(root: Path, file: Path) -> Context | LanguageContext:
    """The context of the audit that `file` describes, of the kind that it names.

    Raises
    ------
    CandlingError
        If params or data cannot be used.
    """
    return LanguageContext.of(root, file) if kind_of(file) == "language" else Context.of(root, file)


def read_model(
    context: LanguageContext,
    step: str,
    subject: Subject,
    roles: Sequence[str],
    read: Read,
    *,
    module: str,
    **settings: JSON,
) -> Stored:
    """Let `read` write what it finds in the subject's language model, or take that from the store.

    Parameters are as in `examine`.
    """

    def compute(out: Path, tick: Tick) -> None:
        from candling.language import open_language_model

        read(open_language_model(subject.folder), out, tick)

    splits = context.dataset.splits
    data = {role: splits[role].digest for role in roles if role in splits}
    inputs = {"model": subject.digest, "data": data, **settings}
    return run_step(context, step, subject.name, inputs, compute, module=module)
