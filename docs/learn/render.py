"""Render scripts to the pages beside them: `python docs/learn/render.py [SCRIPT…]`, by default those here.

A script is in "percent" form, so that Jupyter and VS Code open it as a notebook: a line `# %% [markdown]`
begins a cell of text in comments, a line `# %%` one of code, after which may stand a title. As in a notebook,
what a cell prints stands below it, and so does the value of its last expression: as a picture, which the
title describes, where the value can be one.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
MARK = "# %%"


@dataclass(frozen=True)
class Cell:
    """A cell of a script: what stands behind its mark, its lines, and the number of the first of them."""

    title: str
    text: str
    line: int

    @property
    def is_markdown(self) -> bool:
        return self.title == "[markdown]"


def cells(source: str) -> Iterator[Cell]:
    """Cells of a script in percent form; what stands before the first mark is none."""
    lines = source.splitlines()
    marks = [number for number, line in enumerate(lines) if line.startswith(MARK)]
    for start, end in zip(marks, [*marks[1:], len(lines)], strict=True):
        text = "\n".join(lines[start + 1 : end]).strip("\n")
        yield Cell(lines[start].removeprefix(MARK).strip(), text, start + 2)


def render(script: Path, folder: Path) -> str:
    """Run a script, cell by cell, and write its pictures under `folder`/images.

    Returns
    -------
    str
        The page: markdown, code, and below each piece of code what it prints and shows.

    Raises
    ------
    Exception
        Whatever the script raises, as it is: its traceback names the script's line.
    """
    parts = [f"<!-- Written by render.py from {script.name}: edit that. -->"]
    names: dict[str, Any] = {"__name__": "__main__"}
    pictures = 0
    for cell in cells(script.read_text()):
        if cell.is_markdown:
            parts.append(re.sub("^# ?", "", cell.text, flags=re.MULTILINE))
            continue
        value, printed = _run(cell, script, names)
        parts.append(f"```python\n{cell.text}\n```")
        if hasattr(value, "_repr_png_"):
            pictures += 1
            place = Path("images") / f"{script.stem}-{pictures}.png"
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(value._repr_png_())
            value = None
            picture = f"![{cell.title}]({place.as_posix()})"
        else:
            picture = ""
        if value is not None:
            printed += f"{value!r}\n"
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
        if picture:
            parts.append(picture)
    return "\n\n".join(parts) + "\n"


def scripts() -> list[Path]:
    """The scripts of this folder, in their order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def _run(cell: Cell, script: Path, names: dict[str, Any]) -> tuple[Any, str]:
    """Value of the cell's last expression, None without one, and what it printed."""
    tree = ast.parse(cell.text, str(script))
    ast.increment_lineno(tree, cell.line - 1)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, str(script), "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(script), "eval"), names)
    return value, printed.getvalue()


if __name__ == "__main__":
    for script in [Path(name) for name in sys.argv[1:]] or scripts():
        script.with_suffix(".md").write_text(render(script, script.parent))
