"""Image classifiers in the format of transformers: a config, its weights, and never any code with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from candling.errors import ModelError
from candling.models.weights import differing, unwrapped

__all__ = ["fill_network", "hub_folder", "image_processor", "network_of", "quiet", "read_config"]

_CONFIGS = ["config.json", "preprocessor_config.json", "processor_config.json"]


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its report on what it loaded: what is wrong is told as an error."""
    from transformers.utils import logging as library

    logging: Any = library

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a folder, without the path that it was once loaded from.

    Raises
    ------
    ModelError
        If it is missing, names code, or is quantised.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{folder}: no config.json here; a transformers folder has one")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data["model_type"], str):
            raise TypeError("model_type is no name")
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{file}: not the config of a transformers model ({error})") from error
    for key, why in (("auto_map", "code of its own, which is never run"),
                     ("quantization_config", "quantised weights; save it as float32")):  # fmt: skip
        if key in data:
            raise ModelError(f"{file}: refused, {key} asks for {why}")
    return {key: value for key, value in data.items() if key != "_name_or_path"}


def image_processor(folder: Path) -> Mapping[str, Any] | None:
    """What the folder says of preprocessing, if anything: beside the config or, as MLflow lays it, around."""
    around = [folder, *sorted(path.parent for path in folder.parent.glob("components/*/*_config.json"))]
    for place in around:
        for name in _CONFIGS[1:]:
            file = place / name
            if file.is_file():
                try:
                    data = json.loads(file.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise ModelError(f"{file}: not JSON ({error})") from error
                inner = data.get("image_processor", data) if isinstance(data, dict) else None
                if not isinstance(inner, dict):
                    raise ModelError(f"{file}: not the config of an image processor")
                return inner
    return None


def network_of(config: Mapping[str, Any]) -> nn.Module:
    """The classifier that a config describes, with fresh weights in float32.

    Raises
    ------
    ModelError
        If transformers knows no image classifier of that type.
    """
    from transformers import CONFIG_MAPPING, AutoModelForImageClassification

    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        raise ModelError(f"model_type {kind!r} is none that the installed transformers knows; update it")
    with quiet():
        try:
            made = CONFIG_MAPPING[kind].from_dict(dict(config))
            made.dtype = torch.float32
            auto: Any = AutoModelForImageClassification
            network = auto.from_config(made, trust_remote_code=False)
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, ImportError) as error:
            first = " ".join(str(error).split())[:200]
            raise ModelError(f"model_type {kind!r}: no image classifier can be built ({first})") from error
    out: nn.Module = network.float().eval()
    return out


def fill_network(network: nn.Module, state: Mapping[str, Tensor], where: str) -> nn.Module:
    """The network with weights under the names of its file, which transformers maps onto its own.

    Raises
    ------
    ModelError
        If they do not fit.
    """
    kind: Any = type(network)
    with quiet():
        try:
            filled, info = kind.from_pretrained(
                None,
                config=network.config,
                state_dict=unwrapped(state),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
            )
        except (RuntimeError, ValueError, KeyError) as error:
            first = " ".join(str(error).split())[:200]
            raise ModelError(f"{where}: weights do not fit {kind.__name__!r}: {first}") from error
    shapes = {name: (was, should) for name, was, should in info["mismatched_keys"]}
    missing = sorted(set(info["missing_keys"]) - set(shapes))
    found = {name: torch.empty(was, device="meta") for name, (was, _) in sorted(shapes.items())}
    found |= {name: torch.empty(0, device="meta") for name in sorted(info["unexpected_keys"])}
    expected = {name: torch.empty(0, device="meta") for name in missing}
    expected |= {name: torch.empty(should, device="meta") for name, (_, should) in sorted(shapes.items())}
    difference = differing(found, expected)
    if difference or info["error_msgs"]:
        said = difference or str(info["error_msgs"][0])
        raise ModelError(f"{where}: weights do not fit {kind.__name__!r}: {said}")
    out: nn.Module = filled.eval()
    return out


def hub_folder(name: str, revision: str | None) -> Path:
    """The local copy of a repository on the Hugging Face hub, downloaded where it is not there.

    Raises
    ------
    ModelError
        If it cannot be had, as when offline.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    def fetch(*patterns: str) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*_CONFIGS, *patterns]))

    try:
        folder = fetch("model*.safetensors", "model.safetensors.index.json")
        if not any(folder.glob("*.safetensors")):
            folder = fetch("pytorch_model*.bin", "pytorch_model.bin.index.json")
    except (OSError, ValueError, HfHubHTTPError, RuntimeError) as error:
        first = " ".join(str(error).split())[:160]
        raise ModelError(
            f"transformers:{name}: no such folder, and the hub did not give it ({first}); name a local folder"
        ) from error
    return folder
