"""Where a climb may start: the picture that is of no class more than of another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import evaluating
from candling.models.heads import scores
from candling.vision.priors import Prior

__all__ = ["equidistant"]


def equidistant(
    model: nn.Module, classes: Sequence[int], prior: Prior, *, tolerance: float = 0.02, steps: int = 500
) -> Tensor:
    """A picture near the prior's mean at which all of some classes have the same logit.

    A climb from there owes its way to the class alone, and not to what noise happened to look like. Half the
    sum of squares of the centred logits f is brought to zero by Polyak's step, f over the square of its
    gradient (Polyak, "Introduction to Optimization", 1987, section 5.3), which needs no rate where the least
    value is known.

    Parameters
    ----------
    model
        Images (N, C, H, W) in [0, 1] to logits (N, K), or dense ones (N, K, h, w), whose mean over places
        counts; left as it was found.
    classes
        Places of two logits or more.
    prior
        Its mean is where the search begins; it also gives size and channels.
    tolerance
        Largest difference of two of these logits that counts as none; in terms of probabilities 0.02 is a
        factor of 1.02.
    steps
        The most that are taken, one forward and backward pass of one picture each.

    Returns
    -------
    Tensor
        (C, H, W) float32 in [0, 1], on the model's device.

    Raises
    ------
    ParamsError
        If there are fewer than two classes, or the model has no such class.
    ModelError
        If no such picture was found, or no gradient leads there.
    """
    chosen = sorted({int(c) for c in classes})
    if len(chosen) < 2:
        raise ParamsError("a picture equidistant between classes needs two classes or more")
    device = next(model.parameters(), prior.mean).device
    picture = torch.sigmoid(prior.mean)[None].to(device)
    spread = torch.inf
    with evaluating(model), torch.enable_grad():
        for _ in range(steps):
            picture.requires_grad_()
            found = scores(model(picture)).float()[0]
            for c in (chosen[0], chosen[-1]):
                if not 0 <= c < len(found):
                    raise ParamsError(
                        f"there is no class {c}; the model has {len(found)}, 0 to {len(found) - 1}"
                    )
            own = found.flatten(1).mean(1)[chosen] if found.dim() > 1 else found[chosen]
            spread = float(own.detach().max() - own.detach().min())
            if spread <= tolerance:
                return picture.detach()[0]
            distance = 0.5 * (own - own.mean()).square().sum()
            slope = None
            if distance.requires_grad:
                (slope,) = torch.autograd.grad(distance, picture, allow_unused=True)
            if slope is None or not torch.isfinite(slope).all() or not slope.any():
                raise ModelError(
                    f"no gradient leads to a picture that is equidistant between {len(chosen)} classes; "
                    "start from noise or from a picture"
                )
            step = distance.detach() / slope.square().sum()
            picture = (picture.detach() - step * slope).clamp(0, 1)
    raise ModelError(
        f"no picture equidistant between {len(chosen)} classes was found in {steps} steps: their logits "
        f"still differ by {spread:.2g}; name fewer classes, two at least, or start from noise"
    )
