"""Training: all draws from the seed, and a toy problem that it must solve."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from candling.models import Classifier, ModelSpec, build_model, logits
from candling.vision.training import Schedule, augment, train

SPEC = ModelSpec("residual_cnn", ("rows", "columns"), (16, 16), arguments={"widths": [6, 8]})
SHORT = Schedule(steps=6, batch=16)


def stripes(count: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Horizontal (0) and vertical (1) stripes of random phase, in noise: what no augmentation mixes up."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phase = torch.randint(0, 4, (count, 1), generator=generator)
    wave = ((torch.arange(16)[None] + phase) % 4 < 2).float()
    flat = torch.where(labels[:, None, None] == 0, wave[:, :, None], wave[:, None, :])
    noisy = 90 + 60 * flat[:, None] + 20 * torch.rand(count, 3, 16, 16, generator=generator)
    return noisy.to(torch.uint8), labels


def fit(schedule: Schedule = SHORT, *, seed: int = 0) -> Classifier:
    return train(build_model(SPEC), *stripes(), schedule, seed=seed)


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


# --- train -------------------------------------------------------------------------------------


def test_same_seed_same_weights_whatever_the_global_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fit()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal(first, fit())
    assert not equal(first, fit(seed=1))


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(steps=40, batch=32),
        Schedule(steps=40, batch=32, optimiser="sgd", learning_rate=0.1),
        Schedule(steps=40, batch=100, l1=0.1),
    ],
    ids=["adamw", "sgd", "batch larger than the data"],
)
def test_a_separable_toy_is_learnt(schedule: Schedule) -> None:
    images, labels = stripes(64, seed=9)
    fresh, trained = build_model(SPEC), fit(schedule)
    before, after = (nn.functional.cross_entropy(logits(m, images), labels) for m in (fresh, trained))
    assert after < 0.2 * before
    assert (logits(trained, images).argmax(1) == labels).float().mean() >= 0.95


def test_wrong_labels_are_learnt_as_well() -> None:
    images, labels = stripes()
    model = train(build_model(SPEC), images, 1 - labels, Schedule(steps=40, batch=32), seed=0)
    assert (logits(model, images).argmax(1) == labels).float().mean() <= 0.05


def test_l1_makes_weights_smaller() -> None:
    def size(model: nn.Module) -> float:
        weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim > 1])
        return float(weights.abs().mean())

    plain, sparse = (fit(Schedule(steps=40, batch=16, weight_decay=0, l1=l1)) for l1 in (0.0, 20.0))
    assert size(sparse) < 0.8 * size(plain)


def test_the_model_is_trained_in_place_and_handed_back_ready() -> None:
    model = build_model(SPEC)
    seen: list[tuple[int, int]] = []
    out = train(model, *stripes(), SHORT, seed=0, progress=lambda *step: seen.append(step))
    assert out is model
    assert not any(module.training for module in model.modules())
    assert all(p.is_contiguous() for p in model.parameters())
    assert seen == [(step, 6) for step in range(1, 7)]


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11])
def test_any_number_of_steps(steps: int) -> None:
    assert not equal(build_model(SPEC), fit(Schedule(steps=steps, batch=8, warmup=0.1)))


def test_frozen_parameters_stay() -> None:
    model = build_model(SPEC)
    frozen = model.network.get_parameter("head.weight").requires_grad_(False)
    free = model.network.get_parameter("head.bias")
    frozen_before, free_before = frozen.clone(), free.detach().clone()
    train(model, *stripes(), SHORT, seed=0)
    assert torch.equal(frozen, frozen_before)
    assert not torch.equal(free, free_before)


# --- augment -----------------------------------------------------------------------------------

STILL = {"shift": 0, "light": 0.0, "saturation": 0.0, "tint": 0.0, "noise": 0.0}


def noise(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 12, 18, generator=torch.Generator().manual_seed(0))


def drawn(images: Tensor, seed: int = 0, **options: float) -> Tensor:
    return augment(images, torch.Generator().manual_seed(seed), **options)


def test_augmented_pictures_keep_range_and_shape() -> None:
    for images in (noise(), torch.zeros(3, 3, 12, 18), torch.ones(3, 3, 12, 18)):
        copy = images.clone()
        out = drawn(images, light=0.9, tint=0.9, noise=0.3)
        assert out.shape == images.shape
        assert out.min() >= 0
        assert out.max() <= 1
        assert torch.equal(images, copy)


def test_augmentation_is_drawn_from_its_generator_for_each_picture() -> None:
    images = noise(1).expand(5, -1, -1, -1)
    first = drawn(images)
    assert torch.equal(first, drawn(images))
    assert not torch.equal(first, drawn(images, seed=1))
    distances = torch.cdist(first.flatten(1), first.flatten(1)) + torch.eye(5)
    assert distances.min() > 0.1


def test_without_spread_only_the_mirror_is_left() -> None:
    images = noise(40)
    out = drawn(images, **STILL)
    same = (out - images).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (out - images.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (same ^ mirrored).all()
    assert 8 <= same.sum() <= 32


def test_shifts_stay_within_their_limit_and_reach_it() -> None:
    images = torch.zeros(200, 3, 13, 13)
    images[:, :, 6, 6] = 1
    out = drawn(images, **{**STILL, "shift": 2})
    spots = out.mean(1).nonzero()
    assert torch.equal(spots[:, 0], torch.arange(200))
    moves = spots[:, 1:] - 6
    assert moves.amin(0).tolist() == [-2, -2]
    assert moves.amax(0).tolist() == [2, 2]


def test_edges_are_repeated() -> None:
    images = torch.full((20, 3, 9, 9), 0.5)
    torch.testing.assert_close(drawn(images, **{**STILL, "shift": 8}), images)


def test_tint_keeps_to_its_spread() -> None:
    ratio = drawn(torch.full((300, 3, 4, 4), 0.5), **{**STILL, "tint": 0.2}).mean((2, 3)) / 0.5
    assert 0.8 - 1e-5 <= ratio.min() < 0.83
    assert 1.17 < ratio.max() <= 1.2 + 1e-5
    assert ((ratio - ratio.mean(1, keepdim=True)).abs().amax(1) > 0.01).float().mean() > 0.9
