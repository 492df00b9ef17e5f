"""How fast are prototypes made, how good are they, and what does each ingredient give?

    python -m benchmarks.prototypes [--quick] [--json FILE] [--only NAME…] [--ablate]

Three networks: ResNet-18 with random weights at 224 px, for speed; the real MobileNetV2 of CANDLING_ASSETS
at 224 px; a small residual network trained here at 64 px, on food5_64 of CANDLING_ASSETS, or on drawn scenes
without it. Two peers: torch-lucent 0.1.8 with kornia 0.4.1, and horama 0.3.0. Each runs as a subprocess in an
environment of its own, `.candling/peers/<name>`, which is made when it is first needed from
`benchmarks/peers/<name>.txt`, without torch: the project's own packages come after the peer's on its path, so
that all are measured on the same torch and torchvision, and on as many threads (two).

- `overhead_over_floor.<model>`: seconds of a step over a bare forward and backward pass to the input of the
  same batch, at the same precision and memory format, both noted at the model's own forward pass; in turns,
  the median over repetitions, their least and greatest as low and high. With a peer's name at the end: its.
- `prototypes_per_minute_vs_best_peer`: each tool gets budgets of steps, which gives its mean probability
  under held-out transforms over time, on the same classes. A tool's rate at a probability is that of its
  fastest way there. The figure is candling's rate over the best peer's, the least over the probabilities 0.5,
  0.8, 0.9 and the peers' best (as far as any peer gets), and over both networks. Its low and high are over
  repetitions, each with one seed. Peers get favours: parameters that want no gradient, channels-last weights
  where that helps, hooks taken off between runs, sizes and crops that suit the network beside their defaults,
  the better of two readings of horama's images, and the best of all their settings at each probability in
  hindsight; candling gets one default. horama downloads the magnitudes of its MACO, which cannot be had here;
  it gets 1/f instead. A peer's prototype may take `--patience` seconds. For information,
  `rate_over_peers_defaults` is candling's rate over that of the peers' defaults alone.
- `memory_1000_over_100_classes`: peak memory of a process that makes one prototype for each of 1000 classes,
  over that for 100.
- `hooks_left`: hooks on the model after a run, a run that fails and one that is interrupted.

`--ablate` prints instead what each ingredient contributes: probability under held-out transforms, and
likeness of the path through the network to that of natural pictures (`candling.vision.trust`), with the
ingredient changed less the default.

Takes about an hour on two cores, `--quick` about ten minutes: fewer classes, one seed, half the budgets.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import ask
from benchmarks.peers.common import count_hooks, over_floor
from candling.data import Pictures, import_pictures, read_source, read_split
from candling.data.source import DataSource
from candling.models import (
    ModelSource,
    ModelSpec,
    build_model,
    import_model,
    load_model,
    logits,
    probabilities,
)
from candling.models.memory import keeping_memory
from candling.vision import climbing
from candling.vision.climbing import FOURIER, MACO, Climb, row_generator
from candling.vision.objectives import logit
from candling.vision.priors import Prior, natural_prior
from candling.vision.scenes import Split, write_splits
from candling.vision.training import Schedule, train
from candling.vision.transforms import unseen_transforms
from candling.vision.trust import path_similarity

__all__ = ["Curve", "affordable", "main", "rate_ratio", "seconds_to"]

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("CANDLING_ASSETS", ROOT.parent / "shared" / "assets"))
THREADS = 2
LEVELS = (0.5, 0.8, 0.9)
DISHES = ("hamburger", "pancakes", "waffles", "ice_cream", "frozen_yogurt")
# goldfish, flamingo, giant panda, zebra, school bus, banana, pizza, daisy
IMAGENET = (1, 130, 388, 340, 779, 954, 963, 985)
GOALS = {"resnet18": "<= 1.10", "mobilenet_v2": "<= 1.20"}

Row = dict[str, object]


# -- candling: all that depends on how the engine is called ----------------------------------------


@dataclass(frozen=True)
class Options:
    """What a run of candling may change of its default; `--ablate` goes through these."""

    settings: Climb = FOURIER
    prior: Callable[[tuple[int, int]], Prior] = natural_prior


def candling(
    model: nn.Module,
    classes: Sequence[int],
    size: int,
    steps: int,
    *,
    seeds: int = 1,
    options: Options | None = None,
) -> tuple[Tensor, Tensor]:
    """Prototypes by candling: images (R, 3, size, size) in [0, 1], and classes (R,), seed by seed in each."""
    images = torch.stack(climbed(model, classes, size, steps, seeds=seeds, options=options))
    return images.float() / 255, torch.tensor([c for c in classes for _ in range(seeds)])


def climbed(
    model: nn.Module,
    classes: Sequence[int],
    size: int,
    steps: int,
    *,
    seeds: int = 1,
    options: Options | None = None,
) -> list[Tensor]:
    """The pictures alone, uint8, as peers make them: without what `generate_prototypes` measures of them."""
    options = options or Options()
    settings = dataclasses.replace(options.settings, steps=steps, seeds=seeds)
    rows = [climbing.Row(logit(c), seed) for c in classes for seed in range(seeds)]
    made: dict[int, Tensor] = {}
    climbing.climb(
        model, rows, options.prior((size, size)), settings,
        finished=lambda place, row: made.update({place: row.image}),
    )  # fmt: skip
    return [made[place] for place in range(len(rows))]


def steady(model: nn.Module, size: int, steps: int) -> None:
    """Full batches of rows by candling, all of them at the full size and for all steps."""
    options = changed(growth=((1.0, 1.0),), starts=1, enough=None, patience=None)
    candling(model, range(8), size, steps, options=options)


def uncorrelated(size: tuple[int, int]) -> Prior:
    """The default prior without its colours: each channel by itself, as strong on average."""
    prior = natural_prior(size)
    return dataclasses.replace(prior, colours=prior.colours.norm(dim=1).mean() * torch.eye(prior.channels))


def white(size: tuple[int, int]) -> Prior:
    """The default prior without its spectrum: all frequencies alike, as strong on average."""
    prior = natural_prior(size)
    return dataclasses.replace(prior, spectrum=torch.ones_like(prior.spectrum))


def changed(**settings: Any) -> Options:
    """The default with some settings changed."""
    return Options(settings=dataclasses.replace(FOURIER, **settings))


# What `--ablate` compares with the default: an ingredient taken away, changed or added. What is the default's
# already is left out.
ABLATIONS: dict[str, Options] = {
    "maco": Options(settings=MACO),
    "pixels": changed(parameterisation="pixels"),
    "no_spectrum": Options(prior=white),
    "no_colour_decorrelation": Options(prior=uncorrelated),
    "no_transforms": changed(robustness="none"),
    "transforms_s": changed(robustness="s"),
    "transforms_l": changed(robustness="l"),
    "no_limit": changed(limit=None),
    "no_fall": changed(fall=0.0),
    "no_heats": changed(starts=1),
    "no_frequency_penalty": changed(high_frequency=0.0, total_variation=0.0),
    "frequency_penalty": changed(high_frequency=1.0),
    "no_growth": changed(growth=((1.0, 1.0),)),
    "no_early_leaving": changed(enough=None, patience=None),
    "early_leaving": changed(enough=0.95),
    "no_diversity": changed(diversity=0.0),
    "diversity": changed(diversity=0.3),
    "bfloat16": changed(precision="bfloat16"),
    "float32": changed(precision="float32"),
}


# -- Networks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A network whose prototypes are made; `pictures` are natural ones, where there are any."""

    name: str
    model: nn.Module
    size: int
    classes: tuple[int, ...]
    pictures: Pictures | None = None


def resnet18() -> Subject:
    """ResNet-18 with random weights: as fast as a trained one."""
    spec = ModelSpec("torchvision:resnet18", tuple(map(str, range(1000))), (224, 224))
    return Subject("resnet18", build_model(spec), 224, tuple(range(8)))


def mobilenet() -> Subject | None:
    """The real MobileNetV2, None without CANDLING_ASSETS."""
    folder = ASSETS / "mobilenet_v2"
    if not (folder / "model.safetensors").exists():
        print(f"mobilenet_v2: left out, there are no weights in {folder}")
        return None
    source = ModelSource(
        "torchvision", "mobilenet_v2", weights=str(folder / "model.safetensors"),
        classes=str(folder / "classes.json"), preprocessing=str(folder / "preprocessing.json"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        import_model(source, Path(scratch, "model"))
        return Subject("mobilenet_v2", load_model(Path(scratch, "model")), 224, IMAGENET)


def _trained(name: str, pictures: Pictures, held: Pictures, classes: tuple[str, ...], steps: int) -> Subject:
    size = pictures.images.shape[-1]
    model = build_model(ModelSpec("residual_cnn", classes, (size, size)))
    train(model, pictures.images, pictures.labels, Schedule(steps=steps), seed=0)
    right = (logits(model, held.images).argmax(1) == held.labels).float().mean()
    print(f"{name}: {size} px, {len(classes)} classes, right on {right:.0%} of {len(held.labels)} held-out")
    return Subject(name, model, size, tuple(range(len(classes))), held)


def food(steps: int) -> Subject | None:
    """A small network that tells five dishes apart at 64 px, None without CANDLING_ASSETS."""
    if not (ASSETS / "food5_64").is_dir():
        return None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for split in ("train", "test"):
            samples = read_source(DataSource(location=str(ASSETS / "food5_64"), split=split))
            import_pictures(samples, DISHES, None, folder, split)
        known, held = (read_split(folder, split, DISHES) for split in ("train", "test"))
    return _trained("food", known, held, DISHES, steps)


def tanks(steps: int, size: int = 96) -> Subject:
    """The repaired detector of the tank story: every class on every background."""
    classes = ("no_tank", "tank")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "tanks")
        splits = [Split("train", 1600, "balanced"), Split("eval", 160, "balanced")]
        write_splits(folder, splits, seed=0, size=size)
        known, held = (read_split(folder, split, classes) for split in ("train", "eval"))
    return _trained("tanks", known, held, classes, steps)


def small_cnn(steps: int) -> Subject:
    """The small network at 64 px that the tools are compared on."""
    found = food(steps) or tanks(steps, 64)
    return dataclasses.replace(found, name="small_cnn")


# -- Quality ---------------------------------------------------------------------------------------


def held_out(model: nn.Module, images: Tensor, classes: Tensor, size: int) -> Tensor:
    """Probability (R,) of each image's class, the mean over transforms that no optimiser used.

    Images (R, 3, h, w) of any size are brought to that of the model first.
    """
    if tuple(images.shape[2:]) != (size, size):
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    views = unseen_transforms(images.clamp(0, 1), row_generator("unseen transforms"))
    column = classes[:, None]
    found = [probabilities(model, logits(model, view)).gather(1, column) for view in views]
    return torch.cat(found, 1).mean(1)


# -- Peers -----------------------------------------------------------------------------------------

Config = dict[str, Any]


def _horama(method: str, image: int, seen: int, crops: int, box: tuple[float, float]) -> Config:
    # Six crops are a quarter faster with channels-last weights; lucent's single image is not.
    return {"method": method, "image": image, "seen": seen, "crops": crops, "box": list(box),
            "channels_last": True}  # fmt: skip


def peer_settings(size: int) -> dict[str, tuple[str, Config]]:
    """Label to peer and its settings: the defaults, and what suits a network of this size better.

    horama's crops are from b to 2b - a of the side, for a `box` of (a, b): (0.7, 0.8) gives 0.8 to 0.9. It
    fails on a single crop a step, so that two are its fewest.
    """
    half = max(64, size * 4 // 7)
    fit = (0.7, 0.8)
    some: dict[str, tuple[str, Config]] = {
        "lucent": ("lucent", {"image": 128}),
        "lucent.fit": ("lucent", {"image": size, "seen": size}),
        "horama.maco": ("horama", _horama("maco", 1280, size, 6, (0.20, 0.25))),
        "horama.fourier": ("horama", _horama("fourier", 1280, size, 6, (0.20, 0.25))),
        "horama.maco.middle": ("horama", _horama("maco", 2 * size, size, 6, (0.45, 0.5))),
        "horama.maco.fit": ("horama", _horama("maco", size, size, 2, fit)),
        "horama.fourier.fit": ("horama", _horama("fourier", size, size, 2, fit)),
    }
    if half < size:
        # Steps at a lower resolution are cheaper: 128 px for 224.
        some["lucent.half"] = ("lucent", {"image": half, "seen": half})
        some["horama.fourier.half"] = ("horama", _horama("fourier", half, half, 2, fit))
    return some


PEER_DEFAULTS = {"lucent": "lucent", "horama": "horama.maco"}


def _request(what: str, config: Config, path: Path, budgets: Sequence[int], **more: Any) -> dict[str, Any]:
    return {"what": what, "model": str(path), "config": config, "budgets": list(budgets),
            "channels_last": config.get("channels_last", False), **more}  # fmt: skip


def affordable(budgets: Sequence[int], per_step: float, patience: float) -> list[int]:
    """The budgets of steps that `patience` seconds allow at `per_step` seconds, at least the smallest."""
    return [b for b in sorted(budgets) if b * per_step <= patience] or [min(budgets)]


# -- Rates -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """What a tool gets for its steps: seconds a prototype and mean probability, (repetitions, budgets)."""

    steps: tuple[int, ...]
    seconds: Tensor
    probability: Tensor

    def points(self, repetition: int | None = None) -> list[tuple[float, float]]:
        """Seconds and probability of each budget, of one repetition or the mean over all."""
        seconds, probability = (
            values.mean(0) if repetition is None else values[repetition]
            for values in (self.seconds, self.probability)
        )
        return list(zip(seconds.tolist(), probability.tolist(), strict=True))


def seconds_to(points: Sequence[tuple[float, float]], level: float) -> float | None:
    """Seconds after which a curve of (seconds, probability) first reaches a level; None if it does not.

    Linear between budgets; nothing is known before the first, so it is never less than that takes.
    """
    before: tuple[float, float] | None = None
    for seconds, probability in sorted(points):
        if probability >= level:
            if before is None:
                return seconds
            # `before` is below the level and this one is not, so that they differ.
            part = (level - before[1]) / (probability - before[1])
            return before[0] + part * (seconds - before[0])
        before = (seconds, probability)
    return None


def rate_ratio(
    ours: Sequence[tuple[float, float]],
    peers: Mapping[str, Sequence[tuple[float, float]]],
    levels: Sequence[float] = LEVELS,
) -> list[tuple[float, str, float]]:
    """For each probability that a peer reaches: it, its fastest peer, and our rate over that peer's.

    The best that any peer reaches is one of the probabilities. Where we do not get so far the ratio is 0.
    """
    best = max(probability for points in peers.values() for _, probability in points)
    found = []
    for level in sorted({*(one for one in levels if one < best), best}):
        times = {name: seconds_to(points, level) for name, points in peers.items()}
        name, theirs = min(
            ((name, t) for name, t in times.items() if t is not None), key=lambda pair: pair[1]
        )
        own = seconds_to(ours, level)
        found.append((level, name, 0.0 if own is None else theirs / own))
    return found


def curves(
    subject: Subject, path: Path, *, budgets: Sequence[int], repetitions: int, patience: float
) -> dict[str, Curve]:
    """Each tool's curve on the subject's classes; repetitions with a seed each, the tools in turns."""
    model, size, classes = subject.model, subject.size, subject.classes
    target = torch.tensor(classes)
    settings = peer_settings(size)
    # More small ones for the peers, whose images cost nothing on the way.
    wanted = sorted({2, 4, 8, *budgets, *(3 * b // 2 for b in budgets if b >= 32)})
    allowed: dict[str, list[int]] = {}
    for label, (peer, config) in settings.items():
        request = _request("curve", config, path, range(1, 9), rows=[(classes[0], 0)], size=size)
        ends = ask(peer, request, threads=THREADS)["seconds"][0].tolist()
        per_step = statistics.median(b - a for a, b in itertools.pairwise(ends))
        allowed[label] = affordable([*wanted, 2 * max(wanted)], per_step, patience)
    seconds: dict[str, list[list[float]]] = {label: [] for label in ("candling", *settings)}
    readings: dict[str, list[Tensor]] = {label: [] for label in settings}
    ours: list[list[float]] = []
    candling(model, classes[:1], size, 2)  # the first steps of a process are slow
    for repetition in range(repetitions):
        times, found = [], []
        for steps in budgets:
            began = time.perf_counter()
            images, kinds = candling(model, classes, size, steps, seeds=repetitions)
            times.append((time.perf_counter() - began) / len(images))
            chosen = torch.arange(repetition, len(images), repetitions)
            found.append(float(held_out(model, images[chosen], kinds[chosen], size).mean()))
        seconds["candling"].append(times)
        ours.append(found)
        for label, (peer, config) in settings.items():
            rows = [(c, repetition) for c in classes]
            request = _request("curve", config, path, allowed[label], rows=rows, size=size)
            began = time.perf_counter()
            answered = ask(peer, request, threads=THREADS)
            print(f"  {subject.name}, seed {repetition}: {label}, up to {allowed[label][-1]} steps, "
                  f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
            seconds[label].append(answered["seconds"].mean(0).tolist())
            readings[label].append(
                torch.tensor(
                    [
                        [float(held_out(model, images[:, b], target, size).mean())
                         for b in range(images.shape[1])]
                        for images in answered["images"]
                    ]
                )
            )  # fmt: skip
    made = {"candling": Curve(tuple(budgets), torch.tensor(seconds["candling"]), torch.tensor(ours))}
    for label in settings:
        # (readings, repetitions, budgets): the reading that is better on the whole.
        by_reading = torch.stack(readings[label], 1)
        better = by_reading[int(by_reading.amax(2).mean(1).argmax())]
        made[label] = Curve(tuple(allowed[label]), torch.tensor(seconds[label]), better)
    return made


# -- Memory and hooks ------------------------------------------------------------------------------


def peak_memory(classes: int, size: int, steps: int) -> int:
    """Most bytes that this process has had in memory, once it has made a prototype for each class."""
    torch.set_num_threads(THREADS)
    spec = ModelSpec("torchvision:mobilenet_v2", tuple(map(str, range(1000))), (size, size))
    made = climbed(build_model(spec), range(classes), size, steps)
    assert len(made) == classes
    status = Path("/proc/self/status")
    if status.exists():
        # What `getrusage` says also counts the parent's memory, from before this program was loaded.
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert found is not None
        return int(found.group(1)) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def peak_memory_of(classes: int, size: int, steps: int) -> int:
    """`peak_memory` of a process of its own."""
    program = f"from benchmarks.prototypes import peak_memory; print(peak_memory({classes}, {size}, {steps}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return int(done.stdout.split()[-1])


class Failing(nn.Module):
    """A model whose third forward pass raises."""

    def __init__(self, model: nn.Module, error: type[BaseException]) -> None:
        super().__init__()
        self.model, self.error, self.calls = model, error, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 3:
            raise self.error("on purpose")
        out: Tensor = self.model(images)
        return out


def hooks_left(subject: Subject) -> int:
    """Hooks on the model and what holds it after a run, a run that fails and one that is interrupted."""
    candling(subject.model, subject.classes, subject.size, 3)
    left = count_hooks(subject.model)
    for error in (RuntimeError, KeyboardInterrupt):
        failing = Failing(subject.model, error)
        try:
            candling(failing, subject.classes, subject.size, 6)
        except BaseException as caught:
            if not isinstance(caught, error) and not isinstance(caught.__cause__, error):
                raise
        else:
            raise RuntimeError("a run over a model that raises came to its end")
        left += count_hooks(failing)
    return left


# -- Ablation --------------------------------------------------------------------------------------


def ablate(subject: Subject, *, seeds: int, steps: int) -> list[Row]:
    """What each ingredient contributes: the default, then the difference that each change makes.

    Each prototype is compared with the default's of the same class and seed; low and high are a 95% interval
    of the mean difference, by its standard error. Seconds are a ratio to the default's, measured once.
    """

    def measured(options: Options) -> tuple[dict[str, Tensor], float]:
        began = time.perf_counter()
        images, classes = candling(
            subject.model, subject.classes, subject.size, steps, seeds=seeds, options=options
        )
        taken = (time.perf_counter() - began) / len(images)
        found = {"probability": held_out(subject.model, images, classes, subject.size)}
        if subject.pictures is not None:
            natural = subject.pictures
            found["path_similarity"] = path_similarity(
                subject.model, images, classes, natural.images, natural.labels
            ).score
        return found, taken

    def row(name: str, values: Tensor, unit: str) -> Row:
        return _row(
            f"ablate.{subject.name}.{name}", float(values.mean()), *_interval(values), len(values), unit
        )

    candling(subject.model, subject.classes[:1], subject.size, 2)  # the first steps of a process are slow
    default, seconds = measured(Options())
    rows = [row(f"default.{what}", values, "mean") for what, values in default.items()]
    rows.append(_row(f"ablate.{subject.name}.default.seconds", seconds, seconds, seconds, 1, "s a prototype"))
    for name, options in ABLATIONS.items():
        if options == Options():
            continue
        found, taken = measured(options)
        rows += [row(f"{name}.{what}", values - default[what], "change from the default")
                 for what, values in found.items()]  # fmt: skip
        print(f"  {subject.name}: {name}", flush=True)
        times = taken / seconds
        rows.append(
            _row(f"ablate.{subject.name}.{name}.seconds", times, times, times, 1, "times the default's")
        )
    return rows


def _interval(values: Tensor) -> tuple[float, float]:
    error = 1.96 * float(values.std()) / len(values) ** 0.5
    return float(values.mean()) - error, float(values.mean()) + error


# -- Rows ------------------------------------------------------------------------------------------


def _row(name: str, value: float, low: float, high: float, n: int, unit: str, goal: str = "") -> Row:
    return {"name": name, "value": value, "low": low, "high": high, "n": n, "unit": unit, "goal": goal}


def overhead(subject: Subject, path: Path, *, repetitions: int, wanted: Callable[[str], bool]) -> list[Row]:
    """`overhead_over_floor` of candling and, for information, of both peers with their defaults."""
    name = f"overhead_over_floor.{subject.name}"
    rows, unit = [], "step over a bare forward and backward pass"

    def add(full: str, measured: list[dict[str, Any]], goal: str) -> None:
        ratios = [one["step"] / one["floor"] for one in measured]
        print(f"  {full}: {statistics.median(one['step'] for one in measured) * 1e3:.1f} ms a step of "
              f"{measured[0]['shape']}, {measured[0]['autocast']}, {measured[0]['format']}")  # fmt: skip
        middle = statistics.median(ratios)
        rows.append(_row(full, middle, min(ratios), max(ratios), len(ratios), unit, goal))

    if wanted(name):
        run = partial(steady, size=subject.size, steps=14)
        with keeping_memory():  # as the climb does, so that its floor has it too
            found = over_floor(subject.model, run, repetitions)
        add(name, found, GOALS[subject.name])
    for peer, label in PEER_DEFAULTS.items():
        if wanted(f"{name}.{peer}"):
            config = peer_settings(subject.size)[label][1]
            steps = 14 if peer == "lucent" else 6
            request = _request("steps", config, path, [steps], repetitions=repetitions)
            add(f"{name}.{peer}", ask(peer, request, threads=THREADS)["rows"], "")
    return rows


def rates(subject: Subject, found: Mapping[str, Curve]) -> tuple[list[Row], tuple[float, float, float]]:
    """The rows of a subject's curves, and the ratio of rates with its least and greatest repetition."""
    rows = []
    for label, curve in found.items():
        count = len(curve.seconds)
        for b, steps in enumerate(curve.steps):
            for what, values, unit in (
                ("seconds", curve.seconds[:, b], "s a prototype"),
                ("probability", curve.probability[:, b], "mean under held-out transforms"),
            ):
                rows.append(
                    _row(f"curve.{subject.name}.{label}.{steps}.{what}", float(values.mean()),
                         float(values.min()), float(values.max()), count, unit)
                )  # fmt: skip
    ours = found["candling"]
    peers = {label: curve for label, curve in found.items() if label != "candling"}

    def least(repetition: int | None) -> list[tuple[float, str, float]]:
        return rate_ratio(
            ours.points(repetition), {label: curve.points(repetition) for label, curve in peers.items()}
        )

    print(f"\n{subject.name}: prototypes a minute at a probability under held-out transforms")
    levels = least(None)
    print(f"{'':24}" + "".join(f"{level:>10.3f}" for level, _, _ in levels) + "    greatest")
    for label, curve in found.items():
        times = [seconds_to(curve.points(), level) for level, _, _ in levels]
        print(f"{label:24}" + "".join("         –" if t is None else f"{60 / t:10.2f}" for t in times)
              + f"{max(p for _, p in curve.points()):12.3f}")  # fmt: skip
    print(f"{'ratio to the best peer':24}" + "".join(f"{ratio:10.2f}" for _, _, ratio in levels))
    as_installed = {label: peers[label].points() for label in PEER_DEFAULTS.values()}
    for level, label, ratio in rate_ratio(ours.points(), as_installed):
        rows.append(
            _row(f"rate_over_peers_defaults.{subject.name}.{level:.3f}.{label}", ratio, ratio, ratio,
                 len(ours.seconds), "ratio of rates at this probability")
        )  # fmt: skip
    each = [min(ratio for _, _, ratio in least(r)) for r in range(len(ours.seconds))]
    return rows, (min(ratio for _, _, ratio in levels), min(each), max(each))


def report(rows: Sequence[Row]) -> None:
    """Print the table; the points of the curves are in the JSON only."""
    print(f"\n{'name':56} {'value':>9} {'goal':>8}  low … high  n")
    for row in rows:
        if not str(row["name"]).startswith("curve."):
            print(f"{row['name']:56} {row['value']:9.4g} {row['goal']:>8}  "
                  f"{row['low']:.4g} … {row['high']:.4g}  {row['n']}")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer classes, one seed, half the budgets")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these")
    parser.add_argument("--ablate", action="store_true", help="what each ingredient contributes")
    parser.add_argument("--seeds", type=int, default=2, help="repetitions of curves, with a seed each")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds for a peer's prototype")
    given = parser.parse_args(arguments)
    quick = given.quick
    seeds, patience = (1, min(8.0, given.patience)) if quick else (given.seeds, given.patience)
    torch.set_num_threads(THREADS)

    def wanted(name: str) -> bool:
        return not given.only or any(word in name for word in given.only)

    training = 150 if quick else 500
    rows = _ablations(training, quick, wanted) if given.ablate else []
    if not given.ablate:
        rows = _measurements(training, quick, seeds, patience, wanted)
    report(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _ablations(training: int, quick: bool, wanted: Callable[[str], bool]) -> list[Row]:
    rows: list[Row] = []
    for name, make in (("food", food), ("tanks", tanks)):
        if wanted(f"ablate.{name}") and (subject := make(training)) is not None:
            rows += ablate(subject, seeds=2 if quick else 8, steps=32 if quick else 128)
    if not quick and wanted("ablate.mobilenet_v2") and (real := mobilenet()) is not None:
        rows += ablate(real, seeds=1, steps=64)
    return rows


def _measurements(
    training: int, quick: bool, seeds: int, patience: float, wanted: Callable[[str], bool]
) -> list[Row]:
    rows: list[Row] = []
    ratio = "prototypes_per_minute_vs_best_peer"
    with tempfile.TemporaryDirectory() as scratch:

        def written(subject: Subject) -> Path:
            path = Path(scratch, f"{subject.name}.pt")
            torch.save(subject.model, path)
            return path

        for make in (resnet18, mobilenet):
            name = f"overhead_over_floor.{'resnet18' if make is resnet18 else 'mobilenet_v2'}"
            if any(wanted(name + end) for end in ("", *(f".{peer}" for peer in PEER_DEFAULTS))):
                subject = make()
                if subject is not None:
                    rows += overhead(subject, written(subject), repetitions=3 if quick else 9, wanted=wanted)
        ratios: list[tuple[float, float, float]] = []
        networks: dict[str, Callable[[], Subject | None]] = {
            "small_cnn": lambda: small_cnn(training), "mobilenet_v2": mobilenet,
        }  # fmt: skip
        for name, build in networks.items():
            if not wanted(ratio) and not wanted(f"{ratio}.{name}"):
                continue
            if (subject := build()) is None:
                continue
            if quick:
                subject = dataclasses.replace(subject, classes=subject.classes[:2])
            budgets = (4, 16, 64) if quick else (2, 4, 8, 16, 32, 64, 128, 256)
            found = curves(subject, written(subject), budgets=budgets, repetitions=seeds, patience=patience)
            more, (value, low, high) = rates(subject, found)
            ratios.append((value, low, high))
            rows += [*more, _row(f"{ratio}.{name}", value, low, high, seeds, "ratio of rates", ">= 2")]
        if ratios:
            # The goal to be tried for in earnest is 5.
            value, low, high = (min(one[i] for one in ratios) for i in range(3))
            rows.append(_row(ratio, value, low, high, seeds, "ratio of rates; aims at 5", ">= 2"))
        if wanted("memory_1000_over_100_classes"):
            size, steps = (64, 1) if quick else (128, 2)
            peaks = {n: peak_memory_of(n, size, steps) for n in (100, 1000)}
            print(f"  peak memory: {' and '.join(f'{b / 2**20:.0f} MiB for {n}' for n, b in peaks.items())}")
            value = peaks[1000] / peaks[100]
            name = "memory_1000_over_100_classes"
            rows.append(_row(name, value, value, value, 1, "ratio of peak memory", "<= 1.1"))
        hooked = [
            name for name in ("hooks_left", *(f"hooks_left.{p}" for p in PEER_DEFAULTS)) if wanted(name)
        ]
        if hooked:
            subject = resnet18()
            subject = dataclasses.replace(subject, classes=subject.classes[:2])
            if "hooks_left" in hooked:
                count = hooks_left(subject)
                rows.append(_row("hooks_left", count, count, count, 3, "hooks", "<= 0"))
            for peer, label in PEER_DEFAULTS.items():
                if f"hooks_left.{peer}" in hooked:
                    request = _request("hooks", peer_settings(subject.size)[label][1], written(subject), [2])
                    count = int(ask(peer, request, threads=THREADS)["hooks"])
                    rows.append(_row(f"hooks_left.{peer}", count, count, count, 1, "hooks"))
    return rows


if __name__ == "__main__":
    main()
