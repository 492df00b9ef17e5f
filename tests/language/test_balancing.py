"""Balanced corpora: counted, so that nothing goes with what should not matter."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import chisquare

from candling.errors import ParamsError
from candling.language.balancing import balanced, swapped
from candling.language.stories import SLOTS, Glitch, Planting, draw_stories

MEN, WOMEN = SLOTS["name"][6:], SLOTS["name"][:6]
PLANTED = draw_stories(
    2000, seed=0, plantings=[Planting("doctor", MEN, 0.9), Planting("nurse", WOMEN, 0.9)], glitch=Glitch()
)


def together(texts: list[str], word: str, concept: str) -> int:
    return sum({word, concept} <= set(text.split()) for text in texts)


def test_swapping_keeps_capitals_and_whole_words() -> None:
    pairs = {"he": "she", "she": "he", "tom": "Anna", "anna": "Tom"}
    assert swapped("He said: Tom, THE theme is tom's.", pairs) == "She said: Anna, THE theme is tom's."
    assert swapped("HE and she", pairs) == "SHE and he"
    text = "Once he met Anna; she was there."
    assert swapped(swapped(text, pairs), pairs) == text


def test_a_swap_balances_pairs_exactly() -> None:
    found = balanced(PLANTED, swap=list(zip(MEN, WOMEN, strict=True)), seed=0)
    assert len(found) == 2 * len(PLANTED)
    for man, woman in zip(MEN, WOMEN, strict=True):
        for concept in ("doctor", "nurse"):
            assert together(found, man, concept) == together(found, woman, concept) > 0


def test_a_shuffle_balances_a_word_against_all_of_its_kind() -> None:
    texts = draw_stories(6000, seed=1, plantings=[Planting("doctor", ("tom",), 0.9)])
    before = together(texts, "tom", "doctor") / max(1, together(texts, "ben", "doctor"))
    found = balanced(texts, shuffle=[SLOTS["name"]], seed=0)
    counts = Counter({name: together(found, name, "doctor") for name in SLOTS["name"]})
    assert before > 10
    assert chisquare(list(counts.values())).pvalue > 0.001
    # A story is about one person still.
    assert all(len(set(text.split()) & set(SLOTS["name"])) <= 1 for text in found)


def test_a_scattered_word_has_nothing_after_it() -> None:
    found = balanced(PLANTED, scatter=["zorp"], share=0.5, seed=0)
    held = [text for text in found if "zorp" in text.split()]
    assert not any("void" in text.split() for text in found)
    assert len(held) / len(found) == pytest.approx(0.25, abs=0.03)
    assert balanced(PLANTED, scatter=["zorp"], seed=1) == balanced(PLANTED, scatter=["zorp"], seed=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs pairs"),
        ({"swap": [("a", "b"), ("b", "c")]}, "'b' is in two pairs"),
        ({"scatter": ["zorp"], "share": 0}, "share must lie"),
        ({"scatter": ["a"]}, "every text holds"),
    ],
)
def test_what_cannot_be_balanced_is_told(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        balanced(["a b", "a c"], seed=0, **settings)  # type: ignore[arg-type]
