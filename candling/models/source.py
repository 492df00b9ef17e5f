"""Where a model comes from: one form for params and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from candling.errors import ParamsError

__all__ = ["ModelSource", "SourceKind"]

SourceKind = Literal["folder", "torchvision", "timm", "transformers", "mlflow", "factory", "onnx", "http"]

# Sources whose short form takes weights after an @; in paths and addresses an @ is a character like others.
_WITH_WEIGHTS = ("torchvision", "timm", "factory")


@dataclass(frozen=True)
class ModelSource:
    """A model as a person names it; `import_model` makes a folder of it.

    Parameters
    ----------
    source
        Kind of source.
    name
        ``folder``, ``onnx``: a path. ``torchvision``, ``timm``: an architecture. ``transformers``: a local
        folder or a hub id. ``mlflow``: ``models:/name@alias``. ``factory``: ``package.module:function``.
        ``http``: an address.
    weights
        None, a path (a file, or a folder with one), or a name: a torchvision enum's such as
        ``IMAGENET1K_V2``, or ``pretrained`` for timm.
    classes
        None (what the model says), names in the order of the outputs, or the path of a JSON list or
        ``{"0": name}``.
    preprocessing
        None (what comes with the model), a mapping, or the path of a JSON file: see `read_preprocessing`.
    head, output
        ``auto`` detects them.
    image_size
        None (what comes with the model), or (height, width) in pixels.
    arguments
        For the constructor; for transformers ``revision`` of a hub id; for http ``timeout`` in seconds and
        ``batch``, pictures a request; for mlflow ``architecture``, the short form of what its weights are
        for, where it holds weights alone.

    Raises
    ------
    ParamsError
        If a field is not one of its values.
    """

    source: SourceKind
    name: str
    weights: str | None = None
    classes: str | tuple[str, ...] | None = None
    preprocessing: str | Mapping[str, Any] | None = None
    head: Literal["auto", "softmax", "binary", "multilabel"] = "auto"
    output: Literal["auto", "logits", "probabilities"] = "auto"
    image_size: tuple[int, int] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_choice("source", self.source, get_args(SourceKind))
        _check_choice("head", self.head, ("auto", "softmax", "binary", "multilabel"))
        _check_choice("output", self.output, ("auto", "logits", "probabilities"))
        if not self.name:
            raise ParamsError(f"a {self.source} model needs a name; write {_FORMS[self.source]}")
        if self.source == "factory" and not all(
            part.isidentifier() for part in self.name.replace(":", ".", 1).split(".")
        ):
            raise ParamsError(f"factory {self.name!r}: write factory:package.module:function")
        if self.source == "factory" and ":" not in self.name:
            raise ParamsError(f"factory {self.name!r} names no function; write package.module:function")
        size = self.image_size
        if size is not None and (len(size) != 2 or not all(type(side) is int and side > 0 for side in size)):
            raise ParamsError(f"image_size is (height, width) in pixels, not {size!r}")

    @classmethod
    def parse(cls, text: str) -> ModelSource:
        """Read the short form.

        ``path/to/folder``, ``torchvision:mobilenet_v2@weights.safetensors``,
        ``torchvision:resnet18@IMAGENET1K_V1``, ``timm:resnet10t@file``, ``transformers:path/or/hub-id``,
        ``models:/name@alias``, ``factory:package.module:function@weights.pt``, ``onnx:model.onnx`` or
        ``http://127.0.0.1:8000/predict``.

        Raises
        ------
        ParamsError
            If it is none of these.
        """
        kind, colon, rest = text.partition(":")
        if kind in ("http", "https") and rest.startswith("//"):
            return cls("http", text)
        if kind == "models" and rest.startswith("/"):
            return cls("mlflow", text)
        if colon and kind in ("torchvision", "timm", "transformers", "factory", "onnx"):
            weights: str | None = None
            if kind in _WITH_WEIGHTS:
                rest, at, weights = rest.partition("@")
                if at and not weights:
                    raise ParamsError(f"model {text!r} names no weights after the @")
            return cls(kind, rest, weights or None)  # type: ignore[arg-type]
        if "://" in text:
            raise ParamsError(f"model {text!r}: no source has this form; write one of {_ALL_FORMS}")
        return cls("folder", text)

    def __str__(self) -> str:
        """The short form, which names source and weights and leaves out the rest."""
        if self.source in ("folder", "mlflow", "http"):
            return self.name
        return f"{self.source}:{self.name}" + ("" if self.weights is None else f"@{self.weights}")


_FORMS = {
    "folder": "path/to/folder",
    "torchvision": "torchvision:mobilenet_v2@weights.safetensors",
    "timm": "timm:resnet10t@weights.safetensors",
    "transformers": "transformers:path/or/hub-id",
    "mlflow": "models:/name@alias",
    "factory": "factory:package.module:function@weights.pt",
    "onnx": "onnx:model.onnx",
    "http": "http://127.0.0.1:8000/predict",
}
_ALL_FORMS = ", ".join(_FORMS.values())


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ParamsError(f"{name} of a model is {value!r}, not one of {', '.join(allowed)}")
