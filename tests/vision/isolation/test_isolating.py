"""One way in: what every method keeps to, and what is said of what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from candling.errors import CandlingError, DataError, ModelError, ParamsError
from candling.models import MemoryRanOut, log_odds
from candling.models.blackbox import BlackBox
from candling.vision.isolation import METHODS, Hierarchical, Mask, Windows, isolate, method_named
from candling.vision.preflight import as_scores
from tests.vision.isolation.models import noise

QUICK: dict[str, dict[str, Any]] = {
    "hierarchical": {"depths": 2},
    "mask": {"steps": 4, "cells": 6, "areas": (0.2,)},
    "windows": {"side": 16},
    "integrated-gradients": {"steps": 4, "most": 4},
    "grad-cam": {},
    "attention": {},
}


class Everything(nn.Module):
    """Convolutions and attention, three classes; raises what it is told to at its n-th pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.vit = VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=3)
        nn.init.normal_(self.vit.heads.head.weight)
        self.extra = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 3, 3, 2))
        self.passes = 0
        self.fails_at: int | None = None
        self.error: BaseException = RuntimeError("broken")
        self.room = 10**6

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        if self.fails_at is not None and self.passes >= self.fails_at:
            raise self.error
        if len(images) > self.room:
            raise MemoryError
        out: Tensor = self.vit(images) + self.extra(images).mean((2, 3))
        return out


def state(model: nn.Module) -> list[Any]:
    """All that a method could leave changed."""
    return [
        *((name, one.training, len(one._forward_hooks), len(one._forward_pre_hooks), len(one._backward_hooks))
          for name, one in model.named_modules()),
        *((name, one.requires_grad, one.dtype, one.stride(), one.grad)
          for name, one in model.named_parameters()),
    ]  # fmt: skip


def mixed() -> Everything:
    model = Everything().train()
    model.extra.eval()
    model.extra[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_finite_maps_and_leaves_no_trace(name: str) -> None:
    model = mixed()
    before, images = state(model), noise(2, 3, 32, 32)
    copy = images.clone()
    with torch.no_grad():
        found = isolate(model, images, method=method_named(name, **QUICK[name]))
    assert state(model) == before
    assert torch.equal(images, copy)
    assert not images.requires_grad
    assert found.maps.shape == (2, 3, 32, 32)
    assert found.maps.dtype == torch.float32
    assert not found.maps.requires_grad
    assert torch.isfinite(found.maps).all()
    assert found.maps.std() > 0
    assert type(found.method) is METHODS[name]
    with torch.no_grad():
        scored = model.eval()(images)
    assert torch.equal(found.classes, scored.topk(3, 1).indices)
    expected = log_odds(model, scored).gather(1, found.classes)
    torch.testing.assert_close(found.odds, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
@pytest.mark.parametrize("name", METHODS)
def test_no_trace_is_left_when_a_pass_is_cut_off(name: str, error: BaseException) -> None:
    for fails_at in (2, 3):
        model = mixed()
        model.fails_at, model.error = fails_at, error
        before = state(model)
        with pytest.raises((type(error), CandlingError)):
            isolate(model, noise(2, 3, 32, 32), method=method_named(name, **QUICK[name]))
        assert state(model) == before


@pytest.mark.parametrize("name", METHODS)
def test_memory_that_runs_out_changes_nothing(name: str) -> None:
    images, method = noise(3, 3, 32, 32), method_named(name, **QUICK[name])
    whole = isolate(Everything(), images, method=method, batch=16)
    tight = Everything()
    tight.room = 3
    with pytest.warns(MemoryRanOut):
        again = isolate(tight, images, method=method, batch=16)
    torch.testing.assert_close(again.maps, whole.maps, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("name", METHODS)
def test_uint8_is_taken(name: str) -> None:
    images = (noise(1, 3, 32, 32) * 255).byte()
    method = method_named(name, **QUICK[name])
    whole = isolate(Everything(), images.float() / 255, method=method)
    assert torch.equal(isolate(Everything(), images, method=method).maps, whole.maps)


# --- probabilities -----------------------------------------------------------------------------


class Then(nn.Module):
    """What another model returns, through a function."""

    def __init__(self, model: nn.Module, function: Any) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.function(self.model(images))
        return out


def test_probabilities_are_noticed_and_give_the_same_maps() -> None:
    images, method = noise(2, 3, 32, 32), Windows(side=16)
    whole = isolate(Everything(), images, method=method)
    found = isolate(Then(Everything(), lambda out: out.softmax(1)), images, method=method)
    torch.testing.assert_close(found.maps, whole.maps, atol=1e-3, rtol=1e-2)
    assert "returns probabilities" in found.notes[0]
    assert not any("probabilities" in note for note in whole.notes)


def test_sigmoids_and_single_outputs_are_read_as_what_they_are() -> None:
    images = noise(4, 3, 32, 32)
    many, notes = as_scores(Then(Everything(), torch.sigmoid), (3, 32, 32), tuple("abc"))
    raw = Everything().eval()(images).detach()
    found = log_odds(many, many.eval()(images)).detach()
    torch.testing.assert_close(found, raw, atol=1e-3, rtol=1e-3)
    assert "come from a sigmoid" in notes[0]
    single, notes = as_scores(Then(Everything(), lambda out: out[:, :1]), (3, 32, 32))
    found = log_odds(single, single.eval()(images)).detach()
    torch.testing.assert_close(found[:, 1], raw[:, 0], atol=1e-5, rtol=1e-4)
    assert "single output" in notes[-1]


def test_logits_are_left_alone() -> None:
    model = Everything()
    assert as_scores(model, (3, 32, 32)) == (model, ())


# --- bad input ---------------------------------------------------------------------------------


class Closed(BlackBox):
    kind = "http"

    def answer(self, images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3))
        return torch.stack([10 * mean, -10 * mean], 1)


GOOD = noise(2, 3, 32, 32)
BAD: dict[str, tuple[dict[str, Any], type[CandlingError], str]] = {
    "above": ({"images": GOOD * 255}, DataError, r"image 0 has values from .* before any normalisation"),
    "below": ({"images": GOOD - torch.tensor([0.0, 1]).view(2, 1, 1, 1)}, DataError, "image 1 has values"),
    "nan": ({"images": GOOD / torch.zeros(1)}, DataError, "image 0 has"),
    "shape": ({"images": GOOD[0]}, DataError, r"must be a tensor \(N, C, H, W\).*not \(3, 32, 32\)"),
    "none": ({"images": GOOD[:0]}, DataError, "one picture at least"),
    "integers": ({"images": torch.ones(1, 3, 32, 32, dtype=torch.int32)}, DataError, "not torch.int32"),
    "size": ({"images": noise(1, 3, 40, 40)}, ModelError, "does not take a picture of 3 × 40 × 40"),
    "class": ({"classes": torch.tensor([[0], [3]])}, ParamsError, "no class 3; the model has 3, 0 to 2"),
    "classes": ({"classes": torch.tensor([0, 1])}, ParamsError, r"of shape \(2, K\)"),
    "method": ({"method": "grad-camm"}, ParamsError, "no method 'grad-camm'; the nearest is 'grad-cam'"),
    "kind": ({"method": 3}, ParamsError, "a method is a name or one of Hierarchical"),
    "donors": ({"method": Windows(donors=noise(2, 3, 8, 8))}, ParamsError, "donors are of shape"),
    "batch": ({"batch": -1}, ParamsError, "one row at least"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_one_sentence(case: str) -> None:
    changes, kind, said = BAD[case]
    model = mixed()
    before = state(model)
    with pytest.raises(kind, match=said) as caught:
        isolate(model, **{"images": GOOD, **changes})
    assert "\n" not in str(caught.value)
    assert state(model) == before


@pytest.mark.parametrize("name", ["mask", "integrated-gradients", "grad-cam", "attention"])
def test_a_black_box_has_no_gradients(name: str) -> None:
    with pytest.raises(ModelError, match="black box"):
        isolate(Closed(), GOOD, method=name)


def test_a_black_box_is_isolated_without_gradients() -> None:
    found = isolate(Closed(), GOOD, method=Hierarchical(depths=1))
    assert torch.isfinite(found.maps).all()


def test_settings_that_a_method_does_not_have() -> None:
    with pytest.raises(ParamsError, match="Mask has no setting 'area'; the nearest are 'areas', 'spread'"):
        method_named("mask", area=0.1)
    assert method_named(Mask(steps=3), cells=9) == Mask(steps=3, cells=9)
    assert method_named("Grad_CAM", layer="a") == METHODS["grad-cam"](layer="a")
