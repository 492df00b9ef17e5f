"""A source's labels onto the model's classes: by name, by index, by a name written otherwise."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from candling.data.samples import Label, few, nearest
from candling.errors import DataError

__all__ = ["LabelMap", "map_labels", "place_of"]

_INDEX = re.compile(r"-?\d+")


@dataclass(frozen=True)
class LabelMap:
    """mapped: the class of each label that has one. unmapped: how many samples have each other label."""

    mapped: dict[Label, str] = field(default_factory=dict)
    unmapped: dict[Label, int] = field(default_factory=dict)


def map_labels(
    labels: Iterable[Label | None], classes: Sequence[str], explicit: Mapping[str, str] | None = None
) -> LabelMap:
    """Find the class of each label.

    The first of these that gives one: what `explicit` says; a class of exactly that name; a class of that
    index, for a whole number; a class of that name but for case, spaces, `_` and `-`; a class that shares a
    comma-separated synonym with the label.

    Parameters
    ----------
    labels
        One a sample; None, no label, is left out.
    classes
        Names in the order of the model's logits.
    explicit
        Labels, as text, and the exact name of the class that each means.

    Raises
    ------
    DataError
        If a label is a number that is no index of a class, could mean two classes, two numbers mean one
        class, by name and by index, or `explicit` names no class.
    """
    explicit = explicit or {}
    for told, name in explicit.items():
        if name not in classes:
            raise DataError(
                f"`labels` maps {told!r} to {name!r}, which is no class of the model; "
                f"{nearest(name, classes)}"
            )
    counts = Counter(label for label in labels if label is not None)
    find = _Finder(classes, explicit)
    # Sorted, so that of several faults it is always the same that is told.
    found = {label: find(label) for label in sorted(counts, key=lambda label: (str(label), str(type(label))))}
    mapped = {label: classes[match[0]] for label, match in found.items() if match is not None}
    by_way: dict[int, dict[str, Label]] = defaultdict(dict)
    for label, match in found.items():
        if match is not None and _INDEX.fullmatch(str(label)) and str(label) not in explicit:
            by_way[match[0]][match[1]] = label
    for index, ways in by_way.items():
        if len(ways) > 1:
            raise DataError(
                f"label {ways['name']!r} is the name and label {ways['index']!r} the index of the class "
                f"{classes[index]!r}; say with `labels` what the labels mean"
            )
    unmapped = {label: counts[label] for label, match in found.items() if match is None}
    return LabelMap(mapped, unmapped)


def place_of(label: str, classes: Sequence[str]) -> int | None:
    """The place of the class that a label means, as `map_labels` has it; None if it means none.

    Raises
    ------
    DataError
        If it could mean two.
    """
    name = map_labels([label], classes).mapped.get(label)
    return None if name is None else list(classes).index(name)


class _Finder:
    """The index of the class that a label means, and the way it was found: "name" or "index"."""

    def __init__(self, classes: Sequence[str], explicit: Mapping[str, str]) -> None:
        self.classes = classes
        self.explicit = explicit
        self.exact: dict[str, list[int]] = defaultdict(list)
        self.normal: dict[str, list[int]] = defaultdict(list)
        self.synonyms: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(classes):
            self.exact[name].append(index)
            self.normal[_normal(name)].append(index)
            for synonym in _synonyms(name):
                self.synonyms[synonym].append(index)

    def __call__(self, label: Label) -> tuple[int, str] | None:
        text = str(label)
        if text in self.explicit:
            return self._one(text, self.exact[self.explicit[text]]), "name"
        if text in self.exact:
            return self._one(text, self.exact[text]), "name"
        if _INDEX.fullmatch(text):
            return self._index(int(text)), "index"
        shared = {i for synonym in _synonyms(text) for i in self.synonyms.get(synonym, ())}
        for matches in (self.normal.get(_normal(text), []), sorted(shared)):
            if matches:
                return self._one(text, matches), "name"
        return None

    def _index(self, index: int) -> int:
        if not 0 <= index < len(self.classes):
            raise DataError(
                f"label {index} is out of range: the model has {len(self.classes)} classes, "
                f"0 to {len(self.classes) - 1}"
            )
        name = self.classes[index]
        if len(self.exact[name]) > 1:
            # The folder form holds names, which would not tell the two apart.
            other = next(i for i in self.exact[name] if i != index)
            raise DataError(
                f"label {index} means the class {name!r}, and class {other} is called the same; "
                "give the model's classes different names"
            )
        return index

    def _one(self, text: str, matches: list[int]) -> int:
        if len(matches) > 1:
            names = [f"{self.classes[i]!r} ({i})" for i in matches]
            raise DataError(
                f"label {text!r} could mean {few(names[:-1], 4)} or {names[-1]}; say with `labels` which"
            )
        return matches[0]


def _normal(name: str) -> str:
    return " ".join(re.sub(r"[\s_-]+", " ", name).casefold().split())


def _synonyms(name: str) -> set[str]:
    return {_normal(part) for part in name.split(",")} - {""}
