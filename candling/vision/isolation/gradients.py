"""Evidence from gradients: integrated gradients, Grad-CAM and attention weighted by gradients.

References to hold the other methods against. All ask for the slope of the class's log-odds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.errors import ModelError
from candling.models import Classifier, evaluating, log_odds, recording, scores
from candling.models.running import refuse_black_box
from candling.vision.isolation.fills import filled
from candling.vision.isolation.found import Asked, Found
from candling.vision.isolation.settings import check_choice, check_number, check_whole

__all__ = [
    "Attention",
    "GradCAM",
    "IntegratedGradients",
    "attend",
    "attending",
    "cam",
    "class_odds_of",
    "integrate",
    "last_spatial",
]

Baseline = Literal["blur", "grey"]


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients:
    """Integrated gradients (Sundararajan, Taly and Yan, arXiv 1703.01365); evidence in log-odds a pixel.

    baseline: where the path begins, a blur of the picture or mid-grey. steps: along the path to begin with;
    they are doubled, up to `most`, for each map whose sum is further than `tolerance` (a part of it) from
    what the log-odds gain from the baseline to the picture.
    """

    baseline: Baseline = "blur"
    steps: int = 32
    most: int = 512
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        check_choice("baseline", self.baseline, get_args(Baseline))
        check_whole("steps", self.steps)
        check_whole("most", self.most, self.steps)
        check_number("tolerance", self.tolerance, 0)


@dataclass(frozen=True, kw_only=True)
class GradCAM:
    """Grad-CAM (Selvaraju et al., arXiv 1610.02391); evidence as the layer's weighted sum, enlarged.

    layer: its dotted name, as `candling.models.layers` has it; None: the last convolution whose output has
    places.
    """

    layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Attention rolled out with gradients (Chefer, Gur and Wolf, arXiv 2103.15679, section 3.1), for ViT.

    Evidence is for a class only, without a unit: what the class token takes from each patch over all layers.
    """


def class_odds_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function of images to the log-odds (N, K) of all classes; of dense scores to their mean's."""

    def odds(images: Tensor) -> Tensor:
        found = scores(model(images))
        return log_odds(model, found.flatten(2).mean(2) if found.dim() == 4 else found)

    return odds


def _rows(asked: Asked) -> tuple[Tensor, Tensor, Tensor]:
    """Image, and class of each row, a row being one class of one image; and the log-odds there."""
    count, each = asked.classes.shape
    return (
        torch.arange(count, device=asked.classes.device).repeat_interleave(each),
        asked.classes.flatten(),
        asked.odds.flatten(),
    )


# -- Integrated gradients --------------------------------------------------------------------------


def integrate(asked: Asked, settings: IntegratedGradients) -> Found:
    """Evidence maps whose sum is what the log-odds gain from the baseline to the picture."""
    from captum.attr import IntegratedGradients as Integrated

    refuse_black_box(asked.model, "integrated gradients")
    image, target, _ = _rows(asked)
    base = filled(asked.images, "blur" if settings.baseline == "blur" else "fade")
    maps = torch.zeros(len(image), *asked.images.shape[2:], device=asked.images.device)
    method = Integrated(class_odds_of(asked.model), multiply_by_inputs=True)
    waiting, steps, evaluations = torch.arange(len(image), device=image.device), settings.steps, 0
    with evaluating(asked.model), torch.enable_grad():
        while True:

            def attribute(part: slice, rows: Tensor = waiting, steps: int = steps) -> Tensor:
                own = image[rows[part]]
                found, error = method.attribute(
                    asked.images[own],
                    base[own],
                    target[rows[part]],
                    n_steps=steps,
                    method="gausslegendre",
                    internal_batch_size=max(len(own), asked.batches.size),
                    return_convergence_delta=True,
                )
                found = found.detach().sum(1)
                maps[rows[part]] = found
                gained = found.sum((1, 2)) - error.detach().to(found)
                short: Tensor = error.detach().abs() > settings.tolerance * gained.abs()
                return short

            wrong = torch.cat(asked.batches.over(len(waiting), attribute))
            # Each step is a pass forward and one back; captum sees to the ends with two passes more.
            evaluations += len(waiting) * (2 * steps + 2)
            waiting = waiting[wrong]
            if not len(waiting) or 2 * steps > settings.most:
                break
            steps *= 2
    notes = () if not len(waiting) else (
        f"{len(waiting)} of {len(image)} maps add up only to more than {settings.tolerance:.0%} beside what "
        f"the log-odds gain, with {steps} steps",
    )  # fmt: skip
    asked.tell(len(asked.images))
    return Found(maps.view(*asked.classes.shape, *maps.shape[1:]), evaluations, notes)


# -- Grad-CAM --------------------------------------------------------------------------------------


def last_spatial(model: nn.Module, images: Tensor) -> str:
    """The name of the convolution that ran last of those whose output has places.

    Raises
    ------
    ModelError
        If there is none.
    """
    network = model.network if isinstance(model, Classifier) else model
    ran: list[str] = []

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
            ran.append(name)

    with ExitStack() as stack, evaluating(model), torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                handle = module.register_forward_hook(lambda m, i, output, name=name: note(name, output))
                stack.callback(handle.remove)
        model(images[:1])
    if not ran:
        raise ModelError(
            "the model has no convolution whose output has places, so Grad-CAM has nothing to weigh; "
            "choose another method, or name a `layer`"
        )
    return ran[-1]


def cam(asked: Asked, settings: GradCAM) -> Found:
    """Evidence maps as a layer's channels, each weighted by the mean slope of the log-odds there."""
    from captum.attr import LayerGradCam

    refuse_black_box(asked.model, "Grad-CAM")
    name = settings.layer or last_spatial(asked.model, asked.images)
    with recording(asked.model, [name]) as seen, evaluating(asked.model), torch.no_grad():
        asked.model(asked.images[:1])
    if name not in seen or seen[name].dim() != 4:
        what = "is not called" if name not in seen else f"returns {tuple(seen[name].shape[1:])}"
        raise ModelError(f"layer {name!r} {what}; Grad-CAM needs channels, height and width")
    network = asked.model.network if isinstance(asked.model, Classifier) else asked.model
    method = LayerGradCam(class_odds_of(asked.model), network.get_submodule(name))
    image, target, _ = _rows(asked)

    def attribute(part: slice) -> Tensor:
        found = method.attribute(asked.images[image[part]].requires_grad_(), target[part])
        return _enlarged(found.detach(), asked.images.shape[2:])

    with evaluating(asked.model), torch.enable_grad():
        maps = torch.cat(asked.batches.over(len(image), attribute))
    asked.tell(len(asked.images))
    maps = maps.view(*asked.classes.shape, *maps.shape[1:])
    return Found(maps, 2 * len(image) + 1 + (settings.layer is None), (f"Grad-CAM is of layer {name}",))


def _enlarged(small: Tensor, size: torch.Size) -> Tensor:
    """Maps (N, 1, h, w) at the size of the pictures, (N, H, W)."""
    return F.interpolate(small, tuple(size), mode="bilinear", align_corners=False)[:, 0]


# -- Attention -------------------------------------------------------------------------------------


@runtime_checkable
class _Chooses(Protocol):
    """A transformer of Hugging Face, which has several ways to compute the same attention."""

    config: Any

    def set_attn_implementation(self, attn_implementation: str) -> None: ...


@contextmanager
def attending(model: nn.Module) -> Iterator[list[Tensor]]:
    """Attention of each layer in the last pass, (N, heads, T, T), in order and part of what is derived.

    torch's own attention gives no weights that a gradient goes through, and is computed anew from its
    projections. A transformer of Hugging Face is asked for its plain implementation, which does. Everything
    is put back when the block is left.
    """
    seen: list[Tensor] = []
    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(lambda *_: seen.clear()).remove)
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention):
                handle = module.register_forward_hook(
                    lambda m, args, kwargs, output: _anew(m, args, kwargs, output, seen), with_kwargs=True
                )
                stack.callback(handle.remove)
            elif isinstance(module, _Chooses):
                stack.callback(module.set_attn_implementation, module.config._attn_implementation)
                module.set_attn_implementation("eager")
            else:
                stack.callback(module.register_forward_hook(lambda m, i, out: _note(out, seen)).remove)
        yield seen


def _note(output: Any, seen: list[Tensor]) -> None:
    """Remember the weights that an attention returns beside what it makes of them."""
    weights = output[1] if isinstance(output, tuple) and len(output) == 2 else None
    if not isinstance(weights, Tensor) or weights.dim() != 4 or not weights.requires_grad:
        return
    handed_on = any(weights is one for one in seen)  # by a module around the attention
    if weights.shape[2] == weights.shape[3] and not handed_on:
        seen.append(weights)


def _anew(
    module: nn.MultiheadAttention,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
    seen: list[Tensor],
) -> Any:
    """What the module returns, computed so that a gradient goes through its weights."""
    named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
    query, key = named["query"], named["key"]
    own = query is key and module.in_proj_weight is not None and query.dim() == 3
    if not own or named.get("attn_mask") is not None or named.get("key_padding_mask") is not None:
        return output  # not from patches to patches of one picture
    tokens = query if module.batch_first else query.transpose(0, 1)
    count, length, width = tokens.shape
    parts = F.linear(tokens, module.in_proj_weight, module.in_proj_bias)
    q, k, v = parts.view(count, length, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-1, -2) * (width // module.num_heads) ** -0.5).softmax(-1)
    seen.append(weights)
    made = module.out_proj((weights @ v).transpose(1, 2).reshape(count, length, width))
    return (made if module.batch_first else made.transpose(0, 1), *output[1:])


def attend(asked: Asked, settings: Attention) -> Found:
    """Evidence maps as what the class token takes from each patch."""
    refuse_black_box(asked.model, "attention")
    image, target, _ = _rows(asked)
    odds = class_odds_of(asked.model)
    size = asked.images.shape[2:]

    def roll(part: slice) -> Tensor:
        pictures = asked.images[image[part]].requires_grad_()
        found = odds(pictures).gather(1, target[part, None]).sum()
        if not seen:
            raise ModelError(
                "the model has no attention between patches that can be read (torch's MultiheadAttention, or "
                "a transformer of Hugging Face); choose another method"
            )
        slopes = torch.autograd.grad(found, seen)
        length = seen[0].shape[-1]
        if any(one.shape[0] != len(pictures) or one.shape[-1] != length for one in seen):
            raise ModelError("the model's attention is not over the whole picture at every layer")
        relevance = torch.eye(length, device=pictures.device).expand(len(pictures), -1, -1)
        for weights, slope in zip(seen, slopes, strict=True):
            step = (weights.detach() * slope).clamp_min(0).mean(1)
            relevance = relevance + step @ relevance
        return _enlarged(_patches(relevance, size)[:, None], size)

    with evaluating(asked.model), torch.enable_grad(), attending(asked.model) as seen:
        maps = torch.cat(asked.batches.over(len(image), roll))
    asked.tell(len(asked.images))
    return Found(maps.view(*asked.classes.shape, *maps.shape[1:]), 2 * len(image))


def _patches(relevance: Tensor, size: torch.Size) -> Tensor:
    """What the class token takes from patches, (N, h, w); without one, what all patches do."""
    height, width = size
    length = relevance.shape[-1]
    for extra in (1, 0, 2, 5):  # class token; none; and distillation; and four registers
        patches = length - extra
        h = round((patches * height / width) ** 0.5)
        if h and patches % h == 0 and abs(h / height - patches // h / width) < 1 / max(size):
            taken = relevance[:, 0, extra:] if extra else relevance.mean(1)
            return taken.view(len(relevance), h, patches // h)
    raise ModelError(f"{length} tokens are no grid of patches of a picture of {height} × {width}")
