"""The pages of docs/learn are what their scripts say now."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from docs.learn.render import FOLDER, cells, render, scripts

# Mean difference in grey levels of one picture drawn by two versions of its libraries.
SAME_PICTURE = 4.0
# What is climbed or trained at length comes out a little different on another processor, so that what is
# printed of it and how its pictures look may differ: what matters of them these scripts assert.
LONG = ("06_entanglement", "07_the_tank_case", "08_language_models")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Pages compute little: on a busy machine threads would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def links(page: str) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)]+)\)", page) if "://" not in target]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.stem)
def test_a_page_is_what_its_script_renders_to(script: Path, tmp_path: Path) -> None:
    page, kept_page = render(script, tmp_path), script.with_suffix(".md").read_text()
    if script.stem in LONG:
        page, kept_page = (
            re.sub(r"```text\n.*?\n```\n\n?", "", one, flags=re.DOTALL) for one in (page, kept_page)
        )
    assert page == kept_page, "run `python docs/learn/render.py`"
    drawn = sorted((tmp_path / "images").glob("*"))
    kept = sorted((FOLDER / "images").glob(f"{script.stem}-*"))
    assert [file.name for file in drawn] == [file.name for file in kept]
    for new, old in zip(drawn, kept, strict=True):
        pixels = [np.asarray(Image.open(file).convert("RGB"), dtype=float) for file in (new, old)]
        assert pixels[0].shape == pixels[1].shape
        assert script.stem in LONG or np.abs(pixels[0] - pixels[1]).mean() < SAME_PICTURE, new.name


def test_the_readme_lists_the_pages_in_their_order() -> None:
    listed = [name for name in links((FOLDER / "README.md").read_text()) if re.fullmatch(r"[^/]+\.md", name)]
    assert listed == [script.with_suffix(".md").name for script in scripts()]
    assert len(listed) >= 3


def test_links_lead_somewhere() -> None:
    for page in FOLDER.glob("*.md"):
        for target in links(page.read_text()):
            assert (FOLDER / target).exists(), f"{page.name}: {target}"


def written(folder: Path, source: str) -> Path:
    script = folder / "01_page.py"
    script.write_text(source)
    return script


def test_cells_keep_title_text_and_line() -> None:
    source = '"""Before."""\n\n# %% [markdown]\n# # Title\n\n# %% A picture\nx = 1\n\ny = 2\n'
    first, second = cells(source)
    assert (first.is_markdown, first.text, first.line) == (True, "# # Title", 4)
    assert (second.title, second.text, second.line) == ("A picture", "x = 1\n\ny = 2", 7)


def test_a_page_has_text_code_prints_and_values(tmp_path: Path) -> None:
    source = "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 2\nprint('printed')\nx + 1\n\n# %%\nx = 3\n"
    page = render(written(tmp_path, source), tmp_path)
    assert page == (
        "<!-- Written by render.py from 01_page.py: edit that. -->\n\n"
        "# Title\n\nText.\n\n"
        "```python\nx = 2\nprint('printed')\nx + 1\n```\n\n"
        "```text\nprinted\n3\n```\n\n"
        "```python\nx = 3\n```\n"
    )
    assert not (tmp_path / "images").exists()


def test_a_picture_is_saved_and_described_by_its_cells_title(tmp_path: Path) -> None:
    source = "# %% A red dot\nfrom PIL import Image\nprint('drawn')\nImage.new('RGB', (2, 1), 'red')\n"
    page = render(written(tmp_path, source), tmp_path)
    assert page.endswith("```text\ndrawn\n```\n\n![A red dot](images/01_page-1.png)\n")
    assert Image.open(tmp_path / "images" / "01_page-1.png").getpixel((1, 0)) == (255, 0, 0)


def test_an_error_names_the_scripts_line(tmp_path: Path) -> None:
    script = written(tmp_path, "# %% [markdown]\n# Text.\n\n# %%\nx = 1\nassert x == 2\n")
    with pytest.raises(AssertionError) as caught:
        render(script, tmp_path)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == (str(script), 6)
