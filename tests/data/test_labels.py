"""Labels onto classes: one table of what must be found, one of what must be refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from candling.data import Label, map_labels
from candling.errors import DataError

IMAGENET = ("tench, Tinca tinca", "goldfish, Carassius auratus", "ice cream, icecream", "school_bus")


@pytest.mark.parametrize(
    ("label", "classes", "expected"),
    [
        ("school_bus", IMAGENET, "school_bus"),
        ("tench, Tinca tinca", IMAGENET, "tench, Tinca tinca"),
        (1, IMAGENET, "goldfish, Carassius auratus"),
        ("1", IMAGENET, "goldfish, Carassius auratus"),
        ("School Bus", IMAGENET, "school_bus"),
        ("school-bus ", IMAGENET, "school_bus"),
        ("goldfish", IMAGENET, "goldfish, Carassius auratus"),
        ("carassius_AURATUS", IMAGENET, "goldfish, Carassius auratus"),
        ("Ice-Cream", IMAGENET, "ice cream, icecream"),
        ("goldfish, Carassius auratus", ("tench", "goldfish"), "goldfish"),
        ("7", ("3", "7"), "7"),
        (7, ("3", "7"), "7"),
        (0, ("3", "7"), "3"),
        ("Straße", ("strasse", "weg"), "strasse"),
        ("lorry", IMAGENET, None),
        ("fish", IMAGENET, None),
        ("n01443537", IMAGENET, None),
        ("1.0", IMAGENET, None),
        ("", IMAGENET, None),
    ],
)
def test_a_label_finds_its_class(label: Label, classes: Sequence[str], expected: str | None) -> None:
    found = map_labels([label, label], classes)
    assert found.mapped == ({} if expected is None else {label: expected})
    assert found.unmapped == ({label: 2} if expected is None else {})


def test_none_is_no_label_and_an_exact_name_comes_first() -> None:
    classes = ("cat", "Cat", "dog, Cat")
    found = map_labels([None, "Cat", "cat", "Cat"], classes)
    assert found.mapped == {"Cat": "Cat", "cat": "cat"}
    assert found.unmapped == {}


def test_an_explicit_mapping_wins() -> None:
    explicit = {"goldfish": "school_bus", "1": "school_bus", "9": "tench, Tinca tinca"}
    found = map_labels(["goldfish", 1, 9, "icecream"], IMAGENET, explicit)
    assert found.mapped == {
        "goldfish": "school_bus",
        1: "school_bus",
        9: "tench, Tinca tinca",
        "icecream": "ice cream, icecream",
    }


@pytest.mark.parametrize(
    ("labels", "classes", "explicit", "message"),
    [
        ([4], IMAGENET, {}, "label 4 is out of range: the model has 4 classes, 0 to 3"),
        (["-1"], IMAGENET, {}, "label -1 is out of range"),
        ([134], ("a",) * 100, {}, "0 to 99"),
        (["Hot-Dog"], ("hot dog", "hot_dog"), {}, r"could mean 'hot dog' \(0\) or 'hot_dog' \(1\)"),
        (["sofa"], ("couch, sofa", "sofa, divan"), {}, r"'couch, sofa' \(0\) or 'sofa, divan' \(1\)"),
        (["crane"], ("crane", "stork", "crane"), {}, r"'crane' could mean 'crane' \(0\) or 'crane' \(2\)"),
        ([0], ("crane", "stork", "crane"), {}, "'crane', and class 2 is called the same"),
        (["7", "1"], ("3", "7"), {}, "label '7' is the name and label '1' the index of the class '7'"),
        (["x"], ("cat", "dog"), {"x": "cut"}, "maps 'x' to 'cut', which is no class of the model; .* 'cat'"),
    ],
)  # fmt: skip
def test_what_is_refused(
    labels: Sequence[Label], classes: Sequence[str], explicit: Mapping[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        map_labels(labels, classes, explicit)
