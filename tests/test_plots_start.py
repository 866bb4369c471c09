"""The pictures of the comparison: every run drawn, hollow where it did not finish, means and intervals as computed apart."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from scipy import stats

from lazy_helpers import plots, plots_start


def runs(seed=0):
    draw = np.random.default_rng(seed)
    scale = np.repeat([0.1, 1.0, 10.0], 4)
    return pd.DataFrame(
        {
            "scale": scale,
            "C0": np.exp(draw.normal(size=12)) / scale,
            "robust_accuracy": draw.uniform(size=12),
            "reached": [True] * 4 + [True, False, True, False] + [False] * 4,
        }
    )


PANELS = {"one": {"usual": runs(0), "mirrored": runs(1)}, "two": {"mirrored": runs(2)}}
GROUPS = {
    "start": {"$\\beta$ = 1": [0.1, 0.2, 0.4], "$\\beta$ = 3": [-0.3, -0.1, 0.0, 0.1]},
    "time": {"usual": [0.0, 0.5]},
}


def drawn():
    yield plots_start.robustness_against_C0(PANELS, steps=400, level=0.02)
    yield plots_start.effects_with_intervals(GROUPS, "difference")


def test_pictures_are_described_take_the_pages_ink_and_are_the_same_every_time():
    first, second = list(drawn()), list(drawn())
    for picture, again in zip(first, second, strict=True):
        assert picture.svg == again.svg and "currentColor" in picture.svg and plots.INK not in picture.svg
        assert re.search(r'role="img" aria-label="[^"]{20,}"', picture._repr_mimebundle_()["text/html"])


def test_every_run_is_drawn_and_hollow_exactly_where_it_did_not_finish():
    figure, _ = plots_start.robustness_against_C0.__wrapped__(PANELS, 400, 0.02)
    for ax, lines in zip(figure.axes, PANELS.values(), strict=True):
        dots = [dots for dots in ax.collections if isinstance(dots, PathCollection)]
        for k, table in enumerate(lines.values()):
            hollow, full = dots[2 * k : 2 * k + 2]
            for part, reached in ((hollow, False), (full, True)):
                wanted = table[table.reached == reached][["C0", "robust_accuracy"]]
                np.testing.assert_allclose(part.get_offsets(), wanted)
            assert len(hollow.get_facecolors()) == 0 and len(full.get_facecolors()) == 1
    colour = plots.COLOURS[1]  # a name has its colour in every panel
    assert to_rgba(figure.axes[1].collections[0].get_edgecolors()[0], 1) == to_rgba(colour, 1)


def test_means_are_taken_scale_by_scale_and_told():
    figure, alt = plots_start.robustness_against_C0.__wrapped__(PANELS, 400, 0.02)
    table = PANELS["one"]["usual"]
    (line,) = [
        line for line in figure.axes[0].lines if line.get_linestyle() == ":" and line.get_color() == plots.COLOURS[0]
    ]
    for (x, y), (scale, some) in zip(line.get_xydata(), table.groupby("scale"), strict=True):
        assert x == pytest.approx(stats.gmean(some.C0)) and y == pytest.approx(some.robust_accuracy.mean())
        assert f"one, usual, beta = {scale:g}: {y:.2f} at C0 = {x:.1f}, {some.reached.sum()} of 4 runs finished" in alt
    assert {text.get_text() for text in figure.axes[0].texts} == {"0.1", "1", "10"}


def test_effects_carry_students_interval():
    figure, alt = plots_start.effects_with_intervals.__wrapped__(GROUPS, "difference")
    for group, rows in GROUPS.items():
        for label, values in rows.items():
            low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
            mean, half = (low + high) / 2, (high - low) / 2
            told = label.replace("$\\beta$", "beta")
            assert f"{group}, {told}: {mean:+.2f} ± {half:.2f}" in alt
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == list(GROUPS["start"])
    low, high = figure.axes[0].get_ylim()
    assert low > high  # read from the top


def test_one_network_has_no_interval():
    _, alt = plots_start.effects_with_intervals.__wrapped__({"start": {"usual": [0.5]}}, "effect")
    assert "start, usual: +0.50 ± nan" in alt
