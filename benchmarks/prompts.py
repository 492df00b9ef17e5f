"""How good are the prompts that a search finds, beside other searches at the same cost?

    python -m benchmarks.prompts [--quick] [--json FILE] [--rows FILE] [--only METHOD…] [--lengths N…]
    python -m benchmarks.prompts --told FILE…

On stories260k of CANDLING_ASSETS: prompts of 1, 2, 4, 6 and 8 tokens for 21 words that the model knows, of
one to five tokens, and for 21 targets of three tokens drawn at random, from the same random starts, five
seeds each. It takes five hours of one core, most of them nanoGCG's; lengths may be measured apart and told
together. Cost is counted in tokens, 1 for each that goes forward, 3 for one that goes forward and back; all
have the same budget, and what counts is the log-probability of the target after the best whole prompt.

- `logp.<set>.<method>.length<n>`: the mean over targets and seeds; the interval is a bootstrap over targets.
- `gain.<set>.<method>.length<n>`: ours less that of the method, paired by target and seed; at lengths 4 to 8
  it is to lie above zero.
- `optimality_gap.length<n>`: what ours lacks to the best of all prompts of one or two tokens, all tried.
- `seconds.<method>`: of the processor, a search of 4 to 8 tokens. `wall_over_nanogcg`: ours over its own, on
  one thread each.

`candling` is `search_prompts` with its defaults; its prompts can be typed. `gcg` is greedy coordinate
gradient (arXiv 2307.15043) by its description with 512 candidates from the 256 steepest; `nanogcg` is the
package 0.3.0 in an environment of its own (`use_prefix_cache=False`), whose prompts can be typed too. `pez`
is hard prompts made easy (Wen et al., arXiv 2302.03668) and `embeddings` the climb of embeddings with a pull
to the nearest token, both from their descriptions. `random` draws whole prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.peers import ask
from candling.language import LanguageModel, open_language_model, target_of
from candling.language.continuous import Continuous, relax
from candling.language.objective import Objective
from candling.language.prompts import allowed_tokens
from candling.language.search import Discrete, climb, generator_of, random_prompts
from candling.language.targets import Target
from candling.statistics import bootstrap

LENGTHS = (1, 2, 4, 6, 8)
BUDGET = {1: 6_000, 2: 60_000, 4: 60_000, 6: 30_000, 8: 60_000}
WORDS = (
    "girl", "boy", "woman", "mom", "dad", "doctor", "good", "dog", "cat", "little", "happy", "sad", "play",
    "park", "ball", "tree", "house", "friend", "red", "water", "bird",
)  # fmt: skip
SEEDS = 5


def targets_of(model: LanguageModel, quick: bool) -> dict[str, list[Target]]:
    """Both sets of targets."""
    words = [target_of(model, word) for word in WORDS]
    generator = generator_of("random targets")
    drawn: list[Target] = []
    while len(drawn) < len(WORDS):
        tokens = torch.randint(3, model.vocabulary, (3,), generator=generator).tolist()
        text = model.decode(tokens)
        if model.encode(text) == tokens:
            drawn.append(target_of(model, text))
    some = 3 if quick else len(WORDS)
    return {"words": words[:some], "random": drawn[:some]}


# -- Searches: an objective, starts (R, L), tokens that are allowed, seeds and a budget for each row --------

Search = Callable[[Objective, Tensor, Tensor, list[int], int], Tensor]


def ours(objective: Objective, starts: Tensor, allowed: Tensor, seeds: list[int], budget: int) -> Tensor:
    """Prompts (R, L) of `search_prompts`."""
    model = objective.model

    def refuse(tokens: list[int]) -> bool:
        return model.encode(model.decode(tokens)) != tokens

    settings = Discrete(budget=budget, enough=0.0, patience=10**6)
    return climb(objective, starts, allowed, settings, seeds, refuse=refuse).tokens


def gcg(objective: Objective, starts: Tensor, allowed: Tensor, seeds: list[int], budget: int) -> Tensor:
    """Greedy coordinate gradient: of 512 swaps of steep tokens the best becomes the prompt, better or not."""
    found = []
    for start, seed in zip(starts, seeds, strict=True):
        draws, begun = generator_of("gcg", seed), objective.meter.total
        current = best = start
        best_score = float(objective.scores(start[None])[0])
        while objective.meter.total - begun < budget:
            _, slopes = objective.slopes(current[None])
            steep = slopes[0].masked_fill(~allowed, -torch.inf)
            steep = steep.topk(min(256, int(allowed.sum())), 1).indices
            place = torch.randint(len(current), (512,), generator=draws)
            token = steep[place, torch.randint(steep.shape[1], (512,), generator=draws)]
            tried = current.expand(512, -1).clone()
            tried[torch.arange(512), place] = token
            scores = objective.scores(tried)
            current = tried[int(scores.argmax())]
            if float(scores.max()) > best_score:
                best, best_score = current, float(scores.max())
        found.append(best)
    return torch.stack(found)


def pez(objective: Objective, starts: Tensor, allowed: Tensor, seeds: list[int], budget: int) -> Tensor:
    """Hard prompts made easy: slopes taken at the nearest tokens move embeddings that keep what they were."""
    weights = objective.model.network.get_input_embeddings().weight.detach()
    words = allowed.nonzero()[:, 0]
    table = weights[words]
    soft = weights[starts].clone()
    adam = torch.optim.AdamW([soft], lr=0.1, weight_decay=0.0)
    best, best_score = starts.clone(), objective.scores(starts)
    begun = objective.meter.total
    while objective.meter.total - begun < budget * len(starts):
        near = torch.nn.functional.normalize(soft, dim=-1) @ torch.nn.functional.normalize(table, dim=-1).T
        hard = words[near.argmax(-1)]
        score, slope = objective.slopes_of(weights[hard])
        better = score > best_score
        best[better], best_score[better] = hard[better], score[better]
        soft.grad = -slope
        adam.step()
    return best


def embeddings(
    objective: Objective, starts: Tensor, allowed: Tensor, seeds: list[int], budget: int
) -> Tensor:
    """Embeddings that are pulled to the nearest token."""
    length = starts.shape[1]
    a_step = 3 * objective.tokens_of_slopes(length) + objective.tokens_of(length)
    settings = Continuous(steps=max(1, budget // a_step))
    return relax(objective, starts, allowed, settings, seeds).tokens


def random(objective: Objective, starts: Tensor, allowed: Tensor, seeds: list[int], budget: int) -> Tensor:
    """The best of prompts drawn at random."""
    length, words = starts.shape[1], allowed.nonzero()[:, 0]
    count = max(1, budget // objective.tokens_of(length))
    found = []
    for start, seed in zip(starts, seeds, strict=True):
        drawn = words[torch.randint(len(words), (count, length), generator=generator_of("random", seed))]
        tried = torch.cat([start[None], drawn])
        found.append(tried[int(objective.scores(tried).argmax())])
    return torch.stack(found)


METHODS: dict[str, Search] = {
    "candling": ours, "gcg": gcg, "pez": pez, "embeddings": embeddings, "random": random,
}  # fmt: skip
NANO = "nanogcg"


def nano(
    model: LanguageModel, folder: Path, asked: Sequence[tuple[Target, int, list[int], int]]
) -> list[tuple[float, float]]:
    """Log-probability and seconds for each (target, length, start, seed)."""
    cases = [
        {
            "start": model.decode(start), "target": target.text, "seed": seed, "budget": BUDGET[length],
            "tokens": len(model.begin) + length + len(target.tokens),
        }
        for target, length, start, seed in asked
    ]  # fmt: skip
    rows = ask(NANO, {"model": str(folder), "cases": cases}, threads=1)["rows"]
    found = []
    for (target, _, _, _), row in zip(asked, rows, strict=True):
        prompt = torch.tensor([model.encode(row["text"])])
        found.append((float(Objective(model, [target]).scores(prompt)[0]), float(row["seconds"])))
    return found


def best_of_all(model: LanguageModel, length: int, allowed: Tensor) -> Callable[[Target], float]:
    """The log-probability after the best of all prompts of a length that can be typed."""
    words = allowed.nonzero()[:, 0]
    every = torch.cartesian_prod(*[words] * length).view(-1, length)
    texts = [model.decode(row) for row in every.tolist()]
    kept = [i for i, text in enumerate(texts) if model.encode(text) == every[i].tolist()]
    every = every[kept]

    def best(target: Target) -> float:
        return float(Objective(model, [target]).scores(every).max())

    return best


# -- The table ---------------------------------------------------------------------------------------


def measure(folder: Path, methods: Sequence[str], lengths: Sequence[int], quick: bool) -> pd.DataFrame:
    """A row for each method, set, target, length and seed."""
    model = open_language_model(folder)
    allowed = allowed_tokens(model)
    seeds = list(range(2 if quick else SEEDS))

    def refuse(tokens: list[int]) -> bool:
        return model.encode(model.decode(tokens)) != tokens

    rows: list[dict[str, object]] = []
    for length in lengths:
        starts = random_prompts(length, allowed, seeds, refuse=refuse)
        best = best_of_all(model, length, allowed) if length <= 2 else None
        for name, targets in targets_of(model, quick).items():
            for target in targets:
                said = {"set": name, "target": target.text, "length": length}
                if best is not None:
                    rows.append({**said, "method": "every", "seed": 0, "value": best(target), "seconds": 0.0})
                for method in methods:
                    if method == NANO:
                        continue
                    began = time.process_time()
                    objective = Objective(model, [target])
                    found = METHODS[method](objective, starts, allowed, seeds, BUDGET[length])
                    seconds = (time.process_time() - began) / len(seeds)
                    for seed, value in zip(
                        seeds, Objective(model, [target]).scores(found).tolist(), strict=True
                    ):
                        rows.append(
                            {**said, "method": method, "seed": seed, "value": value, "seconds": seconds}
                        )
            if NANO in methods:
                asked = [
                    (target, length, start, seed)
                    for target in targets
                    for seed, start in zip(seeds, starts.tolist(), strict=True)
                ]
                for (target, _, _, seed), (value, seconds) in zip(
                    asked, nano(model, folder, asked), strict=True
                ):
                    said = {"set": name, "target": target.text, "length": length}
                    rows.append({**said, "method": NANO, "seed": seed, "value": value, "seconds": seconds})
            print(f"  length {length}, {name}", flush=True)
    return pd.DataFrame(rows)


def rows_of(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows that are told."""
    out: list[dict[str, object]] = []
    table = table.assign(set=table.set.replace({"words": "natural"}))
    mean = table.groupby(["set", "length", "target", "method"]).value.mean().unstack("method")

    def tell(name: str, values: pd.Series[float], goal: str = "", unit: str = "nats") -> None:
        """The mean over targets, with a bootstrap over them."""
        by_target = values.dropna().groupby("target").mean().to_numpy(dtype=np.float64)
        if len(by_target):
            found = bootstrap(lambda sample: sample.mean(1), by_target)
            out.append({"name": name, **found._asdict(), "unit": unit, "goal": goal})

    for name in mean.index.unique("set"):
        part = mean.loc[name]
        for method in part.columns:
            for length in part.index.unique("length"):
                tell(f"logp.{name}.{method}.length{length}", part.loc[length][method])
    for name in mean.index.unique("set"):
        part = mean.loc[name]
        for method in part.columns:
            if method in ("candling", "every") or "candling" not in part:
                continue
            difference = part["candling"] - part[method]
            for length in part.index.unique("length"):
                goal = "low > 0" if length >= 4 else ""
                tell(f"gain.{name}.{method}.length{length}", difference.loc[length], goal)
    if "every" in mean and "candling" in mean:
        lacking = mean["every"] - mean["candling"]
        for length in (1, 2):
            if length in mean.index.unique("length"):
                tell(f"optimality_gap.length{length}", lacking.xs(length, level="length"), "<= 0.05")
    seconds = table[table.length >= 4].groupby(["target", "method"]).seconds.mean().unstack("method")
    for method in seconds:
        if method != "every":
            tell(f"seconds.{method}", seconds[method], unit="s of a core")
    if NANO in seconds and "candling" in seconds:
        tell(f"wall_over_{NANO}", seconds["candling"] / seconds[NANO], "<= 0.5", "ratio")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="three targets of each kind, two seeds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=Path, help="Parquet of every search")
    parser.add_argument("--only", nargs="+", default=[*METHODS, NANO], choices=[*METHODS, NANO])
    parser.add_argument("--told", nargs="+", type=Path, help="rows measured before, of all lengths")
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS), choices=LENGTHS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = Path(os.environ.get("CANDLING_ASSETS", "../shared/assets")).resolve() / "stories260k"
    if given.told:
        table = pd.concat([pd.read_parquet(path) for path in given.told], ignore_index=True)
    else:
        table = measure(folder, given.only, given.lengths, given.quick)
    rows = rows_of(table)
    for row in rows:
        spread = f"{row['low']:.3f} … {row['high']:.3f}"
        print(f"{row['name']:40} {row['value']:9.3f}  {row['goal']:8}  {spread}  n {row['n']}")
    if given.rows:
        table.to_parquet(given.rows, index=False)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
