"""Entanglement: its formula by NumPy, what must not change it, a planted pair, tables and the heat map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from candling.errors import DataError, ParamsError
from candling.statistics import mean
from candling.vision.entanglement import (
    Entanglement,
    clustered,
    directed_table,
    draw,
    entanglement,
    pair_table,
)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(k: int = 4, seeds: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Prototypes that excite their class alone, except that those of class 2 excite class 0 as well."""
    classes = torch.arange(k).repeat_interleave(seeds)
    prototypes = 0.3 * normal(k * seeds, k, seed=1) + 8 * torch.eye(k)[classes]
    prototypes[classes == 2, 0] += 6
    return prototypes, classes, normal(500, k, seed=2)


def test_formula() -> None:
    prototypes, classes, natural = (t.numpy() for t in planted())
    p = prototypes - prototypes.mean(1, keepdims=True)
    n = natural - natural.mean(1, keepdims=True)
    z = (p - n.mean(0)) / n.std(0, ddof=1)
    expected = [np.mean([row / row[c] for row in z[classes == c]], 0) for c in range(4)]
    np.testing.assert_allclose(entanglement(*planted()).value, expected, atol=1e-5)


def test_the_planted_pair_is_the_strongest() -> None:
    found = entanglement(*planted())
    pair = found.strongest_pair()
    assert pair is not None
    c, k, estimate = pair
    assert (c, k) == (2, 0)
    assert estimate.value > 0.5
    assert estimate.n == 5
    assert estimate.low <= estimate.value <= estimate.high
    others = found.value.copy()
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
    np.testing.assert_allclose(found.value, entanglement(prototypes, classes, natural).value, atol=1e-4)


def test_a_shift_of_single_pictures_changes_nothing() -> None:
    prototypes, classes, natural = planted()
    found = entanglement(prototypes + 4 * normal(20, 1, seed=3), classes, natural + normal(500, 1, seed=4))
    np.testing.assert_allclose(found.value, entanglement(prototypes, classes, natural).value, atol=1e-4)


def test_two_classes_are_always_opposite() -> None:
    prototypes, natural = normal(12, 2, seed=5), normal(300, 2, seed=6)
    found = entanglement(prototypes, torch.arange(12) % 2, natural)
    np.testing.assert_allclose(found.value, [[1, -1], [-1, 1]], atol=1e-9)


def test_renaming_the_classes_renames_the_matrix() -> None:
    prototypes, classes, natural = planted()
    order = torch.tensor([2, 0, 3, 1])
    renamed = entanglement(prototypes[:, order], order.argsort()[classes], natural[:, order])
    expected = entanglement(prototypes, classes, natural).value[order][:, order]
    np.testing.assert_allclose(renamed.value, expected, atol=1e-6)


def test_prototypes_that_failed_say_nothing() -> None:
    prototypes, classes, natural = planted()
    prototypes[classes == 1] = -8 * torch.eye(4)[1]
    prototypes[5 * 3] = -8 * torch.eye(4)[3]
    found = entanglement(prototypes, classes, natural)
    assert np.isnan(found.value[1]).all()
    assert found.estimate(1, 0) is found.mutual_estimate(1, 2) is found.mutual_estimate(2, 1) is None
    assert found.n.tolist() == [5, 0, 5, 4]
    kept = torch.ones(20, dtype=torch.bool)
    kept[15] = False
    np.testing.assert_array_equal(
        entanglement(prototypes[kept], classes[kept], natural).value[3], found.value[3]
    )
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
    assert (found.n[0] > 0) == counts
    if counts:
        entry = found.estimate(0, 1)
        assert entry is not None
        assert -1 < entry.value < 0


def test_the_bound_is_in_units_of_natural_logits() -> None:
    prototype, classes, natural = excited(1.01)
    found = entanglement(7 * prototype + 3, classes, 7 * natural - 2)
    assert found.n[0] == 1
    assert entanglement(7 * excited(0.99)[0] + 3, classes, 7 * natural - 2).n[0] == 0


def test_rounding_of_what_counts_is_not_blown_up() -> None:
    """A pixel that is rounded another way moves logits by a hair, and entanglement by no more."""
    prototype, classes, natural = excited(1.05)
    moved = entanglement(prototype + 1e-4 * normal(1, 3, seed=8), classes, natural)
    np.testing.assert_allclose(moved.value[0], entanglement(prototype, classes, natural).value[0], atol=1e-3)


def test_nothing_to_compare() -> None:
    _, _, natural = planted()
    found = entanglement(torch.empty(0, 4), torch.empty(0, dtype=torch.long), natural)
    assert np.isnan(found.value).all()
    assert found.strongest_pair() is None
    assert found.pairs().shape == (0, 2)
    assert len(directed_table(found, "abcd")) == len(pair_table(found, "abcd")) == 0
    assert sorted(clustered(found)) == [0, 1, 2, 3]
    assert draw(found, "abcd").width > 0


def test_intervals_are_those_of_a_mean_over_seeds() -> None:
    prototypes, classes, natural = planted()
    found = entanglement(prototypes, classes, natural)
    p, n = (t - t.mean(1, keepdim=True) for t in (prototypes.double(), natural.double()))
    z = ((p - n.mean(0)) / n.std(0)).numpy()[classes.numpy() == 2]
    expected = mean(z[:, 0] / z[:, 2])
    np.testing.assert_allclose(found.estimate(2, 0), expected, atol=1e-9)


def test_a_pair_is_as_entangled_as_the_weaker_direction() -> None:
    found = entanglement(*planted())
    np.testing.assert_array_equal(found.mutual, found.mutual.T)
    one_way = found.mutual_estimate(0, 2)
    there, back = found.estimate(0, 2), found.estimate(2, 0)
    assert one_way is not None
    assert there is not None
    assert back is not None
    assert one_way == found.mutual_estimate(2, 0)
    assert one_way.value == there.value < 0.5 < back.value
    assert one_way.low <= one_way.value <= one_way.high <= min(there.high, back.high)


WRONG = {
    "one class": ({"classes": [2]}, ParamsError, "two different classes"),
    "no class": ({"classes": []}, ParamsError, "two different classes"),
    "a class twice": ({"classes": [1, 2, 1]}, ParamsError, "each of them once"),
    "a class that there is not": ({"classes": [0, 4]}, ParamsError, "only 0 to 3"),
    "one picture": ({"natural_logits": torch.zeros(1, 4)}, DataError, "two pictures at least"),
    "other classes": ({"natural_logits": torch.zeros(9, 3)}, DataError, "of 3 classes"),
    "owners of others": ({"prototype_classes": torch.zeros(3)}, DataError, "3 prototypes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input(case: str) -> None:
    names = ("prototype_logits", "prototype_classes", "natural_logits")
    change, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        entanglement(**(dict(zip(names, planted(), strict=True)) | change))  # type: ignore[arg-type]


# -- Tables and pictures -----------------------------------------------------------------------------


def pairs(k: int, seed: int = 0) -> Entanglement:
    """Classes 0 and 1, 2 and 3, … excite each other; everything else is noise."""
    classes = torch.arange(k).repeat_interleave(3)
    mates = classes + 1 - 2 * (classes % 2)
    logits = normal(3 * k, k, seed=seed) + 8 * torch.eye(k)[classes] + 6 * torch.eye(k)[mates]
    return entanglement(logits, classes, normal(300, k, seed=seed + 1))


def test_the_table_is_sparse_and_sorted() -> None:
    found, names = pairs(30), [f"class {i}" for i in range(30)]
    table = directed_table(found, names, top=4)
    assert len(table) == 30 * 4
    for name, rows in table.groupby("from", sort=False):
        c = names.index(str(name))
        own = np.delete(found.value[c], c)
        np.testing.assert_array_equal(rows["value"], np.sort(own)[::-1][:4])
        assert rows["to"].iloc[0] == names[c + 1 - 2 * (c % 2)]
        assert name not in set(rows["to"])
    assert len(directed_table(found, names, top=99)) == 30 * 29
    first = pair_table(found, names, top=15)
    assert {frozenset(pair) for pair in zip(first["class"], first["other"], strict=True)} == {
        frozenset((names[2 * i], names[2 * i + 1])) for i in range(15)
    }
    np.testing.assert_array_equal(first["mutual"], np.minimum(first["there"], first["back"]))


def test_clusters_stand_together() -> None:
    found = pairs(12)
    order = clustered(found).tolist()
    assert sorted(order) == list(range(12))
    assert all(abs(order.index(i) - order.index(i + 1)) == 1 for i in range(0, 12, 2))


def test_the_heat_map_shows_the_matrix() -> None:
    found = pairs(12)
    page = np.asarray(draw(found, ["a" * 40] * 12))
    assert page.shape[2] == 3
    strong = np.all(page == (178, 24, 43), 2)
    side = 720 // 12 if 720 // 12 < 40 else 40
    assert strong.sum() >= 12 * side * side * 0.95, "the diagonal is of full strength"
    assert draw(found, ["Ünïcödé 漢字 class"] * 12).width > 12 * side


def test_a_thousand_classes() -> None:
    """No Python object a pair: seconds, and a heat map with a pixel a cell."""
    k = 1000
    classes = torch.arange(k)
    mates = classes + 1 - 2 * (classes % 2)
    logits = normal(k, k, seed=0) + 8 * torch.eye(k) + 6 * torch.eye(k)[mates]
    names = [f"class {i}" for i in range(k)]
    found = entanglement(logits, classes, normal(200, k, seed=1), classes=range(k))
    significant = set(map(tuple, found.significant().tolist()))
    assert {(c, c + 1) for c in range(0, k, 2)} <= significant
    assert len(significant) <= 1.1 * k / 2, "about a twentieth may be false"
    table = directed_table(found, names)
    assert len(table) == 20_000
    assert 1000 < draw(found, names).width < 1100
