"""Weights of any form come back as the tensors that they are; what is code or damaged is refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from candling.errors import ModelError
from candling.models.weights import load_weights, read_weights
from tests.models.factories import Tiny
from tests.models.weight_forms import FORMS, State, as_safetensors, as_torch, sharded, state


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_network(tmp_path: Path, form: str) -> None:
    values = state()
    network = Tiny()
    load_weights(network, read_weights(FORMS[form](tmp_path, values)), where="w", name="tiny")
    assert all(torch.equal(tensor, values[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("write", [as_safetensors, as_torch])
def test_half_precision_becomes_float32(tmp_path: Path, dtype: torch.dtype, write: Any) -> None:
    values = state()
    path = write(lambda s: {n: t.to(dtype) for n, t in s.items()})(tmp_path, values)
    for name, tensor in read_weights(path).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, values[name].to(dtype).float())


def test_a_prefix_that_the_network_has_stays() -> None:
    network = nn.ModuleDict({"model": nn.Linear(2, 2)})
    values = {name: torch.full_like(tensor, 4) for name, tensor in network.state_dict().items()}
    load_weights(network, values, where="w", name="own")
    assert torch.equal(network.state_dict()["model.bias"], torch.full((2,), 4.0))


def test_counters_of_batches_may_be_absent() -> None:
    norm = nn.BatchNorm2d(3)
    values = {n: t + 1 for n, t in norm.state_dict().items() if n != "num_batches_tracked"}
    load_weights(norm, values, where="w", name="norm")
    assert torch.equal(norm.running_mean, torch.ones(3))  # type: ignore[arg-type]


class Code:
    """A pickle that does something when it is read: here, it tells."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(Code.folder),))

    folder: Path


def truncated(size: float, name: str = "w.pt", legacy: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        file = folder / name
        if name.endswith("safetensors"):
            save_file(state(), file)
        else:
            torch.save(state(), file, _use_new_zipfile_serialization=not legacy)
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * size)])
        return file

    return write


def saved(value: Any, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(value, folder / "w.pt", **options)
        return folder / "w.pt"

    return write


def pickled(folder: Path) -> Path:
    (folder / "w.pt").write_bytes(pickle.dumps({"a": Code()}))
    return folder / "w.pt"


def text(content: str, name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return write


def two_files(folder: Path) -> Path:
    for name in ("a.pt", "b.pt"):
        torch.save(state(), folder / name)
    return folder


def shard_gone(folder: Path) -> Path:
    index = sharded(folder, state())
    (folder / "model-1.safetensors").unlink()
    return index


def shard_short(folder: Path) -> Path:
    index = sharded(folder, state())
    save_file({}, folder / "model-1.safetensors")
    return index


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a whole module": (
        saved(nn.Linear(2, 2)),
        r"refused, this pickle holds code, torch\.nn\..*Linear, .*save",
    ),
    "a call": (saved({"a": Code()}), r"refused, this pickle holds code.*save its state_dict"),
    "a call, legacy": (saved([Code()], _use_new_zipfile_serialization=False), "refused, this pickle holds"),
    "a plain pickle": (pickled, "refused, this pickle holds code"),
    "no file": (lambda folder: folder / "w.pt", r"w\.pt: no such weights file"),
    "empty": (truncated(0), "truncated"),
    "truncated": (truncated(0.7), "truncated"),
    "truncated by a little": (truncated(0.99), "truncated"),
    "truncated, legacy": (truncated(0.9, legacy=True), "truncated"),
    "truncated safetensors": (truncated(0.8, "w.safetensors"), "not readable as safetensors"),
    "text": (text("hello", "w.pt"), "truncated, or not a file of weights"),
    "another ending": (text("{}", "w.h5"), "weights are read from .safetensors"),
    "no tensors": (saved({}), "holds no weights"),
    "a list": (saved([torch.zeros(2)]), "holds no weights"),
    "a number among tensors": (saved({"a": torch.zeros(2), "b": 3}), "b is not a tensor"),
    "two files": (two_files, r"holds 2 weights files \(a\.pt, b\.pt\)"),
    "an empty folder": (lambda folder: folder, "holds 0 weights files"),
    "no index": (text("[]", "model.safetensors.index.json"), "not an index of shards"),
    "an index that leaves": (
        text('{"weight_map": {"a": "../x.safetensors"}}', "model.safetensors.index.json"),
        "not an index of shards",
    ),
    "a shard that is gone": (shard_gone, r"the shard model-1\.safetensors, which is not there"),
    "a shard that lacks a tensor": (shard_short, "conv.weight.* not in the shard"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_get_one_sentence(tmp_path: Path, case: str) -> None:
    write, message = BAD[case]
    Code.folder = tmp_path / "ran"
    with pytest.raises(ModelError, match=message) as caught:
        read_weights(write(tmp_path))
    assert "\n" not in str(caught.value)
    assert not Code.folder.exists()


DIFFERENT: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (lambda s: {n: s[n] for n in s if n != "head.bias"}, r": missing head\.bias$"),
    "unexpected": (lambda s: {**s, "aux.bias": torch.zeros(1)}, r": unexpected aux\.bias$"),
    "another shape": (
        lambda s: {**s, "head.bias": torch.zeros(4)},
        r": size mismatch for head\.bias, \(4,\) in the file and \(3,\) in the network$",
    ),
    "all": (
        lambda s: {"x": torch.zeros(1)},
        r": missing conv\.weight, conv\.bias, head\.weight and 1 more; unexpected x$",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_differing_tensors_are_named(case: str) -> None:
    change, message = DIFFERENT[case]
    with pytest.raises(ModelError, match=f"^w.pt: weights do not fit 'tiny'{message}"):
        load_weights(Tiny(), change(state()), where="w.pt", name="tiny")
