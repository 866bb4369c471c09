"""Pictures, one style for all: SVG that takes the page's ink colour, so it reads in light and dark, with its alt text."""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects, ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0c86c8", "#d55e00", "#009e73", "#c566a0", "#cc8a00"  # after Okabe and Ito
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
INK = "#010203"  # stands for the page's text colour; replaced by currentColor
STYLE = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": INK, "grid.alpha": 0.15, "grid.linewidth": 0.6,
    "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=COLOURS), "axes.titlesize": 11, "axes.labelsize": 10, "axes.titlelocation": "left",
    "font.size": 9.5, "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.8, "lines.markersize": 4.5,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "figure.constrained_layout.use": True,
    "svg.fonttype": "path", "svg.hashsalt": "lazy_helpers", "mathtext.fontset": "dejavusans",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure with its description; Jupyter shows the SVG, and the PNG where HTML is not trusted."""

    svg: str
    png: bytes = dataclasses.field(repr=False)
    alt: str

    def __repr__(self) -> str:
        return f"Picture({self.alt!r})"

    def _repr_mimebundle_(self, include=None, exclude=None):
        page = f'<figure class="lazy-picture" role="img" aria-label="{html.escape(self.alt, quote=True)}">{self.svg}</figure>'
        return {"text/html": page, "image/png": base64.b64encode(self.png).decode(), "text/plain": repr(self)}


def picture(draw: Callable[..., tuple[Figure, str]]) -> Callable[..., Picture]:
    """A function that returns ``(figure, alt text)`` turned into one that returns a :class:`Picture`."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs) -> Picture:
        with mpl.rc_context(STYLE):
            figure, alt = draw(*args, **kwargs)
            vector, raster = io.BytesIO(), io.BytesIO()
            figure.savefig(vector, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
            figure.savefig(raster, format="png", dpi=80, facecolor="white")
            indexed = Image.open(raster).convert("RGB").quantize(96)  # a third of the size: pages carry both
            indexed.save(raster := io.BytesIO(), format="png", optimize=True)
        svg = vector.getvalue().decode()
        svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
        svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # several figures on a page must not share ids
        svg = re.sub(
            r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"',
            r'<svg aria-hidden="true" style="max-width:\2pt;width:100%;height:auto" \1',
            svg,
            count=1,
        )
        svg = re.sub(
            r"<metadata>.*?</metadata>\s*|<defs>\s*<style[^>]*>\*\{[^}]*\}</style>\s*</defs>\s*",
            "",
            svg,
            flags=re.DOTALL,
        )
        return Picture(svg, raster.getvalue(), alt)

    return drawn


def canvas(columns: int = 1, rows: int = 1, width: float = 8.0, height: float = 3.2, **kwargs):
    """``(figure, axes)`` without pyplot's global state; ``axes`` as ``plt.subplots`` gives it."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, **kwargs)


def _finish(
    ax, xlabel: str, ylabel: str, title: str = "", xlog: bool = False, ylog: bool = False, legend: bool = True
) -> None:
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if xlog:
        ax.set_xscale("log")
    if ylog:
        ax.set_yscale("log")
    if legend:
        ax.legend()


@picture
def spread(
    x: Sequence[float], panels: Mapping[str, Mapping[str, Sequence]], xlabel: str, alt: str,
    predicted: Mapping[str, Mapping[str, Sequence[float]]] | None = None, xlog: bool = False, ylog: bool = False,
    same: bool = False,
):  # fmt: skip
    """Measured curves, a panel for each y label: the mean over seeds (axis 0) in a band of one standard deviation.

    ``panels`` is ``{y label: {name: (seeds, x)}}``, ``predicted`` is ``{y label: {name: (x,)}}``, drawn dashed. ``same`` panels
    have the same lines: one range of y, one legend. An x at which a
    seed is missing (NaN) has no mark.
    """
    columns = 2 if len(panels) % 2 == 0 else len(panels)
    rows, width = len(panels) // columns, {1: 5.6, 2: 8.0, 3: 9.6}[columns]
    figure, axes = canvas(columns, rows, width, height=3.1 * rows, squeeze=False, sharey=same)
    for ax, (ylabel, lines) in zip(axes.flat, panels.items(), strict=True):
        for k, (name, values) in enumerate(lines.items()):
            colour, marker, values = COLOURS[k], "os^Dv"[k], np.asarray(values, dtype=float)
            run = np.isfinite(values).all(0)
            mean, deviation = values[:, run].mean(0), values[:, run].std(0, ddof=1)
            ax.plot(np.asarray(x)[run], mean, marker + "-", color=colour, label=name)
            ax.fill_between(
                np.asarray(x)[run], mean - deviation, mean + deviation, color=colour, alpha=0.22, linewidth=0
            )
        for k, (name, values) in enumerate((predicted or {}).get(ylabel, {}).items()):
            ax.plot(x, values, color=INK, linewidth=1.2, dashes=((5, 2), (1.5, 1.5), (6, 2, 1, 2))[k], label=name)
        _finish(ax, xlabel, ylabel, "", xlog, ylog, legend=not same)
        if xlog:
            few = x if len(x) < 8 else x[::2]  # more labels would run into each other
            ax.set_xticks(few, [f"{value:g}" for value in few])
            ax.xaxis.set_minor_locator(ticker.NullLocator())
        if ylog:
            ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_locator(ticker.NullLocator())
    if same:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure, alt


@picture
def along_ray(eta: Sequence[float], f: Sequence[float], slope: float, flip: float, alt: str):
    """f along a ray, its tangent at x and its first flip.

    ``eta`` and ``f`` are the ray's corners: x itself, then each bend, then where the picture ends.
    """
    eta, f = np.asarray(eta, dtype=float), np.asarray(f, dtype=float)
    figure, ax = canvas(width=6.6, height=3.5)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.plot(eta, f[0] + slope * eta, color=VERMILION, dashes=(5, 2), linewidth=1.3, label="tangent at x")
    ax.plot(eta, f, color=BLUE, label="f")
    ax.plot(eta[1:-1], f[1:-1], "o", color=BLUE, markersize=3.5, label="bend: a neuron switches")
    ax.plot([flip], [0], "D", color=GREEN, markersize=7, label="first flip")
    room = 0.12 * np.ptp(f)
    ax.set_ylim(f.min() - room, f.max() + room)
    _finish(ax, r"step $|\eta|$ against the sign of $f$, along $\nabla f(x)$", "f")
    return figure, alt


LABELS = {
    "relative_perturbation": r"$\|\delta\|\,/\,\|x\|$",
    "grad_norm": r"$\|\nabla f(x)\|$",
    "step_size": r"$(\|\delta\|/\|x\|)\,/\,\|\nabla f\|$",
    "eta": r"$|\eta|$",
}
BENCHMARKS = {  # the curves drawn in the paper's Figure 2
    "relative_perturbation": (r"$5/\sqrt{d}$", lambda d: 5 / np.sqrt(d)),
    "grad_norm": (r"$0.5\sqrt{d}$", lambda d: 0.5 * np.sqrt(d)),
    "step_size": (r"$5/d$", lambda d: 5 / d),
}


@picture
def figure2(table, variant: str, published=None, curves: str = "m", wide=None):
    """Figure 2 or 5: three quantities against d, a curve for each m (``curves="C0"``: Figure 3 or 6), mean over seeds in a band of one standard deviation.

    ``table`` is the stored result. Where they are given, the points ``published``, read off the paper's Figure 2, are shown
    hollow, or as crosses beside curves over C0 (there those at its C0 = 10 and the largest width); and ``wide``, a stored result
    of the same curves at other m, hollow where that is 10^4 and as pluses where it is more.
    """
    rows = table[table.variant == variant]
    columns = {q: q + ("_published" if published is not None and q != "grad_norm" else "") for q in BENCHMARKS}
    read = {"m": (("m=1e3", COLOURS[0], "o"), ("m=1e5", COLOURS[2], "^")), "C0": (("m=1e5", INK, "x"),)}[curves]
    figure, axes = canvas(columns=3, width=7.6, height=3.5)
    for ax, (quantity, (name, benchmark)) in zip(axes, BENCHMARKS.items(), strict=True):
        column = columns[quantity]
        for k, (value, of_curve) in enumerate(rows.groupby(curves)):
            seeds = of_curve.pivot(index="d", columns="seed", values=column)
            mean, sd = seeds.mean(axis=1), seeds.std(axis=1)
            curve = f"$m = 10^{round(np.log10(value))}$, ours" if curves == "m" else f"$C_0 = {value:g}$"
            ax.plot(seeds.index, mean, "os^D"[k] + "-", color=COLOURS[k], label=curve)
            ax.fill_between(seeds.index, mean - sd, mean + sd, color=COLOURS[k], alpha=0.22, linewidth=0)
        for m, of_width in wide[wide.variant == variant].groupby("m") if wide is not None else ():
            look, size = ("hollow", 8) if m == 10_000 else ("plus", 11)
            for k, (_, of_curve) in enumerate(of_width.groupby(curves)):
                mean = of_curve.groupby("d")[column].mean()
                label = f"{look}: $m = 10^{round(np.log10(m))}$" if k == 0 else None
                mark = "os^D"[k] if look == "hollow" else "+"
                ax.plot(mean.index, mean, mark, color=COLOURS[k], fillstyle="none", markersize=size, label=label)
        for curve, colour, mark in read if published is not None else ():
            points = published[(published.quantity == quantity) & (published.curve == curve)]
            label = f"$m = 10^{curve[-1]}$, published" if curves == "m" else f"cross: $m = 10^{curve[-1]}$, published"
            ax.plot(points.d, points.value, mark, color=colour, fillstyle="none", markersize=8, label=label)
        d = np.unique(rows.d)
        ax.plot(d, benchmark(d), color=INK, linewidth=1, dashes=(5, 2), label=f"benchmark {name}")
        _finish(ax, "input dimension $d$", LABELS[quantity], "", True, True, legend=False)
        ax.set_xticks([25, 100, 400], ["25", "100", "400"])
        ax.xaxis.set_minor_locator(ticker.FixedLocator([49, 196, 784]))
        ax.xaxis.set_minor_formatter(ticker.NullFormatter())
        ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(ticker.NullLocator())
        ax.text(0.97, 0.97 if quantity != "grad_norm" else 0.06, name, transform=ax.transAxes, ha="right", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    labels[-1] = "the paper's benchmark"
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    first = rows[rows[curves] == rows[curves].min()].groupby("d")
    ends = {q: "{:.2g} to {:.2g}".format(*first[column].mean().iloc[[0, -1]]) for q, column in columns.items()}
    if curves == "m":
        means = rows.pivot_table(index="d", columns="m", values=list(columns.values()))
        apart = max((means[column].max(axis=1) / means[column].min(axis=1)).max() for column in columns.values())
        which = f"at each d the means of the widths differ by a factor of {apart:.2f} at most"
    else:
        which = f"a curve for each C0 of {', '.join(f'{c:g}' for c in sorted(set(rows.C0)))}"
    alt = (
        f"Three log-log plots against d from {d.min()} to {d.max()}, {variant} variant. Relative perturbation falls from "
        f"{ends['relative_perturbation']}, gradient norm rises from {ends['grad_norm']}, step size falls from "
        f"{ends['step_size']} (means over seeds at the smallest {'width' if curves == 'm' else 'C0'}); {which}."
    )
    return figure, alt


@picture
def histograms(rows):
    """Figure 7: the three quantities over test points, a row of pictures for each row of ``rows``, with the Gaussian of the same mean and deviation.

    ``rows`` is ``{title: row of the stored result}``.
    """
    figure, axes = canvas(3, len(rows), width=9.2, height=2.5 * len(rows), squeeze=False)
    said = []
    for line, (title, row) in zip(axes, rows.items(), strict=True):
        for ax, (name, label) in zip(
            line, (("norm", r"$\|\delta\|$"), ("grad_norm", r"$\|\nabla f\|$"), ("eta", r"$|\eta|$")), strict=True
        ):
            counts = np.array([row[column] for column in row.index if column.startswith(f"{name}_bin")], dtype=float)
            mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
            edges = np.linspace(mean - 4 * sd, mean + 4 * sd, len(counts) + 1)
            kept = edges[1:] > 0 if edges[0] < 0 else np.full(len(counts), True)  # a norm is positive
            density = counts / counts.sum() / np.diff(edges)
            ax.stairs(density, edges, fill=True, color=COLOURS[0], alpha=0.45, label="test points")
            at = np.linspace(edges[0], edges[-1], 200)
            ax.plot(
                at,
                np.exp(-(((at - mean) / sd) ** 2) / 2) / (sd * np.sqrt(2 * np.pi)),
                color=COLOURS[1],
                dashes=(5, 2),
                label="Gaussian",
            )
            ax.set_xlim(edges[:-1][kept].min(), edges[-1])
            _finish(ax, label, "density", title if ax is line[0] else "", legend=ax is axes[0, 0])
        said.append(
            f"{title}: "
            + ", ".join(f"{name} skewness {row[f'{name}_skewness']:.2f}" for name in ("norm", "grad_norm", "eta"))
        )
    return figure, "Histograms over test points beside the Gaussian of the same mean and deviation. " + "; ".join(
        said
    ) + "."


@picture
def effects(ratios):
    """Ratios to a reference against d, a curve for each name: mean over seeds in a band of one standard error.

    ``ratios`` is ``{name: DataFrame indexed by d, a column a seed}``.
    """
    figure, ax = canvas(width=7.4, height=3.6)
    ax.axhline(1, color=INK, linewidth=0.8)
    for k, (name, frame) in enumerate(ratios.items()):
        mean, se = frame.mean(axis=1), frame.sem(axis=1)
        ax.plot(frame.index, mean, "os^Dv"[k] + "-", color=COLOURS[k], label=name)
        ax.fill_between(frame.index, mean - se, mean + se, color=COLOURS[k], alpha=0.2, linewidth=0)
    _finish(ax, "input dimension $d$", "relative perturbation,\nratio to the published procedure", "", True, False)
    ax.set_xticks([25, 49, 100, 196, 400, 784], ["25", "49", "100", "196", "400", "784"])
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ends = "; ".join(
        f"{name} {frame.loc[frame.index.min()].mean():.2f} at d = {frame.index.min()} and "
        f"{frame.loc[frame.index.max()].mean():.2f} at d = {frame.index.max()}"
        for name, frame in ratios.items()
    )
    alt = f"Ratios of the relative perturbation to the published procedure's against d, one choice switched alone: {ends}."
    return figure, alt


@picture
def images(rows, alt: str, width: float = 7.0):
    """Rows of square images: ``rows`` is a list of lists of ``(title, (n, n) array, low, high)``; ``low < 0`` is drawn diverging."""
    columns = max(len(row) for row in rows)
    figure, axes = canvas(columns, len(rows), width, width * len(rows) / columns * 1.14, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for ax in line:
            ax.axis("off")
        for ax, (title, image, low, high) in zip(line, row, strict=False):
            ax.imshow(image, cmap="PuOr" if low < 0 else "gray", vmin=low, vmax=high, interpolation="nearest")
            ax.set_title(title, fontsize=9.5, loc="center")
    return figure, alt


@picture
def versus(table, ours: str, leave_out: Sequence[str] = ()):
    """Time over ours, a panel for each work: a row for each size, a mark for each contender, hollow where extrapolated.

    ``table`` has a row for each work, contender, d, m and members, with ``seconds`` and the ``share`` that was run.
    """
    table = table[~table.contender.isin(leave_out)]
    works, names = list(dict.fromkeys(table.work)), [c for c in dict.fromkeys(table.contender) if c != ours]
    sizes = list(dict.fromkeys(zip(table.d, table.m, table.members, strict=True)))
    figure, axes = canvas(len(works), width=9.6, height=0.8 + 0.36 * len(sizes), sharey=True)
    times = table.set_index(["work", "d", "m", "members", "contender"])
    nearest = []
    for ax, work in zip(axes, works, strict=True):
        for k, name in enumerate(names):
            for row, size in enumerate(sizes):
                if (work, *size, name) in times.index:
                    at = times.loc[(work, *size, name)]
                    ratio = at.seconds / times.loc[(work, *size, ours)].seconds
                    nearest.append((ratio, work, name.split(" (")[0]))
                    fill = "full" if at.share == 1 else "none"
                    ax.plot(ratio, row, "os^Dv"[k], color=COLOURS[k], fillstyle=fill, markersize=6.5)
        ax.axvline(1, color=INK, linewidth=0.8)
        _finish(ax, "time over ours", "", work, xlog=True, legend=False)
        low, high = ax.get_xlim()
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high / low < 50 else (1,)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    axes[0].set_yticks(range(len(sizes)), [f"{d}, {m}, {K}" for d, m, K in sizes])
    axes[0].set_ylabel("$d$, $m$, networks")
    axes[0].invert_yaxis()
    marks = [
        Line2D([], [], marker="os^Dv"[k], color=COLOURS[k], linestyle="none", label=name.split(" (")[0])
        for k, name in enumerate(names)
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3)
    ends = "; ".join(
        f"{work}: from {min(r for r, w, _ in nearest if w == work):.2g} to {max(r for r, w, _ in nearest if w == work):.2g}"
        for work in works
    )
    return figure, f"How many times as long as ours the others take, at each size, on a log axis. {ends}."


@picture
def growth(table, axes: Sequence[str]):
    """Seconds and peak memory against each axis; ``table.work`` is ``"<work> against <axis>"``."""
    figure, grid = canvas(len(axes), 2, width=9.6, height=5.2, sharey="row")
    for column, axis in zip(grid.T, axes, strict=True):
        rows = table[table.work.str.endswith(f" against {axis}")]
        for ax, quantity in zip(column, ("seconds", "peak_mib"), strict=True):
            for k, (work, values) in enumerate(rows.groupby("work", sort=False)):
                label, y = work.split(" against")[0], values[quantity].clip(lower=1 if quantity == "peak_mib" else 0)
                ax.plot(values[axis], y, "os^"[k] + "-", color=COLOURS[k], label=label)
            x = np.array([rows[axis].min(), rows[axis].max()], dtype=float)
            top = rows[quantity].max()
            ax.plot(x, top * x / x[1], color=INK, linewidth=0.9, dashes=(5, 2))
            low = max(rows[quantity].clip(lower=1 if quantity == "peak_mib" else 0).min(), 1e-4)
            ax.set_ylim(bottom=low / 2)
            _finish(
                ax, {"members": "networks", "n": "points $n$"}.get(axis, f"${axis}$"), "", "", True, True, legend=False
            )
        column[0].set_xlabel("")
    grid[0, 0].set_ylabel("seconds")
    grid[1, 0].set_ylabel("peak memory, MiB")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure, (
        f"Time and peak memory of {', '.join(labels)} against {', '.join(axes)}, log-log; a dashed line of slope one "
        "ends where the largest value lies."
    )


@picture
def certified(table):
    """Theorem 3.1 for given draws: the lowest bound of sign(f) f(x + delta) over steps, and the steps, against d; a column a C0.

    ``table`` is the stored result. Lines are means over seeds, bands reach from the least seed to the largest.
    """
    columns, widths = sorted(table.C0.unique()), sorted(table.m.unique())
    table = table.assign(
        worth=table.bound / table[["f_high", "f_low"]].abs().max(axis=1),
        published=table.bound_published / table[["f_high", "f_low"]].abs().max(axis=1),
        low=table.eta_low * table.d, worst=table.eta_worst * table.d, start=table.eta_flip * table.d,
    )  # fmt: skip
    figure, axes = canvas(len(columns), 2, width=9.6, height=6.0, sharex=True, sharey="row")

    def line(ax, rows, column, look, colour, label, band=True):
        seeds = rows.pivot(index="d", columns="seed", values=column).replace([np.inf, -np.inf], np.nan)
        seeds = seeds[seeds.notna().all(axis=1)]  # where a seed has no such step there is no mean
        ax.plot(
            seeds.index,
            seeds.mean(axis=1),
            look,
            color=colour,
            label=label,
            fillstyle="none" if "--" in look else "full",
        )
        if band:
            ax.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.18, linewidth=0)

    says = []
    for (above, below), C0 in zip(axes.T, columns, strict=True):
        for k, m in enumerate(widths):
            rows = table[(table.m == m) & (table.C0 == C0)]
            line(above, rows, "worth", "os"[k] + "-", COLOURS[k], f"our route, $m = {m}$")
            line(above, rows, "published", "os"[k] + "--", COLOURS[k], f"published route, $m = {m}$", band=False)
            line(below, rows, "low", "os"[k] + "-", COLOURS[k], f"least certified, $m = {m}$")
            sure = rows.groupby("d").certified.all()
            from_d = next((d for d in sure.index if sure.loc[d:].all()), None)
            says.append(f"C0 = {C0:g}, m = {m}: " + ("at no d" if from_d is None else f"from d = {from_d} on"))
        m, rows = widths[0], table[(table.m == widths[0]) & (table.C0 == C0)]
        line(below, rows, "worst", "^-", COLOURS[2], f"needed by the worst $W$ found, $m = {m}$")
        line(below, rows, "start", "D-", COLOURS[3], f"needed by $W_0$, $m = {m}$")
        above.axhspan(-2.4, 0, color=COLOURS[2], alpha=0.09, linewidth=0)
        above.axhline(0, color=INK, linewidth=0.8)
        above.set_ylim(-2.4, 1.35)
        ylabels = (r"lowest bound, over $\sup|f|$", r"step $|\eta|\,d$") if above is axes[0, 0] else ("", "")
        _finish(above, "", ylabels[0], f"$C_0 = {C0:g}$", xlog=True, legend=False)
        _finish(below, "dimension $d$", ylabels[1], "", True, True, legend=False)
    axes[1, 0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes[1, 0].yaxis.set_major_formatter("{x:g}")
    axes[1, 0].yaxis.set_minor_locator(ticker.NullLocator())
    axes[0, 0].text(0.03, 0.04, "certified", transform=axes[0, 0].transAxes)
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure, (
        f"Upper row: the lowest bound over all steps, as a share of the largest |f|, against d, for C0 = "
        f"{', '.join(f'{C0:g}' for C0 in columns)}; below 0 a step is certified. By our route every seed is certified: "
        f"{'; '.join(says)}. The published route starts above 1 and falls slowly. Lower row: for each draw the least "
        "certified step times d lies above what the worst network found needs, and that above what the initial one needs."
    )


@picture
def robust_maps(maps: Mapping[str, object], contours: Mapping[str, object], alt: str):
    """Robust accuracy over image side and budget (Figure 4, left): a map for each name, and on each the 50 % contours.

    A map has a row for each cell: ``d``, ``eps``, ``robust_accuracy`` (a mean over seeds). A cell is drawn at its budget, as high as
    half the way to its neighbours (0.05, where it has none); one that was not run is left empty. ``contours`` are Series of eps against d.
    """
    figure, axes = canvas(len(maps), width=9.6, height=4.1, sharex=True, sharey=True, squeeze=False)
    for ax, (name, table) in zip(axes[0], maps.items(), strict=True):
        for d, rows in table.sort_values("eps").groupby("d"):
            eps, side = rows.eps.to_numpy(), math.isqrt(d)
            gaps = np.diff(eps) / 2 if len(eps) > 1 else np.array([0.025])
            edges = np.concatenate([[eps[0] - gaps[0]], eps[:-1] + gaps, [eps[-1] + gaps[-1]]])
            at, values = np.array([side - 0.5, side + 0.5]), rows.robust_accuracy.to_numpy()[:, None]
            mesh = ax.pcolormesh(at, edges, values, cmap="cividis", vmin=0, vmax=1, rasterized=True)
        for k, (label, eps50) in enumerate(contours.items()):
            x, look = [math.isqrt(d) for d in eps50.index], ("-", "^-", "o-")[k]
            edge = [patheffects.Stroke(linewidth=3.6, foreground="black"), patheffects.Normal()]  # seen on any ground
            ax.plot(x, eps50, look, color=("white", VERMILION, GREEN)[k], path_effects=edge, label=label)
        _finish(ax, r"image side $\sqrt{d}$", "", name, legend=False)
        ax.set_xticks([5, 10, 15, 20, 25, 28])
        ax.set_ylim(0, 1.15)
        ax.grid(False)
    axes[0, 0].set_ylabel(r"budget $\epsilon$")
    figure.colorbar(mesh, ax=axes[0, -1], label="robust accuracy", shrink=0.9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title=r"50 % contours, $\epsilon_{50}$")
    return figure, alt


@picture
def bands(
    panels: Mapping[str, Mapping[str, object]], ylabel: str, alt: str,
    predicted: Mapping[str, Mapping[str, tuple]] | None = None, hollow: Sequence[str] = (),
    levels: Sequence[float] = (), xlog: bool = False, ylog: bool = False,
):  # fmt: skip
    """Measured curves, a panel for each x label: mean over seeds in a band of one standard deviation, each at its own x.

    ``panels`` is ``{x label: {name: DataFrame}}``, a frame indexed by x with a column a seed; where a seed was not run it is NaN,
    and one seed has no band. ``predicted`` is ``{x label: {name: (x, y)}}``, dashed; names in ``hollow`` are drawn so, being
    others' points; ``levels`` are thin lines across.
    """
    figure, axes = canvas(len(panels), width=5.8 if len(panels) == 1 else 9.0, height=3.7, sharey=True, squeeze=False)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    for ax, (xlabel, lines) in zip(axes[0], panels.items(), strict=True):
        for level in levels:
            ax.axhline(level, color=INK, linewidth=0.7, alpha=0.6)
        for name, frame in lines.items():
            k, mean, sd = names.index(name), frame.mean(axis=1), frame.std(axis=1)
            fill = "none" if name in hollow else "full"
            ax.plot(frame.index, mean, "os^Dv"[k] + "-", color=COLOURS[k], fillstyle=fill, label=name)
            ax.fill_between(frame.index, mean - sd, mean + sd, color=COLOURS[k], alpha=0.22, linewidth=0)
        for k, (name, (x, y)) in enumerate((predicted or {}).get(xlabel, {}).items()):
            ax.plot(x, y, color=INK, linewidth=1.2, dashes=((5, 2), (1.5, 1.5), (6, 2, 1, 2))[k], label=name)
        _finish(ax, xlabel, ylabel if ax is axes[0, 0] else "", "", xlog, ylog, legend=False)
        if xlog:
            ticks = np.unique(np.concatenate([frame.index for frame in lines.values()]))
            few = ticks if len(ticks) < 10 else ticks[:: len(ticks) // 6]
            ax.set_xticks(few, [f"{x:g}" for x in few])
            ax.xaxis.set_minor_locator(ticker.NullLocator())
        if ylog:
            ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_locator(ticker.NullLocator())
    handles = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2 if len(panels) == 1 else 4)
    return figure, alt
