"""A frozen model made quicker: batch normalisation worked into convolutions, and arithmetic in bfloat16.

In eval mode a batch normalisation multiplies each channel and adds to it, which a convolution's own weights
can do as well (Markuš, "Fusing batch normalization and convolution in runtime", 2018). The network stays the
same but for rounding; what is saved is a walk through memory for each layer. Half the bits save as much again
on processors that multiply them, and are a choice, because they round by more.
"""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from candling.models.classifier import Classifier
from candling.models.running import evaluating

__all__ = ["Precision", "folded", "quickened"]

Precision = Literal["float32", "bfloat16"]

_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}
_AGREE = 1e-4  # of the largest logit: far more than rounding does


def quickened(model: nn.Module, images: Tensor, precision: Precision = "float32") -> nn.Module:
    """A copy of a model for many passes; see `folded` for what is given.

    Parameters
    ----------
    precision
        Of convolutions and products of matrices; logits are float32 in any case.
    """
    quick = folded(model, images)
    if precision == "float32":
        return quick
    if not isinstance(quick, Classifier):
        return _Halved(quick)
    quick = copy.copy(quick)
    quick._modules = {**quick._modules, "network": _Halved(quick.network)}
    return quick


class _Halved(nn.Module):
    """A network that multiplies in bfloat16, but for slopes on a processor, which are slower so."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        whole = images.requires_grad and images.device.type == "cpu"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=not whole):
            out = self.network(images)
        return out.float() if isinstance(out, Tensor) else out


def folded(model: nn.Module, images: Tensor) -> nn.Module:
    """A frozen copy of a model without batch normalisation; the model where that cannot be had.

    Parameters
    ----------
    model
        Images in [0, 1] to logits. Neither it nor its mode is changed.
    images
        Some (N, C, H, W) that it takes; the copy is used only where it says the same of them. They go
        through twice.
    """
    if not any(type(module) in _NORMS.values() for module in model.modules()):
        return model
    try:
        lean = copy.deepcopy(model)
        with evaluating(lean), torch.no_grad():
            whole, pairs = _run(lean, images)
            for layer, norm in pairs:
                _replace(lean, layer, fuse_conv_bn_eval(layer, norm))
                _replace(lean, norm, nn.Identity())
            if not any(parameter.dim() == 5 for parameter in lean.parameters()):
                lean = lean.to(memory_format=torch.channels_last)
            found = lean(images)
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return model  # what cannot be copied or changed is used as it is
    same = isinstance(found, Tensor) and isinstance(whole, Tensor) and found.shape == whole.shape
    # A convolution whose output goes elsewhere too is found out here.
    if not pairs or not same or not (found - whole).abs().max() <= _AGREE * whole.abs().max():
        return model
    return lean.requires_grad_(False).eval()


def _run(model: nn.Module, images: Tensor) -> tuple[Any, list[tuple[Any, Any]]]:
    """What the model returns, and each convolution that ran once with the normalisation that took its output.

    Watched rather than traced: tracing changes what modules do for all threads of the process.
    """
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # tensors are held, so that no id is used again
    taken: list[tuple[nn.Module, nn.Module]] = []
    ran: Counter[nn.Module] = Counter()

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        ran[module] += 1
        if type(module) in _NORMS and isinstance(output, Tensor):
            made[id(output)] = (module, output)
        elif inputs and id(inputs[0]) in made:
            layer, _ = made[id(inputs[0])]
            # A weight that a hook makes anew each time cannot be replaced.
            own = "weight" in layer._parameters and not layer._forward_pre_hooks
            if own and type(module) is _NORMS[type(layer)] and module.running_mean is not None:
                taken.append((layer, module))

    with ExitStack() as stack:
        for module in model.modules():
            if type(module) in _NORMS or type(module) in _NORMS.values():
                stack.callback(module.register_forward_hook(note).remove)
        whole = model(images)
    layers = Counter(layer for layer, _ in taken)
    return whole, [pair for pair in taken if ran[pair[0]] == ran[pair[1]] == layers[pair[0]] == 1]


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Another module in its place, wherever it stands."""
    for module in list(model.modules()):
        for name, part in module.named_children():
            if part is old:
                setattr(module, name, new)
