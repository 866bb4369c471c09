"""Power laws: recovered where they hold, with intervals that cover as often as they claim; crossings where they are."""

import math

import numpy as np
import pytest
from scipy import stats

from lazy_helpers.fit import crossing, power_law, power_law_of_curve, power_law_with_gaps

X = np.array([25, 49, 100, 196, 289, 400, 484, 625, 784])


def test_an_exact_power_is_found_without_width():
    law = power_law(X, np.stack([3 * X**-0.5] * 2))
    assert (law.exponent, law.low, law.high) == pytest.approx((-0.5,) * 3, abs=1e-12)
    assert law.factor == pytest.approx(3)
    assert str(law) == "-0.50 [-0.50, -0.50]"


def test_the_interval_covers_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    exponents = 0.5 + 0.1 * rng.standard_normal((2000, 5, 1))  # five seeds, each with its own exponent
    covered = [law.low <= 0.5 <= law.high for law in (power_law(X, X**e) for e in exponents)]
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 2000) ** 0.5)


@pytest.mark.parametrize("values", [X, [X], np.zeros((2, 9)), np.ones((2, 3))])
def test_what_cannot_be_fitted_is_refused(values):
    with pytest.raises(ValueError, match="two seeds"):
        power_law(X, values)


def gappy(rng, seeds=4, k=3, noise=0.1, share=0.3):
    """Seeds with a factor each, one exponent, and gaps; the first two seeds are whole."""
    x, factors = np.array([1e3, 2e3, 1e4])[:k], np.exp(rng.normal(size=(seeds, 1)))
    values = factors * x**0.3 * np.exp(noise * rng.normal(size=(seeds, k)))
    gaps = rng.random((seeds, k)) < share
    gaps[:2] = False
    gaps[2, 0] |= share > 0
    return x, np.where(gaps, np.nan, values)


def test_gaps_are_left_out_as_in_a_regression_with_an_indicator_for_each_seed():
    rng = np.random.default_rng(5)
    for _ in range(20):
        x, values = gappy(rng)
        seed, at = np.nonzero(np.isfinite(values))
        design = np.column_stack([np.log(x)[at], seed[:, None] == np.unique(seed)])
        logs = np.log(values[seed, at])
        beta, left, rank, _ = np.linalg.lstsq(design, logs, rcond=None)
        free = len(logs) - rank
        error = np.sqrt(np.sum((logs - design @ beta) ** 2) / free * np.linalg.inv(design.T @ design)[0, 0])
        alone = (np.isfinite(values).sum(1) == 1).sum()  # such a seed adds a point and a factor: free stays
        law = power_law_with_gaps(x, values)
        assert free == np.isfinite(values).sum() - alone - (np.isfinite(values).sum(1) > 1).sum() - 1
        assert law.exponent == pytest.approx(beta[0])
        assert law.high - law.exponent == pytest.approx(stats.t.ppf(0.975, free) * error)
    whole = gappy(rng, share=0)
    assert power_law_with_gaps(*whole) == power_law(*whole)


def test_the_interval_with_gaps_covers_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(6)
    laws = [power_law_with_gaps(*gappy(rng)) for _ in range(2000)]
    assert abs(np.mean([law.low <= 0.3 <= law.high for law in laws]) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize(
    ("x", "values", "message"),
    [([1, 10], values, "values must") for values in ([[1, 2]], [[1, 2], [1, np.nan]], [[1, 0], [1, 2]], [1, 2])]
    + [([1, 10], [[1, np.inf], [1, 2]], "values must"), ([1, 10, 20], [[1, 2], [1, 2]], "values must")]
    + [(x, [[1, 2], [1, 3]], "x must be positive, no two alike") for x in ([10, 10], [0, 10], [-1, 10])],
)
def test_what_gives_no_common_exponent_is_refused(x, values, message):
    with pytest.raises(ValueError, match=message):
        power_law_with_gaps(x, values)
    assert power_law_with_gaps([1, 2, 4], [[1, 2, 4.0]]).exponent == pytest.approx(1)  # one seed at three x


def test_one_curves_interval_covers_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(1)
    noise = 0.1 * rng.standard_normal((2000, 9))  # of the logarithms, independent between points
    laws = [power_law_of_curve(X, 3 * X**-0.5 * np.exp(row)) for row in noise]
    covered = [law.low <= -0.5 <= law.high for law in laws]
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 2000) ** 0.5)
    exact = power_law_of_curve(X, 3 * X**-0.5)
    assert (exact.exponent, exact.low, exact.high, exact.factor) == pytest.approx((-0.5, -0.5, -0.5, 3), abs=1e-6)


@pytest.mark.parametrize(("x", "values"), [(X[:2], X[:2]), (X, X[:3]), (X, 0 * X), ([X] * 2, [X] * 2)])
def test_what_is_no_curve_is_refused(x, values):
    with pytest.raises(ValueError, match="three points"):
        power_law_of_curve(x, values)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_crossing_is_where_the_level_is_first_met(sign):
    rng = np.random.default_rng(2)
    met = 0
    for _ in range(300):
        x = np.sort(rng.uniform(0, 1, rng.integers(2, 9)))
        values, level = sign * rng.integers(-3, 4, len(x)).astype(float), sign * rng.choice([0.0, 1.0, 0.5, 2.5])
        where = crossing(x, values, level)
        fine = np.unique(np.concatenate([np.linspace(x[0], x[-1], 20_001), x]))  # by scanning the broken line
        side = np.sign(np.interp(fine, x, values) - level)
        there = np.flatnonzero((side != side[0]) | (side == 0))
        assert math.isnan(where) == (len(there) == 0)
        if len(there):
            assert where == pytest.approx(fine[there[0]], abs=2e-4)
            met += 1
    assert 100 < met < 300


def test_a_crossing_by_hand():
    assert crossing([0.1, 0.2, 0.4], [0.9, 0.6, 0.2], 0.5) == pytest.approx(0.25)
    assert crossing([1, 2, 3, 4], [1, 0, 1, 0], 0.5) == 1.5  # the first of three
    assert crossing([1, 2, 3], [1, 0.5, 0.5], 0.5) == 2 and crossing([1, 2], [0.5, 0], 0.5) == 1
    assert math.isnan(crossing([1, 2], [1, 0.6], 0.5))


def test_no_line_is_drawn_across_what_was_not_measured():
    gap = math.nan
    assert crossing([1, 2, 3, 4], [gap, 1, 0, gap], 0.5) == 2.5
    assert crossing([1, 2, 3, 4], [1, gap, 0.9, 0.1], 0.5) == 3.5
    assert math.isnan(crossing([1, 2, 3], [1, gap, 0], 0.5))
    assert math.isnan(crossing([1, 2, 3, 4, 5], [1, gap, 0, 0, 1], 0.5))  # first met somewhere in the gap
    assert crossing([1, 2, 3], [0.5, gap, 0], 0.5) == 1
    assert math.isnan(crossing([1, 2, 3], [gap, gap, 0], 0.5)) and math.isnan(crossing([1, 2], [gap, gap], 0.5))


@pytest.mark.parametrize(
    ("x", "values", "message"),
    [([1], [1], "increase"), ([2, 1], [0, 1], "increase"), ([1, 1], [0, 1], "increase"), ([1, 2], [1], "increase")]
    + [([1, 2], [np.inf, 0], "finite"), ([1, 2, 3], [1, np.nan, -np.inf], "finite")],
)
def test_what_has_no_crossing_to_look_for_is_refused(x, values, message):
    with pytest.raises(ValueError, match=message):
        crossing(x, values, 0.5)
