"""What a prompt search climbs: how probable prompts make what the model is to say.

Rows of one length go through together. A prompt that differs from another in one place is scored from that
place on, over the keys and values of what comes before; what that costs is counted in tokens, as in the
literature: 1 for each that goes forward, 2 more where a slope comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from candling.errors import ModelError, ParamsError
from candling.language.loading import LanguageModel
from candling.language.scoring import Layers, batches_of, cache_of, layers_of, picked
from candling.language.targets import Target

__all__ = ["Meter", "Objective", "Rows"]


@dataclass
class Meter:
    """Tokens that went through the model: forward counts 1, forward and back 3."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.forward + 3 * self.backward


@dataclass(frozen=True, eq=False)
class Rows:
    """Prompts with what the model remembers of them.

    tokens: int (B, L). layers: keys and values (B, heads, places, width) of each layer, of what comes before
    and of the prompts; None for a model whose memory is no plain cache.
    """

    tokens: Tensor
    layers: Layers | None


@dataclass(eq=False)
class Objective:
    """Log-probability of a target, or of any of several, after `before`, a prompt and `after`.

    targets: of several the probabilities are added, so that the score is that one of them is said first. None
    may begin with another, or it would count twice. before: tokens in front of every prompt, those that the
    tokenizer puts there if none are given. after: tokens that follow every prompt and are given. fluency:
    weight of the prompt's own mean log-probability under the model. meter: counts what it costs.
    """

    model: LanguageModel
    targets: Sequence[Target]
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    fluency: float = 0.0
    meter: Meter = field(default_factory=Meter)

    def __post_init__(self) -> None:
        if not self.targets:
            raise ParamsError("there is no target; name one at least")
        self.before = self.before or self.model.start
        unlike = {target.tokens: target for target in self.targets}
        self._outputs = [one for one in unlike if not any(_begins(one, other) for other in unlike)]

    @property
    def outputs(self) -> list[tuple[int, ...]]:
        """Tokens of the targets that count, none of which begins with another."""
        return self._outputs

    def rows(self, prompts: Tensor) -> Rows:
        """Prompts (B, L), seen once so that swaps in them are cheap."""
        head = torch.tensor(self.before, dtype=torch.long, device=prompts.device).expand(len(prompts), -1)
        with torch.inference_mode():
            out = self.model.network(
                input_ids=torch.cat([head, prompts], 1), use_cache=True, logits_to_keep=1
            )
        self.meter.forward += prompts.shape[0] * (len(self.before) + prompts.shape[1])
        return Rows(prompts, layers_of(getattr(out, "past_key_values", None)))

    def tokens_of(self, length: int, place: int | None = None) -> int:
        """Tokens that go forward for a prompt of a length, or for a swap in one place of it."""
        if place is None or self.fluency:
            head = len(self.before or self.model.begin)
            own = (head + length - 1) if self.fluency else 0
            return own + self.tokens_of_slopes(length)
        return sum(length - place + len(self.after) + len(output) - 1 for output in self._outputs)

    def tokens_of_slopes(self, length: int) -> int:
        """Tokens that go forward and back for the slopes of a prompt, which leave fluency out."""
        around = len(self.before) + len(self.after)
        return sum(around + length + len(output) - 1 for output in self._outputs)

    def scores(self, prompts: Tensor) -> Tensor:
        """Scores (N,) of prompts (N, L)."""
        head = torch.tensor(self.before, dtype=torch.long, device=prompts.device).expand(len(prompts), -1)
        return self._scored(torch.cat([head, prompts], 1), None, None)

    def swaps(self, rows: Rows, row: Tensor, place: int, tokens: Tensor) -> Tensor:
        """Scores (N,) of prompts `row` (N,) with `tokens` (N,) in one place."""
        changed = rows.tokens[row].clone()
        changed[:, place] = tokens
        if rows.layers is None or self.fluency:
            return self.scores(changed)
        return self._scored(changed[:, place:], rows, row, len(self.before) + place)

    def _scored(self, ids: Tensor, rows: Rows | None, row: Tensor | None, length: int = 0) -> Tensor:
        parts = []
        for output in self._outputs:
            tail = torch.tensor([*self.after, *output], device=ids.device).expand(len(ids), -1)
            whole = torch.cat([ids, tail], 1)
            batches = batches_of(self.model, whole.shape[1] + length // 4)
            run = partial(self._pass, whole, len(output), rows, row, length)
            parts.append(torch.cat(batches.over(len(ids), run)))
        found = torch.stack(parts).logsumexp(0) if len(parts) > 1 else parts[0]
        if self.fluency:
            found = found + self.fluency * self._fluency(ids)
        return found

    def _pass(
        self, whole: Tensor, count: int, rows: Rows | None, row: Tensor | None, length: int, part: slice
    ) -> Tensor:
        ids = whole[part, :-1]
        given: dict[str, Any] = {"use_cache": False}
        if rows is not None and row is not None and rows.layers is not None and length:
            given = {"past_key_values": cache_of(rows.layers, row[part], length)}
        with torch.inference_mode():
            out = self.model.network(input_ids=ids, logits_to_keep=count, **given)
            logits = out.logits[:, -count:].float()
            self.meter.forward += ids.numel()
            return picked(logits, whole[part, -count:]).sum(1)

    def _fluency(self, ids: Tensor) -> Tensor:
        """Mean log-probability (N,) of the prompts in rows that hold what comes before them too."""
        count = ids.shape[1] - len(self.before)
        if not self.before:
            head = torch.tensor(self.model.begin, dtype=ids.dtype, device=ids.device)
            ids = torch.cat([head.expand(len(ids), -1), ids], 1)
            count = min(count, ids.shape[1] - 1)

        def run(part: slice) -> Tensor:
            with torch.inference_mode():
                logits = self.model.network(
                    input_ids=ids[part, :-1], use_cache=False, logits_to_keep=count
                ).logits[:, -count:]
                self.meter.forward += ids[part, :-1].numel()
                return picked(logits.float(), ids[part, -count:]).mean(1)

        return torch.cat(batches_of(self.model, ids.shape[1]).over(len(ids), run))

    def slopes(self, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B,) and their slopes (B, L, V) by which token stands in each place (Ebrahimi et al. 2018).

        The slope by a token is that of the score along its embedding, so that the difference of two is what
        a swap would do if the score were a plane ("HotFlip", arXiv 1712.06751, section 3).
        """
        embed = self.model.network.get_input_embeddings()
        with torch.no_grad():
            embedded = embed(prompts)
        scores, found = self.slopes_of(embedded)
        with torch.no_grad():
            return scores, found @ embed.weight.T.to(found.dtype)

    def slopes_of(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B,) and their slopes (B, L, D) by embeddings of prompts (B, L, D), soft ones too."""
        embed = self.model.network.get_input_embeddings()
        with torch.no_grad():
            head = embed(torch.tensor([list(self.before)], dtype=torch.long, device=embedded.device))
        leaf = embedded.detach().clone().requires_grad_()
        with torch.enable_grad():
            parts = []
            for output in self._outputs:
                tail = torch.tensor([[*self.after, *output]], device=leaf.device)
                pieces = [head, leaf, embed(tail[:, :-1])]
                row = torch.cat([one.expand(len(leaf), -1, -1) for one in pieces], 1)
                logits = self.model.network(
                    inputs_embeds=row, use_cache=False, logits_to_keep=len(output)
                ).logits[:, -len(output) :]
                self.meter.backward += row.shape[0] * row.shape[1]
                parts.append(picked(logits.float(), tail[:, -len(output) :].expand(len(leaf), -1)).sum(1))
            scores = torch.stack(parts).logsumexp(0) if len(parts) > 1 else parts[0]
            (found,) = torch.autograd.grad(scores.sum(), leaf)
        if not torch.isfinite(found).all():
            raise ModelError("the slope of the log-probability is NaN or infinite")
        return scores.detach(), found


def _begins(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether a longer target begins with another, which is said where it is."""
    return len(other) < len(one) and one[: len(other)] == other
