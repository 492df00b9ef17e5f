"""What changed between two records: intervals that hold, and false alarms in one comparison of twenty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import false_discovery_control, norm, ttest_ind
from scipy.stats import t as student

from candling.audit.comparison import check_comparable, compare, difference, differing, holm
from candling.audit.record import Finding, Measurement
from candling.errors import DataError
from candling.statistics import proportion
from tests.audit.records import BAD, GOOD, ok, record


def share(right: int, of: int, id: str = "accuracy.overall", **scope: str) -> Measurement:
    value, low, high, n = proportion(right, of)
    return Measurement(id=id, scope=scope, value=value, low=low, high=high, n=n)


def test_differences_of_proportions_are_newcombe_s() -> None:
    """Newcombe 1998, table II, method 10: of 56/70 and 48/80 the interval is 0.0524 to 0.3339."""
    found = difference(share(48, 80), share(56, 70))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    other = difference(share(9, 10), share(3, 10))
    assert other is not None
    assert (-other.high, -other.low) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_the_p_value_is_that_of_the_interval() -> None:
    old, new = ok("robustness.mean", 0.5, 0.02), ok("robustness.mean", 0.55, 0.02)
    found = difference(old, new)
    assert found is not None
    error = math.hypot(0.02, 0.02) / norm.ppf(0.975) * math.sqrt(120 / 119)
    assert found.p == pytest.approx(2 * student.sf(0.05 / error, 2 * 119))
    assert (found.p <= 0.05) == (found.low > 0)
    # By hand as scipy has it, of two small samples with unlike spreads.
    generator = np.random.default_rng(0)
    samples = generator.normal(0, 1, 8), generator.normal(2, 3, 5)
    sides = []
    for sample in samples:
        half = norm.ppf(0.975) * sample.std(ddof=0) / math.sqrt(len(sample))
        sides.append(ok("association.effect", float(sample.mean()), float(half), n=len(sample)))
    small = difference(sides[0], sides[1])
    assert small is not None
    assert small.p == pytest.approx(ttest_ind(*samples, equal_var=False).pvalue)


def test_what_has_no_spread_is_not_judged() -> None:
    count = ok("association.confirmed", 0.0, 0.0)
    more = count.model_copy(update={"value": 3.0, "low": 3.0, "high": 3.0})
    found = difference(count, more)
    assert found is not None
    assert math.isnan(found.p)
    assert [one.status for one in compare(record(count), record(more)).changes] == ["unknown"]
    assert [one.status for one in compare(record(count), record(count)).changes] == ["unchanged"]
    half = count.model_copy(update={"high": None})
    assert difference(half, more) is None
    alone = difference(ok("robustness.mean", 0.5, n=1), ok("robustness.mean", 0.9))
    assert alone is not None
    assert math.isnan(alone.p)
    weak = more.model_copy(update={"status": "inconclusive"})
    assert difference(count, weak) is None


def test_where_nothing_changed_one_comparison_in_twenty_says_so() -> None:
    """Both records draw anew from the same truths, as two audits with two seeds do."""
    generator = np.random.default_rng(0)
    wrong, draws, kinds = 0, 400, 30
    truths = generator.uniform(0.05, 0.95, kinds)
    for _ in range(draws):
        sides = [
            record(*(share(int(generator.binomial(120, truths[k])), 120, group=str(k)) for k in range(kinds)))
            for _ in range(2)
        ]
        wrong += bool(compare(*sides).significant)
    assert wrong / draws <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)


def test_holm_is_no_looser_than_it_may_be() -> None:
    p = [0.001, 0.04, 0.03, 0.5]
    assert holm(p) == pytest.approx([0.004, 0.09, 0.09, 0.5])
    assert all(a >= b for a, b in zip(holm(p), false_discovery_control(p), strict=True))
    assert holm([]) == []


def test_which_way_is_better_is_the_registry_s() -> None:
    found = {one.id: one.status for one in compare(record(*BAD), record(*GOOD)).changes}
    assert found == {
        "accuracy.worst_group": "better",
        "background.follow_rate": "better",
        "object_evidence.shapley_share": "better",
    }
    back = {one.id: one.status for one in compare(record(*GOOD), record(*BAD)).changes}
    assert set(back.values()) == {"worse"}
    own = [share(n, 100, "confusion.rate", **{"from": "cat", "to": "cat"}) for n in (50, 90)]
    assert [one.status for one in compare(record(own[0]), record(own[1])).changes] == ["better"]
    once = compare(record(GOOD[0]), record(GOOD[1]))
    assert [one.status for one in once.changes] == ["gone", "new"]


def finding(status: Any, low: float = 0.2, high: float = 0.4, id: str = "shortcut.sky") -> Finding:
    test = {"effect": (low + high) / 2, "interval": [low, high]}
    return Finding(id=id, kind="shortcut", status=status, statement=f"{id} {status}", test=test)


def beside(one: Finding) -> Finding:
    """Measured beside a region that stayed as it is; the interval is that of the evidence."""
    low, high = (one.test or {})["interval"]
    scope = {"class": "cat", "region": "the background", "beside": "the top edge"}
    evidence = Measurement(
        id="shortcut.effect", scope=scope, value=(low + high) / 2, low=low, high=high, n=99
    )
    return one.model_copy(update={"test": {"name": "remove"}, "evidence": (evidence,)})


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (finding("confirmed"), finding("dismissed", -0.05, 0.1), "fixed"),
        (finding("confirmed"), finding("dismissed", 0.05, 0.3), "unclear"),
        (finding("confirmed"), beside(finding("dismissed", -0.05, 0.1)), "unclear"),
        (beside(finding("confirmed")), beside(finding("dismissed", -0.05, 0.1)), "fixed"),
        (finding("confirmed"), beside(finding("confirmed", 0.8, 0.9)), "unchanged"),
        (finding("confirmed"), finding("untested"), "untested"),
        (finding("confirmed"), None, "gone"),
        (None, finding("confirmed"), "new"),
        (finding("dismissed"), finding("confirmed"), "new"),
        (finding("confirmed"), finding("confirmed", 0.5, 0.7), "worse"),
        (finding("confirmed"), finding("confirmed", -0.7, -0.5), "worse"),
        (finding("confirmed"), finding("confirmed", 0.05, 0.15), "better"),
        (finding("confirmed"), finding("confirmed", 0.3, 0.5), "unchanged"),
        (finding("dismissed"), finding("dismissed"), "unchanged"),
        (finding("dismissed"), None, "unchanged"),
        (finding("confirmed").model_copy(update={"test": None}), finding("confirmed", 9, 10), "unchanged"),
    ],
)
def test_what_became_of_a_finding(old: Finding | None, new: Finding | None, status: str) -> None:
    sides = [record(*GOOD, findings=() if one is None else (one,)) for one in (old, new)]
    (found,) = compare(*sides).findings
    assert found.status == status
    assert found.finding == (new or old)


def test_other_data_other_classes_or_another_kind_are_refused() -> None:
    old = record(*GOOD, classes=("cat", "dog"))

    def of(**changes: Any) -> Any:
        return old.model_copy(update=changes)

    eval_data = {"digests": {"data.eval": "1" * 64}}
    holdout = {"digests": {**old.digests, "data.train_holdout": "1" * 64}}
    cases = {
        "classes: 1 only in the old (dog), 1 only in the new (egg)": of(classes=("cat", "egg")),
        "classes: in another order": of(classes=("dog", "cat")),
        "one is of vision, the other of language": of(kind="language"),
        "data of eval: eeeeeeeeeeee and 111111111111": of(**eval_data),
        "data of train_holdout: none and 111111111111": of(**holdout),
        "the new record does not say what data it looked at": of(digests={"model": "0" * 64}),
    }
    for words, new in cases.items():
        with pytest.raises(DataError, match="cannot be compared") as caught:
            compare(old, new)
        assert words in str(caught.value)
        assert words in compare(old, new, force=True).differing
    # What a model was trained on may well differ.
    trained = of(
        digests={
            "data.eval": "e" * 64,
            "data.train": "2" * 64,
            "data.retrain.after": "3" * 64,
            "model": "4" * 64,
        }
    )
    check_comparable(old, trained)
    assert differing(old, trained) == []


def test_a_sample_of_unknown_size_is_taken_for_large() -> None:
    old, new = ok("robustness.mean", 0.5, 0.02, n=None), ok("robustness.mean", 0.55, 0.02, n=None)
    found = difference(old, new)
    assert found is not None
    assert found.p == pytest.approx(2 * norm.sf(0.05 / (math.hypot(0.02, 0.02) / norm.ppf(0.975))), rel=1e-6)
    flat = difference(ok("robustness.mean", 0.5, 0.0), ok("robustness.mean", 0.55, 0.02, n=None))
    assert flat is not None
    assert 0 < flat.p < 1e-3


def test_an_estimate_beside_its_own_interval_is_no_proof_of_a_change() -> None:
    old = ok("robustness.mean", 0.50).model_copy(update={"low": 0.505, "high": 0.6})
    new = ok("robustness.mean", 0.45).model_copy(update={"low": 0.3, "high": 0.452})
    found = difference(old, new)
    assert found is not None
    assert found.p > 0.1
    assert compare(record(old), record(new)).significant == ()


def test_of_what_was_recorded_twice_nothing_is_known() -> None:
    twice = record(ok("robustness.mean", 0.1), ok("robustness.mean", 0.9))
    (change,) = compare(twice, record(ok("robustness.mean", 0.9))).changes
    assert change.status == "unknown"
