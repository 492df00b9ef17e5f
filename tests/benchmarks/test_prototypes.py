"""The benchmark's own arithmetic: rates, budgets, what counts as a step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from benchmarks.peers.common import Watched, count_hooks, drop_hooks, floor, over_floor, steps_of
from benchmarks.prototypes import Curve, affordable, rate_ratio, seconds_to


@pytest.mark.parametrize(
    ("level", "seconds"),
    [(0.1, 1.0), (0.2, 1.0), (0.35, 1.5), (0.5, 2.0), (0.7, 3.4), (0.9, 4.0), (0.91, None)],
)
def test_seconds_to_reads_a_curve(level: float, seconds: float | None) -> None:
    # Between the second and the third point it falls: what counts is when a level is first reached.
    points = [(1.0, 0.2), (2.0, 0.5), (2.5, 0.4), (4.0, 0.9)]
    found = seconds_to(points, level)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_rate_ratio_takes_the_fastest_peer_at_each_level() -> None:
    ours = [(1.0, 0.6), (2.0, 0.95)]
    peers = {"early": [(3.0, 0.6)], "late": [(8.0, 0.85)]}
    found = rate_ratio(ours, peers)
    assert [(level, name) for level, name, _ in found] == [(0.5, "early"), (0.8, "late"), (0.85, "late")]
    # Before a tool's first budget nothing is known, so that it is never faster than that.
    assert found[0][2] == pytest.approx(3.0)
    assert found[1][2] == pytest.approx(8.0 / (1 + 0.2 / 0.35))


def test_rate_ratio_is_nothing_where_a_peer_gets_further() -> None:
    assert rate_ratio([(1.0, 0.4)], {"peer": [(50.0, 0.7)]}) == [(0.5, "peer", 0.0), (0.7, "peer", 0.0)]


def test_rate_ratio_of_a_curve_with_itself_is_one() -> None:
    curve = Curve((4, 8), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.2, 0.8], [0.4, 1.0]]))
    assert curve.points() == [(2.0, pytest.approx(0.3)), (3.0, pytest.approx(0.9))]
    assert curve.points(1) == [(3.0, pytest.approx(0.4)), (4.0, 1.0)]
    ratios = [ratio for _, _, ratio in rate_ratio(curve.points(), {"same": curve.points()})]
    assert ratios == pytest.approx([1.0] * 3)


def test_affordable() -> None:
    assert affordable([64, 4, 16], 0.5, 10) == [4, 16]
    assert affordable([64, 4, 16], 5.0, 10) == [4]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.body(images)
        return out


def climbing(model: nn.Module, steps: int = 6) -> None:
    """As a tool does it: steps of one shape, one smaller before, and a look without a gradient between."""
    for size in (8, *[12] * steps):
        images = torch.rand(2, 3, size, size).contiguous(memory_format=torch.channels_last)
        images.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            model(images).sum().backward()
        with torch.no_grad():
            model(images)


def test_steps_are_noted_as_the_tool_takes_them() -> None:
    watched = Watched(Small().requires_grad_(False))
    climbing(watched)
    like, seconds, count = steps_of(watched.calls)
    assert like.shape == (2, 3, 12, 12)
    assert (like.autocast, like.format) == (torch.bfloat16, torch.channels_last)
    assert like.weights is torch.contiguous_format
    # Six steps of this shape, two of them to warm up: three intervals, from one's beginning to the next's.
    began = [call.began for call in watched.calls if call.gradient and call.shape == like.shape][2:]
    assert count == 3
    assert seconds == pytest.approx((began[-1] - began[0]) / 3)


def test_too_few_steps_are_not_timed() -> None:
    watched = Watched(Small().requires_grad_(False))
    climbing(watched, steps=3)
    with pytest.raises(RuntimeError, match="too few steps"):
        steps_of(watched.calls)


def test_the_floor_leaves_the_model_as_it_was() -> None:
    model = Small().requires_grad_(False)
    rows = over_floor(model, climbing, 2)
    assert len(rows) == 2
    assert all(row["step"] > 0 and row["floor"] > 0 and math.isfinite(row["step"]) for row in rows)
    assert rows[0]["autocast"] == "bfloat16"
    watched = Watched(model.to(memory_format=torch.channels_last))
    climbing(watched)
    like, _, _ = steps_of(watched.calls)
    model.to(memory_format=torch.contiguous_format)
    assert floor(model, like, 2) > 0
    weight = next(model.parameters())
    assert weight.is_contiguous()
    assert weight.grad is None


def test_hooks_are_counted_and_dropped() -> None:
    model = Small()
    assert count_hooks(model) == 0
    model.body.register_forward_hook(lambda *_: None)
    model.body[0].register_forward_pre_hook(lambda *_: None)
    model.body[0].register_full_backward_hook(lambda *_: None)
    assert count_hooks(model) == 3
    drop_hooks(model)
    assert count_hooks(model) == 0
