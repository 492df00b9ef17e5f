"""What a network returns, and what that means: one tensor of logits whatever the form it came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from candling.errors import ModelError
from candling.models.spec import Head, Output

__all__ = [
    "Reading",
    "as_logits",
    "class_odds",
    "class_shares",
    "detect",
    "first_tensor",
    "output_tensor",
    "probes",
    "scores",
]

_NAMES = ("logits", "scores", "probs", "probabilities")
# Rows of softmax probabilities sum to one within this; rounded ones of a server too.
_SUM = 1e-3
# Sigmoid outputs come this close to both ends when the input is blown up; bounded logits do not.
_SATURATED = 0.02


def output_tensor(value: Any) -> Tensor:
    """The scores (N, K) in a network's output: tensor, tuple, list, dict, dataclass or ModelOutput.

    Of names, ``logits`` comes first, then ``scores`` and ``probs``, then the first two-dimensional float
    tensor; of a tuple or list the first tensor. (N,) becomes (N, 1), and (N, K, 1, 1) becomes (N, K).

    Raises
    ------
    ModelError
        If there is no such tensor.
    """
    found = _pick(value)
    if found is None:
        raise ModelError(f"the network returns {type(value).__name__} without a tensor of scores")
    if not found.is_floating_point():
        raise ModelError(
            f"the network returns {str(found.dtype).removeprefix('torch.')}, such as indices of classes; "
            "it must return a score for each class"
        )
    if found.dim() == 1:
        found = found[:, None]
    if found.dim() > 2 and all(side == 1 for side in found.shape[2:]):
        found = found.flatten(1)
    if found.dim() != 2:
        raise ModelError(
            f"the network returns a tensor of shape {tuple(found.shape)}; a classifier's is (images, classes)"
        )
    return found


def _pick(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    named: Mapping[str, Any] | None = None
    if isinstance(value, Mapping):
        named = value
    elif is_dataclass(value) and not isinstance(value, type):
        named = {one.name: getattr(value, one.name) for one in fields(value)}
    elif hasattr(value, "_asdict"):
        named = value._asdict()
    if named is not None:
        for name in _NAMES:
            if isinstance(named.get(name), Tensor):
                found: Tensor = named[name]
                return found
        tensors = [v for v in named.values() if isinstance(v, Tensor)]
        return next((v for v in tensors if v.dim() == 2 and v.is_floating_point()), None)
    if isinstance(value, tuple | list):
        return next((v for v in value if isinstance(v, Tensor)), None)
    return None


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of a tuple, list or mapping, or the tensor itself."""
    if isinstance(value, Tensor):
        return value
    values = value.values() if hasattr(value, "values") else value
    if isinstance(value, tuple | list) or hasattr(value, "values"):
        return next((one for one in values if isinstance(one, Tensor)), None)
    return None


def scores(value: Any) -> Tensor:
    """The scores (N, K) in a model's output, as `output_tensor` finds them, or dense ones (N, K, h, w).

    Raises
    ------
    ModelError
        If there is no such tensor.
    """
    found = _pick(value)
    found = first_tensor(value) if found is None else found
    dense = found is not None and found.dim() == 4 and max(found.shape[2:]) > 1
    return found if found is not None and dense and found.is_floating_point() else output_tensor(value)


def as_logits(raw: Tensor, head: Head, output: Output) -> Tensor:
    """Logits (N, K) of raw outputs; probabilities p become log p, or log p/(1 - p) where not softmax."""
    if output == "probabilities":
        smallest = torch.finfo(raw.dtype).tiny
        if head == "softmax":
            raw = raw.clamp_min(smallest).log()
        else:
            raw = raw.clamp(smallest, 1 - torch.finfo(raw.dtype).eps / 2)
            raw = raw.log() - torch.log1p(-raw)
    if head == "binary":
        raw = torch.cat([torch.zeros_like(raw), raw], 1)
    return raw


def class_shares(logits: Tensor, head: Head) -> Tensor:
    """Probabilities of logits (..., K)."""
    return logits.sigmoid() if head == "multilabel" else logits.softmax(-1)


def class_odds(logits: Tensor, head: Head) -> Tensor:
    """Log-odds log p/(1 - p) of each class of logits (..., K), in one pass over the classes.

    1 - p is the sum over all other classes. For every class but the largest p is at most one half, so that
    log(1 - p) can be had from p; for the largest, p may be so near one that 1 - p has no digits left, and
    its others are summed for themselves.
    """
    if head == "multilabel":
        return logits
    top = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.argmax(-1, keepdim=True), True)
    rest = torch.logsumexp(logits.masked_fill(top, -torch.inf), -1, keepdim=True)
    log_p = logits - torch.logsumexp(logits, -1, keepdim=True)
    # Zero for the largest, lest its branch, which is not taken, makes the gradient NaN.
    log_p = log_p.masked_fill(top, -torch.inf)
    others = log_p - torch.log1p(-log_p.exp())
    return torch.where(top, logits - rest, others)


def probes(size: tuple[int, int], channels: int = 3) -> Tensor:
    """Inputs (12, C, H, W) in [0, 1] that have little in common: noise, flat colours, ramps and extremes."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4, channels, height, width, generator=generator)
    flat = torch.rand(3, channels, 1, 1, generator=generator).expand(3, channels, height, width)
    ends = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, channels, height, width)
    hard = torch.rand(1, channels, height, width, generator=generator).round()
    ramp = torch.linspace(0, 1, width).expand(1, channels, height, width)
    other = torch.linspace(1, 0, height)[:, None].expand(1, channels, height, width)
    return torch.cat([noise, flat, ends, hard, ramp, other])


@dataclass(frozen=True)
class Reading:
    """How to read a network's outputs, how many there are, and how that was found."""

    head: Head
    output: Output
    outputs: int
    note: str = ""


def detect(
    network: Callable[[Tensor], Any],
    inputs: Tensor,
    *,
    head: Literal["auto", "softmax", "binary", "multilabel"] = "auto",
    output: Literal["auto", "logits", "probabilities"] = "auto",
    black_box: bool = False,
    blow_up: bool = True,
) -> Reading:
    """Find out what a network returns, where that was not said.

    Outputs are taken for probabilities only if all of them lie in [0, 1] for all inputs, and either all
    rows sum to one, or a sigmoid made them: it is the last operation that autograd knows of, or inputs a
    thousand times as large drive them to both ends and never beyond. All else is logits; where a black box
    leaves it open, a person must say.

    Parameters
    ----------
    network
        Inputs to outputs.
    inputs
        Several that differ much, as of `probes`, normalised.
    black_box
        Whether autograd sees nothing of it.
    blow_up
        Whether it takes inputs out of range.

    Raises
    ------
    ModelError
        If what was said does not fit the outputs, or a black box leaves it open.
    """
    raw, operation = _answers(network, inputs.detach().requires_grad_(not black_box))
    if not torch.isfinite(raw).all():
        raise ModelError("the network returns NaN or infinite values for ordinary pictures")
    _check_said(head, output, raw)
    single = raw.shape[1] == 1
    sums = not single and bool(((raw.sum(1) - 1).abs() <= _SUM).all())
    found = output if output != "auto" else "logits"
    if output == "auto" and _within(raw):
        if sums and head != "multilabel":
            found = "probabilities"
        elif not sums and head != "softmax":
            found = _of_sigmoid(network, inputs, operation, black_box=black_box, blow_up=blow_up)
    kind: Head = "softmax" if head == "auto" else head
    if head == "auto" and single:
        kind = "binary"
    elif head == "auto" and found == "probabilities" and not sums:
        kind = "multilabel"
    note = ""
    if output == "auto" and found == "probabilities":
        how = "sum to one" if kind == "softmax" else "come from a sigmoid"
        note = f"the network returns probabilities: for {len(raw)} probe inputs they lie in [0, 1] and {how}"
    return Reading(kind, found, raw.shape[1], note)


def _of_sigmoid(
    network: Callable[[Tensor], Any], inputs: Tensor, operation: str, *, black_box: bool, blow_up: bool
) -> Output:
    """Whether outputs in [0, 1] that do not sum to one are a sigmoid's, or logits that happen to be there."""
    if operation.startswith(("Sigmoid", "Softmax")):
        return "probabilities"
    if blow_up:
        large, _ = _answers(network, torch.cat([1e3 * inputs, -1e3 * inputs]))
        if torch.isfinite(large).all() and not _within(large):
            return "logits"
        if _within(large) and large.min() < _SATURATED and large.max() > 1 - _SATURATED:
            return "probabilities"
    if black_box:
        raise ModelError(
            "the outputs lie in [0, 1] and do not sum to one, which both probabilities and logits may do; "
            "say output: probabilities or output: logits"
        )
    return "logits"


def _within(raw: Tensor) -> bool:
    return bool(((raw >= 0) & (raw <= 1)).all())


def _answers(network: Callable[[Tensor], Any], inputs: Tensor) -> tuple[Tensor, str]:
    """Outputs (N, K), and the last operation on them that autograd knows, or nothing."""
    with torch.enable_grad():
        raw = output_tensor(network(inputs))
    if len(raw) != len(inputs):
        raise ModelError(f"the network returns {len(raw)} rows for {len(inputs)} images")
    step = raw.grad_fn
    # Operations that only rearrange what they are given.
    rearranging = ("View", "Reshape", "UnsafeView", "Squeeze", "Unsqueeze", "Alias", "Slice", "Select")
    while step is not None and step.name().startswith(rearranging):
        step = step.next_functions[0][0]
    return raw.detach(), "" if step is None else step.name()


def _check_said(head: str, output: str, raw: Tensor) -> None:
    count = raw.shape[1]
    if head == "binary" and count != 1:
        raise ModelError(f"head: binary is one output, the network has {count}; say head: softmax")
    if head == "softmax" and count == 1:
        raise ModelError("head: softmax needs two outputs or more, the network has one; say head: binary")
    if output == "probabilities" and not _within(raw):
        raise ModelError("output: probabilities was said, but outputs leave [0, 1]; say output: logits")
