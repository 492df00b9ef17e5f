"""Trust: each component against a reference, and planted flaws that must rank below sound prototypes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from candling.errors import DataError, ModelError
from candling.models import (
    Classifier,
    ModelSpec,
    build_model,
    evaluating,
    logits,
    penultimate,
    probabilities,
    with_new_head,
)
from candling.models.reading import recording
from candling.vision.climbing import row_generator
from candling.vision.prototypes import (
    FOURIER,
    MACO,
    fit_prior,
    generate_prototypes,
)
from candling.vision.scenes import CLASSES, Split, draw, plan_split
from candling.vision.training import Schedule, train
from candling.vision.transforms import unseen_transforms
from candling.vision.trust import (
    PathSimilarity,
    Trust,
    agreement,
    judge,
    path_layers,
    path_similarity,
    transfer,
)

ASSETS = Path(os.environ.get("CANDLING_ASSETS", Path(__file__).parents[3] / "shared" / "assets"))
Data = tuple[Tensor, Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- judge -------------------------------------------------------------------------------------


def test_score_is_the_geometric_mean_of_what_was_measured() -> None:
    unseen = torch.tensor([[0.8, 0.6, 0.1], [1.0, 1.0, 0.2], [0.5, 0.3, 0.2], [0.9, 0.9, 0.9]])
    like, path, second = (torch.tensor(v) for v in ([0.5, 1, 1, 0.4], [0.2, 1, 1, 0.7], [0.75, 1, 1, 0.1]))
    found = judge(unseen, chance=0.5, agreement=like, path=path, transfer=second)
    expected = [(0.2 * 0.5 * 0.2 * 0.5) ** 0.25, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(found.score, expected, atol=1e-6)
    np.testing.assert_allclose(found.unseen, [0.2, 1.0, 0.0, 0.8], atol=1e-6)
    np.testing.assert_allclose(found.transfer, [0.5, 1.0, 1.0, 0.0], atol=1e-6)
    assert found.components == ("unseen", "agreement", "path", "transfer")
    alone = judge(unseen)
    assert alone.components == ("unseen",)
    np.testing.assert_allclose(alone.score, [0.6, 1.0, 0.3, 0.9], atol=1e-6)


def test_what_could_not_be_measured_in_a_row_does_not_count_in_it() -> None:
    unseen = torch.full((2, 3), 0.9)
    found = judge(unseen, path=torch.tensor([float("nan"), 0.4]))
    np.testing.assert_allclose(found.score, [0.9, 0.6], atol=1e-6)


def test_lengths_and_chance_are_checked() -> None:
    with pytest.raises(ValueError, match="3 rows"):
        judge(torch.ones(3, 2), path=torch.ones(2))
    with pytest.raises(ValueError, match="chance"):
        judge(torch.ones(3, 2), chance=1.0)


# --- agreement ---------------------------------------------------------------------------------


def test_agreement_tells_clusters_from_clouds() -> None:
    classes = torch.arange(4).repeat_interleave(5)
    cloud = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    centres = 10 * torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    tight, loose = agreement(100 + cloud + centres[classes], classes), agreement(100 + cloud, classes)
    assert tight is not None
    assert loose is not None
    assert (tight > 0.95).all()
    assert (loose < 0.2).all()


def test_the_seed_that_strays_agrees_least() -> None:
    classes = torch.arange(3).repeat_interleave(4)
    features = torch.eye(3)[classes] + 0.05 * noise(12, 3)
    features[5] = torch.eye(3)[0]  # of class 1, but looks like class 0
    found = agreement(features, classes)
    assert found is not None
    assert found[5] == 0
    assert found.argmin() == 5
    others = [i for i in range(12) if classes[i] != 1]
    assert (found[others] > 0.7).all()


def test_agreement_needs_siblings_and_rivals() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    assert agreement(features, torch.tensor([0, 1, 2])) is None
    assert agreement(features, torch.tensor([0, 0, 0])) is None
    assert agreement(features[:0], torch.tensor([])) is None
    found = agreement(features, torch.tensor([0, 0, 1]))
    assert found is not None
    assert found.isnan().tolist() == [False, False, True]
    # Of two classes the centred features lie opposite each other: the seeds agree as well as can be.
    assert (found[:2] > 0.95).all()


# --- path similarity ---------------------------------------------------------------------------


class Colours(nn.Module):
    """Two layers that mix red and blue: enough to tell red pictures from blue ones."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(6, 5, 3, padding=1, stride=2)
        self.head = nn.Linear(5, 2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.second(self.act(self.first(images)))).mean((2, 3)))


def coloured(count: int, side: int = 10) -> Data:
    """Red and blue pictures, alternating, with texture."""
    labels = torch.arange(count) % 2
    images = 0.6 * noise(count, 3, side, side, seed=3)
    images[labels == 0, 0] += 0.15
    images[labels == 1, 2] += 0.15
    return images, labels


def test_path_is_spearmans_correlation_between_floor_and_ceiling() -> None:
    model, (pictures, labels) = Colours(), coloured(24)
    pictures[:, :, 2:5] = 0.0  # so that rectified outputs are tied
    prototypes, classes = pictures[:4].flip(3) ** 0.8, torch.tensor([0, 1, 1, 0])
    found = path_similarity(model, prototypes, classes, pictures, labels, layers=["act", "second"])
    with torch.no_grad(), evaluating(model), recording(model, ["act", "second"]) as seen:
        model(torch.cat([pictures, prototypes]))
    for i, name in enumerate(("act", "second")):
        rho = spearmanr(seen[name].flatten(1).numpy(), axis=1).statistic
        natural, same = rho[:24, :24], (labels[:, None] == labels).numpy()
        floor, ceiling = natural[~same].mean(), natural[same & ~np.eye(24, dtype=bool)].mean()
        assert found.floor[i] == pytest.approx(floor, abs=1e-4)
        assert found.ceiling[i] == pytest.approx(ceiling, abs=1e-4)
        own = np.array([rho[24 + r, :24][(labels == classes[r]).numpy()].mean() for r in range(4)])
        for r in range(4):
            block = natural[np.ix_(labels == classes[r], labels == classes[r])]
            others = np.array([np.delete(row, k).mean() for k, row in enumerate(block)])
            below = max(0.0, (others.mean() - own[r]) / others.std(ddof=1))
            assert found.likeness[r, i] == pytest.approx(np.exp(-below), abs=1e-2)
        if found.speaks[i]:
            np.testing.assert_allclose(found.values[:, i], (own - floor) / (ceiling - floor), atol=1e-2)
        else:
            assert found.values[:, i].isnan().all()
    assert found.speaks.any()
    torch.testing.assert_close(found.score, found.likeness.mean(1))


def test_layers_are_blocks_spread_over_the_depth() -> None:
    spec = ModelSpec("residual_cnn", ("a", "b"), (32, 32), {"widths": [4, 6, 8]})
    names = path_layers(build_model(spec, seed=0), (32, 32))
    assert names == ("stem", "stages.0.body", "stages.0.shortcut", "stages.0", "stages.1.body",
                     "stages.1.shortcut", "stages.1")  # fmt: skip
    assert path_layers(build_model(spec, seed=0), (32, 32), 3) == ("stem", "stages.0", "stages.1")
    assert path_layers(Colours(), (10, 10)) == ("first", "second")
    assert path_layers(nn.Sequential(nn.Flatten(), nn.Linear(300, 2)), (10, 10)) == ()


def test_no_layers_and_no_pictures_give_no_score_but_a_reason() -> None:
    images, labels = coloured(12)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(300, 2))
    found = path_similarity(flat, images[:2], labels[:2], images, labels)
    assert found.score.isnan().all()
    assert "no layer whose output has places" in found.reason
    found = path_similarity(Colours(), images[:2], labels[:2], images, torch.zeros(12, dtype=torch.long))
    assert found.score.isnan().all()
    assert "two classes" in found.reason
    found = path_similarity(Colours(), images[:3], torch.tensor([0, 1, 7]), images, labels, layers=["act"])
    assert found.score.isnan().tolist() == [False, False, True]
    with pytest.raises(DataError, match=r"\(3, 8, 8\).*\(3, 10, 10\)"):
        path_similarity(Colours(), images[:2, :, :8, :8], labels[:2], images, labels)
    with pytest.raises(ModelError, match="no layer 'frist'.*'first'"):
        path_similarity(Colours(), images[:2], labels[:2], images, labels, layers=["frist"])


# --- transfer ----------------------------------------------------------------------------------


def test_transfer_reads_a_second_model_at_its_own_size() -> None:
    images, classes = noise(5, 3, 24, 24), torch.tensor([0, 2, 1, 1, 0])
    small = build_model(ModelSpec("residual_cnn", ("a", "b", "c"), (16, 16), {"widths": [4, 6]}), seed=1)
    resized = small.geometry(images)
    expected = logits(small, resized).softmax(1)[torch.arange(5), classes]
    torch.testing.assert_close(transfer(small, images, classes), expected)
    with pytest.raises(ModelError, match="3 classes.*class 3"):
        transfer(small, images, torch.tensor([0, 2, 1, 1, 3]))


# --- planted flaws -----------------------------------------------------------------------------


def climbed(model: nn.Module, start: Tensor, classes: Tensor, *, steps: int = 100) -> Tensor:
    """Pixels that climb the logit with neither prior nor transforms."""
    pixels = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([pixels], lr=0.02)
    with evaluating(model):
        for _ in range(steps):
            (pixels.grad,) = torch.autograd.grad(-model(pixels).gather(1, classes[:, None]).sum(), pixels)
            optimiser.step()
            pixels.data.clamp_(0, 1)
    return pixels.detach()


def attacked(model: nn.Module, start: Tensor, classes: Tensor, *, steps: int = 20) -> Tensor:
    """Projected gradient descent (Madry et al. 2018) on noise, within 0.1 of it."""
    images = start.clone().requires_grad_()
    with evaluating(model):
        for _ in range(steps):
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), classes), images)
            with torch.no_grad():
                moved = images - 0.01 * gradient.sign()
                images.copy_((start + (moved - start).clamp(-0.1, 0.1)).clamp(0, 1))
    return images.detach()


def trust(
    model: Classifier, images: Tensor, classes: Tensor, evaluation: Data
) -> tuple[Trust, PathSimilarity]:
    views = unseen_transforms(images, row_generator("unseen transforms"))
    unseen = torch.cat([probabilities(model, logits(model, v)).gather(1, classes[:, None]) for v in views], 1)
    path = path_similarity(model, images, classes, *evaluation)
    like = agreement(penultimate(model, images), classes)
    return judge(unseen, chance=1 / len(model.classes), agreement=like, path=path.score), path


def check_ranking(
    model: Classifier,
    untrained: Classifier,
    training: Data,
    evaluation: Data,
    *,
    seeds: int,
    speed: float,
    starts: int = 2,
) -> None:
    """Sound prototypes, of both presets, rank above those of every planted flaw."""
    count = len(model.classes)
    prior = fit_prior(training[0])
    classes = torch.arange(count).repeat_interleave(seeds)
    presets = [
        replace(p, seeds=seeds, steps=int(speed * p.steps), starts=min(starts, p.starts))
        for p in (MACO, FOURIER)
    ]

    def optimised(network: nn.Module) -> Tensor:
        return torch.cat(
            [generate_prototypes(network, range(count), prior, settings=p).images / 255 for p in presets]
        )

    grain = noise(len(classes), 3, *training[0].shape[2:])
    grey = 0.5 + 0.02 * (grain - 0.5)
    sound, senseless = optimised(model), optimised(untrained)
    twice = classes.repeat(2)

    def scores(network: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        # A set at a time, so that no set borrows agreement from another.
        parts = zip(images.split(len(classes)), targets.split(len(classes)), strict=True)
        return torch.cat([trust(network, i, c, evaluation)[0].score for i, c in parts])

    good = scores(model, sound, twice)
    flaws: dict[str, Tensor] = {
        "no regulariser": scores(
            model, torch.cat([climbed(model, grey, classes), climbed(model, grain, classes)]), twice
        ),
        "wrong class": scores(model, sound, (twice + 1) % count),
        "adversarial noise": scores(
            model, torch.cat([attacked(model, grey, classes), attacked(model, grain, classes)]), twice
        ),
        "random weights, by themselves": scores(untrained, senseless, twice),
        "random weights, by the trained model": scores(model, senseless, twice),
    }
    # A network without knowledge that is sure of itself.
    confident = build_model(untrained.spec, seed=9)
    confident.load_state_dict(untrained.state_dict())
    head = [m for m in confident.modules() if isinstance(m, nn.Linear)][-1]
    rows = logits(untrained, senseless)
    head.weight.data *= 8 / float((rows - rows.mean(0)).std())
    if head.bias is not None:
        head.bias.data.zero_()
    flaws["confident random weights, by themselves"] = scores(confident, optimised(confident), twice)
    _, path = trust(confident, senseless[: len(classes)], classes, evaluation)
    assert not path.speaks.any()
    assert "than their pixels" in path.reason
    assert (path.score == 0).all()

    def area(bad: Tensor) -> float:
        return float(roc_auc_score([1] * len(good) + [0] * len(bad), torch.cat([good, bad])))

    areas = {name: area(bad) for name, bad in flaws.items()} | {
        "overall": area(torch.cat(list(flaws.values())))
    }
    print({name: round(value, 3) for name, value in areas.items()}, "sound", good.mean().item())
    assert {name: value for name, value in areas.items() if value < 0.9} == {}
    # Trust in a sound prototype is no small number that happens to be larger.
    assert good.median() > 0.5


def scenes(name: str, images: int, side: int) -> Data:
    plan = plan_split(Split(name, images, "balanced"), 0)
    pixels = np.stack([draw(scene, side).image for scene in plan])
    labels = torch.tensor([CLASSES.index(scene.label) for scene in plan])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels


def textures(count: int, side: int = 48, *, seed: int) -> Data:
    """Stripes, rings and squares of any colours and places, on backgrounds of any colours."""
    labels = torch.arange(count) % 3
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    cy, cx = (side * (0.35 + 0.3 * drawn(count, 1, 1)) for _ in range(2))
    dy, dx = y - cy, x - cx
    radius = (dy.square() + dx.square()).sqrt()
    shapes = [
        (torch.sin((x + 0.5 * dy) * 1.1) > 0) & (radius < 13),
        ((radius / 3.0).long() % 2 == 0) & (radius < 14),
        (dy.abs() < 9) & (dx.abs() < 9) & ((dy.abs() > 5) | (dx.abs() > 5)),
    ]
    mask = torch.stack([s.expand(count, side, side) for s in shapes], 1)[torch.arange(count), labels]
    back = F.interpolate(drawn(count, 3, 4, 4), size=(side, side), mode="bilinear")
    contrast = (drawn(count, 1, 1, 1) > 0.5).float()
    front = 0.15 * drawn(count, 3, 1, 1) + 0.85 * contrast
    images = torch.where(mask[:, None], front, 0.25 + 0.5 * back) + 0.03 * drawn(count, 3, side, side)
    return (255 * images.clamp(0, 1)).to(torch.uint8), labels


def test_trust_ranks_planted_flaws_below_sound_prototypes() -> None:
    training, evaluation = scenes("diversified", 480, 64), scenes("eval", 120, 64)
    spec = ModelSpec("residual_cnn", CLASSES, (64, 64), {"widths": [16, 24, 32, 48]})
    model = train(build_model(spec, seed=0), *training, Schedule(steps=150, l1=1e-3), seed=0)
    right = (logits(model, evaluation[0]).argmax(1) == evaluation[1]).float().mean()
    assert right > 0.9, "the case shows nothing of a network that has not learned its classes"
    check_ranking(model, build_model(spec, seed=9), training, evaluation, seeds=4, speed=0.5)


@pytest.fixture(scope="module")
def textured() -> tuple[Classifier, Data]:
    spec = ModelSpec("residual_cnn", ("stripes", "rings", "squares"), (48, 48), {"widths": [16, 24, 32]})
    model = build_model(spec, seed=0)
    return train(model, *textures(300, seed=0), Schedule(steps=60, batch=32), seed=0), textures(90, seed=1)


def test_pictures_lie_at_the_ceiling_of_their_class_and_at_the_floor_of_others(
    textured: tuple[Classifier, Data],
) -> None:
    model, evaluation = textured
    pictures, labels = textures(60, seed=5)
    own = path_similarity(model, pictures.float() / 255, labels, *evaluation)
    other = path_similarity(model, pictures.float() / 255, (labels + 1) % 3, *evaluation)
    assert own.speaks[-1]
    assert own.values[:, own.speaks].mean(0).sub(1).abs().max() < 0.35
    assert other.values[:, other.speaks].mean(0).abs().max() < 0.35


def test_a_row_does_not_depend_on_the_others_and_the_model_is_left_as_it_was(
    textured: tuple[Classifier, Data],
) -> None:
    model, evaluation = textured
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, classes = noise(6, 3, 48, 48), torch.tensor([0, 1, 2, 0, 1, 2])
    together = path_similarity(model, images, classes, *evaluation)
    alone = path_similarity(model, images[4:5], classes[4:5], *evaluation)
    torch.testing.assert_close(alone.values[0], together.values[4], atol=1e-4, rtol=1e-3, equal_nan=True)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()


def test_hundreds_of_classes_are_judged_on_a_panel(
    textured: tuple[Classifier, Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (pictures, _) = textured
    passed = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal passed
        passed += len(inputs[0])

    many = pictures.repeat(8, 1, 1, 1)
    handle = model.register_forward_pre_hook(count)
    path_similarity(model, noise(2, 3, 48, 48), torch.tensor([3, 200]), many, torch.arange(720) % 360)
    handle.remove()
    assert passed < 230


# --- the real classifiers ----------------------------------------------------------------------


@pytest.mark.slow
def test_trust_ranks_on_tanks() -> None:
    """The recipe of `after` in params/tanks.yaml, from scratch on fewer pictures for fewer steps."""
    training, evaluation = scenes("diversified", 640, 96), scenes("eval", 160, 96)
    spec = ModelSpec("residual_cnn", CLASSES, (96, 96), {"widths": [24, 32, 64, 96]})
    model = train(build_model(spec, seed=0), *training, Schedule(steps=160, l1=1e-3), seed=0)
    assert (logits(model, evaluation[0]).argmax(1) == evaluation[1]).float().mean() > 0.9
    check_ranking(model, build_model(spec, seed=9), training, evaluation, seeds=6, speed=1.0, starts=8)


@pytest.mark.slow
@pytest.mark.skipif(not (ASSETS / "food5_64").is_dir(), reason=f"no photographs in {ASSETS}")
def test_trust_ranks_on_food() -> None:
    """MobileNetV2 with a new head, as params/food.yaml makes it, at 96 px for fewer steps."""
    from safetensors.torch import load_file

    names = ("hamburger", "pancakes", "waffles", "ice_cream", "frozen_yogurt")

    def photographs(split: str) -> Data:
        files = [
            (f, c) for c, n in enumerate(names) for f in sorted((ASSETS / "food5_64" / split / n).iterdir())
        ]
        pictures = [
            np.array(Image.open(f).convert("RGB").resize((96, 96), Image.Resampling.BICUBIC))
            for f, _ in files
        ]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), torch.tensor(
            [c for _, c in files]
        )

    folder = ASSETS / "mobilenet_v2"
    said = json.loads((folder / "preprocessing.json").read_text())
    thousand = tuple(map(str, range(1000)))
    spec = ModelSpec(
        "torchvision:mobilenet_v2", thousand, (96, 96), mean=tuple(said["mean"]), std=tuple(said["std"])
    )
    base = build_model(spec, seed=0)
    base.network.load_state_dict(load_file(folder / "model.safetensors"))
    training, evaluation = photographs("train"), photographs("test")
    schedule = Schedule(steps=50, batch=32, learning_rate=5e-4, freeze_norm=True)
    model = train(with_new_head(base, names, seed=0), *training, schedule, seed=0)
    assert (logits(model, evaluation[0]).argmax(1) == evaluation[1]).float().mean() > 0.5
    check_ranking(model, build_model(model.spec, seed=9), training, evaluation, seeds=3, speed=0.4)
