"""`candling rules`: what a policy's rules can be about."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Annotated, Any

import typer

from candling.audit.measurements import REGISTRY
from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value


@app.command()
def rules(
    as_json: Annotated[bool, typer.Option("--json", help="Print the registry as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """List the measurements that rules can be about."""
    kinds = list(REGISTRY.values())
    if as_json:
        rows = [{key: _plain(value) for key, value in asdict(kind).items()} for kind in kinds]
        emit(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return
    from candling.report.terminal import render_rules

    emit(render_rules(kinds, terminal=is_terminal(), width=width()))
