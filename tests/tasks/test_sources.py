from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tasks import sources
from tasks.sources import sources_digest

FILES = {
    "tasks/__init__.py": "",
    "tasks/start.py": """
import json
from candling.package import submodule
from . import sibling
from .inner import thing as renamed

if TYPE_CHECKING:
    from tasks.apart import shape
else:
    import tasks.instead

def work():
    import tasks.lazy
    from ..tasks import unreachable
""",
    "tasks/sibling.py": "import tasks.start  # a circle\n",
    "tasks/inner/__init__.py": "from .deep import *\n",
    "tasks/inner/deep.py": "from ..beside import value\n",
    "tasks/inner/unused.py": "",
    "tasks/beside.py": "value = 1\n",
    "tasks/lazy.py": "",
    "tasks/instead.py": "",
    "tasks/apart.py": "",
    "candling/__init__.py": "import candling.errors\n",
    "candling/errors.py": "",
    "candling/package/__init__.py": "",
    "candling/package/submodule.py": "from candling.namespace.leaf import x\n",
    "candling/package/other.py": "",
    "candling/namespace/leaf.py": "x = 1\n",
    "flows/chain.py": "",
}
REACHED = {
    "tasks/__init__.py",
    "tasks/start.py",
    "tasks/sibling.py",
    "tasks/inner/__init__.py",
    "tasks/inner/deep.py",
    "tasks/beside.py",
    "tasks/lazy.py",
    "tasks/instead.py",
    "candling/__init__.py",
    "candling/errors.py",
    "candling/package/__init__.py",
    "candling/package/submodule.py",
    "candling/namespace/leaf.py",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_follows_what_is_imported_and_nothing_else(root: Path, name: str) -> None:
    before = sources_digest("tasks.start", root)
    assert sources_digest("tasks.start", root) == before
    with (root / name).open("a") as file:
        file.write("# edited\n")
    assert (sources_digest("tasks.start", root) != before) == (name in REACHED)


def test_same_sources_elsewhere(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy") / "checkout"
    root.rename(copy)
    elsewhere = sources_digest("tasks.start", copy)
    copy.rename(root)
    assert sources_digest("tasks.start", root) == elsewhere


def test_new_module_that_was_an_object(root: Path) -> None:
    before = sources_digest("tasks.start", root)
    (root / "candling/namespace/leaf").mkdir()
    (root / "candling/namespace/leaf/__init__.py").write_text("x = 2\n")
    assert sources_digest("tasks.start", root) != before


def test_no_such_module(root: Path) -> None:
    with pytest.raises(ValueError, match=r"tasks\.missing"):
        sources_digest("tasks.missing", root)


def test_real_steps() -> None:
    root = Path(__file__).resolve().parents[2]
    assert sources_digest("tasks.store", root) != sources_digest("tasks.tracking", root)


def test_a_parser_that_was_disturbed_is_asked_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sources_digest("tasks.start", root)
    sources._parse.cache_clear()
    parse, failed = ast.parse, []

    def disturbed(content: bytes, file: Path) -> ast.Module:
        if file not in failed:
            failed.append(file)
            raise SystemError("AST constructor recursion depth mismatch (before=57, after=45)")
        return parse(content, file)

    monkeypatch.setattr(ast, "parse", disturbed)
    assert sources_digest("tasks.start", root) == expected
    assert failed
