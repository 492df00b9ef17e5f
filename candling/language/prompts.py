"""Prompt search: what a model takes for a reason to say something, found over and over from new starts.

Each restart is a search of its own, seeded by its number. What it found is told as text, with what the
model says after it: a prompt of tokens that its text does not turn into again is marked, because nobody could
type it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from candling.errors import ParamsError
from candling.language.continuous import Continuous, relax
from candling.language.loading import LanguageModel, open_language_model
from candling.language.objective import Objective
from candling.language.scoring import log_probabilities, says
from candling.language.search import Discrete, climb, random_prompts
from candling.language.targets import Target, target_of
from candling.language.turns import turn_of

__all__ = ["Prompts", "allowed_tokens", "search_prompts"]

_LIKELY = math.log(0.5)
_OFTEN = math.log(0.05)  # with a lift of this factor it counts too: of eight trades none is likelier than not
_LIFTED = math.log(20)


@dataclass(frozen=True, eq=False)
class Prompts:
    """What restarts found.

    targets: what was to be said. table: a row for each restart, by its number: text, pieces (a tuple),
    log_probability of the target after it and the frame (of several, of any), lift (of frame and target
    together, over what comes before prompts alone), both in nats, said (whether greedy decoding says one
    whole), survives (whether the text has these tokens again), kicks and evaluations (tokens through the
    model). tokens: int (R, L). prior: log-probability without any prompt.
    """

    targets: tuple[Target, ...]
    table: pd.DataFrame
    tokens: Tensor
    prior: float

    @property
    def success(self) -> pd.Series[bool]:
        """Restarts that count: the text survives, and the target is reached.

        It is where it is likelier than not, where greedy decoding says it, and where it follows one time in
        twenty at least and, with its frame, twenty times as often as without the prompt.
        """
        often = (self.table.log_probability >= _OFTEN) & (self.table.lift >= _LIFTED)
        reached = (self.table.log_probability >= _LIKELY) | self.table.said | often
        return reached & self.table.survives

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        names = ", ".join(repr(target.text) for target in self.targets[:4])
        best = self.table.sort_values("log_probability", ascending=False).head(5)
        lines = [f"{row.log_probability:8.3f}  {row.text!r}" for row in best.itertuples()]
        head = f"{len(self)} restarts for {names}: {int(self.success.sum())} reach it, prior {self.prior:.2f}"
        return "\n".join([head, *lines])


def allowed_tokens(model: LanguageModel, block: Iterable[str] = ()) -> Tensor:
    """Tokens that a prompt may hold, bool (V,): those that are text, but for blocked words.

    Tokens without text of their own (BOS and the like, single bytes of longer characters, rows of the
    embedding that no token has) are left out.
    """
    words = [word.strip().casefold() for word in block if word.strip()]
    out = torch.zeros(model.vocabulary, dtype=torch.bool, device=model.device)
    for token in sorted(set(model.tokenizer.get_vocab().values())):
        text = model.decode([token])
        if token not in model.special and text and "�" not in text and text.isprintable():
            out[token] = not any(word in text.casefold() for word in words)
    return out


def _framed(model: LanguageModel, frame: str, text: str) -> Target:
    """A target with its frame before it, whose tokens are those of both.

    Raises
    ------
    ParamsError
        If a token holds the end of one and the beginning of the other.
    """
    space = "" if frame.endswith(" ") or text.startswith(" ") else " "
    whole = target_of(model, f"{frame}{space}{text}")
    head = tuple(model.encode(frame))
    if not head or whole.tokens[: len(head)] != head or len(whole.tokens) == len(head):
        raise ParamsError(f"the frame {frame!r} and {text!r} share a token; end the frame between two words")
    return whole


def search_prompts(
    model: LanguageModel | str,
    targets: str | Sequence[str],
    *,
    length: int = 6,
    restarts: int = 32,
    first: int = 0,
    before: str = "",
    frame: str = "",
    chat: bool = False,
    block: Sequence[str] = (),
    own_words: bool = False,
    typable: bool = True,
    fluency: float = 0.0,
    discrete: Discrete | None = None,
    continuous: Continuous | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prompts:
    """Short prompts after which a model says a target, or one of several.

    Parameters
    ----------
    model
        A model, a folder in the format of transformers, or a repository of the hub.
    targets
        A text, or a set of texts of which any will do.
    length
        Tokens of a prompt.
    restarts, first
        How many searches, and the number of the first, which seeds it: another block of numbers is a
        replication.
    before
        Text in front of every prompt; BOS, where the model has it, comes before that.
    frame
        Text between a prompt and the target, which the prompt must lead to as well: in "there they found a"
        only a thing can follow, so that what is found is about things rather than about grammar.
    chat
        Whether a prompt is what a user says in the model's chat template, and the target begins the answer.
    block
        Texts that no prompt may hold, whatever pieces they are made of.
    own_words
        Whether a prompt may hold the target itself.
    typable
        Whether a prompt must be one whose text has these very tokens.
    fluency
        Weight of the prompt's own mean log-probability beside that of the target.
    discrete, continuous
        Settings; a continuous stage comes first where it is given, and its best whole tokens are where the
        discrete one starts.
    progress
        Told of restarts done, of all.

    Raises
    ------
    ParamsError
        If a target tokenizes to nothing, a number is below its least, no token is allowed, or there is no
        chat template.
    ModelError
        If the model cannot be read or returns NaN.
    """
    opened = open_language_model(model)
    wanted = tuple(target_of(opened, one) for one in ([targets] if isinstance(targets, str) else targets))
    framed = tuple(_framed(opened, frame, one.text) for one in wanted) if frame else wanted
    for name, value in (("length", length), ("restarts", restarts)):
        if value < 1:
            raise ParamsError(f"{name} must be at least 1, not {value}")
    turn = turn_of(opened, chat=chat, before=before)
    objective = Objective(opened, framed, turn.before, turn.after, fluency)
    room = len(turn.before) + length + len(turn.after) + max(len(one) for one in objective.outputs)
    if opened.longest is not None and room > opened.longest:
        raise ParamsError(
            f"prompt and target are {room} tokens, more than the model's context of {opened.longest}"
        )
    never = [*block, *(() if own_words else (one.text for one in wanted))]
    never = [text.strip().casefold() for text in never if text.strip()]
    may = allowed_tokens(opened, block)
    if int(may.sum()) < 2:
        raise ParamsError("fewer than two tokens are allowed in a prompt; block less")
    seeds = list(range(first, first + restarts))

    def refuse(tokens: list[int]) -> bool:
        text = turn.text(tokens)
        held = text.casefold()
        return any(word in held for word in never) or (typable and not turn.survives(tokens))

    starts = random_prompts(length, may, seeds, refuse=refuse)
    if continuous is not None:
        starts = relax(objective, starts, may, continuous, seeds).tokens
    found = climb(objective, starts, may, discrete or Discrete(), seeds, refuse=refuse, progress=progress)
    bare = replace(objective, fluency=0.0)
    led = opened.encode(frame)
    whole = bare.scores(found.tokens)
    # Of the target after prompt and frame: what leads to the frame is no reason for the target.
    towards = replace(bare, targets=(target_of(opened, frame),)).scores(found.tokens) if frame else 0.0
    score, joint = (whole - towards).tolist(), whole.tolist()

    def alone(head: list[int], outputs: Sequence[tuple[int, ...]]) -> float:
        given = [[*turn.after, *head]]
        parts = [log_probabilities(opened, given, output, start=turn.before).double() for output in outputs]
        return float(torch.stack(parts).logsumexp(0)[0])

    outputs = [output[len(led) :] for output in objective.outputs]
    prior, prior_joint = alone(led, outputs), alone([], objective.outputs)
    rows = []
    for i, tokens in enumerate(found.tokens.tolist()):
        text = turn.text(tokens)
        rows.append(
            {
                "restart": seeds[i],
                "text": text,
                "pieces": tuple(opened.pieces(tokens)),
                "log_probability": score[i],
                "lift": joint[i] - prior_joint,
                "said": any(
                    says(opened, [*tokens, *turn.after, *led], output, start=turn.before)
                    for output in outputs
                ),
                "survives": turn.survives(tokens),
                "kicks": int(found.kicks[i]),
                "evaluations": int(found.spent[i]),
            }
        )
    return Prompts(wanted, pd.DataFrame(rows), found.tokens.cpu(), prior)
