"""On a GPU: pictures are brought to the model, and results come back to where the pictures were."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from candling.models import Classifier, ModelSpec, logits
from candling.models.running import penultimate
from candling.models.storage import build_model
from candling.vision.isolations import isolate
from candling.vision.training import Schedule, train

GPU = torch.device("cuda")
SPEC = ModelSpec("residual_cnn", ("a", "b"), (32, 32))

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture
def strict() -> Iterator[None]:
    """Convolutions in whole float32: cuDNN rounds to TF32 otherwise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(body, nn.Linear(8, 2)).eval()


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.usefixtures("strict")
def test_pictures_of_the_cpu_are_brought_to_the_model(network: nn.Module, pictures: torch.Tensor) -> None:
    moved = copy.deepcopy(network).to(GPU)
    for asked in (logits, penultimate):
        found = asked(moved, pictures)
        assert found.device.type == "cpu"
        assert torch.allclose(found, asked(network, pictures), atol=1e-4)


def test_isolation_takes_pictures_of_either_device(network: nn.Module, pictures: torch.Tensor) -> None:
    network.to(GPU)
    for given in (pictures, pictures.to(GPU)):
        assert isolate(network, given, [0, 1]).sheet().size[0] > 100


def test_training_runs_where_the_model_is(network: nn.Module, pictures: torch.Tensor) -> None:
    model = Classifier(network, SPEC).to(GPU)
    data = (pictures * 255).byte()
    train(model, data, torch.arange(6) % 2, Schedule(steps=2, batch=4), seed=0)
    assert {p.device.type for p in model.parameters()} == {GPU.type}


def test_seeding_a_new_model_leaves_the_state_of_the_gpu() -> None:
    torch.cuda.manual_seed(5)
    expected = torch.rand(3, device=GPU)
    torch.cuda.manual_seed(5)
    build_model(SPEC)
    assert torch.equal(torch.rand(3, device=GPU), expected)
