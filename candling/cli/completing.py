"""What the shell offers at a tab: files and folders by their place, names from their lists.

Cheap on purpose: a few folders are listed, nothing is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["among", "formats", "measurements", "model_folders", "params_files", "reports", "subjects"]


def _starting(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted(word for word in set(words) if word.startswith(incomplete))


def among(*words: str) -> Callable[[str], list[str]]:
    """Completes with one of some words."""

    def complete(incomplete: str) -> list[str]:
        return _starting(words, incomplete)

    return complete


def params_files(incomplete: str) -> list[str]:
    """Params of audits."""
    return _starting((file.as_posix() for file in Path("params").glob("*.yaml")), incomplete)


def subjects(incomplete: str) -> list[str]:
    """Report folders of subjects."""
    found = (file.parent.as_posix() for file in Path("reports").glob("*/*/record.json"))
    return _starting(found, incomplete)


def reports(incomplete: str) -> list[str]:
    """Report folders of audits and of their subjects."""
    found = [file.parent for file in Path("reports").glob("*/*/record.json")]
    return _starting((folder.as_posix() for one in found for folder in (one.parent, one)), incomplete)


def model_folders(incomplete: str) -> list[str]:
    """Folders of models."""
    found = (file for name in ("spec.json", "config.json") for file in Path("models").glob(f"**/{name}"))
    return _starting((file.parent.as_posix() for file in found), incomplete)


def formats(incomplete: str) -> list[str]:
    """Formats of a verdict."""
    from candling.report.formats import FORMATS

    return _starting(("terminal", *FORMATS), incomplete)


def measurements(incomplete: str) -> list[str]:
    """Ids of measurements."""
    from candling.audit.measurements import REGISTRY

    return _starting(REGISTRY, incomplete)
