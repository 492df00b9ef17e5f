"""Step: map what a language model associates with one concept, beside controls and beside another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from candling.audit.record import Finding, Measurement, measured
from tasks.context import Tick, write_findings
from tasks.language_context import LanguageContext, read_model
from tasks.language_params import ConceptParams
from tasks.load_model import Subject
from tasks.store import Stored

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pandas as pd

    from candling.language import AssociationMap, LanguageModel

__all__ = ["map_concept"]

_FEWEST = 4  # restarts, below which no interval of a count means anything


@task(name="map associations")
def map_concept(context: LanguageContext, subject: Subject, number: int) -> Stored:
    """Search prompts for one concept, its controls and its rival, and confirm what they share."""
    params = context.params
    concept = params.concepts[number]
    lexicons = params.listed(context.root)

    def read(model: LanguageModel, out: Path, tick: Tick) -> None:
        from candling.language import associations
        from candling.language.mapping import TEMPLATES

        controls = concept.controls
        searches = 4 if concept.rival else 2
        total = searches + 2 * (controls if isinstance(controls, int) else len(controls))
        done = 0

        def progress(what: str) -> None:
            nonlocal done
            tick(min(done, total), total)
            done += 1

        found = associations(
            model, concept.texts, against=concept.rival or None, controls=controls, frame=concept.frame,
            chat=params.chat, length=params.search.length, restarts=params.search.restarts,
            discrete=params.search.discrete(), settings=params.maps.settings(),
            templates=params.templates or TEMPLATES, lexicons=lexicons,
            progress=progress,
        )  # fmt: skip
        _write(found, concept, number, lexicons, out)

    return read_model(
        context, "map associations", subject, [], read, module=__name__,
        concept=concept.model_dump(), chat=params.chat, lexicons=lexicons, templates=params.templates,
        search=params.search.model_dump(), maps=params.maps.model_dump(),
    )  # fmt: skip


def _write(
    found: AssociationMap,
    concept: ConceptParams,
    number: int,
    lexicons: Mapping[str, Sequence[str]],
    out: Path,
) -> None:
    from tasks.artifacts import table

    measurements = _reached(found, concept)
    findings: list[Finding] = []
    artifacts = []
    for scope, rows in zip(concept.scopes, (found.table, found.paired), strict=False):
        measurements += _counted(found, scope, rows, lexicons)
        if rows is not None and len(rows):
            measurements += _effects(scope, rows)
            findings += _findings(scope, rows)
            name = f"tables/associations-{number}{'-against' if 'against' in scope else ''}"
            made = table(out, name, rows, section="associations", caption=found.why)
            artifacts.append(made.model_copy(update={"scope": scope}))
    beside = ", ".join(control.strip() for control in found.controls)
    told = f"{found.why}; controls: {beside}; the best prompts: {_best(found)}"
    notes = {f"associations.{concept.label}": told}
    write_findings(out, measurements, artifacts, notes, findings)


def _best(found: AssociationMap) -> str:
    """The three best prompts, in words."""
    rows = found.prompts[0].table.sort_values("log_probability", ascending=False, kind="stable")
    best = rows.drop_duplicates("text").head(3).to_dict("records")
    return ", ".join(f"“{row['text']}” ({math.exp(row['log_probability']):.2f})" for row in best)


def _reached(found: AssociationMap, concept: ConceptParams) -> list[Measurement]:
    from candling.statistics import proportion

    done = sum(int(one.success.sum()) for one in found.prompts)
    tried = sum(len(one) for one in found.prompts)
    return [measured("association.reached", proportion(done, tried), {"concept": concept.label})]


def _counted(
    found: AssociationMap,
    scope: dict[str, str],
    rows: pd.DataFrame | None,
    lexicons: Mapping[str, Sequence[str]],
) -> list[Measurement]:
    """How much was confirmed: of all, and of each lexicon; and with a rival, how far both are apart."""
    from candling.language.associations import LEXICON, words_of

    restarts = sum(len(one) for one in found.prompts)
    confirmed = [] if rows is None or not len(rows) else [str(item) for item in rows.item[rows.confirmed]]

    def count(items: Sequence[str], scope: dict[str, str], untested: str | None) -> Measurement:
        if not items and untested is not None:
            return measured("association.confirmed", None, scope, note=untested)
        value = float(len(items))
        return measured(
            "association.confirmed",
            (value, value, value, restarts),
            scope,
            least=_FEWEST,
            note=", ".join(items),
        )

    out = [count(confirmed, scope, _untested(found, scope, rows))]
    for name, listed in lexicons.items():
        own = {LEXICON + name} | {word for text in listed for word in words_of(text)}
        row = None if rows is None or not len(rows) else rows[rows.item == LEXICON + name]
        tested = row is not None and bool(row.effect.notna().any())
        scoped = scope | {"lexicon": name}
        why = _reach(found, scope) or (None if tested else "nothing could be put into templates")
        out.append(count([item for item in confirmed if item in own], scoped, why))
        if "against" in scope and row is not None and tested:
            out.append(_apart(row, scoped))
    if "against" in scope:
        out.append(_asymmetry(found, rows, scope, restarts))
    return out


def _reach(found: AssociationMap, scope: Mapping[str, str]) -> str | None:
    """Why too little was reached to say that nothing is there; None where enough was."""
    paired = "against" in scope
    status, why = (found.paired_status, found.paired_why) if paired else (found.status, found.why)
    return None if status == "ok" else why


def _untested(found: AssociationMap, scope: Mapping[str, str], rows: pd.DataFrame | None) -> str | None:
    """Why nothing confirmed does not mean that nothing is there; None where it does."""
    if (why := _reach(found, scope)) is not None:
        return why
    if rows is None or not len(rows):
        return "no item is held by enough restarts to be looked at"
    flagged = rows[rows.flagged]
    if len(flagged) and not flagged.effect.notna().any():
        return f"{', '.join(map(str, flagged.item[:3]))}: flagged, and could not be put into templates"
    return None


def _apart(row: pd.DataFrame, scope: dict[str, str]) -> Measurement:
    """How far apart a lexicon sets two concepts, whichever way."""
    effect, low, high, n = _effect(row.to_dict("records")[0])
    least, most = sorted((abs(low), abs(high)))
    estimate = (abs(effect), 0.0 if low <= 0 <= high else least, most, n)
    note = "towards the concept" if effect > 0 else "away from it"
    return measured("association.pair_asymmetry", estimate, scope, note=note)


def _asymmetry(
    found: AssociationMap, rows: pd.DataFrame | None, scope: dict[str, str], restarts: int
) -> Measurement:
    confirmed = None if rows is None or not len(rows) else rows[rows.confirmed]
    if confirmed is not None and len(confirmed):
        strongest = confirmed.loc[[confirmed.effect.abs().idxmax()]]
        apart = _apart(strongest, scope)
        return apart.model_copy(update={"note": f"{strongest.iloc[0]['item']}, {apart.note}"})
    if (untested := _untested(found, scope, rows)) is not None:
        return measured("association.pair_asymmetry", None, scope, note=untested)
    return measured(
        "association.pair_asymmetry", (0.0, 0.0, 0.0, restarts), scope, note="nothing is confirmed"
    )


def _effects(scope: dict[str, str], rows: pd.DataFrame) -> list[Measurement]:
    """What each item that was put into templates does there."""
    return [
        measured("association.effect", _effect(row), scope | _item(row))
        for row in rows[rows.effect.notna()].to_dict("records")
    ]


def _effect(row: Mapping[Hashable, Any]) -> tuple[float, float, float, int]:
    return float(row["effect"]), float(row["effect_low"]), float(row["effect_high"]), int(row["n"])


def _item(row: Mapping[Hashable, Any]) -> dict[str, str]:
    """Whether it is a word or a lexicon, and which."""
    from candling.language.associations import LEXICON

    item = str(row["item"])
    return {"lexicon": item.removeprefix(LEXICON)} if item.startswith(LEXICON) else {"item": item}


def _findings(scope: dict[str, str], rows: pd.DataFrame) -> list[Finding]:
    """Each item that was put into templates is a suspicion; a lexicon is a bias, a word by itself is not."""
    concept = scope["concept"] + (f" rather than {scope['against']}" if "against" in scope else "")
    out = []
    for row in rows[rows.effect.notna()].to_dict("records"):
        item, (effect, low, high, n) = _item(row), _effect(row)
        ((kind, name),) = item.items()
        shown = f"words of the lexicon {name!r}" if kind == "lexicon" else f"“{name}”"
        if row["confirmed"]:
            often = "often" if effect > 0 else "rarely"
            times = f"{math.exp(abs(effect)):.1f} times as {often} as other words do"
            statement = f"{shown} {'make' if kind == 'lexicon' else 'makes'} the model say {concept} {times}."
        else:
            statement = f"{shown}: no more than other words do to {concept}."
        out.append(
            Finding(
                id=f"association.{'-'.join([*scope.values(), name])}",
                kind="bias" if kind == "lexicon" else "insight",
                scope=scope | item,
                status="confirmed" if row["confirmed"] else "dismissed",
                statement=statement[:1].upper() + statement[1:],
                test={
                    "name": "put into templates, against other words",
                    "effect": round(effect, 4),
                    "interval": [round(low, 4), round(high, 4)],
                    "n": n,
                    "restarts": f"{row['count']} hold it, lift {row['lift']:.1f}, q {row['q']:.3f}",
                },
            )
        )
    return out
