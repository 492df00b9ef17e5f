"""Models as data: a folder with `spec.json` and the weights it speaks of.

Nothing in the folder is ever executed, and nothing outside of it is needed: no hub and no network, but for
models that are an address, and a factory's module, which a person named.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from candling.errors import ModelError
from candling.models.blackbox import BlackBox, HttpNetwork, OnnxNetwork
from candling.models.classifier import Classifier
from candling.models.networks import build_network
from candling.models.spec import ModelSpec, read_spec, spec_text
from candling.models.weights import load_weights

__all__ = ["build_model", "load_model", "save_model"]


def build_model(spec: ModelSpec, *, seed: int = 0, root: Path = Path()) -> Classifier:
    """A model with fresh weights drawn from `seed`; the global random state is left as it was.

    Parameters
    ----------
    root
        Where the module of a factory is looked for, after the path.

    Raises
    ------
    ModelError
        If the architecture is not one that candling knows, or a black box.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch's, which seeds accelerators too
        network = build_network(spec, root=root)
    return Classifier(network, spec).eval()


def save_model(model: Classifier, folder: Path) -> None:
    """Write `spec.json` and, as the model needs, `model.safetensors` or `model.onnx` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model.network, BlackBox):
        model.network.save(folder)
    else:
        save_file(_state(model.network), folder / "model.safetensors")
    (folder / "spec.json").write_text(spec_text(model.spec), encoding="utf-8")


def _state(network: nn.Module) -> dict[str, Tensor]:
    """Tensors that share no memory, which safetensors would refuse."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in network.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        pointer = plain.untyped_storage().data_ptr()
        state[name] = plain.clone() if pointer in seen else plain
        seen.add(pointer)
    return state


def load_model(folder: Path | str, *, device: str | torch.device = "cpu", root: Path = Path()) -> Classifier:
    """Load the model in `folder`, in eval mode.

    Parameters
    ----------
    root
        Where the module of a factory is looked for, after the path.

    Raises
    ------
    ModelError
        If a file is missing or truncated, the spec describes no network, or the weights do not fit it.
    """
    folder = Path(folder)
    spec = read_spec(folder)
    if spec.architecture in ("onnx", "http"):
        return _load_black_box(folder, spec).to(device)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"{folder}: no model.safetensors here")
    try:
        state = load_file(weights, device=str(device))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights}: not readable as safetensors ({error})") from error
    try:
        model = build_model(spec, root=root).to(device)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder / 'spec.json'}: not a model that can be built ({error})") from error
    load_weights(model.network, state, where=str(weights), name=spec.architecture)
    return model


def _load_black_box(folder: Path, spec: ModelSpec) -> Classifier:
    try:
        network = OnnxNetwork(folder / "model.onnx") if spec.architecture == "onnx" else \
            HttpNetwork(**spec.arguments)  # fmt: skip
        return Classifier(network, spec).eval()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder / 'spec.json'}: not a model that can be built ({error})") from error
