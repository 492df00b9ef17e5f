"""`candling associate`: which words a language model takes for a reason to say a concept."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from candling.cli.completing import model_folders
from candling.cli.options import Chat, Debug
from candling.cli.output import emit, is_terminal, width
from candling.cli.sources import AsJson, Out

if TYPE_CHECKING:
    from candling.language import AssociationMap

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_NAME = "associations"
_SHOWN = 12
_COLUMNS = {
    "item": "{}", "count": "{}", "share_controls": "{:.2f}", "lift": "{:.1f}", "low": "{:.1f}",
    "high": "{:.1f}", "q": "{:.3f}", "effect": "{:+.2f}", "verdict": "{}",
}  # fmt: skip


@app.command()
def associate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder as transformers saves it, or a name on the hub.",
            autocompletion=model_folders,
        ),
    ],
    concept: Annotated[list[str], typer.Argument(metavar="TEXT...", help="What it is to say, any of them.")],
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="TEXT", help="A concept to compare with; may be repeated."),
    ] = None,
    controls: Annotated[
        list[str] | None,
        typer.Option("--control", metavar="TEXT", help="A word of the same kind; chosen if none is named."),
    ] = None,
    frame: Annotated[
        str, typer.Option("--frame", metavar="TEXT", help="Text between a prompt and what it is to say.")
    ] = "",
    lexicon: Annotated[
        list[Path] | None,
        typer.Option(
            "--lexicon", metavar="FILE", help="Words, one a line, tried as one item; may be repeated."
        ),
    ] = None,
    chat: Chat = False,
    length: Annotated[int, typer.Option("--length", help="Tokens of a prompt.")] = 6,
    restarts: Annotated[int, typer.Option("--restarts", help="Searches, in each of two blocks.")] = 24,
    budget: Annotated[
        int, typer.Option("--budget", help="Tokens through the model that a search may cost.")
    ] = 40_000,
    out: Out = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Find prompts that make a model say a concept, and what they share beyond prompts for other words.

    Writes tables as Parquet into the folder `associations` unless --out names another. A concept is taken as
    it is written: whether a space before it belongs to it, the notes say.
    """
    from candling.language import Discrete, associations, read_lexicon
    from candling.language.mapping import check_folder

    folder = check_folder(Path(_NAME) if out is None else out)
    found = associations(
        model,
        concept,
        against=against or None,
        controls=controls or 6,
        frame=frame,
        chat=chat,
        lexicons={file.stem: read_lexicon(file) for file in lexicon or ()},
        length=length,
        restarts=restarts,
        discrete=Discrete(budget=budget),
        progress=lambda what: print(f"searching prompts for {what!r}", file=sys.stderr, flush=True),
    )
    found.save(folder)
    if as_json:
        emit(json.dumps(_told(found, folder), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return
    emit(_drawn(found, folder))


def _records(table: Any) -> list[dict[str, Any]]:
    """Rows of a data frame as plain data; what is not a number is None."""
    rows: list[dict[Any, Any]] = table.to_dict("records")
    return [
        {
            str(key): None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        for row in rows
    ]


def _told(found: AssociationMap, folder: Path) -> dict[str, object]:
    return {
        "concept": list(found.concept),
        "status": found.status,
        "why": found.why,
        "controls": list(found.controls),
        "against": list(found.against),
        "confirmed": found.confirmed,
        "folder": str(folder),
        "notes": list(found.notes),
        "associations": _records(found.table),
        "paired": None if found.paired is None else _records(found.paired),
    }


def _drawn(found: AssociationMap, folder: Path) -> str:
    from candling.cli.climbing import render
    from candling.report.text import clean

    text = ""
    tables = [("their controls", found.table)]
    if found.paired is not None:
        tables.append((" | ".join(map(repr, found.against)), found.paired))
    for beside, table in tables:
        # What the concept holds less often is in the files.
        rows = _records(table[table.lift > 1].head(_SHOWN)) if len(table) else []
        for row in rows:
            row["verdict"] = _verdict(row)
        if rows:
            shown = render(rows, _COLUMNS, [], terminal=is_terminal(), width=width())
            text += f"beside prompts for {clean(beside)}:\n\n{shown}\n"
    facts = [f"{found.status}: {found.why}", *found.notes, f"tables: {folder}"]
    return text + "".join(f"{clean(fact)}\n" for fact in facts)


def _verdict(row: dict[str, Any]) -> str:
    if row["confirmed"]:
        return "confirmed"
    if row["flagged"]:
        return "not confirmed in templates"
    return "not found again" if row["q"] <= 0.05 and row["replicated"] is False else "-"
