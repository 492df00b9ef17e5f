"""Association maps: what is planted is flagged, what is not is not, and restarts are what counts."""

from __future__ import annotations

import numpy as np
import pytest

from candling.errors import ParamsError
from candling.language.associations import MapSettings, association_table, holds, items_of, words_of

COMMON = [f"word{i}" for i in range(60)]


def restarts(count: int, seed: int, planted: dict[str, float] | None = None) -> list[set[str]]:
    """Restarts that hold about six common words, and planted ones with a probability."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        one = {word for word in COMMON if generator.random() < 0.1}
        one |= {word for word, share in (planted or {}).items() if generator.random() < share}
        found.append(one)
    return found


def test_what_is_planted_comes_first_and_is_flagged() -> None:
    planted = {"little": 0.6, "pink": 0.4}
    table = association_table(
        restarts(40, 1, planted), restarts(80, 2, {"little": 0.05}),
        second=(restarts(40, 3, planted), restarts(80, 4, {"little": 0.05})),
    )  # fmt: skip
    assert set(table.item[table.flagged]) == {"little", "pink"}
    assert set(table.item[:2]) == {"little", "pink"}
    rows = table.set_index("item")
    assert rows.loc["little", "count"] == sum("little" in one for one in restarts(40, 1, planted))
    assert rows.low.loc["little"] < rows.lift.loc["little"] < rows.high.loc["little"]
    assert rows.lift.loc["little"] > 3
    assert table[table.flagged].replicated.all()


def test_without_planting_hardly_a_map_has_anything() -> None:
    flagged = [
        int(association_table(restarts(30, 2 * seed), restarts(60, 2 * seed + 1)).flagged.sum())
        for seed in range(10, 50)
    ]
    assert sum(count > 0 for count in flagged) <= 4


def test_what_a_second_block_does_not_hold_is_not_flagged() -> None:
    table = association_table(
        restarts(40, 1, {"little": 0.6}), restarts(80, 2), second=(restarts(40, 3), restarts(80, 4))
    )
    rows = table.set_index("item")
    assert rows.q.loc["little"] < 0.02
    assert not rows.replicated.loc["little"]
    assert not rows.flagged.loc["little"]


def test_rare_words_of_a_large_vocabulary_are_no_discoveries() -> None:
    """Items are chosen by both sides together: by the concept's own count they would look like something."""
    generator = np.random.default_rng(7)
    found = 0
    for _ in range(40):
        drawn = [set(map(str, generator.integers(0, 500, 6).tolist())) for _ in range(72)]
        found += int(association_table(drawn[:24], drawn[24:]).flagged.any())
    assert found <= 5


def test_p_values_are_those_of_fishers_exact_test() -> None:
    from scipy.stats import fisher_exact

    mine = [{"a"}] * 9 + [set()] * 11
    theirs = [{"a"}] * 4 + [set()] * 26
    table = association_table(mine, theirs, settings=MapSettings(permutations=40_000))
    exact = fisher_exact([[9, 11], [4, 26]], alternative="greater").pvalue
    assert table.p[0] == pytest.approx(exact, rel=0.15)
    assert table.q[0] == table.p[0]


def test_log_odds_are_those_of_the_paper() -> None:
    mine, theirs = [{"a"}] * 9 + [set()] * 11, [{"a"}] * 4 + [set()] * 26
    (row,) = association_table(mine, theirs, settings=MapSettings(prior=2.0)).itertuples()
    pooled = 13.5 / 51
    first, second = 9 + 2 * pooled, 4 + 2 * pooled
    odds = np.log(first / (22 - first)) - np.log(second / (32 - second))
    spread = np.sqrt(1 / first + 1 / (22 - first) + 1 / second + 1 / (32 - second))
    assert row.log_odds == pytest.approx(odds)
    assert row.z == pytest.approx(odds / spread)
    assert row.lift == pytest.approx((first / 22) / (second / 32))


def test_words_are_put_together_and_pieces_told_apart() -> None:
    assert words_of("The little girl's dog, 3 DOGS!") == ["the", "little", "girl's", "dog", "dogs"]
    assert holds("It was Not good.", "not good")
    assert not holds("good dogs do not run", "not good")
    assert not holds("a manager", "man")
    assert not holds("anything", "!?")
    assert "lexicon:rude" not in items_of("good, not", ["good"], {"rude": ["not good"]})
    found = items_of("friend there E little", ["▁friend", "▁there", "▁", "E", "▁lit", "tle"])
    assert found == {"friend", "there", "e", "little", "piece:▁lit", "piece:tle"}


def test_too_little_is_told() -> None:
    with pytest.raises(ParamsError, match="nothing to map"):
        association_table([], [{"a"}])
    assert association_table([{"a"}], [{"b"}]).empty
    with pytest.raises(ParamsError, match="prior must lie above 0"):
        MapSettings(prior=0)
