"""What is seen to before anything is climbed, so that what cannot work is one sentence and costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import Classifier, ModelSpec, answer, evaluating, recording, scores
from candling.models.blackbox import BlackBox
from candling.models.heads import as_logits, detect, output_tensor, probes
from candling.models.running import refuse_black_box
from candling.vision.objectives import Objective, check, evaluate

__all__ = ["as_scores", "class_count", "preflight"]

_SMALLEST = 3  # pixels of the shorter side: what is measured of pictures mirrors two of them at each edge


def class_count(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """How many classes a model has scores for.

    Parameters
    ----------
    shape
        Channels, height and width of its pictures.

    Raises
    ------
    ModelError
        If it does not take such pictures, or returns no scores.
    """
    with evaluating(model), torch.no_grad():
        return scores(answer(model, torch.full((1, *shape), 0.5, device=_device(model)))).shape[1]


class _Read(Classifier):
    """A module that takes images in [0, 1] as they are, read by what its outputs were found to be."""

    def normalise(self, images: Tensor) -> Tensor:
        return images

    def forward(self, images: Tensor) -> Tensor:
        return as_logits(output_tensor(self.network(images)), self.spec.head, self.spec.output)


def as_scores(
    model: nn.Module, shape: tuple[int, int, int], names: Sequence[str] = ()
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model, or one around it that gives logits where it returns probabilities or a single output.

    Log-odds of probabilities that are taken for logits are wrong, and nothing tells. A `Classifier` knows
    what its network returns and is given back as it is, as is a module with dense scores. Two passes see
    whether outputs leave [0, 1]; only where they do not is more tried (`candling.models.heads.detect`).

    Parameters
    ----------
    shape
        Channels, height and width of the pictures.
    names
        Of the classes; numbers where none are given.

    Returns
    -------
    tuple
        A module whose outputs `candling.models.log_odds` and `probabilities` read rightly, and sentences on
        what was found.

    Raises
    ------
    ModelError
        If it does not take such pictures, returns no scores, or a black box leaves open what they are.
    """
    if isinstance(model, Classifier):
        return model, ()
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    inputs = probes((shape[1], shape[2]), shape[0]).to(like)
    with evaluating(model):
        with torch.no_grad():
            some = scores(answer(model, inputs[:2]))
        count = some.shape[1]
        plain = count > 1 and (some.min() < 0 or some.max() > 1)
        if some.dim() != 2 or plain or not torch.isfinite(some).all():
            return model, ()
        closed = any(isinstance(module, BlackBox) for module in model.modules())
        found = detect(model, inputs, black_box=closed)
    if found.head == "softmax" and found.output == "logits":
        return model, ()
    classes = tuple(names) or tuple(map(str, range(2 if found.head == "binary" else count)))
    spec = ModelSpec("as it is", classes, (shape[1], shape[2]), head=found.head, output=found.output)
    notes = [f"{found.note}; their logarithms are taken for logits"] if found.note else []
    if found.head == "binary":
        notes.append("the model has a single output, which is read as two classes, 0 and 1")
    return _Read(model, spec), tuple(notes)


def preflight(model: nn.Module, objectives: Sequence[Objective], shape: tuple[int, int, int]) -> None:
    """See that a model has what the objectives climb, and that a gradient of them reaches its pictures.

    The model is run twice, however many objectives there are, and left as it was found.

    Parameters
    ----------
    objectives
        One at least.
    shape
        Channels, height and width of the pictures.

    Raises
    ------
    ParamsError
        If the pictures are too small for any model.
    ModelError
        If the model is a black box or does not take such pictures, a layer, class, channel or token is not
        there, or the gradient is cut off, zero (of the model's output) or NaN.
    """
    channels, *size = shape
    if channels < 1 or min(size) < _SMALLEST:
        raise ParamsError(
            f"pictures of {' × '.join(map(str, shape))} cannot be made; they have one channel at least and "
            f"{_SMALLEST} × {_SMALLEST} pixels"
        )
    refuse_black_box(model, "its gradient")
    terms = list({term: None for objective in objectives for _, term in objective.terms})
    # Each counts differently, because the sum over softmax probabilities does not change.
    union = Objective(tuple((1 + i / len(terms), term) for i, term in enumerate(terms)))
    check(union, model, (size[0], size[1]), channels)
    by_output = any(not term.layer for term in terms)
    images = probes((size[0], size[1]), channels)[:4].to(_device(model)).requires_grad_()
    with recording(model, union.layers) as activations, evaluating(model), torch.enable_grad():
        found = answer(model, images)
        outputs = scores(found) if by_output else images
        head = model.head if isinstance(model, Classifier) else "softmax"
        value = evaluate([union] * len(images), outputs, activations, head=head).sum()
        gradient = _slope(value, images, keep=bool(union.layers))
        for layer in sorted(union.layers):
            # One that no gradient leaves would go unseen beside others.
            if _slope(activations[layer].sum(), images, keep=True) is None:
                raise ModelError(
                    f"the gradient of {layer} does not reach the picture; "
                    "look for argmax, rounding, detach or no_grad before it"
                )
    what = str(objectives[0]) if len(objectives) == 1 else "the objectives"
    # A unit in the middle may sleep until its picture is found; all logits do not.
    if gradient is None or (not union.layers and not gradient.any()):
        raise ModelError(
            f"the gradient of {what} does not reach the picture; "
            "look for argmax, rounding, detach or no_grad inside the model"
        )
    if not torch.isfinite(gradient).all():
        raise ModelError(
            f"the gradient of {what} is NaN or infinite for ordinary pictures; look for a division by zero, "
            "or the root or logarithm of what may be zero"
        )


def _slope(value: Tensor, images: Tensor, *, keep: bool) -> Tensor | None:
    """The gradient by the images, None if there is no way to them."""
    if not value.requires_grad:
        return None
    return torch.autograd.grad(value, images, allow_unused=True, retain_graph=keep)[0]


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
