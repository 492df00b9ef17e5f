"""A model in words, for people."""

from __future__ import annotations

from candling.models.classifier import Classifier

__all__ = ["describe"]

_HEADS = {
    "softmax": "softmax over {count} classes",
    "binary": "binary, one output read as two logits",
    "multilabel": "multilabel, {count} independent sigmoids",
}
_OUTPUTS = {
    "logits": "logits",
    "probabilities": "probabilities, read as their logarithms",
}


def describe(model: Classifier) -> dict[str, str]:
    """What a model is, one line each.

    Keys: architecture, head, output, classes, image size, preprocessing, parameters, gradients, and notes
    where something was detected or assumed.
    """
    spec = model.spec
    count = sum(parameter.numel() for parameter in model.parameters())
    shown = " · ".join(spec.classes[:5]) + (f" … ({len(spec.classes)})" if len(spec.classes) > 5 else "")
    output = _OUTPUTS[spec.output]
    if spec.output == "probabilities" and spec.head != "softmax":
        output = "probabilities, read as their log-odds"
    text = {
        "architecture": spec.architecture,
        "head": _HEADS[spec.head].format(count=len(spec.classes)),
        "output": output,
        "classes": shown,
        "image size": f"{spec.image_size[0]}×{spec.image_size[1]}",
        "preprocessing": _preprocessing(model),
        "parameters": f"{count:,}" if model.differentiable else "not visible in a black box",
        "gradients": "yes" if model.differentiable else "no, a black box",
    }
    if spec.notes:
        text["notes"] = "; ".join(spec.notes)
    return text


def _preprocessing(model: Classifier) -> str:
    spec = model.spec
    height, width = spec.image_size
    if spec.resize is None:
        steps = [f"resize to {height}×{width} ({spec.interpolation})"]
    else:
        side = f"shortest side {spec.resize}" if isinstance(spec.resize, int) else \
            f"{spec.resize[0]}×{spec.resize[1]}"  # fmt: skip
        steps = [f"resize to {side} ({spec.interpolation})", f"cut the central {height}×{width}"]

    def numbers(values: tuple[float, ...]) -> str:
        return " ".join(f"{value:.4g}" for value in values)

    steps.append(f"subtract {numbers(spec.mean)}, divide by {numbers(spec.std)}")
    if spec.channels != "rgb":
        steps.append("mean over RGB" if spec.channels == "grey" else "BGR")
    return ", ".join(steps)
