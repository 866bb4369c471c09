"""Power laws fitted to measurements, with an interval over seeds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats


class PowerLaw(NamedTuple):
    """``value = factor * x ** exponent``; ``low`` and ``high`` bound the exponent with 95 % confidence over seeds."""

    exponent: float
    low: float
    high: float
    factor: float

    def __str__(self) -> str:
        return f"{self.exponent:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def power_law(x, values) -> PowerLaw:
    """Least squares of log values on log x, seed by seed; the interval is Student's t over the seeds' exponents.

    ``x`` is ``(k,)`` and ``values`` is ``(seeds, k)``, all positive. The interval speaks of the spread between seeds; that
    the law is not exactly a power over the range of x is another matter. Raises ``ValueError`` for fewer than two seeds.
    """
    x, values = np.log(np.asarray(x, dtype=float)), np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] != len(x) or not (values > 0).all():
        raise ValueError(
            f"values must be positive, of shape (seeds, {len(x)}) with two seeds or more, got {values.shape}: "
            "pass one row for each seed."
        )
    slopes, heights = np.polyfit(x, np.log(values).T, 1)
    half = stats.t.ppf(0.975, len(slopes) - 1) * stats.sem(slopes)
    mean = float(slopes.mean())
    return PowerLaw(mean, mean - float(half), mean + float(half), float(np.exp(heights.mean())))
