"""Pictures of the engine become artifacts of a record here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from candling.audit.record import Artifact

__all__ = ["picture"]

_LARGE = 128  # px; pictures with a longer side become JPEG


def picture(
    folder: Path,
    name: str,
    image: Tensor,
    *,
    section: str,
    scope: Mapping[str, str],
    caption: str,
    values: Mapping[str, float] | None = None,
) -> Artifact:
    """Write image (3, H, W), uint8 or in [0, 1], as `folder/name` and describe it.

    Small pictures are written as they are; of large ones a report holds ten times more as JPEG.
    """
    large = max(image.shape[1:]) > _LARGE
    name = f"{name}.{'jpg' if large else 'png'}"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().byte()
    ready = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    if large:
        ready.save(path, format="JPEG", quality=90, subsampling=0)
    else:
        ready.save(path, format="PNG")
    return Artifact.model_validate(
        {
            "path": name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "section": section,
            "caption": caption,
            "scope": dict(scope),
            # Four digits are what a caption can show.
            "values": {k: round(v, 4) for k, v in (values or {}).items()},
        }
    )
