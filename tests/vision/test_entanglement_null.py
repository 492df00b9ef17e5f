"""What is more than unrelated classes do: by plain loops, by chance, and with independent heads."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from benchmarks.entanglement import Heads, examine_heads, learned
from candling.vision.entanglement import beyond_unrelated, discovered, pairs_beyond_unrelated

Array = NDArray[np.float64]


def matrix(k: int, seed: int) -> Array:
    values = np.random.default_rng(seed).normal(size=(k, k))
    np.fill_diagonal(values, 1)
    return values


def predicted(value: float, others: Array) -> float:
    """The chance that a next value of a normal sample is as large, as a textbook has it."""
    n = len(others)
    return float(t.sf((value - others.mean()) / (others.std(ddof=1) * np.sqrt(1 + 1 / n)), n - 1))


def test_pairs_by_plain_loops() -> None:
    m = matrix(8, 0)
    m = np.minimum(m, m.T)
    found = pairs_beyond_unrelated(m)
    np.testing.assert_array_equal(found, found.T)
    assert np.isnan(np.diag(found)).all()
    for c in range(8):
        for k in range(c):
            rest = [j for j in range(8) if j not in (c, k)]
            assert found[c, k] == pytest.approx(predicted(m[c, k], np.r_[m[c, rest], m[k, rest]]))


def test_directions_by_plain_loops() -> None:
    e = matrix(8, 1)
    found = beyond_unrelated(e)
    for c in range(8):
        for k in set(range(8)) - {c}:
            rest = [j for j in range(8) if j not in (c, k)]
            both = predicted(e[c, k], e[rest, k]), predicted(e[c, k], e[c, rest])
            assert found[c, k] == pytest.approx(max(both))


@pytest.mark.parametrize("change", [lambda e: e + 40, lambda e: 0.1 * e, lambda e: 3 * e - 7])
def test_only_the_place_among_others_counts(change: object) -> None:
    assert callable(change)
    m = np.minimum(matrix(9, 2), matrix(9, 2).T)
    np.testing.assert_allclose(pairs_beyond_unrelated(change(m)), pairs_beyond_unrelated(m), rtol=1e-6)
    np.testing.assert_allclose(beyond_unrelated(change(m)), beyond_unrelated(m), rtol=1e-6)


def test_classes_without_a_value_are_left_out() -> None:
    m = np.minimum(matrix(9, 3), matrix(9, 3).T)
    holed = m.copy()
    holed[4] = holed[:, 4] = np.nan
    rest = np.delete(np.arange(9), 4)
    found = pairs_beyond_unrelated(holed)
    assert np.isnan(found[4]).all()
    np.testing.assert_allclose(
        found[np.ix_(rest, rest)], pairs_beyond_unrelated(m[np.ix_(rest, rest)]), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("k", "pairs", "directions"), [(2, 0, 0), (3, 0, 0), (4, 12, 0), (5, 20, 0), (6, 30, 30)]
)
def test_few_classes_are_not_tested(k: int, pairs: int, directions: int) -> None:
    m = np.minimum(matrix(k, 4), matrix(k, 4).T)
    assert (~np.isnan(pairs_beyond_unrelated(m))).sum() == pairs
    assert (~np.isnan(beyond_unrelated(m))).sum() == directions


def test_no_values_at_all() -> None:
    nothing = np.full((5, 5), np.nan)
    assert np.isnan(pairs_beyond_unrelated(nothing)).all()
    assert np.isnan(beyond_unrelated(nothing)).all()
    assert np.isnan(discovered(nothing)).all()


def test_p_values_of_noise_are_even_and_seldom_discovered() -> None:
    shares, any_found = [], 0
    for seed in range(200):
        m = np.minimum(matrix(8, seed), matrix(8, seed).T)
        p = pairs_beyond_unrelated(m)[np.triu_indices(8, 1)]
        shares.append((p <= 0.05).mean())
        any_found += bool((discovered(p) <= 0.05).any())
    assert 0.02 < np.mean(shares) < 0.06
    assert any_found <= 16


def test_q_is_benjamini_and_hochberg() -> None:
    p = np.array([[np.nan, 0.01, 0.04], [0.03, np.nan, 0.5]])
    np.testing.assert_allclose(discovered(p), [[np.nan, 0.04, 0.04 * 4 / 3], [0.04 * 4 / 3, np.nan, 0.5]])


# -- Networks with independent heads -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("trained", [False, True], ids=["random weights", "trained"])
def test_independent_heads_are_not_entangled(trained: bool) -> None:
    """At most 3 of 20 networks show a significant pair, and at most 3 a significant direction."""
    pairs = directions = silent = 0
    for seed in range(20):
        network = Heads(seed)
        found = examine_heads(learned(network, 1000 + seed) if trained else network)
        pairs += len(found.significant()) > 0
        directions += bool((found.q <= 0.05).any())
        silent += int((found.n == 0).sum())
    assert silent <= 20, "of 160 classes: it is not for want of prototypes that nothing is found"
    assert pairs <= 3
    assert directions <= 3


@pytest.mark.slow
def test_a_shared_network_is_found() -> None:
    """Two classes read each other's networks as much as their own; nothing else is shared."""
    hits = 0
    for seed in range(5):
        weights = learned(Heads(seed), 1000 + seed).state_dict()
        network = Heads(seed, [(2, 5)])
        network.load_state_dict(weights)
        found = examine_heads(network)
        assert found.pairs()[0].tolist() == [2, 5]
        hits += [2, 5] in found.significant().tolist()
    assert hits >= 4
