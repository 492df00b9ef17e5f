"""What a model is shown: samples that are spread over files in order, and numbers in [0, 1]."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from candling.data import Pictures, stratified, unit


def pictures(*groups: str) -> Pictures:
    count = len(groups)
    images = torch.zeros(count, 3, 1, 1, dtype=torch.uint8)
    return Pictures(("",) * count, images, torch.zeros(count, dtype=torch.long), groups, ("",) * count)


@pytest.mark.parametrize(
    ("groups", "count", "expected"),
    [
        (["a"] * 10, 5, [0, 2, 4, 6, 8]),
        (["a"] * 10, 4, [0, 2, 5, 7]),
        (["a"] * 6 + ["b"] * 9, 6, [0, 2, 4, 6, 9, 12]),
        (["a", "b"] * 4, 4, [0, 1, 4, 5]),
        (["a"] * 2 + ["b"] * 8, 8, [0, 1, 2, 4, 6, 8]),  # a group smaller than its part
        (["a"] * 3 + ["b"] * 3, 3, [0, 1, 3, 4]),  # at most one more for each group
        (["a", "b", "c"], 1, [0, 1, 2]),
        (["b", "a", "a"], 99, [0, 1, 2]),
        ([], 5, []),
    ],
)
def test_the_sample_is_spread_over_each_group(groups: list[str], count: int, expected: list[int]) -> None:
    assert stratified(pictures(*groups), count) == expected


def test_any_stretch_of_a_group_has_its_part_of_the_sample() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        groups = [str(g) for g in rng.integers(0, rng.integers(1, 5), rng.integers(1, 200))]
        count = int(rng.integers(1, 120))
        rows = stratified(pictures(*groups), count)
        assert rows == sorted(set(rows))
        each = -(-count // len(set(groups)))
        sizes = Counter(groups)
        taken = Counter(groups[row] for row in rows)
        assert taken == {group: min(each, size) for group, size in sizes.items()}
        for group, size in sizes.items():
            own = [row for row, name in enumerate(groups) if name == group]
            chosen = [own.index(row) for row in rows if groups[row] == group]
            gaps = np.diff([*chosen, size])
            assert chosen[0] == 0
            assert set(gaps) <= {size // len(chosen), -(-size // len(chosen))}


def test_another_seed_draws_other_rows_of_each_group() -> None:
    groups = ["a"] * 30 + ["b"] * 50
    rows = {seed: stratified(pictures(*groups), 20, seed=seed) for seed in (0, 1, 2)}
    for drawn in rows.values():
        assert drawn == sorted(set(drawn))
        assert Counter(groups[row] for row in drawn) == {"a": 10, "b": 10}
    assert rows[0] == stratified(pictures(*groups), 20)
    assert rows[1] == stratified(pictures(*groups), 20, seed=1)
    assert len({tuple(drawn) for drawn in rows.values()}) == 3


@pytest.mark.parametrize("kind", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_images_lie_between_0_and_1(kind: torch.dtype) -> None:
    levels = torch.tensor([0, 51, 255])
    found = unit(levels.to(kind) if kind == torch.uint8 else (levels / 255).to(kind))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([0.0, 0.2, 1.0]), rtol=0, atol=1e-4)
