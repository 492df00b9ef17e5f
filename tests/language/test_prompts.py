"""Prompts make the model say the target, can be typed, and hold neither it nor what is blocked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from candling.errors import ParamsError
from candling.language import LanguageModel, log_probabilities
from candling.language.continuous import Continuous
from candling.language.prompts import allowed_tokens, search_prompts
from candling.language.search import Discrete
from tests.language.conftest import Around, small

QUICK = Discrete(width=24, budget=4000, patience=4)


def led(word: str) -> LanguageModel:
    """A model that says " girl" right after one token, and nothing in particular else."""
    model = small("gpt2", words="plain")
    network = copy.deepcopy(model.network)
    trigger, mark = model.encode(word)[0], model.encode(" girl")[0]

    class Led(Around):
        def forward(self, **given: Any) -> Any:
            out, keep = self.all_logits(given)
            if "input_ids" in given:
                here = (given["input_ids"] == trigger).float()
            else:
                own = network.get_input_embeddings().weight[trigger]
                here = (given["inputs_embeds"] * own).sum(-1) / own.square().sum()
            out.logits[..., mark] += 12 * here
            out.logits = out.logits[:, -keep:]
            return out

    return LanguageModel(Led(network), model.tokenizer)


def test_restarts_find_what_leads_to_the_target() -> None:
    model = led(" little")
    found = search_prompts(model, " girl", length=3, restarts=6, discrete=QUICK)
    assert found.success.all()
    assert all(text.endswith(" little") for text in found.table.text)
    assert found.table.said.all()
    assert list(found.table.restart) == list(range(6))
    wanted = log_probabilities(model, found.tokens.tolist(), model.encode(" girl"))
    assert found.table.log_probability.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)
    bare = log_probabilities(model, [[]], model.encode(" girl"), start=model.begin)
    assert found.prior == pytest.approx(bare.item(), abs=1e-4)
    assert "6 reach it" in repr(found)


def test_a_restart_is_its_number() -> None:
    model = small()
    both = search_prompts(model, " girl", length=3, restarts=3, first=4, discrete=QUICK)
    one = search_prompts(model, " girl", length=3, restarts=1, first=5, discrete=QUICK)
    assert both.table.text[1] == one.table.text[0]
    assert list(both.table.restart) == [4, 5, 6]


def test_prompts_can_be_typed_and_do_not_hold_what_they_may_not() -> None:
    model = led(" little")
    free = search_prompts(model, " girl", length=4, restarts=4, discrete=QUICK, typable=False, own_words=True)
    assert len(free) == 4
    found = search_prompts(model, " girl", length=4, restarts=4, discrete=QUICK, block=["little", "ball"])
    assert found.table.survives.all()
    for text, tokens in zip(found.table.text, found.tokens.tolist(), strict=True):
        assert model.encode(text) == tokens
        assert not any(word in text.casefold() for word in ("girl", "little", "ball"))


def test_a_set_and_what_comes_before() -> None:
    model = small()
    found = search_prompts(
        model, [" girl", " boy"], length=3, restarts=2, before="Once upon a time", discrete=QUICK,
        continuous=Continuous(steps=5), fluency=0.2,
    )  # fmt: skip
    context = [*model.start, *model.encode("Once upon a time")]
    parts = [
        log_probabilities(model, found.tokens.tolist(), model.encode(text), start=context).double()
        for text in (" girl", " boy")
    ]
    wanted = torch.stack(parts).logsumexp(0)
    assert found.table.log_probability.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


def test_tokens_without_text_are_left_out() -> None:
    model = small()
    may = allowed_tokens(model, ["Doctor"])
    assert not may[0]
    assert not may[1]
    assert not may[len(model.tokenizer) :].any()
    doctor = [token for token in range(360) if "doctor" in model.decode([token]).casefold()]
    assert doctor
    assert not may[doctor].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 0}, "length must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"targets": ""}, "tokenizes to nothing"),
        ({"length": 500}, "more than the model's context of 128"),
        (
            {"block": list("abcdefghijklmnopqrstuvwxyz0123456789.,!?:;'\"()[]{}<>-_/\\|+=*&^%$#@~` ")},
            "fewer than two",
        ),
    ],
)
def test_bad_input_is_told(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"targets": " girl", "length": 3, "restarts": 1} | change
    with pytest.raises(ParamsError, match=message):
        search_prompts(small(), given.pop("targets"), **given)
