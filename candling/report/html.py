"""The HTML report: one self-contained page that tells what the audit of each subject found.

The page is a pure function of the records, their verdicts and the pictures beside them: it holds
no dates, no random ids and no links, so the same audit gives the same bytes. Nothing is computed
here but layout; every number is one that a record or a verdict holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from candling.audit.measurements import REGISTRY, MeasurementType
from candling.audit.policy import Rule
from candling.audit.record import Artifact, AuditRecord, Finding, Measurement, Scope
from candling.errors import NothingAudited

if TYPE_CHECKING:
    from candling.audit.gate import Outcome, Verdict

__all__ = ["render", "write_html"]

# What evidence spread evenly over the picture would give; the registry's `source` says so in words.
_CHANCE = {"object_evidence.over_chance": 1.0, "object_evidence.part_over_area": 1.0}

_MATRIX_LIMIT = 24  # a larger heat map cannot be read; the strongest pairs can
_PAIRS_LISTED = 40
_PROTOTYPES_OPEN = 4  # the first of each class in the record's order: nothing is picked
_IMAGES_OPEN = 2
_RULES_ON_CARD = 6

_WORDS = {
    "passed": "passed",
    "failed": "failed",
    "blocked": "blocked",
    "warned": "warning",
    "inconclusive": "inconclusive",
    "missing": "not measured",
    "error": "error",
    "incomplete": "incomplete",
    "nothing": "nothing audited",
    "confirmed": "confirmed",
    "dismissed": "dismissed",
    "untested": "untested",
}


# -- The view: plain data that the template walks through ---------------------------------------


@dataclass(frozen=True)
class _Subject:
    index: int
    name: str
    record: AuditRecord
    folder: Path
    verdict: Verdict
    summary: str
    strongest: Outcome | None
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float

    def x(self, value: float) -> float:
        """Where `value` lies, in percent of the axis' length."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)


@dataclass(frozen=True)
class _Bar:
    """A dot with its whisker; everything in percent of the axis."""

    value: float
    low: float | None
    high: float | None
    bounds: tuple[float, ...]
    chance: float | None
    zero: float | None


@dataclass(frozen=True)
class _RuleCell:
    outcome: Outcome
    bar: _Bar | None


@dataclass(frozen=True)
class _RuleRow:
    rule: Rule
    kind: MeasurementType | None
    axis: _Axis
    cells: tuple[_RuleCell | None, ...]


@dataclass(frozen=True)
class _Cell:
    measurement: Measurement
    bar: _Bar | None


@dataclass(frozen=True)
class _Row:
    kind: MeasurementType
    scope: Scope
    axis: _Axis
    bounds: tuple[float, ...]
    chance: float | None
    cells: tuple[_Cell | None, ...]


@dataclass(frozen=True)
class _Picture:
    """A picture as a data: URI, or the words that stand in its place."""

    source: str
    problem: str
    alt: str
    caption: str
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class _Gallery:
    """One class: for each subject its pictures, those in view and those folded away."""

    name: str
    shown: tuple[tuple[_Picture, ...], ...]
    folded: tuple[tuple[_Picture, ...], ...]


@dataclass(frozen=True)
class _HeatCell:
    measurement: Measurement
    sign: str
    strength: int


@dataclass(frozen=True)
class _Matrix:
    subject: _Subject
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[_HeatCell | None, ...]], ...]


@dataclass(frozen=True)
class _IsolationRow:
    image: str
    target: str
    original: _Picture | None
    pictures: tuple[_Picture | None, ...]


@dataclass(frozen=True)
class _IsolationGroup:
    name: str
    shown: tuple[_IsolationRow, ...]
    folded: tuple[_IsolationRow, ...]


@dataclass(frozen=True)
class _Fact:
    key: str
    values: tuple[str, ...]
    same: bool


@dataclass(frozen=True)
class _Section:
    anchor: str
    title: str
    intro: str
    body: dict[str, Any]


# -- Words and numbers ---------------------------------------------------------------------------


def _figure(value: float | None) -> str:
    """A number as a reader wants it; the page also carries it exactly, in `<data value>`."""
    if value is None:
        return "–"
    value += 0.0  # no minus before zero
    size = abs(value)
    if 0 < size < 0.0001:
        text = f"{value:.1e}"
    elif 0 < size < 0.001:
        text = f"{value:.4f}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{3 if size < 10 else 1}f}"
    return text.replace("-", "−")


def _end(value: float) -> str:
    """An end of an axis: short, as it only orients."""
    return f"{value:.3g}".replace("-", "−")


def _bound(value: float) -> str:
    """A bound as its author wrote it: 0.9, not 0.900."""
    return f"{value:.6g}".replace("-", "−")


def _bounds_in_words(rule: Rule) -> str:
    parts = []
    if rule.at_least is not None:
        parts.append(f"≥ {_bound(rule.at_least)}")
    if rule.at_most is not None:
        parts.append(f"≤ {_bound(rule.at_most)}")
    return " and ".join(parts) or "no bound"


def _judged_on(rule: Rule) -> str:
    """Which of the measured numbers the bound applies to."""
    if rule.on == "estimate":
        return "on the estimate"
    if rule.at_least is not None and rule.at_most is not None:
        return "on both ends of the interval"
    return f"on the {'low' if rule.at_least is not None else 'high'} end of the interval"


def _plain(value: object) -> str:
    """A value of a finding's free-form test, in one line."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return _figure(value)
    if isinstance(value, str | int):
        return str(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _words(name: str) -> str:
    """`object_share` as words."""
    return name.replace("_", " ").replace(".", " ")


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def _scope_line(scope: Scope) -> str:
    return ", ".join(f"{key} {value}" for key, value in scope.items())


# -- Subjects and rules --------------------------------------------------------------------------


def _rule_bounds(rule: Rule) -> tuple[float, ...]:
    return tuple(b for b in (rule.at_least, rule.at_most) if b is not None)


def _gap(outcome: Outcome) -> float:
    """How far beyond its bound a failed rule's value lies, in units of the bound."""
    rule, value, gaps = outcome.rule, outcome.value, [0.0]
    if value is not None and rule.at_least is not None:
        gaps.append((rule.at_least - value) / max(abs(rule.at_least), 1e-9))
    if value is not None and rule.at_most is not None:
        gaps.append((value - rule.at_most) / max(abs(rule.at_most), 1e-9))
    return max(gaps)


def _strongest(verdict: Verdict) -> Outcome | None:
    """The outcome that says most about why a subject did not pass."""
    failed = [outcome for outcome in verdict.outcomes if outcome.status == "failed"]
    unknown = [
        outcome
        for status in ("error", "missing", "inconclusive")
        for outcome in verdict.outcomes
        if outcome.status == status
    ]
    if failed and (verdict.status == "blocked" or not unknown):
        return max(failed, key=_gap)
    return unknown[0] if unknown else None


def _summary(verdict: Verdict) -> str:
    """The verdict's sentence without the subject that the card already names."""
    words = verdict.summary.removeprefix(f"{verdict.audit}/{verdict.subject}: ")
    return words[:1].upper() + words[1:]


def _worst_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    order = ("failed", "error", "missing", "inconclusive", "warned", "passed")
    return sorted(outcomes, key=lambda outcome: order.index(outcome.status))


def _subjects(records: Sequence[tuple[AuditRecord, Path, Verdict]]) -> list[_Subject]:
    many = len({record.audit for record, _, _ in records}) > 1
    return [
        _Subject(
            index=index,
            name=f"{record.audit} / {record.subject}" if many else record.subject,
            record=record,
            folder=folder,
            verdict=verdict,
            summary=_summary(verdict),
            strongest=_strongest(verdict),
            outcomes=tuple(_worst_first(verdict.outcomes)),
        )
        for index, (record, folder, verdict) in enumerate(records)
    ]


def _rule_key(rule: Rule) -> str:
    return rule.model_dump_json()


def _rule_rows(subjects: Sequence[_Subject]) -> list[_RuleRow]:
    """One row for each rule of any subject: policies may differ between subjects."""
    rules: dict[str, Rule] = {}
    cells: dict[tuple[str, int], Outcome] = {}
    for subject in subjects:
        for outcome in subject.verdict.outcomes:
            key = _rule_key(outcome.rule)
            rules.setdefault(key, outcome.rule)
            cells[key, subject.index] = outcome
    return [
        _rule_row(rule, [cells.get((key, subject.index)) for subject in subjects])
        for key, rule in rules.items()
    ]


def _rule_row(rule: Rule, outcomes: Sequence[Outcome | None]) -> _RuleRow:
    kind = REGISTRY.get(rule.measurement)
    bounds = _rule_bounds(rule)
    seen = [v for o in outcomes if o is not None for v in (o.value, o.low, o.high)]
    axis = _axis(kind, [*seen, *bounds])
    chance = _CHANCE.get(rule.measurement)
    cells = tuple(
        None if o is None else _RuleCell(o, _bar(axis, o.value, o.low, o.high, bounds, chance))
        for o in outcomes
    )
    return _RuleRow(rule, kind, axis, cells)


# -- Measurements as rows with interval bars -----------------------------------------------------


def _axis(kind: MeasurementType | None, seen: Iterable[float | None]) -> _Axis:
    """The registered range where it is a proportion's, else what holds all that is shown."""
    if kind is not None and (kind.low, kind.high) == (0.0, 1.0):
        return _Axis(0.0, 1.0)
    values = [value for value in seen if value is not None]
    chance = _CHANCE.get(kind.id, 0.0) if kind is not None else 0.0
    low, high = min([0.0, *values]), max([chance, *values])
    if high <= low:
        return _Axis(low, low + 1.0)
    return _Axis(low, high)


def _bar(
    axis: _Axis,
    value: float | None,
    low: float | None,
    high: float | None,
    bounds: tuple[float, ...],
    chance: float | None,
) -> _Bar | None:
    if value is None:
        return None
    return _Bar(
        value=axis.x(value),
        low=None if low is None else axis.x(low),
        high=None if high is None else axis.x(high),
        bounds=tuple(axis.x(bound) for bound in bounds),
        chance=None if chance is None else axis.x(chance),
        zero=axis.x(0.0) if axis.low < 0.0 < axis.high else None,
    )


def _scope_key(scope: Scope) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(scope.items()))


def _rows(subjects: Sequence[_Subject], wanted: Callable[[Measurement], bool]) -> list[_Row]:
    """One row for each id and scope, in the registry's order, subjects side by side."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], dict[int, Measurement]] = {}
    for subject in subjects:
        for measurement in filter(wanted, subject.record.measurements):
            key = (measurement.id, _scope_key(measurement.scope))
            found.setdefault(key, {})[subject.index] = measurement
    order = {id: position for position, id in enumerate(REGISTRY)}
    keys = sorted(found, key=lambda key: order[key[0]])
    shared = _axes(subjects, found.values())
    return [_row(subjects, found[key], shared[key[0]]) for key in keys]


def _axes(subjects: Sequence[_Subject], found: Iterable[dict[int, Measurement]]) -> dict[str, _Axis]:
    """One axis for each id, so that rows of the same quantity can be compared by eye."""
    seen: dict[str, list[float | None]] = {}
    for by_subject in found:
        for measurement in by_subject.values():
            values = (measurement.value, measurement.low, measurement.high)
            seen.setdefault(measurement.id, []).extend(values)
    for subject in subjects:
        for rule in subject.record.policy.rules:
            if rule.measurement in seen:
                seen[rule.measurement].extend(_rule_bounds(rule))
    return {id: _axis(REGISTRY[id], values) for id, values in seen.items()}


def _row(subjects: Sequence[_Subject], found: dict[int, Measurement], axis: _Axis) -> _Row:
    first = next(iter(found.values()))
    chance = _CHANCE.get(first.id)
    bounds = _policy_bounds(subjects, first)
    cells = []
    for subject in subjects:
        m = found.get(subject.index)
        bar = None if m is None else _bar(axis, m.value, m.low, m.high, bounds, chance)
        cells.append(None if m is None else _Cell(m, bar))
    return _Row(REGISTRY[first.id], first.scope, axis, bounds, chance, tuple(cells))


def _policy_bounds(subjects: Sequence[_Subject], measurement: Measurement) -> tuple[float, ...]:
    rules = (rule for subject in subjects for rule in subject.record.policy.rules)
    bounds = (
        bound
        for rule in rules
        if rule.measurement == measurement.id and rule.scope == measurement.scope
        for bound in _rule_bounds(rule)
    )
    return tuple(dict.fromkeys(bounds))


def _starts(*prefixes: str) -> Callable[[Measurement], bool]:
    return lambda measurement: measurement.id.startswith(prefixes)


# -- Pictures ------------------------------------------------------------------------------------


class _NoPicture(Exception):
    """Why a picture cannot be shown, in words for the reader."""


def _read_picture(artifact: Artifact, folder: Path) -> bytes:
    """The bytes of a picture that lies in `folder` and is the one the record names."""
    try:
        root = folder.resolve()
        file = (root / artifact.path).resolve()
        if not file.is_relative_to(root):
            raise _NoPicture("picture refused: its path leaves the record's folder")
        if not file.is_file():
            raise _NoPicture("picture missing")
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        raise _NoPicture("picture cannot be read") from error
    # A picture that was swapped after the audit is no evidence for what the record says.
    if hashlib.sha256(data).hexdigest() != artifact.sha256.removeprefix("sha256:"):
        raise _NoPicture("picture changed since the audit: its digest is not the record's")
    return data


def _data_uri(data: bytes) -> str:
    """PNG or JPEG only: an SVG could carry scripts."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        media = "image/png"
    elif data.startswith(b"\xff\xd8\xff"):
        media = "image/jpeg"
    else:
        raise _NoPicture("not a PNG or JPEG picture")
    return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"


def _picture(artifact: Artifact, subject: _Subject, what: str) -> _Picture:
    try:
        source, problem = _data_uri(_read_picture(artifact, subject.folder)), ""
    except _NoPicture as error:
        source, problem = "", str(error)
    alt = ": ".join(part for part in (f"{subject.name}, {what}", artifact.caption) if part)
    return _Picture(source, problem, alt, artifact.caption, tuple(artifact.values.items()))


def _artifacts(subject: _Subject, section: str) -> Iterator[Artifact]:
    return (a for a in subject.record.artifacts if a.section == section)


def _galleries(subjects: Sequence[_Subject]) -> list[_Gallery]:
    """Prototypes by class, each subject's in the record's order."""
    found: dict[str, dict[int, list[_Picture]]] = {}
    for subject in subjects:
        for artifact in _artifacts(subject, "prototypes"):
            name = artifact.scope.get("class", "")
            what = f"prototype of {_scope_line(artifact.scope)}"
            pictures = found.setdefault(name, {}).setdefault(subject.index, [])
            pictures.append(_picture(artifact, subject, what))
    return [
        _Gallery(
            name,
            tuple(tuple(by.get(s.index, [])[:_PROTOTYPES_OPEN]) for s in subjects),
            tuple(tuple(by.get(s.index, [])[_PROTOTYPES_OPEN:]) for s in subjects),
        )
        for name, by in found.items()
    ]


def _isolation(subjects: Sequence[_Subject]) -> list[_IsolationGroup]:
    """The same image and class in one row, its original first, rows gathered by group."""
    originals: dict[str, _Picture] = {}
    maps: dict[tuple[str, str], dict[int, _Picture]] = {}
    groups: dict[str, dict[tuple[str, str], None]] = {}
    for subject in subjects:
        for artifact in _artifacts(subject, "isolation"):
            image = artifact.scope.get("image", artifact.path)
            if artifact.scope.get("view") == "original":
                if image not in originals or originals[image].problem:
                    originals[image] = _picture(artifact, subject, f"original image {image}")
                continue
            key = (image, artifact.scope.get("class", ""))
            what = f"what the prediction of {key[1]} uses in image {image}"
            maps.setdefault(key, {})[subject.index] = _picture(artifact, subject, what)
            groups.setdefault(artifact.scope.get("group", ""), {})[key] = None
    return [
        _isolation_group(name, subjects, [(*key, originals, maps[key]) for key in keys])
        for name, keys in groups.items()
    ]


def _isolation_group(
    name: str,
    subjects: Sequence[_Subject],
    found: Sequence[tuple[str, str, dict[str, _Picture], dict[int, _Picture]]],
) -> _IsolationGroup:
    rows = tuple(
        _IsolationRow(image, target, originals.get(image), tuple(maps.get(s.index) for s in subjects))
        for image, target, originals, maps in found
    )
    return _IsolationGroup(name, rows[:_IMAGES_OPEN], rows[_IMAGES_OPEN:])


def _plates(subjects: Sequence[_Subject], section: str) -> list[tuple[_Subject, list[_Picture]]]:
    """Other pictures of a section; tables lie beside the record and are not shown."""
    plates = []
    for subject in subjects:
        pictures = [
            _picture(artifact, subject, _words(section))
            for artifact in _artifacts(subject, section)
            if artifact.path.lower().endswith((".png", ".jpg", ".jpeg"))
        ]
        if pictures:
            plates.append((subject, pictures))
    return plates


# -- Entanglement --------------------------------------------------------------------------------


def _is_pair(measurement: Measurement) -> bool:
    return measurement.id == "entanglement.directed" and {"from", "to"} <= set(measurement.scope)


def _matrices(subjects: Sequence[_Subject]) -> list[_Matrix]:
    """One heat map a subject, all on one colour scale; none where it could not be read."""
    pairs = {s.index: list(filter(_is_pair, s.record.measurements)) for s in subjects}
    values = [abs(m.value) for found in pairs.values() for m in found if m.value is not None]
    full = max([1.0, *values])  # a class excites itself by 1: the natural full strength
    matrices = []
    for subject in subjects:
        names = _pair_names(subject.record.classes, pairs[subject.index])
        if pairs[subject.index] and len(names) <= _MATRIX_LIMIT:
            matrices.append(_matrix(subject, names, pairs[subject.index], full))
    return matrices


def _pair_names(classes: Sequence[str], pairs: Sequence[Measurement]) -> tuple[str, ...]:
    """The classes that occur in `pairs`, in the model's order where it is known."""
    used = dict.fromkeys(m.scope[end] for end in ("from", "to") for m in pairs)
    return (*(c for c in classes if c in used), *(c for c in used if c not in classes))


def _matrix(subject: _Subject, names: tuple[str, ...], pairs: Sequence[Measurement], full: float) -> _Matrix:
    cells = {(m.scope["from"], m.scope["to"]): _heat(m, full) for m in pairs}
    rows = tuple((row, tuple(cells.get((row, column)) for column in names)) for row in names)
    return _Matrix(subject, names, rows)


def _heat(measurement: Measurement, full: float) -> _HeatCell:
    value = measurement.value or 0.0
    return _HeatCell(measurement, "low" if value < 0 else "high", round(100 * abs(value) / full))


def _strongest_pairs(subjects: Sequence[_Subject]) -> list[_Row]:
    rows = _rows(subjects, _is_pair)

    def strength(row: _Row) -> float:
        values = [c.measurement.value for c in row.cells if c is not None]
        return max((v for v in values if v is not None), default=float("-inf"))

    return sorted(rows, key=strength, reverse=True)[:_PAIRS_LISTED]


# -- Facts and glossary --------------------------------------------------------------------------


def _facts(subjects: Sequence[_Subject], field: str) -> list[_Fact]:
    """One row a key of `digests`, `environment` or `notes`, subjects side by side."""
    maps: list[dict[str, str]] = [getattr(subject.record, field) for subject in subjects]
    facts = []
    for key in dict.fromkeys(key for found in maps for key in found):
        values = tuple(found.get(key, "") for found in maps)
        facts.append(_Fact(key, values, len(values) > 1 and len(set(values)) == 1))
    return facts


def _glossary(subjects: Sequence[_Subject]) -> list[MeasurementType]:
    """The registered measurements that this page mentions."""
    used = {m.id for s in subjects for m in s.record.measurements}
    used |= {r.measurement for s in subjects for r in s.record.policy.rules}
    used |= {m.id for s in subjects for f in s.record.findings for m in f.evidence}
    return [kind for id, kind in REGISTRY.items() if id in used]


# -- The page ------------------------------------------------------------------------------------

_INTROS = {
    "rules": (
        "Each rule holds one measurement to a bound. It passes only when the unfavourable end of "
        "the 95% interval lies within the bound, unless the rule says that it judges the estimate "
        "alone. What is missing, uncertain or broken never passes."
    ),
    "prototypes": (
        "A prototype is a picture grown step by step until the model is as sure of a class as it "
        "can be: the model's own drawing of it. Look for the thing that the class is named after. "
        "Where only its usual surroundings appear, the model may have learned those instead."
    ),
    "entanglement": (
        "Each row takes the prototypes of one class and asks how strongly they also excite every "
        "other class. Strong colour off the diagonal means that the model keeps two classes close "
        "together and may take one for the other."
    ),
    "isolation": (
        "Each row shows one image, then the parts of it that each model uses for its prediction; "
        "what it does not use fades to white. The object's share of that evidence stands beside "
        "the object's share of the area, which is what evidence spread evenly would give."
    ),
    "evidence": (
        "How much of the evidence for a class lies on the object itself. Over chance, 1 means no "
        "more than evidence spread evenly over the picture; below 1, the model reads the "
        "surroundings rather than the object."
    ),
    "counterfactuals": (
        "Here the suspicion is tested: one thing in the image is changed and the prediction is "
        "asked for again. A model that reads the object keeps its answer when the background "
        "changes and loses it when the object goes."
    ),
    "groups": (
        "An average hides who pays for the mistakes. The eval set is split into groups and each "
        "is counted by itself; the worst one shows what happens where the shortcut does not help."
    ),
    "more": "What else was measured, with its 95% interval and sample size.",
    "findings": (
        "A finding is a suspicion that was put to a test: confirmed or dismissed by a measured "
        "effect, or marked as not yet tested."
    ),
    "facts": (
        "What was audited, byte for byte, and with what. The same digests and versions give the "
        "same numbers again."
    ),
    "glossary": "What each measurement means and how it is computed.",
}

_SHOWN_ELSEWHERE = (
    "object_evidence.",
    "background.",
    "counterfactual.",
    "accuracy.",
    "prototype.",
    "entanglement.strongest_pair",
)


def _left_over(measurement: Measurement) -> bool:
    """Nothing that was measured may be lost for want of a section of its own."""
    return not measurement.id.startswith(_SHOWN_ELSEWHERE) and not _is_pair(measurement)


def _sections(subjects: Sequence[_Subject]) -> list[_Section]:
    """All sections after the verdict, in the order of the story; empty ones are left out."""
    findings: list[tuple[_Subject, tuple[Finding, ...]]]
    findings = [(s, s.record.findings) for s in subjects if s.record.findings]
    facts = {field: _facts(subjects, field) for field in ("digests", "environment", "notes")}
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("rules", "Rules", {"rules": _rule_rows(subjects)}),
        (
            "prototypes",
            "Prototypes",
            {"galleries": _galleries(subjects), "rows": _rows(subjects, _starts("prototype."))},
        ),
        (
            "entanglement",
            "Entanglement",
            {
                "matrices": _matrices(subjects),
                "rows": _rows(subjects, _starts("entanglement.strongest_pair")),
                "pairs": _strongest_pairs(subjects),
                "plates": _plates(subjects, "entanglement"),
            },
        ),
        (
            "isolation",
            "Isolation",
            {"groups": _isolation(subjects), "fill": _notes(subjects, "isolation.fill")},
        ),
        ("evidence", "Evidence", {"rows": _rows(subjects, _starts("object_evidence."))}),
        (
            "counterfactuals",
            "Counterfactuals",
            {
                "rows": _rows(subjects, _starts("background.", "counterfactual.")),
                "plates": _plates(subjects, "counterfactuals"),
            },
        ),
        (
            "groups",
            "Groups",
            {
                "rows": _rows(subjects, _starts("accuracy.")),
                "plates": _plates(subjects, "groups"),
            },
        ),
        ("more", "More", {"rows": _rows(subjects, _left_over)}),
        ("findings", "Findings", {"findings": findings}),
        ("facts", "Provenance", facts),
        ("glossary", "Glossary", {"kinds": _glossary(subjects)}),
    ]
    return [
        _Section(anchor, title, _INTROS[anchor], body) for anchor, title, body in bodies if any(body.values())
    ]


def _notes(subjects: Sequence[_Subject], key: str) -> list[tuple[str, str]]:
    """A note of each subject, or once without a name where all say the same."""
    notes = [(s.name, s.record.notes[key]) for s in subjects if key in s.record.notes]
    if len(notes) == len(subjects) and len({note for _, note in notes}) == 1:
        return [("", notes[0][1])]
    return notes


def _asset(name: str) -> str:
    return files("candling.report").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("candling.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        figure=_figure, bound=_bound, end=_end, exact=_exact, words=_words, plain=_plain
    )
    environment.filters.update(bounds_in_words=_bounds_in_words, judged_on=_judged_on, scope_line=_scope_line)
    environment.globals.update(WORDS=_WORDS, REGISTRY=REGISTRY, RULES_ON_CARD=_RULES_ON_CARD)
    return environment


def _policy(script: str) -> str:
    """A content security policy under which this page alone, and nothing from outside, runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def render(records: Sequence[tuple[AuditRecord, Path, Verdict]], *, title: str) -> str:
    """The report of one audit as one self-contained HTML page.

    Parameters
    ----------
    records
        For each subject, in the order to show: its record, the folder in which the record's
        artifacts lie, and the gate's verdict on it.
    title
        The page's title.

    Returns
    -------
    str
        HTML without any reference to a file or a network; a pure function of the arguments and
        of the pictures that the records name. A picture that is missing, changed, or outside its
        folder becomes a box that says so.

    Raises
    ------
    NothingAudited
        If there are no records.
    """
    if not records:
        raise NothingAudited("there is no record to report on; run `candling audit` first")
    subjects = _subjects(records)
    script = _asset("report.js")
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=title,
            subjects=subjects,
            sections=_sections(subjects),
            tallies=_tallies(subjects),
            csp=_policy(script),
            style=Markup(_asset("report.css")),
            script=Markup(script),
        )
    )


def _tallies(subjects: Sequence[_Subject]) -> list[tuple[str, int]]:
    found = [subject.verdict.status for subject in subjects]
    order = ("blocked", "incomplete", "nothing", "passed")
    return [(status, found.count(status)) for status in order if status in found]


def write_html(
    records: Sequence[tuple[AuditRecord, Path, Verdict]], path: Path, *, title: str | None = None
) -> Path:
    """Write the report to `path`, whole or not at all.

    Parameters
    ----------
    records
        As for `render`.
    path
        The file to write; its folder is made.
    title
        The page's title; by default it names the audit.

    Returns
    -------
    Path
        `path`.
    """
    names = list(dict.fromkeys(record.audit for record, _, _ in records))
    page = render(records, title=title or f"Audit of {', '.join(names)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    # A lone surrogate in a finding's free-form test must not cost the whole report.
    part.write_bytes(page.encode("utf-8", "replace"))
    os.replace(part, path)
    return path
