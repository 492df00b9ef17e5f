"""Climbing: a row is what it is alone, leaves when it has climbed enough, and leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import ModelSpec, build_model, logits
from candling.vision import regularisers
from candling.vision.climbing import (
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

PLAIN = Climb(parameterisation="fourier", seeds=1, steps=12, starts=1, contrast=0.05)
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


class Batches:
    """Sizes of batches, and pictures, that a model is called with."""

    def __init__(self, model: nn.Module) -> None:
        self.counts: list[int] = []
        self.sides: list[int] = []
        self.images: list[Tensor] = []
        self.handle = model.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].requires_grad:  # not when it is asked whether it takes a size
            self.counts.append(len(inputs[0]))
            self.sides.append(inputs[0].shape[2])
            self.images.append(inputs[0].detach().clone())


def test_row_generators_differ_by_what_they_are() -> None:
    names = [("a", 0, 1), ("a", 1, 0), ("b", 0, 1), ("a", 0, 1)]
    draws = [torch.rand(3, generator=row_generator(*name)).tolist() for name in names]
    assert draws[0] == draws[3]
    assert len({tuple(draw) for draw in draws}) == 3


@pytest.mark.parametrize("parameterisation", ["fourier", "maco", "pixels"])
def test_a_row_is_a_plain_loop_of_adam(parameterisation: str) -> None:
    settings = replace(PLAIN, parameterisation=parameterisation)
    model, prior = network(), natural_prior((SIDE, SIDE))
    generator = row_generator("row", str(logit(2)), 5)
    made = parameterise(prior, settings)
    drawn = made.draw(generator, 1).requires_grad_()
    optimiser = torch.optim.Adam([drawn], lr=made.learning_rate, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    model.eval()
    expected = []
    for draws in moves(generator, settings.steps):
        seen = move(made.render(drawn), draws[None], ROBUSTNESS["s"])
        expected.append(seen.detach())
        drawn.grad = torch.autograd.grad(-model(seen)[0, 2], drawn)[0]
        optimiser.step()
        rate.step()
    last = (made.render(drawn.detach())[0] * 255).round().to(torch.uint8)
    batches = Batches(model)
    (found,) = run(model, [Row(logit(2), 5)], settings)
    assert found.steps == settings.steps
    assert len(batches.images) == settings.steps
    # All that the model sees is the same to rounding, in each step.
    torch.testing.assert_close(torch.cat(batches.images), torch.cat(expected), atol=1e-5, rtol=0)
    assert (found.image.int() - last.int()).abs().max() <= 1
    first = made.render(made.draw(row_generator("row", str(logit(2)), 5)))
    assert (found.image / 255 - first[0]).abs().max() > 0.02, "and it has climbed"


class Exact(nn.Module):
    """A network whose sums are not rounded to what its neighbours could change."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.inner = network(side).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images.double()).float()


GROWING = ((2 / 3, 0.5), (1.0, 0.5))


@pytest.mark.parametrize(
    ("parameterisation", "growth", "starts"),
    [
        ("fourier", ((1.0, 1.0),), 1),
        ("maco", ((1.0, 1.0),), 1),
        ("pixels", ((1.0, 1.0),), 1),
        ("fourier", GROWING, 1),
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
        PLAIN, parameterisation=parameterisation, growth=growth, steps=6, starts=starts, heat=2
    )
    rows = [Row(logit(i % 3), i // 3) for i in range(9 if growth == GROWING else 33)]
    for model in (Exact(side), network(side)):
        alone = run(model, rows[4:5], settings, side=side)[0]
        for batch in (7, 32):
            order = list(reversed(rows))
            found = run(model, order, settings, side=side, batch=batch)[order.index(rows[4])]
            assert found.steps == alone.steps == 6
            difference = (alone.image.int() - found.image.int()).abs()
            if isinstance(model, Exact):
                assert difference.max() == 0
            else:
                # In float32 the network rounds otherwise in another batch, which Adam enlarges where there
                # is hardly a gradient: a pixel in a thousand is off by more than one level of 256.
                assert difference.max() <= 3
                assert (difference > 1).float().mean() <= 1e-3


def test_the_result_tells_rows_apart() -> None:
    rows = [Row(logit(0), 0), Row(logit(0), 1), Row(logit(1), 0)]
    found = run(network(), rows)
    assert min(apart(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 20


def test_a_full_batch_and_no_more() -> None:
    model = network()
    batches = Batches(model)
    run(model, [Row(logit(i % 3), i) for i in range(10)], batch=4)
    assert batches.counts == [4] * 24 + [2] * 12


def test_heats_keep_to_the_batch() -> None:
    model = network()
    batches = Batches(model)
    run(model, [Row(logit(0), i) for i in range(5)], replace(PLAIN, starts=5, heat=3), batch=3)
    assert max(batches.counts) == 3
    assert sum(batches.counts) == 5 * (5 * 3 + PLAIN.steps)


def test_growing_rows_fill_the_batch_at_each_size() -> None:
    model = network(96)
    batches = Batches(model)
    found = run(model, [Row(logit(i % 3), i) for i in range(9)],
                replace(PLAIN, steps=6, growth=GROWING), side=96, batch=3)  # fmt: skip
    assert {row.image.shape for row in found} == {(3, 96, 96)}
    assert {row.steps for row in found} == {6}
    assert set(batches.sides) == {64, 96}
    assert batches.counts == [3] * 18
    assert sum(side == 64 for side in batches.sides) == 9


@pytest.mark.parametrize("parameterisation", ["fourier", "maco", "pixels"])
def test_growth_is_two_loops_of_adam(parameterisation: str) -> None:
    settings = replace(PLAIN, parameterisation=parameterisation, steps=8, growth=GROWING)
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
            # The rate falls over both sizes, and each move is made once.
            optimiser.param_groups[0]["lr"] = made.learning_rate * 0.5 * (1 + math.cos(math.pi * step / 8))
            seen = move(current.render(drawn), draws[step, None], ROBUSTNESS["s"])
            expected.append(seen.detach())
            drawn.grad = torch.autograd.grad(-model(seen)[0, 1], drawn)[0]
            optimiser.step()
    batches = Batches(model)
    run(model, [Row(logit(1), 2)], settings, side=96)
    for found, wanted in zip(batches.images, expected, strict=True):
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
    settings = replace(PLAIN, steps=60, enough=0.9)
    batches = Batches(model)
    found = run(model, [Row(logit(i % 3), i) for i in range(9)], settings, batch=3)
    steps, seen = [row.steps for row in found], batches.counts
    assert min(steps) < 60 / 2
    assert len(set(steps)) > 2
    assert sum(seen) == sum(steps), "a row is seen once a step"
    # Full to the end: rows are fewer than the batch only when none waits, and then never more again.
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 3
    assert seen.count(3) >= (sum(steps) - 2 * 60) / 3
    for i, row in enumerate(found):
        assert row.steps == 60 or likely(model, row, i % 3) > 0.5
    (alone,) = run(model, [Row(logit(0), 0)], settings)
    assert alone.steps == steps[0] < 60
    # A row is what it is alone also where its neighbours leave in the middle of its climb.
    exact = Exact(SIDE)
    exact.inner.get_parameter("network.head.weight").data.mul_(300)
    rows = [Row(logit(i % 3), i) for i in range(9)]
    together = run(exact, rows, settings, batch=3)
    assert len({row.steps for row in together}) > 2
    for row, found in zip(rows, together, strict=True):
        (alone,) = run(exact, [row], settings)
        assert alone.steps == found.steps
        assert apart(alone, found) <= 1
    (never,) = run(model, [Row(logit(0), 0)], replace(settings, enough=None))
    assert never.steps == 60


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
    batches = Batches(model)
    (found,) = run(model, [Row(logit(0))], settings)
    assert found.steps == 6
    assert sum(batches.counts) == 6 + (starts * 8 if starts > 1 else 0), "heats run to their end"
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
        if images.shape[2] == 80:
            raise ValueError("not this one")
        return super().forward(images)


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
        assert sizes(Strides(), made, settings, CPU) == [((64, 80), 30), ((80, 100), 30), ((160, 200), 40)]
        assert sizes(Halves(), made, settings, CPU) == [((64, 80), 30), ((160, 200), 70)]
    assert sizes(OneSize(), made, settings, CPU) == [((160, 200), steps)]


def test_small_pictures_do_not_grow() -> None:
    for size in ((48, 60), (64, 64)):
        settings = replace(PLAIN, growth=STAGES)
        assert sizes(Strides(), parameterise(natural_prior(size), settings), settings, CPU) == [(size, 12)]


def test_few_steps_end_at_the_final_size() -> None:
    (found,) = run(network(96), [Row(logit(0))], replace(PLAIN, steps=1, growth=GROWING), side=96)
    assert found.steps == 1
    assert found.image.shape == (3, 96, 96)


def test_sizes_without_an_objectives_place_are_left_out() -> None:
    settings = replace(PLAIN, steps=4, growth=GROWING)
    made = parameterise(natural_prior((96, 96)), settings)
    at = {place: neuron("stem", 1, place, 0) for place in (10, 40)}
    assert len(sizes(network(96).eval(), made, settings, CPU, [at[10]])) == 2
    assert len(sizes(network(96).eval(), made, settings, CPU, [at[10], at[40]])) == 1
    assert run(network(96), [Row(at[40])], settings, side=96)[0].steps == 4


def test_objectives_of_many_kinds_share_a_batch() -> None:
    model = network()
    wanted: list[Objective] = [
        logit(1), -logit(1), channel("stages.0", 2), neuron("stem", 1), logit(0) - 0.5 * logit(2),
    ]  # fmt: skip
    together = run(model, [Row(one) for one in wanted])
    for one, found in zip(wanted, together, strict=True):
        assert apart(found, run(model, [Row(one)])[0]) <= 1
    assert logits(model, together[0].image[None])[0, 1] > logits(model, together[1].image[None])[0, 1]
    assert together[0].score > together[1].score


def test_diversity_pushes_seeds_apart() -> None:
    model = network()
    rows = [Row(logit(i % 2), i // 2) for i in range(8)]  # the seeds of an objective are not neighbours

    def alike(found: list[Climbed]) -> float:
        with torch.inference_mode():
            features = model.eval().network.stages(model.network.stem(
                model.normalise(torch.stack([row.image for row in found]) / 255)))  # fmt: skip
        return float(regularisers.diversity(features, torch.tensor([0, 1] * 4)).mean())

    settings, batches = replace(PLAIN, steps=40), Batches(model)
    pushed = run(model, rows, replace(settings, diversity=2.0), batch=6)
    assert batches.counts == [4] * 80, "the four seeds of an objective, and no half of the next"
    assert alike(pushed) < alike(run(model, rows, settings)) - 0.01
    units = run(model, rows, replace(settings, diversity=2.0), batch=8)
    assert max(map(apart, pushed, units)) <= 3, "but for its own seeds a row is what it is alone"


def test_seeds_that_are_pushed_apart_leave_together() -> None:
    model = network()
    model.get_parameter("network.head.weight").data.mul_(300)
    rows = [Row(logit(0), seed) for seed in range(3)]
    settings = replace(PLAIN, steps=60, enough=0.9)
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
    model, settings = network(), replace(PLAIN, steps=30)
    model.get_parameter("network.head.weight").data.mul_(100)
    full, reduced = (
        run(model, [Row(logit(1))], replace(settings, precision=precision))[0]
        for precision in ("float32", "bfloat16")
    )
    (start,) = run(model, [Row(logit(1))], replace(settings, steps=1, learning_rate=1e-6))
    shares = [likely(model, row, 1) for row in (full, reduced, start)]
    assert shares[0] - shares[2] > 0.05, "what is compared has climbed"
    assert shares[0] == pytest.approx(shares[1], abs=0.02)
    assert Climb().precision == "float32"
    assert apart(full, run(model, [Row(logit(1))], settings)[0]) == 0
    assert apart(full, reduced) > 0, "it was reduced"


@pytest.mark.parametrize("ends", ["well", "error", "interrupt"])
def test_no_traces(ends: str) -> None:
    model = network().train().to(memory_format=torch.channels_last)
    model.get_submodule("network.stem").eval()

    def state() -> tuple[object, ...]:
        return (
            [m.training for m in model.modules()],
            [(p.requires_grad, p.dtype, p.stride()) for p in model.parameters()],
            sum(
                len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
                for m in model.modules()
            ),
            [p.grad for p in model.parameters()],
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
        )

    def progress(done: int, total: int) -> None:
        if done >= 6 and ends == "interrupt":
            raise KeyboardInterrupt
        if done >= 6 and ends == "error":
            model.get_parameter("network.head.weight").data.fill_(torch.nan)

    before, settings = state(), replace(PLAIN, diversity=0.1, precision="bfloat16")

    def made() -> None:
        climb(
            model, [Row(logit(0)), Row(channel("stem", 0))], natural_prior((SIDE, SIDE)), settings,
            finished=lambda i, row: None, progress=progress,
        )  # fmt: skip

    if ends == "well":
        made()
    else:
        with pytest.raises(KeyboardInterrupt if ends == "interrupt" else ModelError):
            made()
    assert state() == before


@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_a_run_goes_on_where_it_was(tmp_path: Path, diversity: float) -> None:
    model, prior = network(), natural_prior((SIDE, SIDE))
    settings = replace(PLAIN, seeds=2, diversity=diversity)
    whole = generate_prototypes(model, [0, 1, 2], prior, settings=settings, batch=2)

    def stop(done: int, total: int) -> None:
        assert total == 6 * settings.steps
        if done >= total // 2 + 4:
            raise KeyboardInterrupt

    def again(
        model: nn.Module = model, prior: Prior = prior, settings: Climb = settings
    ) -> tuple[int, Tensor]:
        batches = Batches(model)
        made = generate_prototypes(model, [0, 1, 2], prior, settings=settings, folder=tmp_path, batch=2)
        batches.handle.remove()
        return sum(batches.counts), made.images

    with pytest.raises(KeyboardInterrupt):
        generate_prototypes(
            model, [0, 1, 2], prior, settings=settings, batch=2, folder=tmp_path, progress=stop
        )
    kept = sorted(tmp_path.glob("*.safetensors"))
    assert len(kept) == 2
    passes, images = again()
    assert passes == 4 * settings.steps
    assert (images.int() - whole.images.int()).abs().max() <= 1
    assert again()[0] == 0
    # Seeds that are pushed apart are made anew together.
    one = (2 if diversity else 1) * settings.steps
    for damaged in (b"", b"torn", kept[0].read_bytes()[:-9], save({"image": images[0]})):
        kept[0].write_bytes(damaged)
        passes, images = again()
        assert passes == one
        assert (images.int() - whole.images.int()).abs().max() <= 1
    assert not list(tmp_path.glob("*.part"))
    other = network()
    other.get_parameter("network.head.bias").data.add_(0.5)
    every = 6 * settings.steps
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
        ({"steps": 0}, "whole numbers from 1"),
        ({"seeds": 0}, "whole numbers from 1"),
        ({"starts": 0}, "whole numbers from 1"),
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
