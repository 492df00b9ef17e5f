"""Text from elsewhere (names of classes, files, tokens) made harmless for where it is put.

`clean` writes out what moves a cursor, reverses a line or is no character of XML; the others go on from
there for the syntax of their format.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["clean", "cut", "markdown", "quiet"]

_SPELLED = ("Cc", "Cf", "Cs", "Zl", "Zp")
_MOST = 300  # characters of one name or message
_JOINER = "⁠"  # word joiner: nothing to see, and no mention, reference or link across it
_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~])")
_ACTS = re.compile(r"([@#]|://|www\.|ftp\.|\bgh-)(?=\S)", re.IGNORECASE)


def clean(text: str, most: int | None = None) -> str:
    """`text` with control, formatting, surrogate and unassigned characters written out.

    Parameters
    ----------
    most
        Characters after which it is cut.
    """
    out = "".join(
        repr(letter)[1:-1]
        if unicodedata.category(letter) in _SPELLED or ord(letter) & 0xFFFE == 0xFFFE
        else letter
        for letter in text
    )
    return out if most is None else cut(out, most)


def cut(text: str, most: int) -> str:
    """`text`, or so many characters of it."""
    return text if len(text) <= most else text[: most - 1] + "…"


def quiet(text: str) -> str:
    """`text` for a terminal or a log: spelled out, and no command to whatever runs the job.

    GitHub's runner takes ``::command::`` at the beginning of a line, and ``##[command]`` anywhere in it.
    """
    return clean(text).replace("::", f":{_JOINER}:").replace("##[", f"#{_JOINER}#[")


def markdown(text: str, most: int = _MOST) -> str:
    """`text` as plain words of GitHub's Markdown: no markup, HTML, mention, reference or link is left."""
    plain = clean(text, most).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = _ACTS.sub(lambda found: found[1] + _JOINER, plain)
    plain = _MARKS.sub(r"\\\1", plain)
    # At the beginning of a line these would make a list or a heading.
    return re.sub(r"^(\s*)([-=]|\d+\.)", r"\1\\\2", plain)
