"""What `candling init` asks about any audit: where things are, and how strict the policy is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from candling.audit.measurements import REGISTRY
from candling.cli.asking import NONE, Asker
from candling.cli.drafts import Bound
from candling.cli.looking import place_of
from candling.errors import ParamsError

__all__ = ["Draft", "Here", "ask_bounds", "name_like", "read_thresholds"]

_SAY_NOTHING = ("checkpoint", "model", "pytorch_model", "weights")


@dataclass(frozen=True)
class Here:
    """Where one is.

    root: of the audit repository. params: its module `tasks.params`.
    """

    root: Path
    params: Any

    def expand(self, text: str) -> str:
        """A text with variables of the environment in it, as params read it.

        Raises
        ------
        ParamsError
            If one is not set.
        """
        try:
            return str(self.params.ModelParams(source="folder", name=text).name)
        except ValueError as error:
            unset = re.search(r"the environment variable \w+ is not set", str(error))
            raise ParamsError(f"{text!r}: {unset[0] if unset else 'names nothing'}; name a path") from error

    def place(self, flag: str, text: str) -> str:
        """A path as params name it.

        Raises
        ------
        ParamsError
            If nothing is there.
        """
        found = place_of(text, self.root, self.expand) if text.strip() else None
        if found is None:
            raise ParamsError(
                f"{flag} {text!r}: nothing is there; paths start at {self.root}, or where you stand"
            )
        return found

    def file(self, flag: str, text: str) -> str:
        """As `place`, of a file.

        Raises
        ------
        ParamsError
            If nothing is there, or it is a folder.
        """
        found = self.place(flag, text)
        if not (self.root / self.expand(found)).is_file():
            raise ParamsError(f"{flag} {text!r}: is a folder, and a file is wanted")
        return found

    def path(self, place: str) -> Path:
        """Where a path of params leads."""
        return self.root / self.expand(place)


@dataclass(frozen=True)
class Draft:
    """Answers that are enough for params.

    kind: of audit. name: what it may be called. text: the params, given their name. places: files and folders
    that the audit reads. found: what was seen of model and data, as JSON has it, None where nothing was
    looked at. notes: what to know before it runs.
    """

    kind: str
    name: str
    text: Callable[[str], str]
    places: tuple[str, ...]
    found: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def name_like(text: str) -> str:
    """A name of an audit like that of a file or a folder."""
    path = Path(text)
    # Such names say nothing; that of the folder may.
    stem = path.parent.name if path.stem in _SAY_NOTHING and path.parent.name else path.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._") or "model"


def read_thresholds(given: Sequence[str]) -> dict[str, float | None]:
    """Bounds by measurement as ``--threshold ID=NUMBER`` says them; None leaves the rule out.

    Raises
    ------
    ParamsError
        If one is not of this form, or said twice.
    """
    found: dict[str, float | None] = {}
    for text in given:
        id, equals, number = text.partition("=")
        if not equals or id in found:
            what = "is said twice" if equals else "write ID=NUMBER, such as accuracy.overall=0.8"
            raise ParamsError(f"--threshold {text!r}: {what}")
        found[id] = _bound(f"--threshold {text!r}", id, number)
    return found


def _bound(where: str, id: str, text: str) -> float | None:
    if text.strip().lower() == NONE:
        return None
    try:
        number = float(text)
    except ValueError:
        raise ParamsError(f"{where}: {text!r} is no number; write one, or {NONE} for no rule") from None
    if not math.isfinite(number):
        raise ParamsError(f"{where}: {text!r} is no number; write one, or {NONE} for no rule")
    kind = REGISTRY.get(id)
    if kind is not None and not kind.low <= number <= kind.high:
        raise ParamsError(
            f"{where}: outside the range of {id}, {kind.low:g} to {kind.high:g}; write one within"
        )
    return number


def ask_bounds(
    asker: Asker, rules: Sequence[Bound], thresholds: Mapping[str, float | None]
) -> tuple[Bound, ...]:
    """The rules with the bounds that a person wants; those of one measurement have one bound.

    Raises
    ------
    ParamsError
        If a threshold is none of these rules', or no rule is left.
    """
    ids = list(dict.fromkeys(rule.measurement for rule in rules))
    for id in thresholds:
        if id not in ids:
            raise ParamsError(
                f"--threshold {id}: such an audit is asked for {', '.join(ids)}; "
                "add rules on others to the params by hand"
            )
    bounds: dict[str, float | None] = {}
    if asker.asks and not set(ids) <= thresholds.keys():
        asker.say(f"Its policy: a rule a line, with its bound; {NONE} leaves one out.")
    for rule in rules:
        id = rule.measurement
        if id in bounds:
            continue
        if id in thresholds:
            bounds[id] = thresholds[id]
            continue

        def read(text: str, id: str = id) -> float | None:
            return _bound("--threshold", id, text)

        side = rule.side.replace("_", " ")
        question = f"  {REGISTRY[id].title} ({id}), {side}"
        bounds[id] = asker(question, None, read, flag="--threshold", default=f"{rule.bound:g}")
    kept = [replace(rule, bound=bound) for rule in rules if (bound := bounds[rule.measurement]) is not None]
    if not kept:
        raise ParamsError("no rule is left, and a policy without rules passes nothing; keep one")
    return tuple(kept)
