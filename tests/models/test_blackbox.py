"""Black boxes answer as what they hold, and say so where a gradient or a layer is asked of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from candling.errors import ModelError
from candling.models import (
    ModelSource,
    ModelSpec,
    build_model,
    check_differentiable,
    describe,
    import_model,
    layers,
    load_model,
    logits,
    model_digest,
    penultimate,
    probabilities,
)
from candling.models.blackbox import BlackBox
from tests.models.blackboxes import NAMES, SIZE, onnx_file, scores, served


def pictures(count: int = 5) -> Tensor:
    pixels = torch.randint(0, 256, (count, 3, *SIZE), generator=torch.Generator().manual_seed(2))
    return pixels.float() / 255


def opened(folder: Path, **options: Any) -> Any:
    """The model of an ONNX file, imported."""
    onnx_file(folder, **options)
    source = ModelSource("onnx", "net.onnx", classes=None if "metadata" in options else NAMES)
    import_model(source, folder / "out", root=folder)
    return load_model(folder / "out")


FILES: dict[str, dict[str, Any]] = {
    "any batch": {},
    "one picture at a time": {"batch": 1},
    "two pictures at a time": {"batch": 2},
    "channels last": {"last": True},
    "channels last, one at a time": {"last": True, "batch": 1},
    "half": {"kind": "float16"},
    "bytes": {"kind": "uint8"},
    "weights beside": {"beside": True},
    "a label besides": {"extra": True},
    "softmax": {"after": "Softmax"},
}


@pytest.mark.parametrize("case", FILES)
def test_onnx_answers_as_its_formula(tmp_path: Path, case: str) -> None:
    model = opened(tmp_path, **FILES[case])
    close = {"rtol": 2e-3, "atol": 5e-3} if case == "half" else {"rtol": 1e-4, "atol": 1e-4}
    shares = probabilities(model, logits(model, pictures(), batch=3))
    torch.testing.assert_close(shares, scores(pictures()).softmax(1), **close)
    assert model.spec.image_size == SIZE
    assert (model.classes, model.head, model.differentiable) == (NAMES, "softmax", False)
    assert model.spec.output == ("probabilities" if case == "softmax" else "logits")
    import_model(ModelSource("folder", str(tmp_path / "out")), tmp_path / "copy")
    assert model_digest(tmp_path / "copy") == model_digest(tmp_path / "out")


@pytest.mark.parametrize(
    "text",
    ['["cat", "dog", "egg"]', '{"0": "cat", "2": "egg", "1": "dog"}', "{0: 'cat', 1: 'dog', 2: 'egg'}",
             "cat, dog, egg", "cat\ndog\negg"],
)  # fmt: skip
def test_class_names_in_the_metadata(tmp_path: Path, text: str) -> None:
    assert opened(tmp_path, metadata={"names": text}).classes == NAMES


def test_sigmoids_of_onnx(tmp_path: Path) -> None:
    onnx_file(tmp_path, after="Sigmoid")
    import_model(ModelSource("onnx", "net.onnx", classes=NAMES), tmp_path / "out", root=tmp_path)
    model = load_model(tmp_path / "out")
    assert (model.head, model.spec.output) == ("multilabel", "probabilities")
    torch.testing.assert_close(logits(model, pictures()), scores(pictures()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "fields", "message"),
    [
        ({}, {"classes": None}, "its metadata name no classes; say classes"),
        ({}, {"name": "other.onnx"}, "no such ONNX file"),
        ({}, {"classes": NAMES[:2]}, "3 classes, but 2 are named"),
        ({"size": ("h", "w")}, {}, "say image_size"),
        ({"index": True}, {}, "returns indices of classes"),
        ({}, {"image_size": (9, 9)}, "onnxruntime stopped"),
        ({"kind": "uint8"}, {"preprocessing": {"image_size": SIZE, "mean": 0.5}}, "takes pixels as they are"),
        ({"kind": "int64"}, {}, r"takes tensor\(int64\)"),
    ],
)
def test_onnx_that_cannot_be_used(
    tmp_path: Path, options: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    onnx_file(tmp_path, **options)
    source = ModelSource(**{"source": "onnx", "name": "net.onnx", "classes": NAMES, **fields})
    with pytest.raises(ModelError, match=message) as caught:
        import_model(source, tmp_path / "out", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_truncated_onnx_file(tmp_path: Path) -> None:
    file = onnx_file(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match="onnxruntime cannot load it"):
        import_model(ModelSource("onnx", "net.onnx", classes=NAMES), tmp_path / "out", root=tmp_path)


def test_what_a_black_box_cannot_do(tmp_path: Path) -> None:
    model = opened(tmp_path)
    for ask in (
        lambda: penultimate(model, pictures()),
        lambda: layers(model, SIZE),
        lambda: check_differentiable(model, SIZE),
        lambda: model(pictures().requires_grad_()),
    ):
        with pytest.raises(ModelError, match=r"is a black box \(onnx\), so .* cannot be had"):
            ask()
    with pytest.raises(ModelError, match="cannot be built anew"):
        build_model(model.spec)
    assert describe(model)["gradients"] == "no, a black box"


def test_a_black_box_that_does_not_answer_cannot_be_made() -> None:
    class Silent(BlackBox):
        kind = "silent"

    for silent in (BlackBox, Silent):
        with pytest.raises(TypeError, match="abstract method '?answer"):
            silent()


def test_http_answers_as_its_formula(tmp_path: Path, answering: Callable[..., Any]) -> None:
    with answering(served) as (url, sizes):
        source = ModelSource("http", url, classes=NAMES, image_size=SIZE, arguments={"batch": 4})
        import_model(source, tmp_path / "out")
        sizes.clear()
        model = load_model(tmp_path / "out")
        assert sizes == []
        torch.testing.assert_close(logits(model, pictures()), scores(pictures()), rtol=1e-4, atol=1e-4)
        assert sizes == [4, 1]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["spec.json"]
    assert len(model_digest(tmp_path / "out")) == 64
    assert model.classes == NAMES
    with pytest.raises(ModelError, match="no answer"):
        logits(model, pictures())


def test_probabilities_over_http(tmp_path: Path, answering: Callable[..., Any]) -> None:
    def shares(instances: list[str]) -> Any:
        z = torch.tensor(served(instances)["predictions"])
        return {"predictions": [[round(p, 4) for p in row] for row in z.softmax(1).tolist()]}

    with answering(shares) as (url, _):
        import_model(ModelSource("http", url, image_size=SIZE), tmp_path / "out")
        model = load_model(tmp_path / "out")
        found = probabilities(model, logits(model, pictures()))
    assert (model.spec.output, model.classes) == ("probabilities", ("0", "1", "2"))
    torch.testing.assert_close(found, scores(pictures()).softmax(1), rtol=0, atol=2e-4)


ANSWERS: dict[str, tuple[Any, int, str]] = {
    "an error": ({}, 500, "no answer .*500"),
    "no JSON": (b"<html>", 200, "not JSON with a list of predictions"),
    "another key": ({"outputs": []}, 200, "not JSON with a list"),
    "a list": ([[1, 2]], 200, "not JSON with a list"),
    "too few": ({"predictions": [[1, 2]]}, 200, "1 predictions for 12 pictures"),
    "no list": ({"predictions": {"a": 1}}, 200, "no list of predictions for 12 pictures"),
    "numbers": ({"predictions": [1.0] * 12}, 200, "not a list of finite numbers"),
    "NaN": (json.dumps({"predictions": [[float("nan"), 1.0]] * 12}).encode(), 200, "not a list of finite"),
    "text": ({"predictions": [["cat"]] * 12}, 200, "not a list of finite numbers"),
    "other lengths": ({"predictions": [[1, 2]] * 11 + [[1, 2, 3]]}, 200, "predictions differ in length"),
    "left open": ({"predictions": [[0.1, 0.2]] * 12}, 200, "say output: probabilities or output: logits"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_http_answers_that_cannot_be_used(tmp_path: Path, answering: Callable[..., Any], case: str) -> None:
    answer, status, message = ANSWERS[case]
    with (
        answering(lambda _: answer, status=status) as (url, _),
        pytest.raises(ModelError, match=f"{url}: .*{message}") as caught,
    ):
        import_model(ModelSource("http", url, image_size=SIZE), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_http_that_takes_too_long(tmp_path: Path, answering: Callable[..., Any]) -> None:
    import time

    def slow(instances: list[str]) -> Any:
        time.sleep(0.3)
        return served(instances)

    with answering(slow) as (url, _), pytest.raises(ModelError, match="no answer .*timed out"):
        import_model(ModelSource("http", url, image_size=SIZE, arguments={"timeout": 0.05}), tmp_path / "out")
    with pytest.raises(ModelError, match="'retries' is no argument"):
        import_model(ModelSource("http", url, image_size=SIZE, arguments={"retries": 2}), tmp_path / "out")


def test_an_http_spec_that_names_nothing(tmp_path: Path) -> None:
    spec = ModelSpec("http", NAMES, SIZE)
    with pytest.raises(ModelError, match="cannot be built anew"):
        build_model(spec)
    (tmp_path / "spec.json").write_text(
        json.dumps(
            {"architecture": "http", "classes": NAMES, "image_size": SIZE, "arguments": {"address": "x"}}
        )
    )
    with pytest.raises(ModelError, match="not a model that can be built"):
        load_model(tmp_path)
