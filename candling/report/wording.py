"""Numbers, names and bounds as a page writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from candling.audit.gate import Outcome
from candling.audit.policy import Rule
from candling.audit.record import Scope
from candling.report.pages import spelled

__all__ = [
    "as_data",
    "bound_written",
    "bounds_in_words",
    "chips",
    "deciding_end",
    "end_of_axis",
    "exact",
    "figure",
    "judged_on",
    "scope_line",
    "spaced",
    "told",
]


def figure(value: float | None, least: float = 0.0001) -> str:
    """A number as a reader wants it; the page also carries it exactly, in `<data value>`.

    What is nearer to zero than `least` is only said to be so.
    """
    if value is None:
        return "–"
    value += 0.0  # no minus before zero
    size = abs(value)
    if 0 < size < least:
        text = f"<\N{NO-BREAK SPACE}{least}" if value > 0 else f">\N{NO-BREAK SPACE}-{least}"
    elif 0 < size < 0.001:
        text = f"{value:.4f}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{3 if size < 10 else 1}f}"
    return text.replace("-", "−")


def end_of_axis(value: float) -> str:
    """An end of an axis: short, as it only orients."""
    return _plainly(f"{value:.3g}")


def bound_written(value: float) -> str:
    """A bound as its author wrote it: 0.9, not 0.900."""
    return _plainly(f"{value:.6g}")


def _plainly(text: str) -> str:
    """A number without an exponent."""
    return f"{Decimal(text):f}".replace("-", "−")


def bounds_in_words(rule: Rule) -> str:
    parts = []
    if rule.at_least is not None:
        parts.append(f"≥ {bound_written(rule.at_least)}")
    if rule.at_most is not None:
        parts.append(f"≤ {bound_written(rule.at_most)}")
    return " and ".join(parts) or "no bound"


def judged_on(rule: Rule) -> str:
    """Which of the measured numbers the bound applies to."""
    if rule.on == "estimate":
        return "on the estimate"
    if rule.at_least is not None and rule.at_most is not None:
        return "on both ends of the interval"
    return f"on the {'low' if rule.at_least is not None else 'high'} end of the interval"


def deciding_end(outcome: Outcome) -> str:
    """The end of the interval that broke a rule whose value holds, which else would look as if it passed."""
    rule, value = outcome.rule, outcome.value
    if outcome.status not in ("failed", "warned", "waived") or value is None:
        return ""
    if rule.at_least is not None and value >= rule.at_least and (outcome.low or value) < rule.at_least:
        return f"low end {figure(outcome.low)}"
    if rule.at_most is not None and value <= rule.at_most and (outcome.high or value) > rule.at_most:
        return f"high end {figure(outcome.high)}"
    return ""


def told(test: Mapping[str, Any], within: str = "") -> list[tuple[str, str]]:
    """A finding's free-form test as names and values, parts of parts beside each other."""
    rows: list[tuple[str, str]] = []
    for key, value in test.items():
        name = f"{within}{spaced(key)}"
        if isinstance(value, Mapping) and value and not set(value) >= _ESTIMATE:
            rows += told(value, f"{name}: ")
        else:
            rows.append((name, _one_line(value)))
    return rows


_ESTIMATE = {"value", "low", "high"}


def _one_line(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, Mapping):
        if set(value) >= _ESTIMATE:
            n = value.get("n")
            interval = " to ".join(_one_line(value[end]) for end in ("low", "high"))
            rest = {key: part for key, part in value.items() if key not in (*_ESTIMATE, "n")}
            told = [f"{_one_line(value['value'])} [{interval}]", *([] if n is None else [f"n = {n}"])]
            return ", ".join(
                [*told, *(f"{spaced(str(key))} {_one_line(part)}" for key, part in rest.items())]
            )
        return ", ".join(f"{spaced(str(key))} {_one_line(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        parted = "; " if any(isinstance(part, Mapping) for part in value) else ", "
        return parted.join(map(_one_line, value))
    return str(value)


def spaced(name: str) -> str:
    """`object_share` as words."""
    return name.replace("_", " ").replace(".", " ")


def exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def chips(scope: Scope) -> list[tuple[str, str]]:
    """A scope as pairs to read: a slice is named by its column."""
    if set(scope) == {"slice", "value"}:
        return [(scope["slice"], scope["value"])]
    return list(scope.items())


def scope_line(scope: Scope) -> str:
    return ", ".join(f"{key} {value}" for key, value in chips(scope))


def as_data(value: object) -> Markup:
    """JSON that ends no script element, whatever it holds."""
    text = json.dumps(_spelled_through(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _spelled_through(value: object) -> object:
    """Plain data, each text as the page writes it, so that its script finds the same names."""
    if isinstance(value, dict):
        return {key: _spelled_through(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_through(part) for part in value]
    return spelled(value)
