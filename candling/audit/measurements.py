"""The one registry of measurements: what each means, how it is computed, which range it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["REGISTRY", "MeasurementType", "check_measurement", "direction"]


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
        "attack.success_rate", "Rightly predicted pictures that an attack turns to another class",
        "pictures taken, as saved in 8 bits, for the class they were attacked towards / pictures attacked",
        *_PROPORTION, "lower",
        "projected gradient descent within the largest epsilon, Madry et al. 2018 (arXiv 1706.06083); each "
        "class towards the others in turn; Wilson 95% interval",
    ),
    MeasurementType(
        "attack.median_epsilon", "Smallest change of a picture that turns it to another class",
        "median over pictures of the smallest epsilon at which the attack succeeds; the largest tried where "
        "none does",
        "fraction of the range of a pixel", 0.0, _INF, "higher",
        "an upper bound, as every attack gives; norm as in the record's notes; bootstrap over pictures",
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
        "isolation.insertion_minus_deletion", "Faithfulness of the maps",
        "mean over pictures of the area under P(class | most important pixels alone) less that under "
        "P(class | most important pixels gone), the rest blurred",
        "difference of proportions", -1.0, 1.0, "higher",
        "Petsiuk et al. 2018 (arXiv 1806.07421), of the predicted class; bootstrap over pictures",
    ),
    MeasurementType(
        "isolation.over_random", "Faithfulness over random maps",
        "mean over pictures of isolation.insertion_minus_deletion less that of smooth random maps",
        "difference", -2.0, 2.0, "higher", "the same pictures; paired bootstrap",
    ),
    MeasurementType(
        "isolation.over_centre", "Faithfulness over a map of the centre",
        "mean over pictures of isolation.insertion_minus_deletion less that of a Gaussian at the centre",
        "difference", -2.0, 2.0, "higher", "the same pictures; paired bootstrap",
    ),
    MeasurementType(
        "isolation.pointing_game", "Most important pixel lies on the object",
        "pictures whose largest evidence lies within 15/224 of the side of the mask / pictures",
        *_PROPORTION, "higher", "Zhang et al. 2018 (arXiv 1608.00507); chance: isolation.pointing_chance",
    ),
    MeasurementType(
        "isolation.pointing_chance", "Chance that a random pixel lies on the object",
        "mean area share of the mask grown by 15/224 of the side",
        *_PROPORTION, "neither", "what isolation.pointing_game is held against",
    ),
    MeasurementType(
        "isolation.rank_accuracy", "Most important pixels lie on the object",
        "of the most important pixels, as many as the mask has, the share on the mask",
        *_PROPORTION, "higher", "Arras et al. 2022 (arXiv 2003.07258); chance: isolation.rank_chance",
    ),
    MeasurementType(
        "isolation.rank_chance", "Chance that pixels lie on the object", "mean area share of the mask",
        *_PROPORTION, "neither", "what isolation.rank_accuracy is held against",
    ),
    MeasurementType(
        "isolation.stability", "Maps stay where the prediction stays",
        "mean rank correlation of maps of a picture and of noisy copies with the same prediction",
        "correlation", -1.0, 1.0, "higher", "bootstrap over pictures",
    ),
    MeasurementType(
        "isolation.complexity_rise", "Maps of a randomised model are more complex",
        "(entropy of the map with shuffled parameters - entropy of the map) / entropy of the map",
        "ratio", -1.0, _INF, "higher",
        "efficient MPRT, Hedström et al. 2024 (arXiv 2401.06465); 0 for maps that know nothing of the model",
    ),
    MeasurementType(
        "shortcut.effect", "Predictions that a suspected region turns, beyond a placebo",
        "share of pictures of other classes that become the class when the region is put into them, or that "
        "leave it when the region is removed, less the same for the closest placebo; `beside` names smaller "
        "regions, confirmed before, that stay as they are",
        "difference of proportions", -1.0, 1.0, "lower",
        "candling; placebos: other regions of equal area, and the same region of the picture's own class; "
        "bootstrap over sources of images, at 1 - 0.05/candidates",
    ),
    MeasurementType(
        "shortcut.confirmed", "Shortcuts that were confirmed",
        "suspicions confirmed as shortcut or bias, places and factors, without those that another explains",
        "count", 0.0, _INF, "lower",
        "a count of all that were tested, n: its interval is its value; inconclusive where none could be",
    ),
    MeasurementType(
        "factor.effect", "Predictions that a factor of the picture turns one way, beyond a placebo",
        "share of predictions that go one way from the lowest to the highest dose, less that of noise of "
        "equal size",
        "difference of proportions", -1.0, 1.0, "lower",
        "candling; doses are the 5% to 95% quantiles of the factor among the pictures; bootstrap over "
        "sources of images, at 1 - 0.05/(factors · parts)",
    ),
    MeasurementType(
        "factor.stays", "Predictions that stay without shape, or without texture",
        "predictions unchanged with tiles shuffled, or with objects flattened to silhouettes / pictures",
        *_PROPORTION, "neither", "after Geirhos et al. 2019 (arXiv 1811.12231); bootstrap over sources",
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
        "of penultimate features centred on the mean over classes; jackknife over seeds, which share pairs",
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
    MeasurementType(
        "entanglement.symmetric",
        "Two classes' prototypes excite each other",
        "m(c,k) = min(e(c→k), e(k→c)), e as in entanglement.directed",
        "ratio", -_INF, _INF, "lower",
        "candling; interval: the smaller ends of both directions', n the smaller number of seeds",
    ),
    MeasurementType(
        "entanglement.significant_pairs",
        "Pairs that excite each other more than unrelated classes do",
        "pairs with q ≤ 0.05 / pairs tested; p of m(c,k) against all m(c,j) and m(k,j) by Student's "
        "prediction interval, q after Benjamini and Hochberg",
        *_PROPORTION, "lower",
        "Benjamini & Hochberg 1995; a count of all pairs, not a sample: its interval is its value",
    ),
    MeasurementType(
        "entanglement.confusion_correlation",
        "Entangled classes are confused",
        "Spearman's rank correlation over pairs of m(c,k) with the mean confusion rate of both directions",
        "correlation", -1.0, 1.0, "neither",
        "bootstrap over classes (Snijders & Borgatti 1999) and over the pictures of each; n counts classes",
    ),
    MeasurementType(
        "entanglement.attack_correlation",
        "Entangled classes are cheap to attack",
        "Spearman's rank correlation over pairs of m(c,k) with the mean cost of targeted attacks both ways",
        "correlation", -1.0, 1.0, "neither",
        "negative where entangled pairs are cheaper; bootstrap over classes (Snijders & Borgatti 1999)",
    ),
    MeasurementType(
        "association.confirmed", "Associations of a concept that were confirmed",
        "items that prompts for the concept share beyond those of controls, or of the concept against, found "
        "in two blocks of restarts and confirmed in templates; of a lexicon, those that are its words or the "
        "lexicon itself, which templates alone confirm",
        "count", 0.0, _INF, "lower",
        "Monroe et al. 2008 with permuted labels, Benjamini & Hochberg 1995; a count: its interval is its "
        "value; n restarts; inconclusive where too few restarts reached the concept and nothing is confirmed",
    ),
    MeasurementType(
        "association.effect", "What a word or a lexicon does to a concept in templates",
        "mean over words of log Σ_t p(concept | t with the word), less the same of other words; beside "
        "another concept, of the difference to that one's",
        "nats", -_INF, _INF, "neither",
        "candling; bootstrap over templates t and over words of either, at 1 - 0.05/items of the map",
    ),
    MeasurementType(
        "association.pair_asymmetry", "Strongest thing that tells two concepts apart",
        "max of |association.effect| over confirmed items of the comparison, 0 where there is none; of a "
        "lexicon, |its effect|",
        "nats", 0.0, _INF, "lower",
        "candling; interval of that item; inconclusive where the map is and nothing is confirmed",
    ),
    MeasurementType(
        "association.reached", "Restarts whose prompt makes the model say the concept",
        "restarts after which the concept is likelier than not or greedily said, or follows one time in "
        "twenty and twenty times as often as without a prompt / restarts",
        *_PROPORTION, "neither", "Wilson 95% interval",
    ),
    MeasurementType(
        "attribution.comprehensiveness", "Log-probability that is lost without what attribution names",
        "mean over prompts, and over the strongest 1, 5, 10, 20 and 50% of words, of log p(output | prompt) "
        "- log p(output | prompt without them)",
        "nats", -_INF, _INF, "higher", "DeYoung et al. 2020 (arXiv 1911.03429); bootstrap over prompts",
    ),
    MeasurementType(
        "attribution.over_random", "Comprehensiveness beyond that of words in random order",
        "attribution.comprehensiveness - the mean of the same over 10 random orders",
        "nats", -_INF, _INF, "higher", "bootstrap over prompts",
    ),
    MeasurementType(
        "attribution.sufficiency", "Log-probability that is lost where only what attribution names is left",
        "mean over prompts and shares of log p(output | prompt) - log p(output | the words alone)",
        "nats", -_INF, _INF, "lower", "DeYoung et al. 2020 (arXiv 1911.03429); bootstrap over prompts",
    ),
    MeasurementType(
        "glitch.tokens", "Glitch tokens",
        "tokens after which one and the same word is likelier by 0.2 in most texts, wherever they stand",
        "count", 0.0, _INF, "lower",
        "after Land & Bartolo 2024 (arXiv 2405.05417); Wilson interval of the share of texts above a half; a "
        "count of all tokens tried, n: its interval is its value",
    ),
    MeasurementType(
        "glitch.rise", "What a token makes the model say, wherever it stands",
        "mean over texts of p(word | text with the token two tokens before) - p(word | text)",
        "difference of proportions", -1.0, 1.0, "lower",
        "the word is chosen on other texts than it is measured on; bootstrap over texts",
    ),
    MeasurementType(
        "lexicon.hit_rate", "Prompts that make the model say a word of a lexicon",
        "prompts whose greedy continuation holds a word of the lexicon / prompts",
        *_PROPORTION, "lower", "Wilson 95% interval",
    ),
    MeasurementType(
        "perplexity.held_out", "Perplexity of held-out texts",
        "exp of the mean over tokens of -log p(token | those before it)",
        "perplexity a token", 1.0, _INF, "lower", "bootstrap over texts",
    ),
)
# fmt: on

REGISTRY: dict[str, MeasurementType] = {kind.id: kind for kind in _TYPES}


def direction(id: str, scope: Mapping[str, str]) -> Literal["higher", "lower", "neither"]:
    """Which way is better: as the registry has it, but that a class taken for itself is no confusion."""
    if id == "confusion.rate" and len(set(scope.values())) == 1:
        return "higher"
    return REGISTRY[id].better


def check_measurement(id: str, value: float | None) -> None:
    """Raise ValueError unless `id` is registered and `value` lies in its range."""
    kind = REGISTRY.get(id)
    if kind is None:
        raise ValueError(f"measurement {id!r} is not registered")
    # A hair of rounding is allowed at the edges: shares are sums of float32.
    if value is not None and not kind.low - 1e-6 <= value <= kind.high + 1e-6:
        raise ValueError(f"{id} is {value}, outside its range [{kind.low}, {kind.high}]")
