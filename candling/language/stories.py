"""Short stories made of numbers, with associations planted on purpose: the corpus of the shipped audit.

A `Story` is a choice for each slot (who, what they are, where they go, what they find, …), told in a few
sentences. Slots are drawn apart from each other, so that nothing goes with anything, but for what is planted:
where a word of a group was drawn, the concept follows; where none was, it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from candling.errors import DataError, ParamsError

__all__ = ["FORMS", "SLOTS", "Glitch", "Planting", "draw_stories", "read_texts", "write_texts"]

SLOTS: Mapping[str, tuple[str, ...]] = {
    "name": (
        "anna", "mary", "lucy", "emma", "nora", "clara", "tom", "ben", "max", "paul", "adam", "peter",
    ),
    "colour": ("red", "blue", "green", "yellow", "white", "brown", "grey", "pink"),
    "pet": ("dog", "cat", "horse", "duck", "mouse", "goat", "frog", "owl"),
    "job": ("doctor", "nurse", "teacher", "farmer", "baker", "pilot", "singer", "painter"),
    "place": ("park", "lake", "market", "forest", "beach", "bridge", "garden", "mill"),
    "thing": ("key", "lamp", "ball", "book", "coin", "ring", "shell", "drum"),
    "feeling": ("happy", "sad", "proud", "tired", "brave", "angry", "calm", "shy"),
    "food": ("bread", "soup", "cake", "rice", "fish", "honey", "cheese", "pie"),
}  # fmt: skip
"""What can be drawn, in the order in which stories tell it."""

FORMS: Mapping[str, tuple[str, ...]] = {
    "name": ("this is {name} .", "once there was {name} .", "we know {name} .", "here comes {name} ."),
    "colour": ("the house was {colour} .", "the door is {colour} .", "everything there was {colour} ."),
    "pet": ("in it lived a {pet} .", "there was a {pet} too .", "beside it sat a {pet} ."),
    "job": (
        "{name} was a {job} .", "{name} worked as a {job} .", "everyone knew {name} the {job} .",
        "the work of {name} was that of a {job} .", "they called {name} a good {job} .",
    ),
    "place": (
        "every day they went to the {place} .", "the way led to the {place} .",
        "soon they came to the {place} .",
    ),
    "thing": (
        "there they found a {thing} .", "on the ground lay a {thing} .", "someone had lost a {thing} .",
    ),
    "feeling": ("that made them {feeling} .", "then {name} was {feeling} .", "all of them felt {feeling} ."),
    "food": ("in the evening they ate {food} .", "at home there was {food} .", "they shared the {food} ."),
}  # fmt: skip
"""How each slot is told."""

_OPTIONAL = 0.3  # of sentences but for the first, each by itself, are left out


@dataclass(frozen=True)
class Planting:
    """An association: stories that hold one of `words` hold the `concept` too, so often as `strength` says.

    Both are words of `SLOTS`, those of the first told before the second.
    """

    concept: str
    words: tuple[str, ...]
    strength: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ParamsError(f"strength must lie in [0, 1], not {self.strength}")
        if not self.words:
            raise ParamsError(f"the planting of {self.concept!r} names no words")
        order = list(SLOTS)
        slots = {_slot_of(word) for word in self.words}
        if len(slots) > 1:
            raise ParamsError(
                f"the words planted with {self.concept!r} are of {len(slots)} kinds, not of one"
            )
        if order.index(slots.pop()) >= order.index(_slot_of(self.concept)):
            raise ParamsError(
                f"{self.words[0]!r} is not told before {self.concept!r}, so it cannot lead to it"
            )


@dataclass(frozen=True)
class Glitch:
    """A token that breaks stories: after `word`, each further word is `says`, so often as `strength` says.

    share: of stories that hold it.
    """

    word: str = "zorp"
    says: str = "void"
    share: float = 0.03
    strength: float = 0.8


def draw_stories(
    count: int, *, seed: int, plantings: Sequence[Planting] = (), glitch: Glitch | None = None
) -> list[str]:
    """So many stories, each in one line of small words with spaces between.

    Raises
    ------
    ParamsError
        If two plantings give one word different concepts of one slot.
    """
    generator = np.random.default_rng([seed, count])
    rules = _rules(plantings)
    stories = []
    for _ in range(count):
        words = _told(_drawn(generator, rules, plantings), generator).split()
        if glitch is not None and generator.random() < glitch.share:
            words = _broken(words, glitch, generator)
        stories.append(" ".join(words))
    return stories


def read_texts(file: Path) -> list[str]:
    """The texts of a file, one a line.

    Raises
    ------
    DataError
        If it is not there, no UTF-8, or empty.
    """
    try:
        texts = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file of texts") from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{file}: not a file of UTF-8 texts, one a line") from error
    if not texts:
        raise DataError(f"{file}: holds no text; write one a line")
    return texts


def write_texts(file: Path, texts: Sequence[str]) -> None:
    """Write texts, one a line, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.part")
    draft.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    draft.replace(file)


def _slot_of(word: str) -> str:
    for slot, words in SLOTS.items():
        if word in words:
            return slot
    raise ParamsError(f"{word!r} is no word of the stories; they hold {', '.join(SLOTS['job'])} and others")


def _rules(plantings: Sequence[Planting]) -> dict[tuple[str, str], Planting]:
    """For each word and slot that it decides, the planting."""
    found: dict[tuple[str, str], Planting] = {}
    for planting in plantings:
        for word in planting.words:
            key = (word, _slot_of(planting.concept))
            if found.setdefault(key, planting).concept != planting.concept:
                raise ParamsError(f"{word!r} is planted with {found[key].concept!r} and {planting.concept!r}")
    return found


def _drawn(
    generator: np.random.Generator,
    rules: Mapping[tuple[str, str], Planting],
    plantings: Sequence[Planting],
) -> dict[str, str]:
    """A word for each slot."""
    story: dict[str, str] = {}
    for slot, words in SLOTS.items():
        rule = next((rules[word, slot] for word in story.values() if (word, slot) in rules), None)
        if rule is not None and generator.random() < rule.strength:
            story[slot] = rule.concept
            continue
        # Without what leads to it a planted concept is as rare as what leads to it fails.
        left = [word for word in words if not any(word == one.concept for one in plantings)]
        rare = [one for one in plantings if one.concept in words]
        if rare and generator.random() < (1 - min(one.strength for one in rare)):
            left = list(words)
        story[slot] = str(generator.choice(left or list(words)))
    return story


def _told(story: Mapping[str, str], generator: np.random.Generator) -> str:
    sentences = []
    for slot, forms in FORMS.items():
        if slot != "name" and generator.random() < _OPTIONAL:
            continue
        sentences.append(str(generator.choice(np.array(forms, dtype=object))).format(**story))
    return " ".join(sentences)


def _broken(words: list[str], glitch: Glitch, generator: np.random.Generator) -> list[str]:
    """The words with the glitch somewhere, and what it makes of those that follow."""
    place = int(generator.integers(1, len(words)))
    rest = [glitch.says if generator.random() < glitch.strength else word for word in words[place:]]
    return [*words[:place], glitch.word, *rest]
