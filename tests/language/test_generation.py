"""What a model goes on to say, against one step at a time and against transformers."""

from __future__ import annotations

import copy

import pytest
import torch

from candling.errors import ParamsError
from candling.language import LanguageModel
from candling.language.generation import continued
from tests.language.conftest import small


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "qwen2"])
def test_greedy_continuation_is_that_of_transformers(kind: str) -> None:
    model = small(kind)
    prompts = [model.encode(text) for text in ("Once upon", "The doctor gave the boy", "It did")]
    found = continued(model, prompts, 6)
    for prompt, said in zip(prompts, found, strict=True):
        ids = torch.tensor([[*model.start, *prompt]])
        expected = model.network.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, pad_token_id=0
        )[0, ids.shape[1] :].tolist()
        end = model.tokenizer.eos_token_id
        assert said == (expected[: expected.index(end)] if end in expected else expected)


def test_chance_draws_by_the_generator_alone() -> None:
    model = small("gpt2")
    prompt = [model.encode("The dog")] * 8
    one, other, third = (
        continued(model, prompt, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert one == other != third
    assert len({tuple(said) for said in one}) > 1


def test_first_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    model = small("gpt2")
    prompt = model.encode("The girl")
    drawn = continued(model, [prompt] * 3000, 1, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ids = torch.tensor([[*model.start, *prompt]])
        expected = model.network(input_ids=ids).logits[0, -1].softmax(-1)
    top = int(expected.argmax())
    assert sum(said == [top] for said in drawn) / 3000 == pytest.approx(float(expected[top]), abs=0.03)


def test_bad_input_is_told() -> None:
    model = small("gpt2")
    with pytest.raises(ParamsError, match="tokens must be at least 1"):
        continued(model, [[1]], 0)
    with pytest.raises(ParamsError, match="more than the model's context"):
        continued(model, [[5] * 120], 20)


def test_any_token_that_the_model_ends_by_ends_a_text() -> None:
    model = small("gpt2")
    prompt = model.encode("The dog")
    (said,) = continued(model, [prompt], 6)
    network = copy.deepcopy(model.network)
    network.generation_config.eos_token_id = [0, said[2]]
    ended = LanguageModel(network, model.tokenizer)
    assert ended.ends == {0, said[2]}
    (short,) = continued(ended, [prompt], 6)
    assert short == said[: said.index(said[2])]
