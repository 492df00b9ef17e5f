"""Accuracy, calibration, confusion and robustness against other libraries and against planted truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from candling.statistics import (
    effective_size,
    proportion,
    resampled_sums,
    share,
    sums_by_source,
    wilson,
)
from candling.vision.performance import (
    Calibration,
    accuracy_by,
    calibration,
    confusion,
    robustness,
    worst_of,
)


def spread(confidence: Tensor, classes: int = 10) -> Tensor:
    """Probabilities (N, K): `confidence` on class 0, the rest on all others alike."""
    rest = ((1 - confidence) / (classes - 1))[:, None].expand(-1, classes - 1)
    return torch.cat([confidence[:, None], rest], 1)


def planted(count: int, seed: int, excess: float) -> tuple[Tensor, Tensor]:
    """Probabilities that are too sure by `excess`, and labels."""
    generator = torch.Generator().manual_seed(seed)
    confidence = 0.5 + 0.49 * torch.rand(count, generator=generator, dtype=torch.float64)
    right = torch.rand(count, generator=generator, dtype=torch.float64) < confidence - excess
    return spread(confidence), torch.where(right, 0, 1)


def plugin(found: Calibration) -> float:
    """The error as Guo et al. write it, from the bins."""
    total = sum(b.accuracy.n for b in found.bins)
    return sum(b.accuracy.n / total * abs(b.accuracy.value - b.confidence) for b in found.bins)


# -- Shares and sources --------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (250, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_wilson_is_that_of_scipy(k: int, n: int, confidence: float) -> None:
    expected = proportion(k, n, confidence=confidence)
    assert wilson(k / n, n, confidence=confidence) == pytest.approx(expected[1:3], abs=1e-12)
    rows = np.arange(n) < k
    assert share(rows, list(range(n)), confidence=confidence) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("sources", "size"),
    [("", 0.0), ("abc", 3.0), ("aabb", 2.0), ("aaaa", 1.0), ("aaab", 16 / 10)],
)
def test_rows_are_worth_as_many_as_their_sources(sources: str, size: float) -> None:
    assert effective_size(list(sources)) == pytest.approx(size)


def test_copies_of_images_add_no_certainty() -> None:
    right = np.array([True, True, False, True, False, True, True])
    once = share(right)
    copied = share(right.repeat(50), np.arange(7).repeat(50).tolist())
    assert copied == pytest.approx(once, abs=1e-12)
    assert share(right.repeat(50)).low > once.low


def test_resampled_sums_are_those_of_copied_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(17, 3))
    found = resampled_sums(rows, resamples=500, seed=4)
    picked = np.random.default_rng(4).integers(0, 17, (500, 17))
    assert found == pytest.approx(rows[picked].sum(1), abs=1e-12)
    grouped = sums_by_source(rows, list("abababababababab") + ["c"])
    assert grouped == pytest.approx(np.stack([rows[0:16:2].sum(0), rows[1:16:2].sum(0), rows[16]]))


# -- Groups --------------------------------------------------------------------------------------


def test_accuracy_by_group_and_its_worst() -> None:
    right = torch.tensor([True, False, True, True, False, False, True])
    keys = ["day", "day", "day", "night", "night", "night", "fog"]
    found = accuracy_by(right, keys)
    assert found == {"day": proportion(2, 3), "night": proportion(1, 3), "fog": proportion(1, 1)}
    worst = worst_of(right, keys)
    assert worst is not None
    assert worst[0] == "night"
    assert worst[1] == pytest.approx(proportion(1, 3, confidence=1 - 0.05 / 3))


@pytest.mark.parametrize(("least", "worst", "groups"), [(1, "rare", 3), (2, "b", 2), (99, "rare", 3)])
def test_small_groups_can_be_passed_over(least: int, worst: str, groups: int) -> None:
    right = torch.tensor([False] + [False] * 4 + [True] * 6 + [True] * 10)
    keys = ["rare"] + ["b"] * 10 + ["c"] * 10
    found = worst_of(right, keys, least=least)
    assert found is not None
    assert found[0] == worst
    hits, count = (0, 1) if worst == "rare" else (6, 10)
    assert found[1] == pytest.approx(proportion(hits, count, confidence=1 - 0.05 / groups))


def test_equally_bad_groups_are_told_apart_by_their_size() -> None:
    right = torch.zeros(5, dtype=torch.bool)
    found = worst_of(right, ["a", "a", "b", "b", "b"])
    assert found is not None
    assert found[0] == "b"
    assert worst_of(torch.zeros(0, dtype=torch.bool), []) is None


def test_the_widened_interval_holds_the_worst_group() -> None:
    # 12 groups that are equally good: the worst of them looks worse than it is.
    generator = torch.Generator().manual_seed(0)
    keys = [row % 12 for row in range(600)]
    held = 0
    for _ in range(30):
        found = worst_of(torch.rand(600, generator=generator) < 0.8, keys)
        assert found is not None
        held += found[1].low <= 0.8 <= found[1].high
    assert held >= 27


@pytest.mark.parametrize("right", [torch.ones(3), torch.ones(3, 1, dtype=torch.bool)])
def test_right_must_be_a_row_of_bool(right: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be bool \(N,\)"):
        accuracy_by(right, ["a", "b", "c"])


# -- Calibration ---------------------------------------------------------------------------------


def test_bins_are_those_of_sklearn() -> None:
    probabilities, labels = planted(600, 1, 0.1)
    found = calibration(probabilities, labels)
    right = (labels == 0).numpy()
    accuracy, confidence = calibration_curve(
        right, probabilities[:, 0].numpy(), n_bins=15, strategy="quantile"
    )
    assert [b.accuracy.value for b in found.bins] == pytest.approx(accuracy)
    assert [b.confidence for b in found.bins] == pytest.approx(confidence)
    assert sum(b.accuracy.n for b in found.bins) == 600
    assert {b.accuracy.n for b in found.bins} == {40}


def test_the_plain_error_is_that_of_torchmetrics() -> None:
    # In the middle of 15 bins of equal width: those of equal mass are the same.
    confidence = ((torch.arange(15, dtype=torch.float64) + 0.5) / 15).repeat_interleave(40)
    generator = torch.Generator().manual_seed(2)
    right = torch.rand(600, generator=generator) < 0.6
    probabilities, labels = spread(confidence, 40), torch.where(right, 0, 1)
    keep = confidence > 1 / 40
    probabilities, labels = probabilities[keep], labels[keep]
    expected = multiclass_calibration_error(probabilities, labels, num_classes=40, n_bins=15, norm="l1")
    assert plugin(calibration(probabilities, labels)) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(("excess", "count"), [(0.0, 100), (0.0, 400), (0.1, 100), (0.1, 400), (0.3, 200)])
def test_the_interval_holds_the_planted_error(excess: float, count: int) -> None:
    found = [calibration(*planted(count, seed, excess)) for seed in range(30)]
    assert sum(f.error.low <= excess <= f.error.high for f in found) >= 25
    assert sum(f.overconfidence.low <= excess <= f.overconfidence.high for f in found) >= 25
    values = np.array([f.error.value for f in found])
    plain = np.array([plugin(f) for f in found])
    # Debiasing takes off part of what chance adds, and matters most where there is nothing else.
    assert values.mean() < plain.mean()
    if excess == 0 or count <= 100:
        assert abs(values.mean() - excess) < abs(plain.mean() - excess)
    assert np.mean([f.overconfidence.value for f in found]) == pytest.approx(excess, abs=0.025)


def test_a_model_too_modest_has_negative_overconfidence() -> None:
    found = calibration(spread(torch.full((200,), 0.6)), torch.zeros(200, dtype=torch.long))
    assert found.overconfidence.value == pytest.approx(-0.4)
    assert found.overconfidence.high < 0
    assert found.error.value == pytest.approx(0.4, abs=0.01)
    assert len(found.bins) == 1


@pytest.mark.parametrize(("count", "bins"), [(1, 1), (9, 1), (26, 2), (149, 14), (150, 15), (2000, 15)])
def test_few_images_get_few_bins(count: int, bins: int) -> None:
    assert len(calibration(*planted(count, 3, 0.0)).bins) == bins


def test_faultless_and_sure_is_no_certainty() -> None:
    found = calibration(spread(torch.ones(20)), torch.zeros(20, dtype=torch.long))
    missed = 1 - proportion(20, 20).low
    assert tuple(found.error) == pytest.approx((0, 0, missed, 20))
    assert tuple(found.overconfidence) == pytest.approx((0, 0, missed, 20))


def test_equal_confidences_share_a_bin_and_names_tell_bins_apart() -> None:
    confidence = torch.tensor([0.991, 0.9911, 0.9912, 0.9913, 1.0, 1.0], dtype=torch.float64)
    confidence = confidence.repeat_interleave(25)
    found = calibration(spread(confidence), torch.zeros(150, dtype=torch.long), bins=6)
    assert [b.name for b in found.bins] == [
        "0.9910–0.9910", "0.9911–0.9911", "0.9912–0.9912", "0.9913–0.9913", "1.0000–1.0000",
    ]  # fmt: skip
    assert found.bins[-1].accuracy.n == 50


def test_copies_of_images_do_not_narrow_the_interval() -> None:
    probabilities, labels = planted(60, 5, 0.1)
    once = calibration(probabilities, labels, bins=4)
    rows = torch.arange(60).repeat_interleave(9)
    sources = rows.tolist()
    copied = calibration(probabilities[rows], labels[rows], bins=4, sources=sources)
    assert tuple(copied.error) == pytest.approx(tuple(once.error), abs=1e-9)
    assert tuple(copied.overconfidence) == pytest.approx(tuple(once.overconfidence), abs=1e-9)
    naive = calibration(probabilities[rows], labels[rows], bins=4)
    assert naive.error.high - naive.error.low < (once.error.high - once.error.low) / 2


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        (torch.ones(3), torch.zeros(3), "must be"),
        (torch.ones(3, 1), torch.zeros(2), "must be"),
        (torch.ones(0, 1), torch.zeros(0), "at least one image"),
        (torch.full((2, 2), 0.5), torch.tensor([0, 2]), "from 0 to 1"),
        (torch.full((2, 2), 0.5), torch.tensor([0, -1]), "from 0 to 1"),
        (torch.tensor([[2.0, -1.0]]), torch.tensor([0]), "are these logits"),
        (torch.tensor([[4.0, 1.0]]), torch.tensor([0]), "are these logits"),
        (torch.tensor([[math.nan, 1.0]]), torch.tensor([0]), "are these logits"),
    ],
)
def test_what_is_no_distribution_is_refused(probabilities: Tensor, labels: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibration(probabilities, labels)


# -- Confusion -----------------------------------------------------------------------------------


def test_counts_are_those_of_sklearn() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, predicted = torch.randint(0, 6, (2, 500), generator=generator)
    found = confusion(predicted, labels, range(6))
    assert (found.counts[:, :6].numpy() == confusion_matrix(labels, predicted, labels=range(6))).all()
    assert found.counts[:, 6].sum() == 0
    for i, j, estimate in found.pairs():
        total = int((labels == i).sum())
        assert estimate == pytest.approx(proportion(int(found.counts[i, j]), total))
    assert len(list(found.pairs())) == 6 * 7


def test_nine_classes_of_a_thousand() -> None:
    classes = [340, 954, 928]
    labels = torch.tensor([340, 340, 954, 954, 954, 928])
    predicted = torch.tensor([340, 353, 954, 928, 928, 928])
    found = confusion(predicted, labels, classes)
    assert found.counts.tolist() == [[1, 0, 0, 1], [0, 1, 2, 0], [0, 0, 1, 0]]
    strongest = found.strongest()
    assert strongest is not None
    assert strongest[:2] == (1, 2)
    # 3 classes with images, each of which can be taken for 2 others or for none of them.
    assert strongest[2] == pytest.approx(proportion(2, 3, confidence=1 - 0.05 / 9))
    assert [pair[:2] for pair in found.pairs(zeros=False)] == [(0, 0), (0, 3), (1, 1), (1, 2), (2, 2)]


def test_the_strongest_pair_of_enough_images() -> None:
    labels = torch.tensor([0] + [1] * 10 + [2] * 10)
    predicted = torch.tensor([2] + [0] * 4 + [1] * 6 + [2] * 9 + [1])
    found = confusion(predicted, labels, range(3))
    assert [found.strongest(least=n)[:2] for n in (1, 5, 99)] == [(0, 2), (1, 0), (0, 2)]  # type: ignore[index]


def test_no_confusion_and_no_images() -> None:
    labels = torch.tensor([0, 1])
    found = confusion(labels, labels, [0, 1, 2])
    assert found.strongest() is None
    assert {i for i, _, _ in found.pairs()} == {0, 1}
    with pytest.raises(ValueError, match="class 2 has no images"):
        found.rate(2, 0)


def test_confusion_counts_sources() -> None:
    labels, predicted = torch.zeros(8, dtype=torch.long), torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])
    found = confusion(predicted, labels, [0, 1], sources=list("aaaabbbb")).rate(0, 1)
    assert found == pytest.approx(proportion(1, 2))


def test_labels_must_be_classes_looked_at() -> None:
    with pytest.raises(ValueError, match="label 7 is not one"):
        confusion(torch.tensor([7]), torch.tensor([7]), [0, 1])
    with pytest.raises(ValueError, match="named twice"):
        confusion(torch.tensor([0]), torch.tensor([0]), [0, 0])


# -- Robustness ----------------------------------------------------------------------------------


def test_robustness_by_hand() -> None:
    clean = torch.tensor([True] * 8 + [False] * 2)
    found = robustness(
        clean,
        {
            ("noise", 1): torch.tensor([True] * 6 + [False] * 4),
            ("noise", 2): torch.tensor([True] * 2 + [False] * 8),
        },
    )
    assert found.accuracy == {("noise", 1): proportion(6, 10), ("noise", 2): proportion(2, 10)}
    assert found.retained.value == pytest.approx(0.4 / 0.8)
    assert found.retained.low < 0.5 < found.retained.high
    assert found.worst == ("noise", 2, proportion(2, 10, confidence=1 - 0.05 / 2))


def test_the_interval_holds_the_planted_loss() -> None:
    held = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        clean = torch.rand(80, generator=generator) < 0.9
        # Each image has a hardness of its own, so that its corrupted versions go together.
        hardness = torch.rand(80, generator=generator)
        corrupted = {
            ("blur", s): clean & (torch.rand(80, generator=generator) < hardness) for s in range(1, 6)
        }
        found = robustness(clean, corrupted).retained
        held += found.low <= 0.5 <= found.high
    assert held >= 53


def test_images_of_one_source_are_one_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(20, generator=generator) < 0.8
    kept = clean & (torch.rand(20, generator=generator) < 0.6)
    once = robustness(clean, {("jpeg", 3): kept})
    rows = torch.arange(20).repeat_interleave(10)
    copied = robustness(clean[rows], {("jpeg", 3): kept[rows]}, sources=rows.tolist())
    assert copied.retained == pytest.approx(once.retained)
    assert copied.accuracy["jpeg", 3] == pytest.approx(once.accuracy["jpeg", 3])


def test_a_faultless_model_is_not_certain() -> None:
    every = torch.ones(26, dtype=torch.bool)
    found = robustness(every, {("noise", 1): every}).retained
    unseen = 1 - proportion(26, 26).low
    assert tuple(found) == pytest.approx((1, 1 - unseen, 1 + unseen, 26))


def test_nothing_to_retain_is_not_a_number() -> None:
    none = torch.zeros(5, dtype=torch.bool)
    found = robustness(none, {("noise", 1): none})
    assert math.isnan(found.retained.value)
    assert found.worst[2].value == 0
    with pytest.raises(ValueError, match="at least one image and one corruption"):
        robustness(none, {})
    with pytest.raises(ValueError, match="5 images need as many"):
        robustness(none, {("noise", 1): none[:3]})
