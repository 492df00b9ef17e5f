"""How large is the report of a thousand classes, and how soon is it open?

    python -m benchmarks.report [--quick] [--json FILE] [--only NAME…]

On a made-up audit (`tests.report.thousand`) of 1000 classes with three prototypes each, in headless Chromium.

- `page_bytes`: of `report.html`.
- `open_seconds`: from asking for the file to its load event, scripts run; median, least and greatest.
- `write_seconds`: of writing the page, thumbnails included, likewise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from candling.audit.gate import judge
from candling.report.html import write_html
from tests.report.browser import CHROMIUM, browser, opened
from tests.report.thousand import CLASSES, thousand

_LOADED = "performance.timing.loadEventEnd - performance.timing.navigationStart"


def measure(times: int) -> list[dict[str, object]]:
    """The rows of the table."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        record = thousand(root / "model")
        audited = [(record, root / "model", judge(record))]
        written, read = [], []
        for _ in range(times):
            began = time.perf_counter()
            page = write_html(audited, root / "report.html")
            written.append(time.perf_counter() - began)
        size = page.stat().st_size
        with browser() as chromium:
            for _ in range(times):
                with opened(chromium, page) as one:
                    read.append(one.page.evaluate(_LOADED) / 1000)
    return [
        {
            "name": "page_bytes", "value": size, "low": size, "high": size, "n": 1, "unit": "bytes",
            "goal": "< 12000000",
        },
        _seconds("open_seconds", read, "< 2"),
        _seconds("write_seconds", written, ""),
    ]  # fmt: skip


def _seconds(name: str, found: Sequence[float], goal: str) -> dict[str, object]:
    return {
        "name": name, "value": round(statistics.median(found), 3), "low": round(min(found), 3),
        "high": round(max(found), 3), "n": len(found), "unit": "s", "goal": goal,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="Once each.")
    parser.add_argument("--json", type=Path, help="Write the rows here.")
    parser.add_argument("--only", nargs="+", default=[], help="Names to print.")
    asked = parser.parse_args(arguments)
    if CHROMIUM is None:
        parser.error("there is no Chromium here; `make chromium` installs Debian's")
    rows = [row for row in measure(1 if asked.quick else 7) if not asked.only or row["name"] in asked.only]
    print(f"{len(CLASSES)} classes")
    for row in rows:
        print(f"{row['name']:14} {row['value']} [{row['low']}, {row['high']}] {row['unit']}  {row['goal']}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
