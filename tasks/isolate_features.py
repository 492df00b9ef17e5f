"""Step: isolate the features that predictions use, and hold them against masks and parts."""

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
    from candling.data import Pictures
    from candling.models import Classifier

__all__ = ["isolate_eval_set", "left_out"]


def left_out(pictures: Pictures, *, donors: bool) -> dict[str, str]:
    """Notes on what of the evidence such pictures, and clean backgrounds or none, do not tell."""
    if pictures.masks is None:
        return {
            "left_out.object_evidence": (
                "How much of the evidence lies on the object is not measured; masks of the objects would add "
                "it, with an interval, and part masks where on the object it lies."
            )
        }
    if pictures.clean is None or not donors:
        return {
            "left_out.shapley": (
                "Shapley shares of object and background are not measured; the same pictures without "
                "their objects and clean backgrounds (`donors:`) would add them."
            )
        }
    return {}


@task(name="isolate features")
def isolate_eval_set(context: Context, subject: Subject) -> Stored:
    """Evidence maps on a stratified sample; object evidence and Shapley share where there are masks."""
    dataset, settings = context.dataset, context.params.isolation
    parts, expects = context.params.data.parts, context.expected_parts

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import torch
        from torch import Tensor

        from candling.audit.record import Measurement
        from candling.data import stratified, unit
        from candling.models import logits, probabilities
        from candling.statistics import mean, ratio_of_means
        from candling.vision.isolation import evidence_share, faded, isolate, object_shapley
        from tasks.artifacts import picture
        from tasks.pictures import audited_rows, donors_in_turn

        everything = dataset.read("eval")
        everything = everything.take(audited_rows(everything, dataset.audited))
        sample = everything.take(stratified(everything, settings.images))
        images = unit(sample.images)
        donors = donors_in_turn(dataset.read("donors")) if "donors" in dataset else None
        likely = probabilities(model, logits(model, images))
        top = likely.topk(min(2, likely.shape[1]), 1).indices
        # The first map of an image is that of its label, the others of what the model takes it for.
        own = sample.labels
        found = isolate(
            model, images, classes=torch.cat([own[:, None], top], 1), donors=donors,
            donors_per_image=settings.donors_per_image, side=settings.side, stride=settings.stride,
            progress=tick,
        )  # fmt: skip
        measurements: list[Measurement] = []
        shares = None
        notes = left_out(sample, donors=donors is not None)

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
            measurements.append(measured(id, estimate, scope, least=10, note=note))

        if sample.masks is not None:
            objects = sample.masks > 0
            areas = objects.double().mean((1, 2))
            shares = torch.stack([evidence_share(m, objects) for m in found.maps.unbind(1)], 1)
            phi = None
            if sample.clean is not None and donors is not None:
                phi = object_shapley(model, images, unit(sample.clean), objects, sample.labels, donors).abs()

            def on_objects(chosen: list[bool], scope: dict[str, str]) -> None:
                """What lies on the objects of those images of which some object can be seen."""
                seen = torch.tensor(chosen) & (areas > 0)
                if not seen.any():
                    return
                some("object_evidence.share", shares[seen, 0], None, scope)
                some("object_evidence.over_chance", shares[seen, 0], areas[seen], scope)
                positive = evidence_share(found.maps[seen, 0], objects[seen], sign="for")
                some("object_evidence.positive_share", positive, None, scope)
                if phi is not None:
                    share_of_object = phi[seen, 0] / phi[seen].sum(1).clamp_min(1e-12)
                    some("object_evidence.shapley_share", share_of_object, None, scope)

            labels = sample.labels.tolist()
            if len(dataset.audited) > 2:
                on_objects([True] * len(labels), {})
            for k in dataset.audited:
                name = dataset.classes[k]
                on_objects([label == k for label in labels], {"class": name})
                for environment in sorted(set(sample.environments) - {""}):
                    where = zip(labels, sample.environments, strict=True)
                    on_objects([pair == (k, environment) for pair in where],
                               {"class": name, "background": environment})  # fmt: skip
                mine = torch.nonzero((sample.labels == k) & (areas > 0)).flatten()
                regions = {
                    part: sample.masks[mine] == parts.index(part) + 1 for part in expects.get(name, ())
                }
                if regions and len(mine):
                    regions["expected parts"] = torch.stack(list(regions.values())).any(0)
                    for part, region in regions.items():
                        share = evidence_share(found.maps[mine, 0], region)
                        area = region.double().mean((1, 2))
                        some("object_evidence.part_over_area", share, area, {"class": name, "part": part})

        artifacts = []
        for i in _shown(sample.groups, settings.pictures):
            base = {"image": sample.names[i]}
            artifacts.append(
                picture(
                    out,
                    f"pictures/isolation/{sample.names[i]}",
                    images[i],
                    section="isolation",
                    scope=base | {"view": "original", "group": sample.groups[i]},
                    caption=f"{sample.groups[i]}, image {sample.names[i]}",
                )  # fmt: skip
            )
            for turn, k in enumerate(top[i].tolist(), start=1):
                name = dataset.classes[k]
                values = {"probability": float(likely[i, k])}
                if shares is not None and sample.masks is not None and (sample.masks[i] > 0).any():
                    values["mask_area"] = float((sample.masks[i] > 0).float().mean())
                    if torch.isfinite(shares[i, turn]):
                        values["object_share"] = float(shares[i, turn])
                artifacts.append(
                    picture(
                        out,
                        f"pictures/isolation/{sample.names[i]}-{k}",
                        faded(images[i], found.maps[i, turn]),
                        section="isolation",
                        scope=base | {"class": name, "group": sample.groups[i]},
                        caption=f"evidence for {name}, p = {likely[i, k]:.3f}",
                        values=values,
                    )  # fmt: skip
                )
        fill = "patches of clean backgrounds" if found.fill == "donors" else "a blur of the image itself"
        notes["isolation.fill"] = f"Hidden windows were replaced by {fill}."
        notes["isolation.evaluations"] = f"{found.evaluations} model evaluations on {len(sample)} images"
        write_findings(out, measurements, artifacts, notes)

    return examine(
        context, "isolate features", subject, ["eval", "donors"], look,
        module=__name__, parts=parts, expects=expects, settings=settings.model_dump(),
    )  # fmt: skip


def _shown(groups: tuple[str, ...], count: int) -> list[int]:
    """Rows of about `count` pictures for the report, groups in turn."""
    seen: dict[str, int] = {}
    turns = []
    for row, group in enumerate(groups):
        turns.append((seen.get(group, 0), group, row))
        seen[group] = seen.get(group, 0) + 1
    return [row for _, _, row in sorted(turns)[:count]]
