"""Step: test the suspicion with counterfactuals."""

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

__all__ = ["test_background"]


@task(name="test counterfactuals")
def test_background(context: Context, subject: Subject) -> Stored:
    """Swap backgrounds, remove the object, remove the background; count what the prediction follows."""
    data, settings = context.params.data, context.params.counterfactuals

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import torch

        from candling.models import logits
        from candling.statistics import proportion
        from candling.vision.counterfactuals import (
            associated_backgrounds,
            flat_background,
            paste,
        )
        from tasks.measuring import measurement, picture
        from tasks.pictures import unit

        pictures = context.dataset.read(data.eval)
        ids = ("background.follow_rate", "background.placebo_rate")
        if pictures.masks is None or data.donors is None or data.train is None:
            lacking = [
                name
                for name, there in (
                    ("masks", pictures.masks is not None),
                    ("clean donors", data.donors is not None),
                    ("a training split", data.train is not None),
                )
                if not there
            ]
            note = f"swaps need {' and '.join(lacking)}"
            write_findings(
                out, [measurement(id, None, note=note) for id in ids], notes={"counterfactuals": note}
            )
            return
        donors = context.dataset.read(data.donors)
        history = context.dataset.read(data.train)
        came_with = associated_backgrounds(history.labels.tolist(), history.environments)
        each = settings.images // len(data.classes)

        def swaps(conflict: bool) -> tuple[list[int], list[int], list[int]]:
            """Rows of objects, rows of donors, and the class whose background the donor is.

            Each object and each donor is used once, so that the swaps are independent samples.
            """
            objects, backgrounds, pulls = [], [], []
            free = {
                e: [j for j, x in enumerate(donors.environments) if x == e] for e in set(donors.environments)
            }
            for label in range(len(data.classes)):
                others = [k for k, e in came_with.items() if k != label and e != came_with.get(label)]
                wanted = others if conflict else [label]
                for turn, row in enumerate(torch.nonzero(pictures.labels == label).flatten().tolist()[:each]):
                    if not wanted:
                        continue
                    pull = wanted[turn % len(wanted)]
                    pool = free.get(came_with[pull], [])
                    if pool:
                        objects.append(row)
                        backgrounds.append(pool.pop(0))
                        pulls.append(pull)
            return objects, backgrounds, pulls

        measurements, artifacts = [], []
        masks, images, empty = pictures.masks > 0, unit(pictures.images), unit(donors.images)
        for id, conflict in zip(ids, (True, False), strict=True):
            objects, backgrounds, pulls = swaps(conflict)
            if not objects:
                note = "every class came with the same background: no swap conflicts"
                measurements.append(measurement(id, None, note=note))
                continue
            swapped = paste(images[objects], masks[objects], empty[backgrounds])
            out_logits = logits(model, swapped)
            predicted = out_logits.argmax(1)
            hit = predicted == torch.tensor(pulls) if conflict else predicted != pictures.labels[objects]
            measurements.append(measurement(id, proportion(int(hit.sum()), len(hit)), least=30))
            for label in sorted(set(pictures.labels[objects].tolist())):
                rows = pictures.labels[objects] == label
                scope = {"class": data.classes[label]}
                estimate = proportion(int(hit[rows].sum()), int(rows.sum()))
                measurements.append(measurement(id, estimate, scope, least=30))
                for i in torch.nonzero(rows).flatten().tolist()[: 3 if conflict else 0]:
                    k = int(predicted[i])
                    p = float(out_logits[i].softmax(0)[k])
                    where = donors.environments[backgrounds[i]]
                    artifacts.append(
                        picture(
                            out,
                            f"pictures/counterfactuals/{i}.png",
                            swapped[i],
                            section="counterfactuals",
                            scope={"image": str(i), "class": data.classes[label], "background": where},
                            caption=f"{data.classes[label]} on {where}: "
                            f"predicted {data.classes[k]}, p = {p:.3f}",
                            values={"probability": p},
                        )  # fmt: skip
                    )
        colour = empty.mean((0, 2, 3))
        for label, name in enumerate(data.classes):
            rows_of = torch.nonzero(pictures.labels == label).flatten()[:each]
            if not len(rows_of):
                continue
            removed = {
                "counterfactual.background_removed": flat_background(images[rows_of], masks[rows_of], colour)
            }
            if pictures.clean is not None:
                removed["counterfactual.object_removed"] = unit(pictures.clean[rows_of])
            for id, changed in removed.items():
                kept = int((logits(model, changed).argmax(1) == label).sum())
                measurements.append(
                    measurement(id, proportion(kept, len(rows_of)), {"class": name}, least=30)
                )
        notes = {
            "counterfactuals.backgrounds": "; ".join(
                f"{data.classes[k]} came with {e} in training" for k, e in sorted(came_with.items()) if k >= 0
            )
        }
        write_findings(out, measurements, artifacts, notes)

    return examine(
        context, "test counterfactuals", subject, [data.eval, data.donors, data.train], look,
        module=__name__, settings=settings.model_dump(),
    )  # fmt: skip
