"""Reading what a model computes on the way: the outputs of named layers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from candling.errors import ModelError
from candling.models.classifier import Classifier
from candling.models.heads import first_tensor
from candling.models.running import refuse_black_box

__all__ = ["nearest", "recording"]


@contextmanager
def recording(model: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """What layers return: after each forward pass within the block, layer → output (N, …), differentiable.

    Of a tuple, list, dict or dataclass it is the first tensor. Where a module is called several times in a
    pass the last call counts, and where it is not called at all it has no entry. The hooks are gone when the
    block is left, also by an error or Ctrl-C; what was recorded stays.

    Parameters
    ----------
    model
        A `Classifier` or any other module.
    layers
        Dotted module paths, as `candling.models.layers` lists them: within the network that a `Classifier`
        holds.

    Raises
    ------
    ModelError
        If there is no such layer or the model is a black box; in the forward pass, if a layer returns no
        tensor.
    """
    wanted = dict.fromkeys(layers)
    if wanted:
        refuse_black_box(model, "what its layers return")
    network = model.network if isinstance(model, Classifier) else model
    # A module that stands at two places has two names.
    modules = {name: module for name, module in network.named_modules(remove_duplicate=False) if name}
    for name in wanted:
        if name not in modules:
            raise ModelError(f"the model has no layer {name!r}; {nearest(name, modules)}")
    seen: dict[str, Tensor] = {}

    def record(name: str, output: Any) -> None:
        if is_dataclass(output) and not hasattr(output, "values"):
            output = tuple(getattr(output, one.name) for one in fields(output))
        found = first_tensor(output)
        if found is None:
            raise ModelError(f"layer {name!r} returns {type(output).__name__} without a tensor")
        # A copy, because the next module may write over it, as torchvision's ReLUs do.
        seen[name] = found.clone()

    with ExitStack() as stack:
        for name in wanted:
            handle = modules[name].register_forward_hook(
                lambda module, inputs, output, name=name: record(name, output)
            )
            stack.callback(handle.remove)
        yield seen


def nearest(name: str, known: Iterable[str], shown: int = 12) -> str:
    """Which of the known names may have been meant, or the first few of them, as the end of a sentence."""
    names = list(known)
    folded = {one.casefold(): one for one in reversed(names)}
    found = [repr(folded[one]) for one in difflib.get_close_matches(name.casefold(), folded, cutoff=0.5)]
    if found:
        return f"the nearest {'is' if len(found) == 1 else 'are'} {', '.join(found)}"
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"there are {', '.join(map(repr, names[:shown])) or 'none'}{more}"
