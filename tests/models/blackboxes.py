"""One model as a black box: an ONNX file, and a server on loopback."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

SIZE = (6, 8)
NAMES = ("cat", "dog", "egg")
WEIGHT = np.array([[9, -7, 2], [-6, 8, 1], [3, 2, -9]], np.float32)


def scores(images: Tensor, outputs: int = 3) -> Tensor:
    """What the model in these tests is: the mean of each channel times a matrix."""
    return images.mean((2, 3)) @ torch.from_numpy(WEIGHT[:, :outputs])


def onnx_file(
    folder: Path,
    *,
    batch: int | str = "n",
    last: bool = False,
    after: str | None = None,
    outputs: int = 3,
    kind: str = "float32",
    metadata: dict[str, str] | None = None,
    beside: bool = False,
    extra: bool = False,
    index: bool = False,
    size: tuple[int | str, int | str] = SIZE,
) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    types = {"float32": 1, "float16": 10, "uint8": 2, "int64": 7}
    shape = [batch, *size, 3] if last else [batch, 3, *size]
    nodes = [helper.make_node("Cast", ["image"], ["float"], to=1)]
    if kind == "uint8":
        nodes += [helper.make_node("Mul", ["float", "scale"], ["unit"])]
    else:
        nodes += [helper.make_node("Identity", ["float"], ["unit"])]
    nodes += [
        helper.make_node("ReduceMean", ["unit"], ["mean"], axes=[1, 2] if last else [2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["z"]),
        helper.make_node(after or "Identity", ["z"], ["scores"]),
    ]
    out = [helper.make_tensor_value_info("scores", 1, [batch, outputs])]
    if index or extra:
        nodes += [helper.make_node("ArgMax", ["z"], ["label"], axis=1, keepdims=0)]
        out = [helper.make_tensor_value_info("label", 7, [batch]), *([] if index else out)]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", types[kind], shape)], out,
        [onnx.numpy_helper.from_array(WEIGHT[:, :outputs].copy(), "weight"),
         onnx.numpy_helper.from_array(np.float32(1 / 255), "scale")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    if beside:
        onnx.save(
            model, folder / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=0
        )
    else:
        onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def served(instances: list[str]) -> Any:
    """What the server answers: scores of the PNGs that it got."""
    arrays = [np.array(Image.open(io.BytesIO(base64.b64decode(text)))) for text in instances]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    return {"predictions": scores(images).tolist()}


@contextmanager
def answering(answer: Callable[[list[str]], Any], *, status: int = 200) -> Iterator[tuple[str, list[int]]]:
    """A server on loopback that answers each POST with what a function makes of its instances."""
    sizes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sizes.append(len(body["instances"]))
            answered = answer(body["instances"])
            data = answered if isinstance(answered, bytes) else json.dumps(answered).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is for their failures."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/predict", sizes
        finally:
            server.shutdown()
            thread.join()
