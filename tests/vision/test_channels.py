"""The strongest channels: their formula by hand, planted channels, and pictures that excite them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import ModelSpec, build_model, evaluating, recording
from candling.vision.channels import channel_counts, strongest_channels, visualize_channels
from candling.vision.climbing import FOURIER, Climb
from candling.vision.priors import natural_prior


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Pooled(nn.Module):
    """Channels are averaged over places and weighed: what a channel carries can be said exactly."""

    def __init__(self, channels: int = 6, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(channels, classes)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.relu(self.body(images)).mean((2, 3)))
        return logits


def by_hand(model: Pooled, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Evidence (C,) of the rectified channels, and their activation (N, C), without a gradient."""
    with torch.no_grad():
        mean = model.body(images).clamp_min(0).mean((2, 3)).double()
    m, weight = mean.numpy(), model.head.weight.detach().double().numpy()
    logits = m @ weight.T + model.head.bias.detach().double().numpy()
    decided = weight[logits.argmax(1)] - weight.mean(0)
    carried = decided * (m - m.mean(0))
    share = np.maximum(carried, 0) * (m > m.mean(0)) / np.abs(carried).sum(1, keepdims=True)
    return share.mean(0), m


def test_evidence_is_what_a_linear_head_would_lose() -> None:
    model, images = Pooled(), noise(9, 3, 12, 10)
    expected, m = by_hand(model, images)
    found = strongest_channels(model, ["relu"], images, count=99, pictures=3, batch=4)
    assert [one.channel for one in found] == list(np.argsort(-expected, kind="stable"))
    for one in found:
        np.testing.assert_allclose(one.evidence, expected[one.channel], rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(one.over_average, one.evidence / expected.mean(), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(one.usual, m[:, one.channel].mean(), rtol=1e-5)
        order = np.argsort(-m[:, one.channel], kind="stable")[:3]
        assert one.pictures.tolist() == order.tolist()
        np.testing.assert_allclose(one.activations, m[order, one.channel], rtol=1e-5)
    assert sum(one.evidence for one in found) <= 1


def test_a_relu_that_writes_over_its_input_changes_nothing() -> None:
    """What is told of the convolution before it is of what the convolution returned."""
    model, images = Pooled(), noise(7, 3, 8, 8)
    ours = strongest_channels(model, ["body"], images)
    model.relu.inplace = False
    theirs = strongest_channels(model, ["body"], images)
    assert [(o.channel, o.evidence, o.usual) for o in ours] == [
        (o.channel, o.evidence, o.usual) for o in theirs
    ]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_and_bytes_change_nothing(batch: int) -> None:
    model = Pooled()
    images = (noise(8, 3, 9, 9) * 255).round().to(torch.uint8)
    whole = strongest_channels(model, ["relu"], images.float() / 255)
    told: list[tuple[int, int]] = []
    parts = strongest_channels(
        model, ["relu"], images, batch=batch, progress=lambda done, total: told.append((done, total))
    )
    assert [(o.channel, o.pictures.tolist()) for o in parts] == [
        (o.channel, o.pictures.tolist()) for o in whole
    ]
    np.testing.assert_allclose([o.evidence for o in parts], [o.evidence for o in whole], rtol=1e-4)
    assert told[-1] == (8, 8)
    assert len(told) == -(-8 // batch)


class Tokens(nn.Module):
    """Patches as tokens (N, tokens, units), then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Pooled()
        self.norm = nn.Identity()
        self.flat = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.inner.relu(self.inner.body(images)).flatten(2).transpose(1, 2))
        logits: Tensor = self.inner.head(self.flat(tokens.mean(1)))
        return logits


def test_tokens_and_units_are_read_as_maps_are() -> None:
    model, images = Tokens(), noise(6, 3, 8, 8)
    found = strongest_channels(model, ["inner.relu", "norm", "flat"], images, count=4)
    maps, tokens, units = found[:4], found[4:8], found[8:]
    assert [one.layer for one in found] == ["inner.relu"] * 4 + ["norm"] * 4 + ["flat"] * 4
    for other in (tokens, units):
        assert [o.channel for o in other] == [o.channel for o in maps]
        np.testing.assert_allclose([o.evidence for o in other], [o.evidence for o in maps], rtol=1e-4)


class Planted(nn.Module):
    """Channel 0 sees red, 1 green, 2 blue less red; 3 is faint and lit by few, and nothing depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.see.weight.copy_(
                torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 1], [0.0, 0, 0]])[:, :, None, None]
            )
            self.see.bias.zero_()
            self.head.weight.copy_(torch.tensor([[3.0, 0, 0, 0], [0, 0.4, 0, 0], [0, 0, 3, 0]]))
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        seen = self.see(images)
        bright = (images.mean((1, 2, 3), keepdim=True) > 0.9).float() * 1e-3
        seen = torch.cat([seen[:, :3], seen[:, 3:] + bright], 1)
        logits: Tensor = self.head(seen.mean((2, 3)))
        return logits


def colours() -> Tensor:
    """Four red, four green and four blue pictures, each a little brighter than the one before."""
    images = torch.zeros(12, 3, 8, 8)
    for row in range(12):
        images[row, row // 4] = 0.6 + 0.1 * (row % 4)
    return images


def test_planted_channels_come_first_with_their_pictures() -> None:
    found = strongest_channels(Planted(), ["see"], colours(), count=4, pictures=4)
    strength = {one.channel: one.evidence for one in found}
    assert {one.channel for one in found[:2]} == {0, 2}
    assert strength[1] > strength[3] == 0
    pictures = {one.channel: one.pictures.tolist() for one in found}
    assert pictures[0] == [3, 2, 1, 0]
    assert pictures[2] == [11, 10, 9, 8]


def test_the_optimised_picture_shows_what_its_channel_wants_and_says_how_far_it_got() -> None:
    model = Planted()
    found = strongest_channels(model, ["see"], colours(), count=2)
    settings = Climb("pixels", seeds=2, steps=48, starts=1, learning_rate=0.2, robustness="none")
    drawn = visualize_channels(model, found, natural_prior((16, 16)), settings)
    assert [[one.seed for one in rows] for rows in drawn] == [[0, 1], [0, 1]]
    for strong, rows in zip(found, drawn, strict=True):
        for one in rows:
            with recording(model, ["see"]) as seen, evaluating(model), torch.no_grad():
                model(one.image[None].float() / 255)
            value = seen["see"][0, strong.channel].mean()
            np.testing.assert_allclose(one.activation, value, rtol=1e-5)
            assert one.activation > strong.usual
    # Channel 2 is blue less red, and that is what its picture shows.
    (blue,) = (
        rows[0].image.float().mean((1, 2)) for o, rows in zip(found, drawn, strict=True) if o.channel == 2
    )
    assert blue[2] > blue[0] + 50


def test_a_row_does_not_depend_on_the_others() -> None:
    model = Planted()
    both = strongest_channels(model, ["see"], colours(), count=2)
    settings = Climb(parameterisation="fourier", seeds=1, steps=6, starts=1)
    prior = natural_prior((16, 16))
    together = visualize_channels(model, both, prior, settings)
    alone = visualize_channels(model, both[1:], prior, settings)
    assert (together[1][0].image.int() - alone[0][0].image.int()).abs().max() <= 1


def test_counts_of_channels() -> None:
    model = Tokens()
    layers = ["inner.body", "norm", "flat", "inner.head"]
    assert channel_counts(model, layers, (8, 8)) == {
        "inner.body": 6, "norm": 6, "flat": 6, "inner.head": 4
    }  # fmt: skip


class Detached(Pooled):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.relu(self.body(images)).mean((2, 3)).detach())
        return logits


@pytest.mark.parametrize(
    ("model", "layer", "words"),
    [
        (Pooled(), "bdoy", "no layer 'bdoy'; the nearest is 'body'"),
        (Tokens(), "inner", "'inner' was not called"),
        (Detached(), "body", "does not reach layer 'body'"),
    ],
)
def test_layers_that_cannot_be_looked_at(model: nn.Module, layer: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        strongest_channels(model, [layer], noise(4, 3, 8, 8))


def test_no_traces() -> None:
    model = build_model(ModelSpec("residual_cnn", ("a", "b", "c"), (16, 16), {"widths": [4, 6]}), seed=1)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = noise(5, 3, 16, 16)
    for layers in (["stages.0"], ["stages.0", "stages.7"]):
        try:
            found = strongest_channels(model, layers, images, count=1)
            visualize_channels(model, found, natural_prior((16, 16)), Climb(seeds=1, steps=1, starts=1))
        except ModelError:
            assert "stages.7" in layers
        assert all(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert images.grad is None
    assert not images.requires_grad


def test_opacity_is_refused() -> None:
    model = Planted()
    found = strongest_channels(model, ["see"], colours(), count=1)
    settings = Climb(parameterisation="fourier", seeds=1, steps=FOURIER.steps, alpha=True)
    with pytest.raises(ParamsError, match="no opacity"):
        visualize_channels(model, found, natural_prior((16, 16)), settings)
