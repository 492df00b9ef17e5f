"""Intervals against their formulas, and against how often they should hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from candling.statistics import Estimate, bootstrap, mean, mean_over_pairs, proportion, ratio_of_means


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (1, 1), (250, 1000)])
def test_proportion_is_wilsons_interval(k: int, n: int, confidence: float) -> None:
    z = norm.ppf((1 + confidence) / 2)
    p = k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = proportion(k, n, confidence=confidence)
    assert found == pytest.approx((p, centre - half, centre + half, n), abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_proportion_known_value() -> None:
    # 0 of 10: the upper end is z² / (n + z²).
    assert proportion(0, 10).high == pytest.approx(3.8414588 / 13.8414588, abs=1e-6)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_proportion_refuses_what_is_none(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {k} of {n}"):
        proportion(k, n)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    samples = generator.normal(2.0, 3.0, (200, 40))
    found = [mean(sample) for sample in samples]
    covered = sum(e.low <= 2.0 <= e.high for e in found)
    # Binomial(200, 0.94): 0.94 is what a percentile interval of 40 draws reaches.
    assert 176 <= covered <= 199
    assert [e.value for e in found] == pytest.approx(samples.mean(1))


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    values = np.random.default_rng(2).exponential(1.0, 400)
    for confidence in (0.8, 0.95):
        found = bootstrap(lambda sample: sample.mean(1), values, confidence=confidence, resamples=4000)
        width = 2 * norm.ppf((1 + confidence) / 2) * values.std() / math.sqrt(len(values))
        assert found.high - found.low == pytest.approx(width, rel=0.08)


def test_bootstrap_is_drawn_from_its_seed_alone() -> None:
    values = np.random.default_rng(3).normal(size=30)
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first, again, other = (bootstrap(lambda s: s.mean(1), values, seed=s) for s in (0, 0, 1))
    assert np.array_equal(np.random.get_state()[1], before)
    assert first == again
    assert first[1:3] != other[1:3]


def test_bootstrap_keeps_rows_whole() -> None:
    rows = np.random.default_rng(4).normal(size=(25, 1)).repeat(2, 1)
    found = bootstrap(lambda sample: (sample[..., 0] - sample[..., 1]).sum(1), rows)
    assert found == Estimate(0.0, 0.0, 0.0, 25)


def test_bootstrap_needs_a_row() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        mean(np.empty(0))


def test_ratio_of_means() -> None:
    denominator = np.array([0.5, 1.0, 4.0, 2.5])
    assert ratio_of_means(3 * denominator, denominator) == pytest.approx((3, 3, 3, 4))
    found = ratio_of_means(np.array([1, 2, 3, 6]), np.array([2, 2, 1, 1]))
    assert found.value == pytest.approx(12 / 6)  # not the mean of the ratios, 2.625
    assert found.low < found.value < found.high


def test_things_that_share_pairs_are_no_independent_sample() -> None:
    """Of cosines of random directions the interval holds the truth, where that of plain means does not."""
    generator = np.random.default_rng(0)
    held = {"pairs": 0, "plain": 0}
    draws, n = 400, 8
    for _ in range(draws):
        points = generator.normal([1.0, 0, 0], 1.0, (n, 3))
        products = points @ points.T
        each = (products.sum(1) - products.diagonal()) / (n - 1)
        found = mean_over_pairs(each)
        assert found is not None
        assert found.value == pytest.approx(each.mean())
        # The mean of the product of two independent draws is the square of the mean.
        held["pairs"] += found.low <= 1.0 <= found.high
        plain = mean(each)
        held["plain"] += plain.low <= 1.0 <= plain.high
    assert held["pairs"] / draws > 0.85
    assert held["plain"] / draws < 0.8
    assert mean_over_pairs(np.ones(2)) is None
