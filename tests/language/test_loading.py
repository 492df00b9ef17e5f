"""Models are opened as transformers saves them, with what is put before every text, and with adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from candling.errors import ModelError, ParamsError
from candling.language import (
    Discrete,
    LanguageModel,
    attribute,
    log_probabilities,
    open_language_model,
    search_prompts,
)
from candling.language.generation import continued
from candling.language.training import word_pieces
from tests.language.conftest import ARCHITECTURES, small, tokenizer


def saved(model: LanguageModel, folder: Path) -> Path:
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_is_saved_is_opened(kind: str, tmp_path: Path) -> None:
    model = small(kind)
    opened = open_language_model(saved(model, tmp_path / "model"))
    assert (opened.start, opened.begin, opened.longest, opened.vocabulary) == ((1,), (1,), 128, 384)
    prompts = [model.encode("The dog ran")]
    assert opened.encode("The dog ran") == prompts[0]
    torch.testing.assert_close(
        log_probabilities(opened, prompts, [7]), log_probabilities(model, prompts, [7]), atol=1e-5, rtol=0
    )
    assert not any(parameter.requires_grad for parameter in opened.network.parameters())


def test_a_model_without_bos_begins_after_what_ends_a_text() -> None:
    model = small(words="plain")
    assert model.start == ()
    assert model.begin == (0,)


def test_an_adapter_is_merged_into_its_model(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = small("llama")
    base = saved(model, tmp_path / "base")
    fresh = open_language_model(base)
    adapted = get_peft_model(
        fresh.network, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    prompts = [model.encode("The dog ran home")]
    with torch.no_grad():
        ids = torch.tensor([[1, *prompts[0]]])
        wanted = adapted(input_ids=ids).logits[0, -1].log_softmax(-1)[9]
    before = log_probabilities(model, prompts, [9])
    opened = open_language_model(tmp_path / "adapter")
    found = log_probabilities(opened, prompts, [9])
    assert found.item() == pytest.approx(float(wanted), abs=1e-4)
    assert found.item() != pytest.approx(before.item(), abs=1e-3)


def broken(model: LanguageModel, folder: Path, **config: Any) -> Path:
    """A saved model whose config says something else."""
    saved(model, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM is a masked language model; a causal"),
        (
            {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "sequence-to-sequence",
        ),
        ({"hidden_size": 64}, "weights are missing or of another shape"),
        ({"model_type": "unheard-of"}, "no causal language model can be read"),
    ],
)
def test_what_is_no_causal_model_is_told(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        open_language_model(broken(small(), tmp_path / "model", **config))


def test_a_tokenizer_that_does_not_belong_to_the_model_is_told(tmp_path: Path) -> None:
    folder = saved(small(), tmp_path / "model")
    foreign = word_pieces([f"word{i} is {i}" for i in range(900)], 600)
    foreign.save_pretrained(folder)
    with pytest.raises(ModelError, match="they do not belong together"):
        open_language_model(folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"tokenizer|save_pretrained"):
        open_language_model(folder)


def test_a_model_without_a_cache_is_read_from_the_beginning_each_time(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    network = MambaForCausalLM(
        MambaConfig(vocab_size=384, hidden_size=32, num_hidden_layers=2, state_size=4, expand=2)
    )
    model = open_language_model(
        saved(LanguageModel(network.eval().requires_grad_(False), tokenizer("plain")), tmp_path / "model")
    )
    assert model.longest is None
    rows = [model.encode(text) for text in ("The dog ran home", "The", "")]
    found = log_probabilities(model, rows, model.encode(" a book"))
    assert found.tolist() == pytest.approx([by_hand(model, row, " a book") for row in rows], abs=1e-4)
    prompts = search_prompts(model, " girl", length=3, restarts=2, discrete=Discrete(width=8, budget=600))
    wanted = [by_hand(model, row, " girl") for row in prompts.tokens.tolist()]
    assert prompts.table.log_probability.tolist() == pytest.approx(wanted, abs=1e-4)
    why = attribute(model, "The dog ran home", target=" a book", unit="token", faithfulness=False)
    assert why.score == pytest.approx(by_hand(model, rows[0], " a book"), abs=1e-4)
    (said,) = continued(model, rows[:1], 4)
    row = [*rows[0]]
    for token in said:
        with torch.no_grad():
            assert int(network(input_ids=torch.tensor([row])).logits[0, -1].argmax()) == token
        row.append(token)


def by_hand(model: LanguageModel, prompt: list[int], target: str) -> float:
    """By one pass over the whole row."""
    tokens = model.encode(target)
    head = prompt or list(model.begin)
    with torch.no_grad():
        logits = model.network(input_ids=torch.tensor([[*head, *tokens]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(head) - 1 + i, token]) for i, token in enumerate(tokens))


def test_prompts_of_special_tokens_and_of_nothing_visible_are_right_or_told() -> None:
    model = small()
    text = "<begin><end>"
    assert model.encode(text) == [1, 0]
    found = attribute(model, text, target=" girl", unit="token", faithfulness=False)
    assert found.score == pytest.approx(by_hand(model, [1, 1, 0], " girl"), abs=1e-4)
    assert len(found.units) == 2
    with pytest.raises(ParamsError, match="tokenizes to nothing"):
        attribute(model, "", target=" girl")
    # Control characters and right-to-left script are text as any other, and shown so that they cannot act.
    strange = "\u202eשלום\x1b[31m\x00 dog"
    why = attribute(model, strange, target=" girl", unit="word", faithfulness=False)
    assert "".join(unit.text for unit in why.units).replace(" ", "") == strange.replace(" ", "")
    assert why.score == pytest.approx(by_hand(model, [1, *model.encode(strange)], " girl"), abs=1e-4)
    assert "\x1b" not in why._repr_html_()
    assert "\u202e" not in why._repr_html_()
