"""Scores are those of one row at a time, whatever the batch, the length, the cache or the architecture."""

from __future__ import annotations

import copy

import pytest
import torch

from candling.errors import ModelError, ParamsError
from candling.language import LanguageModel, log_probabilities, says, target_of
from candling.language.scoring import Prefix, following
from tests.language.conftest import small

PROMPTS = ("Once upon a time", "The doctor", "and the boy gave the red ball home", "")


def by_hand(model: LanguageModel, prompt: str, target: str) -> float:
    """Token by token, each from a pass of its own."""
    row = [*(model.start if prompt else model.begin), *model.encode(prompt)]
    total = 0.0
    for token in model.encode(target):
        with torch.no_grad():
            logits = model.network(input_ids=torch.tensor([row])).logits[0, -1]
        total += float(logits.float().log_softmax(-1)[token])
        row.append(token)
    return total


def test_scores_are_those_of_single_passes(each_model: LanguageModel) -> None:
    prompts = [each_model.encode(prompt) for prompt in PROMPTS]
    for target in (" girl", " a book", "!"):
        found = log_probabilities(each_model, prompts, each_model.encode(target))
        assert found.tolist() == pytest.approx(
            [by_hand(each_model, prompt, target) for prompt in PROMPTS], abs=1e-4
        )


def test_each_prompt_may_have_its_own_target() -> None:
    model = small()
    prompts = [model.encode(prompt) for prompt in PROMPTS]
    targets = [model.encode(text) for text in (" girl", "!", " a book", "The")]
    found = log_probabilities(model, prompts, targets)
    alone = [log_probabilities(model, [a], b).item() for a, b in zip(prompts, targets, strict=True)]
    assert found.tolist() == pytest.approx(alone, abs=1e-5)
    assert log_probabilities(model, [], targets[0]).shape == (0,)


def test_a_prefix_is_computed_once_and_never_changed(each_model: LanguageModel) -> None:
    tokens = [*each_model.begin, *each_model.encode("The nurse said that it will rain")]
    rest = torch.tensor([each_model.encode(text)[:3] for text in ("today, home", "the home!!", "a red ball")])
    prefix = Prefix(each_model, tokens)
    assert prefix.kept
    before = [copy.deepcopy(layer) for layer in prefix._layers or ()]
    with torch.inference_mode():
        for length in (len(tokens), 3):
            found = following(each_model, rest, 2, prefix=prefix, length=length)
            whole = torch.cat([torch.tensor(tokens[:length]).expand(3, -1), rest], 1)
            wanted = following(each_model, whole, 2)
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    for (key, value), (old_key, old_value) in zip(prefix._layers or (), before, strict=True):
        assert torch.equal(key, old_key)
        assert torch.equal(value, old_value)


def test_greedy_decoding_says_what_it_says(each_model: LanguageModel) -> None:
    prompt = each_model.encode("Once upon a time")
    row = [*each_model.start, *prompt]
    said = each_model.network.generate(
        torch.tensor([row]), max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=383
    )[0, len(row) :].tolist()
    assert says(each_model, prompt, said)
    assert not says(each_model, prompt, [*said[:2], (said[2] + 1) % 384])


def test_half_precision_is_near() -> None:
    model, prompts = small("qwen2"), []
    prompts = [model.encode(prompt) for prompt in PROMPTS]
    whole = log_probabilities(model, prompts, model.encode(" girl"))
    half = LanguageModel(copy.deepcopy(model.network).to(torch.bfloat16), model.tokenizer)
    found = log_probabilities(half, prompts, model.encode(" girl"))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whole, atol=0.05 * float(whole.abs().max()), rtol=0)


def test_what_cannot_be_scored_is_said() -> None:
    model = small()
    with pytest.raises(ParamsError, match="one token at least"):
        log_probabilities(model, [[5]], [])
    with pytest.raises(ParamsError, match="2 prompts need as many targets, not 1"):
        log_probabilities(model, [[5], [6]], [[7]])
    with pytest.raises(ParamsError, match="more than the model's context of 128"):
        log_probabilities(model, [[5] * 130], [7])
    spoiled = LanguageModel(copy.deepcopy(model.network), model.tokenizer)
    spoiled.network.get_output_embeddings().weight.data[9] = torch.nan
    with pytest.raises(ModelError, match="NaN"):
        log_probabilities(spoiled, [[5]], [7])


def test_a_leading_space_makes_another_target() -> None:
    model = small()
    assert target_of(model, " girl").tokens != target_of(model, "girl").tokens
    assert "▁" in str(target_of(model, " girl"))
