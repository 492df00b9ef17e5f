"""The frame of the steps that look at one subject: its model loaded, the result keyed by what it saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.context import Context, Tick, run_step
from tasks.load_model import Subject
from tasks.store import JSON, Stored

if TYPE_CHECKING:
    from candling.models import Classifier

__all__ = ["examine"]

Look = Callable[["Classifier", Path, Tick], None]


def examine(
    context: Context,
    step: str,
    subject: Subject,
    roles: Sequence[str],
    look: Look,
    *,
    module: str,
    **settings: JSON,
) -> Stored:
    """Let `look` write what it finds in the subject's model, or take that from the store.

    Parameters
    ----------
    roles
        All splits that `look` reads, where the audit has them.
    settings
        All else that determines what it finds.
    """

    def compute(out: Path, tick: Tick) -> None:
        from candling.models import load_model

        look(load_model(subject.folder, root=context.root), out, tick)

    dataset = context.dataset
    data = {role: dataset.splits[role].digest for role in roles if role in dataset}
    inputs = {"model": subject.digest, "answers": subject.answers, "data": data, "audited": dataset.names,
              "seed": context.params.seed, **settings}  # fmt: skip
    return run_step(context, step, subject.name, inputs, compute, module=module)
