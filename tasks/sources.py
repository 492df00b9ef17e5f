"""The digest of the sources that a step runs, so that an edited step is computed again."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

__all__ = ["edited", "sources_digest"]

_OURS = ("candling", "tasks", "flows")


def sources_digest(module: str, root: Path) -> str:
    """Sha256 of `module` and of every repository module that it imports, directly or not.

    Imports are read from the syntax tree, those inside functions too, so nothing is run;
    what only type checkers read is left out. A module named
    only by a string (`importlib.import_module`) is not seen.

    Parameters
    ----------
    module
        Dotted name, such as ``tasks.isolate_features``.
    root
        The folder in which `candling`, `tasks` and `flows` lie.
    """
    total = hashlib.sha256()
    for name, file in sorted(_reached(module, root).items()):
        total.update(f"{name} {_read(name, file)[0]}\n".encode())
    return total.hexdigest()


def edited(module: str, root: Path) -> list[str]:
    """Modules that `module` reaches whose files in the checkout are not what they were at this import.

    What a process has imported stays as it was, so a result of such a module belongs to no digest.
    """
    return [
        name
        for name, file in _reached(module, root).items()
        if file in _AT_IMPORT and _AT_IMPORT[file] != _sha256(file)
    ]


def _reached(module: str, root: Path) -> dict[str, Path]:
    """Files of `module` and of all repository modules that it imports, by name."""
    if _file(module, root) is None:
        raise ValueError(f"{module!r} is not a module of {root}")
    files: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name.partition(".")[0] not in _OURS:
            continue
        seen.add(name)
        # Importing a.b.c runs a and a.b first.
        waiting.append(name.rpartition(".")[0])
        file = _file(name, root)
        if file is not None:
            files[name] = file
            waiting.extend(_read(name, file)[1])
    return files


def _file(name: str, root: Path) -> Path | None:
    """The file of a module; None for a package without `__init__` and for what is no module."""
    first, *rest = name.split(".")
    base = root / first
    if not base.is_dir():
        # An audit repository that uses an installed candling.
        spec = importlib.util.find_spec(first) if first == "candling" else None
        if spec is None or spec.origin is None:
            return None
        base = Path(spec.origin).parent
    path = base.joinpath(*rest)
    for candidate in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if candidate.is_file():
            return candidate
    return None


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read(name: str, file: Path) -> tuple[str, tuple[str, ...]]:
    """Sha256 of a module's file, and the names that it may import."""
    state = file.stat()
    return _parse(name, file, state.st_mtime_ns, state.st_size)


_PARSING = threading.Lock()


def _tree(content: bytes, file: Path) -> ast.Module:
    """The syntax tree of a module.

    Steps run in threads, and Python 3.11 counts the depth of all trees that are being built in one place:
    where one is begun before another is done, it says "AST constructor recursion depth mismatch".
    """
    with _PARSING:
        try:
            return ast.parse(content, file)
        except SystemError:
            # A library may have parsed at the same time, and knows nothing of our lock.
            return ast.parse(content, file)


@lru_cache(maxsize=4096)
def _parse(name: str, file: Path, mtime: int, size: int) -> tuple[str, tuple[str, ...]]:
    content = file.read_bytes()
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    imported = tuple(sorted(set(_imports(_tree(content, file), package))))
    return hashlib.sha256(content).hexdigest(), imported


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in _run(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield base
            # Perhaps a submodule, perhaps an object; `_file` finds out.
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All of a tree but for what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from _run(other)
        else:
            yield child
            yield from _run(child)


_CHECKOUT = Path(__file__).resolve().parents[1]
_AT_IMPORT = {file: _sha256(file) for package in _OURS for file in (_CHECKOUT / package).rglob("*.py")}
