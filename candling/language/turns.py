"""What stands around a prompt: what the tokenizer puts before every text, or a turn of a conversation.

A model that was trained on conversations is asked inside of its chat template: the prompt is what a user
says, and what the model is to say begins its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from candling.errors import ParamsError
from candling.language.loading import LanguageModel

__all__ = ["Placed", "Turn", "turn_of"]

_MARK = "candling stands here"
_SAMPLES = ("The", "a dog", "zebra", "7")
# Templates may write the day; an audit of tomorrow is to find the same.
_DAY = datetime(2024, 7, 26)


class Placed(NamedTuple):
    """A prompt where it stands: the tokens before it, its own, and those after it."""

    before: tuple[int, ...]
    tokens: list[int]
    after: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Turn:
    """Tokens before and after a prompt, and the texts that they are of.

    chat: whether it is one of a conversation. lead: a space that the text before ends with and that the first
    token of a prompt holds. trims: whether the template cuts spaces off around what is said.
    """

    model: LanguageModel
    before: tuple[int, ...]
    after: tuple[int, ...] = ()
    head: str = ""
    tail: str = ""
    chat: bool = False
    lead: str = ""
    trims: bool = False

    def text(self, tokens: Sequence[int]) -> str:
        """What is said, of its tokens."""
        return self.model.decode(tokens).removeprefix(self.lead)

    def placed(self, text: str) -> Placed:
        """A text where it stands. A token that it shares with what is around it is its own."""
        if not self.chat:
            return Placed(self.before, self.model.encode(text), ())
        said = text.strip() if self.trims else text
        whole = self.model.encode(f"{self.head}{said}{self.tail}")
        first = _alike([whole, self.before])
        last = min(_alike([whole[::-1], self.after[::-1]]), len(whole) - first)
        end = len(whole) - last
        return Placed(tuple(whole[:first]), whole[first:end], tuple(whole[end:]))

    def survives(self, tokens: Sequence[int]) -> bool:
        """Whether the text of a prompt, put between both, has these tokens again."""
        text = self.text(tokens)
        if self.trims and text != text.strip():
            return False
        start = self.before if self.chat else self.before[len(self.model.start) :]
        return self.model.encode(f"{self.head}{text}{self.tail}") == [*start, *tokens, *self.after]


def turn_of(model: LanguageModel, *, chat: bool = False, before: str = "") -> Turn:
    """What stands around a prompt after the text `before`, in the model's chat template or alone.

    Raises
    ------
    ParamsError
        If there is no chat template, or it does not repeat once what is said, with something after it.
    """
    if not chat:
        return Turn(model, (*model.start, *model.encode(before)), head=before)
    of = model.name or "the tokenizer"
    if not getattr(model.tokenizer, "chat_template", None):
        raise ParamsError(f"{of} has no chat template; ask it without chat")
    head, mark, tail = _rendered(model, f"{before}{_MARK}").partition(_MARK)
    if not mark or _MARK in tail:
        raise ParamsError(f"the chat template of {of} does not say once what is said; ask it without chat")
    trims = _rendered(model, f"{before} {_MARK} ") != f"{head} {_MARK} {tail}"
    # A space at the end of the head may belong to the first token of what is said, and not to the head's.
    whole = [model.encode(f"{head}{one}{tail}") for one in _SAMPLES]
    first = _alike(whole)
    last = _alike([row[:0:-1] for row in whole])
    lead = head[len(head.rstrip()) :] if first < len(model.encode(head)) else ""
    after = whole[0][len(whole[0]) - last :]
    if not after:
        raise ParamsError(
            f"the chat template of {of} begins no answer after what is said; ask it without chat"
        )
    return Turn(model, tuple(whole[0][:first]), tuple(after), head, tail, True, lead, trims)


def _alike(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    return next(
        (i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), min(map(len, rows))
    )


def _rendered(model: LanguageModel, said: str) -> str:
    from jinja2 import TemplateError

    try:
        return str(
            model.tokenizer.apply_chat_template(
                [{"role": "user", "content": said}],
                tokenize=False,
                add_generation_prompt=True,
                date_string=_DAY.strftime("%d %b %Y"),
                strftime_now=_DAY.strftime,
            )
        )
    except (TemplateError, ValueError, TypeError) as error:
        raise ParamsError(
            f"the chat template cannot be filled in ({' '.join(str(error).split())})"
        ) from error
