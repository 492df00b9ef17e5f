"""Step: isolate the features that predictions use, and hold them against masks and parts."""

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

__all__ = ["isolate_eval_set"]


@task(name="isolate features")
def isolate_eval_set(context: Context, subject: Subject) -> Stored:
    """Evidence maps on a stratified sample; object evidence and Shapley share where there are masks."""
    data, settings = context.params.data, context.params.isolation
    expects = context.params.expects

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import torch
        from torch import Tensor

        from candling.audit.record import Measurement
        from candling.models import logits
        from candling.statistics import mean, ratio_of_means
        from candling.vision.isolation import evidence_share, faded, isolate, object_shapley
        from tasks.measuring import measurement, picture
        from tasks.pictures import donors_in_turn, stratified, unit

        everything = context.dataset.read(data.eval)
        sample = everything.take(stratified(everything, settings.images))
        images = unit(sample.images)
        donors = None
        if data.donors:
            donors = donors_in_turn(context.dataset.read(data.donors))
        found = isolate(
            model, images, donors=donors, donors_per_image=settings.donors_per_image,
            side=settings.side, stride=settings.stride, progress=tick,
        )  # fmt: skip
        measurements: list[Measurement] = []
        shares = None

        def some(id: str, share: Tensor, area: Tensor | None, scope: dict[str, str]) -> None:
            """Record the mean share, or its ratio to the area, over the images that have evidence."""
            there = torch.isfinite(share)
            kept = share[there].double().numpy()
            note = "" if there.all() else f"{len(kept)} of {len(share)} images have such evidence"
            estimate = None
            if len(kept) and area is None:
                estimate = mean(kept)
            elif len(kept) and area is not None and area[there].any():
                estimate = ratio_of_means(kept, area[there].double().numpy())
            measurements.append(measurement(id, estimate, scope, note=note))

        if sample.masks is not None:
            objects = sample.masks > 0
            areas = objects.double().mean((1, 2))
            shares = torch.stack([evidence_share(m, objects) for m in found.maps.unbind(1)], 1)
            phi = None
            if sample.clean is not None and donors is not None:
                phi = object_shapley(model, images, unit(sample.clean), objects, sample.labels, donors).abs()
            for k, name in enumerate(data.classes):
                for environment in (None, *sorted(set(sample.environments))):
                    rows = torch.tensor(
                        [
                            i
                            for i in range(len(sample))
                            if sample.labels[i] == k and environment in (None, sample.environments[i])
                        ],
                        dtype=torch.long,
                    )
                    if not len(rows):
                        continue
                    scope = {"class": name} | ({"background": environment} if environment else {})
                    some("object_evidence.share", shares[rows, k], None, scope)
                    some("object_evidence.over_chance", shares[rows, k], areas[rows], scope)
                    positive = evidence_share(found.maps[rows, k], objects[rows], sign="for")
                    some("object_evidence.positive_share", positive, None, scope)
                    if phi is not None:
                        share_of_object = phi[rows, 0] / phi[rows].sum(1).clamp_min(1e-12)
                        some("object_evidence.shapley_share", share_of_object, None, scope)
                own = torch.nonzero(sample.labels == k).flatten()
                regions = {
                    part: sample.masks[own] == data.parts.index(part) + 1 for part in expects.get(name, ())
                }
                if regions and len(own):
                    regions["expected parts"] = torch.stack(list(regions.values())).any(0)
                    for part, region in regions.items():
                        share = evidence_share(found.maps[own, k], region)
                        area = region.double().mean((1, 2))
                        some("object_evidence.part_over_area", share, area, {"class": name, "part": part})

        probabilities = logits(model, images).softmax(1)
        artifacts = []
        for i in _shown(sample.groups, settings.pictures):
            base = {"image": sample.names[i]}
            artifacts.append(
                picture(
                    out,
                    f"pictures/isolation/{sample.names[i]}.png",
                    images[i],
                    section="isolation",
                    scope=base | {"view": "original", "group": sample.groups[i]},
                    caption=f"{sample.groups[i]}, image {sample.names[i]}",
                )  # fmt: skip
            )
            for k in probabilities[i].argsort(descending=True)[:2].tolist():
                name = data.classes[k]
                values = {"probability": float(probabilities[i, k])}
                if shares is not None and sample.masks is not None:
                    values["mask_area"] = float((sample.masks[i] > 0).float().mean())
                    if torch.isfinite(shares[i, k]):
                        values["object_share"] = float(shares[i, k])
                artifacts.append(
                    picture(
                        out,
                        f"pictures/isolation/{sample.names[i]}-{k}.png",
                        faded(images[i], found.maps[i, k]),
                        section="isolation",
                        scope=base | {"class": name, "group": sample.groups[i]},
                        caption=f"evidence for {name}, p = {probabilities[i, k]:.3f}",
                        values=values,
                    )  # fmt: skip
                )
        fill = "patches of clean backgrounds" if found.fill == "donors" else "a blur of the image itself"
        notes = {
            "isolation.fill": f"Hidden windows were replaced by {fill}.",
            "isolation.evaluations": f"{found.evaluations} model evaluations on {len(sample)} images",
        }
        write_findings(out, measurements, artifacts, notes)

    return examine(
        context, "isolate features", subject, [data.eval, data.donors], look,
        module=__name__, parts=data.parts, expects=expects, settings=settings.model_dump(),
    )  # fmt: skip


def _shown(groups: tuple[str, ...], count: int) -> list[int]:
    """Rows of about `count` pictures for the report, groups in turn."""
    seen: dict[str, int] = {}
    turns = []
    for row, group in enumerate(groups):
        turns.append((seen.get(group, 0), group, row))
        seen[group] = seen.get(group, 0) + 1
    return [row for _, _, row in sorted(turns)[:count]]
