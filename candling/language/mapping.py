"""Association maps of a concept: searched, held against controls, replicated, and confirmed in templates.

What prompts share may be what the search likes rather than what the model thinks. So prompts for the concept
stand beside prompts for controls, words that are about as likely without any prompt; what is flagged must be
found in a second block of restarts; and each is then put into templates that have nothing to do with the
search, where it must raise the target more than words of other prompts do.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import t as student

from candling.errors import ParamsError
from candling.language.associations import (
    LEXICON,
    PIECE,
    MapSettings,
    association_table,
    forms_in,
    items_of,
    words_of,
)
from candling.language.generation import continued
from candling.language.loading import LanguageModel, open_language_model
from candling.language.prompts import Prompts, search_prompts
from candling.language.scoring import following, log_probabilities
from candling.language.search import Discrete, generator_of
from candling.language.targets import target_of
from candling.language.turns import Turn, turn_of
from candling.statistics import Estimate

__all__ = ["TEMPLATES", "AssociationMap", "associations", "check_folder", "matched_controls"]

TEMPLATES = (
    "{}", "The {}", "A {} and a", "There was a {}", "Once there was a {}", "I saw the {} and the",
    "This is the {} of a", "We talked about the {} and the", "It was {} for the", "He said {} to the",
    "She said {} to the", "They were {} with the",
)  # fmt: skip
"""What items are put into; none says anything of anyone."""

Status = Literal["ok", "inconclusive"]
_FEWEST = 5  # restarts that succeeded in a block, below which a map is inconclusive
_REACHED = 0.25  # share of restarts that must succeed in each block
_PLACEBOS = 40  # words of other prompts, beside each of which an item is put
_FEWEST_PLACEBOS = 8
_RESAMPLES = 1000
_WRONG = 0.05  # of all items that are put into templates together
_LEAST_LETTERS = 3
_GOES_ON = 0.5  # probability of more of a word, from which on what stands there is only its beginning
_TEXTS, _TOKENS = 24, 24  # drawn from the model, to see what it says how often
_FILES = ("associations.parquet", "prompts.parquet")


@dataclass(frozen=True, eq=False)
class AssociationMap:
    """What a model takes for a reason to say a concept.

    concept: its texts. status: ``inconclusive`` where too few restarts reached it, or its controls: then no
    absence of an association means anything. table: as `association_table` has it, with effect, effect_low,
    effect_high and n, the change of the concept's log-probability in templates beyond that of other words, in
    nats, and confirmed: for words that are flagged (pieces of words cannot be put into a text), and for
    lexicons, flagged or not, since who names them suspects them; of these an effect either way counts.
    prompts, others: what was searched, of the concept and of all controls, in two blocks. paired: the same
    table against another concept, searched from the same starts; None where none was given. paired_status,
    paired_why: as of the map, by how often concept and rival were reached.
    """

    concept: tuple[str, ...]
    controls: tuple[str, ...]
    status: Status
    why: str
    table: pd.DataFrame
    prompts: tuple[Prompts, Prompts]
    others: tuple[tuple[Prompts, ...], tuple[Prompts, ...]]
    against: tuple[str, ...] = ()
    paired: pd.DataFrame | None = None
    paired_status: Status = "ok"
    paired_why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def confirmed(self) -> list[str]:
        """Items that are flagged, and confirmed in templates."""
        return [] if self.table.empty else [str(item) for item in self.table.item[self.table.confirmed]]

    def save(self, folder: Path | str) -> None:
        """Write `associations.parquet` (the table, and ``paired`` rows with it) and `prompts.parquet`.

        Raises
        ------
        ParamsError
            If the folder is a file, or holds other things.
        """
        place = check_folder(folder)
        place.mkdir(parents=True, exist_ok=True)
        parts = [self.table.assign(beside="controls")]
        if self.paired is not None:
            parts.append(self.paired.assign(beside=" | ".join(self.against)))
        found = [
            prompts.table.assign(concept=" | ".join(of), block=block)
            for block, own in enumerate(self.prompts)
            for of, prompts in (
                (self.concept, own),
                *(((name,), one) for name, one in zip(self.controls, self.others[block], strict=True)),
            )
        ]
        for name, rows in ((_FILES[0], parts), (_FILES[1], found)):
            draft = place / f".{name}.part"
            pd.concat([one for one in rows if len(one)] or rows[:1], ignore_index=True).to_parquet(
                draft, index=False
            )
            draft.replace(place / name)

    def __repr__(self) -> str:
        done = [int(one.success.sum()) for one in self.prompts]
        head = f"{', '.join(map(repr, self.concept))}: {self.status}, {self.why}"
        body = "nothing is flagged"
        if not self.table.empty and self.table.flagged.any():
            columns = ["item", "count", "lift", "low", "high", "q", "effect", "confirmed"]
            body = self.table[self.table.flagged][columns].to_string(
                index=False, float_format=lambda value: f"{value:.3g}"
            )
        return "\n".join([head, f"restarts that reached it: {done[0]} and {done[1]}", body, *self.notes])

    def _repr_html_(self) -> str:
        shown = self.table[self.table.flagged] if not self.table.empty else self.table
        sizes = np.log(shown.lift.to_numpy(dtype=np.float64))
        sizes = 80 + 140 * sizes / sizes.max(initial=1e-9)
        words = "".join(
            f'<span title="lift {row.lift:.1f}" style="font-size:{size:.0f}%;margin:0 6px;'
            f'opacity:{1 if row.confirmed else 0.5}">{html.escape(str(row.item))}</span>'
            for row, size in zip(shown.itertuples(), sizes.tolist(), strict=True)
        )
        return f"<p>{html.escape(', '.join(self.concept))}: {html.escape(self.why)}</p><p>{words}</p>"


def associations(
    model: LanguageModel | str,
    concept: str | Sequence[str],
    *,
    against: str | Sequence[str] | None = None,
    controls: Sequence[str] | int = 6,
    length: int = 6,
    restarts: int = 24,
    frame: str = "",
    chat: bool = False,
    fluency: float = 0.0,
    discrete: Discrete | None = None,
    settings: MapSettings | None = None,
    templates: Sequence[str] = TEMPLATES,
    lexicons: Mapping[str, Sequence[str]] | None = None,
    block: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> AssociationMap:
    """Which words and pieces prompts share that make a model say a concept.

    Parameters
    ----------
    model
        A model, a folder in the format of transformers, or a repository of the hub.
    concept
        A text, or several of which any will do.
    against
        Another concept, searched from the same starts, that the first is compared with.
    controls
        Texts, or how many words are chosen that are about as likely without a prompt (`matched_controls`).
    length, restarts, frame, chat, fluency, discrete, block
        As in `search_prompts`; so many restarts in each of two blocks, and in all for the controls twice as
        many.
    settings
        How shares of restarts are compared.
    templates
        Texts with ``{}`` that flagged items are put into; the frame follows them.
    lexicons
        Lists of words by name, each of which is looked at as one item too: whether prompts hold any of its
        words, and what these do in templates.
    progress
        Told of what is searched next.

    Raises
    ------
    ParamsError
        If a text tokenizes to nothing, there are no controls, a number is below its least, or there is no
        chat template.
    ModelError
        If the model cannot be read or returns NaN.
    """
    opened = open_language_model(model)
    wanted = (concept,) if isinstance(concept, str) else tuple(concept)
    rival = () if against is None else (against,) if isinstance(against, str) else tuple(against)
    settings = settings or MapSettings()
    turn = turn_of(opened, chat=chat)
    notes = [str(target_of(opened, one)) for one in wanted]
    if isinstance(controls, int):
        chosen = matched_controls(
            opened, wanted, controls, avoid=[*rival, *block], before=turn.before,
            after=(*turn.after, *opened.encode(frame)),
        )  # fmt: skip
        if len(chosen) < min(2, controls):
            raise ParamsError(
                f"the model has {len(chosen)} words beside {wanted[0]!r} that could be controls; name some"
            )
        if len(chosen) < controls:
            notes.append(f"{controls} controls were asked for, the model has {len(chosen)} words for it")
    else:
        chosen = tuple(controls)
    if not chosen:
        raise ParamsError("there are no controls; name some words of the same kind")
    if not templates or not all("{}" in one for one in templates):
        raise ParamsError("a template is a text with {} in it, and there must be one at least")
    each = max(2, -(-2 * restarts // len(chosen)))
    # Numbers seed restarts: controls have their own, the rival has those of the concept.
    block_of = max(restarts, each * len(chosen) + restarts)

    def search(what: Sequence[str], count: int, first: int) -> Prompts:
        if progress is not None:
            progress(", ".join(what))
        return search_prompts(
            opened, what, length=length, restarts=count, first=first, frame=frame, chat=chat,
            fluency=fluency, discrete=discrete, block=[*block, *wanted, *rival, *chosen],
        )  # fmt: skip

    own = (search(wanted, restarts, 0), search(wanted, restarts, block_of))
    others = (
        tuple(search([one], each, restarts + each * i) for i, one in enumerate(chosen)),
        tuple(search([one], each, block_of + restarts + each * i) for i, one in enumerate(chosen)),
    )
    status, why = _told(own, others, "their controls")
    lists = {name: tuple(words) for name, words in (lexicons or {}).items()}
    held = tuple(_items(one, lists) for one in own)
    beside = tuple([item for one in block_ for item in _items(one, lists)] for block_ in others)
    every = [*own, *(one for block_ in others for one in block_)]
    forms = forms_in(text for one in every for text in one.table.text)
    trial = _Trial(
        turn, frame, templates, lists, beside[0], [*wanted, *rival, *chosen], forms, settings.matters
    )
    always = [LEXICON + name for name in lists]
    table = pd.DataFrame(columns=["item", "lift", "flagged", "confirmed"])
    paired, paired_status, paired_why = None, status, why
    if held[0] and beside[0]:
        table = association_table(
            held[0], beside[0], second=(held[1], beside[1]), always=always, settings=settings
        )
        table = trial.confirmed(table, wanted)
    if rival:
        facing = (search(rival, restarts, 0), search(rival, restarts, block_of))
        reached = tuple(_items(one, lists) for one in facing)
        paired_status, paired_why = _told(own, [[one] for one in facing], " or ".join(rival))
        if held[0] and reached[0]:
            paired = association_table(
                held[0], reached[0], second=(held[1], reached[1]), always=always, settings=settings
            )
            paired = trial.confirmed(paired, wanted, rival)
    return AssociationMap(
        wanted,
        chosen,
        status,
        why,
        table,
        own,
        others,
        rival,
        paired,
        paired_status,
        paired_why,
        tuple(notes),
    )


def check_folder(folder: Path | str) -> Path:
    """The folder of a map, where one could be written, before it takes long to make one.

    Raises
    ------
    ParamsError
        If it is a file, or holds other things than an earlier map.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise ParamsError(f"{place}: a file is in the way of the folder of the map")
    others = sorted({file.name for file in place.iterdir()} - set(_FILES)) if place.is_dir() else []
    if others:
        raise ParamsError(f"{place}: holds {others[0]!r}, no part of an earlier map; name another folder")
    return place


def matched_controls(
    model: LanguageModel,
    concept: Sequence[str],
    count: int,
    *,
    avoid: Sequence[str] = (),
    before: Sequence[int] = (),
    after: Sequence[int] = (),
) -> tuple[str, ...]:
    """Words of one token that the model says about as often as the concept, where that is asked for.

    Parameters
    ----------
    concept
        Its texts; of several the most frequent counts. Controls have a space before them where it has one.
    avoid
        Texts that no control may hold or be held by.
    before, after
        Tokens around the texts that the model draws and that stand for prompts: what texts begin with, and
        what stands between a prompt and the concept.
    """
    start = tuple(before) or model.begin
    never = [text.strip().casefold() for text in (*concept, *avoid) if text.strip()]
    words = {
        text: token
        for text, token in _words(model, spaced=concept[0].startswith(" ")).items()
        if not any(one in text.strip().casefold() or text.strip().casefold() in one for one in never)
    }
    if not words:
        return ()
    drawn = continued(model, [[]] * _TEXTS, _TOKENS, start=start, generator=generator_of("controls"))
    heads = [[*text[:length], *after] for text in drawn for length in range(len(text) + 1)]
    every, likeliest = _expected(model, heads, start)
    own = max(
        float(
            log_probabilities(model, heads, target_of(model, text).tokens, start=start).double().logsumexp(0)
        )
        for text in concept
    ) - math.log(len(heads))
    off = {text: abs(float(every[token].log()) - own) for text, token in words.items()}
    more = _parts(model)
    found: list[str] = []
    for text in sorted(off, key=lambda text: (round(off[text], 4), text)):
        if len(found) == count:
            break
        # Where the model goes on with more of a word, the token is the beginning of one, such as "fri".
        token = words[text]
        then, _ = _expected(model, [[*heads[int(likeliest[token])], token]], start)
        if then[more].sum() < _GOES_ON:
            found.append(text)
    return tuple(found)


def _named(model: LanguageModel) -> tuple[dict[int, str], bool]:
    """What tokens are called, but special ones, and whether ``▁`` marks those that begin a word."""
    tokens = sorted(set(model.tokenizer.get_vocab().values()) - model.special)
    names = dict(zip(tokens, model.pieces(tokens), strict=True))
    return names, any(name.startswith("▁") and len(name) > 1 for name in names.values())


def _words(model: LanguageModel, *, spaced: bool) -> dict[str, int]:
    """Words of one token as texts, with a space before them or without."""
    names, marked = _named(model)
    plain = {name.removeprefix("▁") for name in names.values() if name.startswith("▁") or not marked}
    found: dict[str, int] = {}
    for token, name in names.items():
        word = name.removeprefix("▁")
        if word not in plain or not word.isalpha() or len(word) < _LEAST_LETTERS:
            continue
        text = f" {word}" if spaced else word
        # What is written in one token and read as another would be another target.
        if model.encode(text) == [token]:
            found[text] = token
    return found


def _vocabulary(model: LanguageModel) -> list[str]:
    """Words of one token in small letters, in an order drawn at random."""
    found = max((_words(model, spaced=spaced) for spaced in (False, True)), key=len)
    words = list(dict.fromkeys(text.strip().casefold() for text in found))
    order = torch.randperm(len(words), generator=generator_of("placebos"))
    return [words[i] for i in order.tolist()]


def _parts(model: LanguageModel) -> list[int]:
    """Tokens that go on with a word."""
    names, marked = _named(model)
    return [
        token for token, name in names.items() if (name[:1].isalpha() if marked else name.startswith("##"))
    ]


def _expected(
    model: LanguageModel, heads: Sequence[Sequence[int]], start: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability (V,) of each token after heads of texts, the mean over them, and after which it is most."""
    total = torch.zeros(model.vocabulary, dtype=torch.float64)
    most, place = torch.zeros_like(total), torch.zeros(model.vocabulary, dtype=torch.long)
    with torch.inference_mode():
        for number, head in enumerate(heads):
            row = torch.tensor([[*start, *head]], device=model.device)
            here = following(model, row, 1)[0, 0].double().softmax(-1).cpu()
            total += here
            place = place.where(here <= most, number)
            most = most.maximum(here)
    return total / len(heads), place


def _items(found: Prompts, lexicons: Mapping[str, Sequence[str]]) -> list[set[str]]:
    """The items of each restart that counts."""
    rows = found.table[found.success]
    return [items_of(text, pieces, lexicons) for text, pieces in zip(rows.text, rows.pieces, strict=True)]


def _told(own: Sequence[Prompts], others: Sequence[Sequence[Prompts]], beside: str) -> tuple[Status, str]:
    """Whether enough was reached in each block to say anything, and in a sentence how much was."""
    sides = [[(one,) for one in own], others]
    counts = [
        [(sum(int(one.success.sum()) for one in block), sum(map(len, block))) for block in side]
        for side in sides
    ]
    (done, tried), (reached, asked) = (
        (sum(count for count, _ in side), sum(of for _, of in side)) for side in counts
    )
    said = f"{done} of {tried} restarts reached it, {reached} of {asked} {beside}"
    # Nothing can be found again in a block that hardly reached it.
    if any(count < _FEWEST or count < _REACHED * of for side in counts for count, of in side):
        return "inconclusive", f"{said}, too few to tell"
    return "ok", said


@dataclass(frozen=True)
class _Trial:
    """Templates that items are put into, beside words that prompts of controls hold and any others.

    turn: what stands around them. frame: text between them and the concept. others: items of each restart of
    controls. named: concept, rival and controls. forms: how words are written. matters: the least effect that
    confirms.
    """

    turn: Turn
    frame: str
    templates: Sequence[str]
    lexicons: Mapping[str, Sequence[str]]
    others: Sequence[set[str]]
    named: Sequence[str]
    forms: Mapping[str, str]
    matters: float

    def confirmed(
        self, table: pd.DataFrame, concept: Sequence[str], rival: Sequence[str] = ()
    ) -> pd.DataFrame:
        """The table with what flagged words and lexicons do to the concept, beyond what other words do.

        With a rival it is the concept's log-probability less the rival's. Intervals are those at 0.05 over
        the number of items that are put in.
        """
        table = table.copy()
        for name in ("effect", "effect_low", "effect_high", "n"):
            table[name] = np.nan
        table["confirmed"] = False
        named = table.item.str.startswith(LEXICON)
        # A piece that is put into a text is not that piece any more.
        tested = table.index[(table.flagged & ~table.item.str.startswith(PIECE)) | named]
        placebos = self._placebos(table)
        if len(placebos) < _FEWEST_PLACEBOS or not len(tested):
            return table
        beside = self._scored(concept, placebos, rival)
        for row in tested:
            gain = self._scored(concept, self._words(str(table.item[row])), rival)
            found = _beyond(gain, beside, 1 - _WRONG / len(tested))
            table.loc[row, ["effect", "effect_low", "effect_high", "n"]] = list(found)
            table.loc[row, "confirmed"] = bool(
                found.low > self.matters or (named[row] and found.high < -self.matters)
            )
        return table

    def _placebos(self, table: pd.DataFrame) -> list[str]:
        """Words that nobody suspects: those that prompts of controls hold most often, then any others."""
        suspected = set(table.item[table.flagged]) | {one for text in self.named for one in words_of(text)}
        suspected |= {one for listed in self.lexicons.values() for word in listed for one in words_of(word)}
        words = pd.Series(
            [one for held in self.others for one in sorted(held) if not one.startswith((PIECE, LEXICON))],
            dtype=object,
        )
        held = [str(word) for word in words.value_counts().index]
        kept = dict.fromkeys(word for word in (*held, *_vocabulary(self.turn.model)) if word not in suspected)
        return [self.forms.get(word, word) for word in list(kept)[:_PLACEBOS]]

    def _words(self, item: str) -> Sequence[str]:
        if item.startswith(LEXICON):
            return self.lexicons[item.removeprefix(LEXICON)]
        return [self.forms.get(item, item)]

    def _scored(
        self, concept: Sequence[str], words: Sequence[str], rival: Sequence[str]
    ) -> NDArray[np.float64]:
        """Log-probability (S, W, T) of the concept, and of a rival, after each template with each word."""
        model, turn = self.turn.model, self.turn
        texts = [one.replace("{}", word) for word in words for one in self.templates]
        if turn.chat:
            frame = model.encode(self.frame)
            prompts = [[*own, *after, *frame] for _, own, after in map(turn.placed, texts)]
        else:  # one text, which the tokenizer reads as a whole
            prompts = [model.encode(f"{text} {self.frame}".strip()) for text in texts]
        scores = []
        for said in (concept, rival) if rival else (concept,):
            parts = [
                log_probabilities(model, prompts, target_of(model, one).tokens, start=turn.before)
                for one in said
            ]
            scores.append(torch.stack(parts).double().logsumexp(0))
        return torch.stack(scores).view(len(scores), len(words), len(self.templates)).numpy()


def _beyond(own: NDArray[np.float64], beside: NDArray[np.float64], confidence: float) -> Estimate:
    """What words (S, W, T) do beyond placebo words (S, P, T), with an interval for words like these.

    A word's score is the logarithm of the concept's mean probability over templates, so that those count in
    which it can follow at all; with a rival the difference of both. How much words differ comes from both
    groups together, so that the interval of a single word is that of one more word drawn among the placebos
    (a pooled t interval). Placebos have outliers on one side, words that the model has an opinion of: each
    end comes from those that lie on its side. How much templates differ is a bootstrap over them. n: words
    that were compared.
    """
    mine, theirs = _score(own), _score(beside)
    words, placebos = len(mine), len(theirs)
    value = float(mine.mean() - theirs.mean())
    generator = np.random.default_rng(0)
    drawn = [
        _score(own[:, :, picked]).mean() - _score(beside[:, :, picked]).mean()
        for picked in generator.integers(0, own.shape[2], (_RESAMPLES, own.shape[2]))
    ]
    of_templates = float(np.var(drawn))
    free = words + placebos - 2
    within = float(((mine - mine.mean()) ** 2).sum())
    times = float(student.ppf(0.5 + confidence / 2, free))

    def half(far: NDArray[np.float64]) -> float:
        spread = (within + 2 * float((far.clip(0) ** 2).sum())) / free
        return times * math.sqrt(spread * (1 / words + 1 / placebos) + of_templates)

    away = theirs - theirs.mean()
    return Estimate(value, value - half(away), value + half(-away), words + placebos)


def _score(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S, W, T) → (W,)."""
    means = logsumexp(values, axis=2)
    return np.asarray(means[0] - means[1] if len(means) == 2 else means[0])
