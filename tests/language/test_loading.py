"""Models are opened as transformers saves them, with what is put before every text, and with adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from candling.language import LanguageModel, log_probabilities, open_language_model
from tests.language.conftest import ARCHITECTURES, small


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
