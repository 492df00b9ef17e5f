"""Networks by the name of their architecture, with fresh weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from candling.errors import ModelError
from candling.models.factories import call_factory, factory_digest
from candling.models.huggingface import network_of
from candling.models.spec import ModelSpec
from candling.vision.networks import ResidualCNN

__all__ = ["BLACK_BOXES", "build_network", "timm_network", "torchvision_network"]

BLACK_BOXES = ("onnx", "http")
_KNOWN = "'residual_cnn', 'torchvision:NAME', 'timm:NAME', 'transformers' or 'factory:MODULE:FUNCTION'"


def _check_name(name: str, known: Sequence[str], library: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ModelError(f"{library} has no classifier {name!r}{hint}")


def torchvision_network(name: str, outputs: int | None, arguments: Mapping[str, Any]) -> nn.Module:
    """A classifier of torchvision with fresh weights; `outputs` as many as it has by itself for None."""
    from torchvision import models  # type: ignore[import-untyped]

    _check_name(name, models.list_models(module=models), "torchvision")
    count = {} if outputs is None else {"num_classes": outputs}
    network: nn.Module = models.get_model(name, weights=None, **{**arguments, **count})
    return network.eval()


def timm_network(
    name: str, outputs: int | None, arguments: Mapping[str, Any], *, pretrained: bool = False
) -> nn.Module:
    """A classifier of timm."""
    try:
        import timm
    except ModuleNotFoundError as error:
        message = f"timm:{name}: needs timm; install it with `pip install 'candling[timm]'`"
        raise ModelError(message) from error
    if not name.startswith("hf"):
        _check_name(name.partition(".")[0], timm.list_models(), "timm")
    count = {} if outputs is None else {"num_classes": outputs}
    network: nn.Module = timm.create_model(name, pretrained=pretrained, **{**arguments, **count})
    return network.eval()


def build_network(spec: ModelSpec, *, root: Path = Path()) -> nn.Module:
    """The network of a spec; `root` is where a factory's module is looked for last.

    Raises
    ------
    ModelError
        If the architecture is not known, is a black box, or a factory is no longer what it was.
    """
    kind, _, name = spec.architecture.partition(":")
    outputs = 1 if spec.head == "binary" else len(spec.classes)
    if spec.architecture == "residual_cnn":
        return ResidualCNN(outputs, **spec.arguments)
    if kind == "torchvision" and name:
        return torchvision_network(name, outputs, spec.arguments)
    if kind == "timm" and name:
        return timm_network(name, outputs, spec.arguments)
    if spec.architecture == "transformers":
        return network_of(spec.arguments["config"])
    if kind == "factory" and name:
        if factory_digest(name, root=root) != spec.arguments["module_sha256"]:
            raise ModelError(f"factory {name!r}: its module was edited since; import the model again")
        return call_factory(name, spec.arguments["arguments"], root=root).float()
    if spec.architecture in BLACK_BOXES:
        raise ModelError(f"a model of {spec.architecture} cannot be built anew; load it from its folder")
    raise ModelError(f"architecture {spec.architecture!r} is not known; use {_KNOWN}")
