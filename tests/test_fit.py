"""Power laws: recovered where they hold, with intervals that cover as often as they claim."""

import numpy as np
import pytest

from lazy_helpers.fit import power_law

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
