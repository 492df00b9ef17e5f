"""Does `candling trend` find when a shortcut is learned, and which hyper-parameter drives it?

    python -m benchmarks.training_trend [--quick] [--json FILE] [--only NAME…]

A tiny network learns bars and discs on coloured backgrounds. At a step that the seed draws, the data
change: the shortcut is switched *on* (each class now comes on its own colour, and four in five objects are
too faint to see) or *off*. A `Watcher` writes records, `line_up` locates the change. The probe, which uses
nothing of candling, renders pictures in pairs that differ in one thing and compares how far the logits
move when only the colour changes with how far they move when only the object does. It looks every two
steps, and its change is where the colour's share of both crosses half-way between its medians over the
first and the last quarter of its looks, three times in a row. A second probe, `cue_only`, asks for decisions
rather than logits: the share of pictures without any object that are called as their colour's class.
Half a minute a seed on one core; `--quick` runs two seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from candling.audit.record import read_record
from candling.audit.trend import Line, Trend, line_up
from candling.data import Pictures
from candling.watch import Watcher

__all__ = ["Located", "locate", "main", "scan"]

CLASSES = ("upright", "lying", "disc")
COLOURS = {"red": (0.8, 0.3, 0.3), "green": (0.3, 0.8, 0.3), "blue": (0.3, 0.3, 0.8)}
SIDE = 16
EVERY = 10
LOOK = 2  # steps between two looks of the probe
IN_A_ROW = 3
LEARNED = 60  # steps within which the first phase is learned
BATCH = 64
FAINT = 0.8  # share of objects that cannot be seen while the shortcut is on

Way = Literal["on", "off"]


# -- The task --------------------------------------------------------------------------------------


def shapes(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Masks bool (N, SIDE, SIDE): an upright bar, a lying bar or a disc, somewhere."""
    n = len(labels)
    centre = torch.randint(5, SIDE - 5, (n, 2), generator=generator)
    grid = torch.arange(SIDE)
    dy = grid[None, :, None] - centre[:, 0, None, None]
    dx = grid[None, None, :] - centre[:, 1, None, None]
    bar = ((dx.abs() <= 1) & (dy.abs() <= 4), (dx.abs() <= 4) & (dy.abs() <= 1))
    every = torch.stack([*bar, dx**2 + dy**2 <= 9])
    return every[labels, torch.arange(n)]


def scenes(colours: Tensor, generator: torch.Generator) -> Tensor:
    """Empty scenes (N, 3, SIDE, SIDE) in [0, 1] of colour indices (N,), with noise."""
    base = torch.tensor(list(COLOURS.values()))[colours][:, :, None, None]
    return (base + 0.1 * torch.randn(len(colours), 3, SIDE, SIDE, generator=generator)).clamp(0, 1)


def put(masks: Tensor, scene: Tensor, contrast: Tensor) -> Tensor:
    """Bright objects on scenes; `contrast` (N,) in [0, 1], 0 leaves nothing to see."""
    weight = masks[:, None] * contrast[:, None, None, None]
    return weight * 0.95 + (1 - weight) * scene


def batch(n: int, generator: torch.Generator, *, strength: float, faint: float) -> tuple[Tensor, Tensor]:
    """Images and labels; `strength` is the probability that the colour is the class's own."""
    labels = torch.randint(0, 3, (n,), generator=generator)
    own = torch.rand(n, generator=generator) < strength
    colours = torch.where(own, labels, torch.randint(0, 3, (n,), generator=generator))
    seen = (torch.rand(n, generator=generator) >= faint).float()
    return put(shapes(labels, generator), scenes(colours, generator), seen), labels


def held_out(seed: int, each: int = 24) -> tuple[Pictures, Pictures]:
    """Balanced pictures of every class on every colour with masks, and clean donors."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    labels = torch.arange(3).repeat_interleave(3 * each)
    colours = torch.arange(3).repeat(3 * each)
    masks = shapes(labels, generator)
    images = put(masks, scenes(colours, generator), torch.ones(len(labels)))
    names = list(COLOURS)
    where = [names[c] for c in colours.tolist()]
    groups = [f"{CLASSES[c]}/{e}" for c, e in zip(labels.tolist(), where, strict=True)]
    pictures = Pictures(
        names=tuple(map(str, range(len(labels)))), images=(images * 255).round().byte(), labels=labels,
        groups=tuple(groups), environments=tuple(where), masks=masks.byte(),
    )  # fmt: skip
    count = 8 * each
    empty = torch.arange(3).repeat(count)
    donors = Pictures(
        names=tuple(map(str, range(3 * count))),
        images=(scenes(empty, generator) * 255).round().byte(),
        labels=torch.full((3 * count,), -1), groups=("",) * (3 * count),
        environments=tuple(names[c] for c in empty.tolist()),
    )  # fmt: skip
    return pictures, donors


def network(seed: int) -> nn.Module:
    """Two convolutions and a linear layer with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
            nn.Linear(32, 3),
        )  # fmt: skip


def fit(
    model: nn.Module,
    steps: int,
    *,
    seed: int,
    data: Callable[[int, torch.Generator], tuple[Tensor, Tensor]],
    after: Callable[[int], object],
    rate: float = 3e-3,
    decay: float = 1e-4,
) -> None:
    """Train on batches that `data` draws for each step; `after` is called with the step from 0 on."""
    generator = torch.Generator().manual_seed(20_000 + seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    after(0)
    for step in range(1, steps + 1):
        images, labels = data(step, generator)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        after(step)


# -- The probe: nothing of candling ----------------------------------------------------------------


class Probe:
    """How far logits move with the colour alone and with the object alone, on pairs rendered for it."""

    def __init__(self, seed: int, n: int = 60) -> None:
        generator = torch.Generator().manual_seed(30_000 + seed)
        a = torch.arange(n) % 3
        b = (a + 1 + torch.randint(0, 2, (n,), generator=generator)) % 3
        scene_a, scene_b = scenes(a, generator), scenes(b, generator)
        shape_a, shape_b = shapes(a, generator), shapes(b, generator)
        full = torch.ones(n)
        # a on a's colour; then with only the colour, and only the object, changed to those of b.
        self.both = put(shape_a, scene_a, full)
        self.colour = put(shape_a, scene_b, full)
        self.object = put(shape_b, scene_a, full)
        self.a, self.b = a, b
        self.cue, self.wanted = scenes(a, generator), a
        self.logits: list[tuple[int, float]] = []
        self.decisions: list[tuple[int, float]] = []

    @torch.no_grad()
    def __call__(self, model: nn.Module, step: int) -> None:
        def gap(images: Tensor) -> float:
            out = model(images)
            rows = torch.arange(len(out))
            return float((out[rows, self.b] - out[rows, self.a]).mean())

        base = gap(self.both)
        colour, thing = max(0.0, gap(self.colour) - base), max(0.0, gap(self.object) - base)
        self.logits.append((step, colour / max(colour + thing, 1e-9)))
        self.decisions.append((step, float((model(self.cue).argmax(1) == self.wanted).float().mean())))

    @staticmethod
    def located(looks: Sequence[tuple[int, float]], way: Way) -> int | None:
        """The first step from which a share is beyond half-way three times in a row."""
        # An untrained network's answers are nobody's shortcut: levels start once there was time to learn.
        seen = [(step, share if way == "on" else -share) for step, share in looks if step >= LEARNED]
        quarter = len(seen) // 4
        first, last = (statistics.median(s for _, s in part) for part in (seen[:quarter], seen[-quarter:]))
        for i in range(len(seen) - IN_A_ROW + 1):
            if all(share > (first + last) / 2 for _, share in seen[i : i + IN_A_ROW]):
                return seen[i][0]
        return None


# -- One training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Located:
    """Where candling and the probe find the change; `distance` in checkpoints, 0 within the bracket."""

    switched: int
    before: float | None
    after: float | None
    probe: int | None
    cue_only: int | None
    line: Line

    def distance(self, probe: int | None) -> float | None:
        """Checkpoints from the bracket to where a probe finds the change."""
        if self.before is None or self.after is None or probe is None:
            return None
        # A probe says by which step it had happened: in the bracket if after `before` and by `after`.
        return max(0.0, self.before - probe, probe - self.after) / EVERY


def locate(seed: int, way: Way, folder: Path, *, steps: int = 400) -> tuple[Located, Trend]:
    """Train with the shortcut switched on or off at a step that the seed draws, and locate it twice."""
    switch = 120 + int(torch.randint(0, 120, (1,), generator=torch.Generator().manual_seed(seed)))

    def data(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shortcut = (step > switch) == (way == "on")
        strength, faint = (0.98, FAINT) if shortcut else (0.0, 0.0)
        return batch(BATCH, generator, strength=strength, faint=faint)

    model, probe = network(seed), Probe(seed)
    pictures, donors = held_out(seed)
    came_with = dict(enumerate(COLOURS))
    watch = Watcher(
        folder, pictures, CLASSES, every=EVERY, donors=donors, came_with=came_with, audit=f"shortcut-{way}"
    )

    def after(step: int) -> None:
        watch(model, step)
        if step % LOOK == 0:
            probe(model, step)

    fit(model, steps, seed=seed, data=data, after=after)
    trend = line_up([read_record(file) for file in sorted(folder.glob("step-*/record.json"))])
    line = trend.line("background.follow_rate")
    assert line is not None
    wanted = "rises" if way == "on" else "falls"
    found = [change for change in line.changes if change.direction == wanted]
    change = max(found, key=lambda c: abs(c.level_after[0] - c.level_before[0]), default=None)
    return Located(
        switch, None if change is None else change.before, None if change is None else change.after,
        probe.located(probe.logits, way), probe.located(probe.decisions, way), line,
    ), trend  # fmt: skip


def scan(folder: Path, *, runs: int = 24, steps: int = 150, seed: int = 0) -> Trend:
    """Trainings with drawn shortcut strength, learning rate and weight decay; one record each."""
    generator = torch.Generator().manual_seed(40_000 + seed)
    draws = torch.rand(runs, 3, generator=generator).tolist()
    pictures, donors = held_out(seed)
    for run, (a, b, c) in enumerate(draws):
        strength = round(a, 3)
        # Rates at which all of these runs learn the task.
        rate, decay = round(10 ** (-3 + 0.7 * b), 6), round(10 ** (-5 + 3 * c), 8)

        def data(step: int, generator: torch.Generator, strength: float = strength) -> tuple[Tensor, Tensor]:
            return batch(BATCH, generator, strength=strength, faint=FAINT)

        model = network(seed + run)
        watch = Watcher(
            folder / f"run-{run:02d}", pictures, CLASSES, every=steps, donors=donors,
            came_with=dict(enumerate(COLOURS)), audit="shortcut-scan",
        )  # fmt: skip
        fit(model, steps, seed=seed + run, data=data, after=lambda step: None, rate=rate, decay=decay)
        watch(model, steps, strength=strength, learning_rate=rate, weight_decay=decay)
    return line_up([read_record(file) for file in sorted(folder.glob("run-*/step-*/record.json"))])


# -- Rows ------------------------------------------------------------------------------------------


def _row(name: str, values: Sequence[float | None], unit: str, goal: str) -> dict[str, object]:
    known = [value for value in values if value is not None]
    worst = max(known) if len(known) == len(values) and known else None
    return {
        "name": name,
        "value": worst,
        "low": min(known, default=None),
        "high": max(known, default=None),
        "n": len(values),
        "unit": unit,
        "goal": goal,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the seeds and the scans, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these")
    parser.add_argument("--keep", type=Path, help="keep the records in this folder")
    given = parser.parse_args(arguments)
    seeds = range(given.first, given.first + (2 if given.quick else given.seeds))
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []

    def wanted(name: str) -> bool:
        return not given.only or any(word in name for word in given.only)

    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        ways: tuple[Way, ...] = ("on", "off")
        for way in ways:
            name = f"distance.switched_{way}"
            if not wanted(name):
                continue
            print(f"{name}: seed, switched at, candling between, probe by (apart), cue only by (apart)")
            distances: list[float | None] = []
            decisions: list[float | None] = []
            for seed in seeds:
                found, _ = locate(seed, way, folder / f"{way}-{seed}")
                distances.append(found.distance(found.probe))
                decisions.append(found.distance(found.cue_only))
                print(f"  {seed}  {found.switched}  {found.before} and {found.after}  "
                      f"{found.probe} ({distances[-1]})  {found.cue_only} ({decisions[-1]})")  # fmt: skip
            unit = "checkpoints apart, greatest over seeds"
            rows.append(_row(name, distances, unit, "<= 1"))
            rows.append(_row(f"{name}.cue_only", decisions, unit, "<= 1"))
        if wanted("driver"):
            print("driver: seed, then rho and Holm's p of each hyper-parameter with background.follow_rate")
            strength: list[float | None] = []
            others: list[float | None] = []
            for seed in seeds:
                trend = scan(folder / f"scan-{seed}", seed=seed * 100)
                line = trend.line("background.follow_rate")
                assert line is not None
                print(f"  {seed}  " + "  ".join(
                    f"{a.coordinate} {a.rho:+.2f} (p {a.p_holm:.4f})" for a in line.associations
                ))  # fmt: skip
                named = {a.coordinate: a for a in line.associations}
                strength.append(named["strength"].p_holm)
                others.append(float(sum(a.significant for k, a in named.items() if k != "strength")))
            rows.append(_row("driver.strength_p", strength, "Holm's p, greatest over seeds", "<= 0.05"))
            rows.append(_row("driver.others_named", others, "count, greatest over seeds", "<= 0"))
    print(f"\n{'name':28} {'value':>8} {'goal':>8}  low … high  n")
    for row in rows:
        value = "–" if row["value"] is None else f"{row['value']:.4g}"
        print(f"{row['name']:28} {value:>8} {row['goal']:>8}  {row['low']} … {row['high']}  {row['n']}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
