"""Weights in every form that they are found in on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.models.factories import Tiny

State = dict[str, Tensor]


def state() -> State:
    torch.manual_seed(3)
    return Tiny().state_dict()


def prefixed(prefix: str, values: State) -> State:
    return {prefix + name: tensor for name, tensor in values.items()}


def as_torch(make: Callable[[State], Any], name: str = "w.pt") -> Callable[[Path, State], Path]:
    def write(folder: Path, values: State) -> Path:
        torch.save(make(values), folder / name)
        return folder / name

    return write


def as_safetensors(make: Callable[[State], State]) -> Callable[[Path, State], Path]:
    def write(folder: Path, values: State) -> Path:
        save_file(make(values), folder / "w.safetensors")
        return folder / "w.safetensors"

    return write


def sharded(folder: Path, values: State) -> Path:
    names = sorted(values)
    placed = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(names)}
    for file in set(placed.values()):
        save_file({name: values[name] for name in names if placed[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder / "model.safetensors.index.json"


def in_folder(folder: Path, values: State) -> Path:
    (folder / "deep").mkdir()
    torch.save(values, folder / "deep" / "data.pth")
    return folder


def from_cuda(folder: Path, values: State) -> Path:
    """A legacy file whose storages say that they lay on a GPU."""
    file = folder / "w.pt"
    torch.save(values, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    # Strings of a pickle carry their length before them.
    old, new = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    assert old in content
    file.write_bytes(content.replace(old, new))
    return file


FORMS: dict[str, Callable[[Path, State], Path]] = {
    "safetensors": as_safetensors(dict),
    "sharded safetensors": sharded,
    "a folder of shards": lambda folder, values: sharded(folder, values).parent,
    "a folder with one file": in_folder,
    "storages of a GPU": from_cuda,
    "legacy": lambda folder, values: (
        torch.save(values, folder / "w.th", _use_new_zipfile_serialization=False) or folder / "w.th"
    ),
    **{suffix: as_torch(dict, f"w{suffix}") for suffix in (".pt", ".pth", ".th", ".bin", ".ckpt")},
    **{
        wrapper: as_torch(
            lambda values, wrapper=wrapper: {"epoch": 3, wrapper: values, "optimizer": {"a": 1}}
        )
        for wrapper in ("state_dict", "model_state_dict", "model", "net", "ema")
    },
    "wrapped twice": as_torch(lambda values: {"model": {"state_dict": values}}),
    **{
        prefix: as_torch(lambda values, prefix=prefix: prefixed(prefix, values))
        for prefix in ("module.", "_orig_mod.", "model.", "network.", "_orig_mod.module.", "module.model.")
    },
    "parameters": as_torch(lambda values: {name: nn.Parameter(t) for name, t in values.items()}),
}
