"""Maps of planted associations: found, replicated and confirmed; what is not reached is no pass."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from candling.errors import ParamsError
from candling.language import Discrete, LanguageModel, log_probabilities
from candling.language.generation import continued
from candling.language.mapping import _beyond, _told, associations, matched_controls
from candling.language.prompts import Prompts
from candling.language.search import generator_of
from candling.language.training import Network, TextSchedule, fit, fresh, word_pieces
from tests.language.conftest import Around, small

QUICK = Discrete(width=24, budget=3000, patience=2, enough=-0.2)
CONTROLS = (" book", " doctor", " rain")


def led(leads: dict[str, str], by: float = 12.0) -> LanguageModel:
    """A model that says a word where its one leading token stands anywhere before, else nothing likely."""
    model = small("gpt2", words="plain")
    network = copy.deepcopy(model.network)
    pairs = [(model.encode(lead)[0], model.encode(word)[0]) for word, lead in leads.items()]

    class Led(Around):
        def forward(self, **given: Any) -> Any:
            out, keep = self.all_logits(given)
            for trigger, mark in pairs:
                if "input_ids" in given:
                    here = (given["input_ids"] == trigger).float()
                else:
                    own = network.get_input_embeddings().weight[trigger]
                    here = (given["inputs_embeds"] * own).sum(-1) / own.square().sum()
                out.logits[..., mark] += by * here.cumsum(1).clamp_max(1)
            out.logits = out.logits[:, -keep:]
            return out

    return LanguageModel(Led(network), model.tokenizer)


LEADS = {" girl": " little", " boy": " red", " book": " gave", " doctor": " time", " rain": " ball"}


def test_a_planted_word_is_found_and_confirmed() -> None:
    model = led(LEADS)
    found = associations(
        model, " girl", against=" boy", controls=CONTROLS, length=3, restarts=12, discrete=QUICK
    )
    assert found.status == "ok"
    assert found.confirmed == ["little"]
    (row,) = found.table[found.table.flagged].itertuples()
    assert row.replicated
    assert row.count == 12
    assert row.effect > 5
    assert found.paired is not None
    assert list(found.paired.item[found.paired.confirmed]) == ["little"]
    assert "restarts that reached it: 12 and 12" in repr(found)
    assert "little" in found._repr_html_()
    # Both concepts are searched from the same starts.
    assert list(found.prompts[0].table.restart) == list(range(12))
    searched = [one for block in found.others for one in block]
    numbers = [set(one.table.restart) for one in (*found.prompts, *searched)]
    assert sum(map(len, numbers)) == len(set().union(*numbers)), "no restart counts twice"


def test_what_cannot_be_reached_is_inconclusive() -> None:
    model = led({word: lead for word, lead in LEADS.items() if word != " girl"})
    found = associations(model, " girl", controls=CONTROLS, length=3, restarts=12, discrete=QUICK)
    assert found.status == "inconclusive"
    assert "too few to tell" in found.why
    assert found.confirmed == []


def test_controls_are_about_as_likely_and_no_part_of_the_concept() -> None:
    model = small("gpt2", words="plain")
    found = matched_controls(model, [" girl"], 4, avoid=["doctor"])
    assert len(found) == len(set(found)) == 4
    assert not any("girl" in word or "doctor" in word for word in found)
    # Scored one word at a time, in the texts that the model says of itself.
    drawn = continued(model, [[]] * 24, 24, start=model.begin, generator=generator_of("controls"))
    heads = [text[:length] for text in drawn for length in range(len(text) + 1)]

    def often(word: str) -> float:
        found = log_probabilities(model, heads, model.encode(word), start=model.begin)
        return float(found.double().logsumexp(0))

    own = often(" girl")
    every = matched_controls(model, [" girl"], 1000, avoid=["doctor"])
    nearest = sorted(abs(often(word) - own) for word in every)[:4]
    assert sorted(abs(often(word) - own) for word in found) == pytest.approx(nearest, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"controls": ()}, "there are no controls"),
        ({"templates": ("The",)}, "a template is a text with {}"),
        ({"concept": ""}, "tokenizes to nothing"),
    ],
)
def test_bad_input_is_told(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"concept": " girl", "controls": CONTROLS, "restarts": 2, "length": 2} | change
    with pytest.raises(ParamsError, match=message):
        associations(small(), given.pop("concept"), discrete=QUICK, **given)


def test_a_lexicon_is_tried_in_templates_flagged_or_not() -> None:
    """A model that says b after a: of lexicons, the one that holds a is confirmed, the other is not."""
    words = [f"w{letter}" for letter in "abcdefghijklmnopqrst"]
    texts = [f"{word} is here and then {'yes' if word in words[:4] else 'no'}" for word in words] * 40
    model = fit(
        fresh(word_pieces(texts), Network(layers=1, width=32, heads=2), seed=0), texts,
        TextSchedule(steps=150, learning_rate=1e-2), seed=0,
    )  # fmt: skip
    found = associations(
        model, "yes", against="no", controls=["here", "then"], length=3, restarts=12,
        discrete=Discrete(budget=3000, patience=2),
        templates=["{} is here and then", "and {} is here and then"],
        lexicons={"leading": words[:4], "other": words[4:8]},
    )  # fmt: skip
    assert found.paired is not None
    rows = found.paired.set_index("item")
    assert rows.confirmed["lexicon:leading"]
    assert rows.effect_low["lexicon:leading"] > 0.5
    assert not rows.confirmed["lexicon:other"]
    # What leads away from a concept is an association too, of a lexicon that someone named.
    assert found.table.set_index("item").effect["lexicon:leading"] > 0


def test_the_beginning_of_a_word_is_no_control() -> None:
    model = small("gpt2", words="plain")
    first, second = matched_controls(model, [" girl"], 2)
    network = copy.deepcopy(model.network)
    (token,) = model.encode(first)
    (more,) = model.encode("ing")[:1]
    assert not model.decode([more]).startswith(" ")

    class Unfinished(Around):
        def forward(self, **given: Any) -> Any:
            out, keep = self.all_logits(given)
            out.logits[..., more] += 60 * (given["input_ids"] == token).float()
            out.logits = out.logits[:, -keep:]
            return out

    found = matched_controls(LanguageModel(Unfinished(network), model.tokenizer), [" girl"], 2)
    assert first not in found
    assert second in found


@pytest.mark.parametrize(("words", "placebos"), [(1, 8), (1, 40), (3, 40), (30, 8)])
def test_words_like_any_other_are_seldom_taken_for_more(words: int, placebos: int) -> None:
    """Scores of words drawn alike, each template with a part of its own: the interval holds zero."""
    generator = np.random.default_rng(0)
    outside, draws = 0, 400
    for _ in range(draws):
        templates = generator.normal(0, 1, 8)
        both = (
            generator.normal(0, 1, (words + placebos, 1))
            + templates
            + generator.normal(0, 0.3, (words + placebos, 8))
        )
        found = _beyond(both[None, :words], both[None, words:], 0.99)
        outside += not found.low <= 0 <= found.high
        assert found.n == words + placebos
    assert outside / draws < 0.03
    far = _beyond(both[None, :words] + 8, both[None, words:], 0.99)
    assert far.low > 0
    assert far.value == pytest.approx(8, abs=4)


def test_each_block_must_have_reached_it() -> None:
    def block(reached: int, of: int = 12) -> Any:
        table = pd.DataFrame(
            {
                "log_probability": [0.0] * reached + [-9.0] * (of - reached),
                "lift": 0.0,
                "said": False,
                "survives": True,
            }
        )
        return Prompts((), table, torch.zeros(of, 1), 0.0)

    whole = (block(12), block(12))
    assert _told(whole, [[one] for one in whole], "their controls")[0] == "ok"
    for own, others in (
        ((block(12), block(4)), whole),
        (whole, (block(12), block(0))),
        ((block(5, 24), block(12)), whole),
    ):
        status, why = _told(own, [[one] for one in others], "their controls")
        assert status == "inconclusive"
        assert "too few to tell" in why


def test_a_rival_that_is_not_reached_leaves_the_pair_inconclusive() -> None:
    model = led({word: lead for word, lead in LEADS.items() if word != " boy"})
    found = associations(
        model, " girl", against=" boy", controls=CONTROLS, length=3, restarts=12, discrete=QUICK
    )
    assert (found.status, found.paired_status) == ("ok", "inconclusive")
    assert "too few to tell" in found.paired_why


def test_controls_are_written_as_the_concept_is() -> None:
    model = small("gpt2", words="plain")
    assert all(word.startswith(" ") for word in matched_controls(model, [" girl"], 4))
    bare = matched_controls(model, ["girl"], 4, after=model.encode(" and the"))
    assert not any(word.startswith(" ") for word in bare)
    assert all(len(model.encode(word)) == 1 for word in bare)
    with pytest.raises(ParamsError, match="words beside 'girl' that could be controls"):
        associations(
            model, "girl", controls=5, block=[chr(code) for code in range(97, 123)], restarts=2, length=2
        )
