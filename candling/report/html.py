"""The HTML report: one self-contained page that tells what the audit of each subject found.

The page is a pure function of the records, their verdicts and the pictures beside them: it holds
no dates, no random ids and no links, so the same audit gives the same bytes. Nothing is computed
here but layout; every number is one that a record or a verdict holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup

from candling.audit.measurements import REGISTRY, MeasurementType
from candling.audit.policy import Rule
from candling.audit.record import Artifact, AuditRecord, Finding, Measurement, Scope
from candling.errors import NothingAudited
from candling.report.artifacts import NotThere, read_artifact
from candling.report.audited import OUTCOME_WORDS, VERDICT_WORDS
from candling.report.bars import Axis, Bar, bar_of
from candling.report.heatmaps import heat_map, is_pair, names_of
from candling.report.language import attributed_prompts, comparisons
from candling.report.pages import asset, spelled, templates
from candling.report.pictures import Picture, Room, embed

if TYPE_CHECKING:
    from candling.audit.gate import Outcome, Verdict

__all__ = ["render", "write_html"]

# What evidence spread evenly over the picture would give; the registry's `source` says so in words.
_CHANCE = {"object_evidence.over_chance": 1.0, "object_evidence.part_over_area": 1.0}

_MATRIX_LIMIT = 24  # a larger heat map cannot be read; the strongest pairs can
_CONFUSION_LIMIT = 20
_DENSE = 5  # with more columns than this the names above them are turned
_PAIRS_LISTED = 40
_CONFUSIONS_LISTED = 10
_ROWS_OPEN = 12  # of classes or slices; the others are folded away
_CHANNELS_OPEN = 4  # of each layer, the strongest
_GALLERIES_OPEN = 96  # classes that are laid out at once
_PROTOTYPES_OPEN = 4  # the first of each class in the record's order: nothing is picked
_IMAGES_OPEN = 2  # of each group
_UNGROUPED_OPEN = 6
_RULES_ON_CARD = 6
_LONG = 200  # rows; what a table has more of is packed and drawn as it is asked for
_SHORT_DIGEST = 12

# A page is sent by mail and opened on phones.
_ROOM = Room()

_WORDS: dict[Any, str] = {
    **VERDICT_WORDS,
    **OUTCOME_WORDS,
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
    why: str
    identity: tuple[tuple[str, str, str], ...]
    strongest: Outcome | None
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class _RuleCell:
    outcome: Outcome
    bar: Bar | None


@dataclass(frozen=True)
class _RuleRow:
    rule: Rule
    kind: MeasurementType | None
    axis: Axis
    cells: tuple[_RuleCell | None, ...]


@dataclass(frozen=True)
class _Cell:
    measurement: Measurement
    bar: Bar | None


@dataclass(frozen=True)
class _Row:
    kind: MeasurementType
    scope: Scope
    axis: Axis
    bounds: tuple[float, ...]
    chance: float | None
    cells: tuple[_Cell | None, ...]


@dataclass(frozen=True)
class _Gallery:
    """One class: for each subject its pictures, those in view and those folded away."""

    name: str
    shown: tuple[tuple[Picture, ...], ...]
    folded: tuple[tuple[Picture, ...], ...]

    @property
    def trust(self) -> float | None:
        """What all its pictures are trusted on average: what a reader sorts by."""
        found = [dict(p.values).get("trust") for by in (*self.shown, *self.folded) for p in by]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class _HeatCell:
    measurement: Measurement
    sign: str
    strength: int


@dataclass(frozen=True)
class _Matrix:
    subject: _Subject
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[_HeatCell | None, ...]], ...]
    dense: bool = False
    clean: Measurement | None = None

    @property
    def _unsure(self) -> list[bool]:
        return [cell.measurement.status != "ok" for _, row in self.rows for cell in row if cell is not None]

    @property
    def none_sure(self) -> bool:
        """Whether every cell tells too little: said once, not in each."""
        return all(self._unsure)

    @property
    def some_unsure(self) -> bool:
        return any(self._unsure) and not self.none_sure


@dataclass(frozen=True)
class _Dot:
    """A bin of a reliability diagram, in percent of its sides; y counts from the top."""

    x: float
    y: float
    low: float | None
    high: float | None
    name: str
    accuracy: Measurement
    confidence: Measurement


@dataclass(frozen=True)
class _Specimen:
    """One image; for each class that was looked at, each subject's picture."""

    image: str
    original: Picture | None
    targets: tuple[tuple[str, tuple[Picture | None, ...]], ...]


@dataclass(frozen=True)
class _IsolationGroup:
    name: str
    shown: tuple[_Specimen, ...]
    folded: tuple[_Specimen, ...]


@dataclass(frozen=True)
class _Channel:
    """One channel: what is known of it, its optimised pictures, and the eval images that excite it most."""

    name: str
    facts: tuple[tuple[str, float], ...]
    optimised: tuple[Picture, ...]
    images: tuple[Picture, ...]


@dataclass(frozen=True)
class _Layer:
    """One layer: for each subject its channels, those in view and those folded away."""

    name: str
    shown: tuple[tuple[_Channel, ...], ...]
    folded: tuple[tuple[_Channel, ...], ...]


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


def _figure(value: float | None, least: float = 0.0001) -> str:
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


def _end(value: float) -> str:
    """An end of an axis: short, as it only orients."""
    return _plainly(f"{value:.3g}")


def _bound(value: float) -> str:
    """A bound as its author wrote it: 0.9, not 0.900."""
    return _plainly(f"{value:.6g}")


def _plainly(text: str) -> str:
    """A number without an exponent."""
    return f"{Decimal(text):f}".replace("-", "−")


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


def _chips(scope: Scope) -> list[tuple[str, str]]:
    """A scope as pairs to read: a slice is named by its column."""
    if set(scope) == {"slice", "value"}:
        return [(scope["slice"], scope["value"])]
    return list(scope.items())


def _scope_line(scope: Scope) -> str:
    return ", ".join(f"{key} {value}" for key, value in _chips(scope))


def _as_data(value: object) -> Markup:
    """JSON that ends no script element, whatever it holds."""
    text = json.dumps(_spelled(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _spelled(value: object) -> object:
    """Plain data, each text as the page writes it, so that its script finds the same names."""
    if isinstance(value, dict):
        return {key: _spelled(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(part) for part in value]
    return spelled(value)


def _packed(rows: Sequence[_Row], subjects: Sequence[_Subject]) -> dict[str, Any]:
    """Rows of a table for the page's script, which draws those that are looked for."""
    kinds = {row.kind.id: row for row in rows}
    places = {id: place for place, id in enumerate(kinds)}
    return {
        "subjects": [subject.name for subject in subjects],
        "kinds": [
            {"title": row.kind.title, "low": row.axis.low, "high": row.axis.high} for row in kinds.values()
        ],
        "rows": [
            [places[row.kind.id], _chips(row.scope), [_packed_cell(c) for c in row.cells]] for row in rows
        ],
    }


def _packed_cell(cell: _Cell | None) -> list[Any] | None:
    if cell is None:
        return None
    m = cell.measurement
    return [m.value, m.low, m.high, m.n, m.status, m.note]


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
    if verdict.status == "blocked":
        words = words.split(": ")[0]  # the card lists the rules by their titles
    return words[:1].upper() + words[1:]


def _why(record: AuditRecord, verdict: Verdict) -> str:
    """What was found and tested that speaks against a subject, in one sentence."""
    if verdict.status == "passed":
        return ""
    confirmed = (f for f in record.findings if f.status == "confirmed" and f.kind != "insight")
    return next((finding.statement for finding in confirmed), "")


def _identity(record: AuditRecord) -> tuple[tuple[str, str, str], ...]:
    """What was audited, on what, by which policy: name, short form, whole form."""
    digests = [
        (name, record.digests.get(key, "")) for name, key in (("model", "model"), ("eval data", "data.eval"))
    ]
    rules = len(record.policy.rules)
    told = f"{rules} {'rule' if rules == 1 else 'rules'}"
    if record.policy.waivers:
        told += f", {len(record.policy.waivers)} waived"
    where = record.source.file if record.source is not None else ""
    return (
        *(
            (name, digest.removeprefix("sha256:")[:_SHORT_DIGEST], digest)
            for name, digest in digests
            if digest
        ),
        ("policy", f"{told}, {where}" if where else told, where or told),
    )


def _worst_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    order = ("failed", "error", "missing", "inconclusive", "warned", "waived", "passed")
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
            why=_why(record, verdict),
            identity=_identity(record),
            strongest=_strongest(verdict),
            outcomes=tuple(_worst_first(verdict.outcomes)),
        )
        for index, (record, folder, verdict) in enumerate(records)
    ]


def _rule_key(rule: Rule) -> str:
    return repr(rule)


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
        None if o is None else _RuleCell(o, bar_of(axis, o.value, o.low, o.high, bounds, chance))
        for o in outcomes
    )
    return _RuleRow(rule, kind, axis, cells)


# -- Measurements as rows with interval bars -----------------------------------------------------


def _axis(kind: MeasurementType | None, seen: Iterable[float | None]) -> Axis:
    """The registered range where it is a proportion's, else what holds all that is shown."""
    if kind is not None and (kind.low, kind.high) == (0.0, 1.0):
        return Axis(0.0, 1.0)
    values = [value for value in seen if value is not None]
    chance = _CHANCE.get(kind.id, 0.0) if kind is not None else 0.0
    low, high = min([0.0, *values]), max([chance, *values])
    if high <= low:
        return Axis(low, low + 1.0)
    return Axis(low, high)


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


def _axes(subjects: Sequence[_Subject], found: Iterable[dict[int, Measurement]]) -> dict[str, Axis]:
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


def _row(subjects: Sequence[_Subject], found: dict[int, Measurement], axis: Axis) -> _Row:
    first = next(iter(found.values()))
    chance = _CHANCE.get(first.id)
    bounds = _policy_bounds(subjects, first)
    cells = []
    for subject in subjects:
        m = found.get(subject.index)
        bar = None if m is None else bar_of(axis, m.value, m.low, m.high, bounds, chance)
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


def _picture(artifact: Artifact, subject: _Subject, what: str, rank: int = 0) -> Picture:
    alt = ": ".join(part for part in (f"{subject.name}, {what}", artifact.caption) if part)
    values = tuple(artifact.values.items())
    return Picture(artifact, subject.folder, alt, artifact.caption, values, subject.name, rank)


def _artifacts(subject: _Subject, section: str) -> Iterator[Artifact]:
    return (a for a in subject.record.artifacts if a.section == section)


def _galleries(subjects: Sequence[_Subject]) -> list[_Gallery]:
    """Prototypes by class, each subject's in the record's order."""
    found: dict[str, dict[int, list[Picture]]] = {}
    for subject in subjects:
        for artifact in _artifacts(subject, "prototypes"):
            name = artifact.scope.get("class", "")
            what = f"prototype of {_scope_line(artifact.scope)}"
            pictures = found.setdefault(name, {}).setdefault(subject.index, [])
            rank = max(0, len(pictures) + 1 - _PROTOTYPES_OPEN)
            picture = _picture(artifact, subject, what, rank)
            # What to make of a picture comes before what it was made of.
            picture.values = tuple(sorted(picture.values, key=lambda pair: pair[0] != "trust"))
            pictures.append(picture)
    return [
        _Gallery(
            name,
            tuple(tuple(by.get(s.index, [])[:_PROTOTYPES_OPEN]) for s in subjects),
            tuple(tuple(by.get(s.index, [])[_PROTOTYPES_OPEN:]) for s in subjects),
        )
        for name, by in found.items()
    ]


def _layers(subjects: Sequence[_Subject]) -> list[_Layer]:
    """Channels by layer, each subject's in the record's order: its strongest first."""
    found: dict[str, dict[int, dict[str, list[Artifact]]]] = {}
    for subject in subjects:
        for artifact in _artifacts(subject, "channels"):
            layer, channel = (artifact.scope.get(key, "") for key in ("layer", "channel"))
            by_channel = found.setdefault(layer, {}).setdefault(subject.index, {})
            by_channel.setdefault(channel, []).append(artifact)
    layers = []
    for name, by in found.items():
        rows = [
            tuple(_channel(s, name, *one, rank) for rank, one in enumerate(by.get(s.index, {}).items()))
            for s in subjects
        ]
        shown = tuple(row[:_CHANNELS_OPEN] for row in rows)
        layers.append(_Layer(name, shown, tuple(row[_CHANNELS_OPEN:] for row in rows)))
    return layers


def _channel(subject: _Subject, layer: str, name: str, artifacts: Sequence[Artifact], rank: int) -> _Channel:
    facts: dict[str, float] = {}
    optimised: list[Picture] = []
    images: list[Picture] = []
    for artifact in artifacts:
        made = artifact.scope.get("view") == "optimised"
        what = f"channel {name} of {layer}, {'optimised' if made else 'an image that excites it'}"
        picture = _picture(artifact, subject, what, max(0, rank + 1 - _CHANNELS_OPEN))
        (optimised if made else images).append(picture)
        if made:  # of the picture is its activation, and all else of the channel
            facts |= {key: value for key, value in picture.values if key != "activation"}
            picture.values = tuple(pair for pair in picture.values if pair[0] == "activation")
    return _Channel(name, tuple(facts.items()), tuple(optimised), tuple(images))


def _isolation(subjects: Sequence[_Subject]) -> list[_IsolationGroup]:
    """One specimen an image, its original first, images gathered by group."""
    originals: dict[str, tuple[_Subject, Artifact]] = {}
    maps: dict[str, dict[str, dict[int, Artifact]]] = {}
    groups: dict[str, dict[str, None]] = {}
    for subject in subjects:
        for artifact in _artifacts(subject, "isolation"):
            image = artifact.scope.get("image", artifact.path)
            if artifact.scope.get("view") == "original":
                # Of copies that several subjects wrote, one that is there.
                if image not in originals or not _is_there(*originals[image]):
                    originals[image] = (subject, artifact)
                continue
            target = artifact.scope.get("class", "")
            maps.setdefault(image, {}).setdefault(target, {})[subject.index] = artifact
            groups.setdefault(artifact.scope.get("group", ""), {})[image] = None
    return [
        _isolation_group(name, subjects, [(image, originals.get(image), maps[image]) for image in images])
        for name, images in groups.items()
    ]


def _is_there(subject: _Subject, artifact: Artifact) -> bool:
    try:
        read_artifact(artifact, subject.folder, "picture")
    except NotThere:
        return False
    return True


def _isolation_group(
    name: str,
    subjects: Sequence[_Subject],
    found: Sequence[tuple[str, tuple[_Subject, Artifact] | None, dict[str, dict[int, Artifact]]]],
) -> _IsolationGroup:
    shown = _IMAGES_OPEN if name else _UNGROUPED_OPEN
    specimens = []
    for number, (image, original, targets) in enumerate(found):
        rank = max(0, number + 1 - shown)
        before = None
        if original is not None:
            before = _picture(original[1], original[0], f"original image {image}", rank)
        lines = []
        for target, by in targets.items():
            what = f"what the prediction of {target} uses in image {image}"
            line = tuple(_picture(by[s.index], s, what, rank) if s.index in by else None for s in subjects)
            lines.append((target, line))
        specimens.append(_Specimen(image, before, tuple(lines)))
    return _IsolationGroup(name, tuple(specimens[:shown]), tuple(specimens[shown:]))


def _plates(subjects: Sequence[_Subject], section: str) -> list[tuple[_Subject, list[Picture]]]:
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


def _all_pictures(part: object) -> Iterator[Picture]:
    """Every picture of a section's body, in the order of the page."""
    if isinstance(part, Picture):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from _all_pictures(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _all_pictures(value)
    elif isinstance(part, _Gallery | _IsolationGroup | _Layer):
        yield from _all_pictures((part.shown, part.folded))
    elif isinstance(part, _Specimen):
        yield from _all_pictures((part.original, part.targets))
    elif isinstance(part, _Channel):
        yield from _all_pictures((part.optimised, part.images))


# -- Accuracy ------------------------------------------------------------------------------------


def _has(id: str, *keys: str) -> Callable[[Measurement], bool]:
    """Measurements of this id whose scope has these keys, so that they fit where they are drawn."""
    return lambda measurement: measurement.id == id and set(keys) <= set(measurement.scope)


_is_confusion = _has("confusion.rate", "from", "to")
_is_corrupted = _has("robustness.accuracy", "corruption", "severity")
_is_bin_accuracy = _has("calibration.bin_accuracy", "bin")
_is_bin_confidence = _has("calibration.bin_confidence", "bin")


def _is_headline(measurement: Measurement) -> bool:
    """What the section on accuracy says first: all of it that has no table of its own."""
    if measurement.id in ("accuracy.group", "accuracy.worst_group", "accuracy.class", "accuracy.slice"):
        return False
    drawn = (_is_confusion, _is_bin_accuracy, _is_bin_confidence)
    wanted = measurement.id.startswith(("accuracy.", "calibration.", "confusion."))
    return wanted and not any(is_drawn(measurement) for is_drawn in drawn)


def _values(row: _Row) -> list[float]:
    values = (cell.measurement.value for cell in row.cells if cell is not None)
    return [value for value in values if value is not None]


def _worst_rows(subjects: Sequence[_Subject], id: str) -> tuple[list[_Row], list[_Row]]:
    """Rows of a measurement of which higher is better, the worst first; those in view, those folded away."""
    rows = _rows(subjects, lambda measurement: measurement.id == id)
    rows.sort(key=lambda row: min(_values(row), default=float("inf")))
    return rows[:_ROWS_OPEN], rows[_ROWS_OPEN:]


def _confusions(subjects: Sequence[_Subject]) -> tuple[list[_Matrix], list[_Row]]:
    """A heat map for each subject that has few enough classes, and the strongest pairs."""
    matrices = []
    for subject in subjects:
        found = list(filter(_is_confusion, subject.record.measurements))
        rows = names_of(subject.record.classes, [m.scope["from"] for m in found])
        columns = _columns(subject.record.classes, found)
        if found and len(rows) <= _CONFUSION_LIMIT:
            matrices.append(_matrix(subject, rows, columns, found, 1.0))
    pairs = _rows(subjects, lambda m: _is_confusion(m) and m.scope["from"] != m.scope["to"])
    pairs = [row for row in pairs if any(_values(row))]
    pairs.sort(key=lambda row: max(_values(row)), reverse=True)
    return matrices, pairs[:_CONFUSIONS_LISTED]


def _columns(classes: Sequence[str], found: Sequence[Measurement]) -> tuple[str, ...]:
    """What pictures are predicted as: no column for another class where nothing was taken for one.

    The record names the audited classes, not whether the model knows more. It is left out only where
    the others account for all of every row, so that nothing is missing from the table.
    """
    columns = names_of(classes, [m.scope["to"] for m in found])
    audited, rows = set(classes), dict.fromkeys((m.scope["from"] for m in found), 0.0)
    for m in found:
        if m.scope["to"] in audited:
            rows[m.scope["from"]] += m.value or 0.0
        elif m.value != 0.0:
            return columns
    # A value carries eight digits.
    if all(math.isclose(share, 1.0, abs_tol=1e-6) for share in rows.values()):
        return tuple(name for name in columns if name in audited)
    return columns


def _reliability(subjects: Sequence[_Subject]) -> list[tuple[_Subject, list[_Dot]]]:
    """Accuracy against confidence, a dot a bin."""
    diagrams = []
    for subject in subjects:
        found = subject.record.measurements
        confidence = {m.scope["bin"]: m for m in found if _is_bin_confidence(m)}
        dots = [
            _dot(m, confidence[m.scope["bin"]])
            for m in found
            if _is_bin_accuracy(m) and m.value is not None and m.scope["bin"] in confidence
            if confidence[m.scope["bin"]].value is not None
        ]
        if dots:
            diagrams.append((subject, dots))
    return diagrams


def _dot(accuracy: Measurement, confidence: Measurement) -> _Dot:
    side = Axis(0.0, 1.0)

    def up(value: float | None) -> float | None:
        return None if value is None else round(100 - side.x(value), 2)

    return _Dot(
        x=side.x(confidence.value or 0.0),
        y=up(accuracy.value) or 0.0,
        low=up(accuracy.low),
        high=up(accuracy.high),
        name=accuracy.scope["bin"],
        accuracy=accuracy,
        confidence=confidence,
    )


# -- Robustness ----------------------------------------------------------------------------------


def _corrupted(subjects: Sequence[_Subject]) -> list[_Matrix]:
    """Corruption against severity; the colour is what is missing to an accuracy of 1."""
    grids = []
    for subject in subjects:
        found = list(filter(_is_corrupted, subject.record.measurements))
        clean = next((m for m in found if m.scope["severity"] == "0"), None)
        cells = {
            (m.scope["corruption"], m.scope["severity"]): _HeatCell(
                m, "high", 0 if m.value is None else round(100 * (1 - m.value))
            )
            for m in found
            if m is not clean
        }
        names = tuple(dict.fromkeys(name for name, _ in cells))
        severities = _severities(severity for _, severity in cells)
        rows = tuple((_words(name), tuple(cells.get((name, s)) for s in severities)) for name in names)
        if rows:
            grids.append(_Matrix(subject, severities, rows, False, clean))
    return grids


def _severities(found: Iterable[str]) -> tuple[str, ...]:
    """Each severity once, the mildest first."""
    return tuple(sorted(set(found), key=lambda severity: (len(severity), severity)))


def _robustness_intro(subjects: Sequence[_Subject]) -> str:
    """What was done to the pictures, at the severities that the records hold."""
    found = (m for s in subjects for m in s.record.measurements if _is_corrupted(m))
    severities = _severities(m.scope["severity"] for m in found if m.scope["severity"] != "0")
    at = f" at severity {severities[0]}" if severities else ""
    if len(severities) > 1:
        listed = f"{', '.join(severities[:-1])} and {severities[-1]}"
        at = f" at {len(severities)} severities ({listed})"
    return _INTROS["robustness"].format(at=at)


# -- Entanglement --------------------------------------------------------------------------------


def _matrices(subjects: Sequence[_Subject]) -> list[_Matrix]:
    """One heat map a subject, all on one colour scale; none where it could not be read."""
    pairs = {s.index: list(filter(is_pair, s.record.measurements)) for s in subjects}
    values = [abs(m.value) for found in pairs.values() for m in found if m.value is not None]
    full = max([1.0, *values])  # a class excites itself by 1: the natural full strength
    matrices = []
    for subject in subjects:
        found = pairs[subject.index]
        names = names_of(subject.record.classes, [m.scope[end] for end in ("from", "to") for m in found])
        if found and len(names) <= _MATRIX_LIMIT:
            matrices.append(_matrix(subject, names, names, found, full))
    return matrices


def _matrix(
    subject: _Subject,
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    pairs: Sequence[Measurement],
    full: float,
) -> _Matrix:
    cells = {(m.scope["from"], m.scope["to"]): _heat(m, full) for m in pairs}
    table = tuple((row, tuple(cells.get((row, column)) for column in columns)) for row in rows)
    return _Matrix(subject, columns, table, len(columns) > _DENSE)


def _heat(measurement: Measurement, full: float) -> _HeatCell:
    value, scope = measurement.value or 0.0, measurement.scope
    own = measurement.id == "confusion.rate" and scope["from"] == scope["to"]
    sign = "own" if own else "low" if value < 0 else "high"
    return _HeatCell(measurement, sign, round(100 * abs(value) / full))


def _entangled(measurement: Measurement) -> bool:
    """All of entanglement that is not of one pair among many."""
    of_a_pair = measurement.id == "entanglement.symmetric" or is_pair(measurement)
    return measurement.id.startswith("entanglement.") and not of_a_pair


def _strongest_pairs(subjects: Sequence[_Subject], wanted: Callable[[Measurement], bool]) -> list[_Row]:
    rows = _rows(subjects, wanted)
    rows.sort(key=lambda row: max(_values(row), default=float("-inf")), reverse=True)
    return rows[:_PAIRS_LISTED]


# -- Facts and glossary --------------------------------------------------------------------------


def _facts(
    subjects: Sequence[_Subject],
    field: str,
    wanted: Callable[[str], bool] = lambda key: True,
    prefix: str = "",
) -> list[_Fact]:
    """One row a key of `digests`, `environment` or `notes`, subjects side by side."""
    maps: list[dict[str, str]] = [getattr(subject.record, field) for subject in subjects]
    facts = []
    for key in dict.fromkeys(key for found in maps for key in found if wanted(key)):
        values = tuple(found.get(key, "") for found in maps)
        same = len(values) > 1 and len(set(values)) == 1
        facts.append(_Fact(key.removeprefix(prefix), values, same))
    return facts


# Notes with these prefixes have a place of their own.
_LEFT_OUT, _DATA = "left_out.", "data."


def _notes_under(subjects: Sequence[_Subject], prefix: str) -> list[_Fact]:
    return _facts(subjects, "notes", lambda key: key.startswith(prefix), prefix)


def _is_cost(key: str) -> bool:
    """Whether a note tells how often a step asked the model; seconds differ from run to run."""
    return key.endswith(".evaluations")


def _other_notes(subjects: Sequence[_Subject]) -> list[_Fact]:
    return _facts(subjects, "notes", lambda key: not (key.startswith((_LEFT_OUT, _DATA)) or _is_cost(key)))


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
    "accuracy": (
        "How often the model is right, for which classes and slices it is not, what it takes for what, "
        "and whether its confidence can be believed. The worst come first."
    ),
    "robustness": (
        "The same pictures again, spoiled in the usual ways{at}. Strong colour means that little of the "
        "accuracy is left."
    ),
    "prototypes": (
        "A prototype is a picture grown step by step until the model is as sure of a class as it "
        "can be: the model's own drawing of it. Look for the thing that the class is named after. "
        "Where only its usual surroundings appear, the model may have learned those instead. Trust says "
        "which pictures to believe: 0 is no more than chance, 1 the best there can be."
    ),
    "channels": (
        "A layer sees a picture as many maps, its channels. Shown are those that the model's decisions rest "
        "on most, with the evidence that each carries over that of the layer's average channel: first a "
        "picture optimised to excite the channel, then the images of the eval set that excite it most, each "
        "with the activation that it reaches. Where both show the same thing, that is what the channel looks "
        "for."
    ),
    "entanglement": (
        "Each row takes the prototypes of one class and asks how strongly they also excite every "
        "other class. Strong colour off the diagonal means that the model keeps two classes close "
        "together and may take one for the other."
    ),
    "isolation": (
        "Each image is followed by the parts of it that a prediction uses; what it does not use fades "
        "to white. Where the object is known, its share of that evidence stands beside its share of the "
        "area, which is what evidence spread evenly would give."
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
    "suspicions": (
        "Where evidence gathers at one place, along the border or beside the object, the place is taken out "
        "of pictures and put into others; and light, colour and focus of whole pictures are turned from low "
        "to high, within what the eval set itself shows. Only what moves predictions more than a placebo of "
        "the same size is confirmed."
    ),
    "attacks": (
        "A picture that the model is right about is changed so little that a person sees no difference, and "
        "so that the model takes it for another class. How small a change is enough says how far a "
        "prediction can be relied on where someone wishes it to be wrong."
    ),
    "groups": (
        "An average hides who pays for the mistakes. The eval set is split into groups and each "
        "is counted by itself; the worst one shows what happens where the shortcut does not help."
    ),
    "associations": (
        "Short prompts were searched, over and over from new starts, until the model said a concept. Listed "
        "is what such prompts share beyond those for other words, or beyond those for the concept beside it: "
        "lift says how many times as many hold it. What is shared was then put into plain sentences, where "
        "only what moves the concept more than other words do is confirmed."
    ),
    "attribution": (
        "What the model said after each prompt, and what its words did for that: the log-probability that is "
        "lost without a word. Strong colour speaks for what was said, the other colour against it."
    ),
    "glitches": (
        "Every token was put into ordinary texts. A word of the language changes what comes later in a way "
        "that depends on the text; a glitch makes the model say the same thing everywhere."
    ),
    "texts": (
        "How well the model expects ordinary texts that it was not trained on: what a repair may not cost."
    ),
    "more": "What else was measured, with its 95% interval and sample size.",
    "left_out": (
        "What this audit did not measure, and what it would take to have it. What is not here has not "
        "been looked at, which is not the same as being fine."
    ),
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
    "calibration.",
    "confusion.",
    "robustness.",
    "data.",
    "prototype.",
    "attack.",
    "entanglement.",
    "isolation.",
    "shortcut.",
    "factor.",
    "association.",
    "attribution.",
    "lexicon.",
    "glitch.",
    "perplexity.",
)


def _left_over(measurement: Measurement) -> bool:
    """Nothing that was measured may be lost for want of a section of its own."""
    return not measurement.id.startswith(_SHOWN_ELSEWHERE)


def _accuracy(subjects: Sequence[_Subject]) -> dict[str, Any]:
    matrices, pairs = _confusions(subjects)
    return {
        "rows": _rows(subjects, _is_headline),
        "worst": [
            (title, *rows)
            for title, rows in (
                ("Classes", _worst_rows(subjects, "accuracy.class")),
                ("Slices", _worst_rows(subjects, "accuracy.slice")),
            )
            if rows[0]
        ],
        "matrices": matrices,
        "pairs": pairs,
        "diagrams": _reliability(subjects),
        "bins": _rows(subjects, lambda m: _is_bin_accuracy(m) or _is_bin_confidence(m)),
    }


def _robustness(subjects: Sequence[_Subject]) -> dict[str, Any]:
    return {
        "rows": _rows(subjects, lambda m: m.id.startswith("robustness.") and not _is_corrupted(m)),
        "grids": _corrupted(subjects),
        "every": _rows(subjects, _is_corrupted),
    }


def _associations(subjects: Sequence[_Subject]) -> dict[str, Any]:
    measures = ("association.confirmed", "association.pair_asymmetry", "association.reached")
    return {
        "comparisons": comparisons([(s.record, s.folder) for s in subjects]),
        "rows": _rows(subjects, lambda m: m.id in measures),
        "effects": _rows(subjects, lambda m: m.id == "association.effect"),
        "searched": _notes_under(subjects, "associations."),
    }


def _sections(subjects: Sequence[_Subject]) -> list[_Section]:
    """All sections after the verdict, in the order of the story; empty ones are left out."""
    findings: list[tuple[_Subject, tuple[Finding, ...]]]
    findings = [(s, s.record.findings) for s in subjects if s.record.findings]
    isolation, galleries, layers = _isolation(subjects), _galleries(subjects), _layers(subjects)
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("rules", "Rules", {"rules": _rule_rows(subjects)}),
        ("accuracy", "Accuracy", _accuracy(subjects)),
        ("robustness", "Robustness", _robustness(subjects)),
        (
            "prototypes",
            "Prototypes",
            {
                "galleries": galleries,
                "rows": _rows(subjects, _starts("prototype.")),
                # What trust is made of is nothing to say where nothing is trusted.
                "trust": _notes(subjects, "prototypes.trust") if galleries else [],
            },
        ),
        (
            "channels",
            "Channels",
            {"layers": layers, "chosen": _notes(subjects, "channels.strongest") if layers else []},
        ),
        (
            "entanglement",
            "Entanglement",
            {
                "map": heat_map([(s.name, s.record, s.folder) for s in subjects]),
                "matrices": _matrices(subjects),
                "rows": _rows(subjects, _entangled),
                "mutual": _strongest_pairs(subjects, _starts("entanglement.symmetric")),
                "pairs": _strongest_pairs(subjects, is_pair),
                "surprising": _notes(subjects, "entanglement.surprising"),
                "plates": _plates(subjects, "entanglement"),
            },
        ),
        (
            "isolation",
            "Isolation",
            # How maps were made is nothing to say where no picture shows one.
            {
                "groups": isolation,
                "method": _notes(subjects, "isolation.method") if isolation else [],
                "rows": _rows(subjects, _starts("isolation.")),
            },
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
            "suspicions",
            "Suspicions",
            {
                "rows": _rows(subjects, _starts("shortcut.", "factor.")),
                "plates": _plates(subjects, "suspicions"),
            },
        ),
        (
            "attacks",
            "Attacks",
            {"rows": _rows(subjects, _starts("attack.")), "plates": _plates(subjects, "attacks")},
        ),
        ("associations", "Associations", _associations(subjects)),
        (
            "attribution",
            "Attribution",
            {
                "prompts": attributed_prompts([(s.record, s.folder) for s in subjects]),
                "rows": _rows(subjects, _starts("attribution.", "lexicon.")),
            },
        ),
        ("glitches", "Glitches", {"rows": _rows(subjects, _starts("glitch."))}),
        ("texts", "Held-out texts", {"rows": _rows(subjects, _starts("perplexity."))}),
        (
            "groups",
            "Groups",
            {
                "rows": _rows(subjects, _starts("accuracy.group", "accuracy.worst_group")),
                "plates": _plates(subjects, "groups"),
            },
        ),
        ("more", "More", {"rows": _rows(subjects, _left_over)}),
        ("findings", "Findings", {"findings": findings}),
        ("left_out", "What was left out", {"sentences": _notes_under(subjects, _LEFT_OUT)}),
        (
            "facts",
            "Provenance",
            {
                "rows": _rows(subjects, _starts("data.")),
                "data": _notes_under(subjects, _DATA),
                "cost": _facts(subjects, "notes", _is_cost),
                "digests": _facts(subjects, "digests"),
                "environment": _facts(subjects, "environment"),
                "notes": _other_notes(subjects),
            },
        ),
        ("glossary", "Glossary", {"kinds": _glossary(subjects)}),
    ]
    intros = _INTROS | {"robustness": _robustness_intro(subjects)}
    return [
        _Section(anchor, title, intros[anchor], body) for anchor, title, body in bodies if any(body.values())
    ]


def _notes(subjects: Sequence[_Subject], key: str) -> list[tuple[str, str]]:
    """A note of each subject, or once without a name where all say the same."""
    notes = [(s.name, s.record.notes[key]) for s in subjects if key in s.record.notes]
    if len(notes) == len(subjects) and len({note for _, note in notes}) == 1:
        return [("", notes[0][1])]
    return notes


_SCRIPTS = ("report.js", "tables.js", "gallery.js", "heatmap.js", "compare.js")
_STYLES = ("report.css", "explore.css")


@cache
def _environment() -> Environment:
    environment = templates()
    environment.filters.update(
        figure=_figure, bound=_bound, end=_end, exact=_exact, words=_words, plain=_plain, chips=_chips,
        as_data=_as_data, packed=_packed,
    )  # fmt: skip
    environment.filters.update(bounds_in_words=_bounds_in_words, judged_on=_judged_on, scope_line=_scope_line)
    environment.globals.update(
        WORDS=_WORDS, REGISTRY=REGISTRY, RULES_ON_CARD=_RULES_ON_CARD, LONG=_LONG, ROWS_OPEN=_ROWS_OPEN,
        GALLERIES_OPEN=_GALLERIES_OPEN,
    )  # fmt: skip
    return environment


def _policy(script: str) -> str:
    """A content security policy under which this page alone, and nothing from outside, runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def render(
    records: Sequence[tuple[AuditRecord, Path, Verdict]], *, title: str, beside: Path | None = None
) -> str:
    """The report of one audit as one self-contained HTML page.

    Parameters
    ----------
    records
        For each subject, in the order to show: its record, the folder in which the record's
        artifacts lie, and the gate's verdict on it.
    title
        The page's title.
    beside
        The folder in which the page will lie: a thumbnail leads to its picture where that lies below.

    Returns
    -------
    str
        HTML that loads no file and asks no network; a pure function of the arguments and of the
        pictures that the records name. A picture that is missing, changed, or outside its folder
        becomes a box that says so. Where all of them would make the page too large to send, they
        are thumbnails.

    Raises
    ------
    NothingAudited
        If there are no records.
    """
    if not records:
        raise NothingAudited("there is no record to report on; run `candling audit` first")
    subjects = _subjects(records)
    sections = _sections(subjects)
    pictures = [picture for section in sections for picture in _all_pictures(section.body)]
    small, left = embed(pictures, _ROOM, beside)
    script = "\n".join(map(asset, _SCRIPTS))
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=title,
            subjects=subjects,
            sections=sections,
            thumbnails=small,
            not_embedded=left,
            tallies=_tallies(subjects),
            csp=_policy(script),
            style=Markup("\n".join(map(asset, _STYLES))),
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
    page = render(records, title=title or f"Audit of {', '.join(names)}", beside=path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    # A lone surrogate in a finding's free-form test must not cost the whole report.
    part.write_bytes(page.encode("utf-8", "replace"))
    os.replace(part, path)
    return path
