"""Power laws fitted to measurements, with an interval; where a measured curve crosses a level."""

from __future__ import annotations

import math
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


def power_law_with_gaps(x, values) -> PowerLaw:
    """:func:`power_law` for a grid that may lack cells. Where it does, one exponent for all seeds and a factor for each, by least squares.

    ``x`` is ``(k,)``, positive, no two alike; ``values`` is ``(seeds, k)``, positive, or NaN where nothing was measured. A seed with
    one value says nothing about the exponent and is left out. The interval takes the points' errors for independent and the exponent
    for the same in all seeds; where seeds differ in it, it is too narrow. Raises ``ValueError`` where fewer than one point is left
    beyond the unknowns.
    """
    x, values = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[1] != len(x) or (values <= 0).any() or np.isinf(values).any():
        raise ValueError(f"values must be positive or NaN, of shape (seeds, {len(x)}), got {values.shape}.")
    if not (x > 0).all() or len(np.unique(x)) < len(x):
        raise ValueError(f"x must be positive, no two alike, got {x}.")
    if len(values) > 1 and np.isfinite(values).all():
        return power_law(x, values)
    seen = np.isfinite(values) & (np.isfinite(values).sum(1, keepdims=True) > 1)
    free = seen.sum() - seen.any(1).sum() - 1  # points beyond the factors and the exponent
    if free < 1:
        raise ValueError(
            f"values must hold more points than unknowns, got {seen.sum()} in seeds with two or more, for a factor each and "
            "the exponent: collect more cells of the result."
        )
    x = np.log(x)
    along, logs = (
        np.where(seen, part, np.nan)[seen.any(1)] for part in (np.broadcast_to(x, values.shape), np.log(values))
    )
    means = [np.nanmean(part, axis=1, keepdims=True) for part in (along, logs)]
    u, v = along - means[0], logs - means[1]
    exponent = np.nansum(u * v) / np.nansum(u * u)
    half = stats.t.ppf(0.975, free) * math.sqrt(np.nansum((v - exponent * u) ** 2) / free / np.nansum(u * u))
    factor = np.exp((means[1] - exponent * means[0]).mean())
    return PowerLaw(*map(float, (exponent, exponent - half, exponent + half, factor)))


def power_law_of_curve(x, values) -> PowerLaw:
    """The same for one curve, where no seeds are known: the interval is least squares' own, from the points' scatter about the line.

    ``x`` and ``values`` are ``(k,)``, positive, k >= 3. It takes the points' errors for independent. Raises ``ValueError`` otherwise.
    """
    x, values = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    if x.ndim != 1 or x.shape != values.shape or len(x) < 3 or not ((x > 0).all() and (values > 0).all()):
        raise ValueError(
            f"x and values must be positive, of one shape (k,) with three points or more, got {x.shape} and {values.shape}."
        )
    line = stats.linregress(np.log(x), np.log(values))
    half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    return PowerLaw(*map(float, (line.slope, line.slope - half, line.slope + half, np.exp(line.intercept))))


def crossing(x, values, level: float) -> float:
    """The least x at which a curve through the points ``(x, values)``, straight between them, meets ``level``; NaN if it never does.

    ``x`` and ``values`` are ``(k,)``, ``x`` increasing, k >= 2. A value that was not measured is NaN, and no line is drawn across it:
    where the curve changes sides there, the answer is NaN. Beyond the points nothing is supposed. Raises ``ValueError`` for other
    shapes, for x that does not increase and for infinite values.
    """
    x, values = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    if x.ndim != 1 or x.shape != values.shape or len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError(
            f"x must increase and values have its shape (k,), k >= 2, got {x.shape} and {values.shape}: sort the points by x, one value each."
        )
    if np.isinf(values).any():
        raise ValueError("values must be finite, or NaN where nothing was measured.")
    at = np.flatnonzero(~np.isnan(values))
    x, above = x[at], values[at] - level
    meets = np.flatnonzero(above[:-1] * above[1:] <= 0)
    if not len(meets):
        return math.nan
    k = meets[0]
    if above[k] == 0:
        return float(x[k])
    if at[k + 1] > at[k] + 1:
        return math.nan
    return float(x[k] + (x[k + 1] - x[k]) * above[k] / (above[k] - above[k + 1]))
