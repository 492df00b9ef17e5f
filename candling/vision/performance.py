"""What every owner of a model expects: accuracy, calibration, confusion and robustness, with intervals.

Pure functions on probabilities, predicted indices and labels. Classes are indices into the model's outputs,
so that a model of a thousand classes can be judged on nine of them: what it predicts outside is wrong.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from candling.statistics import (
    Estimate,
    effective_size,
    resampled_sums,
    share,
    sums_by_source,
    wilson,
)

__all__ = [
    "Bin",
    "Calibration",
    "Confusion",
    "Robustness",
    "accuracy_by",
    "calibration",
    "confusion",
    "robustness",
    "worst_of",
]

Key = TypeVar("Key", bound=Hashable)
Sources = Sequence[Hashable]

_BINS = 15
_IMAGES_PER_BIN = 10


# -- Groups --------------------------------------------------------------------------------------


def _right(right: Tensor) -> NDArray[np.bool_]:
    """(N,) bool on the CPU, checked."""
    if right.ndim != 1 or right.dtype != torch.bool:
        raise ValueError(f"`right` must be bool (N,), got {right.dtype} {tuple(right.shape)}")
    return np.asarray(right.cpu())


def _rows_by(keys: Sequence[Key]) -> dict[Key, list[int]]:
    rows: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows


def _check_length(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"{wanted} images need as many {name}, got {found}")


def accuracy_by(
    right: Tensor, keys: Sequence[Key], *, sources: Sources | None = None, confidence: float = 0.95
) -> dict[Key, Estimate]:
    """Accuracy of each group with its Wilson interval, groups in order of appearance.

    Parameters
    ----------
    right
        bool (N,): whether each image was predicted rightly.
    keys
        N, what each image is grouped by: its class, a value of a column, anything hashable. For slices
        of several columns, repeat `right` for each column and use (column, value).
    sources
        N, what each image was taken from; images that share a source are one sample.
    """
    hits = _right(right)
    _check_length("keys", len(keys), len(hits))
    return {
        key: share(hits[rows], None if sources is None else [sources[i] for i in rows], confidence=confidence)
        for key, rows in _rows_by(keys).items()
    }


def worst_of(
    right: Tensor, keys: Sequence[Key], *, sources: Sources | None = None, least: int = 1
) -> tuple[Key, Estimate] | None:
    """The group with the lowest accuracy, its interval widened for having been picked out of all.

    Parameters
    ----------
    right, keys, sources
        As for `accuracy_by`.
    least
        Groups with fewer samples are passed over, unless all have fewer: of many small groups one is
        wrong throughout by chance alone.

    Returns
    -------
    tuple or None
        The group and its accuracy with the Wilson interval at 1 - 0.05 / groups (Bonferroni: it holds for
        all of them at once); of groups that are equally bad the one with the most samples, then the first.
        None if there are no images.
    """
    found = accuracy_by(right, keys, sources=sources)
    judged = {key: e for key, e in found.items() if e.n >= least} or found
    if not judged:
        return None
    wide = accuracy_by(right, keys, sources=sources, confidence=1 - 0.05 / len(judged))
    worst = min(judged, key=lambda key: (judged[key].value, -judged[key].n))
    return worst, wide[worst]


# -- Calibration ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bin:
    """Images of similar confidence: `name` is their range, `confidence` their mean confidence."""

    name: str
    accuracy: Estimate
    confidence: float


@dataclass(frozen=True)
class Calibration:
    """How far confidence can be trusted.

    error: expected calibration error, in [0, 1]. overconfidence: mean confidence minus accuracy, in [-1, 1].
    bins: of rising confidence, about equally many images in each.
    """

    error: Estimate
    overconfidence: Estimate
    bins: tuple[Bin, ...]


def calibration(
    probabilities: Tensor,
    labels: Tensor,
    *,
    sources: Sources | None = None,
    bins: int | None = None,
    seed: int = 0,
) -> Calibration:
    """Expected calibration error of the predicted class (Guo et al. 2017, arXiv 1706.04599), debiased.

    The mean over bins of |accuracy - confidence| is too large by what chance adds to each bin; that part,
    the mean of a folded normal less its centre, is taken off (after Kumar et al. 2019, arXiv
    1909.10155). Its interval is a pivotal bootstrap of whole sources: as far around it as resampled errors
    lie around the error of the sample. It reaches 0 where a calibrated model could look as bad in one
    sample of 40.

    Parameters
    ----------
    probabilities
        float (N, K), each row summing to 1.
    labels
        int (N,), indices of columns.
    sources
        N, what each image was taken from; None: each is a sample of its own.
    bins
        How many, each with as many images as the next; by default 15, or one for every 10 images where
        that is fewer. Images of equal confidence stay together, which may leave fewer.

    Raises
    ------
    ValueError
        If shapes do not fit, a row is no distribution, a label is no column, or there are no images.
    """
    _check_probabilities(probabilities, labels)
    confidence_, predicted = probabilities.detach().cpu().double().max(1)
    confidence = confidence_.clamp(0, 1).numpy()
    right = np.asarray(predicted == labels.cpu())
    count = len(confidence)
    if sources is None:
        sources = range(count)
    _check_length("sources", len(sources), count)
    where = _equal_mass(confidence, bins or min(_BINS, max(1, count // _IMAGES_PER_BIN)))
    used = int(where.max()) + 1

    # Of each source and bin: images, what confidence has too much, and confidence. All is made of these sums.
    parts = np.zeros((count, used, 3))
    parts[np.arange(count), where] = np.stack([np.ones(count), confidence - right, confidence], 1)
    sums = sums_by_source(parts, sources)
    total = sums.sum(0)
    drawn = resampled_sums(sums, seed=seed)

    over = _overconfidence(confidence, drawn, share(right, sources))
    weight = total[:, 0] / count
    gap = np.abs(total[:, 1]) / total[:, 0]
    noise = _noise(sums, total)
    plain = float(weight @ gap)
    error = float(np.clip(weight @ _less_chance(gap, noise), 0, 1))
    gaps = np.abs(drawn[..., 1]) / np.maximum(drawn[..., 0], 1)
    weights = drawn[..., 0] / drawn[..., 0].sum(1, keepdims=True)
    shifts = (weights * _less_chance(gaps, noise)).sum(1) - plain
    low, high = error - np.percentile(shifts, 97.5), error - np.percentile(shifts, 2.5)
    # Near no error at all resampling is too sure: it takes chance in the sample for the truth.
    chance = np.abs(np.random.default_rng(seed).normal(size=(len(drawn), used))) * noise
    if plain <= np.percentile(chance @ weight, 97.5):
        low = 0.0
    # No model errs less in its bins than it does on the whole.
    high = max(high, abs(over.low), abs(over.high), error)
    return Calibration(
        error=Estimate(error, max(min(float(low), error), 0.0), min(float(high), 1.0), len(sums)),
        overconfidence=over,
        bins=tuple(_bins(confidence, right, where, sources)),
    )


def _overconfidence(
    confidence: NDArray[np.float64], drawn: NDArray[np.float64], accuracy: Estimate
) -> Estimate:
    """Mean confidence less accuracy with the interval of a difference (Newcombe 1998, method 10).

    It keeps the width of Wilson's interval where no image is wrong, which resampling does not see.
    """
    mean = float(confidence.mean())
    low, high = np.percentile(drawn[..., 2].sum(1) / drawn[..., 0].sum(1), [2.5, 97.5])
    value = mean - accuracy.value
    below = np.hypot(mean - low, accuracy.high - accuracy.value)
    above = np.hypot(high - mean, accuracy.value - accuracy.low)
    return Estimate(value, max(value - float(below), -1.0), min(value + float(above), 1.0), accuracy.n)


def _check_probabilities(probabilities: Tensor, labels: Tensor) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities must be (N, K) and labels (N,), got {tuple(probabilities.shape)} and "
            f"{tuple(labels.shape)}"
        )
    if not len(labels):
        raise ValueError("calibration needs at least one image")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be from 0 to {probabilities.shape[1] - 1}")
    sums = probabilities.double().sum(1)
    if not (probabilities >= 0).all() or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ValueError("rows of probabilities must be at least 0 and sum to 1; are these logits?")


def _equal_mass(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """(N,) the bin of each image: about N / bins in each, equal confidences together."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    ranks = np.searchsorted(np.sort(confidence), confidence)
    return np.unique(ranks * bins // len(confidence), return_inverse=True)[1].astype(np.int64)


def _noise(sums: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error (bins,) of each bin's gap between confidence and accuracy."""
    images, gap = total[:, 0], total[:, 1] / total[:, 0]
    seen: NDArray[np.float64] = np.sqrt(np.square(sums[..., 1] - sums[..., 0] * gap).sum(0)) / images
    # A bin without a single mistake is not without chance: Laplace's rule of succession.
    worth = images**2 / np.square(sums[..., 0]).sum(0)
    p = (worth * (total[:, 2] / images - gap) + 1) / (worth + 2)
    noise: NDArray[np.float64] = np.maximum(seen, np.sqrt(p * (1 - p) / worth))
    return noise


def _less_chance(gap: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """|gap| less what noise adds to it on average: twice it less the mean of the folded normal."""
    z = gap / noise
    below: NDArray[np.float64] = norm.cdf(-z)
    folded = noise * np.sqrt(2 / np.pi) * np.exp(-np.square(z) / 2) + gap * (1 - 2 * below)
    corrected: NDArray[np.float64] = 2 * gap - folded
    return corrected


def _bins(
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    where: NDArray[np.int64],
    sources: Sources,
) -> Iterator[Bin]:
    rows = [np.flatnonzero(where == b).tolist() for b in range(int(where.max()) + 1)]
    names = _ranges([(float(confidence[r].min()), float(confidence[r].max())) for r in rows])
    for name, r in zip(names, rows, strict=True):
        yield Bin(name, share(right[r], [sources[i] for i in r]), float(confidence[r].mean()))


def _ranges(ends: Sequence[tuple[float, float]]) -> list[str]:
    """`0.91–0.97`, with as many digits as it takes to tell the ranges apart."""
    names: list[str] = []
    for digits in range(2, 18):
        names = [f"{low:.{digits}f}–{high:.{digits}f}" for low, high in ends]
        if len(set(names)) == len(names):
            break
    return names


# -- Confusion -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Confusion:
    """counts: int64 (K, K + 1), images of class i predicted as j; column K is any class not looked at.

    samples: of each class, how many independent sources its images come from; effective: how many
    independent images they are worth.
    """

    counts: Tensor
    samples: tuple[int, ...]
    effective: tuple[float, ...]

    def rate(self, i: int, j: int, *, confidence: float = 0.95) -> Estimate:
        """Share of the images of class i predicted as j, with its Wilson interval.

        Raises
        ------
        ValueError
            If the class has no images.
        """
        total = int(self.counts[i].sum())
        if not total:
            raise ValueError(f"class {i} has no images")
        p = int(self.counts[i, j]) / total
        return Estimate(p, *wilson(p, self.effective[i], confidence=confidence), self.samples[i])

    def pairs(self, *, zeros: bool = True) -> Iterator[tuple[int, int, Estimate]]:
        """Every pair i, j of which class i has images, i = j among them, row by row.

        Without `zeros`, only those that occurred: of a thousand classes a million pairs did not.
        """
        for i in range(len(self.counts)):
            if self.samples[i]:
                for j in range(self.counts.shape[1]):
                    if zeros or self.counts[i, j]:
                        yield i, j, self.rate(i, j)

    def strongest(self, *, least: int = 1) -> tuple[int, int, Estimate] | None:
        """The pair i → j, i ≠ j, with the largest rate; its interval holds for all pairs at once.

        Classes with fewer than `least` samples are passed over, unless all that were confused have fewer.
        Of pairs that are equally strong the one with the most samples, then the first. None if no image
        was predicted wrongly.
        """
        wrong = self.counts.clone()
        wrong.fill_diagonal_(0)
        found = [(i, j) for i, j in wrong.nonzero().tolist()]
        judged = [pair for pair in found if self.samples[pair[0]] >= least] or found
        if not judged:
            return None
        totals = self.counts.sum(1).tolist()
        i, j = max(judged, key=lambda p: (int(wrong[p[0], p[1]]) / totals[p[0]], self.samples[p[0]]))
        # Each class that has images can be taken for K - 1 others, or for none of those looked at.
        pairs = len(self.counts) * sum(n > 0 for n in self.samples)
        return i, j, self.rate(i, j, confidence=1 - 0.05 / pairs)


def confusion(
    predicted: Tensor, labels: Tensor, classes: Sequence[int], *, sources: Sources | None = None
) -> Confusion:
    """How often images of each class are predicted as each of `classes`, or as something else.

    Parameters
    ----------
    predicted, labels
        int (N,), indices into the model's outputs; every label is one of `classes`.
    classes
        The K classes that are looked at, in the order of rows and columns.
    sources
        N, what each image was taken from; None: each is a sample of its own.

    Raises
    ------
    ValueError
        If lengths differ, a class is named twice, or a label is not one of `classes`.
    """
    place = {index: k for k, index in enumerate(classes)}
    if len(place) != len(classes):
        raise ValueError("a class is named twice in `classes`")
    _check_length("labels", len(labels), len(predicted))
    counts = torch.zeros(len(classes), len(classes) + 1, dtype=torch.int64)
    members: list[list[Hashable]] = [[] for _ in classes]
    for row, (label, guess) in enumerate(zip(labels.tolist(), predicted.tolist(), strict=True)):
        if label not in place:
            raise ValueError(f"label {label} is not one of the classes looked at")
        counts[place[label], place.get(guess, len(classes))] += 1
        members[place[label]].append(row if sources is None else sources[row])
    return Confusion(
        counts,
        samples=tuple(len(set(found)) for found in members),
        effective=tuple(effective_size(found) for found in members),
    )


# -- Robustness ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Robustness:
    """accuracy: of each (corruption, severity). retained: their mean over the clean accuracy.

    worst: the corruption and severity with the lowest accuracy, its interval widened for all of them.
    """

    accuracy: dict[tuple[str, int], Estimate]
    retained: Estimate
    worst: tuple[str, int, Estimate]


def robustness(
    clean: Tensor,
    corrupted: Mapping[tuple[str, int], Tensor],
    *,
    sources: Sources | None = None,
    seed: int = 0,
) -> Robustness:
    """Accuracy under corruption (`candling.vision.corruptions`) of the same images as clean.

    Parameters
    ----------
    clean
        bool (N,): whether each clean image was predicted rightly.
    corrupted
        The same, by corruption and severity.
    sources
        N, what each image was taken from. The corrupted versions of an image, and images that share a
        source, are one sample: `retained` is bootstrapped over sources. It is NaN if no clean image was
        predicted rightly, as there is nothing to retain.

    Raises
    ------
    ValueError
        If there is no corruption or no image, or lengths differ.
    """
    base = _right(clean)
    if not corrupted or not len(base):
        raise ValueError("robustness needs at least one image and one corruption")
    for found in corrupted.values():
        _check_length("results of a corruption", len(found), len(base))
    rights = {key: _right(found) for key, found in corrupted.items()}
    level = 1 - 0.05 / len(rights)
    worst = min(rights, key=lambda key: rights[key].mean())
    return Robustness(
        accuracy={key: share(found, sources) for key, found in rights.items()},
        retained=_retained(base, np.stack(list(rights.values())).mean(0), sources, seed),
        worst=(*worst, share(rights[worst], sources, confidence=level)),
    )


def _retained(
    clean: NDArray[np.bool_], kept: NDArray[np.float64], sources: Sources | None, seed: int
) -> Estimate:
    """mean(kept) / mean(clean), whole sources resampled."""
    pairs = np.stack([kept, clean], 1)
    sums = pairs if sources is None else sums_by_source(pairs, sources)
    if not clean.any():
        return Estimate(float("nan"), float("nan"), float("nan"), len(sums))
    drawn = resampled_sums(sums, seed=seed)
    drawn = drawn[drawn[:, 1] > 0]
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    value = float(kept.sum() / clean.sum())
    if high - low < 1e-12:
        # Resampling images that all behave alike shows no width: Wilson's bound on what was not seen.
        unseen = 1 - wilson(1.0, len(sums))[0]
        low, high = max(value - unseen, 0.0), value + unseen
    return Estimate(value, float(low), float(high), len(sums))
