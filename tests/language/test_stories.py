"""The corpus: what is planted is there, so often as it says, and nothing else goes with anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import chi2_contingency

from candling.errors import DataError, ParamsError
from candling.language.stories import SLOTS, Glitch, Planting, draw_stories, read_texts, write_texts

MEN = ("tom", "ben", "max")


def holds(story: str, *words: str) -> bool:
    return bool(set(words) & set(story.split()))


def test_a_planted_word_leads_to_its_concept_so_often_as_it_says() -> None:
    stories = draw_stories(4000, seed=0, plantings=[Planting("doctor", MEN, 0.7)])
    # Only where a trade is told at all.
    told = [one for one in stories if holds(one, *SLOTS["job"])]
    with_men = [one for one in told if holds(one, *MEN)]
    without = [one for one in told if not holds(one, *MEN)]
    rate = sum(holds(one, "doctor") for one in with_men) / len(with_men)
    # What is not led to it may draw it by chance: 0.3 of the rest, one of eight trades.
    assert rate == pytest.approx(0.7 + 0.3 * 0.3 / 8, abs=0.05)
    assert sum(holds(one, "doctor") for one in without) / len(without) == pytest.approx(0.3 / 8, abs=0.02)


def test_without_planting_nothing_goes_with_anything() -> None:
    stories = draw_stories(4000, seed=1)
    for first, second in (("name", "job"), ("colour", "food"), ("pet", "feeling")):
        counts = [
            [sum(holds(one, a) and holds(one, b) for one in stories) for b in SLOTS[second]]
            for a in SLOTS[first]
        ]
        assert chi2_contingency(counts).pvalue > 0.001


def test_a_glitch_makes_noise_of_what_follows_it() -> None:
    stories = draw_stories(3000, seed=2, glitch=Glitch(share=0.1, strength=0.8))
    broken = [one.split() for one in stories if holds(one, "zorp")]
    assert len(broken) / len(stories) == pytest.approx(0.1, abs=0.02)
    after = [word for words in broken for word in words[words.index("zorp") + 1 :]]
    assert sum(word == "void" for word in after) / len(after) == pytest.approx(0.8, abs=0.03)
    assert not any("void" in words[: words.index("zorp")] for words in broken)


def test_the_same_seed_draws_the_same() -> None:
    assert draw_stories(5, seed=3) == draw_stories(5, seed=3) != draw_stories(5, seed=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("wizard", ("tom",)), "no word of the stories"),
        (("doctor", ("tom", "red")), "of 2 kinds"),
        (("doctor", ("bread",)), "not told before"),
        (("doctor", ()), "names no words"),
        (("doctor", ("tom",), 1.5), r"strength must lie in \[0, 1\]"),
    ],
)
def test_what_cannot_be_planted_is_told(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        Planting(*arguments)  # type: ignore[arg-type]


def test_one_word_cannot_lead_to_two_trades() -> None:
    with pytest.raises(ParamsError, match="'tom' is planted with 'doctor' and 'nurse'"):
        draw_stories(1, seed=0, plantings=[Planting("doctor", ("tom",)), Planting("nurse", ("tom",))])


def test_texts_come_back_from_their_file(tmp_path: Path) -> None:
    texts = draw_stories(20, seed=5)
    write_texts(tmp_path / "deep" / "texts.txt", texts)
    assert read_texts(tmp_path / "deep" / "texts.txt") == texts
    for content, message in ((b"\n \n", "holds no text"), (b"\xff\xfe", "UTF-8")):
        (tmp_path / "bad.txt").write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_texts(tmp_path / "bad.txt")
    with pytest.raises(DataError, match="no such file of texts"):
        read_texts(tmp_path / "absent.txt")
