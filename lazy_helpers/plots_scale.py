"""Pictures of the chapter on the scale of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker

from .plots import BLUE, COLOURS, INK, VERMILION, _finish, canvas, picture

MARKS = "os^Dv"


@picture
def circles(panels: Mapping[str, Mapping[str, np.ndarray]], alt: str):
    """L along a great circle of the sphere, a panel for each scale, beside what a linear f gives; its maxima marked.

    A panel has ``angle`` in degrees, ``L`` and ``linear``, each ``(points,)``, and ``maxima``, the points' indices.
    """
    figure, axes = canvas(len(panels), width=9.2, height=3.0, squeeze=False)
    for ax, (title, part) in zip(axes[0], panels.items(), strict=True):
        angle, L, maxima = part["angle"], part["L"], part["maxima"]
        ax.plot(angle, L, color=BLUE, label="$L$")
        ax.plot(angle, part["linear"], color=INK, linewidth=1.2, dashes=(5, 2), label="$L$ of the linear $f$")
        ax.plot(angle[maxima], L[maxima], "^", color=VERMILION, markersize=7, label="local maximum")
        _finish(ax, r"angle to $\nabla f$, degrees", "$L$" if ax is axes[0, 0] else "", title, legend=False)
        ax.set_xticks([-90, 0, 90, 180, 270])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, alt


@picture
def shares(panels: Mapping[str, object], alt: str):
    """The share of networks with a second maximum against the scale: predicted, found with its 95 % interval, and found from random starts.

    A panel is a frame indexed by the scale with the columns ``predicted``, ``found``, ``low``, ``high`` and ``blind``.
    """
    figure, axes = canvas(len(panels), width=9.6, height=2.9, sharey=True, squeeze=False)
    for ax, (title, frame) in zip(axes[0], panels.items(), strict=True):
        ax.plot(frame.index, frame.predicted, color=INK, linewidth=1.2, dashes=(5, 2), label="predicted")
        ax.plot(frame.index, frame.found, "o-", color=BLUE, label=r"found from $\pm\nabla f$")
        ax.fill_between(frame.index, frame.low, frame.high, color=BLUE, alpha=0.2, linewidth=0)
        ax.plot(frame.index, frame.blind, "s-", color=VERMILION, label="found from 8 random starts")
        _finish(ax, r"scale $\beta$", "share of networks" if ax is axes[0, 0] else "", title, xlog=True, legend=False)
        ax.set(ylim=(-0.03, 1.03), xticks=[0.1, 1, 10], xticklabels=["0.1", "1", "10"])
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, alt


@picture
def scatter(clouds: Mapping[str, tuple], xlabel: str, ylabel: str, alt: str):
    """Clouds of points ``{name: (x, y)}`` on log axes with one range, and the line y = x."""
    figure, ax = canvas(width=5.4, height=4.6)
    values = np.concatenate(
        [np.concatenate([np.asarray(axis, dtype=float) for axis in pair]) for pair in clouds.values()]
    )
    low, high = np.nanmin(values) / 1.15, np.nanmax(values) * 1.15
    ax.plot([low, high], [low, high], color=INK, linewidth=1.0)
    for k, (name, (x, y)) in enumerate(clouds.items()):
        ax.plot(x, y, MARKS[k], color=COLOURS[k], fillstyle="none", label=name)
    _finish(ax, xlabel, ylabel, "", True, True)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(ticker.NullLocator())
    return figure, alt


@picture
def medians(
    panels: Mapping[str, Mapping[str, object]], xlabel: str, alt: str, xlog: bool = False,
    ylog: Sequence[str] = (), levels: Mapping[str, float] | None = None, same: str = "",
):  # fmt: skip
    """Medians over networks in a band from the lower to the upper quartile, a panel for each label.

    ``panels`` is ``{label: {name: frame}}``, a frame indexed by x with a column a network. ``ylog`` names the panels with a log axis,
    ``levels`` gives a panel a dotted line across. Where all panels show the ``same`` quantity, named so, they share their range, and their
    labels are titles.
    """
    columns = 2 if len(panels) == 4 else len(panels)
    rows = len(panels) // columns
    figure, axes = canvas(
        columns, rows, {1: 5.8, 2: 8.0}.get(columns, 9.6), 3.0 * rows + 0.3, sharey=bool(same), squeeze=False
    )
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    if len(names) > len(COLOURS):
        raise ValueError(f"panels hold {len(names)} different lines: draw at most {len(COLOURS)}.")
    for ax, (label, lines) in zip(axes.flat, panels.items(), strict=True):
        if label in (levels or {}):
            ax.axhline(levels[label], color=INK, linewidth=0.9, dashes=(2, 2))
        for name, frame in lines.items():
            k, x = names.index(name), frame.index
            low, high = (  # no interpolation: a run that diverged is infinite
                frame.quantile(q, axis=1, interpolation=to) for q, to in ((0.25, "lower"), (0.75, "higher"))
            )
            ax.plot(x, frame.median(axis=1), MARKS[k] + "-", color=COLOURS[k], label=name)
            ax.fill_between(x, low, high, color=COLOURS[k], alpha=0.2, linewidth=0)
        ylabel, title = (same if ax is axes[0, 0] else "", label) if same else (label, "")
        _finish(ax, xlabel, ylabel, title, xlog, label in ylog, legend=False)
        if xlog:
            ticks = sorted({x for frame in lines.values() for x in frame.index})
            ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
            ax.xaxis.set_minor_locator(ticker.NullLocator())
        if label in ylog:
            decades = np.ptp(np.log10(ax.get_ylim()))
            ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1,) if decades > 2.5 else (1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_locator(ticker.NullLocator())
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(names), 5))
    return figure, alt
