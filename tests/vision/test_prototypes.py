"""Prototypes: planted classifiers get what they read, and a row does not depend on its neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.errors import ModelError
from candling.models import ModelSpec, build_model, logits
from candling.vision.prototypes import (
    MACO,
    Prior,
    fit_prior,
    generate_prototypes,
    object_similarity,
)

SHORT = replace(MACO, seeds=2, steps=15)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int = 40, side: int = 24) -> Tensor:
    """Soft blobs of colour with a little grain."""
    coarse = F.interpolate(noise(count, 3, 4, 4), size=(side, side), mode="bilinear")
    return (0.15 + 0.7 * coarse + 0.05 * noise(count, 3, side, side, seed=1)).clamp(0, 1)


@pytest.fixture(scope="module")
def prior() -> Prior:
    return fit_prior(pictures())


def network() -> nn.Module:
    return build_model(ModelSpec("residual_cnn", ("a", "b", "c"), (24, 24), {"widths": [4, 6]}), seed=1)


class ReadsColour(nn.Module):
    """Logit c = 10 (mean of channel c - mean of the others)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = 10 * (1.5 * torch.eye(3) - 0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((2, 3)))


# --- generate_prototypes -----------------------------------------------------------------------


class Asleep(nn.Module):
    """Logit 1 falls as red rises, to a plateau without gradient; beyond a ridge of green it climbs freely."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1)

    def forward(self, images: Tensor) -> Tensor:
        green = images[:, 1].mean((1, 2)) - images[:, 0].mean((1, 2))
        climbs = 40 * F.relu(green - 0.01)
        return torch.stack([torch.zeros_like(green), climbs - 0.1], 1)


def test_a_start_without_gradient_is_left_for_one_that_climbs(prior: Prior) -> None:
    alone = replace(SHORT, seeds=12, steps=40, starts=1)
    stuck = generate_prototypes(Asleep(), [1], prior, settings=alone).logits[:, 1]
    assert (stuck < 0).any(), "the case shows nothing if no start is without gradient"
    found = generate_prototypes(Asleep(), [1], prior, settings=replace(alone, starts=8))
    assert (found.logits[:, 1] > stuck.max() / 2).all()
    assert len({tuple(row.flatten().tolist()) for row in found.images}) == 12


def test_a_classifier_of_colours_gets_its_colours(prior: Prior) -> None:
    model = ReadsColour()
    found = generate_prototypes(model, [0, 2], prior, settings=replace(MACO, seeds=3, steps=50))
    assert found.images.shape == (6, 3, 24, 24)
    assert found.classes.tolist() == [0, 0, 0, 2, 2, 2]
    assert found.seeds.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.images.dtype == torch.uint8
    assert found.steps.tolist() == [50] * 6
    channels = (found.images / 255).mean((2, 3))
    typical = pictures().mean((2, 3))
    margin = channels - (channels.sum(1, keepdim=True) - channels) / 2
    spread = (typical - (typical.sum(1, keepdim=True) - typical) / 2).std(0)
    own = margin.gather(1, found.classes[:, None])[:, 0]
    assert (own > 1.0 * spread[found.classes]).all()
    assert (channels.argmax(1) == found.classes).all()
    torch.testing.assert_close(found.logits, logits(model, found.images))
    assert found.probability.shape == (6, 7)
    assert (found.probability > 1 / 3).all()
    by_mirror = found.logits.softmax(1).gather(1, found.classes[:, None])[:, 0]  # a mirror moves no colour
    torch.testing.assert_close(found.probability[:, 0], by_mirror)


def test_optimising_raises_the_logit(prior: Prior) -> None:
    model = network()
    start, end = (
        generate_prototypes(model, [0, 1, 2], prior, settings=replace(SHORT, steps=steps, learning_rate=rate))
        for steps, rate in ((1, 1e-6), (40, 0.15))
    )
    gain = (end.logits - start.logits).gather(1, end.classes[:, None])
    assert (gain > 0).all()


def test_starts_are_distinct(prior: Prior) -> None:
    found = generate_prototypes(network(), [0, 1], prior, settings=SHORT)
    images = found.images.flatten(1) / 255
    distances = torch.cdist(images, images) + 9 * torch.eye(4)
    assert distances.min() > 1


def test_a_row_does_not_depend_on_its_neighbours(prior: Prior) -> None:
    model = network()
    together = generate_prototypes(model, [2, 0, 1], prior, settings=replace(SHORT, seeds=3))
    for c, few in ((1, 1), (0, 2)):
        alone = generate_prototypes(model, [c], prior, settings=replace(SHORT, seeds=few))
        rows = [i for i in range(9) if together.classes[i] == c and together.seeds[i] < few]
        assert torch.equal(alone.images, together.images[rows])
        for name in ("logits", "probability"):
            found, expected = getattr(alone, name), getattr(together, name)[rows]
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_draws_leave_the_global_state_alone(prior: Prior) -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first = generate_prototypes(network(), [1], prior, settings=SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    again = generate_prototypes(network(), [1], prior, settings=SHORT)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.probability, again.probability)


def test_progress(prior: Prior) -> None:
    seen: list[tuple[int, int]] = []
    generate_prototypes(network(), [1], prior, settings=SHORT, progress=lambda *step: seen.append(step))
    # 8 starts climb 8 steps in each of two rows, and the best of each 15 more.
    total = 2 * 8 * 8 + 2 * 15
    counts = [done for done, _ in seen]
    assert counts == sorted(set(counts))
    assert counts[-1] == total
    assert {of for _, of in seen} == {total}


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(prior: Prior, fails: bool) -> None:
    model = network().train()
    model.get_submodule("network.stem").eval()
    model.get_parameter("network.head.bias").requires_grad_(False)
    if fails:
        with torch.no_grad():
            model.get_parameter("network.head.weight").fill_(torch.nan)

    def state() -> tuple[object, ...]:
        return (
            [m.training for m in model.modules()],
            [p.requires_grad for p in model.parameters()],
            [p.grad for p in model.parameters()],
            [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        )

    before, weights = state(), {name: t.clone() for name, t in model.state_dict().items()}
    if fails:
        with pytest.raises(ModelError, match="gradient of logit.*NaN"):
            generate_prototypes(model, [0], prior, settings=SHORT)
    else:
        generate_prototypes(model, [0], prior, settings=SHORT)
    assert state() == before
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0, equal_nan=True)


class Faulty(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.head = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "root of a negative":
            images = (images - 5).sqrt()
        elif self.how == "detached":
            images = images.detach()
        elif self.how == "constant":
            return torch.zeros(len(images), 3)
        return self.head(images.mean((2, 3)))


@pytest.mark.parametrize("how", ["root of a negative", "detached", "constant"])
def test_a_useless_gradient_is_an_error(prior: Prior, how: str) -> None:
    with pytest.raises(ModelError, match="NaN or does not reach the input"):
        generate_prototypes(Faulty(how), [0], prior, settings=SHORT)


def test_a_model_without_parameters(prior: Prior) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = generate_prototypes(model, [0], prior, settings=replace(SHORT, steps=3))
    torch.testing.assert_close(found.logits, (found.images / 255).mean((2, 3)))


# --- object_similarity -------------------------------------------------------------------------


class ReadsBoxes(nn.Module):
    """Features: mean colours of the given rows and columns."""

    def __init__(self, *boxes: tuple[slice, slice]) -> None:
        super().__init__()
        self.boxes = boxes
        self.head = nn.Linear(3 * len(boxes), 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.cat([images[:, :, r, c].mean((2, 3)) for r, c in self.boxes], 1))


CORNER, MIDDLE = (slice(0, 6), slice(0, 6)), (slice(8, 16), slice(8, 16))


def test_object_similarity_knows_a_network_that_reads_the_object_from_a_blind_one() -> None:
    empty = pictures(30)
    with_object = empty.clone()
    with_object[:, :, *MIDDLE] = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1)
    showing, blank = with_object[:8], empty[:8]
    blind = object_similarity(ReadsBoxes(CORNER), showing, with_object, empty)
    assert blind.shape == (8,)
    assert (blind.abs() < 1e-5).all()
    reads = ReadsBoxes(CORNER, MIDDLE)
    assert object_similarity(reads, showing, with_object, empty).median() > 0.25
    assert object_similarity(reads, blank, with_object, empty).median() < 0


def test_object_similarity_by_hand() -> None:
    rows, full, empty = noise(3, 3, 24, 24), noise(5, 3, 24, 24, seed=1), noise(5, 3, 24, 24, seed=2)
    model = ReadsBoxes(CORNER, MIDDLE)

    def features(images: Tensor) -> np.ndarray:
        x = images.double().numpy()
        return np.concatenate([x[:, :, r, c].mean((2, 3)) for r, c in (CORNER, MIDDLE)], 1)

    a, b = features(full), features(empty)
    centre = np.concatenate([a, b]).mean(0)

    def cosine(u: np.ndarray, v: np.ndarray) -> float:
        u, v = u - centre, v - centre
        return float(u @ v / np.sqrt(u @ u * (v @ v)))

    expected = [
        np.mean([cosine(p, x) for x in a]) - np.mean([cosine(p, x) for x in b]) for p in features(rows)
    ]
    assert object_similarity(model, rows, full, empty).tolist() == pytest.approx(expected, abs=1e-4)
