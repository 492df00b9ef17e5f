"""The HTML report: one self-contained page that tells what the audit of each subject found.

The page is a pure function of the records, their verdicts and the pictures beside them: it holds
no dates and no random ids, and loads nothing, so the same audit gives the same bytes. Nothing is computed
here but layout; every number is one that a record or a verdict holds.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup

from candling.audit.measurements import REGISTRY, MeasurementType
from candling.audit.record import AuditRecord, Finding, Measurement
from candling.errors import NothingAudited
from candling.report.audited import OUTCOME_WORDS, VERDICT_WORDS
from candling.report.changes import Changes, changes
from candling.report.charts import (
    confusions,
    corruption_tables,
    entanglement_tables,
    is_bin_accuracy,
    is_bin_confidence,
    is_corrupted,
    is_entangled,
    is_headline,
    reliability_diagrams,
    severities_of,
    strongest_pairs,
)
from candling.report.galleries import (
    all_pictures,
    channel_layers,
    class_galleries,
    isolation_groups,
    plates_of,
)
from candling.report.heatmaps import heat_map, is_pair
from candling.report.language import attributed_prompts, attribution_problems, comparisons
from candling.report.pages import asset, templates
from candling.report.pictures import Room, embed
from candling.report.rows import ROWS_OPEN, packed, rows_of, rule_rows, starting, worst_rows
from candling.report.subjects import Subject, subjects_of, tallies
from candling.report.wording import (
    as_data,
    bound_written,
    bounds_in_words,
    chips,
    deciding_end,
    end_of_axis,
    exact,
    figure,
    judged_on,
    scope_line,
    spaced,
    told,
)
from candling.writing import write_whole

if TYPE_CHECKING:
    from candling.audit.comparison import Comparison
    from candling.audit.gate import Verdict

__all__ = ["render", "write_html"]

_GALLERIES_OPEN = 96  # classes that are laid out at once
_RULES_ON_CARD = 6
_FINDINGS_OPEN = 4  # of a subject; what was confirmed is never folded away
_LONG = 200  # rows; what a table has more of is packed and drawn as it is asked for

# A page is sent by mail and opened on phones.
_ROOM = Room()

_WORDS: dict[Any, str] = {
    **VERDICT_WORDS,
    **OUTCOME_WORDS,
    "confirmed": "confirmed",
    "dismissed": "dismissed",
    "untested": "untested",
}


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


def _robustness_intro(subjects: Sequence[Subject]) -> str:
    """What was done to the pictures, at the severities that the records hold."""
    found = (m for s in subjects for m in s.record.measurements if is_corrupted(m))
    severities = severities_of(m.scope["severity"] for m in found if m.scope["severity"] != "0")
    at = f" at severity {severities[0]}" if severities else ""
    if len(severities) > 1:
        listed = f"{', '.join(severities[:-1])} and {severities[-1]}"
        at = f" at {len(severities)} severities ({listed})"
    return _INTROS["robustness"].format(at=at)


def _facts(
    subjects: Sequence[Subject],
    field: str,
    wanted: Callable[[str], bool] = lambda key: True,
    prefix: str = "",
) -> list[_Fact]:
    """One row a key of `digests`, `environment`, `notes` or `coordinates`, subjects side by side."""
    maps: list[dict[str, Any]] = [getattr(subject.record, field) for subject in subjects]
    facts = []
    for key in dict.fromkeys(key for found in maps for key in found if wanted(key)):
        values = tuple(str(found.get(key, "")) for found in maps)
        same = len(values) > 1 and len(set(values)) == 1
        facts.append(_Fact(key.removeprefix(prefix), values, same))
    return facts


# Notes with these prefixes have a place of their own.
_LEFT_OUT, _DATA = "left_out.", "data."


def _notes_under(subjects: Sequence[Subject], prefix: str) -> list[_Fact]:
    return _facts(subjects, "notes", lambda key: key.startswith(prefix), prefix)


def _confirmed_first(findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Findings in view, all that were confirmed and a few others, and those folded away."""
    confirmed = [finding for finding in findings if finding.status == "confirmed"]
    others = [finding for finding in findings if finding.status != "confirmed"]
    beside = max(0, _FINDINGS_OPEN - len(confirmed))
    return confirmed + others[:beside], others[beside:]


def _is_cost(key: str) -> bool:
    """Whether a note tells how often a step asked the model; seconds differ from run to run."""
    return key.endswith(".evaluations")


def _other_notes(subjects: Sequence[Subject]) -> list[_Fact]:
    return _facts(subjects, "notes", lambda key: not (key.startswith((_LEFT_OUT, _DATA)) or _is_cost(key)))


def _glossary(subjects: Sequence[Subject]) -> list[MeasurementType]:
    """The registered measurements that this page mentions."""
    used = {m.id for s in subjects for m in s.record.measurements}
    used |= {r.measurement for s in subjects for r in s.record.policy.rules}
    used |= {m.id for s in subjects for f in s.record.findings for m in f.evidence}
    return [kind for id, kind in REGISTRY.items() if id in used]


_INTROS = {
    "changes": (
        "What became of each finding, and which measurements changed by more than chance, from {old} "
        "to {new}. Below, both are shown side by side."
    ),
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


def _accuracy(subjects: Sequence[Subject]) -> dict[str, Any]:
    matrices, pairs, count = confusions(subjects)
    return {
        "rows": rows_of(subjects, is_headline),
        "worst": [
            (title, *rows)
            for title, rows in (
                ("Classes", worst_rows(subjects, "accuracy.class")),
                ("Slices", worst_rows(subjects, "accuracy.slice")),
            )
            if rows[0]
        ],
        "matrices": matrices,
        "pairs": pairs,
        "of_pairs": count if pairs else 0,
        "diagrams": reliability_diagrams(subjects),
        "bins": rows_of(subjects, lambda m: is_bin_accuracy(m) or is_bin_confidence(m)),
    }


def _robustness(subjects: Sequence[Subject]) -> dict[str, Any]:
    return {
        "rows": rows_of(subjects, lambda m: m.id.startswith("robustness.") and not is_corrupted(m)),
        "grids": corruption_tables(subjects),
        "every": rows_of(subjects, is_corrupted),
    }


def _associations(subjects: Sequence[Subject]) -> dict[str, Any]:
    measures = ("association.confirmed", "association.pair_asymmetry", "association.reached")
    return {
        "comparisons": comparisons([(s.record, s.folder) for s in subjects]),
        "rows": rows_of(subjects, lambda m: m.id in measures),
        "effects": rows_of(subjects, lambda m: m.id == "association.effect"),
        "searched": _notes_under(subjects, "associations."),
    }


def _sections(subjects: Sequence[Subject], found: Changes | None) -> list[_Section]:
    """All sections after the verdict, in the order of the story; empty ones are left out."""
    findings = [(s, *_confirmed_first(s.record.findings)) for s in subjects if s.record.findings]
    isolation, galleries, layers = (
        isolation_groups(subjects),
        class_galleries(subjects),
        channel_layers(subjects),
    )
    mutual, of_mutual = strongest_pairs(subjects, starting("entanglement.symmetric"))
    directed, of_directed = strongest_pairs(subjects, is_pair)
    audited = [(s.record, s.folder) for s in subjects]
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("changes", "What changed", {"changes": found}),
        ("rules", "Rules", {"rules": rule_rows(subjects)}),
        ("accuracy", "Accuracy", _accuracy(subjects)),
        ("robustness", "Robustness", _robustness(subjects)),
        (
            "prototypes",
            "Prototypes",
            {
                "galleries": galleries,
                "rows": rows_of(subjects, starting("prototype.")),
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
                "matrices": entanglement_tables(subjects),
                "rows": rows_of(subjects, is_entangled),
                "mutual": mutual,
                "of_mutual": of_mutual,
                "pairs": directed,
                "of_pairs": of_directed,
                "surprising": _notes(subjects, "entanglement.surprising"),
                "plates": plates_of(subjects, "entanglement"),
            },
        ),
        (
            "isolation",
            "Isolation",
            # How maps were made is nothing to say where no picture shows one.
            {
                "groups": isolation,
                "method": _notes(subjects, "isolation.method") if isolation else [],
                "rows": rows_of(subjects, starting("isolation.")),
            },
        ),
        ("evidence", "Evidence", {"rows": rows_of(subjects, starting("object_evidence."))}),
        (
            "counterfactuals",
            "Counterfactuals",
            {
                "rows": rows_of(subjects, starting("background.", "counterfactual.")),
                "plates": plates_of(subjects, "counterfactuals"),
            },
        ),
        (
            "suspicions",
            "Suspicions",
            {
                "rows": rows_of(subjects, starting("shortcut.", "factor.")),
                "plates": plates_of(subjects, "suspicions"),
            },
        ),
        (
            "attacks",
            "Attacks",
            {"rows": rows_of(subjects, starting("attack.")), "plates": plates_of(subjects, "attacks")},
        ),
        ("associations", "Associations", _associations(subjects)),
        (
            "attribution",
            "Attribution",
            {
                "prompts": attributed_prompts(audited),
                "problems": attribution_problems(audited),
                "rows": rows_of(subjects, starting("attribution.", "lexicon.")),
            },
        ),
        ("glitches", "Glitches", {"rows": rows_of(subjects, starting("glitch."))}),
        ("texts", "Held-out texts", {"rows": rows_of(subjects, starting("perplexity."))}),
        (
            "groups",
            "Groups",
            {
                "rows": rows_of(subjects, starting("accuracy.group", "accuracy.worst_group")),
                "plates": plates_of(subjects, "groups"),
            },
        ),
        ("more", "More", {"rows": rows_of(subjects, _left_over)}),
        ("findings", "Findings", {"findings": findings}),
        ("left_out", "What was left out", {"sentences": _notes_under(subjects, _LEFT_OUT)}),
        (
            "facts",
            "Provenance",
            {
                "rows": rows_of(subjects, starting("data.")),
                "data": _notes_under(subjects, _DATA),
                "cost": _facts(subjects, "notes", _is_cost),
                "coordinates": _facts(subjects, "coordinates"),
                "digests": _facts(subjects, "digests"),
                "environment": _facts(subjects, "environment"),
                "notes": _other_notes(subjects),
            },
        ),
        ("glossary", "Glossary", {"kinds": _glossary(subjects)}),
    ]
    intros = _INTROS | {"robustness": _robustness_intro(subjects)}
    intros["changes"] = _INTROS["changes"].format(old=subjects[0].name, new=subjects[-1].name)
    return [
        _Section(anchor, title, intros[anchor], body) for anchor, title, body in bodies if any(body.values())
    ]


def _notes(subjects: Sequence[Subject], key: str) -> list[tuple[str, str]]:
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
        figure=figure, bound=bound_written, end=end_of_axis, exact=exact, words=spaced, told=told,
        deciding=deciding_end, chips=chips, as_data=as_data, packed=packed,
    )  # fmt: skip
    environment.filters.update(bounds_in_words=bounds_in_words, judged_on=judged_on, scope_line=scope_line)
    environment.globals.update(
        WORDS=_WORDS, REGISTRY=REGISTRY, RULES_ON_CARD=_RULES_ON_CARD, LONG=_LONG, ROWS_OPEN=ROWS_OPEN,
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
    records: Sequence[tuple[AuditRecord, Path, Verdict]],
    *,
    title: str,
    beside: Path | None = None,
    comparison: Comparison | None = None,
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
    comparison
        What changed from the first record to the second, of which the page tells first.

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
    subjects = subjects_of(records)
    sections = _sections(subjects, None if comparison is None else changes(comparison))
    pictures = [picture for section in sections for picture in all_pictures(section.body)]
    small, left = embed(pictures, replace(_ROOM, page=_ROOM.page - _more_maps(sections)), beside)
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
            tallies=tallies(subjects),
            csp=_policy(script),
            style=Markup("\n".join(map(asset, _STYLES))),
            script=Markup(script),
        )
    )


def _more_maps(sections: Sequence[_Section]) -> int:
    """What heat maps take beyond that of one subject, which is reckoned with; pictures have less room."""
    maps = [section.body["map"] for section in sections if section.body.get("map")]
    return sum(len(subject["steps"]) for one in maps for subject in one["subjects"][1:])


def write_html(
    records: Sequence[tuple[AuditRecord, Path, Verdict]],
    path: Path,
    *,
    title: str | None = None,
    comparison: Comparison | None = None,
) -> Path:
    """Write the report to `path`, whole or not at all.

    Parameters
    ----------
    records, comparison
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
    page = render(
        records, title=title or f"Audit of {', '.join(names)}", beside=path.parent, comparison=comparison
    )
    write_whole({path: page})
    return path
