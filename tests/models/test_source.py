"""The short form of a model."""

from __future__ import annotations

from typing import Any

import pytest

from candling.errors import ParamsError
from candling.models import ModelSource

FORMS = {
    "path/to/folder": ("folder", "path/to/folder", None),
    "./odd@name": ("folder", "./odd@name", None),
    "torchvision:mobilenet_v2@weights.safetensors": ("torchvision", "mobilenet_v2", "weights.safetensors"),
    "torchvision:resnet18@IMAGENET1K_V1": ("torchvision", "resnet18", "IMAGENET1K_V1"),
    "torchvision:resnet18@a/b@c.pt": ("torchvision", "resnet18", "a/b@c.pt"),
    "timm:resnet10t.c3_in1k@file": ("timm", "resnet10t.c3_in1k", "file"),
    "transformers:google/vit-base": ("transformers", "google/vit-base", None),
    "models:/tanks@approved": ("mlflow", "models:/tanks@approved", None),
    "models:/tanks/3": ("mlflow", "models:/tanks/3", None),
    "factory:package.module:function@weights.pt": ("factory", "package.module:function", "weights.pt"),
    "factory:module:Class.make": ("factory", "module:Class.make", None),
    "onnx:a@b.onnx": ("onnx", "a@b.onnx", None),
    "http://127.0.0.1:8000/predict": ("http", "http://127.0.0.1:8000/predict", None),
    "https://u@host/predict": ("http", "https://u@host/predict", None),
}


@pytest.mark.parametrize("text", FORMS)
def test_short_form_and_back(text: str) -> None:
    source = ModelSource.parse(text)
    assert (source.source, source.name, source.weights) == FORMS[text]
    assert str(source) == text
    assert source == ModelSource(*FORMS[text])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a name; write path/to/folder"),
        ("torchvision:", "needs a name; write torchvision:mobilenet_v2@"),
        ("timm:resnet10t@", "names no weights after the @"),
        ("s3://bucket/model", "no source has this form"),
        ("factory:module", "names no function"),
        ("factory:a/b.py:make", "write factory:package.module:function"),
    ],
)
def test_what_is_no_short_form(text: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        ModelSource.parse(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [("source", "keras"), ("head", "sigmoid"), ("output", "scores"), ("image_size", (224,)),
     ("image_size", (0, 3)), ("image_size", (2.5, 3))],
)  # fmt: skip
def test_fields_are_one_of_their_values(field: str, value: Any) -> None:
    with pytest.raises(ParamsError, match=f"{field}.*{value!r}".replace("(", r"\(").replace(")", r"\)")):
        ModelSource(**{"source": "folder", "name": "x", field: value})
