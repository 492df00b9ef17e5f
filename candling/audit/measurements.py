"""The one registry of measurements: what each means, how it is computed, which range it has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["REGISTRY", "MeasurementType", "check_measurement"]


@dataclass(frozen=True)
class MeasurementType:
    """A quantity that audits may record."""

    id: str
    title: str
    formula: str
    unit: str
    low: float
    high: float
    better: Literal["higher", "lower", "neither"]
    source: str


_INF = math.inf
_PROPORTION = ("proportion", 0.0, 1.0)
_RATIO = ("ratio", 0.0, _INF)

# fmt: off
_TYPES = (
    MeasurementType(
        "accuracy.overall",
        "Accuracy on the eval set",
        "correct / images",
        *_PROPORTION,
        "higher",
        "Wilson 95% interval",
    ),
    MeasurementType(
        "accuracy.like_train",
        "Accuracy on held-out data drawn like the training data",
        "correct / images",
        *_PROPORTION,
        "neither",
        "Wilson 95% interval",
    ),
    MeasurementType(
        "accuracy.group",
        "Accuracy of a group (class × background)",
        "correct / images of the group",
        *_PROPORTION,
        "higher",
        "Wilson 95% interval",
    ),
    MeasurementType(
        "accuracy.worst_group",
        "Accuracy of the worst group",
        "min over groups of accuracy.group",
        *_PROPORTION,
        "higher",
        "Sagawa et al. 2020 (arXiv 1911.08731); Wilson interval of that group, at 1 - 0.05/groups",
    ),
    MeasurementType(
        "background.follow_rate",
        "Conflict swaps that follow the background",
        "swaps predicted as the background's class / swaps whose background contradicts the object",
        *_PROPORTION,
        "lower",
        "after Xiao et al. 2021 (arXiv 2006.09994); Wilson 95% interval",
    ),
    MeasurementType(
        "background.placebo_rate",
        "Placebo swaps that change the prediction",
        "swaps onto another background of the object's own class that are misclassified / such swaps",
        *_PROPORTION,
        "lower",
        "the same paste without the conflict; Wilson 95% interval",
    ),
    MeasurementType(
        "counterfactual.object_removed",
        "Class still predicted with the object removed",
        "images of the class still predicted as it after the object is replaced by clean background / images",
        *_PROPORTION,
        "neither",
        "Wilson 95% interval",
    ),
    MeasurementType(
        "counterfactual.background_removed",
        "Class still predicted with the background removed",
        "images of the class predicted as it on a flat mean-colour background / images",
        *_PROPORTION,
        "higher",
        "Wilson 95% interval",
    ),
    MeasurementType(
        "object_evidence.share", "Share of the evidence that lies on the object",
        "Σ |evidence| on the mask / Σ |evidence|, evidence in log-odds of the class, for and against",
        *_PROPORTION, "higher", "after relevance mass accuracy, Arras et al. 2022 (arXiv 2003.07258)",
    ),
    MeasurementType(
        "object_evidence.positive_share", "Share of the positive evidence that lies on the object",
        "Σ positive evidence on the mask / Σ positive evidence",
        *_PROPORTION, "higher", "relevance mass accuracy, Arras et al. 2022 (arXiv 2003.07258)",
    ),
    MeasurementType(
        "object_evidence.over_chance", "Object evidence over chance",
        "mean object_evidence.share / mean area share of the mask",
        *_RATIO, "higher", "1 is what evidence spread evenly would give; bootstrap over images",
    ),
    MeasurementType(
        "object_evidence.shapley_share",
        "Shapley share of the object against the background",
        "|φ_object| / (|φ_object| + |φ_background|), "
        "two-player Shapley values of the log-odds over clean donors",
        *_PROPORTION,
        "higher",
        "Shapley 1953; bootstrap over images",
    ),
    MeasurementType(
        "object_evidence.part_over_area",
        "Evidence on an expected part over its area",
        "mean share of evidence, for and against, on the part / mean area share of the part",
        *_RATIO,
        "higher",
        "1 is what evidence spread evenly would give; bootstrap over images",
    ),
    MeasurementType(
        "prototype.probability_unseen_transforms",
        "Prototype's probability under unseen transforms",
        "mean softmax probability of the class over transforms that the optimiser never used",
        *_PROPORTION,
        "higher",
        "bootstrap over seeds",
    ),
    MeasurementType(
        "prototype.object_similarity",
        "Prototype resembles the object rather than its background",
        "median over prototypes of [mean cos(f(p), f(object on background)) "
        "- mean cos(f(p), f(the same background empty))]",
        "difference of cosines",
        -2.0,
        2.0,
        "higher",
        "f: centred penultimate features; bootstrap over seeds",
    ),
    MeasurementType(
        "entanglement.directed",
        "Class c's prototype also excites class k",
        "e(c→k) = z_k(p_c) / z_c(p_c), z the centred logit in standard deviations over the eval set",
        "ratio",
        -_INF,
        _INF,
        "lower",
        "candling; bootstrap over seeds",
    ),
    MeasurementType(
        "entanglement.strongest_pair",
        "Strongest entanglement of two classes",
        "max over c≠k of e(c→k)",
        "ratio",
        -_INF,
        _INF,
        "lower",
        "candling; interval of that pair",
    ),
)
# fmt: on

REGISTRY: dict[str, MeasurementType] = {kind.id: kind for kind in _TYPES}


def check_measurement(id: str, value: float | None) -> None:
    """Raise ValueError unless `id` is registered and `value` lies in its range."""
    kind = REGISTRY.get(id)
    if kind is None:
        raise ValueError(f"measurement {id!r} is not registered")
    # A hair of rounding is allowed at the edges: shares are sums of float32.
    if value is not None and not kind.low - 1e-6 <= value <= kind.high + 1e-6:
        raise ValueError(f"{id} is {value}, outside its range [{kind.low}, {kind.high}]")
