"""The one form that all models take inside candling: images in [0, 1] go in, logits come out."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from candling.errors import DataError
from candling.models.heads import as_logits, class_odds, class_shares, output_tensor
from candling.models.preprocessing import fit_picture, fit_tensor
from candling.models.spec import Head, ModelSpec

__all__ = ["Classifier", "log_odds", "probabilities"]


class Classifier(nn.Module):
    """A network with its preprocessing inside: images in [0, 1] go in, logits come out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.spec.classes

    @property
    def head(self) -> Head:
        """What the network's outputs mean; logits of ``binary`` are read like those of ``softmax``."""
        return self.spec.head

    @property
    def differentiable(self) -> bool:
        """Whether gradients can flow through it: not through a black box."""
        return bool(getattr(self.network, "differentiable", True))

    def normalise(self, images: Tensor) -> Tensor:
        """What the network sees of RGB images (N, 3, H, W) in [0, 1]."""
        images = (images - self.mean.to(images.device)) / self.std.to(images.device)
        if self.spec.channels == "grey":
            return images.mean(1, keepdim=True)
        return images.flip(1) if self.spec.channels == "bgr" else images

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of RGB images (N, 3, H, W) in [0, 1]."""
        out = output_tensor(self.network(self.normalise(images)))
        return as_logits(out, self.spec.head, self.spec.output).to(images.device)

    def prepare(
        self, picture: Image.Image, mask: Image.Image | None = None
    ) -> tuple[Image.Image, Image.Image | None]:
        """A picture as RGB of the model's image size, and its mask cut in the same way.

        Raises
        ------
        DataError
            If the mask is of another size than the picture.
        """
        if mask is not None and mask.size != picture.size:
            raise DataError(f"a mask of {mask.size} pixels does not fit its picture of {picture.size}")
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
        cut = None if mask is None else fit_picture(mask, self.spec, mask=True)
        return fit_picture(rgb, self.spec), cut

    def geometry(self, images: Tensor) -> Tensor:
        """`prepare` differentiably: float images (N, 3, H, W) in [0, 1] at the model's image size."""
        return fit_tensor(images, self.spec)


def probabilities(model: nn.Module, logits: Tensor) -> Tensor:
    """Probabilities (..., K) of a model's logits, by its head; a plain module's is softmax."""
    return class_shares(logits, model.head if isinstance(model, Classifier) else "softmax")


def log_odds(model: nn.Module, logits: Tensor) -> Tensor:
    """Log-odds log p/(1 - p) (..., K) of a model's logits, by its head; a plain module's is softmax."""
    return class_odds(logits, model.head if isinstance(model, Classifier) else "softmax")
