"""Is attribution to input tokens the same as captum's, and how much sooner is it there?

    python -m benchmarks.attribution [--quick] [--json FILE] [--only NAME…]

On stories260k of CANDLING_ASSETS, prompts of 64 tokens that the model itself wrote, and the three tokens that
it went on with as the output.

- `speed_over_captum`: seconds of `LLMAttribution(FeatureAblation)` over ours, by the clock, in turns, each
  token replaced by `<unk>`; the median over prompts, their least and greatest as low and high. Without its
  cache of keys and values, which transformers 5 changes in place, so that its scores are off by nats:
  `.default` is with it. `.whole_output` sees the output at once, its quickest.
- `differs_from_captum`: the greatest difference of a score to captum's, in nats, in the same three ways.
- `integrated_gradients_incomplete`: the greatest part of a score's change, from the baseline to the prompt,
  by which integrated gradients miss it.
- `planted_recall_at_1`: as `benchmarks.associations` measures it, on twenty models that it trains.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput

from benchmarks import associations
from candling.language import LanguageModel, attribute, log_probabilities, open_language_model

_LENGTH, _SAID = 64, 3
_HIDDEN = 0  # <unk>
_WAYS: dict[str, dict[str, bool]] = {
    "": {"use_cached_outputs": False},
    ".default": {},
    ".whole_output": {"use_cached_outputs": False, "forward_in_tokens": False},
}


def written(model: LanguageModel, count: int) -> list[tuple[str, str]]:
    """Prompts of 64 tokens, and what follows, that the model wrote and whose text has these tokens again."""
    found: list[tuple[str, str]] = []
    generator = torch.Generator().manual_seed(0)
    while len(found) < count:
        row = [*model.start, *model.encode("Once upon a time")]
        whole = len(model.start) + _LENGTH + _SAID
        while len(row) < whole:
            logits = model.network(input_ids=torch.tensor([row])).logits[0, -1].float()
            logits[list(model.special)] = -torch.inf
            row.append(int(torch.multinomial(logits.softmax(-1), 1, generator=generator)))
        tokens = row[len(model.start) :]
        prompt, said = model.decode(tokens[:_LENGTH]), model.decode(tokens[_LENGTH:])
        if model.encode(prompt) == tokens[:_LENGTH] and len(model.encode(said)) == _SAID:
            found.append((prompt, said))
    return found


def measure(model: LanguageModel, prompts: Sequence[tuple[str, str]]) -> list[dict[str, object]]:
    """The rows of the table."""
    peer = LLMAttribution(FeatureAblation(model.network), model.tokenizer)
    ratios: dict[str, list[float]] = {name: [] for name in _WAYS}
    apart = dict.fromkeys(_WAYS, 0.0)
    incomplete = 0.0
    for prompt, said in prompts:
        target = torch.tensor(model.encode(said))
        for name, way in _WAYS.items():
            began = time.perf_counter()
            ours = attribute(
                model, prompt, target=said, unit="token", replacement=_HIDDEN, faithfulness=False
            )
            middle = time.perf_counter()
            given = TextTokenInput(prompt, model.tokenizer, baselines=_HIDDEN, skip_tokens=list(model.start))
            theirs = peer.attribute(given, target=target, **way).seq_attr
            ratios[name].append((time.perf_counter() - middle) / (middle - began))
            far = float((torch.from_numpy(ours.scores) - theirs.double()).abs().max())
            apart[name] = max(apart[name], far)
        gradients = attribute(
            model, prompt, target=said, unit="token", method="integrated-gradients",
            replacement=_HIDDEN, faithfulness=False,
        )  # fmt: skip
        bare = log_probabilities(model, [[_HIDDEN] * _LENGTH], model.encode(said))
        gap = gradients.score - float(bare)
        incomplete = max(incomplete, abs(float(gradients.scores.sum()) - gap) / abs(gap))
    count = len(prompts)
    rows: list[dict[str, object]] = [
        {
            "name": f"speed_over_captum{name}", "value": statistics.median(found),
            "low": min(found), "high": max(found), "n": count, "goal": ">= 3",
        }
        for name, found in ratios.items()
    ]  # fmt: skip
    rows += [
        {
            "name": f"differs_from_captum{name}",
            "value": far,
            "n": count,
            "goal": "" if name == ".default" else "<= 1e-4",
        }
        for name, far in apart.items()
    ]
    goal = "<= 0.01"
    return [*rows, {"name": "integrated_gradients_incomplete", "value": incomplete, "n": count, "goal": goal}]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="three prompts instead of twenty")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", default=["captum", "planted"], choices=["captum", "planted"])
    given = parser.parse_args(arguments)
    folder = Path(os.environ.get("CANDLING_ASSETS", "../shared/assets")) / "stories260k"
    model = open_language_model(folder)
    rows = measure(model, written(model, 3 if given.quick else 20)) if "captum" in given.only else []
    if "planted" in given.only:
        table = associations.measure(0, 2 if given.quick else associations.MODELS, 0, ["attribution"])
        rows += [row for row in associations.rows_of(table) if row["name"] == "planted_recall_at_1"]
    for row in rows:
        spread = f"  {row['low']:.3g} … {row['high']:.3g}" if "low" in row else ""
        print(f"{row['name']:36} {row['value']:9.3g}  goal {row['goal']}{spread}  n {row['n']}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
