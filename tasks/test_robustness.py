"""Step: test how accuracy holds under the usual corruptions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import measured
from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.load_model import Subject
from tasks.store import Stored

if TYPE_CHECKING:
    from candling.models import Classifier

__all__ = ["test_corruptions"]


@task(name="test robustness")
def test_corruptions(context: Context, subject: Subject) -> Stored:
    """Accuracy under noise, blur, contrast, brightness and JPEG, on a stratified sample."""
    dataset, settings, seed = context.dataset, context.params.robustness, context.params.seed

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        from candling.data import stratified, unit
        from candling.models import logits
        from candling.statistics import proportion
        from candling.vision.corruptions import CORRUPTIONS, corrupt
        from candling.vision.performance import robustness
        from tasks.pictures import audited_rows

        everything = dataset.read("eval")
        everything = everything.take(audited_rows(everything, dataset.audited))
        sample = everything.take(stratified(everything, settings.images, seed=seed))
        images = unit(sample.images)
        kinds = [(name, severity) for name in CORRUPTIONS for severity in settings.severities]
        clean = logits(model, images).argmax(1) == sample.labels
        corrupted = {}
        for done, (name, severity) in enumerate(kinds, start=1):
            hard = corrupt(images, name, severity, seed=seed)
            corrupted[name, severity] = logits(model, hard).argmax(1) == sample.labels
            tick(done, len(kinds))
        found = robustness(clean, corrupted)
        every = {("none", 0): proportion(int(clean.sum()), len(clean)), **found.accuracy}
        measurements = [
            measured("robustness.accuracy", estimate, {"corruption": name, "severity": str(severity)})
            for (name, severity), estimate in every.items()
        ]
        name, severity, worst = found.worst
        measurements += [
            measured("robustness.mean", found.retained, least=10),
            measured("robustness.worst", worst, least=10, note=f"{name}, severity {severity}"),
        ]
        write_findings(out, measurements)

    return examine(
        context, "test robustness", subject, ["eval"], look,
        module=__name__, settings=settings.model_dump(),
    )  # fmt: skip
