"""Each floor imports only the floors below it: the table of the design, read from the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

VERDICT = ("candling.audit", "candling.report")
ENGINE = ("candling.vision", "candling.language", "candling.models", "candling.data", "candling.statistics")
# What both sides know: errors, what a model is known by, and how files are written whole.
ERRORS = ("candling.errors", "candling.digests", "candling.writing")
# numpy comes with pandas.
BASE_PACKAGES = (
    "pydantic", "pydantic_core", "jinja2", "markupsafe", "numpy", "scipy", "pandas", "pyarrow", "yaml",
    "rich", "PIL",
)  # fmt: skip
WATCH = ("candling.watch",)
ENGINE_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",  # comes with transformers
    "safetensors",
    "numpy",
    "pandas",
    "scipy",
    "captum",
    "sklearn",
    "PIL",
    "pyarrow",
    "datasets",
    "pycocotools",
    "timm",
    "onnxruntime",
    "peft",
    "httpx",
    "huggingface_hub",
    "jinja2",  # what chat templates are written in
)
AUDIT_PACKAGES = ("prefect", "mlflow", "dvc", "matplotlib", "httpx")
BELOW_TASKS = (
    "candling.cli", *WATCH, *VERDICT, *ENGINE, *ERRORS, *BASE_PACKAGES, *ENGINE_PACKAGES, *AUDIT_PACKAGES,
)  # fmt: skip


@dataclass(frozen=True)
class Floor:
    """What modules under `names` may import; `inside` only within functions, or for type checkers."""

    names: tuple[str, ...]
    may: tuple[str, ...]
    inside: tuple[str, ...] = ()


FLOORS = (
    Floor(ERRORS, ERRORS),
    Floor(VERDICT, (*VERDICT, *ERRORS, *BASE_PACKAGES)),
    Floor(ENGINE, (*ENGINE, *ERRORS, *ENGINE_PACKAGES)),
    # A training loop imports it: both sides in one process, and nothing below knows of it.
    Floor(WATCH, (*WATCH, *VERDICT, *ENGINE, *ERRORS, *BASE_PACKAGES, *ENGINE_PACKAGES)),
    Floor(
        ("candling.cli", "candling.__main__"),
        ("candling.cli", *VERDICT, *ERRORS, "typer", "rich"),
        inside=("candling.models", "candling.data", "candling.vision", "candling.language"),
    ),
    Floor(("tasks",), ("tasks", *BELOW_TASKS)),
    Floor(("flows",), ("flows", "tasks", *BELOW_TASKS)),
)  # fmt: skip

# Its public names are brought in as they are asked for: the gate imports it, and has no torch.
ROOT_FLOOR = Floor(("candling",), ERRORS, inside=("candling.vision", "candling.language"))


@dataclass(frozen=True)
class Import:
    name: str
    line: int
    inside: bool


def _within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _imports(tree: ast.AST, package: str, inside: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, inside)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: -node.level + 1 or None]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                # `from candling import models` imports candling.models.
                whole = module in ("candling", "") or (node.level and not node.module)
                yield Import(f"{module}.{alias.name}" if whole else module, node.lineno, inside)
        else:
            # What only type checkers read is imported as little as what stands in a function.
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if (
                isinstance(node, ast.If)
                and isinstance(node.test, ast.Name)
                and node.test.id == "TYPE_CHECKING"
            ):
                for one in node.body:
                    yield from _imports(ast.Module([one], []), package, True)
                for one in node.orelse:
                    yield from _imports(ast.Module([one], []), package, inside)
                continue
            yield from _imports(node, package, inside or function)


def _sources() -> dict[str, Path]:
    files = (file for folder in ("candling", "tasks", "flows") for file in (ROOT / folder).rglob("*.py"))
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def _problems(name: str, text: str, floor: Floor, *, package: str | None = None) -> list[str]:
    package = package if package is not None else name.rpartition(".")[0]
    found = []
    for imported in _imports(ast.parse(text), package):
        if imported.name.partition(".")[0] in sys.stdlib_module_names:
            continue
        may = floor.may + (floor.inside if imported.inside else ())
        if not _within(imported.name, may):
            found.append(f"{name}:{imported.line} imports {imported.name}")
    return found


SOURCES = _sources()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_module_imports_only_what_its_floor_may(name: str) -> None:
    if name == "candling":
        floor = ROOT_FLOOR
    else:
        floors = [floor for floor in FLOORS if _within(name, floor.names)]
        assert len(floors) == 1, f"{name} stands on no floor of the design"
        floor = floors[0]
    file = SOURCES[name]
    package = name if file.name == "__init__.py" else None
    assert _problems(name, file.read_text(encoding="utf-8"), floor, package=package) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("candling.audit.x", "import torch"),
        ("candling.audit.x", "def f():\n    import torch.nn"),
        ("candling.report.x", "from candling.vision import isolation"),
        ("candling.report.x", "from candling import models"),
        ("candling.report.x", "from .. import models"),
        ("candling.report.x", "from ..vision.isolation import isolate"),
        ("candling.vision.x", "from candling.audit.record import Measurement"),
        ("candling.models", "import prefect"),
        ("candling.data", "from mlflow import log_metric"),
        ("candling.audit.x", "from candling.watch import Watcher"),
        ("candling.vision.x", "from candling import watch"),
        ("candling.cli.x", "def f():\n    from candling.watch import Watcher"),
        ("candling.watch.x", "from tasks import measuring"),
        ("candling.cli.x", "from candling import models"),
        ("candling.cli.x", "if True:\n    import torch"),
        ("candling.cli.x", "def f():\n    import flows.audit"),
        ("candling.cli.x", "def f():\n    from tasks import params"),
        ("candling.cli.x", "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    import torch"),
        ("candling.cli.x", "if TYPE_CHECKING:\n    pass\nelse:\n    from candling import models"),
        ("tasks.x", "from flows import audit"),
        ("tasks.x", "import requests"),
    ],
)
def test_the_check_sees_what_is_forbidden(name: str, text: str) -> None:
    (floor,) = (floor for floor in FLOORS if _within(name, floor.names))
    assert len(_problems(name, text, floor)) == 1


def test_the_cli_may_use_the_engine_inside_its_commands() -> None:
    (floor,) = (floor for floor in FLOORS if _within("candling.cli.x", floor.names))
    assert _problems("candling.cli.x", "def f():\n    from candling import models", floor) == []
