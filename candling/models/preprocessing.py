"""How a picture becomes what a network takes: geometry outside of it, normalisation inside.

Whatever range a network wants, its normalisation is one mean and one standard deviation of RGB in [0, 1]:
(s·x - m) / d is (x - m/s) / (d/s).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from candling.errors import ModelError
from candling.models.spec import Channels, ModelSpec

__all__ = ["Preprocessing", "fit_picture", "fit_tensor", "read_preprocessing"]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Size = tuple[int, int]
Colour = tuple[float, float, float]

# Pillow's numbers, which transformers writes, and its names, which torchvision and timm write.
_FILTERS: dict[Any, Interpolation] = {
    0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic",
    "nearest": "nearest", "lanczos": "lanczos", "bilinear": "bilinear", "bicubic": "bicubic",
}  # fmt: skip
_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_OWN_KEYS = {"image_size", "resize", "center_crop", "interpolation", "range", "mean", "std", "channels",
             "architecture"}  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a `ModelSpec`, as far as it is known; `note` says what was assumed."""

    image_size: Size | None = None
    resize: int | Size | None = None
    interpolation: Interpolation = "bilinear"
    mean: Colour = (0.0, 0.0, 0.0)
    std: Colour = (1.0, 1.0, 1.0)
    channels: Channels | None = None
    note: str = ""

    @property
    def is_identity(self) -> bool:
        """Whether pixels are left as they are."""
        return self.mean == (0.0, 0.0, 0.0) and self.std == (1.0, 1.0, 1.0) and self.channels is None

    def at(self, size: Size | None, *, said: bool) -> Preprocessing:
        """The same for another image size, which a person gave.

        Parameters
        ----------
        said
            Whether a person gave the preprocessing too; then the two must agree.

        Raises
        ------
        ModelError
            If they do not.
        """
        if size is None or size == self.image_size:
            return self
        if said and self.image_size is not None:
            raise ModelError(f"image_size says {size}, preprocessing says {self.image_size}; leave one out")
        return replace(self, image_size=size, resize=self.resize if said else None)


def read_preprocessing(value: str | Path | Mapping[str, Any], *, root: Path = Path()) -> Preprocessing:
    """Preprocessing from a mapping or a JSON file.

    Forms: our own, with ``resize`` (shortest side, or [height, width]), ``center_crop``, ``image_size``
    (exact, where there is no crop), ``interpolation``, ``range`` (such as [-1, 1] or [0, 255]), ``mean``,
    ``std`` and ``channels``; a ``preprocessor_config.json`` of transformers; a ``pretrained_cfg`` of timm.

    Raises
    ------
    ModelError
        If the file is missing, or says what cannot be done.
    """
    where, data = "preprocessing", value
    if isinstance(value, str | Path):
        file = root / value
        where = str(file)
        if not file.is_file():
            raise ModelError(f"{file}: no such preprocessing file")
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{file}: not JSON ({error})") from error
    if not isinstance(data, Mapping):
        raise ModelError(f"{where}: preprocessing is a mapping such as {{'resize': 256, 'center_crop': 224}}")
    try:
        if isinstance(data.get("pretrained_cfg"), Mapping):
            data = data["pretrained_cfg"]
        if data.keys() & {"image_mean", "do_resize", "image_processor_type", "feature_extractor_type"}:
            return _transformers(data)
        if data.keys() & {"input_size", "crop_pct"}:
            return _timm(data)
        return _own(data)
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        raise ModelError(f"{where}: not preprocessing that can be followed ({error})") from error


def _own(data: Mapping[str, Any]) -> Preprocessing:
    strange = sorted(set(data) - _OWN_KEYS)
    if strange:
        raise ValueError(f"{strange[0]!r} is none of {', '.join(sorted(_OWN_KEYS))}")
    low, high = data.get("range", (0, 1))
    resize = data.get("resize")
    crop = data.get("center_crop", data.get("image_size"))
    if crop is None and isinstance(resize, list | tuple):
        crop = resize
    if crop is None and resize is not None:
        raise ValueError("resize sets the shortest side alone; give center_crop too")
    size = None if crop is None else _size(crop)
    # `image_size` alone is an exact resize, and so is a resize to the very size.
    wanted = None if resize is None else (_size(resize) if not isinstance(resize, int) else int(resize))
    return Preprocessing(
        image_size=size,
        resize=None if wanted == size else wanted,
        interpolation=_filter(data.get("interpolation", "bilinear")),
        **_normalisation(data.get("mean", 0.0), data.get("std", 1.0), scale=high - low, offset=low),
        channels=data.get("channels"),
    )


def _transformers(data: Mapping[str, Any]) -> Preprocessing:
    """As the image processors of transformers read `preprocessor_config.json`."""
    kind = str(data.get("image_processor_type") or data.get("feature_extractor_type") or "")
    size, crop = data.get("size"), data.get("crop_size")
    resize: int | Size | None = None
    image_size: Size | None = None
    note = ""
    if data.get("do_resize", True) and size is not None:
        if isinstance(size, Mapping) and not size.keys() & {"shortest_edge", "height"}:
            raise ValueError(f"size {dict(size)} gives neither shortest_edge nor height and width")
        if isinstance(size, Mapping) and "shortest_edge" in size:
            resize = int(size["shortest_edge"])
        elif isinstance(size, int) and data.get("default_to_square") is False:
            resize = size
        else:
            image_size = _size(size)
    if kind.startswith("ConvNext") and isinstance(resize, int):
        # Below 384 pixels ConvNeXt cuts a part of the picture, from there on it takes all of it.
        image_size = (resize, resize)
        resize = int(resize / data.get("crop_pct", 224 / 256)) if resize < 384 else None
    elif kind.startswith("Levit") and isinstance(resize, int):
        resize = int(256 / 224 * resize)
    if data.get("do_center_crop", crop is not None) and crop is not None:
        if image_size is not None and _size(crop) != image_size:
            resize = image_size
        image_size = _size(crop)
    elif image_size is None and isinstance(resize, int):
        image_size = (resize, resize)
        note = "the image processor keeps the sides' ratio; pictures are cut to their central square"
    scale = 255.0 * data.get("rescale_factor", 1 / 255) if data.get("do_rescale", True) else 255.0
    # EfficientNet's processor subtracts one after it has divided by 127.5.
    offset = -1.0 if data.get("rescale_offset", False) else 0.0
    # MobileViT's does not know normalisation.
    normal = data.get("do_normalize", not kind.startswith("MobileViT"))
    std = data.get("image_std") or 1.0
    divisor = std if normal else 1.0
    if kind.startswith("EfficientNet") and data.get("include_top", True):
        # It divides once more, as the first weights were trained.
        divisor = [a * b for a, b in zip(_three(divisor), _three(std), strict=True)]
    return Preprocessing(
        image_size=image_size,
        resize=None if resize == image_size else resize,
        interpolation=_filter(data.get("resample", 2)),
        **_normalisation(
            (data.get("image_mean") or 0.0) if normal else 0.0, divisor, scale=scale, offset=offset
        ),
        channels="bgr" if data.get("do_flip_channel_order", False) else None,
        note=note,
    )


def _timm(data: Mapping[str, Any]) -> Preprocessing:
    """As timm's evaluation transform reads a model's config."""
    _, height, width = data.get("input_size", (3, 224, 224))
    size, share = (int(height), int(width)), float(data.get("crop_pct") or 0.875)
    mode = data.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise ValueError(f"crop_mode {mode!r} is not supported; give preprocessing of your own")
    scaled = (math.floor(size[0] / share), math.floor(size[1] / share))
    resize: int | Size = scaled[0] if mode == "center" and size[0] == size[1] else scaled
    return Preprocessing(
        image_size=size,
        resize=None if resize == size else resize,
        interpolation=_filter(data.get("interpolation", "bicubic")),
        **_normalisation(data.get("mean", 0.0), data.get("std", 1.0)),
    )


def _normalisation(mean: Any, std: Any, *, scale: float = 1.0, offset: float = 0.0) -> dict[str, Any]:
    """Mean and std of x in [0, 1] where the network's are those of scale·x + offset."""

    deviations = _three(std)
    if min(deviations) <= 0 or scale == 0:
        raise ValueError("std and scale must be larger than zero")
    if scale == 1 and offset == 0:  # so that the usual numbers keep their digits
        return {"mean": cast(Colour, tuple(_three(mean))), "std": cast(Colour, tuple(deviations))}
    return {
        "mean": cast(Colour, tuple((m - offset) / scale for m in _three(mean))),
        "std": cast(Colour, tuple(d / scale for d in deviations)),
    }


def _three(value: Any) -> list[float]:
    values = [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)]
    if len(values) not in (1, 3) or not all(math.isfinite(v) for v in values):
        raise ValueError(f"mean and std are one or three numbers, not {value!r}")
    return values * 3 if len(values) == 1 else values


def _size(value: Any) -> Size:
    """(height, width) of a number, a pair, or the mapping that transformers writes."""
    if isinstance(value, Mapping):
        edge = value.get("shortest_edge")
        value = (value["height"], value["width"]) if edge is None else edge
    sides = [value] if isinstance(value, int) else [int(side) for side in value]
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(f"a size is one number or [height, width], not {value!r}")
    return sides[0], sides[-1]


def _filter(value: Any) -> Interpolation:
    """An interpolation by Pillow's number or anyone's name."""
    key = getattr(value, "value", value)
    key = key.lower() if isinstance(key, str) else key
    if key not in _FILTERS:
        raise ValueError(f"interpolation {value!r} is none of nearest, bilinear, bicubic, lanczos")
    return _FILTERS[key]


def _resized(height: int, width: int, spec: ModelSpec) -> Size:
    """(height, width) after resizing and before the cut."""
    if spec.resize is None:
        return spec.image_size
    if not isinstance(spec.resize, int):
        return spec.resize
    # The shortest side as asked for, the other one rounded down, as torchvision does.
    if height <= width:
        return spec.resize, int(spec.resize * width / height)
    return int(spec.resize * height / width), spec.resize


def _cut(height: int, width: int, size: Size) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the central cut, which may reach beyond the picture."""
    top, left = (int(round((have - want) / 2.0)) for have, want in ((height, size[0]), (width, size[1])))
    return left, top, left + size[1], top + size[0]


def fit_picture(picture: Image.Image, spec: ModelSpec, *, mask: bool = False) -> Image.Image:
    """A picture, or a mask without mixing its values, at the spec's image size; black where it ends."""
    height, width = _resized(picture.height, picture.width, spec)
    if picture.size != (width, height):
        how = Image.Resampling.NEAREST if mask else _PILLOW[spec.interpolation]
        picture = picture.resize((width, height), how)
    return (
        picture if (height, width) == spec.image_size else picture.crop(_cut(height, width, spec.image_size))
    )


def fit_tensor(images: Tensor, spec: ModelSpec) -> Tensor:
    """The same, differentiably, on float images (N, 3, H, W) in [0, 1]; bicubic in place of lanczos."""
    height, width = _resized(images.shape[2], images.shape[3], spec)
    if images.shape[2:] != (height, width):
        if spec.interpolation == "nearest":
            images = F.interpolate(images, (height, width), mode="nearest-exact")
        else:
            mode = "bilinear" if spec.interpolation == "bilinear" else "bicubic"
            images = F.interpolate(images, (height, width), mode=mode, antialias=True, align_corners=False)
            # Bicubic interpolation overshoots at edges, where Pillow cuts it off.
            images = images.clamp(0, 1)
    if (height, width) == spec.image_size:
        return images
    left, top, right, bottom = _cut(height, width, spec.image_size)
    # A negative pad cuts.
    out: Tensor = F.pad(images, (-left, right - width, -top, bottom - height))
    return out if out.is_contiguous() else out.contiguous(memory_format=torch.contiguous_format)
