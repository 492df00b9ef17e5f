"""`candling attribute`: which parts of a prompt made a language model say what it said."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from candling.cli.completing import among, model_folders
from candling.cli.options import Chat, Debug
from candling.cli.output import emit, is_terminal, width
from candling.cli.sources import AsJson

if TYPE_CHECKING:
    from candling.language import Attribution
    from candling.language.attribution import AttributionMethod
    from candling.language.units import UnitKind

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_SHOWN = 12  # units in the table


@app.command()
def attribute(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder in the format of transformers, or a name on the hub.",
            autocompletion=model_folders,
        ),
    ],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the model is given.")],
    target: Annotated[str, typer.Option("--target", metavar="TEXT", help="What it said, or might say next.")],
    foil: Annotated[
        str | None, typer.Option("--foil", metavar="TEXT", help="What it did not say: why this, not that?")
    ] = None,
    unit: Annotated[
        str,
        typer.Option(
            "--unit", help="token, word or sentence.", autocompletion=among("token", "word", "sentence")
        ),
    ] = "word",
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="leave-one-out, marginal, integrated-gradients or surrogate.",
            autocompletion=among("leave-one-out", "marginal", "integrated-gradients", "surrogate"),
        ),
    ] = "leave-one-out",
    chat: Chat = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show which parts of a prompt speak for an output, and how much is lost without them.

    The output follows the prompt as it is written: write the space between them, where there is one.
    """
    from candling.language import attribute as of_prompt

    found = of_prompt(
        model,
        prompt,
        target=target,
        foil=foil,
        chat=chat,
        unit=cast("UnitKind", unit),
        method=cast("AttributionMethod", method),
    )
    if as_json:
        emit(json.dumps(_told(found), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return
    emit(_drawn(found, terminal=is_terminal(), columns=width()))


def _told(found: Attribution) -> dict[str, object]:
    return {
        "target": {"text": found.target.text, "pieces": list(found.target.pieces)},
        "foil": None if found.foil is None else {"text": found.foil.text, "pieces": list(found.foil.pieces)},
        "method": found.method,
        "score": found.score,
        "comprehensiveness": found.comprehensiveness,
        "comprehensiveness_random": found.comprehensiveness_random,
        "sufficiency": found.sufficiency,
        "sufficiency_random": found.sufficiency_random,
        "evaluations": found.evaluations,
        "notes": list(found.notes),
        "units": found.table.to_dict("records"),
    }


def _drawn(found: Attribution, *, terminal: bool, columns: int) -> str:
    """The prompt, in colours where the terminal has them, the strongest units and how faithful they are."""
    from rich.console import Console
    from rich.text import Text

    from candling.cli.climbing import render
    from candling.report.text import clean

    shown = ""
    if terminal:
        buffer = io.StringIO()
        most = max(map(abs, found.scores.tolist()), default=0.0) or 1.0
        text = Text()
        for unit, score in zip(found.units, found.scores.tolist(), strict=True):
            part = abs(score) / most
            fade = round(255 * (1 - 0.75 * part))
            colour = f"rgb(255,{fade},{fade})" if score > 0 else f"rgb({fade},{fade},255)"
            text.append(clean(unit.text), style=f"black on {colour}").append(" ")
        text.append("→ ").append(clean(found.target.text), style="bold")
        Console(file=buffer, force_terminal=True, width=columns, highlight=False).print(text)
        shown = buffer.getvalue() + "\n"
    rows = found.table.sort_values("score", key=abs, ascending=False).head(_SHOWN).sort_values("place")
    facts = [
        f"score {found.score:.3f} nats; without the strongest units {found.comprehensiveness:.3f} of it are "
        f"lost, in random order {found.comprehensiveness_random:.3f}; with these alone "
        f"{found.sufficiency:.3f}, in random order {found.sufficiency_random:.3f}",
        *found.notes,
    ]
    records: list[dict[Any, Any]] = rows.to_dict("records")
    formats = {"place": "{}", "text": "{}", "score": "{:+.3f}", "rank": "{}"}
    table = render(records, formats, facts, terminal=terminal, width=columns)
    return shown + table
