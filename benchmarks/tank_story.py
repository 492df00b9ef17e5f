"""Is the tank story true, and not only for one seed? Draw, train and audit it again for several.

    python -m benchmarks.tank_story [--quick] [--json FILE] [--only NAME…]

Everything depends on the seed: scenes, weights, batches. The evidence on tanks on grass is that on all 120
pictures of this group; the audit samples few. `--quick` runs one seed. Takes about seven minutes a seed
on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from candling.audit.record import AuditRecord, Measurement, measured, read_record
from candling.cli.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
TANK = {"class": "tank"}
GRASS = {"class": "tank", "background": "grass"}
PARTS = {"class": "tank", "part": "expected parts"}


@dataclass(frozen=True)
class Claim:
    """One sentence of the story: a measurement of a subject and where it has to lie."""

    subject: str
    measurement: str
    scope: dict[str, str]
    goal: str

    @property
    def name(self) -> str:
        return ".".join([self.subject, self.measurement, *self.scope.values()]).replace(" ", "_")

    def value(self, records: dict[str, AuditRecord]) -> float | None:
        found = records[self.subject].measurement(self.measurement, self.scope)
        return None if found is None else found.value

    def holds(self, value: float | None) -> bool:
        sign, bound = self.goal.split()
        return value is not None and (value >= float(bound) if sign == ">=" else value <= float(bound))


CLAIMS = (
    Claim("before", "accuracy.like_train", {}, ">= 0.95"),
    Claim("before", "accuracy.worst_group", {}, "<= 0.6"),
    Claim("before", "background.follow_rate", {}, ">= 0.9"),
    Claim("before", "object_evidence.over_chance", GRASS, "<= 0.8"),
    Claim("before", "object_evidence.shapley_share", GRASS, "<= 0.25"),
    Claim("before", "prototype.object_similarity", TANK, "<= 0.05"),
    Claim("control", "accuracy.worst_group", {}, "<= 0.6"),
    Claim("control", "background.follow_rate", {}, ">= 0.9"),
    Claim("after", "accuracy.worst_group", {}, ">= 0.9"),
    Claim("after", "background.follow_rate", {}, "<= 0.1"),
    Claim("after", "object_evidence.over_chance", GRASS, ">= 2"),
    Claim("after", "object_evidence.shapley_share", GRASS, ">= 0.7"),
    Claim("after", "object_evidence.part_over_area", PARTS, ">= 2"),
    Claim("after", "prototype.object_similarity", TANK, ">= 0.25"),
)


def evidence_on_grass(folder: Path, model: Path) -> Measurement:
    """`object_evidence.over_chance` of tanks on grass as the audit has it, on all pictures of the group."""
    import torch

    from candling.data import read_split, unit
    from candling.models import load_model
    from candling.statistics import ratio_of_means
    from candling.vision.isolation import Windows, evidence_share, isolate
    from tasks.context import one_thread
    from tasks.pictures import donors_in_turn

    classifier = load_model(model)
    pictures = read_split(folder, "eval", classifier.classes)
    pictures = pictures.take([row for row, group in enumerate(pictures.groups) if group == "tank/grass"])
    donors = donors_in_turn(read_split(folder, "donors", classifier.classes))
    assert pictures.masks is not None
    with one_thread():
        tank = torch.ones(len(pictures), 1, dtype=torch.long)
        found = isolate(classifier, unit(pictures.images), classes=tank, method=Windows(donors=donors))
        maps = found.maps[:, 0]
    objects = pictures.masks > 0
    share, area = evidence_share(maps, objects).double(), objects.double().mean((1, 2))
    return measured("object_evidence.over_chance", ratio_of_means(share.numpy(), area.numpy()), GRASS)


def tell(seed: int) -> dict[str, AuditRecord]:
    """Draw, train and audit with `seed`; what is in the store already is not done again."""
    import flows.audit
    import tasks.draw_scenes
    import tasks.retrain
    from candling.models import model_digest

    folder = Path(".candling") / "story" / str(seed)
    params = yaml.safe_load((ROOT / "params" / "tanks.yaml").read_text(encoding="utf-8"))
    params |= {"name": f"tanks-seed-{seed}", "seed": seed, "model": str(folder / "before")}
    params["scenes"]["folder"] = params["data"]["folder"] = str(folder / "data")
    file = ROOT / folder / "params.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    if not (ROOT / folder / "data" / "donors.parquet").is_file():
        tasks.draw_scenes.main(file)
    if not (ROOT / folder / "before" / "spec.json").is_file():
        tasks.retrain.main(file)
    with Progress() as progress:
        outcome = flows.audit.main(file, progress)
    records = {name: read_record(path) for name, path in outcome.subjects.items()}
    for name in ("before", "after"):
        (model,) = [
            file.parent
            for file in (ROOT / ".candling" / "store").glob("*/*/model/spec.json")
            if model_digest(file.parent) == records[name].digests["model"]
        ][:1]
        whole = evidence_on_grass(ROOT / folder / "data", model)
        others = [m for m in records[name].measurements if (m.id, m.scope) != (whole.id, whole.scope)]
        records[name] = records[name].model_copy(update={"measurements": (*others, whole)})
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the seeds, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these")
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{ROOT}/.candling/story/mlflow.db"
    seeds = range(1 if given.quick else given.seeds)
    stories = [tell(seed) for seed in seeds]
    rows = []
    print(f"{'claim':64} {'goal':>8}  holds  " + "  ".join(f"seed {seed}" for seed in seeds))
    for claim in CLAIMS:
        if given.only and not any(word in claim.name for word in given.only):
            continue
        values = [claim.value(records) for records in stories]
        holds = sum(claim.holds(value) for value in values)
        shown = "  ".join("     –" if value is None else f"{value:6.3f}" for value in values)
        print(f"{claim.name:64} {claim.goal:>8}  {holds}/{len(values)}    {shown}")
        known = [value for value in values if value is not None]
        rows.append(
            {
                "name": claim.name,
                "value": statistics.median(known) if known else None,
                "low": min(known, default=None),
                "high": max(known, default=None),
                "n": len(known),
                "unit": "median, least and greatest over seeds",
                "goal": claim.goal,
            }
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
