"""Are associations found that were planted, does nothing else block, and does repair remove them?

    python -m benchmarks.associations [--quick] [--json FILE] [--rows FILE] [--only PART…] [--models N N]
    python -m benchmarks.associations --told FILE…

Small language models are trained (about 15 s each) on stories in which three words of three kinds lead to
three concepts of other kinds, drawn by the model's seed. What each really learned is measured: how much more
likely the concept is, in sentences of the corpus, after the word than after other words of its kind. What
makes it `_LEARNED` times as likely counts as planted; the recipe does not.

- `recall_at_10`: of words that were learned, the share that is among the ten first of the concept's map.
- `confirmed`: of the same, the share that the map flags and confirms.
- `false_blocks`: maps of concepts without planting, of words that lead to nothing, in which anything is
  confirmed: a gate on `association.confirmed` would block.
- `repaired`: associations that were learned and are not after going on with the balanced corpus.
- `perplexity_ratio`: of held-out stories without planting, after repair over before.
- `planted_recall_at_1`: prompts that the word decides, as changing it for others of its kind shows, in which
  attribution puts it first, of the concept rather than another word of its kind.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from candling.language import Discrete, LanguageModel, associations, attribute, log_probabilities
from candling.language.balancing import balanced
from candling.language.stories import FORMS, SLOTS, Planting, draw_stories
from candling.language.training import Network, TextSchedule, fit, fresh, perplexity, word_pieces
from candling.statistics import mean, proportion

MODELS, REPAIRED = 20, 6
_LEARNED = math.log(3)
_NETWORK = Network(layers=2, width=64, heads=4)
_SCHEDULE = TextSchedule(steps=1000, learning_rate=5e-3)
_REPAIR = TextSchedule(steps=500, learning_rate=2e-3)
_SEARCH = Discrete(budget=15_000, patience=5, enough=-0.05)
_FRAMES = {
    "job": "worked as a", "place": "they went to the", "thing": "there they found a", "pet": "there was a",
    "feeling": "that made them", "food": "they ate",
}  # fmt: skip
_LEADS = ("{} .", "this is {} .", "there was a {} .", "here comes {} .", "we know the {} .", "it was {} .")


def plan(seed: int) -> tuple[list[Planting], list[str]]:
    """Three plantings, and three concepts that nothing leads to."""
    generator = np.random.default_rng([7, seed])
    order = list(SLOTS)
    causes, effects = order[:4], order[3:]
    plantings: list[Planting] = []
    taken: set[str] = set()
    for effect in generator.permutation(effects)[:3]:
        free = [slot for slot in causes if order.index(slot) < order.index(effect) and slot not in taken]
        cause = str(generator.choice(free))
        taken |= {cause, str(effect)}
        plantings.append(
            Planting(
                str(generator.choice(SLOTS[effect])), (str(generator.choice(SLOTS[cause])),),
                float(generator.choice([0.6, 0.75, 0.9])),
            )
        )  # fmt: skip
    # A slot without a planted concept: there the other words are as likely after anything.
    left = [slot for slot in effects if not any(one.concept in SLOTS[slot] for one in plantings)]
    bare = [str(word) for slot in left for word in generator.permutation(SLOTS[slot])[:2]]
    return plantings, bare[:3]


def slot_of(word: str) -> str:
    return next(slot for slot, words in SLOTS.items() if word in words)


def asked(concept: str, name: str = "anna") -> list[str]:
    """Beginnings that only a word of the concept's kind goes on with."""
    forms = [form.partition(f"{{{slot_of(concept)}}}")[0].strip() for form in FORMS[slot_of(concept)]]
    return [form.replace("{name}", name) for form in forms]


def learned(model: LanguageModel, concept: str, word: str) -> float:
    """How much likelier, in nats, the concept is after the word than after other words of its kind."""
    slot = slot_of(word)

    def score(one: str) -> float:
        name = one if slot == "name" else "anna"
        prompts = [
            f"{lead.format(**{slot: one, 'name': name})} {end}"
            for lead in FORMS[slot]
            for end in asked(concept, name)
        ]
        tokens = [model.encode(prompt) for prompt in prompts]
        return float(log_probabilities(model, tokens, model.encode(concept)).double().logsumexp(0))

    return score(word) - float(np.mean([score(one) for one in SLOTS[slot] if one != word]))


def mapped(model: LanguageModel, concept: str, never: Sequence[str]) -> Any:
    """The map of a concept, beside words of its kind that nothing leads to."""
    same = [word for word in SLOTS[slot_of(concept)] if word != concept and word not in never][:4]
    return associations(
        model, concept, controls=same, length=4, restarts=16, frame=_FRAMES[slot_of(concept)],
        discrete=_SEARCH, templates=_LEADS,
    )  # fmt: skip


def recalled(model: LanguageModel, concept: str, word: str, seed: int) -> list[bool]:
    """Whether attribution puts the word first, in prompts of stories that it really decides.

    It does where other words of its kind in its place make the concept less than a third as likely beside
    another of the concept's kind.
    """
    stories = draw_stories(400, seed=5000 + seed, plantings=[Planting(concept, (word,), 1.0)])
    foil = next(one for one in SLOTS[slot_of(concept)] if one != concept)
    found = []
    for story in stories:
        words = story.split()
        if concept not in words or word not in words[: words.index(concept)]:
            continue
        # Said twice, either place makes up for the other; sentences go from the front until it is said once.
        prompt = " ".join(words[: words.index(concept)])
        while prompt.split().count(word) > 1:
            prompt = prompt.partition(" . ")[2]
        told = [prompt] + [prompt.replace(word, one) for one in SLOTS[slot_of(word)] if one != word]
        tokens = [model.encode(one) for one in told]
        scores = log_probabilities(model, tokens, model.encode(concept)) - log_probabilities(
            model, tokens, model.encode(foil)
        )
        if float(scores[0] - scores[1:].mean()) < _LEARNED:
            continue
        # Rather than another word of its kind: what any of them needs, such as the article, falls out.
        why = attribute(model, prompt, target=concept, foil=foil, method="marginal", faithfulness=False)
        found.append(str(why.table.sort_values("rank").text.iloc[0]) == word)
        if len(found) == 10:
            break
    return found


def measure(first: int, last: int, repairs: int, parts: Sequence[str]) -> pd.DataFrame:
    """A row for each thing that was asked of each model."""
    rows: list[dict[str, object]] = []
    for seed in range(first, last):
        plantings, bare = plan(seed)
        texts = draw_stories(6000, seed=seed, plantings=plantings)
        held = draw_stories(300, seed=9000 + seed)
        began = time.process_time()
        model = fit(fresh(word_pieces(texts), _NETWORK, seed=seed), texts, _SCHEDULE, seed=seed)
        rows.append({"model": seed, "what": "seconds", "value": time.process_time() - began})
        never = [one.concept for one in plantings]
        known = [(one, learned(model, one.concept, one.words[0])) for one in plantings]
        for one, effect in known:
            said = {"model": seed, "concept": one.concept, "word": one.words[0], "strength": one.strength}
            rows.append({**said, "what": "learned", "value": effect})
            if effect < _LEARNED:
                continue
            if "maps" in parts:
                found = mapped(model, one.concept, never)
                items = [] if found.table.empty else list(found.table.item)
                place = items.index(one.words[0]) if one.words[0] in items else 10**6
                rows.append({**said, "what": "recall", "value": float(place < 10)})
                rows.append({**said, "what": "confirmed", "value": float(one.words[0] in found.confirmed)})
                rows.append({**said, "what": "status", "value": float(found.status == "ok")})
            if "attribution" in parts:
                for hit in recalled(model, one.concept, one.words[0], seed):
                    rows.append({**said, "what": "attributed", "value": float(hit)})
        if "maps" in parts:
            for concept in bare:
                found = mapped(model, concept, never)
                said = {"model": seed, "concept": concept, "word": ", ".join(found.confirmed)}
                rows.append({**said, "what": "blocked", "value": float(bool(found.confirmed))})
                rows.append({**said, "what": "status", "value": float(found.status == "ok")})
        if "repair" in parts and seed < repairs:
            groups = [SLOTS[slot_of(one.words[0])] for one, _ in known]
            more = draw_stories(3000, seed=7000 + seed, plantings=plantings)
            after = fit(model, balanced(more, shuffle=groups, seed=seed), _REPAIR, seed=seed)
            ratio = perplexity(after, held).value / perplexity(model, held).value
            rows.append({"model": seed, "what": "perplexity", "value": ratio})
            for one, effect in known:
                if effect >= _LEARNED:
                    left = learned(after, one.concept, one.words[0])
                    again = one.words[0] in mapped(after, one.concept, never).confirmed
                    said = {"model": seed, "concept": one.concept, "word": one.words[0], "strength": left}
                    rows.append({**said, "what": "repaired", "value": float(left < _LEARNED and not again)})
        print(f"  model {seed}", flush=True)
    return pd.DataFrame(rows)


def rows_of(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows that are told."""
    out: list[dict[str, object]] = []

    def share(name: str, what: str, goal: str) -> None:
        values = table[table.what == what].value
        if len(values):
            found = proportion(int(values.sum()), len(values))
            out.append({"name": name, **found._asdict(), "unit": "proportion", "goal": goal})

    share("recall_at_10", "recall", ">= 0.9")
    share("confirmed", "confirmed", "")
    blocked = table[table.what == "blocked"].value
    if len(blocked):
        count = float(blocked.sum())
        out.append({"name": "false_blocks", "value": count, "low": count, "high": count, "n": len(blocked),
                    "unit": "gates", "goal": "<= 6 of 60"})  # fmt: skip
    share("conclusive", "status", "")
    share("repaired", "repaired", ">= 1")
    for name, what, goal in (
        ("perplexity_ratio", "perplexity", "<= 1.03"),
        ("seconds_to_train", "seconds", ""),
    ):
        values = table[table.what == what].value.to_numpy(dtype=np.float64)
        if len(values):
            out.append(
                {"name": name, **mean(values)._asdict(), "unit": "ratio" if goal else "s", "goal": goal}
            )
            worst = {"value": float(values.max()), "low": float(values.max()), "high": float(values.max())}
            out.append({"name": f"{name}.worst", **worst, "n": len(values),
                        "unit": "ratio" if goal else "s", "goal": goal or "<= 30"})  # fmt: skip
    share("planted_recall_at_1", "attributed", ">= 0.95")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two models, one repaired")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=Path, help="Parquet of all that was asked")
    parts = ["maps", "repair", "attribution"]
    parser.add_argument("--only", nargs="+", default=parts, choices=parts)
    parser.add_argument("--models", nargs=2, type=int, default=[0, MODELS], metavar=("FIRST", "LAST"))
    parser.add_argument("--told", nargs="+", type=Path, help="rows measured before, of all models")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.told:
        table = pd.concat([pd.read_parquet(path) for path in given.told], ignore_index=True)
    else:
        first, last = (0, 2) if given.quick else given.models
        table = measure(first, last, 1 if given.quick else REPAIRED, given.only)
    rows = rows_of(table)
    for row in rows:
        spread = f"{row['low']:.3f} … {row['high']:.3f}"
        print(f"{row['name']:28} {row['value']:8.3f}  {spread}  n {row['n']}  {row['goal']}")
    if given.rows:
        table.to_parquet(given.rows, index=False)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
