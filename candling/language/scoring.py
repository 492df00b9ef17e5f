"""Scoring: how probable a model finds what follows a prompt, all of its tokens in one teacher-forced pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from candling.errors import ModelError, ParamsError
from candling.language.loading import LanguageModel
from candling.models import Batches

__all__ = [
    "Layers",
    "Prefix",
    "batches_of",
    "cache_of",
    "finite",
    "following",
    "layers_of",
    "log_probabilities",
    "picked",
    "says",
]

_TOKENS = 8192  # in a batch on a processor
_TOKENS_ACCELERATED = 65536
_LOGITS = 2**25  # in a batch: of one place of each row


Layers = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values (B, heads, places, width) of each layer."""


def layers_of(made: Any) -> Layers | None:
    """What a plain cache holds; None of another kind of memory, such as windows or recurrence."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if not isinstance(made, DynamicCache):
        return None
    found: list[tuple[Tensor, Tensor]] = []
    for layer in made.layers:
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
            return None
        found.append((layer.keys, layer.values))
    return tuple(found)


def cache_of(layers: Layers, rows: Tensor, length: int) -> Any:
    """A new cache of the first places of chosen rows (N,); what it is made of never changes."""
    from transformers import DynamicCache

    parts = [(key[rows, :, :length], value[rows, :, :length]) for key, value in layers]
    return DynamicCache(ddp_cache_data=parts)


class Prefix:
    """Tokens that many rows begin with, whose keys and values are computed once and never changed.

    Models whose memory is of another kind than a plain cache see them anew each time.
    """

    def __init__(self, model: LanguageModel, tokens: Sequence[int]) -> None:
        self.model, self.tokens = model, tuple(tokens)
        self._layers: Layers | None = None
        if self.tokens:
            ids = torch.tensor([list(tokens)], device=model.device)
            with torch.inference_mode():
                out = model.network(input_ids=ids, use_cache=True, logits_to_keep=1)
            self._layers = layers_of(getattr(out, "past_key_values", None))

    @property
    def kept(self) -> bool:
        """Whether the model need not see them again."""
        return self._layers is not None

    def cache(self, rows: int, length: int) -> Any:
        """A new cache of the first tokens, for so many rows."""
        assert self._layers is not None, "asked only where it is kept"
        return cache_of(self._layers, torch.zeros(rows, dtype=torch.long, device=self.model.device), length)


def following(
    model: LanguageModel, rows: Tensor, count: int, *, prefix: Prefix | None = None, length: int = 0
) -> Tensor:
    """Logits (N, count, V) in float32 of what follows the last `count` places of rows (N, L).

    The token at place i is what the logits at place i - 1 speak of, so that rows are given without the last
    token.

    Parameters
    ----------
    rows
        int (N, L), tokens after the first `length` of the prefix.
    count
        From how many of the last places logits are wanted.
    """
    if prefix is not None and length and prefix.kept:
        cache = prefix.cache(len(rows), length)
        out = model.network(input_ids=rows, past_key_values=cache, logits_to_keep=count)
    else:
        if prefix is not None and length:
            head = torch.tensor(prefix.tokens[:length], device=rows.device).expand(len(rows), -1)
            rows = torch.cat([head, rows], 1)
        out = model.network(input_ids=rows, use_cache=False, logits_to_keep=count)
    logits: Tensor = out.logits[:, -count:].float()
    return logits


def picked(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities (N, T) of tokens (N, T) by logits (N, T, V).

    Raises
    ------
    ModelError
        If a logit is NaN or infinite.
    """
    return finite(logits).gather(2, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def finite(logits: Tensor) -> Tensor:
    """The logits as they are.

    Raises
    ------
    ModelError
        If one is NaN or infinite.
    """
    if not torch.isfinite(logits).all():
        raise ModelError("the model returned NaN or infinite logits")
    return logits


def log_probabilities(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    targets: Sequence[int] | Sequence[Sequence[int]],
    *,
    start: Sequence[int] | None = None,
) -> Tensor:
    """Log-probability (N,) of a target after each prompt, the sum over its tokens, in nats.

    Parameters
    ----------
    prompts
        N rows of tokens, of any lengths.
    targets
        Tokens of one target, or of one for each prompt.
    start
        Tokens before every prompt; None: those that the tokenizer puts there, or before an empty prompt the
        one that begins or ends texts.

    Raises
    ------
    ParamsError
        If a target is empty, there are not as many as prompts, or a row does not fit into the context.
    ModelError
        If the model returns NaN.
    """
    if not targets:
        raise ParamsError("a target has one token at least")
    wanted = [[one] if isinstance(one, int) else list(one) for one in targets]
    if isinstance(targets[0], int):
        wanted = [[token for one in wanted for token in one]] * len(prompts)
    if len(wanted) != len(prompts):
        raise ParamsError(f"{len(prompts)} prompts need as many targets, not {len(wanted)}")
    rows = []
    for prompt, target in zip(prompts, wanted, strict=True):
        before = model.start if start is None else tuple(start)
        if not before and not prompt:
            before = model.begin
        if not target or not (before or prompt):
            raise ParamsError("a target has one token at least, and something must come before it")
        rows.append(([*before, *prompt, *target], len(target)))
    _check_room(model, rows)
    out = torch.empty(len(rows))

    def shape(i: int) -> tuple[int, int]:
        return len(rows[i][0]), rows[i][1]

    # Rows of a length together: nothing is padded, so that no model needs a token for it.
    with torch.inference_mode():
        for (length, count), same in groupby(sorted(range(len(rows)), key=shape), key=shape):
            alike = list(same)
            ids = torch.tensor([rows[i][0] for i in alike], device=model.device)
            run = partial(_scored, model, ids, count)
            out[alike] = torch.cat(batches_of(model, length).over(len(ids), run)).cpu()
    return out


def batches_of(model: LanguageModel, length: int) -> Batches:
    """How many rows of so many tokens go through the model at a time."""
    budget = _TOKENS if model.device.type == "cpu" else _TOKENS_ACCELERATED
    return Batches(max(1, min(budget // max(1, length), _LOGITS // model.vocabulary)))


def _scored(model: LanguageModel, ids: Tensor, count: int, part: slice) -> Tensor:
    return picked(following(model, ids[part, :-1], count), ids[part, -count:]).sum(1)


def _check_room(model: LanguageModel, rows: Sequence[tuple[list[int], int]]) -> None:
    longest = max((len(row) for row, _ in rows), default=0)
    if model.longest is not None and longest > model.longest:
        raise ParamsError(
            f"prompt and target are {longest} tokens, more than the model's context of {model.longest}"
        )


@torch.inference_mode()
def says(
    model: LanguageModel,
    prompt: Sequence[int],
    target: Sequence[int],
    *,
    start: Sequence[int] | None = None,
) -> bool:
    """Whether greedy decoding from the prompt says the whole target; `start` is as in `log_probabilities`."""
    before = list(model.start) if start is None else list(start)
    before = before or ([] if prompt else list(model.begin))
    ids = torch.tensor([[*before, *prompt, *target]], device=model.device)
    found = following(model, ids[:, :-1], len(target)).argmax(-1)[0]
    # Token by token the same as decoding: the first that differs ends it.
    return found.tolist() == list(target)
