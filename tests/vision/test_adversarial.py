"""Attacks against foolbox's, in their balls, as saved, each row for itself; and what cannot be attacked."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from candling.errors import CandlingError, DataError, ModelError, ParamsError
from candling.models import ModelSource, ModelSpec, build_model, logits, open_model
from candling.models.spec import Head
from candling.vision.adversarial import (
    L2PGD,
    Attacked,
    Goal,
    GradientDescent,
    LinfPGD,
    Method,
    Targeted,
    Untargeted,
    attack,
    every_pair,
    smallest_epsilon,
)
from candling.vision.adversarial.methods import Ball
from candling.vision.adversarial.smallest import Smallest, probes_of
from tests.models.blackboxes import onnx_file

SIZE = (12, 16)
ROWS = 6
INF = math.inf


class Net(nn.Module):
    """A convolution and four classes, with normalisation inside."""

    def __init__(self, seed: int = 0, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(channels, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh())
        self.head = nn.Linear(4 * 5 * 7, 4)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.body((images - 0.4) / 0.2).flatten(1))
        return 5 * found


def pictures(count: int = ROWS, channels: int = 3, seed: int = 1) -> Tensor:
    """uint8, some of their pixels at the ends of the range."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randint(-40, 296, (count, channels, *SIZE), generator=generator)
    return made.clamp(0, 255).byte()


def others(model: nn.Module, images: Tensor) -> list[int]:
    """Of each row the class after the predicted one."""
    found = logits(model, images).argmax(1)
    return ((found + 1) % 4).tolist()


def png(image: Tensor) -> Tensor:
    """A picture written as PNG and read back."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


@pytest.fixture
def net() -> nn.Module:
    return Net().eval()


# --- foolbox --------------------------------------------------------------------------------------

PARITY: dict[str, tuple[type[Ball], str, float, float, bool]] = {
    "linf": (LinfPGD, "LinfPGD", 8 / 255, 2 / 255, False),
    "linf, from a random point": (LinfPGD, "LinfPGD", 8 / 255, 2 / 255, True),
    "l2": (L2PGD, "L2PGD", 0.7, 0.15, False),
    "l2, from a random point": (L2PGD, "L2PGD", 0.7, 0.15, True),
}


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", PARITY)
def test_a_walk_is_foolboxs(net: nn.Module, case: str, dtype: torch.dtype, targeted: bool) -> None:
    import eagerpy
    import foolbox

    ball, name, epsilon, stepsize, random = PARITY[case]
    net, images = net.to(dtype), pictures().to(dtype) / 255
    classes = others(net, images) if targeted else logits(net, images).argmax(1).tolist()
    generator = torch.Generator().manual_seed(3)
    there = ball(epsilon=epsilon)
    begin = torch.stack([there.drawn(one, generator) for one in images]) if random else images

    theirs = getattr(foolbox.attacks, name)(steps=7, abs_stepsize=stepsize, random_start=random)
    theirs.get_random_start = lambda *_: eagerpy.astensor(begin)
    kind = "TargetedMisclassification" if targeted else "Misclassification"
    criterion = getattr(foolbox.criteria, kind)(torch.tensor(classes))
    wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    expected = theirs.run(wrapped, images, criterion, epsilon=epsilon)

    goal = Targeted(classes) if targeted else Untargeted(classes)
    method = ball(epsilon=epsilon, steps=7, stepsize=stepsize)
    found = attack(net, images, goal, method, rounded=False, leave=False, start=begin if random else None)
    assert (expected - images).abs().max() > 0.5 * stepsize / (1 if name == "LinfPGD" else 20)
    torch.testing.assert_close(found.images, expected, rtol=0, atol=1e-6)
    ended = eagerpy.astensor(expected)
    assert (found.fooled == criterion(ended, wrapped(ended)).raw).all()
    assert found.evaluations.tolist() == [8] * ROWS


def test_random_starts_fill_the_ball() -> None:
    origin = torch.full((3, *SIZE), 0.5)
    generator = torch.Generator().manual_seed(0)
    linf = torch.stack([LinfPGD(epsilon=0.1).drawn(origin, generator) - origin for _ in range(50)])
    assert 0.099 < linf.abs().max() <= 0.1 + 1e-6
    assert linf.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)
    # The volume within radius r of a ball of n dimensions is rⁿ: with n = 2 the median radius is √½.
    small = torch.full((2, 1, 1), 0.5)
    drawn = torch.stack([L2PGD(epsilon=0.1).drawn(small, generator) for _ in range(2000)])
    radii = (drawn - small).flatten(1).norm(dim=1)
    assert radii.max() <= 0.1 + 1e-6
    assert radii.median().item() == pytest.approx(0.1 * math.sqrt(0.5), rel=0.05)


# --- the textbook's -------------------------------------------------------------------------------


def test_gradient_descent_is_the_textbooks_by_hand() -> None:
    """A linear model, whose gradient of -log p can be written down: Wᵀ(p - e)."""
    linear = nn.Linear(3 * 2 * 2, 3, bias=False).double()
    model = nn.Sequential(nn.Flatten(), linear)
    image = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    x = image.flatten().clone()
    weights = linear.weight.detach()
    for _ in range(5):
        p = (weights @ x).softmax(0)
        p[2] -= 1
        x = (x - 0.3 * weights.T @ p).clamp(0, 1)
    found = attack(
        model, image, Targeted([2]), GradientDescent(steps=5, rate=0.3), rounded=False, leave=False
    )
    torch.testing.assert_close(found.images.flatten(), x)


def test_gradient_descent_reaches_its_target(net: nn.Module) -> None:
    images = pictures()
    classes = others(net, images)
    found = attack(net, images, Targeted(classes), GradientDescent(steps=300, rate=0.5), probability=0.9)
    assert found.fooled.all()
    again = logits(net, found.images).softmax(1)
    assert (again[torch.arange(ROWS), classes] >= 0.9).all()


# --- balls, 8 bits, leaving -----------------------------------------------------------------------

METHODS: dict[str, Method] = {
    "linf": LinfPGD(epsilon=6 / 255, steps=30),
    "linf between levels": LinfPGD(epsilon=6.7 / 255, steps=30),
    "l2": L2PGD(epsilon=0.9, steps=30),
    "l2, a few levels": L2PGD(epsilon=12 / 255, steps=10),
    "gradient descent": GradientDescent(steps=30, rate=0.5),
}


@pytest.mark.parametrize("aim", [Targeted, Untargeted])
@pytest.mark.parametrize("case", METHODS)
def test_what_is_saved_lies_in_the_ball_and_fools(
    net: nn.Module, case: str, aim: Callable[[list[int]], Goal]
) -> None:
    images, method = pictures(), METHODS[case]
    own = logits(net, images).argmax(1).tolist()
    goal = aim(others(net, images)) if aim is Targeted else aim(own)
    found = attack(net, images, goal, method)
    assert found.images.dtype == torch.uint8
    change = (found.images.double() - images.double()) / 255
    norm = change.flatten(1).norm(dim=1) if method.norm == "l2" else change.abs().flatten(1).amax(1)
    torch.testing.assert_close(found.distance, norm, rtol=1e-4, atol=1e-6)
    if isinstance(method, Ball):
        assert (norm <= method.epsilon + 1e-5).all()
    if case != "l2, a few levels":
        assert found.fooled.any()
    read = torch.stack([png(image) for image in found.images])
    again = logits(net, read)
    torch.testing.assert_close(again.softmax(1), found.probabilities, rtol=1e-4, atol=1e-5)
    best = again.argmax(1)
    expected = best == goal.classes if aim is Targeted else best != goal.classes
    assert (expected == found.fooled).all()


def test_long_l2_changes_are_kept_though_each_is_less_than_half_a_level() -> None:
    origin = torch.full((3, 40, 40), 0.5).mul(255).round() / 255
    noise = torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(0))
    here = origin + 0.1 / 255 * noise
    method = L2PGD(epsilon=1.0)
    saved = method.saved(here, origin)
    assert ((here - origin) * 255).abs().max() < 0.5
    lengths = [float((one - origin).norm()) for one in (here, saved)]
    assert 0.9 * lengths[0] < lengths[1] <= lengths[0] + 1e-5
    assert torch.cosine_similarity((here - origin).flatten(), (saved - origin).flatten(), 0) > 0.2


def test_rows_leave_when_they_are_fooled_and_not_before(net: nn.Module) -> None:
    images = pictures()
    goal = Targeted(others(net, images))
    method = LinfPGD(epsilon=32 / 255, steps=40)
    early = attack(net, images, goal, method)
    sure = attack(net, images, goal, method, probability=0.99)
    stay = attack(net, images, goal, method, leave=False)
    assert early.fooled.all()
    assert sure.fooled.all()
    assert (early.evaluations <= sure.evaluations).all()
    assert early.evaluations.sum() < sure.evaluations.sum() < stay.evaluations.sum()
    assert stay.evaluations.tolist() == [41] * ROWS
    rows = torch.arange(ROWS)
    assert (sure.probabilities[rows, goal.classes] >= 0.99).all()
    assert early.probabilities[rows, goal.classes].min() < 0.99


@pytest.mark.parametrize("random_start", [True, False])
def test_rows_do_not_depend_on_their_company(net: nn.Module, random_start: bool) -> None:
    images = pictures(11)
    classes = others(net, images)
    method = LinfPGD(epsilon=3 / 255, steps=6, random_start=random_start, restarts=2)
    together = attack(net, images, Targeted(classes), method, probability=0.9)
    order = list(reversed(range(11)))
    turned = attack(net, images[order], Targeted([classes[i] for i in order]), method, probability=0.9)
    assert (turned.images[order] == together.images).all()
    assert (turned.evaluations[order] == together.evaluations).all()
    for row in (0, 7):
        alone = attack(net, images[row : row + 1], Targeted(classes[row : row + 1]), method, probability=0.9)
        assert (alone.images[0] == together.images[row]).all()
    other = attack(net, images, Targeted(classes), method, probability=0.9, seed=1)
    assert random_start == bool((other.images != together.images).any()) or not together.fooled.all()


class Hills(nn.Module):
    """Uphill from the picture lies a hill that is too low; behind it, a high one."""

    def forward(self, images: Tensor) -> Tensor:
        place = images.mean((1, 2, 3)) - 0.5
        height = torch.maximum(place, -4 * place)
        return torch.stack([torch.full_like(height, 0.2), height], 1)


def test_restarts_fool_rows_that_one_walk_did_not() -> None:
    images = torch.full((24, 1, 2, 2), 130, dtype=torch.uint8)
    images[:, 0, 0, 0] += torch.arange(24, dtype=torch.uint8)  # so that each draws for itself
    goal, ball = Targeted([1] * 24), LinfPGD(epsilon=0.1, steps=10)
    once = attack(Hills(), images, goal, ball)
    more = attack(Hills(), images, goal, replace(ball, restarts=2))
    many = attack(Hills(), images, goal, replace(ball, restarts=40))
    assert not once.fooled.any()
    assert 0 < more.fooled.sum() < many.fooled.sum() == 24
    assert (more.evaluations[~more.fooled] == 3 * 11).all()
    assert (more.evaluations[more.fooled] > 11).all()


def test_an_attack_does_not_stop_where_log_p_has_no_digits() -> None:
    """float32 says log p = 0 with a gradient of 0 here; log-odds go on."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros(12), torch.full((12,), 30.0)]))
        model[1].bias.copy_(torch.tensor([0.0, -30.0 * 12 * 0.4]))
    image = torch.full((1, 3, 2, 2), 0.5)
    assert logits(model, image)[0, 1] > 30
    found = attack(model, image, Untargeted([1]), LinfPGD(epsilon=0.12, steps=20))
    assert found.fooled.all()


@pytest.mark.parametrize(("head", "columns"), [("softmax", 3), ("multilabel", 3), ("binary", 2)])
def test_every_head(head: Head, columns: int) -> None:
    names = ("a", "b", "c")[:columns]
    model = build_model(ModelSpec("residual_cnn", names, SIZE, {"widths": [4, 6]}, head=head), seed=1)
    images = pictures()
    with torch.no_grad():  # so that no class is far from being predicted
        bias = model.get_parameter("network.head.bias")
        bias -= logits(model, images).mean(0)[-len(bias) :]
    own = logits(model, images).argmax(1)
    for goal in (Targeted(((own + 1) % columns).tolist()), Untargeted(own)):
        found = attack(model, images, goal, LinfPGD(epsilon=120 / 255, steps=20))
        assert found.fooled.any()
        again = logits(model, found.images)
        best = again.argmax(1)
        expected = best == goal.classes if isinstance(goal, Targeted) else best != goal.classes
        assert (expected == found.fooled).all()
        shares = again.sigmoid() if head == "multilabel" else again.softmax(1)
        torch.testing.assert_close(found.probabilities, shares, rtol=1e-4, atol=1e-5)


def test_a_model_that_gives_probabilities_is_attacked_by_their_logarithm(net: nn.Module) -> None:
    images = pictures()
    goal = Targeted(others(net, images))
    method = LinfPGD(epsilon=8 / 255, steps=10)
    by_logits = attack(net, images, goal, method, leave=False)
    by_shares = attack(nn.Sequential(net, nn.Softmax(1)), images, goal, method, leave=False)
    assert by_logits.notes == ()
    assert "returns probabilities" in by_shares.notes[0]
    torch.testing.assert_close(by_shares.probabilities, by_logits.probabilities, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels: int) -> None:
    model = Net(channels=channels).eval()
    images = pictures(3, channels)
    found = attack(model, images, Targeted(others(model, images)), LinfPGD(epsilon=16 / 255))
    assert found.images.shape == images.shape
    assert found.fooled.any()


def test_the_methods_say_how_they_are_configured(net: nn.Module) -> None:
    assert repr(LinfPGD(epsilon=0.5, steps=3)) == (
        "LinfPGD(steps=3, epsilon=0.5, stepsize=None, random_start=False, restarts=0)"
    )
    assert repr(Targeted([1, 2])) == "Targeted([1, 2])"
    assert repr(Untargeted(torch.arange(9))) == "Untargeted([0, 1, 2, 3, 4, 5, … 9 rows])"
    images = pictures(1)
    found = attack(net, images, Targeted(others(net, images)), LinfPGD(epsilon=0.1, steps=5))
    assert repr(found).startswith("Attacked(1 of 1 fooled, LinfPGD(steps=5, epsilon=0.1")
    with pytest.raises(TypeError):
        LinfPGD(0.1)  # type: ignore[misc]


# --- the smallest epsilon -------------------------------------------------------------------------


def first_of_grid(net: nn.Module, image: Tensor, target: int, method: LinfPGD) -> float:
    """By trying every radius from the smallest on."""
    for level in range(1, 9):
        ball = LinfPGD(epsilon=level / 255, steps=method.steps)
        if attack(net, image[None], Targeted([target]), ball).fooled.all():
            return level / 255
    return math.inf


def test_the_smallest_epsilon_is_about_that_of_a_search_from_below(net: nn.Module) -> None:
    images, method = pictures(8), LinfPGD(epsilon=8 / 255, steps=20)
    classes = others(net, images)
    found = smallest_epsilon(net, images, Targeted(classes), method)
    expected = [first_of_grid(net, image, k, method) for image, k in zip(images, classes, strict=True)]
    assert len(set(expected)) > 1
    # A warm start may find what a cold one does not, and the other way round, by one radius.
    difference = (found.epsilon - torch.tensor(expected).double()).nan_to_num(0.0) * 255
    assert difference.abs().max() <= 1 + 1e-6
    assert (difference.abs() < 1e-6).float().mean() > 0.7
    distance = (found.images.double() - images).abs().flatten(1).amax(1) / 255
    assert (distance <= found.epsilon + 1e-6).all()
    reached = logits(net, found.images).argmax(1) == torch.tensor(classes)
    assert (reached == found.epsilon.isfinite()).all()


@pytest.mark.parametrize("method", [LinfPGD(epsilon=6 / 255, steps=5), L2PGD(epsilon=0.5, steps=5)])
def test_bisection_costs_no_more_than_it_says(net: nn.Module, method: Ball) -> None:
    images = pictures(8)
    found = smallest_epsilon(net, images, Targeted(others(net, images)), method, probability=0.5)
    assert found.evaluations.max() <= probes_of(len(found.grid)) * 6
    assert all(
        math.isinf(one) or any(abs(one - radius) < 1e-12 for radius in found.grid)
        for one in found.epsilon.tolist()
    )


def test_what_is_not_reached_is_told(net: nn.Module) -> None:
    images = pictures()
    own = logits(net, images).argmax(1)
    goal = Targeted([*others(net, images)[:3], *own[3:].tolist()])
    found = smallest_epsilon(net, images, goal, LinfPGD(epsilon=1 / 255, steps=1), probability=0.9999)
    assert found.epsilon[:3].tolist() == [math.inf] * 3
    assert found.unreached >= 3
    assert "not reached within 0.003922" in repr(found)
    there = smallest_epsilon(net, images[3:], Targeted(own[3:]), LinfPGD(epsilon=1 / 255, steps=1))
    assert there.epsilon.tolist() == [0.0] * 3, "what is taken for it as it is needs no change"
    assert (there.images == images[3:]).all()
    assert there.evaluations.tolist() == [1] * 3


def made(epsilon: list[float]) -> Smallest:
    empty = torch.zeros(len(epsilon), 1)
    return Smallest(
        torch.tensor(epsilon, dtype=torch.float64), (1.0, 2.0, 3.0), empty, empty, empty, LinfPGD(epsilon=3.0)
    )


@pytest.mark.parametrize(
    ("epsilon", "median"),
    [
        ([1, 2, 3], 2),
        ([1, 2], 1.5),
        ([1, INF, 2], 2),
        ([1, INF], INF),
        ([INF] * 3, INF),
    ],
)
def test_medians_count_what_was_not_reached(epsilon: list[float], median: float) -> None:
    assert made(epsilon).median() == median


def test_every_pair_of_classes(net: nn.Module) -> None:
    images = pictures(4)
    labels = logits(net, images).argmax(1)
    rows, goal = every_pair(labels, range(4))
    assert len(goal) == 12
    assert (labels[rows] != goal.classes).all()
    assert [goal.classes[rows == row].tolist() for row in range(4)] == [
        [k for k in range(4) if k != label] for label in labels.tolist()
    ]
    found = smallest_epsilon(net, images[rows], goal, LinfPGD(epsilon=8 / 255, steps=15))
    table = found.by_pair(labels[rows], goal.classes)
    assert list(table.columns) == ["from", "to", "n", "epsilon", "unreached"]
    assert table["n"].sum() == 12
    assert table["unreached"].sum() == found.unreached
    for _, line in table.iterrows():
        mine = found.epsilon[(labels[rows] == line["from"]) & (goal.classes == line["to"])]
        assert line["epsilon"] == made(mine.tolist()).median()


# --- the model ------------------------------------------------------------------------------------


def state(model: nn.Module) -> list[Any]:
    return [
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        [(p.requires_grad, p.dtype, p.stride(), p.grad) for p in model.parameters()],
        [tensor.clone() for tensor in model.state_dict().values()],
    ]


@pytest.mark.parametrize("end", ["success", ModelError, KeyboardInterrupt])
@pytest.mark.parametrize("shares", [False, True])
def test_the_model_is_left_as_it_was(end: Any, shares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model: nn.Module = nn.Sequential(Net(), nn.Softmax(1)) if shares else Net()
    model.train()
    next(model.modules()).get_submodule("0.body.1" if shares else "body.1").eval()
    next(model.parameters()).requires_grad_(False)
    before = state(model)
    if end != "success":
        calls: list[int] = []

        def descent(*arguments: Any) -> Tensor:
            calls.append(1)
            if len(calls) == 3:
                raise end("now")
            return plain(*arguments)

        plain = Targeted.descent.__get__(Targeted([0] * ROWS))
        monkeypatch.setattr(Targeted, "descent", lambda self, *arguments: descent(*arguments))
        with pytest.raises(end):
            attack(model, pictures(), Targeted([0] * ROWS), LinfPGD(epsilon=0.1, steps=5), leave=False)
    else:
        attack(model, pictures(), Targeted([0] * ROWS), LinfPGD(epsilon=0.1, steps=5), leave=False)
    after = state(model)
    assert after[:2] == before[:2]
    assert all(torch.equal(a, b) for a, b in zip(after[2], before[2], strict=True))


def test_memory_that_runs_out_halves_the_batch(net: nn.Module) -> None:
    images = pictures()
    goal = Targeted(others(net, images))
    method = LinfPGD(epsilon=4 / 255, steps=4)
    expected = attack(net, images, goal, method, batch=2)

    class Full(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, some: Tensor) -> Tensor:
            if len(some) > 2:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            found: Tensor = self.net(some)
            return found

    with pytest.warns(UserWarning, match="memory ran out for") as told:
        found = attack(Full().eval(), images, goal, method, batch=8)
    assert len(told) == 1
    assert (found.images == expected.images).all()


# --- bad input ------------------------------------------------------------------------------------


class Argmax(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.one_hot(images.mean((2, 3)).argmax(1), 3).float() * 5 - 1


class Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * torch.tensor([1.0, torch.nan, 1.0])


def bad(**changes: Any) -> Callable[[], Attacked]:
    asked: dict[str, Any] = {
        "model": Net().eval(), "images": pictures(2), "goal": Targeted([0, 1]),
        "method": LinfPGD(epsilon=4 / 255, steps=2),
    } | changes  # fmt: skip
    return lambda: attack(
        asked.pop("model"), asked.pop("images"), asked.pop("goal"), asked.pop("method"), **asked
    )


BAD: dict[str, tuple[Callable[[], Any], type[CandlingError], str]] = {
    "no epsilon": (lambda: LinfPGD(epsilon=0), ParamsError, "epsilon is 0; it must be a number above 0"),
    "epsilon below zero": (lambda: L2PGD(epsilon=-1), ParamsError, "epsilon is -1"),
    "epsilon is nan": (lambda: L2PGD(epsilon=math.nan), ParamsError, "epsilon is nan"),
    "epsilon below a level": (bad(method=LinfPGD(epsilon=0.002)), ParamsError, "less than one of the 255"),
    "no steps": (lambda: LinfPGD(steps=0), ParamsError, "steps is 0; it must be a whole number from 1"),
    "half a restart": (lambda: LinfPGD(restarts=0.5), ParamsError, "restarts is 0.5"),  # type: ignore[arg-type]
    "no rate": (lambda: GradientDescent(rate=0), ParamsError, "rate is 0"),
    "certainty": (bad(probability=1.0), ParamsError, "probability is 1.0; it must lie between 0 and 1"),
    "other rows": (bad(goal=Targeted([0])), ParamsError, "2 pictures need a goal of as many classes, not 1"),
    "no such class": (bad(goal=Targeted([0, 4])), ParamsError, "no class 4; the model has 4, 0 to 3"),
    "a class below zero": (lambda: Targeted([-1]), ParamsError, "a whole number from 0"),
    "half a class": (lambda: Targeted([0.5]), ParamsError, "a whole number from 0"),  # type: ignore[list-item]
    "no pictures": (bad(images=pictures(2)[:0], goal=Targeted([])), DataError, "R at least 1"),
    "one picture": (bad(images=pictures(2)[0]), DataError, "must be of shape"),
    "whole numbers": (bad(images=pictures(2).long()), DataError, "must be uint8 or float"),
    "out of range": (bad(images=pictures(2).float()), DataError, "these go from 0 to 255"),
    "nan": (bad(images=torch.full((2, 3, *SIZE), torch.nan)), DataError, r"must lie in \[0, 1\]"),
    "a start elsewhere": (bad(start=torch.zeros(2, 3, 4, 4)), DataError, "starts are of shape"),
    "other channels": (bad(images=pictures(2, 4)), ModelError, "does not take a picture of 4 × 12 × 16"),
    "no gradient": (bad(model=Argmax()), ModelError, "does not reach the picture; look for argmax"),
    "not finite": (bad(model=Broken()), ModelError, "NaN or infinite"),
    "a grid that falls": (
        lambda: smallest_epsilon(
            Net(), pictures(1), Targeted([0]), LinfPGD(epsilon=1.0), grid=[0.2, 0.1]
        ), ParamsError, "a grid of epsilon is ascending",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str) -> None:
    run, kind, words = BAD[case]
    with pytest.raises(kind, match=words) as caught:
        run()
    assert "\n" not in str(caught.value)


def test_a_black_box_is_refused(tmp_path: Path) -> None:
    onnx_file(tmp_path)
    names = tmp_path / "names.json"
    names.write_text('["a", "b", "c"]')
    model, _ = open_model(ModelSource("onnx", str(tmp_path / "net.onnx"), classes=str(names)))
    with pytest.raises(ModelError, match=r"black box \(onnx\), so its gradient cannot be had"):
        attack(model, pictures(1), Targeted([0]), LinfPGD())
