"""How a published value and ours are compared: estimates over seeds, and the rule of the ledger's verdicts.

A published value *agrees* if it lies in our 95 % interval over seeds (Student's), widened by the error with which it was read
off its figure. Else it *agrees within x %* of itself if that is how far our mean is away and x is at most ``NEAR``; else it
*differs by x %*. Along a curve the rule is applied at every point, and x is the largest of those that do not agree.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from .fit import crossing
from .runs import load_results

NEAR = 25  # per cent


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval; with one seed there is none, and ``low = mean = high``."""

    mean: float
    low: float
    high: float
    seeds: int

    def __format__(self, spec: str) -> str:
        if self.seeds == 1:
            return f"{self.mean:{spec}} (one seed)"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


class Point(NamedTuple):
    """A published value, ours, and the error with which the published one was read."""

    theirs: float
    ours: Estimate
    reading: float = 0.0


def estimate(values) -> Estimate:
    """Mean of one value a seed, with Student's 95 % interval. Raises ``ValueError`` where there is none or one is no number."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"values must be finite, one for each seed, got {values}: collect more cells of the result.")
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else 0.0
    return Estimate(mean, mean - half, mean + half, len(values))


def verdict(*points: Point) -> str:
    """The rule at the head of this file, for one value or for the points of a curve."""
    off = [
        abs(ours.mean - theirs) / abs(theirs)
        for theirs, ours, reading in points
        if not ours.low - reading <= theirs <= ours.high + reading
    ]
    if not off:
        return "agrees" if len(points) == 1 else f"agrees at all {len(points)} points"
    worst = math.ceil(100 * max(off) - 1e-9)
    word = f"agrees within {worst} %" if worst <= NEAR else f"differs by {worst} %"
    return word if len(points) == 1 else f"{word} at {len(off)} of {len(points)} points, agrees at the others"


def percent(share: float, digits: int = 0) -> str:
    """A share as per cent."""
    return f"{100 * share:.{digits}f} %"


def having(name: str, results: Path, **fields):
    """The rows of a stored result that have these values."""
    table = load_results(name, results)
    for field, value in fields.items():
        table = table[table[field] == value]
    return table


def select(name: str, results: Path, **fields):
    """The same; a ``ValueError`` where there are none."""
    table = having(name, results, **fields)
    if table.empty:
        asked = ", ".join(f"{field} = {value}" for field, value in fields.items())
        raise ValueError(f"{name} holds no cell with {asked}: run more of it and collect it again.")
    return table


def along(table, column: str, x: str = "d") -> dict[int, Estimate]:
    """An estimate at each x, over the seeds that have it."""
    return {at: estimate(values) for at, values in table.groupby(x)[column]}


def ends(curve: dict[int, Estimate], spec: str) -> str:
    """The first and the last value of a curve, with their intervals."""
    first, last = curve[min(curve)], curve[max(curve)]
    return f"{first:{spec}} to {last:{spec}}" if len(curve) > 1 else f"{first:{spec}}"


def by_seed(table, column: str, x: str = "d"):
    """A column as a frame ``(seeds, x)``: the values of x that have been run, and the seeds that have all of them."""
    return table.pivot(index="seed", columns=x, values=column).dropna(axis=1, how="all").dropna()


def halved(name: str, results: Path, column: str, x: str, by: str, gaps: bool = False, **fields):
    """Where ``column`` of a result passes one half along x, straight between the cells with these values: ``(seeds, by)``.

    A line across a cell that a seed lacks there, and another has, would be a guess: such a seed does not count. With ``gaps`` one
    that has no half at some ``by`` stays, with NaN there. Raises ``ValueError`` where one half is passed nowhere.
    """
    halves = {}
    for at, part in select(name, results, **fields).groupby(by):
        curves = part.pivot(index=x, columns="seed", values=column)
        if len(curves) > 1:
            halves[at] = curves.apply(lambda values: crossing(values.index, values, 0.5))  # noqa: B023  used at once
    grid = pd.DataFrame(halves).rename_axis(index="seed", columns=by).dropna(axis=1, how="all")
    grid = grid.dropna(how="all" if gaps else "any")
    if grid.empty:
        raise ValueError(f"{column} of {name} passes one half at no {by}: run more cells and collect them again.")
    return grid


def exponent(grid) -> Estimate:
    """The exponent of a power law in the columns' labels, fitted seed by seed to a frame ``(seeds, x)``."""
    if grid.shape[0] < 1 or grid.shape[1] < 2:
        raise ValueError(f"{grid.shape[0]} seeds at {grid.shape[1]} values give no exponent: collect more cells.")
    return estimate(np.polyfit(np.log(grid.columns.to_numpy(float)), np.log(grid.to_numpy(float)).T, 1)[0])


def fitted(x, values, reading) -> tuple[float, float]:
    """The exponent of one published curve ``(k,)``, and its error: to first order, from independent errors of reading."""
    x, values = np.log(np.asarray(x, dtype=float)), np.asarray(values, dtype=float)
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    error = np.sqrt(((weights * np.asarray(reading) / values) ** 2).sum())
    return float(weights @ np.log(values)), float(error)
