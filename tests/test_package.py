"""The package's own names: few, typed, and brought in only when they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import candling

ROOT = Path(__file__).parents[1]


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_public_names() -> None:
    assert candling.__all__ == [
        "AssociationMap",
        "Attribution",
        "Entanglements",
        "Isolations",
        "Tricked",
        "Visualizations",
        "associations",
        "attribute",
        "entanglement",
        "isolate",
        "layers",
        "prototypes",
        "trick",
        "visualize",
    ]
    assert set(candling.__all__) <= set(dir(candling))
    for name in candling.__all__:
        found = getattr(candling, name)
        assert found.__name__ == name
        assert found.__module__.startswith(("candling.vision.", "candling.language."))
        assert found.__doc__


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'candling' has no attribute 'prototype'"):
        candling.prototype  # noqa: B018


def test_the_import_alone_loads_no_engine() -> None:
    done = python(
        "import sys, candling; dir(candling)\n"
        "heavy = {'torch', 'numpy', 'pandas', 'typer'} & set(sys.modules); assert not heavy, heavy"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_without_the_engine_a_name_says_what_to_install() -> None:
    done = python("import sys; sys.modules['torch'] = None\nfrom candling import prototypes")
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: candling.prototypes needs torch; "
        "install it with `pip install 'candling[engine]'`"
    )
