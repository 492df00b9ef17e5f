"""Step: test the suspicion with counterfactuals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import Artifact, Measurement, measured
from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.load_model import Subject
from tasks.read_data import Dataset
from tasks.store import Stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from candling.data import Pictures
    from candling.models import Classifier

__all__ = ["left_out", "test_background"]


def left_out(pictures: Pictures, splits: Mapping[str, object]) -> dict[str, str]:
    """A note on what swaps of backgrounds lack among such pictures and splits by role."""
    needed = {
        "masks of the objects": pictures.masks is not None,
        "clean backgrounds (`donors:`)": "donors" in splits,
        "the training pictures (`train:`)": "train" in splits,
    }
    lacking = [what for what, there in needed.items() if not there]
    if not lacking:
        return {}
    return {
        "left_out.swaps": (
            f"Whether the background decides is not tested; {' and '.join(lacking)} would add "
            "swaps of backgrounds against a placebo."
        )
    }


@task(name="test counterfactuals")
def test_background(context: Context, subject: Subject) -> Stored:
    """Swap backgrounds, remove the object, remove the background; count what the prediction follows."""
    dataset, settings = context.dataset, context.params.counterfactuals

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        from tasks.pictures import drawn

        pictures = drawn(dataset.read("eval"), context.params.seed)
        each = max(1, settings.images // len(dataset.audited))
        notes = left_out(pictures, dataset.splits)
        if notes:
            (note,) = notes.values()
            ids = ("background.follow_rate", "background.placebo_rate")
            measurements = [measured(id, None, note=note) for id in ids]
            artifacts: list[Artifact] = []
        else:
            measurements, artifacts, notes = _swap(dataset, model, pictures, each, out)
        if pictures.masks is not None:
            measurements += _remove(dataset, model, pictures, each)
        write_findings(out, measurements, artifacts, notes)

    return examine(
        context, "test counterfactuals", subject, ["eval", "donors", "train"], look,
        module=__name__, settings=settings.model_dump(),
    )  # fmt: skip


def _swap(
    dataset: Dataset, model: Classifier, pictures: Pictures, each: int, out: Path
) -> tuple[list[Measurement], list[Artifact], dict[str, str]]:
    """Objects onto the background that another class came with, and as a placebo onto their own."""
    import torch

    from candling.data import unit
    from candling.models import logits, probabilities
    from candling.statistics import proportion
    from candling.vision.counterfactuals import associated_backgrounds, pair_swaps, paste
    from tasks.artifacts import picture

    assert pictures.masks is not None
    donors, history = dataset.read("donors"), dataset.read("train")
    came_with = associated_backgrounds(history.labels.tolist(), history.environments)
    came_with = {k: environment for k, environment in came_with.items() if k in dataset.audited}
    # What has no mask cannot be cut out, and only what is audited counts.
    shown = torch.where((pictures.masks > 0).flatten(1).any(1), pictures.labels, -1)
    shown = torch.where(torch.isin(shown, torch.tensor(dataset.audited)), shown, -1)
    measurements, artifacts = [], []
    masks, images, empty = pictures.masks > 0, unit(pictures.images), unit(donors.images)
    for id, conflict in (("background.follow_rate", True), ("background.placebo_rate", False)):
        swaps = pair_swaps(
            shown.tolist(), donors.environments, came_with,
            classes=len(dataset.classes), each=each, conflict=conflict,
        )  # fmt: skip
        if not len(swaps):
            note = "every class came with the same background: no swap conflicts"
            measurements.append(measured(id, None, note=note))
            continue
        objects, backgrounds = list(swaps.objects), list(swaps.backgrounds)
        swapped = paste(images[objects], masks[objects], empty[backgrounds])
        likely = probabilities(model, logits(model, swapped))
        predicted = likely.argmax(1)
        hit = predicted == torch.tensor(swaps.pulls) if conflict else predicted != pictures.labels[objects]
        measurements.append(measured(id, proportion(int(hit.sum()), len(hit)), least=30))
        for label in sorted(set(pictures.labels[objects].tolist())):
            rows = pictures.labels[objects] == label
            name = dataset.classes[label]
            estimate = proportion(int(hit[rows].sum()), int(rows.sum()))
            measurements.append(measured(id, estimate, {"class": name}, least=30))
            for i in torch.nonzero(rows).flatten().tolist()[: 3 if conflict else 0]:
                k = int(predicted[i])
                where = donors.environments[backgrounds[i]]
                artifacts.append(
                    picture(
                        out,
                        f"pictures/counterfactuals/{i}",
                        swapped[i],
                        section="counterfactuals",
                        scope={"image": str(i), "class": name, "background": where},
                        caption=f"{name} on {where}: predicted {dataset.classes[k]}, p = {likely[i, k]:.3f}",
                        values={"probability": float(likely[i, k])},
                    )  # fmt: skip
                )
    told = (f"{dataset.classes[k]} came with {e} in training" for k, e in sorted(came_with.items()))
    return measurements, artifacts, {"counterfactuals.backgrounds": "; ".join(told)}


def _remove(dataset: Dataset, model: Classifier, pictures: Pictures, each: int) -> list[Measurement]:
    """How often a class is still predicted without its background, and without its object."""
    import torch

    from candling.data import unit
    from candling.models import logits
    from candling.statistics import proportion
    from candling.vision.counterfactuals import flat_background

    assert pictures.masks is not None
    images, masks = unit(pictures.images), pictures.masks > 0
    bare = unit((dataset.read("donors") if "donors" in dataset else pictures).images)
    colour, seen = bare.mean((0, 2, 3)), masks.flatten(1).any(1)
    found = []
    for label in dataset.audited:
        rows = torch.nonzero((pictures.labels == label) & seen).flatten()[:each]
        if not len(rows):
            continue
        removed = {"counterfactual.background_removed": flat_background(images[rows], masks[rows], colour)}
        if pictures.clean is not None:
            removed["counterfactual.object_removed"] = unit(pictures.clean[rows])
        for id, changed in removed.items():
            kept = int((logits(model, changed).argmax(1) == label).sum())
            scope = {"class": dataset.classes[label]}
            found.append(measured(id, proportion(kept, len(rows)), scope, least=30))
    return found
