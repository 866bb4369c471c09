"""Pictures of the chapter that compares the two papers: robust accuracy against the C0 used, and effects with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib import ticker
from matplotlib.lines import Line2D

from .plots import COLOURS, INK, canvas, picture
from .verdicts import estimate

MARKERS = "os^Dv"


@picture
def robustness_against_C0(panels: Mapping[str, Mapping[str, object]], steps: int, level: float):
    """Every run, and for each scale the mean over networks with one standard deviation both ways; C0 on a log axis.

    ``panels`` is ``{title: {name: DataFrame}}``, a frame with a row for each run: ``scale``, ``C0``, ``robust_accuracy`` and the bool
    ``reached``; runs that did not reach the clean loss ``level`` within ``steps`` are hollow, and so is a mean over runs half of which
    or more did not. The C0's mean is geometric.
    """
    figure, axes = canvas(1, len(panels), 5.8, 0.9 + 2.6 * len(panels), sharex=True, sharey=True, squeeze=False)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    told = []
    for ax, (title, lines) in zip(axes[:, 0], panels.items(), strict=True):
        for name, runs in lines.items():
            k, points = names.index(name), []
            for reached, some in runs.groupby("reached"):
                face = COLOURS[k] if reached else "none"
                ax.scatter(some.C0, some.robust_accuracy, 13, marker=MARKERS[k], facecolors=face, edgecolors=COLOURS[k], linewidths=0.8, alpha=0.6)  # fmt: skip
            for scale, some in runs.groupby("scale"):
                logs, robust = np.log(some.C0), some.robust_accuracy
                x, low, high = np.exp([logs.mean(), logs.mean() - logs.std(), logs.mean() + logs.std()])
                points.append((x, robust.mean()))
                finished = int(some.reached.sum())
                ax.errorbar(
                    *points[-1], robust.std(), [[x - low], [high - x]], fmt=MARKERS[k], color=COLOURS[k], capsize=2.5,
                    linewidth=1.4, markersize=7, fillstyle="full" if 2 * finished > len(some) else "none",
                )  # fmt: skip
                near = sum(abs(math.log(x / other)) < 0.5 and abs(robust.mean() - y) < 0.1 for other, y in points[:-1])
                ax.annotate(
                    f"{scale:g}", points[-1], xytext=(9, (8 + 11 * near) * (-1) ** k), textcoords="offset points",
                    ha="center", va="center", color=COLOURS[k], fontweight="bold",
                )  # fmt: skip
                told.append(
                    f"{title}, {name}, beta = {scale:g}: {robust.mean():.2f} at C0 = {x:.1f}, {finished} of {len(some)} runs finished"
                )
            ax.plot(*np.reshape(points, (-1, 2)).T, ":", color=COLOURS[k], linewidth=1.0)
        ax.set(title=title, xscale="log", ylabel="robust accuracy", ylim=(-0.12, 1.25), yticks=np.linspace(0, 1, 6))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    axes[-1, 0].set_xlabel("$C_0$ used")
    keys = [
        Line2D([], [], color=COLOURS[k], marker=MARKERS[k], linestyle=":", label=name) for k, name in enumerate(names)
    ]
    keys += [
        Line2D([], [], color=INK, marker="o", linestyle="", fillstyle=fill, label=label)
        for fill, label in (("full", f"clean loss {level:g} reached"), ("none", f"not reached in {steps} steps"))
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=2)
    return figure, f"Robust accuracy against the C0 used after {steps} steps, scale by scale. " + "; ".join(told) + "."


@picture
def effects_with_intervals(groups: Mapping[str, Mapping[str, object]], xlabel: str):
    """Differences network by network: their mean, its 95 % interval and every network, a panel for each group.

    ``groups`` is ``{title: {label: values}}``, one number for each network.
    """
    sizes = [len(rows) for rows in groups.values()]
    figure, axes = canvas(1, len(groups), 5.8, 0.6 + 0.4 * len(groups) + 0.22 * sum(sizes), sharex=True, squeeze=False, height_ratios=sizes)  # fmt: skip
    told = []
    for k, (ax, (title, rows)) in enumerate(zip(axes[:, 0], groups.items(), strict=True)):
        ax.axvline(0, color=INK, linewidth=0.8)
        for place, (label, values) in enumerate(rows.items()):
            mean, _, high, networks = estimate(values)
            half = high - mean if networks > 1 else np.nan
            ax.plot(
                values, np.full(len(values), place), "o", color=COLOURS[k], markersize=3, alpha=0.35, markeredgewidth=0
            )
            ax.errorbar(mean, place, xerr=half, fmt=MARKERS[k], color=COLOURS[k], capsize=3)
            told.append(f"{title}, {label}: {mean:+.2f} ± {half:.2f}".replace("$\\beta$", "beta"))
        ax.set(title=title, ylim=(len(rows) - 0.5, -0.5))
        ax.set_yticks(range(len(rows)), rows)
    axes[-1, 0].set_xlabel(xlabel)
    return figure, f"{xlabel}, mean and 95 % interval over networks. " + "; ".join(told) + "."
