"""Networks that a user's own function builds: the only code that a model may bring, and only by name."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from candling.errors import ModelError

__all__ = ["call_factory", "factory_digest"]


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    """`root` as the last place where modules are looked for, so that it can shadow nothing."""
    added = str(root.resolve())
    sys.path.append(added)
    try:
        yield
    finally:
        # The last one is ours, whatever the imported module added before it.
        for i in reversed(range(len(sys.path))):
            if sys.path[i] == added:
                del sys.path[i]
                break


def _module(name: str, root: Path) -> ModuleType:
    module = name.partition(":")[0]
    try:
        with _importable(root):
            return importlib.import_module(module)
    except Exception as error:
        raise ModelError(f"factory {name!r}: importing {module} raised {_told(error)}") from error


def factory_digest(name: str, *, root: Path = Path()) -> str:
    """SHA-256 of the source of the factory's module."""
    file = _module(name, root).__file__
    if file is None:
        raise ModelError(f"factory {name!r}: its module has no file; name a module with a source")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def call_factory(name: str, arguments: Mapping[str, Any], *, root: Path = Path()) -> nn.Module:
    """What ``package.module:function`` returns for `arguments`, looked for on the path and then in `root`.

    Raises
    ------
    ModelError
        If it cannot be imported, raises, or returns no module.
    """
    module = _module(name, root)
    target: Any = module
    for part in name.partition(":")[2].split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise ModelError(f"factory {name!r}: {module.__file__} has no such function")
    try:
        with _importable(root):
            network = target(**arguments)
    except Exception as error:
        raise ModelError(f"factory {name!r}: raised {_told(error)}") from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"factory {name!r}: returned {type(network).__name__}, not a torch.nn.Module")
    return network


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
