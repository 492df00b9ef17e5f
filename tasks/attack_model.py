"""Step: attack the model, each picture that it is right about towards another class, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import Artifact, Measurement, measured
from tasks.compute_entanglement import attack_correlation
from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.load_model import Subject
from tasks.params import AttackParams
from tasks.store import Stored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from candling.models import Classifier
    from candling.vision.adversarial import Smallest
    from candling.vision.adversarial.methods import Ball

__all__ = ["attack_eval_set", "attack_method", "left_out", "targets_in_turn"]

# Of more classes than these, pairs have too few pictures each and the report no room for them.
_PAIRS = 12


def attack_method(settings: AttackParams) -> Ball:
    """The attack that params describe; its epsilon is the largest that is tried."""
    from candling.vision.adversarial import L2PGD, LinfPGD

    kind = LinfPGD if settings.norm == "linf" else L2PGD
    return kind(epsilon=settings.epsilon, steps=settings.steps)


def left_out(*, differentiable: bool) -> dict[str, str]:
    """A note where no attack is possible."""
    if differentiable:
        return {}
    return {
        "left_out.attacks": (
            "A black box gives no gradient, so it was not attacked; the model's weights would add it."
        )
    }


def targets_in_turn(labels: Sequence[int], classes: Sequence[int]) -> list[int]:
    """For each label another class, so that each class goes to all others in turn."""
    seen: dict[int, int] = {}
    targets = []
    for label in labels:
        others = [k for k in classes if k != label]
        targets.append(others[seen.get(label, 0) % len(others)])
        seen[label] = seen.get(label, 0) + 1
    return targets


@task(name="attack model")
def attack_eval_set(context: Context, subject: Subject, entangled: Stored) -> Stored:
    """The smallest epsilon that turns each of a sample of rightly predicted pictures to another class."""
    dataset, settings, seed = context.dataset, context.params.attacks, context.params.seed

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import torch

        from candling.data import stratified
        from candling.models import check_differentiable, logits
        from candling.vision.adversarial import Targeted, smallest_epsilon
        from tasks.pictures import audited_rows

        if not model.differentiable:
            notes = left_out(differentiable=False)
            (note,) = notes.values()
            write_findings(out, _nothing(note), notes=notes)
            return
        check_differentiable(model, model.spec.image_size)
        everything = dataset.read("eval")
        everything = everything.take(audited_rows(everything, dataset.audited))
        sample = everything.take(stratified(everything, settings.images, seed=seed))
        right = torch.nonzero(logits(model, sample.images).argmax(1) == sample.labels).flatten().tolist()
        if not right:
            write_findings(out, _nothing(f"none of {len(sample)} pictures is predicted rightly"))
            return
        some = sample.take(right)
        labels = some.labels.tolist()
        targets = targets_in_turn(labels, dataset.audited)
        found = smallest_epsilon(
            model, some.images, Targeted(targets), attack_method(settings), seed=seed, progress=tick
        )
        pairs = [(dataset.classes[a], dataset.classes[b]) for a, b in zip(labels, targets, strict=True)]
        artifacts = _pictures(out, some.images, some.names, pairs, found, settings.pictures)
        notes = {
            "attacks.method": (
                f"{found.method} on {len(some)} of {len(sample)} pictures, those that are predicted rightly, "
                "each towards another class in turn; success is judged on the picture as it is saved."
            ),
            "attacks.evaluations": f"{int(found.evaluations.sum())} pictures seen by the model",
        }
        measurements = _measured(found, pairs, classes=len(dataset.audited))
        measurements.append(attack_correlation(entangled, _costs(found, labels, targets, dataset.audited)))
        write_findings(out, measurements, artifacts, notes)

    return examine(
        context, "attack model", subject, ["eval"], look,
        module=__name__, settings=settings.model_dump(), entangled=entangled.digest,
    )  # fmt: skip


def _costs(
    found: Smallest, labels: Sequence[int], targets: Sequence[int], classes: Sequence[int]
) -> NDArray[np.float64]:
    """Median epsilon (K, K) from the row's class to the column's; NaN where none was tried.

    What was not reached costs more than all that was: ranks are made of it.
    """
    import numpy as np

    place = {k: row for row, k in enumerate(classes)}
    costs = np.full((len(classes), len(classes)), np.nan)
    for one in found.by_pair(labels, targets).itertuples():
        costs[place[one[1]], place[one[2]]] = min(float(one[4]), 2 * found.grid[-1])
    return costs


def _nothing(note: str) -> list[Measurement]:
    return [measured(id, None, note=note) for id in ("attack.success_rate", "attack.median_epsilon")]


def _measured(found: Smallest, pairs: Sequence[tuple[str, str]], *, classes: int) -> list[Measurement]:
    """Both measurements over all rows and, for few classes, over those of each pair."""
    import numpy as np

    from candling.statistics import bootstrap, proportion

    reached = np.isfinite(found.epsilon.numpy())
    # A bootstrap needs numbers; what was not reached is the largest at the least.
    radii = np.where(reached, found.epsilon.numpy(), found.grid[-1])

    def both(rows: list[int], scope: dict[str, str]) -> list[Measurement]:
        missed = len(rows) - int(reached[rows].sum())
        note = ""
        if missed:
            note = f"{missed} of {len(rows)} not reached, counted as the largest tried, {found.grid[-1]:.4f}"
        return [
            measured(
                "attack.success_rate", proportion(len(rows) - missed, len(rows)), scope, least=10
            ),
            measured(
                "attack.median_epsilon", bootstrap(lambda drawn: np.median(drawn, 1), radii[rows]), scope,
                least=10, note=note,
            ),
        ]  # fmt: skip

    measurements = both(list(range(len(pairs))), {})
    if classes <= _PAIRS:
        for pair in sorted(set(pairs)):
            rows = [row for row, own in enumerate(pairs) if own == pair]
            measurements += both(rows, dict(zip(("from", "to"), pair, strict=True)))
    return measurements


def _pictures(
    out: Path,
    images: Tensor,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    found: Smallest,
    count: int,
) -> list[Artifact]:
    """Original, amplified noise and result of a few rows, pairs in turn."""
    from candling.vision.tricking import amplified
    from tasks.artifacts import picture

    turns = sorted((sum(other == pair for other in pairs[:row]), row) for row, pair in enumerate(pairs))
    artifacts = []
    for _, row in turns[:count]:
        source, target = pairs[row]
        scope = {"image": names[row], "from": source, "to": target}
        radius = float(found.epsilon[row])
        reached = radius < float("inf")
        told = {"epsilon": radius} if reached else {}
        sure = {"probability": float(found.probabilities[row].max())}
        views: tuple[tuple[str, Tensor, str, dict[str, float]], ...] = (
            ("original", images[row], source, {}),
            ("noise", amplified(images[row], found.images[row]), "noise, amplified", told),
            ("result", found.images[row], target if reached else f"not taken for {target}", sure),
        )
        for view, image, caption, values in views:
            artifacts.append(
                picture(
                    out,
                    f"pictures/attacks/{names[row]}-{view}",
                    image,
                    section="attacks",
                    scope=scope | {"view": view},
                    caption=caption,
                    values=values,
                    exact=view == "result",
                )
            )
    return artifacts
