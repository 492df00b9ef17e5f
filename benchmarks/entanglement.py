"""Is entanglement what it says: on classes made to look alike, on heads made independent, on food?

    python -m benchmarks.entanglement [--quick] [--json FILE] [--only NAME…] [--sheets FOLDER]

- `made_pairs_first`: of the pairs of `benchmarks.lookalikes` that share parts or colours on purpose, the
share
  that ranks before every other pair by m(c,k); n counts them.
- `made_pairs_significant`: the share of them that excite each other more than unrelated classes do, at a
  false-discovery rate of 5%; `other_pairs_significant` counts the rest.
- `confusion_correlation`: Spearman's rank correlation of m with confusions of held-out pictures; low and high
  are over classes and pictures.
- `independent_heads.<weights>`: of networks that share no weight between classes, how many show a significant
  pair at 5%; n counts networks.
- `food.<measure>`: on the model of `models/food` (`dvc repro models/food/dvc.yaml`) and its test pictures,
where
  both are there: the rank of frozen yogurt and ice cream among ten pairs (`rank`), m of the pair (`mutual`),
  how often they are confused (`confusion`), and m of the pair that ranks first (`first`).

Takes about ten minutes on two cores; `--quick` about two: six networks of each kind instead of twenty, and no
food.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.lookalikes import CLASSES, PAIRS, SIDE, pictures, trained
from candling.data import import_pictures, read_source, read_split
from candling.data.source import DataSource
from candling.models import load_model, logits
from candling.vision.climbing import FOURIER
from candling.vision.entanglement import (
    Entanglement,
    confusions,
    draw,
    entanglement,
    pair_table,
    rank_correlation,
)
from candling.vision.parameterisations import backgrounds
from candling.vision.priors import natural_prior
from candling.vision.prototypes import generate_prototypes

__all__ = ["HEADS", "Heads", "examine_heads", "learned", "lookalikes", "main"]

Row = dict[str, object]

HEADS = 8  # classes of a network with independent heads
_HEADS_SIDE = 40  # pixels of its pictures
_TEXTURE = 12  # pixels of what each head learns
_BATCH = 48  # pictures of a step in which heads learn
_HELD_OUT = 60  # pictures of each class
_NETWORKS, _QUICK_NETWORKS = 20, 6
_ASSETS = Path(os.environ.get("CANDLING_ASSETS", "../shared/assets"))
_FOOD = Path("models/food/model")


# -- Classes made to look alike --------------------------------------------------------------------


def lookalikes(seed: int = 0) -> tuple[Entanglement, np.ndarray]:
    """The matrix of a network that was trained on the classes, and its confusions of held-out pictures."""
    network = trained(seed)
    made = generate_prototypes(network, range(len(CLASSES)), natural_prior((SIDE, SIDE)), settings=FOURIER)
    images, labels = pictures(_HELD_OUT, seed=2)
    natural = logits(network, images)
    found = entanglement(made.logits, made.classes, natural)
    counts = confusions(labels.numpy(), natural.argmax(1).numpy(), np.arange(len(CLASSES)))
    return found, counts


def _lookalike_rows(sheets: Path | None) -> list[Row]:
    found, counts = lookalikes()
    made = {tuple(sorted((CLASSES.index(a), CLASSES.index(b)))) for a, b in PAIRS}
    first = {tuple(pair) for pair in found.pairs()[: len(made)].tolist()}
    significant = {tuple(pair) for pair in found.significant().tolist()}
    correlation = rank_correlation(found.mutual, counts=counts)
    _show(found, CLASSES)
    if sheets is not None:
        draw(found, CLASSES).save(sheets / "lookalikes.png")
    others = len(found.pairs()) - len(made)
    rows = [
        _row("made_pairs_first", len(first & made) / len(made), len(made), "share", "== 1"),
        _row("made_pairs_significant", len(significant & made) / len(made), len(made), "share", ">= 0.75"),
        _row("other_pairs_significant", len(significant - made), others, "pairs", "<= 1"),
    ]
    if correlation is not None:
        rows.append(_row("confusion_correlation", *correlation[:1], correlation.n, "rank correlation", "> 0",
                         correlation.low, correlation.high))  # fmt: skip
    return rows


# -- Heads made independent ------------------------------------------------------------------------


class Heads(nn.Module):
    """A small network of its own for each of `HEADS` classes, with random weights: no weight is shared.

    Parameters
    ----------
    seed
        Of the weights.
    shared
        Pairs of classes that read each other's networks as much as their own.
    width
        Channels of each network's first layer.
    """

    def __init__(self, seed: int, shared: Sequence[tuple[int, int]] = (), *, width: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, second = HEADS * width, HEADS * 2 * width
            self.layers = nn.ModuleList(
                [
                    nn.Conv2d(3, first, 5, 2, 2),
                    nn.Conv2d(first, second, 3, 2, 1, groups=HEADS),
                    nn.Conv2d(second, second, 3, 2, 1, groups=HEADS),
                    nn.Conv2d(second, HEADS, 1, groups=HEADS),
                ]
            )
            for layer in self.layers:
                nn.init.kaiming_normal_(layer.weight)
                nn.init.normal_(layer.bias, std=0.1)
        mixing = torch.eye(HEADS)
        for c, k in shared:
            mixing[c, k] = mixing[k, c] = 1
        self.register_buffer("mixing", mixing, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, HEADS) of images (N, 3, H, W) in [0, 1]."""
        x = (images - 0.5) / 0.25
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x.mean((2, 3), keepdim=True)).flatten(1)
        return out @ self.mixing


def learned(network: Heads, seed: int, steps: int = 150) -> Heads:
    """Each head learns, in place, a coloured texture of its own, drawn at random, that is there or not."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(HEADS, 3, 4, 4, generator=generator)
    textures = 0.35 * F.interpolate(coarse, size=_TEXTURE, mode="bicubic").clamp(-1.5, 1.5)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    prior = natural_prior((_HEADS_SIDE, _HEADS_SIDE))
    for _ in range(steps):
        images = 0.5 + 0.6 * (backgrounds(prior, generator, _BATCH) - 0.5)
        there = torch.rand(_BATCH, HEADS, generator=generator) < 0.3
        corners = torch.randint(_HEADS_SIDE - _TEXTURE, (_BATCH, HEADS, 2), generator=generator)
        for image, k in there.nonzero().tolist():
            top, left = corners[image, k].tolist()
            images[image, :, top : top + _TEXTURE, left : left + _TEXTURE] += textures[k]
        loss = F.binary_cross_entropy_with_logits(network(images.clamp(0, 1)), there.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def examine_heads(network: Heads, *, seeds: int = 3, steps: int = 32) -> Entanglement:
    """The matrix of its classes, against the scale of noise that looks like photographs."""
    prior = natural_prior((_HEADS_SIDE, _HEADS_SIDE))
    settings = replace(FOURIER, seeds=seeds, steps=steps)
    made = generate_prototypes(network.eval(), range(HEADS), prior, settings=settings)
    natural = backgrounds(prior, torch.Generator().manual_seed(9), 300)
    return entanglement(made.logits, made.classes, logits(network, natural))


def _heads_row(weights: str, networks: int) -> Row:
    hits = 0
    for seed in range(networks):
        network = Heads(seed)
        found = examine_heads(learned(network, 1000 + seed) if weights == "trained" else network)
        hits += len(found.significant()) > 0
    most = max(1, 3 * networks // 20)
    return _row(f"independent_heads.{weights}", hits, networks, "networks", f"<= {most}")


# -- Food ------------------------------------------------------------------------------------------


def _food_rows(model: Path, sheets: Path | None) -> list[Row]:
    """Of the food model, if it has been made."""
    import tempfile

    photographs = _ASSETS / "food5_64"
    if not model.is_dir() or not photographs.is_dir():
        print(f"food: left out, for want of {model if not model.is_dir() else photographs}")
        return []
    network = load_model(model)
    with tempfile.TemporaryDirectory() as folder:
        samples = read_source(DataSource(photographs, split="test"))
        import_pictures(samples, network.classes, network.prepare, Path(folder), "test")
        held_out = read_split(Path(folder), "test", network.classes)
    natural = logits(network, held_out.images)
    count = len(network.classes)
    prior = natural_prior(network.spec.image_size)
    made = generate_prototypes(network, range(count), prior, settings=replace(FOURIER, seeds=6))
    found = entanglement(made.logits, made.classes, natural)
    _show(found, network.classes)
    if sheets is not None:
        draw(found, network.classes).save(sheets / "food.png")
    counts = confusions(held_out.labels.numpy(), natural.argmax(1).numpy(), np.arange(count))
    rates = counts[:, :-1] / counts.sum(1, keepdims=True)
    pair = tuple(sorted(network.classes.index(name) for name in ("frozen_yogurt", "ice_cream")))
    pairs = [tuple(one) for one in found.pairs().tolist()]
    rows = [_row("food.rank", pairs.index(pair) + 1, len(pairs), "rank", "== 1")] if pair in pairs else []
    for name, estimate, goal in (
        ("mutual", found.mutual_estimate(*pair), ""),
        ("first", found.mutual_estimate(*pairs[0]), ""),
        ("correlation", rank_correlation(found.mutual, counts=counts), "> 0"),
    ):
        if estimate is not None:
            value, low, high, n = estimate
            rows.append(_row(f"food.{name}", value, n, "ratio", goal, low, high))
    rate = float(rates[pair] + rates[pair[::-1]]) / 2
    return [*rows, _row("food.confusion", rate, int(counts[list(pair)].sum()), "share", "")]


def _show(found: Entanglement, names: Sequence[str]) -> None:
    table = pair_table(found, names, top=10)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


# -- The table -------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write rows and heat maps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer networks, no food")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these")
    parser.add_argument("--sheets", type=Path, help="a folder for the heat maps")
    parser.add_argument("--food", type=Path, default=_FOOD, help="the food model")
    given = parser.parse_args(arguments)
    if given.sheets:
        given.sheets.mkdir(parents=True, exist_ok=True)

    def wanted(*names: str) -> bool:
        return not given.only or any(part in name or name in part for name in names for part in given.only)

    rows: list[Row] = []
    if wanted(
        "made_pairs_first", "made_pairs_significant", "other_pairs_significant", "confusion_correlation"
    ):
        rows += _lookalike_rows(given.sheets)
    for weights in ("random", "trained"):
        if wanted(f"independent_heads.{weights}"):
            rows.append(_heads_row(weights, _QUICK_NETWORKS if given.quick else _NETWORKS))
    if wanted("food.") and not (given.quick and not given.only):
        rows += _food_rows(given.food, given.sheets)
    print(f"{'name':32} {'value':>8} {'low':>8} {'high':>8} {'n':>4}  goal")
    for row in rows:
        numbers = " ".join(f"{row[key]:8.3g}" for key in ("value", "low", "high"))
        print(f"{row['name']:32} {numbers} {row['n']:>4}  {row['goal']}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _row(
    name: str, value: float, n: int, unit: str, goal: str, low: float | None = None, high: float | None = None
) -> Row:
    """A row of the JSON; what is counted has no interval but itself."""
    ends = {"low": value if low is None else low, "high": value if high is None else high}
    return {"name": name, "value": value, **ends, "n": n, "unit": unit, "goal": goal}


if __name__ == "__main__":
    main()
