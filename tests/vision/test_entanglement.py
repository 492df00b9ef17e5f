"""Entanglement: its formula by NumPy, what must not change it, and a planted pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from candling.vision.entanglement import Entanglement, entanglement


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(k: int = 4, seeds: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Prototypes that excite their class alone, except that those of class 2 excite class 0 as well."""
    classes = torch.arange(k).repeat_interleave(seeds)
    prototypes = 0.3 * normal(k * seeds, k, seed=1) + 8 * torch.eye(k)[classes]
    prototypes[classes == 2, 0] += 6
    return prototypes, classes, normal(500, k, seed=2)


def values(found: Entanglement) -> np.ndarray:
    return np.array([[np.nan if e is None else e.value for e in row] for row in found.matrix])


def test_formula() -> None:
    prototypes, classes, natural = (t.numpy() for t in planted())
    p = prototypes - prototypes.mean(1, keepdims=True)
    n = natural - natural.mean(1, keepdims=True)
    z = (p - n.mean(0)) / n.std(0, ddof=1)
    expected = [np.mean([row / row[c] for row in z[classes == c]], 0) for c in range(4)]
    np.testing.assert_allclose(values(entanglement(*planted())), expected, atol=1e-5)


def test_the_planted_pair_is_the_strongest() -> None:
    found = entanglement(*planted())
    pair = found.strongest_pair()
    assert pair is not None
    c, k, estimate = pair
    assert (c, k) == (2, 0)
    assert estimate.value > 0.5
    assert estimate.n == 5
    assert estimate.low <= estimate.value <= estimate.high
    others = values(found)
    np.testing.assert_allclose(np.diag(others), 1)
    others[[2, *range(4)], [0, *range(4)]] = -np.inf
    assert others.max() < 0.2 < estimate.low


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: 3.7 * logits,
        lambda logits: logits + 11,
        lambda logits: logits + torch.tensor([5.0, -3.0, 0.0, 40.0]),
        lambda logits: 0.2 * logits - torch.tensor([5.0, -3.0, 0.0, 40.0]),
    ],
    ids=["scale", "shift", "shift of each class", "both"],
)
def test_scale_and_shift_change_nothing(change: object) -> None:
    prototypes, classes, natural = planted()
    assert callable(change)
    found = entanglement(change(prototypes), classes, change(natural))
    np.testing.assert_allclose(values(found), values(entanglement(prototypes, classes, natural)), atol=1e-4)


def test_a_shift_of_single_pictures_changes_nothing() -> None:
    prototypes, classes, natural = planted()
    found = entanglement(prototypes + 4 * normal(20, 1, seed=3), classes, natural + normal(500, 1, seed=4))
    np.testing.assert_allclose(values(found), values(entanglement(prototypes, classes, natural)), atol=1e-4)


def test_two_classes_are_always_opposite() -> None:
    prototypes, natural = normal(12, 2, seed=5), normal(300, 2, seed=6)
    found = entanglement(prototypes, torch.arange(12) % 2, natural)
    np.testing.assert_allclose(values(found), [[1, -1], [-1, 1]], atol=1e-9)


def test_renaming_the_classes_renames_the_matrix() -> None:
    prototypes, classes, natural = planted()
    order = torch.tensor([2, 0, 3, 1])
    renamed = entanglement(prototypes[:, order], order.argsort()[classes], natural[:, order])
    expected = values(entanglement(prototypes, classes, natural))[order][:, order]
    np.testing.assert_allclose(values(renamed), expected, atol=1e-6)


def test_prototypes_that_failed_say_nothing() -> None:
    prototypes, classes, natural = planted()
    prototypes[classes == 1] = -8 * torch.eye(4)[1]
    prototypes[5 * 3] = -8 * torch.eye(4)[3]
    found = entanglement(prototypes, classes, natural)
    assert found.matrix[1] == (None,) * 4
    assert [e.n for e in found.matrix[3] if e is not None] == [4] * 4
    kept = torch.ones(20, dtype=torch.bool)
    kept[15] = False
    assert entanglement(prototypes[kept], classes[kept], natural).matrix[3] == found.matrix[3]
    pair = found.strongest_pair()
    assert pair is not None
    assert pair[:2] == (2, 0)


def excited(z: float) -> tuple[Tensor, Tensor, Tensor]:
    """A prototype of class 0 that lies `z` standard deviations of the natural logits above their mean."""
    natural = normal(400, 3, seed=7)
    natural = natural - natural.mean(1, keepdim=True)
    direction = torch.tensor([2.0, -1.0, -1.0]) / 2  # its own entry is 1, and it is centred
    prototype = natural.mean(0) + z * natural[:, 0].std() * direction
    return prototype[None], torch.tensor([0]), natural


@pytest.mark.parametrize(
    ("z", "counts"), [(-3.0, False), (0.01, False), (0.99, False), (1.01, True), (5.0, True)]
)
def test_prototypes_that_excite_their_class_no_more_than_pictures_do_say_nothing(
    z: float, counts: bool
) -> None:
    found = entanglement(*excited(z), classes=[0, 1])
    assert (found.matrix[0][0] is not None) == counts
    if counts:
        entry = found.matrix[0][1]
        assert entry is not None
        assert -1 < entry.value < 0


def test_the_bound_is_in_units_of_natural_logits() -> None:
    prototype, classes, natural = excited(1.01)
    found = entanglement(7 * prototype + 3, classes, 7 * natural - 2)
    assert found.matrix[0][0] is not None
    assert entanglement(7 * excited(0.99)[0] + 3, classes, 7 * natural - 2).matrix[0] == (None,) * 3


def test_rounding_of_what_counts_is_not_blown_up() -> None:
    """A pixel that is rounded another way moves logits by a hair, and entanglement by no more."""
    prototype, classes, natural = excited(1.05)
    moved = entanglement(prototype + 1e-4 * normal(1, 3, seed=8), classes, natural)
    np.testing.assert_allclose(
        values(moved)[0], values(entanglement(prototype, classes, natural))[0], atol=1e-3
    )


def test_nothing_to_compare() -> None:
    _, _, natural = planted()
    found = entanglement(torch.empty(0, 4), torch.empty(0, dtype=torch.long), natural)
    assert found.matrix == ((None,) * 4,) * 4
    assert found.strongest_pair() is None
