"""Models in every form that a source can have, small enough for tests: each with its plain module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from candling.models import ModelSource, ModelSpec, build_model, save_model
from tests.models.factories import Tiny

SIZE = (32, 32)
GREY = {"image_size": 32, "mean": [0.2, 0.3, 0.4], "std": [0.5, 0.6, 0.7]}
NAMES = ("cat", "dog", "egg")

# A source within a folder, and the plain module.
Made = tuple[ModelSource, nn.Module]


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A plain module in eval mode whose outputs differ between classes and pictures."""
    torch.manual_seed(4)
    network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def torchvision_made(name: str, **arguments: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        network = seeded(lambda: torchvision.models.get_model(name, num_classes=3, **arguments))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():  # statistics of pictures, lest all outputs be alike
            network.train()(torch.rand(8, 3, *SIZE, generator=torch.Generator().manual_seed(1)))
        network.eval()
        save_file(network.state_dict(), folder / "w.safetensors")
        return ModelSource("torchvision", name, "w.safetensors", NAMES, GREY, arguments=arguments), network

    return make


def timm_made(name: str, **arguments: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        timm = pytest.importorskip("timm")
        network = seeded(lambda: timm.create_model(name, pretrained=False, num_classes=3, **arguments))
        torch.save({"state_dict": network.state_dict()}, folder / "w.pth")
        return ModelSource("timm", name, "w.pth", NAMES, GREY, arguments=arguments), network

    return make


TINY = "tests.models.factories:tiny"
LABELS = {"id2label": {"0": "cat", "1": "dog", "2": "egg"}, "label2id": {"cat": 0, "dog": 1, "egg": 2}}
CONFIGS: dict[str, dict[str, Any]] = {
    "ViT": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
            "image_size": 32, "patch_size": 8},
    "ConvNext": {"hidden_sizes": [4, 6, 8, 8], "depths": [1, 1, 1, 1], "image_size": 32},
    "Swin": {"image_size": 32, "patch_size": 4, "embed_dim": 6, "depths": [1, 1], "num_heads": [1, 2],
             "window_size": 4},
    "ResNet": {"embedding_size": 6, "hidden_sizes": [6, 8], "depths": [1, 1], "layer_type": "basic"},
}  # fmt: skip


def transformers_network(kind: str, **more: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**CONFIGS[kind], **LABELS, **more})
    return seeded(lambda: getattr(transformers, f"{kind}ForImageClassification")(config))


def transformers_made(kind: str, form: str = "safetensors", **more: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        network = transformers_network(kind, **more)
        if form == "bin":
            network.config.save_pretrained(folder / "m")
            torch.save(network.state_dict(), folder / "m" / "pytorch_model.bin")
        else:
            network.save_pretrained(folder / "m", max_shard_size="10KB" if form == "sharded" else "1GB")
            assert (len(list((folder / "m").glob("*.safetensors"))) > 1) == (form == "sharded")
        return ModelSource("transformers", "m", preprocessing=GREY), network

    return make


def factory_made(name: str = "tiny", **arguments: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        network = seeded(lambda: Tiny(**arguments))
        torch.save({"module." + key: value for key, value in network.state_dict().items()}, folder / "w.pt")
        source = ModelSource(
            "factory", f"tests.models.factories:{name}", "w.pt", NAMES, GREY, arguments=arguments
        )
        return source, network

    return make


def ours(folder: Path) -> Made:
    spec = ModelSpec("residual_cnn", NAMES, SIZE, {"widths": [4, 6]}, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    model = build_model(spec, seed=2)
    save_model(model, folder / "m")
    return ModelSource.parse("m"), model.network


SOURCES: dict[str, Callable[[Path], Made]] = {
    "ours": ours,
    "torchvision resnet18": torchvision_made("resnet18"),
    "torchvision mobilenet_v2": torchvision_made("mobilenet_v2"),
    "torchvision squeezenet": torchvision_made("squeezenet1_1"),
    "timm ResNet": timm_made("test_resnet"),
    "timm ViT": timm_made("test_vit", img_size=32),
    "timm ConvNeXt": timm_made("test_convnext"),
    **{f"transformers {kind}": transformers_made(kind) for kind in CONFIGS},
    "transformers in shards": transformers_made("ViT", "sharded"),
    "transformers as a .bin": transformers_made("ConvNext", "bin"),
    "factory": factory_made(),
    "factory of half precision": factory_made("half", outputs=3),
    **{f"factory returning a {after}": factory_made(after=after)
       for after in ("tuple", "dict", "dataclass", "named tuple", "model output")},
}  # fmt: skip
