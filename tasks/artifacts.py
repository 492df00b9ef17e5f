"""Pictures and tables of the engine become artifacts of a record here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from candling.audit.record import Artifact

__all__ = ["drawing", "picture", "table"]

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
    exact: bool = False,
) -> Artifact:
    """Write image (3, H, W), uint8 or in [0, 1], as `folder/name` and describe it.

    Small pictures are written as they are; of large ones a report holds ten times more as JPEG, unless each
    pixel counts (`exact`).
    """
    large = max(image.shape[1:]) > _LARGE and not exact
    name = f"{name}.{'jpg' if large else 'png'}"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().byte()
    ready = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    if large:
        ready.save(path, format="JPEG", quality=90, subsampling=0)
    else:
        ready.save(path, format="PNG")
    # Four digits are what a caption can show.
    shown = {k: round(v, 4) for k, v in (values or {}).items()}
    return _artifact(path, name, section=section, caption=caption, scope=dict(scope), values=shown)


def drawing(folder: Path, name: str, page: Image.Image, *, section: str, caption: str) -> Artifact:
    """Write what was drawn with lines and letters as `folder/name`.png and describe it."""
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, format="PNG", optimize=True)
    return _artifact(path, f"{name}.png", section=section, caption=caption)


def table(
    folder: Path,
    name: str,
    rows: pd.DataFrame,
    *,
    section: str,
    caption: str,
    scope: Mapping[str, str] | None = None,
) -> Artifact:
    """Write rows as `folder/name`.parquet and describe it."""
    path = folder / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path, index=False)
    return _artifact(path, f"{name}.parquet", section=section, caption=caption, scope=dict(scope or {}))


def _artifact(path: Path, name: str, **fields: object) -> Artifact:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Artifact.model_validate({"path": name, "sha256": digest, **fields})
