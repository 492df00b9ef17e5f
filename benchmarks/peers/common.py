"""What is measured in the same way of every tool, in its own environment: steps, their floor, hooks left.

Knows torch and nothing else, so that it runs anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Call", "Watched", "answer", "count_hooks", "drop_hooks", "floor", "load", "over_floor"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def count_hooks(model: nn.Module) -> int:
    """Forward and backward hooks on a model and all its modules."""
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in _HOOKS)


def drop_hooks(model: nn.Module) -> None:
    """Take all hooks off a model, so that what one run left does not slow the next one down."""
    for module in model.modules():
        for kind in _HOOKS:
            getattr(module, kind).clear()


@dataclass(frozen=True)
class Call:
    """One forward pass as a tool asked for it: when it began and on what.

    `autocast` is the type that autocast computes in, None without; `format` and `weights` the memory formats
    of the input and of the first convolution.
    """

    began: float
    shape: tuple[int, ...]
    dtype: torch.dtype
    gradient: bool
    autocast: torch.dtype | None
    format: torch.memory_format
    weights: torch.memory_format


def _format(tensor: Tensor) -> torch.memory_format:
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


class Watched(nn.Module):
    """A model that notes each of its forward passes; whatever the tool, a step begins with one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls: list[Call] = []

    def forward(self, images: Tensor) -> Tensor:
        kind = images.device.type
        kernel = next(module.weight for module in self.model.modules() if isinstance(module, nn.Conv2d))
        self.calls.append(
            Call(
                began=time.perf_counter(),
                shape=tuple(images.shape),
                dtype=images.dtype,
                gradient=torch.is_grad_enabled() and images.requires_grad,
                autocast=torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
                format=_format(images),
                weights=_format(kernel),
            )
        )
        out: Tensor = self.model(images)
        return out


def steps_of(calls: list[Call], warm_up: int = 2) -> tuple[Call, float, int]:
    """The step that a run consists of, its mean seconds and how many were counted.

    All between two steps of the commonest shape counts, be it forward passes without gradients. The first
    steps, in which memory is allocated, do not.
    """
    steps = [call for call in calls if call.gradient]
    shapes = [call.shape for call in steps]
    shape = max(set(shapes), key=shapes.count)
    steps = [call for call in steps if call.shape == shape][warm_up:]
    if len(steps) < 2:
        raise RuntimeError("too few steps to be timed")
    return steps[-1], (steps[-1].began - steps[0].began) / (len(steps) - 1), len(steps) - 1


def floor(model: nn.Module, like: Call, steps: int, warm_up: int = 2) -> float:
    """Mean seconds of a bare forward and backward pass to the input, of a batch and in a precision `like`.

    Nothing but this: the input is a leaf, the parameters want no gradient, the loss is the sum of one
    logit. The weights are put into the memory format that they had in the step.
    """
    images = torch.rand(like.shape, dtype=like.dtype).contiguous(memory_format=like.format).requires_grad_()
    before = next(module.weight for module in model.modules() if isinstance(module, nn.Conv2d))
    had = _format(before)
    model.to(memory_format=like.weights)
    began = 0.0
    try:
        for step in range(warm_up + steps):
            if step == warm_up:
                began = time.perf_counter()
            with torch.autocast("cpu", like.autocast, enabled=like.autocast is not None):
                score = model(images)[:, 0].sum()
            torch.autograd.grad(score, images)
        return (time.perf_counter() - began) / steps
    finally:
        model.to(memory_format=had)


def over_floor(
    model: nn.Module, run: Callable[[nn.Module], object], repetitions: int
) -> list[dict[str, Any]]:
    """Seconds of a step and of its floor, in turns: floor, tool, floor, tool, …, floor.

    Each repetition's floor is the mean of those right before and after it. A first run of the tool, whose
    times are thrown away, shows what its steps are like.
    """
    watched = Watched(model)
    run(watched)
    like, _, count = steps_of(watched.calls)
    floors = [floor(model, like, count)]
    rows: list[dict[str, Any]] = []
    for _ in range(repetitions):
        watched.calls.clear()
        run(watched)
        like, seconds, count = steps_of(watched.calls)
        floors.append(floor(model, like, count))
        rows.append(
            {
                "step": seconds,
                "floor": (floors[-2] + floors[-1]) / 2,
                "shape": list(like.shape),
                "autocast": str(like.autocast or "float32").removeprefix("torch."),
                "format": str(like.format).removeprefix("torch."),
            }
        )
    return rows


def load(path: str) -> nn.Module:
    """The model that the benchmark wrote for this run, in eval mode, its parameters frozen."""
    model: nn.Module = torch.load(path, weights_only=False)
    return model.eval().requires_grad_(False)


def answer(handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The main of a runner: `python -m … REQUEST.json ANSWER.pt`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("request", type=Path)
    parser.add_argument("answer", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.save(handle(json.loads(given.request.read_text())), given.answer)
