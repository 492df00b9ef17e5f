"""What explains that two classes are entangled: names, embeddings, a hierarchy, or none of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from candling.errors import ParamsError
from candling.vision.entanglement import (
    Entanglement,
    embedding_similarity,
    head_weights,
    hierarchy_similarity,
    name_similarity,
    surprise,
    surprising,
)


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("analog clock", "wall clock", (1 / 3 + 1) / 2),
        ("clock tower", "wall clock", 1 / 6),
        ("ice_cream", "Ice-Cream", 1),
        ("zebra", "horse", 0),
        ("", "", 0),
        ("école", "école", 1),
    ],
)
def test_names(first: str, second: str, alike: float) -> None:
    found = name_similarity([first, "something else", second])
    assert found[0, 2] == found[2, 0] == pytest.approx(alike)
    assert found[0, 1] == 0


def test_a_hierarchy_of_one_level_and_of_two() -> None:
    names = ["cat", "dog", "owl", "bus"]
    one = {"cat": "mammal", "dog": "mammal", "owl": "bird"}
    expected = np.zeros((4, 4))
    expected[:2, :2] = expected[2, 2] = 1
    np.testing.assert_array_equal(hierarchy_similarity(names, one), expected)
    two = hierarchy_similarity(names, {**one, "mammal": "animal", "bird": "animal"})
    assert two[0, 1] == 1
    assert two[0, 2] == pytest.approx(0.5)
    assert two[0, 3] == 0
    np.testing.assert_array_equal(two, two.T)


def test_a_hierarchy_of_more_than_is_looked_at() -> None:
    hierarchy = {"cat": "mammal", "dog": "mammal"}
    assert hierarchy_similarity(["cat"], hierarchy, ["cat", "dog"]).tolist() == [[1]]
    with pytest.raises(ParamsError, match="names 'dog', which is no class"):
        hierarchy_similarity(["cat"], hierarchy)


def test_a_hierarchy_in_a_circle() -> None:
    with pytest.raises(ParamsError, match="circle"):
        hierarchy_similarity(["cat"], {"cat": "pet", "pet": "friend", "friend": "pet"})


def test_embeddings_are_cosines_around_their_mean() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 7))
    found = embedding_similarity(rows + 3)
    centred = rows - rows.mean(0)
    for c in range(5):
        for k in range(5):
            lengths = np.linalg.norm(centred[c]) * np.linalg.norm(centred[k])
            assert found[c, k] == pytest.approx(centred[c] @ centred[k] / lengths)
    assert np.isfinite(embedding_similarity(np.zeros((3, 2)))).all()


def test_the_head_of_a_network() -> None:
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    found = head_weights(linear, 4)
    assert found is not None
    np.testing.assert_allclose(found, linear[4].weight.detach().numpy())
    pixelwise = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    weights = head_weights(pixelwise, 4)
    assert weights is not None
    assert weights.shape == (4, 8)
    assert head_weights(nn.Sequential(nn.Conv2d(3, 4, 3)), 4) is None


def noise(k: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(k, k))
    return np.asarray(np.minimum(values, values.T))


def test_a_residual_of_ranks() -> None:
    m, alike = noise(7), noise(7, 1)
    c, k = np.triu_indices(7, 1)
    x, y = (one[c, k].argsort().argsort() + 1.0 for one in (alike, m))
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - slope * x - intercept
    found = surprise(m, [alike])
    np.testing.assert_allclose(found[c, k], residual / residual.std(), atol=1e-9)
    np.testing.assert_array_equal(found, found.T)
    assert np.isnan(np.diag(found)).all()


def test_what_is_explained_is_no_surprise() -> None:
    m = noise(7)
    assert np.abs(surprise(m, [np.exp(3 * m)])[np.triu_indices(7, 1)]).max() < 1e-3
    m[2] = m[:, 2] = np.nan
    assert np.isnan(surprise(m, [noise(7, 1)])[2]).all()


def entangled(k: int, pairs: list[tuple[int, int]]) -> Entanglement:
    value = 0.05 * np.random.default_rng(3).normal(size=(k, k))
    for c, other in pairs:
        value[c, other] = value[other, c] = 0.9
    np.fill_diagonal(value, 1)
    return Entanglement(tuple(range(k)), value, value - 0.1, value + 0.1, np.full(k, 3))


def test_only_the_pair_that_nothing_explains_is_surprising() -> None:
    names = ["wall clock", "analog clock", "zebra", "umbrella", "tench", "banana", "arch", "pond"]
    found = entangled(8, [(0, 1), (2, 3)])
    assert {tuple(pair) for pair in found.significant()} == {(0, 1), (2, 3)}
    assert {pair[:2] for pair in surprising(found, [])} == {(0, 1), (2, 3)}
    ((c, k, by),) = surprising(found, [name_similarity(names)])
    assert (c, k) == (2, 3)
    assert by >= 1
    hierarchy = hierarchy_similarity(names, {"zebra": "striped", "umbrella": "striped"})
    assert surprising(found, [name_similarity(names), hierarchy]) == []


def test_chance_is_no_surprise() -> None:
    assert surprising(entangled(8, []), [torch.rand(8, 8).numpy()]) == []
