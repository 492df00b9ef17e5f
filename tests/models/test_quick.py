"""A model that is made quicker says the same, and the one that it was made of stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import densenet121, mobilenet_v2, resnet18

from candling.models import Classifier, ModelSpec
from candling.models.quick import folded, quickened

CLASSES = ("one", "two", "three")


def settled(network: nn.Module) -> nn.Module:
    """With running statistics as of training, which those of a new network do not have."""
    torch.manual_seed(0)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(8, 3, 48, 48) * 3 - 1)
    return network.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("make", [mobilenet_v2, resnet18, densenet121])
def test_a_folded_network_says_the_same_and_the_first_is_as_it_was(make: object) -> None:
    network = settled(make(num_classes=3))  # type: ignore[operator]
    # Doubles, so that rounding takes no rectifier to its other side.
    model = Classifier(network, ModelSpec("it", CLASSES, (48, 48), mean=(0.4, 0.5, 0.6))).double()
    model.train()
    before, images = copy.deepcopy(model.state_dict()), torch.rand(4, 3, 48, 48, dtype=torch.float64)
    lean = folded(model, images[:2])
    assert isinstance(lean, Classifier)
    assert norms(lean) < norms(model) / 1.5
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    model.eval()
    images.requires_grad_()
    found, wanted = lean(images), model(images)
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(one[:, 1].sum(), images)[0] for one in (found, wanted)]
    torch.testing.assert_close(*slopes)


class Twice(nn.Module):
    """A network in which a convolution's output goes to its normalisation, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        found = self.convolution(images)
        return (self.norm(found) + found).mean((2, 3))


class Shared(nn.Module):
    """A network in which a convolution is used twice, with a normalisation for each."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.one, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.other(self.convolution(self.one(self.convolution(images)))).mean((2, 3))


class Deep(nn.Sequential):
    """A network of pictures that looks at them as volumes."""

    def __init__(self) -> None:
        super().__init__(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.AdaptiveAvgPool3d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = super().forward(images[:, :, None])
        return found


def test_volumes_are_folded_too() -> None:
    model, images = settled(Deep()), torch.rand(2, 3, 8, 8)
    lean = folded(model, images)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in lean.modules())
    torch.testing.assert_close(lean(images), model(images))


def hooked() -> nn.Module:
    first = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))  # its weight is made anew by a hook in each pass
    return nn.Sequential(first, nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Remembers(Twice):
    """A network that keeps what cannot be copied."""

    def forward(self, images: Tensor) -> Tensor:
        self.kept = self.norm(self.convolution(images))
        return self.kept.mean((2, 3))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("make", [hooked, Remembers])
def test_what_cannot_be_copied_or_changed_is_used_as_it_is(make: Callable[[], nn.Module]) -> None:
    model = make().train()
    model(torch.rand(4, 3, 16, 16))
    model.eval()
    assert folded(model, torch.rand(2, 3, 16, 16)) is model


@pytest.mark.parametrize("make", [Twice, Shared])
def test_what_cannot_be_folded_stays(make: type[nn.Module]) -> None:
    model = settled(make())
    assert folded(model, torch.rand(2, 3, 8, 8)) is model


class Busy(nn.Sequential):
    """A network that depends on numbers, which no tracer follows."""

    def forward(self, images: Tensor) -> Tensor:
        found = super().forward(images).mean((2, 3))
        return found if float(images.max()) < 9 else -found


def test_a_network_that_decides_by_numbers_is_folded_and_other_threads_do_not_mind() -> None:
    model = settled(Busy(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()))
    other, images = settled(resnet18(num_classes=3)), torch.rand(2, 3, 32, 32)
    with torch.no_grad(), ThreadPoolExecutor(2) as pool:
        running = [pool.submit(other, images) for _ in range(8)]
        lean = folded(model, images)
        answers = [one.result() for one in running]
        assert all(torch.equal(one, answers[0]) for one in answers)
        assert norms(lean) == 0
        torch.testing.assert_close(lean(images), model(images))


def test_a_network_without_norms_is_itself() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    assert folded(model, torch.rand(1, 3, 2, 2)) is model
    assert quickened(model, torch.rand(1, 3, 2, 2)) is model


def test_half_precision_is_near_and_answers_in_float32() -> None:
    network, images = settled(resnet18(num_classes=3)), torch.rand(4, 3, 48, 48)
    for model in (Classifier(network, ModelSpec("it", CLASSES, (48, 48))).eval(), network):
        quick = quickened(model, images[:2], "bfloat16")
        assert type(quick) is Classifier or model is network
        with torch.no_grad():
            found, wanted = quick(images), model(images)
        assert found.dtype == torch.float32
        assert not torch.equal(found, wanted)
        torch.testing.assert_close(found, wanted, atol=0.03 * float(wanted.abs().max()), rtol=0)
        assert model(images).equal(wanted)
