"""The page on feature visualization is what its script says, and the script runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from docs.learn.render import cells, render

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SCRIPT = DOCS / "feature-visualization.py"
ASSETS = Path(os.environ.get("CANDLING_ASSETS", ROOT.parent / "shared" / "assets")).resolve()
WEIGHTS = ASSETS / "mobilenet_v2" / "model.safetensors"
LARGEST = 500 * 1024  # bytes of a picture


@pytest.fixture(scope="module")
def page() -> str:
    return SCRIPT.with_suffix(".md").read_text()


def without_prints(page: str) -> str:
    """A page without what its code printed, which differs between processors and from run to run."""
    return re.sub(r"```text\n.*?\n```\n\n?", "", page, flags=re.DOTALL)


def test_the_page_holds_all_text_and_code_of_its_script(page: str) -> None:
    said = [
        re.sub("^# ?", "", cell.text, flags=re.MULTILINE)
        if cell.is_markdown
        else f"```python\n{cell.text}\n```"
        for cell in cells(SCRIPT.read_text())
    ]
    head, *rest = without_prints(page).split("\n\n")
    pictures = [part for part in rest if part.startswith("![")]
    shown = "\n\n".join(part for part in rest if not part.startswith("![")).rstrip()
    assert shown == "\n\n".join(said), "run `python docs/learn/render.py docs/feature-visualization.py`"
    assert SCRIPT.name in head
    assert len(pictures) > 10


def test_pictures_and_links_are_there_and_pictures_are_small(page: str) -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", page) if "://" not in target]
    for target in targets:
        assert (DOCS / target).exists(), target
    linked = {DOCS / target for target in targets if target.endswith(".png")}
    assert linked == set((DOCS / "images").glob(f"{SCRIPT.stem}-*.png"))
    for picture in linked:
        assert picture.stat().st_size < LARGEST, picture.name


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"needs {WEIGHTS}; set CANDLING_ASSETS to real weights")
def test_the_script_renders_to_a_page_of_the_same_text_code_and_pictures(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDLING_ASSETS", str(ASSETS))
    # Smaller pictures take half the time, and do as well here.
    source, count = re.subn(r"^SIDE = \d+$", "SIDE = 64", SCRIPT.read_text(), flags=re.MULTILINE)
    assert count == 1
    script = tmp_path / SCRIPT.name
    script.write_text(source)
    rendered = re.sub(r"^SIDE = \d+$", "SIDE", render(script, tmp_path), flags=re.MULTILINE)
    assert without_prints(rendered) == without_prints(
        re.sub(r"^SIDE = \d+$", "SIDE", page, flags=re.MULTILINE)
    )
    assert re.findall("^```text", rendered, re.MULTILINE) == re.findall("^```text", page, re.MULTILINE)
