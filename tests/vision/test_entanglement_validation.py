"""Entanglement held against confusions and costs of attacks: by SciPy, and with planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from candling.errors import DataError
from candling.vision.entanglement import confusions, rank_correlation

Array = NDArray[np.float64]


def mutual(k: int, seed: int = 0) -> Array:
    values = np.random.default_rng(seed).normal(size=(k, k))
    values = np.minimum(values, values.T)
    np.fill_diagonal(values, 1)
    return values


def confused(m: Array, strength: float, images: int = 200, seed: int = 1) -> Array:
    """Pictures that are confused the more, the more entangled their classes are."""
    generator = np.random.default_rng(seed)
    odds = np.exp(strength * (m - 3))
    np.fill_diagonal(odds, 1)
    shares = np.concatenate([odds, np.full((len(m), 1), 0.1)], 1)
    return generator.multinomial(images, shares / shares.sum(1, keepdims=True)).astype(np.float64)


def test_counts_by_hand() -> None:
    labels, predicted = np.array([3, 3, 3, 5, -1, 0]), np.array([3, 5, 0, 5, 3, 3])
    counts = confusions(labels, predicted, np.array([3, 5]))
    assert counts.tolist() == [[1, 1, 1], [0, 1, 0]]
    with pytest.raises(DataError, match="6 labels need as many"):
        confusions(labels, predicted[:2], np.array([3, 5]))


def test_the_correlation_is_spearmans() -> None:
    m = mutual(9)
    counts = confused(m, 1.0)
    rates = counts[:, :-1] / counts.sum(1, keepdims=True)
    c, k = np.triu_indices(9, 1)
    found = rank_correlation(m, counts=counts, resamples=200)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(m[c, k], rates[c, k] + rates[k, c]).statistic)
    assert found.n == 9
    costs = np.random.default_rng(2).random((9, 9))
    against = rank_correlation(m, costs=costs, resamples=200)
    assert against is not None
    assert against.value == pytest.approx(spearmanr(m[c, k], costs[c, k] + costs[k, c]).statistic)


def test_planted_confusions_lie_above_zero_and_costs_below() -> None:
    m = mutual(12)
    found = rank_correlation(m, counts=confused(m, 1.0))
    assert found is not None
    assert 0 < found.low < found.value < found.high <= 1
    cheap = rank_correlation(m, costs=np.exp(-m))
    assert cheap is not None
    assert cheap.value == pytest.approx(-1)
    assert cheap.high < 0


def test_no_relation_is_seldom_taken_for_one() -> None:
    away = 0
    for seed in range(40):
        found = rank_correlation(
            mutual(10, seed), counts=confused(mutual(10, 100 + seed), 1.0, seed=seed), resamples=300
        )
        assert found is not None
        away += not found.low <= 0 <= found.high
    assert away <= 6


def test_the_interval_does_not_change_from_call_to_call() -> None:
    m = mutual(8)
    assert rank_correlation(m, counts=confused(m, 1.0)) == rank_correlation(m, counts=confused(m, 1.0))


def test_few_pictures_widen_the_interval() -> None:
    m = mutual(12)
    many, few = (rank_correlation(m, counts=confused(m, 1.0, images=n)) for n in (5000, 10))
    assert many is not None
    assert few is not None
    assert few.high - few.low > many.high - many.low


def test_nothing_to_correlate() -> None:
    m = mutual(6)
    right = np.concatenate([10 * np.eye(6), np.zeros((6, 1))], 1)
    assert rank_correlation(m, counts=right) is None
    assert rank_correlation(mutual(3), costs=np.ones((3, 3))) is None
    assert rank_correlation(np.full((6, 6), np.nan), counts=confused(m, 1.0)) is None


def test_classes_without_pictures_are_left_out() -> None:
    m = mutual(8)
    counts = confused(m, 1.0)
    counts[3] = 0
    found = rank_correlation(m, counts=counts)
    rest = np.delete(np.arange(8), 3)
    # Pictures of the others may still be predicted as class 3; they are so here with and without it.
    without = np.concatenate([counts[np.ix_(rest, rest)], counts[rest][:, [3, 8]].sum(1, keepdims=True)], 1)
    expected = rank_correlation(m[np.ix_(rest, rest)], counts=without)
    assert found is not None
    assert expected is not None
    assert found.value == pytest.approx(expected.value)
    assert found.n == 7


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "one of them"),
        ({"counts": np.ones((5, 6)), "costs": np.ones((5, 5))}, "one of them"),
        ({"counts": np.ones((5, 5))}, "are \\(5, 6\\)"),
        ({"costs": np.ones((4, 4))}, "of shape \\(4, 4\\)"),
    ],
)
def test_bad_input(given: dict[str, Array], words: str) -> None:
    with pytest.raises(DataError, match=words):
        rank_correlation(mutual(5), **given)  # type: ignore[arg-type]
