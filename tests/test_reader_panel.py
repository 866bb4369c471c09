"""The reader of stored figures: what it carries against the stored tables, and what it says in a page without a kernel."""

import html
import json
import math
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
import traitlets
from panel_page import answer_of, headline, least_contrasts, overflowing, shown, widget_page

from lazy_helpers.experiments import FIGURES, cells_of
from lazy_helpers.panels import ReaderPanel, stored
from lazy_helpers.runs import load_manifest, load_results, store

AXES = ["variant", "m", "C0", "d", "eps"]
LOST = {  # of each figure that is made up here, the cells that were not run
    "fig3": lambda cell: cell.m == 100_000 or (cell.d == 784 and cell.seed > 0),
    "fig6": lambda cell: False,
    "fig4_left": lambda cell: cell.d == 196 or (cell.d == 100 and cell.seed == 1),
    "fig4_right": lambda cell: cell.m == 10_000 and cell.C0 > 20,
    "minimal": lambda cell: cell.m == 3_000 and cell.seed == 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stored results of whole grids with numbers made up, some cells not run."""
    root, rng = tmp_path_factory.mktemp("results"), np.random.default_rng(0)
    for name, lost in LOST.items():
        figure, rows, missing = FIGURES[name], [], []
        columns = [column for q in stored.READINGS[name].quantities for column in (q.column, q.published) if column]
        for cell in cells_of(figure):
            if lost(cell):
                missing.append(cell.key)
                continue
            row = {key: getattr(cell, key) for key in ("key", "m", "seed", "d", "variant", "C0", "data")}
            row |= {"eps": cell.eps} if hasattr(cell, "eps") else {}
            level = 1 / (1 + (cell.eps * math.sqrt(cell.d) / 3) ** 8) if hasattr(cell, "eps") else 2 / math.sqrt(cell.d)
            row |= {column: float(level * math.exp(0.05 * rng.standard_normal())) for column in columns}
            if name == "minimal" and cell.d == 25 and cell.seed == 1:
                row["one_step"] = math.inf
            row |= {"test_accuracy": 0.99 + 0.01 * rng.random(), "epochs": float(rng.integers(3, 900))}
            row |= {"stopped": True} if hasattr(cell, "eps") else {"left": bool(cell.C0 < 30), "steps": 12_345}
            rows.append(row | {"deviation_C0": cell.C0, "seconds": 7000 * rng.random(), "device": "cpu (1 threads)"})
        manifest = {"figure": name, "title": figure.title, "preset": "paper", "cells": len(rows), "missing": missing}
        store(root / f"{name}.csv", rows, manifest)
    return root


def rounded(value):
    return None if not math.isfinite(value) else float(f"{value:.4g}")


def own_column(quantity, variant):
    return quantity.published if variant == "published" and quantity.published else quantity.column


def of_cell(table, state):
    """A cell's rows of the stored table, in the order of the seeds."""
    for axis in AXES:
        if axis in table:
            table = table[table[axis] == state[axis]]
    return table.sort_values("seed")


# ----------------------------------------------------------------------------------------------------- what is carried


@pytest.mark.parametrize("name", ["fig2", "differences", *LOST])
def test_the_numbers_carried_are_the_tables(name, folder):
    where = folder if name in LOST else stored.RESULTS
    packed, table, manifest = stored.pack(name, where), load_results(name, where), load_manifest(name, where)
    axes, rows = packed["axes"], packed["rows"]
    places = [
        {axis: axes[axis][k] for axis, k in zip(axes, cell, strict=True)}
        for cell in zip(*packed["cells"].values(), strict=True)
    ]
    assert len(rows["cell"]) == len(table)
    for k, (number, seed) in enumerate(zip(rows["cell"], rows["seed"], strict=True)):
        row = of_cell(table, places[number]).set_index("seed").loc[seed]
        for quantity in stored.READINGS[name].quantities:
            assert rows[quantity.column][k] == rounded(row[own_column(quantity, row.variant)])
        for column in set(stored.DETAILS) & set(table):
            assert rows[column][k] == rounded(row[column]) or rows[column][k] == row[column]  # whole numbers stay whole
        assert packed["devices"][rows["device"][k]] == row.device
        ended = row.get("left", row.get("stopped"))
        assert ended is None or rows["ended"][k] == ended
    keys = {cell.key: cell for cell in cells_of(FIGURES[name])}
    lost = {
        (cell.variant, cell.m, cell.C0, cell.d, getattr(cell, "eps", None), cell.seed)
        for cell in map(keys.get, manifest["missing"])
    }
    missing = packed["missing"]
    assert lost == {
        (*(places[number].get(axis) for axis in AXES), seed)
        for number, seed in zip(missing["cell"], missing["seed"], strict=True)
    }
    assert len({tuple(place.values()) for place in places}) == len(places)
    assert len(html.escape(json.dumps(packed))) < 60_000


@pytest.mark.parametrize("name", ["fig4_left", "fig4_right"])
def test_a_grid_that_was_completed_elsewhere_is_read_like_the_papers(name, folder, tmp_path):
    rows = load_results(name, folder).to_dict("records")
    store(tmp_path / f"{name}_whole.csv", rows, load_manifest(name, folder) | {"csv": f"{name}_whole.csv"})
    some, whole = stored.pack(name, folder), stored.pack(f"{name}_whole", tmp_path)
    assert {key for key in some if some[key] != whole[key]} == {"figure", "file"}


def test_published_values_stand_at_their_own_cells(folder):
    for name, source in (("fig2", "published_fig2"), ("fig3", "published_fig2"), ("fig4_left", "published_fig4_left")):
        packed, theirs = stored.pack(name, folder if name in LOST else stored.RESULTS), load_results(source)
        found = packed["published"]
        axes, at = packed["axes"], packed["cells"]
        count = 0
        for k, number, value in zip(found["quantity"], found["cell"], found["value"], strict=True):
            place = {axis: axes[axis][at[axis][number]] for axis in axes}
            assert place["variant"] == "published" and place["C0"] == 10
            if name == "fig4_left":
                row = theirs[(theirs.d == place["d"]) & (theirs.eps == place["eps"])]
                wanted = row.robust_accuracy.item()
            else:
                curve = f"m=1e{round(math.log10(place['m']))}"
                row = theirs[
                    (theirs.quantity == packed["quantities"][k]["key"])
                    & (theirs.curve == curve)
                    & (theirs.d == place["d"])
                ]
                wanted = row.value.item()
            assert value == pytest.approx(wanted, rel=1e-3)
            count += 1
        assert count == (56 if name == "fig4_left" else len(theirs))  # of eight sides all but the largest were read
    crossing = dict(packed["published"]["crossing"])
    for d, column in theirs.groupby("d"):
        falling = column.sort_values("eps")
        steps = [(a, b) for a, b in pairwise(falling.itertuples()) if a.robust_accuracy >= 0.5 > b.robust_accuracy]
        a, b = steps[0]
        between = np.interp(0.5, [b.robust_accuracy, a.robust_accuracy], [b.eps, a.eps])
        assert crossing[d] == pytest.approx(between, rel=1e-3)


def test_the_digitised_cells_are_stored_whole():
    table, manifest = load_results("published_fig4_left"), load_manifest("published_fig4_left")
    assert table.notna().all().all() and not table.duplicated(["d", "eps"]).any()
    assert table.robust_accuracy.between(manifest["floor"]["robust_accuracy"], 1).all()
    assert set(table.d) == {side**2 for side in range(5, 28)} and "Figure 4" in manifest["source"]


def test_unknown_missing_and_altered_results_are_refused(folder, tmp_path):
    with pytest.raises(
        ValueError,
        match="figure 'fig9' cannot be read in a panel: choose one of fig2, fig2_mirrored, differences, fig3",
    ):
        ReaderPanel("fig9")
    with pytest.raises(ValueError, match="fig2.csv or its manifest is not in"):
        ReaderPanel("fig2", folder=tmp_path)
    for part in ("csv", "json"):
        (tmp_path / f"fig3.{part}").write_bytes((folder / f"fig3.{part}").read_bytes())
    ReaderPanel("fig3", folder=tmp_path)
    raw = (tmp_path / "fig3.csv").read_text()
    (tmp_path / "fig3.csv").write_text(raw.replace("0.99", "0.98", 1))
    with pytest.raises(ValueError, match="does not bear the SHA-256 in its manifest, so it was altered"):
        ReaderPanel("fig3", folder=tmp_path)


# ------------------------------------------------------------------------------------------------------- the widget


def test_an_axis_takes_what_the_grid_has_beside_the_others(folder):
    panel = ReaderPanel("minimal", folder, variant="mirrored", d=100)
    assert (panel.m, panel.d) == (1000, 100) and panel.C0 in (1, 3, 10)
    with pytest.raises(traitlets.TraitError, match="C0 must be one of 1, 3, 10 in this part of the grid, got 20"):
        panel.C0 = 20
    with pytest.raises(traitlets.TraitError, match="m must be one of 1000 in this part of the grid, got 300"):
        ReaderPanel("minimal", folder, variant="mirrored", m=300)
    panel.variant = "theory"
    panel.C0 = 40
    panel.variant = "mirrored"
    assert panel.C0 == 10  # the nearest there
    map_ = ReaderPanel("fig4_left", folder, variant="theory", d=784)
    assert map_.eps in stored.offered(map_.input, map_.state, "eps")
    map_.set_state({"d": 100, "eps": 0.255})  # as a slider in JupyterLab does
    assert (map_.d, map_.eps) == (100, 0.255)
    map_.d = 25
    assert map_.eps == 0.21  # 0.21 and 0.33 are offered: the nearer in ratio
    for wrong, message in (
        (dict(d=26), "d must be one of 25, 36, 49, 64, 100, 196, 400, 784, got 26"),
        (dict(variant="ours"), "variant must be one of 'published', 'theory', got 'ours'"),
        (dict(eps=math.nan), "eps must be one of 64 values from 0.037 to 1.02"),
        (dict(m=True), "m must be one of 1000, got True"),
        (dict(quantity="loss"), "quantity must be one of 'robust_accuracy', got 'loss'"),
    ):
        with pytest.raises(traitlets.TraitError, match=message):
            ReaderPanel("fig4_left", folder, **wrong)
    with pytest.raises(ValueError, match="ReaderPanel has no seed: it takes quantity, variant, m, C0, d, eps."):
        ReaderPanel("fig4_left", folder, seed=1)
    assert repr(ReaderPanel("fig2", d=49)).startswith("ReaderPanel('fig2', quantity='relative_perturbation', variant=")


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("fig2", dict(variant="published", m=100_000, d=100, quantity="step_size")),
        ("fig4_right", dict(radius="V", m=2000, C0=18.0)),
        ("fig4_left", dict(variant="theory", d=196)),  # not run
    ],
)
def test_results_reach_the_widget(name, state, folder, offline_page, tmp_path):
    where = folder if name in LOST else stored.RESULTS
    live = ReaderPanel(name, where, **state)
    page = tmp_path / "widget.html"
    page.write_text(widget_page(live), encoding="utf-8")
    answer_of(offline_page, live, page.as_uri())
    quantity = next(q for q in stored.READINGS[name].quantities if q.column == live.quantity)
    values = [
        rounded(value) for value in of_cell(load_results(name, where), live.state)[own_column(quantity, live.variant)]
    ]
    assert live.values == values
    if values:
        assert live.mean == pytest.approx(np.mean(values)) and live.sd == pytest.approx(np.std(values, ddof=1))
    else:
        assert (live.mean, live.sd, live.difference) == (None, None, None)
    assert (live.published is None) == (name != "fig2")
    assert live.difference is None or live.difference == pytest.approx(live.mean - live.published)


# --------------------------------------------------------------------------------------------- the JavaScript's own


@pytest.fixture
def maths(panel_maths):
    return panel_maths("{ spread, gridOf, colourOf, READERS }")


@pytest.mark.browser
def test_mean_and_spread_are_numpys(maths):
    rng = np.random.default_rng(1)
    for n in (1, 2, 3, 7):
        values = (10 ** rng.uniform(-6, 6) * rng.standard_normal(n)).tolist()
        found = maths("(values) => lazy.spread(values)", values)
        assert found["mean"] == pytest.approx(np.mean(values), rel=1e-12)
        assert found["sd"] is None if n == 1 else found["sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert maths("[[], [1, null]].map(lazy.spread)") == [{"mean": None, "sd": None}] * 2


@pytest.mark.browser
@pytest.mark.parametrize("name", ["fig4_left", "fig4_right", "minimal"])
def test_page_and_package_offer_the_same_and_keep_the_place(maths, folder, name):
    packed = stored.pack(name, folder)
    script = """([input]) => { const grid = lazy.gridOf(input);
        return grid.cells.map(({ place }) => Object.fromEntries(grid.names.map((axis) => [axis, grid.offered(place, axis)]))); }"""
    places = [
        {axis: packed["axes"][axis][k] for axis, k in zip(packed["axes"], cell, strict=True)}
        for cell in zip(*packed["cells"].values(), strict=True)
    ]
    for place, offered in zip(places, maths(script, [packed]), strict=True):
        assert offered == {axis: stored.offered(packed, place, axis) for axis in packed["axes"]}
    if name == "fig4_left":
        moved = "([input, before, part]) => lazy.READERS.reader(input).settled({ ...before, ...part }, part, before)"
        before = {"variant": "theory", "m": 1000, "C0": 10, "d": 25, "eps": 0.42}
        assert maths(moved, [packed, before, {"d": 784}])["eps"] == 0.075  # the third budget of each
        assert maths(moved, [packed, before, {"d": 100, "eps": 0.3}])["eps"] == 0.3


@pytest.mark.browser
def test_the_maps_colours_are_those_of_the_books_pictures(maths):
    shares = np.linspace(0, 1, 101)
    found = maths("(shares) => shares.map((share) => lazy.colourOf(share).match(/\\d+/g).map(Number))", shares.tolist())
    assert np.abs(np.array(found) - 255 * mpl.colormaps["cividis"](shares)[:, :3]).max() < 9


# ------------------------------------------------------------------------------------------------------------ the page


def controls(page):
    return page.locator(".lp-controls")


def choose(page, label, key):
    controls(page).get_by_label(label).press(key)


def value_of(page, label):
    return controls(page).get_by_label(label).get_attribute("aria-valuetext").split(",")[0]


def check(page, name, table, state, published=None):
    """The read-outs are the table's for this cell."""
    quantity = next(q for q in stored.READINGS[name].quantities if q.column == state["quantity"])
    rows = of_cell(table, state)
    values = [rounded(value) for value in rows[own_column(quantity, state["variant"])]]
    found = shown(page, "reader")
    assert found["mean"] == (pytest.approx(np.mean(values)) if values else None)
    assert found["sd"] == (pytest.approx(np.std(values, ddof=1)) if len(values) > 1 else None)
    assert found["published"] == published
    assert found["difference"] == (
        pytest.approx(np.mean(values) - published) if values and published is not None else None
    )
    seeds = page.locator(".lp-seeds-row:not(.lp-seeds-head):not(.lp-lost) > :first-child").all_text_contents()
    assert seeds == [str(seed) for seed in rows.seed]


@pytest.mark.browser
def test_cells_of_curves_are_read_in_the_page(opened):
    table, theirs = load_results("fig2"), load_results("published_fig2")
    page = opened(ReaderPanel("fig2", variant="published", m=1000, d=100))
    state = dict(quantity="relative_perturbation", variant="published", m=1000, C0=10, d=100)

    def digitised(quantity, m, d):
        rows = theirs[(theirs.quantity == quantity) & (theirs.curve == f"m=1e{round(math.log10(m))}") & (theirs.d == d)]
        return rows.value.item() if len(rows) else None

    check(page, "fig2", table, state, digitised("relative_perturbation", 1000, 100))
    assert headline(page, "reader").startswith(
        "m = 1000, d = 100, as published: relative perturbation 0.228 ± 0.011, 5 seeds; published 0.228"
    )
    controls(page).get_by_label("step size").check()
    choose(page, "input dimension", "End")
    choose(page, "width", "End")
    check(
        page, "fig2", table, state | dict(quantity="step_size", m=100_000, d=784), digitised("step_size", 100_000, 784)
    )
    controls(page).get_by_label("as the theory has it").check()
    check(page, "fig2", table, state | dict(quantity="step_size", m=100_000, d=784, variant="theory"))
    assert "published" not in headline(page, "reader")
    picture = page.locator("svg.lp-pick").bounding_box()
    page.mouse.click(picture["x"] + 60, picture["y"] + 200)  # near the left end
    check(page, "fig2", table, state | dict(quantity="step_size", m=100_000, d=25, variant="theory"))
    assert page.network == [] and page.errors == []


@pytest.mark.browser
def test_cells_of_the_map_are_read_in_the_page(opened, folder):
    table = load_results("fig4_left", folder)
    theirs = load_results("published_fig4_left").set_index(["d", "eps"]).robust_accuracy
    page = opened(ReaderPanel("fig4_left", folder, variant="published", d=49, eps=0.45))
    state = dict(quantity="robust_accuracy", variant="published", m=1000, C0=10, d=49, eps=0.45)
    check(page, "fig4_left", table, state, theirs[49, 0.45])
    choose(page, "budget of the attack", "ArrowRight")
    check(page, "fig4_left", table, state | dict(eps=0.5), theirs[49, 0.5])
    for key, d in (("ArrowRight", 64), ("ArrowRight", 100)):
        choose(page, "input dimension", key)
        assert value_of(page, "input dimension") == str(d)
    assert "2 of 3 seeds, the others not run" in headline(page, "reader")
    eps = float(value_of(page, "budget of the attack"))
    check(page, "fig4_left", table, state | dict(d=100, eps=eps), theirs[100, eps])
    assert page.locator(".lp-lost").all_text_contents() == ["1not run"]
    choose(page, "input dimension", "ArrowRight")  # d = 196 was not run
    assert "not run. The cell belongs to the grid, and none of its 3 seeds has been computed." in headline(
        page, "reader"
    )
    assert shown(page, "reader")["mean"] is None and page.locator(".lp-lost").count() == 3
    # Neither is it drawn: of 8 x 8 cells, 8 are empty frames.
    assert page.locator("svg.lp-pick .lost").count() == 8
    assert page.locator("svg.lp-pick .tile").count() == 56 + 20  # and the colour bar's
    choose(page, "input dimension", "End")
    assert "no published value" in page.locator(".lp-numbers").inner_text()  # 28 x 28 could not be read
    controls(page).get_by_label("as the theory has it").check()
    eps = float(value_of(page, "budget of the attack"))
    check(page, "fig4_left", table, state | dict(variant="theory", d=784, eps=eps))
    assert page.network == [] and page.errors == []


@pytest.mark.browser
def test_every_tile_can_be_clicked(opened, folder):
    page = opened(ReaderPanel("fig4_right", folder))
    table = load_results("fig4_right", folder)
    for over in ("C₀", "V = C₀/√m"):
        controls(page).get_by_label(over, exact=True).check()
        boxes = [box.bounding_box() for box in page.locator("svg.lp-pick :is(.tile, .lost)").all()][20:]
        seen = set()
        for box in boxes:
            page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            m, C0 = (value_of(page, label).replace("\u202f", "") for label in ("width", "size of the lazy ball"))
            seen.add((m, C0))
            state = dict(quantity="robust_accuracy", variant="theory", m=int(m), C0=float(C0), d=784, eps=0.2)
            check(page, "fig4_right", table, state)
        assert len(seen) == len(boxes) == 32
    assert page.network == [] and page.errors == []


@pytest.mark.browser
def test_half_is_marked_where_the_accuracy_crosses_it(opened, folder):
    page = opened(ReaderPanel("fig4_left", folder, variant="theory"))
    table = load_results("fig4_left", folder)
    means = table[table.variant == "theory"].groupby(["d", "eps"]).robust_accuracy.mean()
    crossings = sum(int(np.sum(np.diff(np.sign(column.to_numpy() - 0.5)) != 0)) for _, column in means.groupby("d"))
    drawn = page.locator("svg.lp-pick path.half").get_attribute("d")
    assert drawn.count("M") == crossings == 7
    assert page.locator("svg.lp-pick path.half-published").count() == 1


@pytest.mark.browser
def test_infinite_values_are_said_and_not_drawn(opened, folder):
    page = opened(ReaderPanel("minimal", folder, variant="theory", m=1000, C0=10, d=25, quantity="one_step"))
    assert "is infinite for at least one seed" in headline(page, "reader")
    assert shown(page, "reader")["mean"] is None
    choose(page, "input dimension", "ArrowRight")
    assert shown(page, "reader")["mean"] is not None
    controls(page).get_by_label("mirrored").check()  # where m has one value only
    assert controls(page).get_by_label("width").is_disabled()
    assert page.errors == []


@pytest.mark.browser
def test_the_cell_goes_round_through_the_address(opened, folder):
    page = opened(ReaderPanel("fig4_left", folder, variant="published", d=49, eps=0.5))
    controls(page).get_by_label("as the theory has it").check()
    choose(page, "input dimension", "End")
    choose(page, "budget of the attack", "Home")
    page.wait_for_function(
        "['reader.d=784', 'reader.eps=0.037', 'variant=theory'].every((part) => location.search.includes(part))"
    )
    kept, address = shown(page, "reader"), page.url
    page.goto("about:blank")
    page.goto(address)
    assert shown(page, "reader") == kept
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("!location.search.includes('reader.')")
    assert headline(page, "reader").startswith("d = 49, ε = 0.5, as published")
    page.goto(
        address.split("?")[0] + "?reader.d=26&reader.eps=0.123&reader.variant=toString&reader.seed=3&reader.quantity=x"
    )
    assert headline(page, "reader").startswith("d = 49, ε = ") and page.errors == []


@pytest.fixture
def all_readers(folder):
    return [
        ReaderPanel("fig2", d=100), ReaderPanel("fig3", folder, m=10_000, C0=40.0), ReaderPanel("fig4_left", folder, variant="theory"),
        ReaderPanel("fig4_right", folder, radius="V"), ReaderPanel("minimal", folder, variant="theory"), ReaderPanel("differences"),
    ]  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize("width", [340, 700, 1280])
def test_no_figure_overflows_at_any_width(opened, all_readers, width):
    assert overflowing(opened(*all_readers, width=width)) == []


@pytest.mark.browser
def test_pictures_speak_and_controls_are_alive(opened, all_readers):
    page = opened(*all_readers)
    labels = page.locator("svg[role=img]").evaluate_all("(all) => all.map((el) => el.getAttribute('aria-label'))")
    assert len(labels) == 12 and all(len(label) > 30 for label in labels)
    for panel in page.locator("[data-panel=reader]").all():
        assert panel.get_by_role("button").count() == 1  # no new draw of what is stored
        for control in panel.locator("input[type=range], input:checked").all():
            if control.is_disabled():
                continue
            group = control.get_attribute("name")
            before = panel.inner_html()
            control.press(
                "ArrowRight" if group or control.input_value() != control.get_attribute("max") else "ArrowLeft"
            )
            assert panel.inner_html() != before
    text = page.locator("body").inner_text() + " ".join(labels)
    assert not any(word in text for word in ("NaN", "undefined", "Infinity", "null"))
    assert page.errors == []


@pytest.mark.browser
def test_both_themes_keep_text_readable(opened, all_readers):
    assert min(least_contrasts(opened(*all_readers)).values()) >= 4.5


def test_a_stored_output_is_the_same_every_time():
    def marker():
        return ReaderPanel("fig2")._repr_mimebundle_()[0]["text/html"]

    assert marker() == marker()
