"""Running models: logits in batches, features, shapes of layers; a model is left as it was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from candling.errors import DataError, ModelError
from candling.models.batching import Batches
from candling.models.blackbox import BlackBox
from candling.models.classifier import Classifier, probabilities
from candling.models.heads import first_tensor, probes, scores

__all__ = [
    "Layer",
    "answer",
    "batch_size",
    "check_differentiable",
    "evaluating",
    "input_shape",
    "layers",
    "logits",
    "penultimate",
    "predict",
    "refuse_black_box",
]

_USUAL = (224, 224)  # pixels of the pictures of a module that does not say: what photographs are cut to


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode with frozen parameters; mode and flags are put back on leaving."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        for parameter in flags:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def input_shape(
    model: nn.Module, size: tuple[int, int] | None = None, channels: int | None = None
) -> tuple[int, int, int]:
    """Channels, height and width of the pictures that a model takes, as far as it says.

    A `Classifier` says all. Of another module the channels are those of its first convolution, or three, and
    the size is 224 × 224 where none is given.
    """
    if isinstance(model, Classifier):
        usual, planes = model.spec.image_size, 3
    else:
        usual = _USUAL
        planes = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    return (channels or planes, *(size or usual))


def answer(model: nn.Module, images: Tensor) -> Any:
    """What a model returns for images (N, C, H, W); whatever else it raises becomes one sentence.

    Raises
    ------
    ModelError
        If it does not take such images.
    """
    try:
        return model(images)
    except ModelError:
        raise
    except Exception as error:  # a network may raise whatever it likes
        shape = " × ".join(map(str, images.shape[1:]))
        why = (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
        raise ModelError(
            f"the model does not take a picture of {shape} ({why}); "
            "give the channels and the size of its pictures, if it is a model of pictures"
        ) from error


def _as_unit(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]; uint8 is scaled."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def batch_size(size: Sequence[int], device: torch.device, *, gradients: bool = False) -> int:
    """Images of `size` (height, width) at a time.

    So few that a layer's outputs stay in a processor's cache, which is twice as fast.
    With gradients all layers' outputs are kept, so that fewer images fit.
    """
    if device.type != "cpu":
        return 64 if gradients else 256
    height, width = size
    return max(1, (200_000 if gradients else 600_000) // (height * width))


@torch.no_grad()  # a model may keep what it made, and inference tensors cannot be climbed through
def logits(model: nn.Module, images: Tensor, *, batch: int | Batches | None = None) -> Tensor:
    """Logits (N, classes) of images (N, C, H, W), uint8 or float in [0, 1], in batches.

    Of dense scores (N, classes, h, w) they are the mean over places.

    Parameters
    ----------
    batch
        Images at a time, None: see `batch_size`. Where memory runs out, half as many are tried. `Batches`
        that are given remember how many fitted.

    Raises
    ------
    ModelError
        If any logit is NaN or infinite, the model returns no scores, or memory has no room for one image.
    """
    device = next((p.device for p in model.parameters()), images.device)
    if not isinstance(batch, Batches):
        batch = Batches(batch or batch_size(images.shape[2:], device))

    def one_pass(rows: slice) -> Tensor:
        # Convolutions are about twice as fast on channels-last images, whatever the weights' format.
        part = _as_unit(images[rows].to(device)).contiguous(memory_format=torch.channels_last)
        return _overall(scores(model(part))).to(images.device)

    with evaluating(model):
        out = torch.cat(batch.over(len(images), one_pass))
    bad = ~torch.isfinite(out).all(1)
    if bad.any():
        raise ModelError(
            f"the model returned NaN or infinite logits for {int(bad.sum())} of {len(out)} images"
        )
    return out


def _overall(found: Tensor) -> Tensor:
    """Scores (N, K), of dense ones the mean over places."""
    return found.flatten(2).mean(2) if found.dim() == 4 else found


def refuse_black_box(model: nn.Module, what: str) -> None:
    """Raise ModelError if the model, or a part of it, only answers; `what` of it cannot be had."""
    for module in model.modules():
        if isinstance(module, BlackBox):
            raise ModelError(f"the model is a black box ({module.kind}), so {what} cannot be had")


@torch.no_grad()  # a model may keep what it made, and inference tensors cannot be climbed through
def penultimate(model: nn.Module, images: Tensor, *, batch: int | None = None) -> Tensor:
    """What goes into the layer that makes the logits, (N, features), for images as in `logits`.

    That layer is the last linear one that ran with as many outputs as there are logits, or a convolution of
    single pixels whose outputs are pooled to logits, as in SqueezeNet. Inputs of several places (pixels,
    tokens) are averaged over the places.

    Raises
    ------
    ModelError
        If the model has no such layer, or is a black box.
    """
    refuse_black_box(model, "its penultimate features")
    ran: dict[tuple[bool, int], Tensor] = {}
    features: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        linear = isinstance(module, nn.Linear)
        if inputs and isinstance(output, Tensor):
            width = output.shape[-1 if linear else 1]
            ran.pop((linear, width), None)  # so that the order is that of the last runs
            ran[linear, width] = inputs[0]

    def end(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        count = scores(output).shape[1]
        widths = (1,) if isinstance(model, Classifier) and model.head == "binary" else (count,)
        heads = [key for key in ran if key[1] in widths]
        if heads and not heads[-1][0] and any(linear for linear, _ in ran):
            # A convolution that has as many channels as there are classes, somewhere in the middle.
            last = list(ran)[-1]
            heads = [heads[-1]] if heads[-1] == last else [key for key in heads if key[0]]
        keys = heads or [key for key in ran if key[0]]
        if keys:
            linear, _ = keys[-1]
            found = ran[keys[-1]]
            # Places lie between images and features for linear layers, and after both for convolutions.
            places = range(1, found.dim() - 1) if linear else range(2, found.dim())
            features.append(found.mean(tuple(places)) if len(places) else found)
        ran.clear()

    with ExitStack() as stack:
        for module in model.modules():
            pixelwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
            if isinstance(module, nn.Linear) or pixelwise:
                stack.callback(module.register_forward_hook(note).remove)
        stack.callback(model.register_forward_hook(end).remove)
        logits(model, images, batch=batch)
    if not features:
        raise ModelError("the model has no linear layer to read penultimate features from")
    return torch.cat(features).to(images.device)


@dataclass(frozen=True)
class Layer:
    """A module of a network: its dotted name, its class, what it returns and how many parameters it has.

    `output_shape` is without the images' axis; None where it was not called, or returns no tensor.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int


@torch.no_grad()  # a model may keep what it made, and inference tensors cannot be climbed through
def layers(
    model: nn.Module, image_size: tuple[int, int] | None = None, channels: int | None = None
) -> list[Layer]:
    """All modules of a network in the order of their definition, with shapes from one picture.

    Names are those within the network that a `Classifier` holds.

    Parameters
    ----------
    image_size
        (height, width) of the picture, and `channels` its channels; None: see `input_shape`.

    Raises
    ------
    ModelError
        If the model is a black box, or does not take such a picture.
    """
    refuse_black_box(model, "its layers")
    network = model.network if isinstance(model, Classifier) else model
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        found = first_tensor(output)
        if found is not None:
            shapes[module] = tuple(found.shape[1:])

    with ExitStack() as stack, evaluating(model):
        for _, module in network.named_modules():
            stack.callback(module.register_forward_hook(note).remove)
        shape = input_shape(model, image_size, channels)
        answer(model, torch.full((1, *shape), 0.5, device=_device(model)))
    return [
        Layer(name, type(module).__name__, shapes.get(module), sum(p.numel() for p in module.parameters()))
        for name, module in network.named_modules()
        if name
    ]


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def check_differentiable(model: nn.Module, image_size: tuple[int, int]) -> None:
    """See that the gradient of the logits reaches the picture.

    Raises
    ------
    ModelError
        If it is cut off (a black box, argmax or detach inside), zero everywhere, or NaN.
    """
    refuse_black_box(model, "its gradient")
    images = probes(image_size)[:2].to(_device(model)).requires_grad_()
    with evaluating(model), torch.enable_grad():
        out = model(images)
        gradient = None
        if out.requires_grad:
            # Each class counts differently, because the sum over softmax probabilities does not change.
            weights = torch.linspace(1, 2, out.shape[1], device=out.device).expand_as(out)
            (gradient,) = torch.autograd.grad(out, images, weights, allow_unused=True)
    if gradient is None or not gradient.any():
        raise ModelError(
            "the gradient of the logits does not reach the picture; look for argmax, rounding, detach or "
            "no_grad inside the network"
        )
    if not torch.isfinite(gradient).all():
        raise ModelError("the gradient of the logits is NaN or infinite for ordinary pictures")


def predict(model: Classifier, image: Path | str) -> list[tuple[str, float]]:
    """Classes with their probabilities, most probable first, for one picture on disk.

    Raises
    ------
    DataError
        If the file is missing or not a picture.
    """
    path = Path(image)
    if not path.is_file():
        raise DataError(f"{path}: no such picture")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except OSError as error:
        raise DataError(f"{path}: not a picture that Pillow can read") from error
    picture, _ = model.prepare(picture)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    shares = probabilities(model, logits(model, pixels))[0].tolist()
    return sorted(zip(model.classes, shares, strict=True), key=lambda pair: -pair[1])
