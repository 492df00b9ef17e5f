"""Small language models with random weights, of every architecture that is promised."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from candling.language import LanguageModel

TEXT = (
    "Once upon a time there was a little girl. She liked the red ball and the doctor gave the boy a book.",
    "The nurse said that it will rain today! Then the dog ran home, and it did not rain.",
)


@cache
def tokenizer(kind: str) -> Any:
    """A BPE tokenizer, of bytes but for "spaced", which puts a space before every text as SentencePiece does.

    "bos" puts BOS before every text, "plain" nothing.
    """
    made = Tokenizer(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "spaced":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        made.decoder = decoders.Metaspace(prepend_scheme="always")
        alphabet = sorted({*"▁,.!", *map(chr, range(97, 123)), *map(chr, range(65, 91))})
    else:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=["<end>", "<begin>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made.train_from_iterator(TEXT * 20, trainer)
    if kind == "bos":
        from tokenizers.processors import TemplateProcessing

        made.post_processor = TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<begin>" if kind == "bos" else None, eos_token="<end>"
    )


_SMALL = {"vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_MAKE: dict[str, Any] = {
    "gpt2": lambda tied: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=384, n_embd=32, n_layer=2, n_head=4, n_positions=128, tie_word_embeddings=tied
        )
    ),
    "llama": lambda tied: LlamaForCausalLM(
        LlamaConfig(
            **_SMALL, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=128,
            tie_word_embeddings=tied,
        )
    ),
    "gpt_neox": lambda tied: GPTNeoXForCausalLM(
        GPTNeoXConfig(
            **_SMALL, intermediate_size=48, max_position_embeddings=128, tie_word_embeddings=tied
        )
    ),
    "qwen2": lambda tied: Qwen2ForCausalLM(
        Qwen2Config(
            **_SMALL, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=128,
            tie_word_embeddings=tied,
        )
    ),
}  # fmt: skip
ARCHITECTURES = tuple(_MAKE)


def small(kind: str = "llama", *, tied: bool = False, words: str = "bos") -> LanguageModel:
    """A model with random weights, as wide as it takes for logits to differ."""
    torch.manual_seed(3)
    network = _MAKE[kind](tied)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return LanguageModel(network.eval().requires_grad_(False), tokenizer(words))


class Around(torch.nn.Module):
    """A network around another, for planting what it says; it has no cache."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    def get_input_embeddings(self) -> Any:
        return self.inner.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()

    def all_logits(self, given: dict[str, Any]) -> tuple[Any, int]:
        """What the inner one says at every place, and how many of the last places were asked for."""
        keep = given.pop("logits_to_keep")
        return self.inner(**given | {"use_cache": False, "past_key_values": None}), keep


@pytest.fixture(
    params=[
        (kind, tied, words) for kind in ARCHITECTURES for tied, words in ((True, "bos"), (False, "plain"))
    ],
    ids=lambda one: f"{one[0]}-{'tied' if one[1] else 'untied'}-{one[2]}",
)
def each_model(request: pytest.FixtureRequest) -> LanguageModel:
    kind, tied, words = request.param
    return small(kind, tied=tied, words=words)
