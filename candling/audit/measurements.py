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
        "accuracy.class", "Accuracy of a class", "correct / images of the class",
        *_PROPORTION, "higher", "Wilson 95% interval",
    ),
    MeasurementType(
        "accuracy.slice", "Accuracy of a slice",
        "correct / images of the slice, all that share a value of a column of the manifest",
        *_PROPORTION, "higher", "Wilson 95% interval; images that share a source are one sample",
    ),
    MeasurementType(
        "accuracy.worst_slice", "Accuracy of the worst slice", "min over slices of accuracy.slice",
        *_PROPORTION, "higher", "Wilson interval of that slice, at 1 - 0.05/slices",
    ),
    MeasurementType(
        "calibration.error", "Expected calibration error",
        "Σ_b images_b / images · |accuracy_b - confidence_b| over bins b of equally many images, "
        "less what chance adds to it",
        *_PROPORTION, "lower",
        "Guo et al. 2017 (arXiv 1706.04599), debiased after Kumar et al. 2019 (arXiv 1909.10155); "
        "bootstrap over sources of images",
    ),
    MeasurementType(
        "calibration.overconfidence", "Confidence above accuracy", "mean confidence - accuracy",
        "difference of proportions", -1.0, 1.0, "neither",
        "0 is neither too sure nor too modest; interval of a difference, Newcombe 1998",
    ),
    MeasurementType(
        "calibration.bin_accuracy", "Accuracy of the images in a bin of confidence",
        "correct / images of the bin", *_PROPORTION, "neither", "Wilson 95% interval",
    ),
    MeasurementType(
        "calibration.bin_confidence", "Mean confidence of the images in a bin",
        "mean over the bin of the predicted class's probability",
        *_PROPORTION, "neither", "a description of the bin: no interval",
    ),
    MeasurementType(
        "confusion.rate", "Images of one class predicted as another",
        "images of class `from` predicted as `to` / images of class `from`",
        *_PROPORTION, "lower", "Wilson 95% interval; from a class to itself it is the class's accuracy",
    ),
    MeasurementType(
        "confusion.strongest_pair", "Strongest confusion of two classes",
        "max over from≠to of confusion.rate",
        *_PROPORTION, "lower", "Wilson interval of that pair, at 1 - 0.05/pairs",
    ),
    MeasurementType(
        "robustness.accuracy", "Accuracy under a corruption",
        "correct / images, all under the corruption at the severity; severity 0 is the clean image",
        *_PROPORTION, "higher",
        "Hendrycks & Dietterich 2019 (arXiv 1903.12261); Wilson 95% interval",
    ),
    MeasurementType(
        "robustness.mean", "Accuracy that survives the usual corruptions",
        "mean over corruptions and severities of robustness.accuracy / accuracy on the clean images",
        *_RATIO, "higher",
        "after Hendrycks & Dietterich 2019 (arXiv 1903.12261); bootstrap over sources of images",
    ),
    MeasurementType(
        "robustness.worst", "Accuracy under the worst corruption",
        "min over corruptions and severities of robustness.accuracy",
        *_PROPORTION, "higher", "Wilson interval of that one, at 1 - 0.05/(corruptions · severities)",
    ),
    MeasurementType(
        "data.quarantined", "Pictures that could not be read", "pictures quarantined / pictures listed",
        *_PROPORTION, "lower", "a count of all pictures, not a sample: its interval is its value",
    ),
    MeasurementType(
        "data.unmapped", "Pictures left out because their label is none of the classes",
        "pictures with a label that is no class of the model / pictures listed",
        *_PROPORTION, "lower", "a count of all pictures, not a sample: its interval is its value",
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
        "prototype.trust",
        "Trust in the class's prototypes",
        "mean over seeds of (u · a · p · t)^(1 / how many of these were measured): u the probability of the "
        "class over chance, max(0, (P - chance) / (1 - chance)), the second lowest under unseen transforms, "
        "a prototype.agreement, p prototype.path_similarity, t the probability over chance in a second "
        "model; chance is 1 / classes, 1/2 for sigmoids",
        *_PROPORTION, "higher",
        "0 says no more than chance, and no part makes up for it; bootstrap over seeds",
    ),
    MeasurementType(
        "prototype.agreement",
        "Seeds of the class agree",
        "mean over seeds of max(0, (s - o) / (1 - o)), s the mean cosine with the class's other seeds, "
        "o that with prototypes of other classes",
        *_PROPORTION, "higher",
        "of penultimate features centred on the mean over classes; bootstrap over seeds",
    ),
    MeasurementType(
        "prototype.path_similarity",
        "Layers work on the prototype as on natural pictures of the class",
        "mean over seeds and layers of exp(-max(0, (c - s) / sd)), s the mean rank correlation of its "
        "activations with those of natural pictures of the class, c and sd the mean and standard deviation "
        "of theirs with each other",
        *_PROPORTION, "higher",
        "after Geirhos et al. 2023 (arXiv 2306.04719) and Prototype Generation (arXiv 2309.17144); 0 where "
        "no layer tells natural pictures of the classes apart; bootstrap over seeds",
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
        "e(c→k) = z_k(p_c) / z_c(p_c), z the centred logit in standard deviations over the eval set, "
        "of prototypes with z_c(p_c) ≥ 1",
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
