"""Step: measure accuracy, overall and of every group."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from tasks.context import Context, Tick, run_step, write_findings
from tasks.load_model import Subject
from tasks.store import Stored

__all__ = ["measure"]


@task(name="measure groups")
def measure(context: Context, subject: Subject) -> Stored:
    """Accuracy on the eval set, on data drawn like the training data, and of the worst group."""
    data = context.params.data

    def compute(out: Path, tick: Tick) -> None:
        import numpy as np
        import pandas as pd

        from candling.data import read_split
        from candling.models import load_model, logits
        from candling.statistics import proportion
        from tasks.measuring import measurement

        model = load_model(subject.folder)

        def correct(split: str) -> tuple[pd.Series, tuple[str, ...]]:
            pictures = read_split(context.data, split, data.classes)
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

    splits = [data.eval, *([data.like_train] if data.like_train else [])]
    inputs = {"model": subject.digest, "data": [context.data_digests[split] for split in splits],
              "splits": splits, "classes": data.classes}  # fmt: skip
    return run_step(context, "measure groups", subject.name, inputs, compute, module=__name__)
