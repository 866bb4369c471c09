"""Pictures of the inner problem: its landscape over planes and circles, ascents on the way, a maximum on a kink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from .plots import BLUE, COLOURS, GREEN, INK, ORANGE, PURPLE, VERMILION, _finish, canvas, picture

PATHS = (VERMILION, GREEN, PURPLE, ORANGE)  # an ascent each
SHADES = colormaps["cividis"].resampled(16)  # few colours and coarse lines: small files
REACH = 1.15  # half the side of a plane, in units of eps: every cell of the coarse grid that meets the disc is whole


class View(NamedTuple):
    """L over a plane of perturbations and along its circle ``||delta|| = eps``; lengths in units of eps."""

    plane: np.ndarray  # (k, k): L at ``grid(k)``, a row for each second coordinate
    circle: np.ndarray  # (q,): L at ``angles(q)``, counted from the first axis
    paths: Sequence[np.ndarray]  # (steps + 1, 2) each: iterates, projected to the plane


def grid(k: int) -> np.ndarray:
    """The coordinates of a view's plane along either axis, ``(k,)``."""
    return np.linspace(-REACH, REACH, k)


def angles(q: int) -> np.ndarray:
    """The angles along a view's circle, in radians, ``(q,)``: from -pi to pi, both ends."""
    return np.linspace(-np.pi, np.pi, q)


@picture
def landscape(views: Mapping[str, View], axes: tuple[str, str], alt: str):
    """L over a plane's disc, and below it L along its circle, a column for each view, each with its own range of L.

    ``axes`` says what the plane's two directions are. The curve below is L from 0 at its least
    value on the circle to 1 at its largest; iterates are marked on it only where they lie on that circle.
    """
    figure, grids = canvas(len(views), 2, width=2 * len(views), height=3.7, squeeze=False, height_ratios=[1.8, 1])
    for above, below, (title, view) in zip(*grids, views.items(), strict=True):
        along, ring = grid(len(view.plane)), angles(len(view.circle))
        radius = np.hypot(*np.meshgrid(along, along))
        inside, disc = view.plane[radius <= 1], np.where(radius < REACH, view.plane, np.nan)
        edge = REACH * (1 + 1 / (len(along) - 1))  # half a pixel beyond the outermost points
        look = {"vmin": inside.min(), "vmax": inside.max(), "cmap": SHADES, "interpolation": "none"}
        image = above.imshow(disc, origin="lower", extent=(-edge, edge, -edge, edge), **look)
        image.set_clip_path(Circle((0, 0), 1, transform=above.transData))
        lines = {"colors": "black", "linewidths": 0.5, "alpha": 0.45}
        levels = np.linspace(inside.min(), inside.max(), 8)
        contours = above.contour(along[::2], along[::2], disc[::2, ::2], levels=levels, **lines)
        contours.set_clip_path(Circle((0, 0), 1, transform=above.transData))
        above.add_patch(Circle((0, 0), 1, fill=False, edgecolor=INK, linewidth=1.2))
        low, high = view.circle.min(), view.circle.max()
        below.plot(np.degrees(ring), (view.circle - low) / (high - low), color=BLUE, linewidth=1.4)
        for path, colour in zip(view.paths, PATHS, strict=False):
            rim = {"markeredgecolor": "black", "markeredgewidth": 0.4}
            above.plot(*path.T, ".-", color=colour, linewidth=1, markersize=4, **rim)
            above.plot(*path[0], "o", color=colour, markerfacecolor="white", markersize=6.5)
            above.plot(*path[-1], "D", color=colour, markersize=6, **rim)
            on = path[np.abs(np.hypot(*path.T) - 1) < 1e-6]
            at = np.arctan2(on[:, 1], on[:, 0])
            height = (np.interp(at, ring, view.circle) - low) / (high - low)
            below.plot(np.degrees(at), height, "o", color=colour, markersize=3.5)
        above.set(aspect="equal", title=title, xticks=[-1, 0, 1], yticks=[-1, 0, 1], xlabel=axes[0])
        above.set(xlim=(-1.12, 1.12), ylim=(-1.12, 1.12))  # room for the marks
        above.grid(False)
        _finish(below, "angle, degrees", "", legend=False)
        below.set(xticks=[-180, 0, 180], yticks=[0, 0.5, 1], ylim=(-0.08, 1.1))
    grids[0, 0].set_ylabel(axes[1])
    grids[1, 0].set_ylabel("$L$ along the circle,\nfrom least to largest")
    marks = [
        Line2D([], [], marker=marker, color=INK, markerfacecolor=face, linestyle="none", label=label)
        for marker, face, label in (("o", "white", "start"), (".", INK, "after each step"), ("D", INK, "last step"))
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3)
    return figure, alt


@picture
def convergence(
    panels: Mapping[str, Mapping[str, np.ndarray]], rates: Mapping[str, float], alt: str, least: float = 1e-8
):
    """Errors against the step, a panel for each y label: the median over networks in a band from the tenth to the 90th percentile.

    ``panels`` is ``{y label: {name: (networks, steps + 1)}}``; dashed is what shrinks from 1 by a panel's ``rates`` each step. Nothing
    is drawn below ``least``.
    """
    figure, axes = canvas(len(panels), width=7.4, height=3.3, sharex=True, squeeze=False)
    for ax, (ylabel, lines) in zip(axes[0], panels.items(), strict=True):
        for k, (name, values) in enumerate(lines.items()):
            low, middle, high = np.clip(np.percentile(values, (10, 50, 90), axis=0), least / 10, None)
            t = np.arange(len(middle))
            ax.plot(t, middle, "os^Dv"[k] + "-", color=COLOURS[k], markevery=max(len(t) // 8, 1), label=name)
            ax.fill_between(t, low, high, color=COLOURS[k], alpha=0.22, linewidth=0)
        ax.plot(t, rates[ylabel] ** t, color=INK, linewidth=1.2, dashes=(5, 2), label="a linear $L$")
        _finish(ax, "step", ylabel, "", ylog=True, legend=False)
        ax.set_ylim(least, 2)
        ax.yaxis.set_minor_locator(ticker.NullLocator())
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure, alt


class Bend(NamedTuple):
    """L around a kink: angles in degrees from it, L there, and the tangential slope to its left and right."""

    angle: np.ndarray
    value: np.ndarray
    left: float
    right: float


@picture
def kink(bend: Bend, steady: np.ndarray, shortened: np.ndarray, alt: str):
    """A maximum on a kink: L around it with the two one-sided slopes, and where two ascents are after each step.

    ``steady`` and ``shortened`` are ``(steps + 1,)``, degrees from the kink; ``shortened`` is the ascent whose steps shrink.
    """
    figure, (near, far) = canvas(2, width=7.4, height=3.0)
    top, span = np.interp(0, bend.angle, bend.value), bend.angle.max() / 2
    near.plot(bend.angle, bend.value, color=BLUE, label="$L$")
    for slope, side, colour in ((bend.left, -1, VERMILION), (bend.right, 1, GREEN)):
        at = np.array([-span, span])
        name = f"slope {'left' if side < 0 else 'right'} of it: {slope:+.3f}"
        near.plot(at, top + slope * np.radians(at), color=colour, linewidth=1.2, dashes=(5, 2), label=name)
    near.plot([0], [top], "D", color=INK, markersize=6, label="the maximum")
    room = 0.3 * np.ptp(bend.value)
    near.set_ylim(bend.value.min() - 0.1 * room, top + room)
    _finish(near, "angle from the kink, degrees", "$L$")
    for name, angles, colour, marker in (
        ("steps of one length", steady, VERMILION, "o"),
        ("steps that shorten", shortened, GREEN, "^"),
    ):
        far.plot(angles, color=colour, marker=marker, markersize=3, linewidth=0.9, label=name)
    far.axhline(0, color=INK, linewidth=0.8)
    far.set_ylim(np.array([-1.6, 1.6]) * np.abs(steady[len(steady) // 2 :]).max())  # the first steps come from afar
    _finish(far, "step", "degrees from the kink")
    return figure, alt
