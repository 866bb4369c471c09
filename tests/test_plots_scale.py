"""Pictures of the chapter on the scale: described, in the page's ink, the same every time, and drawn where the numbers say."""

import re

import numpy as np
import pandas as pd
import pytest

from lazy_helpers import plots, plots_scale

SCALES = [0.1, 1.0, 10.0]


def frame(*seeds, index=SCALES):
    return pd.DataFrame(np.array(seeds, dtype=float).T, index=index)


def drawn():
    angle = np.linspace(-90, 270, 9)
    L = np.array([0.3, 0.1, 0.2, 0.1, 0.4, 0.8, 1.0, 0.7, 0.3])
    view = {"angle": angle, "L": L, "linear": 1.1 * L, "maxima": np.array([2, 6])}
    yield plots_scale.circles({"beta = 1": view, "beta = 2": view}, "L along two great circles of the sphere")
    table = pd.DataFrame(
        {"predicted": [0, 0.5, 1], "found": [0, 0.4, 1], "low": [0, 0.2, 0.9], "high": [0.1, 0.6, 1]}, SCALES
    )
    yield plots_scale.shares({"tanh": table.assign(blind=0.1)}, "The share of networks with a second maximum")
    yield plots_scale.scatter(
        {"a": ([0.2, 2.0], [0.3, np.nan]), "b": ([1.0], [4.0])}, "x", "y", "Two clouds of three points"
    )
    lines = {"a": frame([1, 2, 4], [2, 3, 5], [3, 8, 9]), "b": frame([0.1, 0.2, 0.3])}
    yield plots_scale.medians({"p": lines, "q": lines}, "s", "Two panels of medians", True, ("p",), {"q": 0.45})
    yield plots_scale.medians(dict.fromkeys("pqrt", lines), "s", "Four panels of medians", ylog="pqrt", same="loss")


@pytest.fixture(scope="module")
def pictures():
    return list(drawn())


def test_every_picture_is_described_and_takes_the_pages_ink(pictures):
    for picture in pictures:
        bundle = picture._repr_mimebundle_()
        assert re.search(r'role="img" aria-label="[^"]{20,}"', bundle["text/html"])
        assert "currentColor" in picture.svg and plots.INK not in picture.svg
        assert picture.png.startswith(b"\x89PNG") and picture.alt in bundle["text/plain"]


def test_pictures_are_the_same_every_time(pictures):
    assert [picture.svg for picture in drawn()] == [picture.svg for picture in pictures]


def test_maxima_are_marked_on_the_curve():
    angle = np.linspace(-90, 270, 5)
    view = {"angle": angle, "L": angle**2, "linear": angle, "maxima": np.array([1, 4])}
    figure, _ = plots_scale.circles.__wrapped__({"s": view}, "alt")
    L, linear, marks = figure.axes[0].lines
    np.testing.assert_array_equal(marks.get_xydata(), [[0, 0], [270, 270**2]])
    np.testing.assert_array_equal(L.get_ydata(), angle**2)
    np.testing.assert_array_equal(linear.get_ydata(), angle)


def test_shares_are_drawn_in_their_interval():
    table = pd.DataFrame(
        {"predicted": [0.1, 0.6], "found": [0.2, 0.5], "low": [0.15, 0.3], "high": [0.4, 0.8], "blind": [0, 0.3]},
        [1, 2],
    )
    figure, _ = plots_scale.shares.__wrapped__({"one": table, "two": table}, "alt")
    for ax in figure.axes:
        for line, column in zip(ax.lines, ("predicted", "found", "blind"), strict=True):
            np.testing.assert_array_equal(line.get_xydata(), table[column].reset_index())
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == (0.15, 0.8)


def test_a_scatter_keeps_one_range_and_leaves_out_what_was_not_found():
    figure, _ = plots_scale.scatter.__wrapped__(
        {"a": ([0.2, 2.0], [0.3, np.nan]), "b": ([1.0], [4.0])}, "x", "y", "alt"
    )
    (ax,) = figure.axes
    low, high = ax.get_xlim()
    assert ax.get_ylim() == (low, high) and low < 0.2 and high > 4.0
    diagonal, a, b = ax.lines
    np.testing.assert_array_equal(*diagonal.get_data())
    assert len(a.get_xdata()) == 2 and np.isnan(a.get_ydata()[1]) and b.get_xydata().tolist() == [[1.0, 4.0]]


def test_medians_and_quartiles():
    seeds = frame([1, 5], [2, 7], [3, 6], [10, np.inf], [4, 9], index=[1, 2])
    figure, _ = plots_scale.medians.__wrapped__({"p": {"a": seeds}}, "s", "alt", levels={"p": 0.45})
    (ax,) = figure.axes
    level, line = ax.lines
    assert set(level.get_ydata()) == {0.45}
    np.testing.assert_array_equal(line.get_xydata(), [[1, 3], [2, 7]])  # one run that diverged moves no median
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (2, 9)


def test_panels_of_the_same_quantity_share_a_range_and_others_do_not():
    panels = {"one": {"a": frame([1, 2, 3])}, "two": {"a": frame([10, 20, 30])}}
    same, _ = plots_scale.medians.__wrapped__(panels, "s", "alt", same="loss")
    assert len({ax.get_ylim() for ax in same.axes}) == 1
    assert [ax.get_ylabel() for ax in same.axes] == ["loss", ""] and [ax.get_title() for ax in same.axes] == [
        "one",
        "two",
    ]
    apart, _ = plots_scale.medians.__wrapped__(panels, "s", "alt")
    assert len({ax.get_ylim() for ax in apart.axes}) == 2 and [ax.get_ylabel() for ax in apart.axes] == ["one", "two"]
    with pytest.raises(ValueError, match="draw at most 5"):
        plots_scale.medians.__wrapped__({"p": {str(k): frame([1, 2, 3]) for k in range(6)}}, "s", "alt")
