"""How often does `candling diff` name a change where nothing changed, and does it name what did?

    python -m benchmarks.differences [--quick] [--json FILE] [--only NAME…] [--audits N]

The model of the tank audit is audited with seven seeds, all else alike (on half as many pictures where that
takes longest), and each is compared with each: whatever differs is chance. `false_changes` counts the pairs,
of 21, of which the comparison calls a measurement changed, family-wise at 5%. `fixed` is whether of the
audit's own subjects the shortcut of `before` is told as fixed in `after`. It needs `make audit` before, and
takes about two minutes of one core a seed.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import yaml

from candling.audit.comparison import Comparison, compare
from candling.audit.record import AuditRecord, read_record
from candling.cli.progress import Progress
from candling.statistics import proportion

ROOT = Path(__file__).resolve().parents[1]
AUDITS = 7


def audited(seed: int) -> AuditRecord:
    """The record of the tank audit's first model, audited with a seed."""
    import flows.audit

    params = yaml.safe_load((ROOT / "params" / "tanks.yaml").read_text(encoding="utf-8"))
    params |= {"name": f"tanks-audited-{seed}", "seed": seed}
    # The model and the pictures are those of the tank audit; only the audit draws anew.
    params["isolation"]["images"] //= 2
    del params["scenes"], params["train"], params["retrain"], params["gate"]
    file = ROOT / ".candling" / "differences" / f"{seed}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    with Progress() as progress:
        outcome = flows.audit.main(file, progress)
    (folder,) = outcome.subjects.values()
    return read_record(folder)


def told(found: Comparison) -> str:
    """What a comparison calls changed, in a line."""
    return ", ".join(
        f"{' '.join([one.id, *one.scope.values()])} p {one.p:.3g}"
        for one in found.significant
        if one.p is not None
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the pairs, print what was called changed and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two audits")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", default=["false_changes", "fixed"])
    parser.add_argument("--audits", type=int, default=AUDITS)
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{ROOT}/.candling/differences/mlflow.db"
    rows: list[dict[str, object]] = []
    if "fixed" in given.only:
        before, after = (read_record(ROOT / "reports" / "tanks" / name) for name in ("before", "after"))
        found = {one.id: one.status for one in compare(before, after).findings}
        value = float(found.get("shortcut.background") == "fixed")
        rows.append({"name": "fixed", "value": value, "low": value, "high": value, "n": 1,
                     "unit": "whether the shortcut is told as fixed", "goal": ">= 1"})  # fmt: skip
    if "false_changes" in given.only:
        seeds = range(1, 3 if given.quick else given.audits + 1)
        records = {seed: audited(seed) for seed in seeds}
        pairs = list(combinations(seeds, 2))
        changed = 0
        for one, other in pairs:
            found_pair = compare(records[one], records[other])
            changed += bool(found_pair.significant)
            print(f"seeds {one} and {other}: {told(found_pair) or 'nothing'}", flush=True)
        share = proportion(changed, len(pairs))
        rows.append({"name": "false_changes", "value": float(changed), "low": share.low * len(pairs),
                     "high": share.high * len(pairs), "n": len(pairs),
                     "unit": "pairs in which anything is called changed", "goal": "<= 3 of 20"})  # fmt: skip
    for row in rows:
        print(f"{row['name']:16} {row['value']}  n {row['n']}  {row['goal']}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
