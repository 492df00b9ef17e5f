"""Counterfactual balancing: a corpus in which what should not matter comes with everything as often.

Each text is told once more with words changed for their counterparts (counterfactual data augmentation: Lu et
al., "Gender Bias in Neural Natural Language Processing", arXiv 1807.11714; Maudslay et al. 2019, arXiv
1909.00871, for names). A word that breaks texts is scattered over texts that go on as they were, so that
nothing follows from it any more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from candling.errors import ParamsError

__all__ = ["balanced", "swapped"]

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def swapped(text: str, counterparts: Mapping[str, str]) -> str:
    """A text with each word changed for its counterpart, capitals kept; keys are in small letters."""

    def other(found: re.Match[str]) -> str:
        word = found[0]
        new = counterparts.get(word.casefold())
        if new is None:
            return word
        if word.isupper() and len(word) > 1:
            return new.upper()
        return new[:1].upper() + new[1:] if word[:1].isupper() else new

    return _WORD.sub(other, text)


def balanced(
    texts: Sequence[str],
    *,
    swap: Sequence[tuple[str, str]] = (),
    shuffle: Sequence[Sequence[str]] = (),
    scatter: Sequence[str] = (),
    share: float = 0.5,
    seed: int,
) -> list[str]:
    """Texts twice: as they are, and with words of pairs changed for each other and others scattered.

    Parameters
    ----------
    swap
        Pairs of words; either becomes the other.
    shuffle
        Groups of words that are changed for each other in both tellings, at random and in a text always
        alike: for what no pair balances, because one word of many leads to something.
    scatter
        Words of which one stands at a random place in this share of the second telling; texts of the first
        that hold one are left out, since what follows in them is what is to be unlearned.
    share
        Of the second telling, in (0, 1].

    Raises
    ------
    ParamsError
        If a word has two counterparts, a share lies outside its range, or nothing is to be balanced.
    """
    if not swap and not shuffle and not scatter:
        raise ParamsError("balancing needs pairs of words to swap, groups to shuffle, or words to scatter")
    if not 0 < share <= 1:
        raise ParamsError(f"share must lie in (0, 1], not {share}")
    counterparts: dict[str, str] = {}
    for one, other in swap:
        for word, new in ((one.casefold(), other), (other.casefold(), one)):
            if word in counterparts:
                raise ParamsError(f"{word!r} is in two pairs of words to swap")
            counterparts[word] = new
    groups = [[word.casefold() for word in group] for group in shuffle]
    generator = np.random.default_rng(seed)

    def dealt(text: str) -> str:
        orders = [dict(zip(group, generator.permutation(group).tolist(), strict=True)) for group in groups]
        return swapped(text, {word: new for order in orders for word, new in order.items()})

    breaking = {word.casefold() for word in scatter}
    kept = [text for text in texts if not breaking & {word.casefold() for word in _WORD.findall(text)}]
    if not kept:
        raise ParamsError("every text holds a word that is to be scattered; there is none to put it into")
    second = []
    for text in kept:
        told = dealt(swapped(text, counterparts))
        if scatter and generator.random() < share:
            words = told.split(" ")
            place = int(generator.integers(0, len(words) + 1))
            told = " ".join([*words[:place], str(generator.choice(np.array(scatter))), *words[place:]])
        second.append(told)
    return [*(dealt(text) for text in kept), *second]
