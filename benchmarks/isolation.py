"""Do maps show what a model uses, and what do they cost? Ours beside captum, HiPe, RISE and TorchRay.

    python -m benchmarks.isolation [--quick] [--json FILE] [--rows FILE] [--only NAME…] [--without METHOD…]

Two data sets: `coco`, the real MobileNetV2 and 26 photographs of CANDLING_ASSETS, and `tanks`, a small
detector that is trained here and 240 eval pictures of tanks. The class that is explained is the predicted
one; masks count where that is the label (18 of the photographs). Names end with the data set; without that
end a row is the mean of both, each weighing a half.

- `insertion_minus_deletion.<method>`: mean over pictures, blur as baseline; with `.mean_colour` the mean
  colour; see `candling.vision.faithfulness`. Controls are `random` (the mean of four maps for each picture)
  and `centre`, a Gaussian.
- `pointing_game.<method>` with `pointing_game.chance`, and `mass_over_chance.<method>`, the mean share of
  positive evidence on the object over the mean share of the picture that it takes.
- `evaluations.<method>`: images that go through the model for a map, forward and backward each counted.
  `seconds.<method>`: of the processor, on one thread, whatever else the machine does; ours for one class of
  many pictures at once, the others one by one, as they work.
- `advantage.<method>`: insertion minus deletion of `candling` less that of the method, paired, with a
  bootstrap interval over pictures. What counts is that its high end is not below 0: `significantly_better`
  is the number of methods for which it is, `better_on_average` that of those with a greater mean, and
  `evaluations_over_rise` what that costs.
- `mask_100_over_800`: the same difference between our mask, at most 100 steps, and TorchRay's 800.
- `mask_step_over_floor`: seconds of a step of our mask over a bare forward and backward pass to the input of
  the same batch, in turns, the median over repetitions, their least and greatest as low and high; with
  `.torchray`, TorchRay's over its own.
- `hierarchical_speed_over_reference`: pictures a minute of our default over one that sees one picture, one
  class and one window at a time through the model as it is, in turns, on as many threads as there are: for
  the three likeliest classes, as `isolate` has it, or `.one_class`; `.windows_alone` of one class without
  slopes; `.bfloat16` where ours multiplies in it. `half_precision_gain` is what that adds to insertion minus
  deletion.

RISE and HiPe are straight implementations of their papers (`benchmarks.explainers`), captum is the package,
TorchRay 1.0.0.2 runs as a subprocess in an environment of its own (see `benchmarks.peers`) with its defaults:
an area of 0.1 and 800 steps. Maps of methods that are not ours and their scores are kept under
`.candling/benchmarks/isolation` as they are made, so that an interrupted run goes on and ours can be measured
again alone. `--rows` writes the figures of each picture, from which all others can be computed again. One
thread: two hours the first time, then a quarter of one. `--quick` takes a few minutes: 4 photographs, 12
tanks, a twentieth of RISE's masks and of TorchRay's steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.explainers import OTHERS, Made, made_by
from benchmarks.peers import ask
from benchmarks.peers.common import over_floor
from benchmarks.subjects import Explained, coco, tanks
from candling.models import batch_size, logits
from candling.models.memory import keeping_memory
from candling.models.quick import Precision, folded
from candling.statistics import Estimate, resampled_sums
from candling.vision.faithfulness import centre_gaussian, curves, located, location, order_of, random_maps
from candling.vision.faithfulness import controls as knowing_nothing
from candling.vision.faithfulness.curves import bare
from candling.vision.isolation import GradCAM, Hierarchical, IntegratedGradients, Mask, Windows, isolate
from candling.vision.isolation.isolating import Method

__all__ = ["OneByOne", "main", "measured", "needed", "rows_of", "scored", "stratified"]

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".candling" / "benchmarks" / "isolation"
Row = dict[str, object]

OURS: dict[str, Method] = {
    "candling": Hierarchical(),
    "candling.windows": Windows(),
    "candling.mask": Mask(),
    "candling.integrated_gradients": IntegratedGradients(),
    "candling.grad_cam": GradCAM(),
}
CONTROLS = ("random", "centre")
METHODS = (*OURS, *OTHERS, *CONTROLS)
KINDS = (
    "insertion_minus_deletion",
    "pointing_game",
    "rank_accuracy",
    "mass_over_chance",
    "evaluations",
    "seconds",
)


# -- Maps ------------------------------------------------------------------------------------------


def ours(method: str, subject: Explained, *, at_once: int = 20) -> list[Made]:
    """Maps of one of our methods, many pictures at a time, at the same cost each."""
    began, maps, evaluations = time.process_time(), [], 0
    for start in range(0, len(subject), at_once):
        part = slice(start, start + at_once)
        found = isolate(
            subject.model, subject.images[part], classes=subject.classes[part, None], method=OURS[method]
        )
        maps += list(found.maps[:, 0])
        evaluations += found.evaluations
    seconds = (time.process_time() - began) / len(subject)
    return [Made(one, evaluations / len(subject), seconds) for one in maps]


def controls(method: str, subject: Explained) -> list[Made]:
    """Maps that know nothing of the model: (H, W), or (draws, H, W) whose scores are averaged."""
    maps = random_maps(subject.images) if method == "random" else centre_gaussian(subject.images)
    return [Made(one, 0, 0.0) for one in maps]


# -- Scores ----------------------------------------------------------------------------------------


def measured(subject: Explained, method: str, made: Sequence[Made]) -> pd.DataFrame:
    """A row for each picture: how faithful its map is, where it lies and what it cost."""
    table = pd.DataFrame(
        {
            "data": subject.name,
            "method": method,
            "picture": range(len(subject)),
            "class": subject.classes.numpy(),
            "right": subject.right.numpy(),
            "evaluations": [float(one.evaluations) for one in made],
            "seconds": [one.seconds for one in made],
        }
    )
    maps = torch.stack([one.map if one.map.dim() == 3 else one.map[None] for one in made])
    draws = maps.shape[1]
    classes = subject.classes[:, None].expand(-1, draws)
    for baseline, end in (("blur", ""), ("mean", "_mean_colour")):
        found = curves(subject.model, subject.images, maps, classes, baseline=baseline)
        table[f"insertion{end}"] = found.insertion_auc.mean(1).numpy()
        table[f"deletion{end}"] = found.deletion_auc.mean(1).numpy()
    places = [located(maps[:, draw], subject.masks) for draw in range(draws)]
    for name in ("mass", "rank", "pointing", "area", "nearby"):
        values = torch.stack([getattr(one, name) for one in places]).mean(0)
        table[name] = torch.where(subject.right, values, torch.nan).numpy()
    return table


def scored(subject: Explained, method: str, kept: Path, *, share: float = 1.0) -> pd.DataFrame:
    """`measured` of a method; of one that is not ours from the disk, where nothing of it changed."""
    if method in OURS:
        return measured(subject, method, ours(method, subject))
    made_of = (measured, curves, bare, order_of, location, knowing_nothing)
    digest = hashlib.sha256("".join(map(inspect.getsource, made_of)).encode()).hexdigest()[:8]
    folder = kept / f"{subject.name}-{subject.key}"
    file = folder / f"{method}-{share:g}-{digest}.parquet"
    if not file.is_file():
        fixed = method in CONTROLS
        made = controls(method, subject) if fixed else made_by(method, subject, folder, share=share)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        measured(subject, method, made).to_parquet(part)
        part.rename(file)
    return pd.read_parquet(file)


# -- Rows ------------------------------------------------------------------------------------------


def _row(name: str, found: Estimate, unit: str, goal: str = "") -> Row:
    return {
        "name": name, "value": found.value, "low": found.low, "high": found.high, "n": found.n,
        "unit": unit, "goal": goal,
    }  # fmt: skip


def stratified(groups: Sequence[np.ndarray[Any, Any]], *, resamples: int = 2000) -> Estimate:
    """The mean of groups' means, each weighing as much, with a bootstrap interval within groups.

    Groups are (N,), or (N, 2) for ratios of the means of both columns.
    """

    def means(sums: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return sums[..., 0] / sums[..., 1]

    pairs = [group if group.ndim == 2 else np.stack([group, np.ones(len(group))], 1) for group in groups]
    value = float(np.mean([means(pair.sum(0)) for pair in pairs]))
    drawn = [means(resampled_sums(pair, resamples=resamples, seed=i)) for i, pair in enumerate(pairs)]
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return Estimate(value, float(low), float(high), sum(map(len, groups)))


def rows_of(table: pd.DataFrame) -> list[Row]:
    """All rows that the figures of single pictures give."""
    table = table.assign(
        score=table.insertion - table.deletion,
        score_mean_colour=table.insertion_mean_colour - table.deletion_mean_colour,
    )
    data = list(dict.fromkeys(table.data))
    methods = list(dict.fromkeys(table.method))
    rows: list[Row] = []

    def values(column: str, method: str, name: str) -> np.ndarray[Any, Any]:
        part = table[(table.method == method) & (table.data == name)].sort_values("picture")
        return part[column].to_numpy(dtype=np.float64)

    def add(name: str, groups: Mapping[str, np.ndarray[Any, Any]], unit: str) -> None:
        """A row for each data set, and one of all, of the pictures that have such a figure."""
        there = {
            end: group[np.isfinite(group).reshape(len(group), -1).all(1)] for end, group in groups.items()
        }
        there = {end: group for end, group in there.items() if len(group)}
        for end, group in there.items():
            rows.append(_row(f"{name}.{end}", stratified([group]), unit))
        if there:
            rows.append(_row(name, stratified(list(there.values())), unit))

    for method in methods:
        scores = {name: values("score", method, name) for name in data}
        add(f"insertion_minus_deletion.{method}", scores, "difference of areas, blur")
        scores = {name: values("score_mean_colour", method, name) for name in data}
        add(f"insertion_minus_deletion.{method}.mean_colour", scores, "difference of areas, mean colour")
        for title, column, unit in (
            ("pointing_game", "pointing", "share of pictures"),
            ("rank_accuracy", "rank", "share of pixels"),
        ):
            add(f"{title}.{method}", {name: values(column, method, name) for name in data}, unit)
        pairs = {
            name: np.stack([values(column, method, name) for column in ("mass", "area")], 1) for name in data
        }
        add(f"mass_over_chance.{method}", pairs, "mass over area")
        for column in ("evaluations", "seconds"):
            if method not in CONTROLS:
                unit = "a map" if column == "evaluations" else "s of the processor a map, one thread"
                add(f"{column}.{method}", {name: values(column, method, name) for name in data}, unit)
    nearby = {name: values("nearby", methods[0], name) for name in data}
    add("pointing_game.chance", nearby, "share of the picture")
    rows += _advantages(values, methods, data)
    return rows


def _advantages(
    values: Callable[[str, str, str], np.ndarray[Any, Any]], methods: Sequence[str], data: Sequence[str]
) -> list[Row]:
    """What our default gains over each method, and our mask over TorchRay's."""
    rows: list[Row] = []

    def add(name: str, ours: str, theirs: str) -> dict[str, Estimate]:
        """Rows of the gain on each data set, "" being all."""
        unit = "gain in insertion - deletion"
        gains = {one: values("score", ours, one) - values("score", theirs, one) for one in data}
        found = {one: stratified([gain]) for one, gain in gains.items()}
        found |= {"": stratified(list(gains.values()))}
        for one, gain in found.items():
            rows.append(_row(f"{name}.{one}".rstrip("."), gain, unit, "" if one else "high >= 0"))
        return found

    if "candling" in methods:
        others = [method for method in methods if method != "candling"]
        gains = {method: add(f"advantage.{method}", "candling", method) for method in others}
        for one in (*data, ""):
            for name, better in (
                ("significantly_better", [m for m in others if gains[m][one].high < 0]),
                ("better_on_average", [m for m in others if gains[m][one].value < 0]),
            ):
                count = Estimate(len(better), len(better), len(better), len(others))
                unit, goal = f"methods: {', '.join(better) or 'none'}", "" if one else "<= 0"
                rows.append(_row(f"{name}.{one}".rstrip("."), count, unit, goal))
        if "rise" in methods:
            share = [
                float(
                    values("evaluations", "candling", one).mean() / values("evaluations", "rise", one).mean()
                )
                for one in data
            ]
            found = Estimate(max(share), min(share), max(share), len(data))
            rows.append(_row("evaluations_over_rise", found, "ratio, the greater of the data sets", "<= 0.2"))
    if {"candling.mask", "torchray"} <= set(methods):
        add("mask_100_over_800", "candling.mask", "torchray")
    return rows


# -- Speed -----------------------------------------------------------------------------------------


def _spread(name: str, ratios: Sequence[float], unit: str, goal: str = "") -> Row:
    found = Estimate(statistics.median(ratios), min(ratios), max(ratios), len(ratios))
    return _row(name, found, unit, goal)


def mask_steps(subject: Explained, repetitions: int, steps: int = 14) -> Row:
    """`mask_step_over_floor`: as many rows as a batch takes, none of which leaves before the end."""
    method = Mask(areas=(0.1,), steps=steps, still=0.0)
    model = folded(subject.model, subject.images[:2])  # as the method does, so that its floor is folded too
    size = batch_size(subject.images.shape[2:], subject.images.device, gradients=True)
    images, classes = subject.images[:size], subject.classes[:size, None]

    def run(watched: nn.Module) -> None:
        isolate(watched, images, classes=classes, method=method)

    with keeping_memory():  # as the method does, so that its floor has it too
        found = over_floor(model, run, repetitions)
    step = statistics.median(one["step"] for one in found) * 1e3
    print(f"  mask: {step:.1f} ms a step of {found[0]['shape']}")
    return _spread(
        "mask_step_over_floor", [one["step"] / one["floor"] for one in found],
        "step over a bare forward and backward pass", "<= 1.15",
    )  # fmt: skip


def torchray_steps(subject: Explained, repetitions: int) -> Row:
    """The same of TorchRay."""
    with tempfile.TemporaryDirectory() as scratch:
        network, pictures = Path(scratch, "network.pt"), Path(scratch, "images.pt")
        torch.save(subject.model.network, network)
        torch.save(subject.model.normalise(subject.images[:1]), pictures)
        request = {
            "what": "steps", "model": str(network), "images": str(pictures), "area": 0.1,
            "labels": subject.classes[:1].tolist(), "steps": 14, "repetitions": repetitions,
        }  # fmt: skip
        found = ask("torchray", request, threads=torch.get_num_threads())["rows"]
    return _spread(
        "mask_step_over_floor.torchray", [one["step"] / one["floor"] for one in found],
        "step over a bare forward and backward pass",
    )  # fmt: skip


class OneByOne(nn.Module):
    """A model that sees one picture at a time, as it comes, whatever batch it is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.parts = (model,)  # no part of this one, so that nothing in it is made quicker

    def forward(self, images: Tensor) -> Tensor:
        (model,) = self.parts
        return torch.cat([model(one[None].contiguous()) for one in images])


def hierarchical_speed(subject: Explained, repetitions: int) -> list[Row]:
    """`hierarchical_speed_over_reference`: seconds of the reference over ours, by the clock, in turns."""
    alone = OneByOne(subject.model)
    likely = logits(subject.model, subject.images).topk(min(3, len(subject.model.classes)), 1).indices
    cases: dict[str, tuple[Hierarchical, Tensor, Precision]] = {
        "": (Hierarchical(), likely, "float32"),
        ".one_class": (Hierarchical(), likely[:, :1], "float32"),
        ".windows_alone": (Hierarchical(contexts=0), likely[:, :1], "float32"),
        ".bfloat16": (Hierarchical(), likely, "bfloat16"),
        ".one_class.bfloat16": (Hierarchical(), likely[:, :1], "bfloat16"),
    }

    def seconds(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
        began = time.perf_counter()
        maps = run()
        return time.perf_counter() - began, maps

    def reference(method: Hierarchical, classes: Tensor) -> Tensor:
        maps = [
            isolate(alone, image[None], classes=wanted[None, None], method=method, batch=1).maps[0, 0]
            for image, own in zip(subject.images, classes, strict=True)
            for wanted in own
        ]
        return torch.stack(maps).view(*classes.shape, *maps[0].shape)

    ratios: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repetitions):
        theirs: dict[tuple[int, int], tuple[float, Tensor]] = {}
        for name, (method, classes, precision) in cases.items():
            key = (method.contexts, classes.shape[1])
            if key not in theirs:
                theirs[key] = seconds(functools.partial(reference, method, classes))
            ask = functools.partial(
                isolate, subject.model, subject.images, classes=classes, method=method, precision=precision
            )
            took, maps = seconds(lambda ask=ask: ask().maps)
            apart = (maps - theirs[key][1]).abs().max() / theirs[key][1].abs().max()
            # Windows are chosen for all classes together, so that only those of one class are the same.
            if classes.shape[1] == 1 and precision == "float32" and apart > 1e-3:
                raise RuntimeError(f"the reference's maps differ from ours by {apart:.2g} of the greatest")
            ratios[name].append(theirs[key][0] / took)
            print(f"  speed {subject.name}{name}: {ratios[name][-1]:.2f}", flush=True)
    return [
        _spread(
            f"hierarchical_speed_over_reference.{subject.name}{name}", found,
            "pictures a minute over one by one", ">= 4",
        )
        for name, found in ratios.items()
    ]  # fmt: skip


def half_precision(subject: Explained) -> Row:
    """`half_precision_gain`: how much more faithful maps are that were made in bfloat16."""
    scores = []
    for precision in get_args(Precision):
        maps = isolate(subject.model, subject.images, classes=subject.classes[:, None], precision=precision)
        table = measured(subject, "candling", [Made(one, 0, 0.0) for one in maps.maps[:, 0]])
        scores.append((table.insertion - table.deletion).to_numpy())
    name = f"half_precision_gain.{subject.name}"
    return _row(name, stratified([scores[1] - scores[0]]), "gain in insertion - deletion")


# -- The command -----------------------------------------------------------------------------------


def report(rows: Sequence[Row]) -> None:
    """Print the table; rows of single data sets are indented."""
    print(f"\n{'name':58} {'value':>9} {'goal':>10}  low … high  n")
    for row in rows:
        print(f"{row['name']:58} {row['value']:9.4g} {row['goal']:>10}  "
              f"{row['low']:.4g} … {row['high']:.4g}  {row['n']}")  # fmt: skip


def needed(only: Sequence[str], methods: Sequence[str]) -> list[str]:
    """The methods that rows are made of whose names hold one of these words; all where there are none."""
    rows = {f"{kind}.{method}": {method} for kind in KINDS for method in methods}
    rows |= {f"advantage.{method}": {"candling", method} for method in methods}
    rows |= {"significantly_better": set(methods), "better_on_average": set(methods)}
    rows |= {
        "evaluations_over_rise": {"candling", "rise"},
        "mask_100_over_800": {"candling.mask", "torchray"},
    }
    wanted = set().union(*(of for name, of in rows.items() if not only or any(word in name for word in only)))
    return [method for method in methods if method in wanted]


def subjects(quick: bool) -> list[Explained]:
    """The data sets, those that there are."""
    found = [coco(4 if quick else None), tanks(KEPT / "tanks", 12 if quick else None)]
    return [one for one in found if one is not None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few pictures, masks and steps")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=Path, help="Parquet of the figures of each picture")
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these")
    parser.add_argument("--without", nargs="+", default=[], choices=METHODS, help="methods to leave out")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)

    def wanted(name: str) -> bool:
        return not given.only or any(word in name for word in given.only)

    data = subjects(given.quick)
    methods = needed(given.only, [method for method in METHODS if method not in given.without])
    rows: list[Row] = []
    if methods:
        tables = []
        for method in methods:
            for subject in data:
                began = time.perf_counter()
                tables.append(scored(subject, method, KEPT, share=0.05 if given.quick else 1.0))
                print(f"  {subject.name}: {method}, {time.perf_counter() - began:.0f} s", flush=True)
        table = pd.concat(tables, ignore_index=True)
        rows = [row for row in rows_of(table) if wanted(str(row["name"]))]
        if given.rows:
            table.to_parquet(given.rows, index=False)
    repetitions = 3 if given.quick else 7
    real = dataclasses.replace(data[0], images=data[0].images[:8], classes=data[0].classes[:8])
    if wanted("mask_step_over_floor"):
        rows.append(mask_steps(real, repetitions))
    if wanted("mask_step_over_floor.torchray") and "torchray" not in given.without:
        rows.append(torchray_steps(real, repetitions))
    if wanted("half_precision_gain"):
        rows.append(half_precision(data[0]))
    if wanted("hierarchical_speed_over_reference"):
        torch.set_num_threads(os.cpu_count() or 1)
        for subject in data:
            few = dataclasses.replace(subject, images=subject.images[:4], classes=subject.classes[:4])
            rows += hierarchical_speed(few, 1 if given.quick else 3)
    report(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
