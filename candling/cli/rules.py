"""`candling rules`: what a policy's rules can be about."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from candling.audit.measurements import REGISTRY
from candling.cli.completing import measurements
from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width
from candling.errors import ParamsError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value


@app.command()
def rules(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="Those that begin so, such as accuracy; all if none is named.",
            autocompletion=measurements,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the registry as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """List the measurements that rules can be about, with range and formula."""
    for id in ids or ():
        if not any(known.startswith(id) for known in REGISTRY):
            near = get_close_matches(id, REGISTRY, n=1, cutoff=0.0)
            raise ParamsError(f"no measurement begins with {id!r}; the nearest is {near[0]}")
    kinds = [kind for kind in REGISTRY.values() if not ids or kind.id.startswith(tuple(ids))]
    if as_json:
        rows = [{key: _plain(value) for key, value in asdict(kind).items()} for kind in kinds]
        emit(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return
    from candling.report.terminal import render_rules

    emit(render_rules(kinds, terminal=is_terminal(), width=width()))
