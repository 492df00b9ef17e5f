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
    from torch import Tensor

    from candling.audit.record import Measurement
    from candling.data import Pictures
    from candling.models import Classifier
    from candling.statistics import Estimate
    from candling.vision.isolation import Hierarchical, Windows
    from tasks.params import IsolationParams

__all__ = ["CURVE", "DRAWS", "LIKELY", "isolate_eval_set", "isolation_method", "left_out"]

CURVE = 25  # pictures along a curve of insertion or deletion
LIKELY = 2  # classes, beside the label, that there are maps for
DRAWS = 2  # random maps of each picture, and noisy copies


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


def isolation_method(settings: IsolationParams, donors: Tensor | None) -> Hierarchical | Windows:
    """The method that params describe, which hides windows behind clean backgrounds where there are some."""
    from candling.vision.isolation import Hierarchical, Windows

    kind = Hierarchical if settings.method == "hierarchical" else Windows
    return kind(donors=donors, **settings.settings)


@task(name="isolate features")
def isolate_eval_set(context: Context, subject: Subject) -> Stored:
    """Evidence maps on a stratified sample, how faithful they are, and what of them lies on the object."""
    dataset, settings = context.dataset, context.params.isolation
    parts, expects = context.params.data.parts, context.expected_parts

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import torch
        from safetensors.torch import save_file

        from candling.data import stratified, unit
        from candling.models import logits, probabilities
        from candling.statistics import mean, ratio_of_means
        from candling.vision.isolation import evidence_share, faded, isolate, object_shapley
        from tasks.artifacts import picture
        from tasks.pictures import audited_rows, donors_in_turn

        everything = dataset.read("eval")
        kept = audited_rows(everything, dataset.audited)
        everything = everything.take(kept)
        rows = stratified(everything, settings.images, seed=context.params.seed)
        sample = everything.take(rows)
        images = unit(sample.images)
        donors = donors_in_turn(dataset.read("donors")) if "donors" in dataset else None
        likely = probabilities(model, logits(model, images))
        top = likely.topk(min(LIKELY, likely.shape[1]), 1).indices
        # The first map of an image is that of its label, the others of what the model takes it for.
        own = sample.labels
        method = isolation_method(settings, donors)
        found = isolate(
            model, images, classes=torch.cat([own[:, None], top], 1), method=method,
            precision=settings.precision, progress=tick,
        )  # fmt: skip
        save_file(
            {"maps": found.maps, "classes": found.classes, "rows": torch.tensor(kept)[rows]},
            out / "maps.safetensors",
        )
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
        measurements += _faithfulness(
            model, images, found.maps[:, 1], top[:, 0], sample.masks, method, settings
        )  # fmt: skip
        notes["isolation.method"] = f"{found.method}"
        notes["isolation.evaluations"] = f"{found.evaluations} model evaluations on {len(sample)} images"
        write_findings(out, measurements, artifacts, notes)

    return examine(
        context, "isolate features", subject, ["eval", "donors"], look,
        module=__name__, parts=parts, expects=expects, settings=settings.model_dump(),
    )  # fmt: skip


def _faithfulness(
    model: Classifier,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    masks: Tensor | None,
    method: Hierarchical | Windows,
    settings: IsolationParams,
) -> list[Measurement]:
    """Whether maps of the predicted class show what the model uses, each figure beside what knows nothing."""
    import numpy as np

    from candling.statistics import mean
    from candling.vision.faithfulness import located, over_controls, rise_in_complexity, stability
    from candling.vision.isolation import isolate

    def explain(pictures: Tensor, wanted: Tensor) -> Tensor:
        return isolate(
            model, pictures, classes=wanted[:, None], method=method, precision=settings.precision
        ).maps[:, 0]

    def over(scores: Tensor) -> tuple[Estimate | None, str]:
        told = scores[~scores.isnan()].double().numpy()
        note = "" if len(told) == len(scores) else f"{len(told)} of {len(scores)} pictures tell"
        return (mean(told) if len(told) else None), note

    curve = over_controls(model, images, maps, classes, steps=CURVE, draws=DRAWS)
    found: dict[str, tuple[Estimate | None, str]] = {
        "isolation.insertion_minus_deletion": over(curve.score),
        "isolation.over_random": (curve.over_random, ""),
        "isolation.over_centre": (curve.over_centre, ""),
    }
    if masks is not None:
        there = located(maps, masks)
        found["isolation.pointing_game"] = over(there.pointing)
        found["isolation.pointing_chance"] = over(there.nearby)
        found["isolation.rank_accuracy"] = over(there.rank)
        found["isolation.rank_chance"] = over(there.area)
    few = np.linspace(0, len(images) - 1, min(settings.checks, len(images))).round().astype(int).tolist()
    if few:
        some, own = images[few], classes[few]
        steady = stability(model, some, explain, own, draws=DRAWS)
        found["isolation.stability"] = over(steady.rank)
        if model.differentiable:
            risen = rise_in_complexity(model, lambda _: explain(some, own))
            found["isolation.complexity_rise"] = over(risen.rise)
    return [measured(id, estimate, least=10, note=note) for id, (estimate, note) in found.items()]


def _shown(groups: tuple[str, ...], count: int) -> list[int]:
    """Rows of about `count` pictures for the report, groups in turn."""
    seen: dict[str, int] = {}
    turns = []
    for row, group in enumerate(groups):
        turns.append((seen.get(group, 0), group, row))
        seen[group] = seen.get(group, 0) + 1
    return [row for _, _, row in sorted(turns)[:count]]
