"""Climbing: a row is what it is alone, leaves when it has climbed enough, and leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import ModelSpec, build_model, logits
from candling.vision import regularisers
from candling.vision.climbing import (
    FOURIER,
    Climb,
    Climbed,
    Row,
    climb,
    parameterise,
    row_generator,
    sizes,
)
from candling.vision.objectives import Objective, channel, logit, neuron
from candling.vision.priors import Prior, natural_prior
from candling.vision.prototypes import generate_prototypes
from candling.vision.transforms import ROBUSTNESS, move, moves

ONE_SIZE = ((1.0, 1.0),)
PLAIN = Climb(
    parameterisation="fourier", seeds=1, steps=12, starts=1, heat=8, contrast=0.05, fall=0.0, limit=None,
    robustness="s", growth=ONE_SIZE,
)  # fmt: skip
SIDE = 24
CPU = torch.device("cpu")


def network(side: int = SIDE) -> nn.Module:
    return build_model(ModelSpec("residual_cnn", ("a", "b", "c"), (side, side), {"widths": [4, 6]}), seed=1)


def run(
    model: nn.Module,
    rows: Sequence[Row],
    settings: Climb = PLAIN,
    *,
    side: int = SIDE,
    prior: Prior | None = None,
    batch: int | None = None,
    start: Tensor | None = None,
) -> list[Climbed]:
    found: dict[int, Climbed] = {}
    prior = prior or natural_prior((side, side))
    climb(model, rows, prior, settings, batch=batch, start=start, finished=found.__setitem__)
    return [found[i] for i in range(len(rows))]


def apart(one: Climbed, other: Climbed) -> int:
    return int((one.image.int() - other.image.int()).abs().max())


class Passes:
    """What a model is called with: whole passes, rows without the grey that fills them up, and sides."""

    def __init__(self, model: nn.Module) -> None:
        self.whole: list[int] = []
        self.counts: list[int] = []
        self.sides: list[int] = []
        self.images: list[Tensor] = []
        self.handle = model.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].requires_grad:  # not when it is asked whether it takes a size
            images = inputs[0].detach()
            rows = images[(images != 0.5).flatten(1).any(1)].clone()
            assert torch.equal(images[: len(rows)], rows), "grey comes last"
            self.whole.append(len(images))
            self.counts.append(len(rows))
            self.sides.append(images.shape[2])
            self.images.append(rows)


def test_row_generators_differ_by_what_they_are() -> None:
    names = [("a", 0, 1), ("a", 1, 0), ("b", 0, 1), ("a", 0, 1)]
    draws = [torch.rand(3, generator=row_generator(*name)).tolist() for name in names]
    assert draws[0] == draws[3]
    assert len({tuple(draw) for draw in draws}) == 3


RATES = {"fourier": 0.5, "maco": 0.3, "pixels": 0.2}  # the longest strides, for a few steps


def contrast_of(images: Tensor, prior: Prior) -> Tensor:
    """Root mean square (R,) of the decorrelated colours around the prior's mean."""
    planes = torch.einsum("ij,njhw->nihw", torch.linalg.inv(prior.colours), torch.logit(images) - prior.mean)
    return planes.square().mean((1, 2, 3)).sqrt()


@pytest.mark.parametrize(
    ("parameterisation", "limit"),
    [("fourier", None), ("maco", None), ("pixels", None), ("fourier", 0.4), ("pixels", 0.4), ("maco", 0.1)],
)
def test_a_row_is_a_plain_loop_of_adam(parameterisation: str, limit: float | None) -> None:
    settings = replace(PLAIN, parameterisation=parameterisation, limit=limit)
    model, prior = network(), natural_prior((SIDE, SIDE))
    generator = row_generator("row", str(logit(2)), 5)
    made = parameterise(prior, settings)
    drawn = made.draw(generator, 1).requires_grad_()
    optimiser = torch.optim.Adam([drawn], lr=RATES[parameterisation], betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    model.eval()
    expected, held = [], 0
    for draws in moves(generator, settings.steps):
        seen = move(made.render(drawn), draws[None], ROBUSTNESS["s"])
        expected.append(seen.detach())
        drawn.grad = torch.autograd.grad(-model(seen)[0, 2], drawn)[0]
        optimiser.step()
        rate.step()
        contrast = float(contrast_of(made.render(drawn.detach()), prior))
        if limit is not None and contrast > limit and parameterisation != "maco":
            drawn.data.mul_(limit / contrast)
            held += 1
    assert held > (0 if limit and parameterisation != "maco" else -1)
    last = (made.render(drawn.detach())[0] * 255).round().to(torch.uint8)
    passes = Passes(model)
    (found,) = run(model, [Row(logit(2), 5)], settings)
    assert found.steps == settings.steps
    assert len(passes.images) == settings.steps
    # All that the model sees is the same to rounding, in each step.
    torch.testing.assert_close(torch.cat(passes.images), torch.cat(expected), atol=1e-5, rtol=0)
    assert (found.image.int() - last.int()).abs().max() <= 1
    first = made.render(made.draw(row_generator("row", str(logit(2)), 5)))
    assert (found.image / 255 - first[0]).abs().max() > 0.02, "and it has climbed"


GROWING = ((2 / 3, 0.5), (1.0, 0.5))


@pytest.mark.parametrize(
    ("parameterisation", "growth", "starts"),
    [
        ("fourier", ONE_SIZE, 1),
        ("fourier", ONE_SIZE, 4),
        ("maco", ONE_SIZE, 1),
        ("pixels", ONE_SIZE, 1),
        ("pixels", ONE_SIZE, 4),
        ("fourier", GROWING, 1),
        ("fourier", GROWING, 4),
        ("maco", GROWING, 1),
        ("pixels", GROWING, 1),
        ("maco", GROWING, 3),
    ],
)
def test_a_row_does_not_depend_on_neighbours_or_order_or_batch(
    parameterisation: str, growth: tuple[tuple[float, float], ...], starts: int
) -> None:
    side = 96 if growth == GROWING else 24
    settings = replace(
        PLAIN, parameterisation=parameterisation, growth=growth, steps=6, starts=starts, heat=2, fall=0.35,
        limit=0.5,
    )  # fmt: skip
    rows = [Row(logit(i % 3), i // 3) for i in range(9 if growth == GROWING else 33)]
    model = network(side)
    alone = run(model, rows[4:5], settings, side=side)[0]
    for batch in (7, 32):
        order = list(reversed(rows))
        found = run(model, order, settings, side=side, batch=batch)[order.index(rows[4])]
        assert found.steps == alone.steps == 6
        assert apart(found, alone) == 0
        assert found.score == alone.score


@pytest.mark.parametrize("change", [{}, {"precision": "bfloat16"}, {"starts": 3, "heat": 2}, {"alpha": True}])
def test_a_row_of_a_large_network_is_what_it_is_alone(change: dict[str, Any]) -> None:
    # Its sums are rounded otherwise in batches of another size, and a climb makes pictures of that which
    # have nothing in common.
    model = build_model(ModelSpec("torchvision:mobilenet_v2", tuple("abcdefghij"), (96, 96)), seed=1)
    settings = replace(FOURIER, **{"starts": 1, "steps": 16, **change})
    rows = [Row(logit(i % 10), i // 10) for i in range(33)]
    (alone,) = run(model, rows[4:5], settings, side=96)
    seven = run(model, rows[:7], settings, side=96, batch=7)
    assert apart(alone, seven[4]) == 0
    if not change:
        every = run(model, rows[::-1], settings, side=96, batch=32)[::-1]
        for place in range(7):
            assert apart(every[place], seven[place]) == 0
            assert every[place].score == seven[place].score


def test_the_result_tells_rows_apart() -> None:
    rows = [Row(logit(0), 0), Row(logit(0), 1), Row(logit(1), 0)]
    found = run(network(), rows)
    assert min(apart(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 20


@pytest.mark.parametrize(("side", "seen"), [(24, 8), (127, 8), (128, 4)])
def test_the_model_sees_as_many_at_a_time_whatever_the_batch(side: int, seen: int) -> None:
    model = network(side)
    for rows, batch, counts in [
        (1, 32, [1] * 2),
        (10, seen, ([seen] * 2) * (10 // seen) + [10 % seen] * 2),
        # Rows at a time are whole passes.
        (10, seen - 1, ([seen] * 2) * (10 // seen) + [10 % seen] * 2),
        (2 * seen + 1, 3 * seen, [seen, seen, 1] * 2),
    ]:
        passes = Passes(model)
        run(
            model,
            [Row(logit(i % 3), i) for i in range(rows)],
            replace(PLAIN, steps=2),
            side=side,
            batch=batch,
        )
        passes.handle.remove()
        assert passes.counts == counts
        assert set(passes.whole) == {seen}, "filled up with grey"


@pytest.mark.parametrize(
    ("rows", "batch", "counts"),
    [
        (8, 32, [8] * 4 * 3 + [8] * 12),
        (8, 8, [8] * 4 * 3 + [8] * 12),
        # When as many rows as a batch holds have run their heats they climb before the others do.
        (10, 8, [8] * 4 * 3 + [8] * 12 + [8] * 3 + [2] * 12),
        (10, 16, [8, 8] * 3 * 2 + [8] * 3 + [8, 2] * 12),
        (1, 8, [4] * 3 + [1] * 12),
    ],
)
def test_heats_of_several_rows_fill_the_batch(rows: int, batch: int, counts: list[int]) -> None:
    model = network()
    passes = Passes(model)
    run(model, [Row(logit(i % 3), i) for i in range(rows)], replace(PLAIN, starts=4, heat=3), batch=batch)
    assert passes.counts == counts


def test_growing_rows_fill_the_batch_at_each_size() -> None:
    model = network(96)
    passes = Passes(model)
    found = run(model, [Row(logit(i % 3), i) for i in range(24)],
                replace(PLAIN, steps=6, growth=GROWING), side=96, batch=8)  # fmt: skip
    assert {row.image.shape for row in found} == {(3, 96, 96)}
    assert {row.steps for row in found} == {6}
    assert passes.counts == [8] * 18
    assert passes.sides == ([64] * 3 + [96] * 3) * 3


@pytest.mark.parametrize("parameterisation", ["fourier", "maco"])
def test_a_fall_is_that_of_the_prior(parameterisation: str) -> None:
    settings = replace(PLAIN, parameterisation=parameterisation, steps=1, learning_rate=1e-9, contrast=0.7)
    prior = natural_prior((SIDE, SIDE))
    across = torch.fft.rfftfreq(SIDE, 1 / SIDE)
    cycles = torch.hypot(torch.fft.fftfreq(SIDE, 1 / SIDE)[:, None], across).clamp_min(1)
    # By its definition: what fell as 1/f falls as 1/f^1.5, and pixels keep a variance of 1.
    spectrum = cycles**-1.5
    double = torch.full_like(across, 2.0)
    double[[0, -1]] = 1
    spectrum *= SIDE / (double * spectrum.square()).sum().sqrt()
    fallen = Prior(prior.mean, prior.colours, spectrum.expand(3, -1, -1))
    (expected,) = run(network(), [Row(logit(0))], settings, prior=fallen)
    (found,) = run(network(), [Row(logit(0))], replace(settings, fall=0.5), prior=prior)
    assert apart(found, expected) <= 1
    (plain,) = run(network(), [Row(logit(0))], settings, prior=prior)
    assert apart(found, plain) > 20


@pytest.mark.parametrize("starts", [2, 5])
@pytest.mark.parametrize("limit", [None, 0.2])
def test_a_row_starts_from_the_draw_that_climbs_highest_in_its_heat(starts: int, limit: float | None) -> None:
    settings = replace(PLAIN, starts=starts, heat=4, limit=limit)
    model, prior = network().eval(), natural_prior((SIDE, SIDE))
    made = parameterise(prior, settings)
    winners = set()
    for seed in range(6):
        generator = row_generator("row", str(logit(1)), seed)
        draws = made.draw(generator, starts)
        ran = []
        for drawn, own in zip(draws, [moves(generator, 4) for _ in range(starts)], strict=True):
            drawn = drawn[None].clone().requires_grad_()
            optimiser = torch.optim.Adam([drawn], lr=RATES["fourier"], betas=(0.9, 0.99))
            values = []
            for move_made in own:
                value = model(move(made.render(drawn), move_made[None], ROBUSTNESS["s"]))[0, 1]
                values.append(value.item())
                drawn.grad = torch.autograd.grad(-value, drawn)[0]
                optimiser.step()
                contrast = float(contrast_of(made.render(drawn.detach()), prior))
                drawn.data.mul_(min(1.0, (limit or 1e9) / contrast))
            ran.append((sum(values) / 4, drawn.detach()))
        best = max(range(starts), key=lambda i: ran[i][0])
        winners.add(best)
        # From there it climbs with moves of its own, anew.
        first = move(made.render(ran[best][1]), moves(generator, settings.steps)[:1], ROBUSTNESS["s"])
        passes = Passes(model)
        run(model, [Row(logit(1), seed)], settings)
        passes.handle.remove()
        assert passes.counts == [starts] * 4 + [1] * 12
        torch.testing.assert_close(passes.images[4], first, atol=1e-5, rtol=0)
    assert len(winners) > 1


@pytest.mark.parametrize("parameterisation", ["fourier", "maco", "pixels"])
def test_growth_is_two_loops_of_adam(parameterisation: str) -> None:
    settings = replace(PLAIN, parameterisation=parameterisation, steps=8, growth=GROWING, learning_rate=0.05)
    model, made = network(96).eval(), parameterise(natural_prior((96, 96)), settings)
    generator, small = row_generator("row", str(logit(1)), 2), made.resized((64, 64))
    drawn = small.draw(generator, 1)
    draws, expected = moves(generator, 8), []
    for current, steps in ((small, range(4)), (made, range(4, 8))):
        if current is made:
            drawn = small.grown(drawn, (96, 96), generator)
        drawn = drawn.detach().requires_grad_()
        optimiser = torch.optim.Adam([drawn], betas=(0.9, 0.99))  # which starts anew
        for step in steps:
            # The rate falls at the final size alone, and each move is made once.
            falling = 1.0 if step < 4 else 0.5 * (1 + math.cos(math.pi * (step - 4) / 4))
            optimiser.param_groups[0]["lr"] = 0.05 * falling
            seen = move(current.render(drawn), draws[step, None], ROBUSTNESS["s"])
            expected.append(seen.detach())
            drawn.grad = torch.autograd.grad(-model(seen)[0, 1], drawn)[0]
            optimiser.step()
    passes = Passes(model)
    run(model, [Row(logit(1), 2)], settings, side=96)
    for found, wanted in zip(passes.images, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("parameterisation", ["fourier", "maco", "pixels"])
def test_growth_keeps_what_was_climbed(parameterisation: str) -> None:
    model = network(96)
    settings = replace(
        PLAIN, parameterisation=parameterisation, steps=40, growth=((2 / 3, 0.975), (1.0, 0.025))
    )
    (grown,) = run(model, [Row(logit(1))], settings, side=96)  # the last step alone is of the final size
    (start,) = run(model, [Row(logit(1))], replace(settings, steps=1, growth=((1.0, 1.0),)), side=96)
    (direct,) = run(model, [Row(logit(1))], replace(settings, growth=((1.0, 1.0),)), side=96)
    own, first, whole = (float(logits(model, row.image[None])[0, 1]) for row in (grown, start, direct))
    assert own - first > 0.5 * (whole - first) > 0


def likely(model: nn.Module, found: Climbed, c: int) -> float:
    return float(logits(model, found.image[None]).softmax(1)[0, c])


def test_rows_with_enough_leave_and_others_take_their_place() -> None:
    model = network()
    model.get_parameter("network.head.weight").data.mul_(300)  # sure of itself within a few steps
    settings = replace(PLAIN, steps=60, enough=0.9, learning_rate=0.05)
    rows = [Row(logit(i % 3), i) for i in range(24)]
    passes = Passes(model)
    found = run(model, rows, settings, batch=8)
    passes.handle.remove()
    steps, seen = [row.steps for row in found], passes.counts
    assert min(steps) < 60 / 2
    assert len(set(steps)) > 2
    assert sum(seen) == sum(steps), "a row is seen once a step"
    # Full to the end: rows are fewer than the batch only when none waits, and then never more again.
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 8
    assert seen.count(8) >= (sum(steps) - 7 * 60) / 8
    for i, row in enumerate(found):
        assert row.steps == 60 or likely(model, row, i % 3) > 0.5
    # A row is what it is alone also where its neighbours leave in the middle of its climb.
    for place in (0, 3, 11, 23):
        (alone,) = run(model, rows[place : place + 1], settings)
        assert alone.steps == steps[place]
        assert apart(alone, found[place]) == 0
    (never,) = run(model, [Row(logit(0), 0)], replace(settings, enough=None))
    assert steps[0] < never.steps == 60


def test_other_objectives_than_of_a_class_have_never_enough() -> None:
    model = network()
    model.get_parameter("network.head.weight").data.mul_(300)
    settings = replace(PLAIN, steps=20, enough=0.01)
    found = run(model, [Row(channel("stem", 0)), Row(-logit(0)), Row(logit(0))], settings)
    assert [row.steps for row in found] == [20, 20, 8]


class Still(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * 1e-9 + 1


@pytest.mark.parametrize("starts", [1, 4])
def test_rows_that_have_stopped_rising_leave(starts: int) -> None:
    settings = replace(PLAIN, steps=50, patience=5, starts=starts, heat=8)
    model = Still()
    passes = Passes(model)
    (found,) = run(model, [Row(logit(0))], settings)
    assert found.steps == 6
    assert sum(passes.counts) == 6 + (starts * 8 if starts > 1 else 0), "heats run to their end"
    (rising,) = run(network(), [Row(logit(0))], replace(settings, steps=10))
    assert rising.steps == 10


class Strides(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class OneSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 160 * 200, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


class Halves(Strides):
    """Refuses the middle size."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[3] == 96:
            raise ValueError("not this one")
        return super().forward(images)


class Skips(nn.Module):
    """Adds what it sees to a copy that is a 32nd as large and grown again."""

    def forward(self, images: Tensor) -> Tensor:
        small = F.avg_pool2d(images, 32)
        return (images + F.interpolate(small, scale_factor=32)).mean((2, 3))


STAGES = ((0.25, 0.3), (0.5, 0.3), (1.0, 0.4))


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_sizes_share_out_all_steps(steps: int) -> None:
    settings = replace(PLAIN, steps=steps, growth=STAGES)
    made = parameterise(natural_prior((160, 200)), settings)
    for model in (Strides(), OneSize(), Halves()):
        found = sizes(model, made, settings, CPU)
        assert sum(count for _, count in found) == steps
        assert min(count for _, count in found) >= 1
        assert found[-1][0] == (160, 200)
        assert all(min(size) >= 64 for size, _ in found)
        assert [size for size, _ in found] == sorted(size for size, _ in found)
    if steps == 100:
        # Multiples of 16 pixels.
        assert sizes(Strides(), made, settings, CPU) == [((64, 80), 30), ((80, 96), 30), ((160, 200), 40)]
        assert sizes(Halves(), made, settings, CPU) == [((64, 80), 30), ((160, 200), 70)]
    assert sizes(OneSize(), made, settings, CPU) == [((160, 200), steps)]


def test_sizes_suit_the_models_strides() -> None:
    settings = replace(PLAIN, steps=96, growth=((0.43, 0.6), (0.65, 0.25), (1.0, 0.15)))

    def found(model: nn.Module, size: tuple[int, int]) -> list[tuple[tuple[int, int], int]]:
        return sizes(model, parameterise(natural_prior(size), settings), settings, CPU)

    assert found(Strides(), (224, 224)) == [((96, 96), 58), ((144, 144), 24), ((224, 224), 14)]
    # What takes multiples of 32 alone grows through these, where multiples of 16 are none.
    assert found(Skips(), (224, 224)) == [((96, 96), 58), ((160, 160), 24), ((224, 224), 14)]
    assert found(Skips(), (160, 224)) == [((64, 96), 58), ((96, 160), 24), ((160, 224), 14)]
    one_size = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 2))
    assert found(one_size, (224, 224)) == [((224, 224), 96)]
    # A side that is no multiple of anything is kept at the end.
    assert found(Strides(), (97, 131)) == [((64, 80), 82), ((97, 131), 14)]


def test_a_model_of_strides_is_climbed_through_its_sizes() -> None:
    model = Skips()
    passes = Passes(model)
    settings = replace(PLAIN, growth=((0.65, 0.5), (1.0, 0.5)))
    (found,) = run(model, [Row(logit(0))], settings, side=128)
    assert passes.sides == [96] * 6 + [128] * 6
    assert found.image.shape == (3, 128, 128)


def test_small_pictures_do_not_grow() -> None:
    for size in ((48, 60), (64, 64)):
        settings = replace(PLAIN, growth=STAGES)
        assert sizes(Strides(), parameterise(natural_prior(size), settings), settings, CPU) == [(size, 12)]


def test_few_steps_end_at_the_final_size() -> None:
    (found,) = run(network(96), [Row(logit(0))], replace(PLAIN, steps=1, growth=GROWING), side=96)
    assert found.steps == 1
    assert found.image.shape == (3, 96, 96)


def test_what_is_at_a_place_is_climbed_at_the_final_size() -> None:
    settings = replace(PLAIN, steps=6, growth=GROWING)
    rows = [Row(channel("stem", 1)), Row(neuron("stem", 1, 10, 0)), Row(logit(0))]
    shapes: list[tuple[int, ...]] = []
    model = network(96).eval()
    hook = model.register_forward_hook(lambda _, seen, __: shapes.append(tuple(seen[0].shape[2:])))
    alone = [run(model, [row], settings, side=96)[0].image for row in rows]
    shapes.clear()
    run(model, [rows[1]], settings, side=96)
    hook.remove()
    # One look at the sizes that there are, then all steps at the whole of it.
    assert shapes[-6:] == [(96, 96)] * 6
    # So its neighbours grow as they would without it.
    for one, company in zip(alone, run(model, rows, settings, side=96), strict=True):
        assert torch.equal(one, company.image)


def test_a_picture_to_start_from_keeps_what_it_shows() -> None:
    start = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(3)) * 0.9 + 0.05
    settings = replace(
        PLAIN, parameterisation="fourier", steps=2, growth=GROWING, learning_rate=1e-7, limit=1.0
    )
    (found,) = run(network(96), [Row(logit(0))], settings, side=96, start=start)
    assert (found.image.float() / 255 - start).abs().max() < 0.01


def test_a_single_score_is_never_enough() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 1))
    settings = replace(PLAIN, steps=20, enough=0.9)
    assert run(model, [Row(logit(0))], settings)[0].steps == 20


def test_objectives_of_many_kinds_share_a_batch() -> None:
    model = network()
    wanted: list[Objective] = [
        logit(1), -logit(1), channel("stages.0", 2), neuron("stem", 1), logit(0) - 0.5 * logit(2),
    ]  # fmt: skip
    together = run(model, [Row(one) for one in wanted])
    for one, found in zip(wanted, together, strict=True):
        assert apart(found, run(model, [Row(one)])[0]) == 0
    assert logits(model, together[0].image[None])[0, 1] > logits(model, together[1].image[None])[0, 1]
    assert together[0].score > together[1].score


class Headed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, images: Tensor) -> Any:
        return self.inner(images)


class Headless(Headed):
    """The same layers, answered with what is no scores."""

    def forward(self, images: Tensor) -> Any:
        self.inner(images)
        return "seen", []


@pytest.mark.parametrize("settings", [PLAIN, replace(PLAIN, starts=3), replace(PLAIN, diversity=0.5)])
def test_a_model_without_scores_is_climbed_by_its_layers(settings: Climb) -> None:
    stem, stage = "inner.network.stem", "inner.network.stages.0"
    rows = [Row(channel(stage, 2)), Row(neuron(stem, 1) - channel(stem, 0)), Row(channel(stage, 2), 1)]
    found = run(Headless(), rows, settings)
    for one, other in zip(found, run(Headed(), rows, settings), strict=True):
        assert apart(one, other) == 0
        assert one.score == other.score
    with pytest.raises(ModelError, match="scores|logits|outputs"):
        run(Headless(), [*rows, Row(logit(0))], settings)


def test_diversity_pushes_seeds_apart() -> None:
    model = network()
    rows = [Row(logit(i % 2), i // 2) for i in range(8)]  # the seeds of an objective are not neighbours

    def alike(found: list[Climbed]) -> float:
        with torch.inference_mode():
            features = model.eval().network.stages(model.network.stem(
                model.normalise(torch.stack([row.image for row in found]) / 255)))  # fmt: skip
        return float(regularisers.diversity(features, torch.tensor([0, 1] * 4)).mean())

    settings, passes = replace(PLAIN, steps=40), Passes(model)
    pushed = run(model, rows, replace(settings, diversity=2.0), batch=8)
    assert passes.counts == [4] * 80, "the four seeds of an objective, and none of the next"
    assert alike(pushed) < alike(run(model, rows, settings)) - 0.01
    units = run(model, rows[::2], replace(settings, diversity=2.0))
    assert max(map(apart, pushed[::2], units)) == 0, "but for its own seeds a row is what it is alone"


def test_heats_of_seeds_that_are_pushed_apart_are_run_without_it() -> None:
    model = network()
    settings = replace(PLAIN, starts=3, heat=2, steps=4)
    # The seeds of an objective are a unit: two of them fill a batch.
    rows = [Row(logit(c), seed) for c in (0, 1) for seed in range(4)]
    shown = {}
    for diversity, seen in ((0.0, [8]), (2.0, [4, 4])):
        passes = Passes(model)
        run(model, rows, replace(settings, diversity=diversity), batch=8)
        passes.handle.remove()
        assert passes.counts == [8] * 3 * 2 + seen * 4
        assert passes.whole == passes.counts
        shown[diversity] = torch.cat(passes.images[6:]).unflatten(0, (4, 8))
    assert torch.equal(shown[0.0][0], shown[2.0][0]), "the same draws are the best"
    assert not torch.equal(shown[0.0][3], shown[2.0][3])


def test_a_unit_larger_than_the_batch_has_heats_too() -> None:
    model = network()
    passes = Passes(model)
    rows = [Row(logit(0), seed) for seed in range(10)]
    found = run(model, rows, replace(PLAIN, starts=2, heat=2, steps=3, diversity=0.5), batch=8)
    assert passes.counts == [8, 8, 8, 8, 4, 4] + [10] * 3
    assert {row.steps for row in found} == {3}


def test_seeds_that_are_pushed_apart_leave_together() -> None:
    model = network()
    model.get_parameter("network.head.weight").data.mul_(300)
    rows = [Row(logit(0), seed) for seed in range(3)]
    settings = replace(PLAIN, steps=60, enough=0.9, learning_rate=0.05)
    each = [row.steps for row in run(model, rows, settings)]
    together = [row.steps for row in run(model, rows, replace(settings, diversity=1e-6))]
    assert len(set(each)) > 1
    assert together == [max(each)] * 3


def test_what_need_not_be_there_is_transparent() -> None:
    class Middle(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, :, 8:16, 8:16].mean((2, 3)) * 20

    settings = replace(PLAIN, parameterisation="pixels", steps=60, alpha=True)
    (found,) = run(Middle(), [Row(logit(0))], settings)
    assert found.image.shape == (4, SIDE, SIDE)
    opacity = found.image[3].float()
    border = torch.cat([opacity[:3].flatten(), opacity[-3:].flatten()])
    assert opacity[9:15, 9:15].mean() > border.mean() + 20
    kept = generate_prototypes(Middle(), [0], natural_prior((SIDE, SIDE)), settings=settings)
    # Behind what is not opaque is mid grey.
    share = kept.images[0, 3:].float() / 255
    shown = kept.images[0, :3].float() / 255 * share + 0.5 * (1 - share)
    torch.testing.assert_close(kept.logits, Middle()(shown[None]), atol=0.05, rtol=0)


def test_it_starts_from_a_picture() -> None:
    picture = F.interpolate(torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)), SIDE)[0]
    settings = replace(PLAIN, steps=1, learning_rate=1e-6, parameterisation="pixels")
    for start in (picture, (picture * 255).round().to(torch.uint8)):
        (found,) = run(network(), [Row(logit(0))], settings, start=start)
        assert (found.image / 255 - picture.clamp(0.02, 0.98)).abs().max() < 0.01
    climbed = run(network(), [Row(logit(0))], replace(settings, steps=30, learning_rate=None), start=picture)
    assert climbed[0].score > found.score
    assert (climbed[0].image / 255 - picture).abs().mean() < 0.2


@pytest.mark.parametrize("name", ["total_variation", "high_frequency", "l1", "l2"])
def test_a_penalty_is_paid_less(name: str) -> None:
    model, settings = network(), replace(PLAIN, steps=40, contrast=0.5)
    (start,) = run(model, [Row(logit(1))], replace(settings, steps=1, learning_rate=1e-6))
    (without,) = run(model, [Row(logit(1))], settings)
    (held,) = run(model, [Row(logit(1))], replace(settings, **{name: 0.3}))
    penalty = getattr(regularisers, name)
    assert penalty(held.image[None] / 255) < 0.9 * penalty(without.image[None] / 255)
    values = [float(logits(model, row.image[None])[0, 1]) for row in (start, held, without)]
    assert values[1] - values[0] > 0.5 * (values[2] - values[0]) > 0


def test_a_blurred_gradient_makes_smoother_pictures() -> None:
    model, settings = network(), replace(PLAIN, parameterisation="pixels", steps=40, contrast=0.01)
    (sharp,), (smooth,) = (run(model, [Row(logit(1))], replace(settings, blur=blur)) for blur in (0.0, 0.08))
    assert regularisers.high_frequency(smooth.image[None] / 255) < 0.7 * regularisers.high_frequency(
        sharp.image[None] / 255
    )


def test_reduced_precision_comes_to_the_same() -> None:
    model, settings = network(), replace(PLAIN, steps=30, learning_rate=0.05)
    model.get_parameter("network.head.weight").data.mul_(100)
    rows = [Row(logit(c), seed) for c in (0, 2) for seed in range(8)]
    start = run(model, rows, replace(settings, steps=1, learning_rate=1e-6))
    full, reduced = (
        run(model, rows, replace(settings, precision=precision)) for precision in ("float32", "bfloat16")
    )
    before, exact, coarse = (
        torch.tensor([likely(model, found, i // 8 * 2) for i, found in enumerate(some)])
        for some in (start, full, reduced)
    )
    assert (exact - before).view(2, 8).mean(1).min() > 0.05, "what is compared has climbed"
    # One picture is not the other, but as good: roundings lead a row elsewhere, and no row back.
    assert abs(float((exact - coarse).mean())) < 0.01
    assert Climb().precision == "float32"
    assert max(map(apart, full, run(model, rows, settings))) == 0
    assert min(map(apart, full, reduced)) > 0, "it was reduced"


class Failing(nn.Module):
    """Goes on until it has seen as many pictures that a gradient is wanted of, and raises then."""

    def __init__(self, inner: nn.Module, after: int, error: type[BaseException]) -> None:
        super().__init__()
        self.inner, self.after, self.error, self.seen = inner, after, error, 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images) if images.requires_grad else 0
        out: Tensor = self.inner(images)
        if self.seen > self.after:
            raise self.error("on purpose")
        return out


IN_HEATS, IN_CLIMB, IN_GROWTH, WHOLE = 6, 27, 40, 10**9


@pytest.mark.parametrize("diversity", [0.0, 0.1])
@pytest.mark.parametrize(
    ("after", "error"),
    [
        (WHOLE, RuntimeError),
        *(
            (after, error)
            for after in (IN_HEATS, IN_CLIMB, IN_GROWTH)
            for error in (ValueError, KeyboardInterrupt)
        ),
    ],
)
def test_no_traces(after: int, error: type[BaseException], diversity: float) -> None:
    inner = network(96).train().to(memory_format=torch.channels_last)
    inner.get_submodule("network.stem").eval()
    inner.get_parameter("network.head.bias").requires_grad_(False)
    model = Failing(inner, after, error)
    settings = replace(PLAIN, diversity=diversity, precision="bfloat16", starts=3, heat=4, growth=GROWING)
    rows, seen = [Row(logit(0)), Row(channel("inner.network.stem", 0))], []
    # Two rows of three heats of four steps, then six steps at each of two sizes.
    assert 24 < IN_CLIMB < 36 < IN_GROWTH < 48

    def state() -> tuple[object, ...]:
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return (
            [m.training for m in model.modules()],
            [(p.requires_grad, p.dtype, p.stride(), p.grad) for p in model.parameters()],
            [(b.dtype, b.stride(), b.tolist()) for b in model.buffers()],
            [len(getattr(m, name)) for m in model.modules() for name in hooks],
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_rng_state().tolist(),
        )

    def made() -> None:
        climb(
            model, rows, natural_prior((96, 96)), settings,
            finished=lambda i, row: seen.append(i),
        )  # fmt: skip

    before, weights = state(), [p.detach().clone() for p in model.parameters()]
    if after == WHOLE:
        made()
        assert sorted(seen) == [0, 1]
    else:
        with pytest.raises(error, match="on purpose"):
            made()
        assert not seen
    assert state() == before
    assert all(torch.equal(p, kept) for p, kept in zip(model.parameters(), weights, strict=True))


@pytest.mark.parametrize("starts", [1, 3])
def test_a_gradient_that_becomes_nan_leaves_no_traces(starts: int) -> None:
    model = network().train()

    def progress(done: int, total: int) -> None:
        if done >= 6:
            model.get_parameter("network.head.weight").data.fill_(torch.nan)

    with pytest.raises(ModelError, match=r"gradient of logit\[0\] \(seed 0, step \d+\) is NaN"):
        climb(
            model, [Row(logit(0)), Row(logit(1))], natural_prior((SIDE, SIDE)), replace(PLAIN, starts=starts),
            finished=lambda i, row: None, progress=progress,
        )  # fmt: skip
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_a_run_goes_on_where_it_was(tmp_path: Path, diversity: float) -> None:
    model, prior = network(), natural_prior((SIDE, SIDE))
    settings = replace(PLAIN, seeds=4, diversity=diversity)
    whole = generate_prototypes(model, [0, 1, 2], prior, settings=settings, batch=8)

    def stop(done: int, total: int) -> None:
        assert total == 12 * settings.steps
        if done >= 8 * settings.steps + 4:  # in the second batch
            raise KeyboardInterrupt

    def again(
        model: nn.Module = model, prior: Prior = prior, settings: Climb = settings
    ) -> tuple[int, Tensor]:
        passes = Passes(model)
        made = generate_prototypes(model, [0, 1, 2], prior, settings=settings, folder=tmp_path, batch=8)
        passes.handle.remove()
        return sum(passes.counts), made.images

    with pytest.raises(KeyboardInterrupt):
        generate_prototypes(
            model, [0, 1, 2], prior, settings=settings, batch=8, folder=tmp_path, progress=stop
        )
    kept = sorted(tmp_path.glob("*.safetensors"))
    assert len(kept) == 8
    passes, images = again()
    assert passes == 4 * settings.steps
    assert torch.equal(images, whole.images)
    assert again()[0] == 0
    # Seeds that are pushed apart are made anew together.
    one = (4 if diversity else 1) * settings.steps
    for damaged in (b"", b"torn", kept[0].read_bytes()[:-9], save({"image": images[0]})):
        kept[0].write_bytes(damaged)
        passes, images = again()
        assert passes == one
        assert torch.equal(images, whole.images)
    assert not list(tmp_path.glob("*.part"))
    other = network()
    other.get_parameter("network.head.bias").data.add_(0.5)
    every = 12 * settings.steps
    assert again(model=other)[0] == every
    assert again(prior=natural_prior((SIDE, SIDE)).to("cpu", torch.float32))[0] == 0
    assert again(prior=Prior(prior.mean + 0.1, prior.colours, prior.spectrum))[0] == every
    assert again(settings=replace(settings, robustness="m"))[0] == every
    assert again()[0] == 0, "and those of before are still there"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"robustness": "huge"}, "'huge' is none of none, s, m"),
        ({"parameterisation": "voxels"}, "'voxels' is none of fourier, maco, pixels"),
        ({"precision": "int8"}, "neither float32 nor bfloat16"),
        ({"growth": ()}, "growth"),
        ({"growth": ((0.5, 1.0),)}, "growth"),
        ({"growth": ((0.5, 0.2), (1.0, 0.2))}, "growth"),
        ({"growth": ((0.5, 1.2), (1.0, -0.2))}, "growth"),
        ({"growth": ((0.7, 0.2), (0.5, 0.3), (1.0, 0.5))}, "growth"),
        ({"growth": ((0.0, 0.5), (1.0, 0.5))}, "growth"),
        ({"steps": 4.5}, "steps is 4.5; it must be a whole number from 1"),
        ({"patience": -1}, "patience is -1"),
        ({"learning_rate": 0}, "learning_rate is 0; it must be a number above 0"),
        ({"limit": -1}, "limit is -1"),
        ({"contrast": math.nan}, "contrast is nan"),
        ({"diversity": -1}, "diversity is -1; it must be a number from 0"),
        ({"enough": 95}, "a probability, at most 1"),
        ({"fall": "x"}, "fall is 'x'"),
        ({"growth": ((1,),)}, "write pairs"),
        ({"steps": 0}, "whole number from 1"),
        ({"seeds": 0}, "whole number from 1"),
        ({"starts": 0}, "whole number from 1"),
    ],
)
def test_settings_that_mean_nothing(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ParamsError, match=says):
        replace(PLAIN, **wrong)


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="no layer 'steam'.*'stem'"):
        run(network(), [Row(channel("steam", 0))])


def test_the_average_score_is_of_the_last_steps() -> None:
    (found,) = run(network(), [Row(logit(1))], replace(PLAIN, steps=40))
    assert math.isfinite(found.score)
    assert found.score == pytest.approx(float(logits(network(), found.image[None])[0, 1]), rel=0.5)
