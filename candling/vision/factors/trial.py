"""A trial: the pictures that factors are tried on, and the model's answers to what is made of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from candling.models import log_odds, logits
from candling.vision.counterfactuals import feathered
from candling.vision.factors.directions import folds
from candling.vision.factors.doses import CHUNK, Array, measured
from candling.vision.factors.placebo import noise, rms, same_size
from candling.vision.factors.results import DoseSettings, Region
from candling.vision.factors.transforms import Factor

__all__ = ["Trial", "Tried", "objects_measured"]


class Trial:
    """The pictures, and the model's answers to what is made of them."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        masks: Tensor | None,
        sources: list[Hashable],
        rows: list[int],
        settings: DoseSettings,
        batch: int | None,
        classes: Sequence[str] | None,
    ) -> None:
        self.model, self.images, self.masks, self.sources = model, images, masks, sources
        self.rows, self.settings, self.batch, self.names = rows, settings, batch, classes
        self.half = folds(sources, settings.seed)
        self.before = torch.empty(0, 0)

    def ask(self) -> None:
        """What the model says of the pictures as they are."""
        self.before = self.answers(self.images)

    def answers(self, images: Tensor) -> Tensor:
        """Log-odds (N, K) of images."""
        return log_odds(self.model, logits(self.model, images, batch=self.batch)).cpu()

    def placebo(self, changed: Tensor, key: str, keep: Tensor, weights: Tensor | None) -> Tensor:
        """The pictures in rows `keep` with noise as large as the change that was made to them."""
        images = self.images[keep]
        out = []
        for start in range(0, len(images), CHUNK):
            part = slice(start, start + CHUNK)
            fields = noise(
                images.shape[1:],
                [(self.settings.seed, key, self.rows[i]) for i in keep[part].tolist()],
            )
            size = rms(changed[part] - images[part])
            spread = None if weights is None else weights[part]
            out.append(same_size(images[part], size, fields, spread))
        return torch.cat(out)

    def named(self, number: int) -> str:
        return str(number) if self.names is None else self.names[number]

    def part(self, region: Region) -> tuple[Tensor, Tensor | None]:
        """Rows that have the region, and its weights (n, 1, H, W); None where it is the whole picture."""
        if region == "whole" or self.masks is None:
            return torch.arange(len(self.images)), None
        share = self.masks.flatten(1).float().mean(1)
        keep = ((share > 0) & (share < 1)).nonzero()[:, 0].cpu()
        weights = feathered(self.masks[keep]).to(self.images)
        return keep, weights if region == "object" else 1 - weights


@dataclass(frozen=True)
class Tried:
    """Pictures at the lowest and the highest dose, and the factor's range."""

    factor: Factor
    low: Tensor
    high: Tensor
    span: float


def objects_measured(trial: Trial, factor: Factor) -> tuple[Tensor, Array]:
    """Rows (n,) of pictures with an object, and the factor's value (n,) in the box around it."""
    keep, _ = trial.part("object")
    assert trial.masks is not None, "an object has a mask"
    values = []
    for row in keep.tolist():
        tall, wide = trial.masks[row].nonzero().unbind(1)
        box = trial.images[row, :, tall.min() : tall.max() + 1, wide.min() : wide.max() + 1]
        values.append(measured(factor, box[None]))
    return keep, np.concatenate(values)
