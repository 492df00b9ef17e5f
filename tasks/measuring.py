"""Engine results become measurements here."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from candling.audit.record import Artifact, Measurement
from candling.statistics import Estimate

__all__ = ["measurement", "picture"]

# Eight digits are more than any interval means and hide the last bits of float arithmetic.
_DIGITS = 8
_LARGE = 128  # px; pictures with a longer side become JPEG


def _round(value: float) -> float | None:
    return round(value, _DIGITS) if math.isfinite(value) else None


def measurement(
    id: str,
    estimate: Estimate | None,
    scope: Mapping[str, str] | None = None,
    *,
    least: int = 2,
    note: str = "",
) -> Measurement:
    """A measurement of `estimate`: inconclusive where there is none, it is NaN, or n is under `least`."""
    scope = dict(scope or {})
    if estimate is None:
        return Measurement(id=id, scope=scope, value=None, n=0, status="inconclusive", note=note or "no data")
    value, low, high = (_round(x) for x in estimate[:3])
    enough = value is not None and low is not None and high is not None and estimate.n >= least
    if not enough and not note:
        note = f"{estimate.n} are too few" if estimate.n < least else "not a finite number"
    return Measurement(
        id=id, scope=scope, value=value, low=low, high=high, n=estimate.n,
        status="ok" if enough else "inconclusive", note=note,
    )  # fmt: skip


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
    """Write image (3, H, W) in [0, 1] as `folder/name` and describe it.

    Small pictures are written as they are; of large ones a report holds ten times more as JPEG.
    """
    large = max(image.shape[1:]) > _LARGE
    name = f"{name}.{'jpg' if large else 'png'}"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    ready = Image.fromarray(np.ascontiguousarray(pixels))
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
