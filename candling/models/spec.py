"""What a model is besides its weights, and `spec.json`, where that is written down."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from candling.errors import ModelError

__all__ = ["Channels", "Head", "ModelSpec", "Output", "read_spec", "spec_text"]

Head = Literal["softmax", "binary", "multilabel"]
Output = Literal["logits", "probabilities"]
Channels = Literal["rgb", "bgr", "grey"]

# What today's fields were before there were others: they are written even where they are at their default,
# so that folders of the first release keep their bytes and their digest.
_ALWAYS = ("architecture", "arguments", "classes", "image_size", "mean", "std")
_CHOICES = {
    "head": ("softmax", "binary", "multilabel"),
    "output": ("logits", "probabilities"),
    "channels": ("rgb", "bgr", "grey"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
}


@dataclass(frozen=True)
class ModelSpec:
    """All about a model but its weights.

    `architecture` is ``residual_cnn``, ``torchvision:NAME``, ``timm:NAME``, ``transformers``,
    ``factory:package.module:function``, ``onnx`` or ``http``. `image_size` is (height, width) in pixels;
    `mean` and `std` normalise RGB in [0, 1], also where a network wants [-1, 1] or [0, 255].

    A picture is resized to `resize`: None means exactly `image_size`, a number the shortest side and a pair
    (height, width); what is then larger than `image_size` is cut to its centre. `channels` is what the
    network sees of RGB. `head` and `output` say what the network returns: ``binary`` is one logit z, read as
    the two logits (0, z). `notes` are sentences on what was detected or assumed when it was imported.
    """

    architecture: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    arguments: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    head: Head = "softmax"
    output: Output = "logits"
    resize: int | tuple[int, int] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    channels: Channels = "rgb"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, not one of {', '.join(allowed)}")

    def at(self, size: tuple[int, int]) -> ModelSpec:
        """The same for pictures of another (height, width): its own cut where it only grows or shrinks.

        Where the shape is another, it is the whole picture.
        """
        if size == self.image_size:
            return self
        (height, width), (tall, wide) = size, self.image_size
        cut = isinstance(self.resize, int) and height * wide == width * tall
        resize = round(self.resize * height / tall) if cut and isinstance(self.resize, int) else None
        return replace(self, image_size=size, resize=resize)


def spec_text(spec: ModelSpec) -> str:
    """The text of `spec.json`; fields that came after the first release only where they say something."""
    data = asdict(spec)
    for one in fields(spec):
        if one.default is not MISSING and one.name not in _ALWAYS and data[one.name] == one.default:
            del data[one.name]
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def read_spec(folder: Path) -> ModelSpec:
    """The spec in `folder`.

    Raises
    ------
    ModelError
        If there is none, or it is not a spec.
    """
    file = folder / "spec.json"
    if not file.is_file():
        raise ModelError(
            f"{folder}: no spec.json here; a model is a folder with model.safetensors and spec.json"
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        for key in ("classes", "image_size", "mean", "std", "notes"):
            if key in data:
                data[key] = tuple(data[key])
        if isinstance(data.get("resize"), list):
            data["resize"] = tuple(data["resize"])
        return ModelSpec(**data)
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: not a model spec ({error})") from error
