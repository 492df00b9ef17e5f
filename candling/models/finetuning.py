"""A model with a new head: the network as it was trained, its last layer drawn anew for other classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from candling.errors import ModelError
from candling.models.classifier import Classifier
from candling.models.spec import ModelSpec
from candling.models.storage import build_model

__all__ = ["with_new_head"]


def with_new_head(
    model: Classifier, classes: Sequence[str], *, image_size: tuple[int, int] | None = None, seed: int = 0
) -> Classifier:
    """A copy of `model` for other classes: every tensor that has its shape still, the others from `seed`.

    Parameters
    ----------
    classes
        Names in the order of the new logits.
    image_size
        (height, width) that pictures are brought to from now on; None: as before.

    Raises
    ------
    ModelError
        If the model is a black box, comes from a factory, or has no weights in common with its copy.
    """
    kind = model.spec.architecture.partition(":")[0]
    if not model.differentiable or kind == "factory":
        raise ModelError(f"a model of {kind} cannot be given a new head; train it where it is made")
    spec = replace(
        model.spec, classes=tuple(classes), head="softmax", output="logits",
        arguments=_arguments(model.spec, classes), notes=(),
    )  # fmt: skip
    if image_size is not None:
        spec = replace(spec, image_size=image_size, resize=None)
    fresh = build_model(spec, seed=seed)
    trained, wanted = model.network.state_dict(), fresh.network.state_dict()
    kept = {name: t for name, t in trained.items() if name in wanted and wanted[name].shape == t.shape}
    if not kept:
        raise ModelError(f"{model.spec.architecture}: nothing of its weights fits a network of other classes")
    fresh.network.load_state_dict(wanted | kept)
    return fresh.to(next(model.parameters()).device)


def _arguments(spec: ModelSpec, classes: Sequence[str]) -> dict[str, Any]:
    """The constructor's arguments; transformers keep their classes there."""
    if spec.architecture != "transformers":
        return dict(spec.arguments)
    names = {str(k): name for k, name in enumerate(classes)}
    config = dict(spec.arguments["config"]) | {
        "id2label": names,
        "label2id": {name: int(k) for k, name in names.items()},
        "problem_type": None,
    }
    config.pop("num_labels", None)
    return dict(spec.arguments) | {"config": config}
