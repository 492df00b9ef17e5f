"""What a model goes on to say, greedily or by chance, many prompts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from candling.errors import ParamsError
from candling.language.loading import LanguageModel
from candling.language.scoring import batches_of, finite

__all__ = ["continued"]


def continued(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    *,
    start: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """What follows each prompt, up to so many tokens or one that ends texts, which is left out.

    Parameters
    ----------
    prompts
        Rows of tokens, of any lengths.
    start
        Tokens before every prompt; None: those that the tokenizer puts there, or before an empty prompt the
        one that begins or ends texts.
    generator
        Draws what is said by its probability; None: always the likeliest.

    Raises
    ------
    ParamsError
        If a prompt and what follows it do not fit into the model's context, or a prompt is empty for a model
        that has nothing to begin with.
    ModelError
        If the model returns NaN.
    """
    if tokens < 1:
        raise ParamsError(f"tokens must be at least 1, not {tokens}")
    rows = []
    for prompt in prompts:
        before = tuple(model.start if start is None else start) or (() if prompt else model.begin)
        rows.append([*before, *prompt])
    longest = max((len(row) for row in rows), default=0) + tokens
    if model.longest is not None and longest > model.longest:
        raise ParamsError(
            f"a prompt and {tokens} tokens after it are {longest}, more than the model's context of "
            f"{model.longest}"
        )
    if not all(rows):
        raise ParamsError("an empty prompt needs a model with a token that begins or ends texts")
    found: list[list[int]] = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    with torch.inference_mode():
        place = 0
        while place < len(order):
            length = len(rows[order[place]])
            most = batches_of(model, length + tokens).size
            group = [i for i in order[place : place + most] if len(rows[i]) == length]
            place += len(group)
            said = _said(
                model, torch.tensor([rows[i] for i in group], device=model.device), tokens, generator
            )
            for i, row in zip(group, said.tolist(), strict=True):
                found[i] = list(takewhile(lambda token: token not in model.ends, row))
    return found


def _said(model: LanguageModel, rows: Tensor, tokens: int, generator: torch.Generator | None) -> Tensor:
    """What follows rows (N, L) of one length, int (N, T); after the end of a text anything may stand."""
    cache = None
    ends = torch.tensor(sorted(model.ends), device=rows.device)
    ended = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    said: list[Tensor] = []
    for _ in range(tokens):
        out: Any
        if cache is None:
            whole = torch.cat([rows, *said], 1)
            out = model.network(input_ids=whole, use_cache=True, logits_to_keep=1)
        else:
            out = model.network(input_ids=said[-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = getattr(out, "past_key_values", None)
        logits = finite(out.logits[:, -1].float())
        if generator is None:
            following = logits.argmax(-1, keepdim=True)
        else:
            following = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator).to(rows.device)
        said.append(following)
        ended |= torch.isin(following[:, 0], ends)
        if bool(ended.all()):
            break
    return torch.cat(said, 1)
