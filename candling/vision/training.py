"""The training step of the tank story: plain, seeded, the same on every run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from candling.models import Classifier

__all__ = ["Schedule", "augment", "train"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Schedule:
    """How to train. `steps` counts batches; `l1` weighs the mean absolute convolution weight.

    `freeze_norm` leaves the statistics of batch norm as they are: for fine-tuning on few pictures, and where
    they were folded into the convolutions.
    """

    steps: int = 600
    batch: int = 64
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    l1: float = 0.0
    warmup: float = 0.1
    freeze_norm: bool = False


def augment(
    images: Tensor,
    generator: torch.Generator,
    *,
    shift: int = 6,
    light: float = 0.1,
    saturation: float = 0.6,
    tint: float = 0.2,
    noise: float = 0.02,
) -> Tensor:
    """Random flip, shift, light, colour and a little noise, drawn per image.

    Parameters
    ----------
    images
        float (N, 3, H, W) in [0, 1].
    generator
        Where all draws come from.
    shift
        Largest shift in pixels; edges are repeated.
    light, saturation, tint
        Largest relative change of contrast and brightness, of saturation and of each channel.
    noise
        Standard deviation of the noise.

    Returns
    -------
    Tensor
        The same shape, in [0, 1].
    """
    n, _, height, width = images.shape
    flips = torch.rand(n, generator=generator) < 0.5
    moves = torch.randint(-shift, shift + 1, (n, 2), generator=generator)

    def gains(spread: float, channels: int = 1) -> Tensor:
        return (1 + spread * (2 * torch.rand(n, channels, 1, 1, generator=generator) - 1)).to(images.device)

    device = images.device
    # Drawn on the CPU, so that every device sees the same pictures.
    rows = (torch.arange(height)[None] + moves[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width)[None] + moves[:, 1:]).clamp(0, width - 1)
    columns = torch.where(flips[:, None], width - 1 - columns, columns)
    places = (torch.arange(n)[:, None, None], slice(None), rows[:, :, None], columns[:, None, :])
    moved = images[tuple(one.to(device) if isinstance(one, Tensor) else one for one in places)].permute(
        0, 3, 1, 2
    )
    mean = moved.mean((1, 2, 3), keepdim=True)
    moved = (moved - mean) * gains(light) + mean * gains(light)
    grey = moved.mean(1, keepdim=True)
    moved = (grey + (moved - grey) * gains(saturation)) * gains(tint, 3)
    return (moved + noise * torch.randn(images.shape, generator=generator).to(device)).clamp(0, 1)


def train(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    schedule: Schedule,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Classifier:
    """Train `model` in place on images (N, 3, H, W) uint8 with labels (N,) and return it in eval mode.

    All draws come from `seed`. One-cycle learning rate (Smith 2018, arXiv 1708.07120).
    """
    generator = torch.Generator().manual_seed(seed)
    weights = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": schedule.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimiser: torch.optim.Optimizer
    if schedule.optimiser == "adamw":
        optimiser = torch.optim.AdamW(groups, lr=schedule.learning_rate)
    else:
        optimiser = torch.optim.SGD(groups, lr=schedule.learning_rate, momentum=0.9, nesterov=True)
    # OneCycleLR divides by the length of the warm-up less one step.
    warmup = schedule.warmup if schedule.warmup * schedule.steps > 1 else 0.0
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, schedule.learning_rate, total_steps=schedule.steps, pct_start=warmup
    )
    size = sum(p.numel() for p in weights)
    device = next(model.parameters()).device
    model.train().to(memory_format=torch.channels_last)
    if schedule.freeze_norm:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    order = torch.empty(0, dtype=torch.long)
    for step in range(schedule.steps):
        if len(order) < schedule.batch:
            order = torch.cat([order, torch.randperm(len(images), generator=generator)])
        rows, order = order[: schedule.batch], order[schedule.batch :]
        batch = augment(images[rows].to(device).float() / 255, generator)
        batch = batch.contiguous(memory_format=torch.channels_last)
        loss = nn.functional.cross_entropy(model(batch), labels[rows].to(device))
        if schedule.l1:
            loss = loss + schedule.l1 * torch.stack([p.abs().sum() for p in weights]).sum() / size
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        rate.step()
        if progress is not None:
            progress(step + 1, schedule.steps)
    return model.eval().to(memory_format=torch.contiguous_format)
