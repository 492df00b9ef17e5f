"""Step: test what isolation made suspect, places and factors, each against its placebo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import task

from candling.audit.record import Artifact, Finding, Measurement, measured
from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.load_model import Subject
from tasks.store import Stored

if TYPE_CHECKING:
    from torch import Tensor

    from candling.models import Classifier
    from candling.vision.counterfactuals import Tested
    from candling.vision.factors import FactorTest

__all__ = ["left_out", "test_suspicions"]

_LEAST = 30
_DIGITS = 8  # as in measurements
_DEFECTS = ("shortcut", "bias")
_FADED = 0.25  # of what lies beside a place


def left_out(*, masks: bool, like_train: bool) -> dict[str, str]:
    """Notes on what tests of suspicions lack."""
    notes = {}
    if not masks:
        notes["left_out.suspicions"] = (
            "Where the object is was guessed, so that a suspicion at the centre of pictures stays untested; "
            "masks of the objects would settle it, and let factors be changed on objects alone."
        )
    if not like_train:
        notes["left_out.associations"] = (
            "Whether a factor went with a class in training is not known; held-out pictures drawn like the "
            "training data (`like_train:`) would tell a shortcut from a mere weakness."
        )
    return notes


@task(name="test suspicions")
def test_suspicions(context: Context, subject: Subject, isolated: Stored) -> Stored:
    """Remove and transplant regions that maps point to; turn light, colour and focus up and down."""
    dataset, settings, seed = context.dataset, context.params.suspicions, context.params.seed

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        from safetensors.torch import load_file

        from candling.data import stratified
        from candling.vision.counterfactuals import Settings, suspect
        from candling.vision.factors import DoseSettings, dose_response, explained, through_places
        from tasks.pictures import audited_rows

        everything = dataset.read("eval")
        evidence = load_file(isolated.path / "maps.safetensors")
        audited = audited_rows(everything, dataset.audited)
        sampled = stratified(everything.take(audited), settings.images, seed=seed)
        drawn = [audited[row] for row in sampled]
        # What has a map is looked at too.
        rows = sorted({*drawn, *evidence["rows"].tolist()})
        sample = everything.take(rows)
        place = {row: i for i, row in enumerate(rows)}
        masks = None if sample.masks is None else sample.masks > 0
        # Pictures that share a source are one sample, where a manifest's column says so.
        sources = sample.slices.get("source")
        groups = sample.environments if any(sample.environments) else None
        places = suspect(
            model, sample.images, sample.labels, evidence["maps"][:, 1:2], evidence["classes"][:, 1:2],
            classes=list(dataset.audited), names=dataset.classes,
            rows=[place[row] for row in evidence["rows"].tolist()], masks=masks,
            groups=groups, sources=sources, settings=Settings(seed=seed), progress=tick,
        )  # fmt: skip
        history, doses = None, DoseSettings(seed=seed)
        if "like_train" in dataset:
            like = dataset.read("like_train")
            history = (like.images, like.labels)
        factors = dose_response(
            model, sample.images, sample.labels, masks=masks, sources=sources, like_train=history,
            groups=groups, classes=dataset.classes, settings=doses,
        )  # fmt: skip
        factors = through_places(
            model, sample.images, places, factors, sources=sources, like_train=history, settings=doses
        )
        places = explained(places, factors)
        measurements = [*_of_places(places), *_of_factors(factors)]
        found = [*map(_place, places), *_factors(factors, dataset.classes)]
        tested = [one for one in found if one.status != "untested"]
        confirmed = sum(
            one.status == "confirmed" and one.kind in _DEFECTS and "explained_by" not in (one.test or {})
            for one in found
        )
        counted = (float(confirmed), float(confirmed), float(confirmed), len(tested))
        note = "" if tested else "no suspicion could be tested"
        measurements.append(measured("shortcut.confirmed", counted if tested else None, least=1, note=note))
        artifacts = [
            *_maps(places, sample.images, sample.labels, out),
            *_curves(factors, dataset.classes, out),
        ]
        notes = left_out(masks=masks is not None, like_train=history is not None)
        write_findings(out, measurements, artifacts, notes, found)

    return examine(
        context, "test suspicions", subject, ["eval", "like_train"], look,
        module=__name__, settings=settings.model_dump(), isolated=isolated.digest,
    )  # fmt: skip


def _of_places(places: Sequence[Tested]) -> list[Measurement]:
    found = []
    for one in places:
        if one.test.effect is not None:
            # Beside other regions that stay as they are it is another measurement.
            scope = {"class": one.class_name, "region": one.candidate.where}
            scope |= {"beside": ", ".join(one.beside)} if one.beside else {}
            found.append(measured("shortcut.effect", one.test.effect, scope, least=_LEAST))
    return _once(found)


def _of_factors(factors: Sequence[FactorTest]) -> list[Measurement]:
    found = []
    for one in factors:
        described = one.status == "described"
        estimate = one.effect if described else one.excess
        if estimate is None:
            continue
        id = "factor.stays" if described else "factor.effect"
        scope = {"factor": one.factor} | ({} if described else {"part": one.region})
        found.append(measured(id, estimate, scope, least=_LEAST))
    return found


def _once(found: Sequence[Measurement]) -> list[Measurement]:
    """Two candidates may be told in the same words; the stronger effect stands for both."""
    strongest: dict[tuple[tuple[str, str], ...], Measurement] = {}
    for one in found:
        key = tuple(sorted(one.scope.items()))
        if key not in strongest or (one.value or 0.0) > (strongest[key].value or 0.0):
            strongest[key] = one
    return list(strongest.values())


def _place(one: Tested) -> Finding:
    return Finding(
        id=f"{one.kind}.{one.id}", kind=one.kind, scope={"class": one.class_name}, status=one.status,
        statement=one.statement, evidence=tuple(_of_places([one])),
        test=_rounded({"name": "remove and transplant against placebos", **one.details(), **one.evidence()}),
    )  # fmt: skip


def _factors(factors: Sequence[FactorTest], names: Sequence[str]) -> list[Finding]:
    """Of the whole picture, and of a part where confirmed; what is only described is no finding."""
    found = []
    for one in factors:
        if one.status == "described" or (one.region != "whole" and one.status != "confirmed"):
            continue
        status: Literal["confirmed", "dismissed", "untested"] = one.status
        test: dict[str, Any] = {"name": "dose and response against noise of equal size", "part": one.region}
        for key in ("effect", "placebo", "excess", "association"):
            estimate = getattr(one, key)
            if estimate is not None:
                test[key] = dict(estimate._asdict())
        for key in ("flips", "placebo_flips", "trend", "explained_by", "strongest"):
            if getattr(one, key) is not None:
                test[key] = getattr(one, key)
        for key, k in (("raises", one.raises), ("lowers", one.lowers)):
            if k is not None:
                test[key] = names[k]
        if one.curve:
            test["curve"] = [
                {"below": point.level, "changed": point.changed, "raised": point.gained, "left": point.lost}
                for point in one.curve
            ]
        found.append(
            Finding(
                id=one.slug,
                kind=one.kind or "weakness",
                scope={"factor": one.family},
                status=status,
                statement=one.statement,
                evidence=tuple(_of_factors([one])),
                test=_rounded(test),
            )  # fmt: skip
        )
    return found


def _rounded(value: Any) -> Any:
    """Plain data with as many digits as measurements have; what is not finite is left out as None."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value


def _maps(places: Sequence[Tested], images: Tensor, labels: Tensor, out: Path) -> list[Artifact]:
    """Each place in a picture that it was found in, the rest of it faded."""
    import torch

    from candling.data import unit
    from tasks.artifacts import picture

    every, found = torch.arange(len(images)), []
    for one in places:
        if one.candidate.kind == "object":
            continue
        regions = one.candidate.of(every)
        shows = regions.flatten(1).any(1)
        row = int((shows.int() + (shows & (labels == one.candidate.target)).int()).argmax())
        image = unit(images[row : row + 1])[0]
        found.append(
            picture(
                out,
                f"pictures/suspicions/{one.kind}-{one.id}",
                torch.where(regions[row], image, 1 - _FADED * (1 - image)),
                section="suspicions",
                scope={"class": one.class_name, "region": one.candidate.where},
                caption=f"{one.class_name}: {one.candidate.words}, {one.status}",
                values={"share_of_evidence": one.candidate.share_of_evidence},
            )  # fmt: skip
        )
    return found


def _curves(factors: Sequence[FactorTest], names: Sequence[str], out: Path) -> list[Artifact]:
    """All curves on one page."""
    from tasks.artifacts import drawing
    from tasks.plots import dose_curves

    told = [one for one in factors if one.region == "whole" and one.curve and one.status != "described"]
    if not told:
        return []
    return [
        drawing(
            out,
            "pictures/suspicions/doses",
            dose_curves(told, names),
            section="suspicions",
            caption="share of predictions that change as each factor goes from its 5% to its 95% quantile",
        )  # fmt: skip
    ]
