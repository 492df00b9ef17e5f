"""Models as data: a folder with `model.safetensors` and the `spec.json` that says what it is.

A spec names one of the architectures that candling knows; nothing in the folder is ever executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from candling.errors import DataError, ModelError
from candling.vision.networks import ResidualCNN

__all__ = [
    "Classifier",
    "ModelSpec",
    "build_model",
    "evaluating",
    "load_model",
    "logits",
    "model_digest",
    "penultimate",
    "predict",
    "save_model",
]


@dataclass(frozen=True)
class ModelSpec:
    """All about a model but its weights.

    `image_size` is (height, width) in pixels; `mean` and `std` normalise RGB in [0, 1].
    """

    architecture: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    arguments: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


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

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of RGB images (N, 3, H, W) in [0, 1]."""
        out: Tensor = self.network((images - self.mean) / self.std)
        return out


def build_model(spec: ModelSpec, *, seed: int = 0) -> Classifier:
    """A model with fresh weights drawn from `seed`; the global random state is left as it was.

    Raises
    ------
    ModelError
        If the architecture is not one that candling knows.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.architecture == "residual_cnn":
            network: nn.Module = ResidualCNN(len(spec.classes), **spec.arguments)
        else:
            raise ModelError(f"architecture {spec.architecture!r} is not known; use 'residual_cnn'")
    return Classifier(network, spec).eval()


def save_model(model: Classifier, folder: Path) -> None:
    """Write `model.safetensors` and `spec.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().cpu().contiguous() for name, t in model.network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    text = json.dumps(asdict(model.spec), indent=2, sort_keys=True) + "\n"
    (folder / "spec.json").write_text(text, encoding="utf-8")


def _read_spec(folder: Path) -> ModelSpec:
    file = folder / "spec.json"
    if not file.is_file():
        raise ModelError(
            f"{folder}: no spec.json here; a model is a folder with model.safetensors and spec.json"
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        for key in ("classes", "image_size", "mean", "std"):
            if key in data:
                data[key] = tuple(data[key])
        return ModelSpec(**data)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{file}: not a model spec ({error})") from error


def load_model(folder: Path | str, *, device: str | torch.device = "cpu") -> Classifier:
    """Load the model in `folder`, in eval mode.

    Raises
    ------
    ModelError
        If a file is missing or truncated, the spec describes no network, or the weights do not fit it.
    """
    folder = Path(folder)
    spec = _read_spec(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"{folder}: no model.safetensors here")
    try:
        state = load_file(weights, device=str(device))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights}: not readable as safetensors ({error})") from error
    try:
        model = build_model(spec).to(device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder / 'spec.json'}: not a model that can be built ({error})") from error
    try:
        model.network.load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ModelError(f"{weights}: weights do not fit {spec.architecture!r}: {detail}") from error
    return model


def model_digest(folder: Path) -> str:
    """SHA-256 over spec and weights: what the audit and the gate know the model by."""
    digest = hashlib.sha256()
    for name in ("spec.json", "model.safetensors"):
        file = folder / name
        if not file.is_file():
            raise ModelError(
                f"{folder}: no {name} here; a model is a folder with model.safetensors and spec.json"
            )
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode with frozen parameters; mode and flags are put back on leaving."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        for parameter in flags:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def _as_unit(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]; uint8 is scaled."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


@torch.inference_mode()
def logits(model: nn.Module, images: Tensor, *, batch: int = 128) -> Tensor:
    """Logits (N, classes) of images (N, 3, H, W), uint8 or float in [0, 1], in batches.

    Raises
    ------
    ModelError
        If any logit is NaN or infinite.
    """
    with evaluating(model):
        # Convolutions are about twice as fast on channels-last images, whatever the weights' format.
        out = torch.cat(
            [
                model(_as_unit(part).contiguous(memory_format=torch.channels_last))
                for part in images.split(batch)
            ]
        )
    bad = ~torch.isfinite(out).all(1)
    if bad.any():
        raise ModelError(
            f"the model returned NaN or infinite logits for {int(bad.sum())} of {len(out)} images"
        )
    return out


@torch.inference_mode()
def penultimate(model: nn.Module, images: Tensor, *, batch: int = 128) -> Tensor:
    """What goes into the model's last linear layer, (N, features), for images as in `logits`.

    Raises
    ------
    ModelError
        If the model has no linear layer.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ModelError("the model has no linear layer to read penultimate features from")
    seen: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    try:
        logits(model, images, batch=batch)
    finally:
        handle.remove()
    return torch.cat(seen)


def predict(model: Classifier, image: Path | str) -> list[tuple[str, float]]:
    """Classes with softmax probabilities, most probable first, for one picture on disk.

    Raises
    ------
    DataError
        If the file is missing or not a picture.
    """
    path = Path(image)
    if not path.is_file():
        raise DataError(f"{path}: no such picture")
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except OSError as error:
        raise DataError(f"{path}: not a picture that Pillow can read") from error
    height, width = model.spec.image_size
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    probabilities = logits(model, pixels).softmax(1)[0].tolist()
    return sorted(zip(model.classes, probabilities, strict=True), key=lambda pair: -pair[1])
