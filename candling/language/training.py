"""Fitting a small language model with a tokenizer of its own, and going on with one that is there."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from candling.errors import ModelError, ParamsError
from candling.language.loading import LanguageModel
from candling.language.scoring import batches_of
from candling.statistics import Estimate, bootstrap

__all__ = ["Network", "TextSchedule", "fit", "fresh", "perplexity", "save_language_model", "word_pieces"]

_UNKNOWN, _BEGIN, _END = "[UNK]", "[BOS]", "[EOS]"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A small transformer of the Llama kind, tied: layers of so many heads, and so wide.

    longest: tokens of a text.
    """

    layers: int = 4
    width: int = 128
    heads: int = 4
    longest: int = 128

    def __post_init__(self) -> None:
        if min(self.layers, self.width, self.heads, self.longest) < 1:
            raise ParamsError("layers, width, heads and longest of a network must be at least 1")
        if self.width % (2 * self.heads):
            raise ParamsError(f"width {self.width} is not an even multiple of {self.heads} heads")


@dataclass(frozen=True, kw_only=True)
class TextSchedule:
    """How to train. `steps` counts batches of `batch` texts; AdamW with one cycle of the learning rate."""

    steps: int = 500
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.1

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1:
            raise ParamsError("steps and batch of a schedule must be at least 1")
        if self.learning_rate <= 0:
            raise ParamsError(f"learning_rate must lie above 0, not {self.learning_rate}")


def word_pieces(texts: Sequence[str], vocabulary: int = 512) -> Any:
    """A word-piece tokenizer of transformers, fitted to texts, that begins every text with BOS.

    It knows every character, at the beginning of a word and inside, and then the most frequent words; the
    trainer of tokenizers would find pieces between the two, other ones each time.

    Raises
    ------
    ParamsError
        If there is no text.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if not texts:
        raise ParamsError("a tokenizer is fitted to texts, and there are none")
    normal = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in split.pre_tokenize_str(normal.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    pieces = dict.fromkeys([_UNKNOWN, _BEGIN, _END, *letters, *(f"##{letter}" for letter in letters)])
    pieces |= dict.fromkeys(frequent[: max(0, vocabulary - len(pieces))])
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=_UNKNOWN))
    made.normalizer, made.pre_tokenizer = normal, split
    made.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    made.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A", pair=f"{_BEGIN} $A $B", special_tokens=[(_BEGIN, made.token_to_id(_BEGIN))]
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=made, unk_token=_UNKNOWN, bos_token=_BEGIN, eos_token=_END,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def fresh(tokenizer: Any, network: Network | None = None, *, seed: int) -> LanguageModel:
    """A model with random weights, drawn by the seed alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    network = network or Network()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=network.width,
        intermediate_size=3 * network.width,
        num_hidden_layers=network.layers,
        num_attention_heads=network.heads,
        max_position_embeddings=network.longest,
        tie_word_embeddings=True,
        # At transformers' own 0.02 attention of so narrow a model stays flat for most of its training.
        initializer_range=network.width**-0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch's, which seeds accelerators too
        llama: Any = LlamaForCausalLM
        made = llama(config)
    return LanguageModel(made.eval().requires_grad_(False), tokenizer, "fresh")


def fit(
    model: LanguageModel,
    texts: Sequence[str],
    schedule: TextSchedule | None = None,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> LanguageModel:
    """A copy of the model, trained to continue the texts; all draws come from the seed.

    Texts are cut at the model's longest; one ends with the token that ends texts, where there is one.

    Raises
    ------
    ParamsError
        If there are no texts.
    ModelError
        If the loss is not a finite number.
    """
    schedule = schedule or TextSchedule()
    rows = _rows(model, texts)
    network = copy.deepcopy(model.network).requires_grad_(True).train()
    weights = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim <= 1]
    adam = torch.optim.AdamW(
        [{"params": weights, "weight_decay": schedule.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=schedule.learning_rate,
    )
    warmup = schedule.warmup if schedule.warmup * schedule.steps > 1 else 0.0
    rate = torch.optim.lr_scheduler.OneCycleLR(
        adam, schedule.learning_rate, total_steps=schedule.steps, pct_start=warmup
    )
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for step in range(schedule.steps):
        if len(order) < schedule.batch:
            order += torch.randperm(len(rows), generator=generator).tolist()
        taken, order = order[: schedule.batch], order[schedule.batch :]
        ids, mask = _padded([rows[i] for i in taken], model.device)
        logits = network(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=False).logits.float()
        lost = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        loss = (lost * mask[:, 1:]).sum() / mask[:, 1:].sum()
        if not torch.isfinite(loss):
            raise ModelError(f"training came to a loss of {loss.item()} at step {step}; lower learning_rate")
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        rate.step()
        if progress is not None:
            progress(step + 1, schedule.steps)
    return LanguageModel(network.eval().requires_grad_(False), model.tokenizer, model.name)


def perplexity(model: LanguageModel, texts: Sequence[str]) -> Estimate:
    """Perplexity a token of texts, exp of the mean loss of all their tokens; a bootstrap over texts."""
    rows = _rows(model, texts)
    sums = np.zeros((len(rows), 2))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    most = batches_of(model, len(rows[order[-1]])).size
    with torch.inference_mode():
        for place in range(0, len(order), most):
            taken = order[place : place + most]
            ids, mask = _padded([rows[i] for i in taken], model.device)
            logits = model.network(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=False).logits
            lost = torch.nn.functional.cross_entropy(
                logits.float().transpose(1, 2), ids[:, 1:], reduction="none"
            )
            sums[taken, 0] = (lost * mask[:, 1:]).sum(1).double().cpu().numpy()
            sums[taken, 1] = mask[:, 1:].sum(1).double().cpu().numpy()
    return bootstrap(lambda sample: np.exp(sample[..., 0].sum(1) / sample[..., 1].sum(1)), sums)


def save_language_model(model: LanguageModel, folder: Path) -> None:
    """Write weights (safetensors) and tokenizer into a folder that is new or empty."""
    from transformers import GenerationConfig

    from candling.models.huggingface import quiet

    folder.mkdir(parents=True, exist_ok=True)
    network = model.network
    made: Any = GenerationConfig
    config, was = network.config, network.generation_config
    try:
        # How it is sampled is none of ours, and what models ship may contradict itself.
        network.generation_config = made(
            bos_token_id=config.bos_token_id, eos_token_id=sorted(model.ends) or None,
            pad_token_id=config.pad_token_id,
        )  # fmt: skip
        with quiet():
            network.save_pretrained(folder, safe_serialization=True)
            model.tokenizer.save_pretrained(folder)
    finally:
        network.generation_config = was


def _rows(model: LanguageModel, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        raise ParamsError("there are no texts to train or to test on")
    end = model.tokenizer.eos_token_id
    most = model.longest or 1024
    ends = [] if end is None else [int(end)]
    rows = [[*model.begin, *model.encode(text), *ends][:most] for text in texts]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise ParamsError("none of the texts is two tokens long, so that there is nothing to continue")
    return rows


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
    mask = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids, mask
