"""Weights from disk, as tensors and never as code."""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from candling.errors import ModelError

__all__ = ["differing", "fit_weights", "load_weights", "read_weights", "unwrapped"]

_PICKLED = (".pt", ".pth", ".th", ".bin", ".ckpt")
_INDEX = ".index.json"
# Where training scripts put the weights in what they save, and what wrappers put before each name.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema")
_PARALLEL = ("module.", "_orig_mod.")
_PREFIXES = (*_PARALLEL, "model.", "network.")
# Names of files in a folder that holds weights, the safest first.
_KNOWN = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json",
          "pytorch_model.bin")  # fmt: skip


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, floating ones as float32, on the processor.

    Parameters
    ----------
    path
        safetensors; a ``.index.json`` of shards; a ``.pt``, ``.pth``, ``.th``, ``.bin`` or ``.ckpt`` of
        tensors alone; or a folder that holds one of these.

    Raises
    ------
    ModelError
        If it is missing or truncated, holds code, or holds no tensors.
    """
    file = _find(path) if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"{file}: no such weights file")
    state = _read_shards(file) if file.name.endswith(_INDEX) else _read_file(file)
    return {name: _plain(tensor) for name, tensor in state.items()}


def _find(folder: Path) -> Path:
    for name in _KNOWN:
        if (folder / name).is_file():
            return folder / name
    found = sorted(
        file for file in folder.rglob("*") if file.is_file() and file.suffix in (".safetensors", *_PICKLED)
    )
    if len(found) != 1:
        names = ", ".join(str(file.relative_to(folder)) for file in found[:3]) or "none"
        raise ModelError(f"{folder}: holds {len(found)} weights files ({names}); name one")
    return found[0]


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(names.values()))
        if not files or any(Path(name).name != name for name in files):
            raise ValueError("weight_map names files that do not lie beside it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: not an index of shards ({error})") from error
    state: dict[str, Tensor] = {}
    for name in files:
        if not (index.parent / name).is_file():
            raise ModelError(f"{index}: names the shard {name}, which is not there")
        state |= _read_file(index.parent / name)
    absent = sorted(set(names) - set(state))
    if absent:
        raise ModelError(f"{index}: {_some(absent)} not in the shard that it names")
    return state


def _read_file(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file}: not readable as safetensors ({error})") from error
    if file.suffix not in _PICKLED:
        raise ModelError(
            f"{file}: weights are read from .safetensors, {', '.join(_PICKLED)} or a folder with one of them"
        )
    return _unwrap(_unpickle(file), file)


def _unpickle(file: Path) -> Any:
    """What `file` holds, if that is nothing but data."""
    advice = "save its state_dict, best as safetensors, and name that"
    try:
        # The warnings are about other ways to load it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # CUDA storages are mapped, so that the machine needs no GPU.
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"(?:GLOBAL|global:?|function) (\w+(?:\.\w+)+)", str(error))
        if code is None and not _is_pickle(file):
            raise ModelError(f"{file}: truncated, or not a file of weights") from error
        named = "" if code is None else f", {code[1]},"
        raise ModelError(
            f"{file}: refused, this pickle holds code{named} and not only tensors; {advice}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if "TorchScript" in str(error):
            raise ModelError(f"{file}: refused, a TorchScript archive holds code; {advice}") from error
        raise ModelError(f"{file}: truncated, or not a file of weights") from error


def _is_pickle(file: Path) -> bool:
    """Whether `file` is a whole pickle; its operations are listed and not run."""
    with file.open("rb") as opened:
        try:
            return sum(1 for _ in pickletools.genops(opened)) > 0
        except (ValueError, UnicodeError):
            return False


def _unwrap(data: Any, file: Path) -> dict[str, Tensor]:
    """The dict of tensors within what a training script saved."""
    while isinstance(data, Mapping) and not (data and all(isinstance(v, Tensor) for v in data.values())):
        inner = next((data[key] for key in _WRAPPERS if isinstance(data.get(key), Mapping)), None)
        if inner is None:
            break
        data = inner
    if not isinstance(data, Mapping) or not data:
        raise ModelError(f"{file}: holds no weights; save a state_dict, best as safetensors")
    strange = sorted(str(name) for name, value in data.items() if not isinstance(value, Tensor))
    if strange:
        raise ModelError(f"{file}: {_some(strange)} not a tensor; save a state_dict, best as safetensors")
    return {str(name): value for name, value in data.items()}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.detach()


def fit_weights(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """`state` under the names of `network`: prefixes that wrappers put before all names are taken off.

    A prefix stays where the network itself has it. Counters of batches, which evaluation does not use and
    old files do not have, are taken from the network.
    """
    expected = network.state_dict()
    best = dict(state)
    stripped = best
    while True:
        prefix = next((p for p in _PREFIXES if stripped and all(n.startswith(p) for n in stripped)), None)
        if prefix is None:
            break
        stripped = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
        if len(stripped.keys() & expected.keys()) > len(best.keys() & expected.keys()):
            best = stripped
    for name, tensor in expected.items():
        if name not in best and name.endswith("num_batches_tracked"):
            best[name] = tensor
    return best


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without what DataParallel and torch.compile put before all names."""
    out = dict(state)
    for prefix in (*_PARALLEL, *_PARALLEL):
        if out and all(name.startswith(prefix) for name in out):
            out = {name.removeprefix(prefix): tensor for name, tensor in out.items()}
    return out


def load_weights(network: nn.Module, state: Mapping[str, Tensor], *, where: str, name: str) -> None:
    """Put `state` into `network`, all of it.

    Raises
    ------
    ModelError
        If a tensor is missing, unexpected or of another shape; the sentence names the first ones.
    """
    fitted, expected = fit_weights(state, network), network.state_dict()
    difference = differing(fitted, expected)
    if difference:
        raise ModelError(f"{where}: weights do not fit {name!r}: {difference}")
    network.load_state_dict(fitted)


def differing(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """How `state` differs from `expected`, in words; empty where it fits."""
    parts = []
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    if missing:
        parts.append(f"missing {_some(missing, verb=False)}")
    if unexpected:
        parts.append(f"unexpected {_some(unexpected, verb=False)}")
    shapes = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if shapes:
        first = shapes[0]
        more = f" and {len(shapes) - 1} more" if len(shapes) > 1 else ""
        parts.append(
            f"size mismatch for {first}, {tuple(state[first].shape)} in the file and "
            f"{tuple(expected[first].shape)} in the network{more}"
        )
    return "; ".join(parts)


def _some(names: list[str], *, verb: bool = True) -> str:
    """The first names of a list, and how many more there are."""
    text = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{text} {'is' if len(names) == 1 else 'are'}" if verb else text
