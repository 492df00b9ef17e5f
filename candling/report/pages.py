"""What all pages share: templates and assets of this package."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from candling.report.text import clean

__all__ = ["asset", "spelled", "templates"]


def asset(name: str) -> str:
    """The text of a style sheet or script that a page embeds."""
    return files("candling.report").joinpath("templates", name).read_text(encoding="utf-8")


def spelled(value: object) -> object:
    """Any value, a text in it with what controls where or how it is shown written out, line by line."""
    # Nearly every text is printable, which is known at once; data: URIs are megabytes.
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return "\n".join(map(clean, value.split("\n")))
    return value


def templates() -> Environment:
    """The templates, in which an unknown name is an error and every text is escaped."""
    return Environment(
        loader=PackageLoader("candling.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=spelled,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
