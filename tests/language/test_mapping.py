"""Maps of planted associations: found, replicated and confirmed; what is not reached is no pass."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from candling.errors import ParamsError
from candling.language import Discrete, LanguageModel, log_probabilities
from candling.language.mapping import associations, matched_controls
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
    prior = log_probabilities(
        model, [[]] * 5, [model.encode(word) for word in (" girl", *found)], start=model.begin
    ).tolist()
    every = matched_controls(model, [" girl"], 1000, avoid=["doctor"])
    others = log_probabilities(
        model, [[]] * len(every), [model.encode(word) for word in every], start=model.begin
    ).tolist()
    nearest = sorted(abs(one - prior[0]) for one in others)[:4]
    assert sorted(abs(one - prior[0]) for one in prior[1:]) == pytest.approx(nearest, abs=1e-5)


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
