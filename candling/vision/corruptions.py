"""The usual corruptions of pictures, at severities 1 to 5, to see how much accuracy they cost.

After Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019, arXiv 1903.12261), written from the description. Their strengths for pictures of
32 px (CIFAR-10-C) and of 224 px (ImageNet-C) hold here at those sizes; sizes between them get the strength
between the two on logarithmic scales, and a blur of larger pictures grows with them.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "corrupt", "strength"]

SEVERITIES = (1, 2, 3, 4, 5)

_SMALL, _LARGE = 32, 224
_Apply = Callable[[Tensor, float, torch.Generator], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A way to spoil a picture, and how strongly at each severity.

    small, large: strengths at severities 1 to 5 of pictures of 32 and of 224 px. `of` says what they are.
    spatial: the strength is in pixels and grows with pictures larger than 224 px.
    """

    title: str
    of: str
    small: tuple[float, float, float, float, float]
    large: tuple[float, float, float, float, float]
    apply: _Apply
    spatial: bool = False


def _noise(image: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU, so that every device sees the same noise.
    drawn = torch.randn(image.shape, generator=generator)
    return (image + deviation * drawn.to(image)).clamp(0, 1)


def _blur(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    weights = (weights / weights.sum()).to(image)
    planes = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    planes = F.conv2d(planes, weights.view(1, 1, 1, -1))
    return F.conv2d(planes, weights.view(1, 1, -1, 1))[:, 0].clamp(0, 1)


def _contrast(image: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    mean = image.mean((1, 2), keepdim=True)
    return (mean + factor * (image - mean)).clamp(0, 1)


def _brightness(image: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    # In HSV only the value is raised: hue and saturation are ratios of the channels and stay.
    value = image.amax(0)
    raised = (value + shift).clamp(max=1)
    return torch.where(value > 0, image * (raised / value.clamp_min(1e-12)), raised).clamp(0, 1)


def _jpeg(image: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    pixels = (image.detach().cpu() * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=round(quality))
    with Image.open(buffer) as opened:
        decoded = np.array(opened.convert("RGB"))
    return torch.from_numpy(decoded).permute(2, 0, 1).to(image) / 255


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption(
        "Gaussian noise",
        "standard deviation, white being 1",
        (0.04, 0.06, 0.08, 0.09, 0.10),
        (0.08, 0.12, 0.18, 0.26, 0.38),
        _noise,
    ),
    "blur": Corruption(
        "Gaussian blur",
        "standard deviation in pixels",
        (0.4, 0.6, 0.7, 0.8, 1.0),
        (1.0, 2.0, 3.0, 4.0, 6.0),
        _blur,
        spatial=True,
    ),
    "contrast": Corruption(
        "Less contrast",
        "factor of the contrast",
        (0.75, 0.5, 0.4, 0.3, 0.15),
        (0.4, 0.3, 0.2, 0.1, 0.05),
        _contrast,
    ),
    "brightness": Corruption(
        "Brighter",
        "added to the value in HSV",
        (0.05, 0.1, 0.15, 0.2, 0.3),
        (0.1, 0.2, 0.3, 0.4, 0.5),
        _brightness,
    ),
    "jpeg": Corruption(
        "JPEG compression",
        "quality",
        (80.0, 65.0, 58.0, 50.0, 40.0),
        (25.0, 18.0, 15.0, 10.0, 7.0),
        _jpeg,
    ),
}


def strength(name: str, severity: int, side: int) -> float:
    """How strong a corruption is for pictures whose shorter side is `side` px, in its own unit.

    Raises
    ------
    ValueError
        If the corruption or the severity is not one that there is, or `side` is not positive.
    """
    kind = CORRUPTIONS.get(name)
    if kind is None:
        raise ValueError(f"corruption {name!r} is not known; there are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be from 1 to 5, got {severity}")
    if side < 1:
        raise ValueError(f"side must be positive, got {side}")
    small, large = kind.small[severity - 1], kind.large[severity - 1]
    share = math.log(min(max(side, _SMALL), _LARGE) / _SMALL) / math.log(_LARGE / _SMALL)
    grown = max(side / _LARGE, 1.0) if kind.spatial else 1.0
    return grown * math.exp((1 - share) * math.log(small) + share * math.log(large))


def corrupt(
    images: Tensor, name: str, severity: int, *, seed: int = 0, indices: Sequence[int] | None = None
) -> Tensor:
    """Pictures under one corruption.

    Parameters
    ----------
    images
        float (N, 3, H, W) in [0, 1]; returned in the same dtype and on the same device.
    name
        A key of `CORRUPTIONS`.
    severity
        1 to 5.
    seed, indices
        Image i draws from a generator of its own, seeded by the corruption, `seed` and `indices[i]`, its
        place in the data set (by default its place in `images`), so that batches change nothing. The
        severity is no part of it: the same noise grows.

    Raises
    ------
    ValueError
        If images are not float (N, 3, H, W) in [0, 1], or an argument is not one that there is.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images must be float (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    if len(images) and not (images.amin() >= 0 and images.amax() <= 1):
        raise ValueError("images must lie in [0, 1]")
    places = range(len(images)) if indices is None else indices
    if len(places) != len(images):
        raise ValueError(f"{len(images)} images need as many indices, got {len(places)}")
    amount = strength(name, severity, min(images.shape[2:]))
    apply = CORRUPTIONS[name].apply
    out = [
        apply(image, amount, _generator(name, seed, place)).to(images.dtype)
        for image, place in zip(images, places, strict=True)
    ]
    return torch.stack(out) if out else images.clone()


def _generator(*what: object) -> torch.Generator:
    digest = hashlib.sha256(repr(what).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
