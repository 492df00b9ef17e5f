"""Step: measure accuracy, overall and of every group."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.load_model import Subject
from tasks.store import Stored

if TYPE_CHECKING:
    from candling.models import Classifier

__all__ = ["measure"]


@task(name="measure groups")
def measure(context: Context, subject: Subject) -> Stored:
    """Accuracy on the eval set, on data drawn like the training data, and of the worst group."""
    data = context.params.data

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import numpy as np
        import pandas as pd

        from candling.models import logits
        from candling.statistics import proportion
        from tasks.measuring import measurement

        def correct(split: str) -> tuple[pd.Series, tuple[str, ...]]:
            pictures = context.dataset.read(split)
            right = (logits(model, pictures.images).argmax(1) == pictures.labels).numpy()
            return pd.Series(np.asarray(right)), pictures.groups

        right, groups = correct(data.eval)
        measurements = [measurement("accuracy.overall", proportion(int(right.sum()), len(right)))]
        table = right.groupby(list(groups)).agg(["sum", "count"]).astype(int)
        for group, (hits, count) in zip(table.index, table.to_numpy().tolist(), strict=True):
            scope = {"group": str(group)}
            measurements.append(measurement("accuracy.group", proportion(hits, count), scope, least=30))
        worst = int((table["sum"] / table["count"]).to_numpy().argmin())
        hits, count = table.iloc[worst].tolist()
        # The worst of m groups was picked by looking, so its interval is widened to hold for all m.
        estimate = proportion(hits, count, confidence=1 - 0.05 / len(table))
        measurements.append(
            measurement("accuracy.worst_group", estimate, least=30, note=str(table.index[worst]))
        )
        if data.like_train:
            right, _ = correct(data.like_train)
            measurements.append(measurement("accuracy.like_train", proportion(int(right.sum()), len(right))))
        write_findings(out, measurements)

    splits = [data.eval, data.like_train]
    return examine(context, "measure groups", subject, splits, look, module=__name__)
