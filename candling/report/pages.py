"""What all pages share: templates and assets of this package."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["asset", "templates"]


def asset(name: str) -> str:
    """The text of a style sheet or script that a page embeds."""
    return files("candling.report").joinpath("templates", name).read_text(encoding="utf-8")


def templates() -> Environment:
    """The templates, in which an unknown name is an error and every text is escaped."""
    return Environment(
        loader=PackageLoader("candling.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
