"""The strongest channels of a layer: what a network's decisions rest on, found in pictures and drawn.

A channel is shown twice, by the picture that was optimised for it and by the natural pictures that excite it
most: the first says what the channel wants, the second what it gets, and natural pictures alone are often
the better guide (Borowski et al. 2021, "Exemplary natural images explain CNN activations better than
state-of-the-art feature visualization", arXiv 2010.12606).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import Classifier, batch_size, evaluating, recording
from candling.models.heads import first_tensor, scores
from candling.vision.climbing import Climb, Climbed, Progress, Row, climb
from candling.vision.objectives import Objective, channel, check, evaluate
from candling.vision.priors import Prior

__all__ = ["StrongChannel", "VisualizedChannel", "channel_counts", "strongest_channels", "visualize_channels"]


@dataclass(frozen=True)
class StrongChannel:
    """A channel, and the pictures that excite it most.

    evidence: share in [0, 1] of the evidence for the model's decisions that it carries in its layer.
    over_average: that over the mean of the layer's channels; 1 where none carries any. usual: its activation
    averaged over all pictures. pictures: (P,) int64 rows of those that excite it most, the
    strongest first; activations: (P,) float32 of these. An activation is the channel's mean over places.
    """

    layer: str
    channel: int
    evidence: float
    over_average: float
    usual: float
    pictures: Tensor
    activations: Tensor

    @property
    def objective(self) -> Objective:
        """What an optimised picture of it climbs."""
        return channel(self.layer, self.channel)


@dataclass(frozen=True)
class VisualizedChannel:
    """An optimised picture, uint8 (C, H, W), and the activation that it reaches as it is saved."""

    image: Tensor
    seed: int
    activation: float


def channel_counts(
    model: nn.Module, layers: Sequence[str], image_size: tuple[int, int], channels: int = 3
) -> dict[str, int]:
    """How many channels each layer has, by a grey picture (1, channels, *image_size).

    Raises
    ------
    ModelError
        If a layer is unknown (the nearest names are told), not called or has no channels, or the model is a
        black box.
    """
    for layer in layers:
        check(channel(layer, 0), model, image_size, channels)
    with recording(model, layers) as seen, evaluating(model), torch.no_grad():
        model(torch.full((1, channels, *image_size), 0.5, device=_device(model)))
    return {layer: _by_channel(seen[layer]).shape[1] for layer in layers}


def strongest_channels(
    model: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    *,
    count: int = 6,
    pictures: int = 4,
    batch: int | None = None,
    progress: Progress | None = None,
) -> tuple[StrongChannel, ...]:
    """The channels of each layer that carry most of the evidence for what the model decides.

        e_i(x) = Σ over places of (A_i(x) - μ_i) · ∂s(x)/∂A_i
        evidence_i = mean over x of  [m_i(x) > μ_i] · max(0, e_i(x)) / Σ_j |e_j(x)|

    where A_i(x) is channel i for picture x, m_i(x) its mean over places, μ_i the mean of that over all
    pictures, and s(x) the logit of the predicted class minus the mean logit of all classes. To first order
    e_i(x) is what s would lose if the channel were as excited as usual; of a layer that only a linear head
    follows it is just that. It counts where the channel is excited more than usual, since that is what an
    optimised picture shows. Activation times gradient after Olah et al. 2018, "The Building Blocks of
    Interpretability", Distill, section on attribution.

    The channel that is excited most in terms of its own spread would be a worse choice: that is one which is
    silent but for a few pictures, however faint it is there and whether or not anything depends on it.

    Parameters
    ----------
    model
        Left as it was found.
    layers
        Dotted module paths. What they return may be (N, C, h, w), (N, tokens, C) or (N, C).
    images
        (N, C, H, W), uint8 or float in [0, 1], of any labels or none.
    count
        Channels of each layer; all of a layer that has fewer.
    pictures
        Pictures beside each channel, at most N.
    batch
        Images at a time; None: as many as suit the device.
    progress
        Told of images looked at, and of how many there are.

    Returns
    -------
    tuple of StrongChannel
        Layer by layer, the strongest first.

    Raises
    ------
    ModelError
        If a layer is unknown, not called or has no channels, no gradient reaches it, or the model is a black
        box.
    """
    height, width = images.shape[2:]
    for layer in layers:
        check(channel(layer, 0), model, (height, width), images.shape[1])
    device = _device(model)
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    at_once = batch or batch_size((height, width), device, gradients=True)
    with (
        evaluating(model),
        torch.enable_grad(),
        recording(model, layers) as seen,
        _slopes(model, layers) as slopes,
    ):
        for start in range(0, len(images), at_once):
            part = images[start : start + at_once].to(device)
            unit = part.float() / 255 if part.dtype == torch.uint8 else part.detach()
            # Parameters are frozen, so that the picture is what makes all that follows differentiable.
            unit = unit.contiguous(memory_format=torch.channels_last).requires_grad_()
            out = scores(model(unit))
            logits = out.flatten(2).mean(2) if out.dim() == 4 else out
            decision = (logits.amax(1) - logits.mean(1)).sum()
            if decision.requires_grad:
                torch.autograd.grad(decision, unit, allow_unused=True)
            for layer in layers:
                parts[layer].append(_summed(layer, seen[layer].detach(), slopes.pop(layer, None)))
            if progress is not None:
                progress(start + len(part), len(images))
    found: list[StrongChannel] = []
    for layer in layers:
        found += _strongest(layer, torch.cat(parts[layer], 1), count, pictures)
    return tuple(found)


@contextmanager
def _slopes(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The gradient that reaches what layers returned in their last call: layer → (N, …).

    A hook of the output itself, because what `recording` gives is a copy that no gradient passes through.
    """
    network = model.network if isinstance(model, Classifier) else model
    slopes: dict[str, Tensor] = {}

    def wait_for(name: str, output: Any) -> None:
        def keep(gradient: Tensor) -> None:
            # Of several calls in a pass the last is the first that the gradient comes to.
            slopes.setdefault(name, gradient.detach())

        found = first_tensor(output)
        if found is not None and found.requires_grad:
            found.register_hook(keep)

    with ExitStack() as stack:
        for name in layers:
            handle = network.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: wait_for(name, output)
            )
            stack.callback(handle.remove)
        yield slopes


def _summed(layer: str, activation: Tensor, slope: Tensor | None) -> Tensor:
    """For each picture and channel (3, N, C) float64: mean activation, Σ A · ∂s/∂A and Σ ∂s/∂A over places.

    Raises
    ------
    ModelError
        If there is no slope, or it is NaN.
    """
    if slope is None or not torch.isfinite(slope).all():
        raise ModelError(
            f"the gradient of the model's decision does not reach layer {layer!r}, or is NaN; choose a layer "
            "that the decision depends on"
        )
    values, slopes = (_by_channel(one).double().flatten(2) for one in (activation, slope))
    return torch.stack([values.mean(2), (values * slopes).sum(2), slopes.sum(2)]).cpu()


def _by_channel(found: Tensor) -> Tensor:
    """Of (N, C, h, w), (N, tokens, C) or (N, C): (N, C, …), with one place where there are none."""
    return found.transpose(1, 2) if found.dim() == 3 else found[..., None] if found.dim() == 2 else found


def _strongest(layer: str, sums: Tensor, count: int, pictures: int) -> Iterator[StrongChannel]:
    """The strongest channels of a layer, of what `_summed` says of all pictures (3, N, C)."""
    activation, weighted, slope = sums
    usual = activation.mean(0)
    carried = weighted - usual * slope
    share = carried.clamp_min(0) * (activation > usual) / carried.abs().sum(1, keepdim=True).clamp_min(1e-30)
    evidence = share.mean(0)
    relative = evidence / evidence.mean() if evidence.any() else torch.ones_like(evidence)
    for index in evidence.sort(descending=True, stable=True).indices[:count].tolist():
        rows = activation[:, index].sort(descending=True, stable=True).indices[:pictures]
        yield StrongChannel(
            layer=layer,
            channel=index,
            evidence=float(evidence[index]),
            over_average=float(relative[index]),
            usual=float(usual[index]),
            pictures=rows,
            activations=activation[rows, index].float(),
        )


def visualize_channels(
    model: nn.Module,
    channels: Sequence[StrongChannel],
    prior: Prior,
    settings: Climb,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[VisualizedChannel, ...], ...]:
    """Optimised pictures of channels, `settings.seeds` of each.

    Parameters
    ----------
    model
        Left as it was found.
    prior, settings, batch, progress
        As for `candling.vision.climbing.climb`.

    Returns
    -------
    tuple of tuples of VisualizedChannel
        One tuple a channel, seed by seed.

    Raises
    ------
    ModelError
        If a channel's gradient is NaN or does not reach the input.
    ParamsError
        If settings ask for opacity: what a channel makes of a picture that is not all there is not defined.
    """
    if settings.alpha:
        raise ParamsError("pictures of channels have no opacity; leave alpha out of the settings")
    numbers = range(settings.first, settings.first + settings.seeds)
    rows = [Row(one.objective, seed) for one in channels for seed in numbers]
    climbed: dict[int, Climbed] = {}
    climb(model, rows, prior, settings, batch=batch, finished=climbed.__setitem__, progress=progress)
    images = torch.stack([climbed[i].image for i in range(len(rows))])
    reached = _activations(model, images, [row.objective for row in rows])
    made = [
        VisualizedChannel(image, row.seed, value)
        for image, row, value in zip(images, rows, reached, strict=True)
    ]
    return tuple(tuple(made[i : i + settings.seeds]) for i in range(0, len(made), settings.seeds))


@torch.no_grad()
def _activations(model: nn.Module, images: Tensor, objectives: Sequence[Objective]) -> list[float]:
    """What each picture, uint8 (R, C, H, W), reaches of its objective, untransformed."""
    device, values = _device(model), []
    at_once = batch_size(images.shape[2:], device)
    with evaluating(model), recording(model, {one for o in objectives for one in o.layers}) as seen:
        for start in range(0, len(images), at_once):
            unit = images[start : start + at_once].to(device).float() / 255
            model(unit.contiguous(memory_format=torch.channels_last))
            # Objectives of layers read nothing of the model's output.
            values += evaluate(objectives[start : start + at_once], unit, seen).tolist()
    return values


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
