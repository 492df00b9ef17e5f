"""Integrated gradients, Grad-CAM and attention against identities and by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import VisionTransformer, mobilenet_v2
from transformers import ViTConfig, ViTForImageClassification

from candling.data import read_picture
from candling.errors import ModelError
from candling.models import ModelSpec, build_model, log_odds
from candling.vision.isolation import Attention, GradCAM, IntegratedGradients, isolate
from candling.vision.isolation.fills import filled
from candling.vision.isolation.gradients import attending
from tests.vision.isolation.models import noise


def cnn() -> nn.Module:
    return build_model(ModelSpec("residual_cnn", tuple("abcd"), (32, 32), {"widths": [4, 6]}), seed=1)


def odds(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    with torch.no_grad():
        return log_odds(model, model.eval()(images)).gather(1, classes)


# --- integrated gradients ----------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["blur", "grey"])
def test_integrated_gradients_are_complete(baseline: str) -> None:
    model, images = cnn(), noise(3, 3, 32, 32)
    classes = torch.tensor([[0, 1], [2, 3], [1, 0]])
    found = isolate(model, images, classes=classes, method=IntegratedGradients(baseline=baseline))
    base = filled(images, "blur") if baseline == "blur" else torch.full_like(images, 0.5)
    gained = odds(model, images, classes) - odds(model, base, classes)
    torch.testing.assert_close(found.maps.sum((2, 3)), gained, rtol=0.0101, atol=0)
    assert not found.notes


@pytest.mark.slow
def test_integrated_gradients_of_a_photograph_are_complete_to_one_per_cent() -> None:
    assets = Path(os.environ.get("CANDLING_ASSETS", "../shared/assets"))
    weights, photo = assets / "mobilenet_v2" / "model.safetensors", assets / "photos" / "photos" / "0001.jpg"
    photo = photo if photo.is_file() else assets / "photos" / "0001.jpg"
    if not (weights.is_file() and photo.is_file()):
        pytest.skip(f"needs MobileNetV2 and photographs in {assets}")
    model = mobilenet_v2()
    model.load_state_dict(load_file(weights))
    picture = F.interpolate(read_picture(photo)[None].float() / 255, (224, 224), mode="area")
    classes = torch.tensor([[1]])
    found = isolate(Normalised(model), picture, classes=classes, method=IntegratedGradients(), batch=4)
    network = Normalised(model)
    gained = odds(network, picture, classes) - odds(network, filled(picture, "blur"), classes)
    torch.testing.assert_close(found.maps.sum((2, 3)), gained, rtol=0.0101, atol=0)


class Normalised(nn.Module):
    """A network of pictures in [-1, 1], for pictures in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(2 * images - 1)
        return out


def test_a_linear_model_gets_its_weights_times_the_difference() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    images = noise(2, 3, 8, 8)
    found = isolate(
        model, images, classes=torch.tensor([[0], [1]]), method=IntegratedGradients(baseline="grey")
    )
    weights = (model[1].weight[0] - model[1].weight[1]).detach().view(3, 8, 8)
    expected = ((images - 0.5) * weights).sum(1)
    torch.testing.assert_close(found.maps[0, 0], expected[0], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found.maps[1, 0], -expected[1], atol=1e-5, rtol=1e-3)


def test_what_does_not_become_complete_is_said() -> None:
    method = IntegratedGradients(steps=1, most=1, tolerance=1e-6)
    found = isolate(cnn(), noise(2, 3, 32, 32), method=method)
    assert "of 6 maps add up" in found.notes[0]


# --- Grad-CAM ----------------------------------------------------------------------------------


def by_hand(network: nn.Sequential, cut: int, image: Tensor, target: int) -> Tensor:
    channels = network[:cut](image[None]).detach().requires_grad_()
    value = log_odds(network, network[cut:](channels))[0, target]
    (slope,) = torch.autograd.grad(value, channels)
    small = (slope.mean((2, 3), keepdim=True) * channels.detach()).sum(1, keepdim=True)
    return F.interpolate(small, image.shape[1:], mode="bilinear")[0, 0]


def plain() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(6, 5, 1), nn.Flatten(),
    )  # fmt: skip


def test_grad_cam_is_signed_and_of_the_last_convolution_with_places() -> None:
    model, images = plain(), noise(2, 3, 32, 32)
    classes = torch.tensor([[0, 4], [2, 1]])
    found = isolate(model, images, classes=classes, method="grad-cam")
    assert found.notes == ("Grad-CAM is of layer 2",)  # the last of all sees a single place
    for row in range(2):
        for k in range(2):
            expected = by_hand(model, 3, images[row], int(classes[row, k]))
            torch.testing.assert_close(found.maps[row, k], expected, atol=1e-5, rtol=1e-4)
    first = isolate(model, images, classes=classes, method=GradCAM(layer="0"))
    torch.testing.assert_close(first.maps[0, 0], by_hand(model, 1, images[0], 0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("layer", "said"), [("3x", "no layer '3x'"), ("6", r"layer '6' returns \(5,\)")])
def test_layers_that_grad_cam_cannot_use(layer: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        isolate(plain(), noise(1, 3, 32, 32), method=GradCAM(layer=layer))


def test_grad_cam_needs_a_convolution() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))
    with pytest.raises(ModelError, match="no convolution whose output has places"):
        isolate(model, noise(1, 3, 8, 8), method="grad-cam")


# --- attention ---------------------------------------------------------------------------------


def torchvision_vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model


def transformers_vit(how: str) -> nn.Module:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32,
        patch_size=8, num_labels=5, attn_implementation=how,
    )  # fmt: skip
    return ViTForImageClassification(config)


VITS = {
    "torchvision": torchvision_vit,
    "eager": lambda: transformers_vit("eager"),
    "sdpa": lambda: transformers_vit("sdpa"),
}


@pytest.mark.parametrize("kind", VITS)
def test_attention_that_is_read_changes_no_output_and_rows_sum_to_one(kind: str) -> None:
    model, images = VITS[kind]().eval(), noise(2, 3, 32, 32).requires_grad_()
    plain = model(images)
    with attending(model) as seen:
        read = model(images)
    plain, read = (one if isinstance(one, Tensor) else one.logits for one in (plain, read))
    torch.testing.assert_close(read, plain, atol=1e-5, rtol=1e-4)
    assert [tuple(one.shape) for one in seen] == [(2, 2, 17, 17)] * 2
    for weights in seen:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 17))


def test_eager_and_other_attention_give_the_same_maps() -> None:
    images, classes = noise(2, 3, 32, 32), torch.tensor([[0, 1], [4, 2]])
    eager, sdpa = (isolate(transformers_vit(how), images, classes=classes, method=Attention()).maps
                   for how in ("eager", "sdpa"))  # fmt: skip
    assert eager.std() > 0
    torch.testing.assert_close(eager, sdpa, atol=1e-7, rtol=1e-3)


def test_relevance_by_hand() -> None:
    model, image = torchvision_vit().eval(), noise(1, 3, 32, 32)
    found = isolate(model, image, classes=torch.tensor([[3]]), method="attention").maps[0, 0]
    with attending(model) as seen:
        slopes = torch.autograd.grad(log_odds(model, model(image))[0, 3], seen)
    relevance = torch.eye(17)
    for weights, slope in zip(seen, slopes, strict=True):
        heads = [(a * g).clamp_min(0) for a, g in zip(weights[0], slope[0], strict=True)]
        relevance = relevance + torch.stack(heads).mean(0) @ relevance
    expected = F.interpolate(relevance[0, 1:].detach().view(1, 1, 4, 4), (32, 32), mode="bilinear")[0, 0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_attention_of_a_model_without_any() -> None:
    with pytest.raises(ModelError, match="no attention between patches"):
        isolate(cnn(), noise(1, 3, 32, 32), method="attention")


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_the_way_attention_is_computed_is_put_back(kind: str) -> None:
    model = VITS[kind]()
    with pytest.raises(KeyboardInterrupt), attending(model):
        raise KeyboardInterrupt
    assert model.config._attn_implementation == kind
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
