"""Networks that tests name as a user would: ``factory:tests.models.factories:…``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput


class Tiny(nn.Module):
    """A convolution, a pool, a linear layer; `after` is what is done to its scores."""

    def __init__(self, outputs: int = 3, channels: int = 3, after: str = "none") -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 5, 3)
        self.head = nn.Linear(5, outputs)
        self.after = after

    def scores(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return out

    def forward(self, x: Tensor) -> object:
        return AFTER[self.after](self.scores(x))


@dataclass
class Answer:
    features: Tensor
    logits: Tensor


@dataclass
class Unnamed:
    loss: float
    counts: Tensor
    out: Tensor


class Pair(NamedTuple):
    aux: Tensor
    logits: Tensor


AFTER = {
    "none": lambda z: z,
    "softmax": lambda z: z.softmax(1),
    "sigmoid": lambda z: z.sigmoid(),
    "own sigmoid": lambda z: 1 / (1 + (-z).exp()),
    "log softmax": lambda z: z.log_softmax(1),
    "flat": lambda z: z[:, 0],
    "flat sigmoid": lambda z: z.sigmoid()[:, 0],
    "spatial": lambda z: z[:, :, None, None],
    "tuple": lambda z: (z, z[:, :1] * 0),
    "list": lambda z: [z],
    "named tuple": lambda z: Pair(z * 0, z),
    "dict": lambda z: {"features": z * 0, "logits": z},
    "dict of scores": lambda z: {"boxes": z[:, :, None] * 0, "scores": z},
    "dict of probs": lambda z: {"label": z.argmax(1), "probs": z.softmax(1)},
    "dict without names": lambda z: {"label": z.argmax(1), "mask": z[0], "out": z},
    "dataclass": lambda z: Answer(z * 0, z),
    "dataclass without names": lambda z: Unnamed(0.0, z.argmax(1, keepdim=True), z),
    "model output": lambda z: ImageClassifierOutput(logits=z),
    "argmax": lambda z: z.argmax(1),
    "detached": lambda z: z.detach(),
    "rounded": lambda z: z.round(),
    "sequence": lambda z: z[:, None, :].expand(-1, 4, -1),
    "nothing": lambda z: "three",
    "nan": lambda z: z * torch.nan,
    # Logits that lie in [0, 1] for any picture.
    "small": lambda z: 0.3 + 0.2 * z.tanh(),
    "short": lambda z: z[:1],
}


def tiny(outputs: int = 3, channels: int = 3, after: str = "none") -> nn.Module:
    """Fresh weights from whatever the random state is; larger than usual, so that classes differ."""
    network = Tiny(outputs, channels, after)
    with torch.no_grad():
        network.head.weight.mul_(6)
    return network


def half(outputs: int = 3) -> nn.Module:
    """In half precision."""
    return Tiny(outputs).half()


def of_library(library: str, name: str, **arguments: Any) -> nn.Module:
    """A network of torchvision, timm or transformers, or our own, as a function of one's own gives it."""
    if library == "torchvision":
        import torchvision

        return cast(nn.Module, torchvision.models.get_model(name, **arguments))
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False, **arguments)
    if library == "transformers":
        import transformers

        config = getattr(transformers, f"{name}Config")(**arguments)
        return cast(nn.Module, getattr(transformers, f"{name}ForImageClassification")(config))
    from candling.vision.networks import ResidualCNN

    return ResidualCNN(**arguments)


class ChannelMeans(nn.Module):
    """The mean of each channel times a matrix: what the black boxes of the tests are inside."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ self.weight


CALLS = iter(range(1000))


def moody() -> nn.Module:
    """Another network each time, in what is no weight."""
    network = Tiny()
    network.register_buffer("shift", torch.tensor(float(next(CALLS))), persistent=False)
    plain = network.scores
    network.scores = lambda x: plain(x) + network.shift * torch.arange(3)  # type: ignore[method-assign]
    return network


def not_a_module() -> int:
    """What a factory must not return."""
    return 3


def fails() -> nn.Module:
    """Raises."""
    raise LookupError("no\nweights")
