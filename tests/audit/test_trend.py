"""Trends: planted changes are found where they are, flat series are left alone, drivers are named."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import norm, spearmanr
from sklearn.isotonic import IsotonicRegression

from candling.audit.record import AuditRecord, Measurement, StepError, read_record, write_record
from candling.audit.trend import Line, Point, Trend, associate, find_changes, holm, isotonic, line_up
from candling.errors import ParamsError
from tests.audit.records import record

N = 60
STEP = 20.0


def wilson(k: int, n: int) -> tuple[float, float, float]:
    """Written out here, as the verdict side has no engine to take it from."""
    z, p = 1.959963984540054, k / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return p, min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half))


def points(counts: list[int], n: int = N) -> list[Point]:
    return [Point(i * STEP, f"s{i}", *wilson(int(k), n), n, "ok") for i, k in enumerate(counts)]


def drawn(rates: list[float], seed: int, n: int = N) -> list[Point]:
    return points(np.random.default_rng(seed).binomial(n, rates).tolist(), n)


def measured(id: str, k: int, n: int = N, scope: dict[str, str] | None = None) -> Measurement:
    value, low, high = wilson(k, n)
    return Measurement(id=id, scope=scope or {}, value=value, low=low, high=high, n=n)


def at(coordinates: dict[str, float], *measurements: Measurement, **more: object) -> AuditRecord:
    name = "-".join(f"{k}{v:g}" for k, v in coordinates.items()) or "none"
    return record(*measurements, subject=str(more.pop("subject", name)), coordinates=coordinates, **more)


def series(rates: list[float], seed: int = 0, id: str = "accuracy.overall") -> list[AuditRecord]:
    counts = np.random.default_rng(seed).binomial(N, rates).tolist()
    return [at({"step": i * STEP}, measured(id, k)) for i, k in enumerate(counts)]


def line_of(trend: Trend, id: str = "accuracy.overall") -> Line:
    line = trend.line(id)
    assert line is not None
    return line


# --- The pieces against references ------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, w = rng.normal(size=30).round(1), rng.uniform(0.2, 3, 30)
    expected = IsotonicRegression().fit(np.arange(30), y, w).predict(np.arange(30))
    np.testing.assert_allclose(isotonic(y, w), expected, atol=1e-12)


def test_association_is_spearmans_with_its_permutation_p() -> None:
    rng = np.random.default_rng(0)
    for n in (6, 7):
        x, y = rng.integers(0, 4, n).astype(float), rng.normal(size=n).round(1)
        rho, p = associate(x, y)
        assert rho == pytest.approx(spearmanr(x, y).statistic)
        every = [
            abs(spearmanr(x, order).statistic) for order in itertools.islice(itertools.permutations(y), 720)
        ]
        if n == 6:
            exact = np.mean(np.array(every) >= abs(rho) - 1e-12)
            assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999) + 1e-4)


@pytest.mark.parametrize(("x", "y"), [([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3], [5, 5, 5]), ([1, 2], [1, 2])])
def test_nothing_goes_with_what_does_not_vary(x: list[float], y: list[float]) -> None:
    assert associate(np.array(x, dtype=float), np.array(y, dtype=float)) == (0.0, 1.0)


def test_two_points_are_the_two_sample_z_test() -> None:
    pair = points([20, 35])
    se = [
        (p.high - p.low) / (2 * 1.959963984540054) for p in pair if p.high is not None and p.low is not None
    ]
    # A score interval's width, as that of the normal interval.
    z = (
        abs((pair[0].value or 0) - (pair[1].value or 0))
        / math.hypot(*se)
        / math.sqrt(1 + 1.959963984540054**2 / N)
    )
    # The step and the line are the same contrast of two points, and Bonferroni counts both.
    assert find_changes(pair)[1] == pytest.approx(2 * 2 * norm.sf(z))


# --- False alarms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
@pytest.mark.parametrize(("length", "n"), [(3, 60), (3, 20), (6, 30), (20, 60)])
def test_flat_series_raise_no_more_than_5_percent_alarms(length: int, n: int, rate: float) -> None:
    # Short series use up most of the 5%, so that it takes more of them to see that they keep to it.
    trials = 1500 if length == 3 else 200
    alarms = sum(find_changes(drawn([rate] * length, seed, n))[0] != "flat" for seed in range(trials))
    assert alarms <= 0.05 * trials


@pytest.mark.parametrize("length", [6, 12, 30])
def test_training_noise_beyond_the_intervals_is_no_change(length: int) -> None:
    """Each checkpoint jumps by 0.1 where the intervals say 0.06."""
    alarms = 0
    for seed in range(300):
        rates = 0.5 + 0.1 * np.random.default_rng(10_000 + seed).standard_normal(length)
        alarms += find_changes(drawn(rates.clip(0, 1).tolist(), seed))[0] != "flat"
    assert alarms <= 0.05 * 300


def test_alarms_are_counted_over_all_measurements_of_a_trend() -> None:
    """Twenty flat groups: at most 5% of the trends, not of the groups, name any change."""
    alarms = 0
    for seed in range(60):
        counts = np.random.default_rng(seed).binomial(N, 0.7, (4, 20)).tolist()
        made = [
            at(
                {"step": i},
                *(measured("accuracy.group", k, scope={"group": str(g)}) for g, k in enumerate(row)),
            )
            for i, row in enumerate(counts)
        ]
        alarms += any(line.direction != "flat" for line in line_up(made).lines)
    assert alarms <= 0.05 * 60


# --- Planted changes --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [6, 10, 25])
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (0.9, 0.1), (0.0, 1.0)])
def test_a_step_is_located_between_its_two_records(length: int, low: float, high: float) -> None:
    exact = 0
    for seed in range(20):
        first = 2 + seed % (length - 3)  # index of the first record after the step
        _, p, changes = find_changes(drawn([low] * first + [high] * (length - first), seed))
        assert p is not None
        assert p < 0.05
        change = max(changes, key=lambda c: abs(c.level_after[0] - c.level_before[0]))
        assert change.direction == ("rises" if high > low else "falls")
        apart = max(abs(change.before / STEP - (first - 1)), abs(change.after / STEP - first))
        assert apart <= 1
        exact += apart == 0 and len(changes) == 1
        assert change.level_before[1] - 0.1 <= low <= change.level_before[2] + 0.1
        assert change.level_after[1] - 0.1 <= high <= change.level_after[2] + 0.1
    assert exact >= 18


@pytest.mark.parametrize(("start", "stop"), [(5, 11), (3, 17), (8, 10)])
@pytest.mark.parametrize("way", [1, -1])
def test_a_ramp_is_located_where_it_is_half_way(start: int, stop: int, way: int) -> None:
    rates = np.interp(np.arange(20), [start, stop], [0.1, 0.9][::way]).tolist()
    half = (start + stop) / 2
    for seed in range(20):
        (change,) = find_changes(drawn(rates, seed, n=120))[2]
        # Within one checkpoint; a ramp over 14 of them moves by less than an interval a checkpoint.
        slack = 1 if stop - start < 10 else 2
        assert change.before / STEP - slack <= half <= change.after / STEP + slack


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ([0.1] * 5 + [0.9] * 5 + [0.1] * 5, [("rises", 4, 5), ("falls", 9, 10)]),
        ([0.5, 0.5] + [0.02] * 6 + [0.95] * 6, [("falls", 1, 2), ("rises", 7, 8)]),
        ([0.9] * 6 + [0.2] * 6 + [0.9] * 6, [("falls", 5, 6), ("rises", 11, 12)]),
    ],
)
def test_there_and_back_is_told_as_both(rates: list[float], told: list[tuple[str, int, int]]) -> None:
    for seed in range(10):
        direction, _, changes = find_changes(drawn(rates, seed, n=200))
        assert direction == "moves"
        assert [(c.direction, c.before / STEP, c.after / STEP) for c in changes] == told


@pytest.mark.parametrize(
    "made", [[], points([30]), [Point(i, "", 0.5 + 0.1 * i, None, None, None, "ok") for i in range(4)]]
)
def test_too_little_to_test_is_untested(made: list[Point]) -> None:
    assert find_changes(made) == ("untested", None, ())


def test_values_without_intervals_are_held_against_their_own_noise() -> None:
    rng = np.random.default_rng(0)
    values = np.where(np.arange(12) < 7, 3.0, 5.0) + 0.1 * rng.standard_normal(12)
    made = [Point(float(i), "", float(v), None, None, None, "ok") for i, v in enumerate(values)]
    direction, _, (change,) = find_changes(made)
    assert (direction, change.before, change.after) == ("rises", 6.0, 7.0)


def test_identical_values_are_flat() -> None:
    assert find_changes(points([30] * 8))[0] == "flat"
    assert find_changes(points([0] * 3))[0] == "flat"


def test_what_was_not_measured_leaves_a_gap() -> None:
    rates = [0.1] * 5 + [0.9] * 5
    made = series(rates)
    gone = measured("accuracy.overall", 0).model_copy(update={"value": None, "status": "inconclusive"})
    made[5] = at({"step": 5 * STEP}, gone)
    made[8] = at({"step": 8 * STEP})
    failed = measured("accuracy.overall", 0).model_copy(update={"status": "error"})
    made[2] = at({"step": 2 * STEP}, failed)
    line = line_of(line_up(made))
    assert [p.status for p in line.points] == [
        "ok", "ok", "error", "ok", "ok", "inconclusive", "ok", "ok", "missing", "ok",
    ]  # fmt: skip
    assert len(line.measured) == 7
    assert [(c.before, c.after) for c in line.changes] == [(80.0, 120.0)]


def test_following_counts_only_beyond_the_placebo() -> None:
    """An upset model follows anything: at step 100 the placebo goes along, from 140 on it does not."""
    follow = [0, 0, 1, 0, 1, 30, 31, 57, 58, 60, 59]
    placebo = [0, 1, 0, 0, 0, 35, 30, 1, 0, 0, 0]
    made = [
        at({"step": i * STEP}, measured("background.follow_rate", a), measured("background.placebo_rate", b))
        for i, (a, b) in enumerate(zip(follow, placebo, strict=True))
    ]
    line = line_of(line_up(made), "background.follow_rate")
    assert line.beyond == "background.placebo_rate"
    assert [(c.before, c.after) for c in line.changes] == [(120.0, 140.0)]
    assert [p.value for p in line.points] == [k / N for k in follow]
    alone = [at(dict(r.coordinates), r.measurements[0]) for r in made]
    line = line_of(line_up(alone), "background.follow_rate")
    assert line.beyond is None
    assert [(c.before, c.after) for c in line.changes] == [(80.0, 100.0)]


# --- Hyper-parameters -------------------------------------------------------------------------------


def runs(seed: int, count: int = 24, driven: bool = True) -> list[AuditRecord]:
    """Three hyper-parameters, of which only `strength` drives the follow rate."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        strength, rate, decay = (
            rng.choice([0.2, 0.4, 0.6, 0.8]),
            10 ** rng.uniform(-4, -2),
            rng.uniform(0, 0.1),
        )
        chance = 0.1 + (0.8 * strength if driven else 0.3) + 0.05 * rng.standard_normal()
        k = rng.binomial(N, min(1, max(0, chance)))
        coordinates = {
            "strength": float(strength),
            "learning_rate": float(rate),
            "weight_decay": float(decay),
        }
        made.append(
            at(coordinates, measured("background.follow_rate", int(k)), measured("accuracy.overall", 50))
        )
    return made


def test_the_planted_driver_and_no_other_is_named() -> None:
    wrong = 0
    for seed in range(12):
        trend = line_up(runs(seed), "strength")
        line = line_of(trend, "background.follow_rate")
        assert line.driver is not None
        assert line.driver.coordinate == "strength"
        assert line.driver.rho > 0.7
        wrong += any(a.significant for a in line.associations if a.coordinate != "strength")
        assert line_of(trend).driver is None
        assert not trend.ordered
        assert trend.coordinates == ("learning_rate", "strength", "weight_decay")
    assert wrong <= 1


def test_without_a_driver_none_is_named() -> None:
    named = sum(
        line_of(line_up(runs(seed, driven=False), "strength"), "background.follow_rate").driver is not None
        for seed in range(30)
    )
    assert named <= 3


def test_an_axis_that_drives_nothing_changes_nothing() -> None:
    """One run apart from the others is no level that changes with the axis."""
    made = [
        at({"rate": i, "decay": i * 7 % 12}, measured("accuracy.overall", 30 if i == 2 else 0))
        for i in range(12)
    ]
    line = line_of(line_up(made, "rate"))
    assert (line.direction, line.changes, line.driver) == ("flat", (), None)
    few = [at({"rate": i}, measured("accuracy.overall", 10 * i)) for i in range(4)]
    assert line_of(line_up(few, "rate")).direction == "untested"


def test_replicates_at_one_value_are_pooled() -> None:
    line = line_of(line_up(runs(0, 40), "strength"), "background.follow_rate")
    assert {p.x for p in line.points} == {0.2, 0.4, 0.6, 0.8}
    (change,) = line.changes
    assert (change.direction, change.before, change.after) == ("rises", 0.4, 0.6)


# --- Lining up --------------------------------------------------------------------------------------


def test_the_axis_is_the_step_and_records_are_sorted_along_it() -> None:
    made = [
        at({"step": s, "loss": 1 / (1 + s)}, measured("accuracy.overall", 30)) for s in (30.0, 10.0, 20.0)
    ]
    trend = line_up(made)
    assert (trend.axis, trend.ordered, trend.xs) == ("step", True, (10.0, 20.0, 30.0))
    assert line_of(trend).associations == ()
    assert line_up(made, "loss").axis == "loss"
    assert line_up(made, "order").subjects == tuple(r.subject for r in made)
    json.dumps(trend.to_dict(), allow_nan=False)


def test_without_coordinates_the_order_given_counts() -> None:
    trend = line_up([record(measured("accuracy.overall", k), subject=s) for s, k in (("b", 5), ("a", 55))])
    assert (trend.axis, trend.subjects) == ("order", ("b", "a"))
    (change,) = line_of(trend).changes
    assert trend.where(change) == "between b and a"


def test_a_change_in_words() -> None:
    trend = line_up(series([0.1] * 3 + [0.9] * 3))
    assert trend.where(line_of(trend).changes[0]) == "between step 40 and 60"


OTHER = {"environment": {"python": "3.11"}, "digests": {"model": "0"}, "measurements": ()}
PROBLEMS = {
    "none": ([], None, "at least two records, got 0"),
    "one": ([at({"step": 1})], None, "at least two records, got 1"),
    "audits": ([at({"step": 1}), at({"step": 2}, audit="other")], None, "of audit 'tanks' and record 2"),
    "kinds": (
        [at({"step": 1}), AuditRecord(audit="tanks", subject="x", kind="language", **OTHER)],
        None,
        "of kind 'vision' and record 2",
    ),
    "partly": ([at({"step": 1}), at({})], None, r"record 2 \(none\) has no coordinate 'step'"),
    "partly, chosen": ([at({"step": 1, "a": 1}), at({"step": 2})], "a", "record 2 .* has no coordinate 'a'"),
    "unknown": (
        [at({"step": 1}), at({"step": 2})],
        "lr",
        "'lr' is a coordinate of no record; choose one of step",
    ),
    "constant": ([at({"step": 1, "a": 1}), at({"step": 2, "a": 1})], "a", "'a' is the same in all"),
    "nothing to choose": ([at({}), at({})], "a", "leave --by out"),
    "twice": (
        [at({"step": 1, "a": 1}), at({"step": 2, "a": 1}), at({"step": 1, "a": 2})],
        None,
        "both at step 1",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_is_no_series_is_refused(case: str) -> None:
    made, by, words = PROBLEMS[case]
    with pytest.raises(ParamsError, match=words):
        line_up(made, by)


def test_what_makes_records_less_comparable_is_said() -> None:
    made = series([0.5, 0.5])
    moved = made[1].model_copy(update={"digests": {"model": "1", "data": "2"}, "classes": ("a", "b"),
                                       "errors": (StepError(step="x", message="y"),)})  # fmt: skip
    notes = line_up([made[0], moved]).notes
    assert [note.split()[0:4] for note in notes] == [
        ["the", "records", "differ", "in"], ["the", "records", "do", "not"], ["a", "step", "failed", "in"],
    ]  # fmt: skip
    assert line_up(made).notes == ()


# --- Coordinates of a record ------------------------------------------------------------------------


def test_coordinates_survive(tmp_path: Path) -> None:
    made = at({"step": 40.0, "learning_rate": 0.1}, measured("accuracy.overall", 30))
    assert read_record(write_record(made, tmp_path)) == made


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_coordinate_is_a_finite_number(value: float) -> None:
    with pytest.raises(ValidationError):
        at({"step": value})
