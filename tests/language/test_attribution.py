"""Attribution: the same as captum's, complete, right where truth is planted, and told how faithful it is."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput

from candling.errors import ParamsError
from candling.language import LanguageModel, attribute, log_probabilities
from candling.language.training import Network, TextSchedule, fit, fresh, word_pieces
from candling.language.units import units_of
from tests.language.conftest import Around, small, tokenizer

PROMPT = "The nurse said that it will rain today! Then the dog ran home."
TARGET = " the boy"


def score(model: LanguageModel, tokens: list[int], target: str = TARGET) -> float:
    return float(log_probabilities(model, [tokens], model.encode(target))[0])


def test_leaving_one_out_is_what_a_pass_without_it_says(each_model: LanguageModel) -> None:
    found = attribute(each_model, PROMPT, target=TARGET, unit="token", faithfulness=False)
    tokens = each_model.encode(PROMPT)
    whole = score(each_model, tokens)
    wanted = [whole - score(each_model, tokens[:i] + tokens[i + 1 :]) for i in range(len(tokens))]
    assert found.score == pytest.approx(whole, abs=1e-4)
    np.testing.assert_allclose(found.scores, wanted, atol=2e-4)
    assert found.evaluations == len(tokens) + 1


def test_replacing_one_is_what_captum_says() -> None:
    model = small("gpt2", words="plain")
    found = attribute(model, PROMPT, target=TARGET, unit="token", replacement=0, faithfulness=False)
    peer = LLMAttribution(FeatureAblation(model.network), _Captums(model.tokenizer))
    given = TextTokenInput(PROMPT, _Captums(model.tokenizer), baselines=0)
    theirs = peer.attribute(given, target=TARGET, use_cached_outputs=False)
    np.testing.assert_allclose(found.scores, theirs.seq_attr.double().numpy(), atol=1e-4)


class _Captums:
    """The tokenizer as captum wants it, which asks for no special tokens and a mapping back."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __call__(self, text: str, **more: Any) -> Any:
        return self.own(text, **more)

    def encode(self, text: str, add_special_tokens: bool = False, **more: Any) -> Any:
        return self.own.encode(text, add_special_tokens=False, **more)

    def decode(self, tokens: Any, **more: Any) -> str:
        return str(self.own.decode(tokens, **more))

    def convert_ids_to_tokens(self, tokens: Any) -> Any:
        return self.own.convert_ids_to_tokens(tokens)

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        return self.own.convert_tokens_to_ids(tokens)


def test_integrated_gradients_are_complete(each_model: LanguageModel) -> None:
    found = attribute(
        each_model, "The dog ran home", target="!", unit="token", method="integrated-gradients", replacement=0
    )
    tokens = each_model.encode("The dog ran home")
    gap = score(each_model, tokens, "!") - score(each_model, [0] * len(tokens), "!")
    assert found.scores.sum() == pytest.approx(gap, rel=0.011)


def test_a_foil_takes_its_own_score_away() -> None:
    model = small()
    both = attribute(model, PROMPT, target=TARGET, foil=" girl", unit="word", faithfulness=False)
    one = attribute(model, PROMPT, target=TARGET, unit="word", faithfulness=False)
    other = attribute(model, PROMPT, target=" girl", unit="word", faithfulness=False)
    np.testing.assert_allclose(both.scores, one.scores - other.scores, atol=1e-4)
    assert "rather than ' girl'" in repr(both)


def triggered(word: str) -> tuple[LanguageModel, list[int]]:
    """A model of single-token words in which one word before it, and nothing else, makes "!" likely."""
    model = small("gpt2", words="plain")
    network = copy.deepcopy(model.network)
    planted = LanguageModel(network, model.tokenizer)
    trigger, mark = planted.encode(word)[0], planted.encode("!")[0]

    class Planted(Around):
        def forward(self, **given: Any) -> Any:
            out, keep = self.all_logits(given)
            seen = (given["input_ids"] == trigger).cumsum(1) > 0
            out.logits[..., mark] += 8 * seen
            out.logits = out.logits[:, -keep:]
            return out

    return LanguageModel(Planted(network), model.tokenizer), [trigger]


@pytest.mark.parametrize("method", ["leave-one-out", "surrogate"])
def test_a_planted_word_comes_first(method: Any) -> None:
    model, (trigger,) = triggered(" dog")
    prompts = (
        PROMPT,
        "Once upon a time the dog said that a doctor gave the book.",
        "And it was the dog that ran",
    )
    for prompt in prompts:
        found = attribute(model, prompt, target="!", unit="word", method=method)
        best = found.table.set_index("rank").text[1]
        assert best == "dog", found
        assert found.comprehensiveness > 4
        assert found.comprehensiveness > 2 * found.comprehensiveness_random
        assert found.sufficiency < found.sufficiency_random


def test_units_hold_every_token_once_and_read_as_they_should() -> None:
    model = small()
    text = "The nurse said: it won't rain! Then the dog ran. And é 🎈 home"
    tokens = model.encode(text)
    for kind in ("token", "word", "sentence"):
        units = units_of(model, tokens, kind)  # type: ignore[arg-type]
        places = [place for unit in units for place in range(unit.first, unit.last)]
        assert places == list(range(len(tokens)))
    words = [unit.text for unit in units_of(model, tokens, "word")]
    assert words[:8] == ["The", "nurse", "said", ":", "it", "won't", "rain", "!"]
    assert "🎈" in words
    sentences = [unit.text for unit in units_of(model, tokens, "sentence")]
    assert sentences == ["The nurse said: it won't rain!", "Then the dog ran.", "And é 🎈 home"]


def test_results_show_themselves_and_nothing_in_them_acts() -> None:
    model = small()
    found = attribute(model, "The <b>dog</b> \x1b[31m \u202eran", target="</script>", unit="token")
    shown = found._repr_html_()
    assert "<b>dog" not in shown
    assert "</script>" not in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert math.isfinite(found.sufficiency)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ""}, "prompt '' tokenizes to nothing"),
        ({"target": ""}, "target '' tokenizes to nothing"),
        ({"foil": TARGET}, "target and foil are the same"),
        ({"method": "guess"}, "method 'guess' is not known"),
        ({"unit": "chapter"}, "unit 'chapter' is not known"),
        ({"prompt": "dog " * 200}, "more than the model's context of 128"),
        ({"replacement": 999}, "there is no token 999"),
    ],
)
def test_bad_input_is_told_in_a_sentence(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"prompt": PROMPT, "target": TARGET} | change
    with pytest.raises(ParamsError, match=message):
        attribute(small(), given.pop("prompt"), **given)


def test_a_tokenizer_of_another_model_is_noticed() -> None:
    from candling.errors import ModelError

    own = small()
    short = copy.deepcopy(own.network)
    short.resize_token_embeddings(100)
    with pytest.raises(ModelError, match="do not belong together"):
        LanguageModel(short, tokenizer("bos"))


def test_marginal_scores_are_the_sum_over_what_the_model_expects() -> None:
    """Against every token of the vocabulary, one at a time; of so few the most expected hold nearly all."""
    model = small("gpt2", words="bos")
    prompt = "The doctor gave the"
    tokens, target = model.encode(prompt), model.encode(" boy")
    found = attribute(model, prompt, target=" boy", unit="token", method="marginal", faithfulness=False)
    whole = float(log_probabilities(model, [tokens], target))
    for place, score in enumerate(found.scores.tolist()):
        head = [*model.start, *tokens[:place]]
        with torch.inference_mode():
            expected = model.network(input_ids=torch.tensor([head])).logits[0, -1].log_softmax(-1)
        best, others = expected.topk(16)
        rows = [[*tokens[:place], int(other), *tokens[place + 1 :]] for other in others]
        after = log_probabilities(model, rows, target).double()
        assert score == pytest.approx(
            whole - float((after + best - best.logsumexp(0)).logsumexp(0)), abs=1e-4
        )


def test_what_grammar_alone_asks_for_counts_for_nothing_at_the_margin() -> None:
    """A token that the model is sure of gives way to itself; without it the text is no text."""
    texts = [f"{who} is a {what}" for who, what in (("ann", "cook"), ("bob", "clerk"))] * 200
    model = fit(
        fresh(word_pieces(texts), Network(layers=1, width=32, heads=2), seed=0), texts,
        TextSchedule(steps=150, learning_rate=1e-2), seed=0,
    )  # fmt: skip
    found = {
        method: attribute(model, "ann is a", target="cook", foil="clerk", method=method, faithfulness=False)
        for method in ("marginal", "leave-one-out")
    }
    (first, *rest), (_, *without) = (found[name].scores.tolist() for name in ("marginal", "leave-one-out"))
    assert first > 1
    assert max(map(abs, rest)) < first / 2
    assert max(map(abs, rest)) < max(map(abs, without)) / 2
