"""Pictures: described, in the page's ink, the same every time, and safe beside each other on a page."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest

from lazy_helpers import plots
from lazy_helpers.runs import load_results

X = np.array([25.0, 100.0, 784.0])


def certificates():
    """As the stored result "certified": at C0 = 1 the bound falls below 0 from d = 1000 on, at C0 = 10 it does not."""
    rows = []
    for C0, m, d, seed in itertools.product((1.0, 10.0), (1000, 4000), (100, 1000, 10_000), (0, 1)):
        sure = C0 == 1 and d > 100
        low, worst = (3.0 + seed) / d if sure else math.nan, math.inf if C0 == 10 and d == 100 else 2.0 / d
        bound = {"bound": -1.0 if sure else 0.5, "bound_published": 0.9, "f_low": -0.4, "f_high": 1.0 + seed}
        steps = {"eta_low": low, "eta_worst": worst, "eta_flip": 1.0 / d}
        rows.append({"C0": C0, "m": m, "d": d, "seed": seed, "certified": sure, **bound, **steps})
    return pd.DataFrame(rows)


def drawn():
    table = load_results("fig2")
    square = np.arange(16.0).reshape(4, 4)
    yield plots.figure2(table, "theory")
    yield plots.figure2(table, "published", load_results("published_fig2"))
    narrow = table[table.m == 1000]
    radii = pd.concat([narrow.assign(C0=C0, eta=C0 * narrow.eta) for C0 in (10.0, 20.0)])
    yield plots.figure2(radii, "theory", curves="C0", wide=radii.assign(m=10_000, eta=2 * radii.eta))
    yield plots.histograms({"theory": load_results("fig7").iloc[0], "another": load_results("fig7").iloc[1]})
    yield plots.images([[("a & b", square, 0, 15), ("b", square - 8, -8, 8)]], alt='a "quoted" description of images')
    bench = load_results("bench_cpu")
    yield plots.versus(bench[bench.work.isin(["SGD steps", "PGD"])], "lazy_helpers")
    yield plots.growth(bench[bench.work.str.contains(" against ")], ["m", "n"])
    seeds = np.array([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0]])
    lines = {"a line": seeds, "not run at 784": np.where(X > 500, np.nan, seeds)}
    yield plots.spread(
        X, {f"panel {k}": lines for k in range(6)}, "d", "Six panels with the same two lines and one legend", {},
        xlog=True, ylog=True, same=True,
    )  # fmt: skip
    cells = load_results("published_fig4_left")
    contour = pd.Series({25: 0.58, 100: 0.41})
    yield plots.robust_maps(
        {"a": cells, "b": cells[cells.d == 100]}, {"a": contour, "b": contour[1:]}, "Robust accuracy, two maps"
    )
    frames = {
        "all": pd.DataFrame({0: [0.1, 0.2], 1: [0.3, 0.2]}, index=[1, 4]),
        "one": pd.DataFrame({0: [0.5, 0.4]}, index=[2, 3]),
    }
    yield plots.bands(
        {"x": frames},
        "y",
        "Two measured curves beside a law",
        {"x": {"law": ([1, 4], [1, 0.5])}},
        ["one"],
        [0.5],
        True,
        True,
    )
    yield plots.certified(certificates())


@pytest.fixture(scope="module")
def pictures():
    return list(drawn())


def test_every_picture_is_described_and_takes_the_pages_ink(pictures):
    for picture in pictures:
        bundle = picture._repr_mimebundle_()
        assert len(picture.alt) > 20 and re.search(r'role="img" aria-label="[^"]{20,}"', bundle["text/html"])
        assert "currentColor" in picture.svg and plots.INK not in picture.svg
        assert picture.png.startswith(b"\x89PNG") and picture.alt in bundle["text/plain"].encode().decode(
            "unicode_escape"
        )


def test_pictures_share_a_page_without_clashing_ids(pictures):
    owners = {}
    for k, picture in enumerate(pictures):
        for name, content in re.findall(r'id="([^"]+)"([^>]*>)', picture.svg):
            assert owners.setdefault(name, content) == content, f"picture {k} defines {name} anew"
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', picture.svg))
        assert used <= set(re.findall(r'id="([^"]+)"', picture.svg))


def test_pictures_are_the_same_every_time(pictures):
    assert [picture.svg for picture in drawn()] == [picture.svg for picture in pictures]


def test_figure2_says_the_stored_numbers(pictures):
    rows = load_results("fig2").query("variant == 'theory' and m == 1000")
    mean = rows.groupby("d").relative_perturbation.mean()
    assert f"falls from {mean.iloc[0]:.2g} to {mean.iloc[-1]:.2g}" in pictures[0].alt


def test_a_second_width_is_drawn_hollow_over_the_means_of_the_first():
    table = load_results("fig2").query("variant == 'theory'").assign(C0=10.0)
    wide = table[table.m == 10_000]
    figure, _ = plots.figure2.__wrapped__(table[table.m == 1_000], "theory", curves="C0", wide=wide)
    for ax, quantity in zip(figure.axes, plots.BENCHMARKS, strict=True):
        filled, hollow, _ = ax.lines
        for line, m, style in ((filled, 1_000, "full"), (hollow, 10_000, "none")):
            mean = table[table.m == m].groupby("d")[quantity].mean()
            assert line.get_fillstyle() == style and np.allclose(line.get_xydata().T, (mean.index, mean), rtol=1e-12)
    assert "hollow: $m = 10^4$" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_versus_says_the_stored_ratios(pictures):
    rows = load_results("bench_cpu").query("work == 'SGD steps'")
    ours = rows[rows.contender == "lazy_helpers"].set_index(["d", "m", "members"]).seconds
    others = rows[rows.contender != "lazy_helpers"].set_index(["d", "m", "members"]).seconds
    ratios = others / ours.reindex(others.index)
    assert f"SGD steps: from {ratios.min():.2g} to {ratios.max():.2g}" in pictures[5].alt


def test_the_certificates_picture_says_from_which_d_on(pictures):
    alt = pictures[-1].alt
    assert "C0 = 1, m = 4000: from d = 1000 on" in alt and "C0 = 10, m = 1000: at no d" in alt


def test_panels_with_the_same_lines_share_a_range_and_a_legend_and_draw_no_mean_that_lacks_a_seed():
    seeds = np.array([[1.0, 2.0, 4.0], [3.0, 4.0, 6.0]])
    lacking = np.array([[10.0, 20.0, 40.0], [30.0, 40.0, np.nan]])
    panels = {f"panel {k}": {"whole": (k + 1) * seeds, "lacking": lacking} for k in range(6)}
    figure, _ = plots.spread.__wrapped__(X, panels, "d", "six", ylog=True, same=True)
    assert len({ax.get_ylim() for ax in figure.axes}) == 1 and len(figure.legends) == 1
    assert [ax.get_legend() for ax in figure.axes] == [None] * 6
    assert [ax.get_ylabel() for ax in figure.axes] == list(panels)
    for k, ax in enumerate(figure.axes):
        whole, lacks = (line.get_xydata().T for line in ax.lines)
        np.testing.assert_allclose(whole, [X, (k + 1) * np.array([2.0, 3.0, 5.0])])
        np.testing.assert_array_equal(lacks, [X[:2], [20.0, 30.0]])
    alone, _ = plots.spread.__wrapped__(X, panels, "d", "six")
    assert len({ax.get_ylim() for ax in alone.axes}) > 1 and not alone.legends
    assert all(ax.get_legend() for ax in alone.axes)


def test_a_map_colours_each_cell_at_its_budget_and_leaves_out_what_was_not_run():
    cells = pd.DataFrame(
        {"d": [25, 25, 25, 100, 100], "eps": [0.3, 0.1, 0.2, 0.2, 0.4], "robust_accuracy": [0.1, 0.9, 0.5, 0.8, 0.2]}
    )
    contour = pd.Series({25: 0.2, 100: 0.3})
    figure, _ = plots.robust_maps.__wrapped__({"one": cells, "two": cells[:1]}, {"eps": contour}, "maps")
    one, two = figure.axes[:2]
    np.testing.assert_allclose(two.collections[0].get_coordinates()[:, 0, 1], [0.275, 0.325])  # alone on its row
    left, right = one.collections
    assert [len(ax.collections) for ax in (one, two)] == [2, 1]
    np.testing.assert_array_equal(left.get_array().ravel(), [0.9, 0.5, 0.1])  # by budget
    np.testing.assert_allclose(left.get_coordinates()[:, 0, 1], [0.05, 0.15, 0.25, 0.35])
    np.testing.assert_allclose(right.get_coordinates()[:, 0, 1], [0.1, 0.3, 0.5])
    np.testing.assert_allclose(right.get_coordinates()[0, :, 0], [9.5, 10.5])
    np.testing.assert_array_equal(one.lines[0].get_xydata(), [[5, 0.2], [10, 0.3]])


def test_bands_are_means_at_each_curves_own_x():
    several = pd.DataFrame({0: [1.0, 2.0, 3.0], 1: [3.0, 4.0, np.nan]}, index=[10, 20, 40])
    alone = pd.DataFrame({0: [5.0, 6.0]}, index=[20, 80])
    figure, _ = plots.bands.__wrapped__(
        {"x": {"several": several, "alone": alone}}, "y", "bands", hollow=["alone"], xlog=True
    )
    (ax,) = figure.axes
    first, second = ax.lines
    np.testing.assert_array_equal(first.get_xydata(), [[10, 2], [20, 3], [40, 3]])
    np.testing.assert_array_equal(second.get_xydata(), [[20, 5], [80, 6]])
    assert (first.get_fillstyle(), second.get_fillstyle()) == ("full", "none")
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((2 - 2**0.5, 3 + 2**0.5))
    assert not ax.collections[1].get_paths()  # one seed has none
    assert list(ax.get_xticks()) == [10, 20, 40, 80]
