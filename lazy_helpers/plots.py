"""Pictures, one style for all: SVG that takes the page's ink colour, so it reads in light and dark, with its alt text."""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

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
    "svg.fonttype": "path", "svg.hashsalt": "lazy_helpers", "mathtext.fontset": "cm",
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
            figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
            figure.savefig(raster, format="png", dpi=80, facecolor="white")
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


@picture
def curves(
    x: Sequence[float], lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, alt: str,
    xlog: bool = False, ylog: bool = False, title: str = "",
):  # fmt: skip
    """Named curves over one axis."""
    figure, ax = canvas(width=6.4, height=3.4)
    for name, y in lines.items():
        ax.plot(x, y, label=name)
    _finish(ax, xlabel, ylabel, title, xlog, ylog, legend=len(lines) > 1)
    return figure, alt


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
