"""Models that only answer: an ONNX file run by onnxruntime, and a server that is asked over HTTP."""

from __future__ import annotations

import ast
import base64
import io
import json
import math
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from candling.errors import ModelError

__all__ = ["BlackBox", "HttpNetwork", "OnnxNetwork"]

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_NAME_KEYS = ("classes", "class_names", "labels", "names", "id2label")


class BlackBox(nn.Module, ABC):
    """A network without inside: images go in, numbers come out, and no gradient flows."""

    kind: ClassVar[str]
    differentiable: ClassVar[bool] = False
    # Whether inputs beyond what a picture holds can be put in.
    takes_any: bool = True

    def forward(self, images: Tensor) -> Any:
        """Outputs for normalised images (N, C, H, W).

        Raises
        ------
        ModelError
            If a gradient would be needed.
        """
        if images.requires_grad and torch.is_grad_enabled():
            raise ModelError(f"the model is a black box ({self.kind}), so its gradient cannot be had")
        return self.answer(images.detach().cpu())

    @abstractmethod
    def answer(self, images: Tensor) -> Any:
        """Outputs for images on the processor."""

    def save(self, folder: Path) -> None:
        """Write what is needed besides the spec."""


class OnnxNetwork(BlackBox):
    """A model in ONNX, run on one thread of the processor.

    Images go in as the file asks: NCHW or NHWC, as float, half, double or, times 255, as bytes; in batches
    of the size that it is fixed to.

    Raises
    ------
    ModelError
        If onnxruntime is not installed, or the file is missing, damaged or takes no images.
    """

    kind = "onnx"

    def __init__(self, file: Path) -> None:
        super().__init__()
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            message = f"{file}: needs onnxruntime; install it with `pip install 'candling[onnx]'`"
            raise ModelError(message) from error
        if not file.is_file():
            raise ModelError(f"{file}: no such ONNX file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base but this
            raise ModelError(f"{file}: onnxruntime cannot load it ({_first(error)})") from error
        self._file = file
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4:
            raise ModelError(f"{file}: takes {len(inputs)} inputs of shape {shape}, not one of images")
        # A side that is not fixed is a name or None.
        self._batch, *rest = (side if isinstance(side, int) and side > 0 else None for side in shape)
        self._last = rest[0] not in (1, 3) and rest[2] in (1, 3)
        channels, height, width = (rest[2], rest[0], rest[1]) if self._last else rest
        if channels not in (None, 1, 3):
            raise ModelError(f"{file}: takes images of {channels} channels; grey and RGB are known")
        self.channels = channels or 3
        self.image_size = None if height is None or width is None else (height, width)
        self._input, self._type = inputs[0].name, inputs[0].type
        if self._type not in (*_FLOATS, "tensor(uint8)"):
            raise ModelError(f"{file}: takes {self._type}; float and uint8 images are known")
        self.takes_any = self._type != "tensor(uint8)"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in the file's metadata, where there are any."""
        data = self._session.get_modelmeta().custom_metadata_map
        for key in _NAME_KEYS:
            if key in data:
                return _names(data[key])
        return None

    def answer(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by name."""
        array = images.permute(0, 2, 3, 1).numpy() if self._last else images.numpy()
        if self._type == "tensor(uint8)":
            array = np.rint(array * 255).clip(0, 255).astype(np.uint8)
        else:
            array = array.astype(_FLOATS[self._type])
        size = self._batch or max(len(array), 1)
        parts: list[list[np.ndarray[Any, Any]]] = []
        for start in range(0, len(array), size):
            part = array[start : start + size]
            # The last batch of a fixed size is filled up with its own last image.
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            try:
                outputs = self._session.run(None, {self._input: np.ascontiguousarray(filled)})
            except Exception as error:  # as above
                raise ModelError(f"{self._file}: onnxruntime stopped ({_first(error)})") from error
            parts.append([np.asarray(output)[: len(part)] for output in outputs])
        names = [output.name for output in self._session.get_outputs()]
        found = {}
        for i, name in enumerate(names):
            whole = np.concatenate([part[i] for part in parts])
            if whole.dtype.kind in "fiub":
                values = torch.from_numpy(whole)
                found[name] = values.float() if whole.dtype.kind == "f" else values
        if len(found) == 1 and not next(iter(found.values())).is_floating_point():
            raise ModelError(f"{self._file}: returns indices of classes; export it with their scores")
        return found if len(found) > 1 else {"logits": next(iter(found.values()))} if found else {}

    def save(self, folder: Path) -> None:
        """Write `model.onnx`, and weights that lie beside it under the name that it knows them by."""
        shutil.copyfile(self._file, folder / "model.onnx")
        for file in sorted(self._file.parent.glob(f"{self._file.name}?data")):
            shutil.copyfile(file, folder / file.name)


def _names(text: str) -> tuple[str, ...]:
    """A list or a dict in JSON or in Python's literals, or names apart by lines or commas."""
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = [part.strip() for part in (text.splitlines() if "\n" in text else text.split(","))]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=lambda key: int(key))]
    return tuple(str(name) for name in value) if isinstance(value, list | tuple) else (str(value),)


class HttpNetwork(BlackBox):
    """A model behind an address.

    Asked with POST and the JSON ``{"instances": [picture, …]}``, each picture a PNG in base64, it answers
    ``{"predictions": [[…], …]}``: for each picture a list with one number a class, logits or
    probabilities. Pictures have the model's image size; normalisation is the server's.

    Parameters
    ----------
    url
        Where to ask.
    timeout
        Seconds for a request.
    batch
        Pictures a request.
    """

    kind = "http"
    takes_any = False

    def __init__(self, url: str, *, timeout: float = 30.0, batch: int = 32) -> None:
        super().__init__()
        if timeout <= 0 or batch < 1:
            raise ModelError(f"{url}: timeout and batch must be larger than zero, not {timeout} and {batch}")
        self.url, self.timeout, self.batch = url, timeout, batch

    def answer(self, images: Tensor) -> Tensor:
        """Predictions (N, K)."""
        rows: list[list[float]] = []
        for part in images.split(self.batch):
            rows += self._ask([_png(image) for image in part])
        if len({len(row) for row in rows}) > 1:
            raise ModelError(f"{self.url}: predictions differ in length")
        return torch.tensor(rows, dtype=torch.float32)

    def _ask(self, pictures: list[str]) -> list[list[float]]:
        try:
            import httpx
        except ModuleNotFoundError as error:
            message = f"{self.url}: needs httpx; install it with `pip install httpx`"
            raise ModelError(message) from error
        try:
            answer = httpx.post(self.url, json={"instances": pictures}, timeout=self.timeout)
            answer.raise_for_status()
            rows = answer.json()["predictions"]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelError(f"{self.url}: no answer ({_first(error) or type(error).__name__})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self.url}: the answer is not JSON with a list of predictions") from error
        if not isinstance(rows, list) or len(rows) != len(pictures):
            count = len(rows) if isinstance(rows, list) else "no list of"
            raise ModelError(f"{self.url}: {count} predictions for {len(pictures)} pictures")
        for row in rows:
            if not isinstance(row, list) or not row or not all(_is_number(value) for value in row):
                raise ModelError(f"{self.url}: a prediction is not a list of finite numbers")
        return [[float(value) for value in row] for row in rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _png(image: Tensor) -> str:
    pixels = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode("ascii")


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
