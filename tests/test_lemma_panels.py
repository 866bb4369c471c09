"""The panels of Lemmas 4.1, 4.2 and 4.3: their JavaScript against the package, in law and number by number."""

import math

import numpy as np
import panel_numbers
import pytest
import torch
import traitlets
from panel_page import answer_of, check_numbers, headline, least_contrasts, overflowing, settle, shown, widget_page
from scipy import stats

import lazy_helpers as lh
from lazy_helpers import extremes, lemmas
from lazy_helpers.panels import FlipsPanel, GradientPanel, ValuePanel

STATES = {  # each away from where the panels open
    ValuePanel: [
        dict(m=100, C0=1.0, gamma=0.5, seed=1),
        dict(m=4500, C0=12.5, gamma=0.01, seed=0),
        dict(m=1_000_000, C0=40.0, gamma=0.001, seed=2**31 - 1),
    ],
    FlipsPanel: [
        dict(m=100, C0=3.0, gamma=0.5, seed=1),
        dict(m=1000, C0=40.0, gamma=0.01, seed=0),
        dict(m=1_000_000, C0=1.0, gamma=0.001, seed=3),
    ],
    GradientPanel: [
        dict(d=25, m=5000, C0=1.0, gamma=0.5, seed=1),
        dict(d=784, m=20_000, C0=10.0, gamma=0.1, seed=0),
        dict(d=100_000, m=1_000_000, C0=40.0, gamma=0.001, seed=2),
    ],
}
CASES = [(panel, state) for panel, states in STATES.items() for state in states]


@pytest.fixture
def maths(panel_maths):
    """A function that evaluates JavaScript among the panels' own names."""
    return panel_maths(
        "{ value_bound, gradient_bound, gradient_bound_from, sign_change_mean, sign_change_bound, chi, interval, "
        "least_gradient, streamKey, PANELS }"
    )


# ----------------------------------------------------------------------------------------------------------- the bounds


@pytest.mark.browser
def test_bounds_are_the_packages(maths):
    rng = np.random.default_rng(0)
    draws = [
        (int(10 ** rng.uniform(0.5, 6)), int(10 ** rng.uniform(2, 6)), 10 ** rng.uniform(-1, 1.6), rng.uniform(1e-3, 0.99))
        for _ in range(500)
    ]  # fmt: skip
    script = """(draws) => draws.map(([d, m, C0, gamma]) => [
        lazy.value_bound(m, C0, gamma), lazy.value_bound(m, 0, gamma), lazy.gradient_bound(d, m, 0, gamma),
        lazy.sign_change_mean(m, C0), lazy.sign_change_bound(m, C0, gamma), lazy.gradient_bound(d, m, C0, gamma),
    ])"""
    ours = np.array(
        [
            [
                *(lemmas.value_bound(m, C0, gamma), lemmas.value_bound(m, 0, gamma)),
                *(lemmas.gradient_bound(d, m, 0, gamma), lemmas.sign_change_mean(m, C0)),
                *(lemmas.sign_change_bound(m, C0, gamma), lemmas.gradient_bound(d, m, C0, gamma)),
            ]
            for d, m, C0, gamma in draws
        ]
    )
    theirs = np.array(maths(script, draws))
    np.testing.assert_allclose(theirs[:, :-1], ours[:, :-1], rtol=1e-12)
    # Lemma 4.2's is a difference: to 1e-12 of its first term.
    np.testing.assert_array_less(
        np.abs(theirs[:, -1] - ours[:, -1]), 1e-12 * (ours[:, 2] + [m for _, m, _, _ in draws])
    )


@pytest.mark.browser
def test_lemma_2_speaks_from_the_very_d_that_is_named(maths):
    rng = np.random.default_rng(1)
    draws = [(int(10 ** rng.uniform(2, 6)), 10 ** rng.uniform(-1, 1.6), rng.uniform(1e-3, 0.9)) for _ in range(100)]
    found = maths("(draws) => draws.map((draw) => lazy.gradient_bound_from(...draw))", draws)
    assert found == [panel_numbers.bound_from(*draw) for draw in draws]
    assert None in found and any(found)
    for (m, C0, gamma), d in zip(draws, found, strict=True):
        at = [lemmas.gradient_bound(int(k), m, C0, gamma) > 0 for k in np.geomspace(2, d or 2**50, 60)[:-1]]
        assert not any(at)
        if d:
            assert all(lemmas.gradient_bound(int(k), m, C0, gamma) > 0 for k in np.geomspace(d, 2**50, 30).round())


@pytest.mark.browser
def test_interval_is_wilsons(maths):
    for hits, n in ((0, 100), (3, 100), (7, 10), (50, 10_000), (1, 1)):
        ends = stats.binomtest(hits, n).proportion_ci(method="wilson")
        low, high = map(float, maths("([hits, n]) => lazy.interval(hits, n)", [hits, n]).split(" to "))
        assert (low, high) == pytest.approx((ends.low, ends.high), rel=0.05, abs=1e-9)


# ------------------------------------------------------------------------------------------------------------- the draws


@pytest.mark.browser
@pytest.mark.parametrize("n", [2, 23, 24, 783, 99_999])
def test_chi_variables_have_their_law(maths, n):
    script = "([n, rows]) => { const key = lazy.streamKey(5, 'chi'); return Array.from({ length: rows }, (_, row) => lazy.chi(n, key, row)); }"
    found = np.array(maths(script, [n, 20_000]))
    np.testing.assert_allclose(found[:200], panel_numbers.chi(n, range(200), 5), rtol=1e-9)
    assert stats.kstest(found, "chi", args=(n,)).pvalue > 1e-3
    assert np.mean(found**2) == pytest.approx(n, abs=5 * math.sqrt(2 * n / 20_000))


LEAST = """(nets) => nets.map(({ u, p, a, V }) => {
    const z = p.map((ps, s) => (u[s] > 0 ? a[s] * ps : ps));
    const active = z.filter((_, s) => u[s] > 0);
    const length = active.reduce((sum, zs) => sum + zs, 0) / Math.sqrt(active.length);
    return lazy.least_gradient(u, z, a, V, length);
})"""


@pytest.mark.browser
def test_least_gradient_of_explicit_networks(maths):
    """Against the package on whole weight matrices: the certificate, and a W of the ball that has what was found."""
    cases, wanted = [], []
    for seed, (d, m, C0) in enumerate(
        [(30, 200, 0.5), (30, 200, 3.0), (12, 400, 10.0), (100, 100, 2.0), (60, 500, 40.0)]
    ):
        net = lh.TwoLayerNet.init(d, m, seed=seed, dtype=torch.float64)
        x = torch.nn.functional.normalize(torch.randn(d, generator=torch.Generator().manual_seed(seed)).double(), dim=0)
        V, g, u = C0 / math.sqrt(m), net.grad(x[None])[0], net.W @ x
        e = torch.nn.functional.normalize(g - (g @ x) * x, dim=0)
        cases.append(dict(u=u.tolist(), p=(net.W @ e).tolist(), a=net.a.tolist(), V=V))
        y = -g / g.norm()
        far = panel_numbers.shortened(net, extremes.farthest(net, x, C0, y).W, x, C0)
        assert lh.LazyBall(net.W, C0).contains(far.W)
        lower, _ = panel_numbers.certificate(net, x, C0, y)
        on = ((far.W @ x) > 0).double() * net.a
        across = on @ net.W / math.sqrt(m)
        across = across - (across @ x) * x - (across @ e) * e
        wanted.append((float(g.norm()), lower, float(far.grad(x[None]).norm()), float(across.norm())))
    for found, (norm, lower, attained, across) in zip(maths(LEAST, cases), wanted, strict=True):
        assert (found["norm"], found["lower"]) == pytest.approx((norm, lower), rel=1e-9, abs=1e-9)
        shortest = max(0.0, math.hypot(found["plane"], across) - found["room"])
        assert shortest == pytest.approx(attained, rel=2e-3, abs=2e-3 * norm)
        assert found["lower"] <= attained + 1e-9


@pytest.mark.browser
@pytest.mark.parametrize(("d", "m", "C0"), [(25, 100, 1.0), (40, 100, 4.0)])
def test_gradients_without_weights_have_the_law_of_those_with_them(maths, d, m, C0):
    state = dict(d=d, m=m, C0=C0, seed=4)
    script = "(state) => Object.values(lazy.PANELS.gradient.measure(state, {})).map((part) => [...part])"
    theirs = maths(script, state)
    nets, x = lh.TwoLayerNet.init(d, m, members=(1500,), seed=0, dtype=torch.float64), torch.eye(1, d).double()
    g = nets.grad(x)[:, 0]
    ours = []
    for k in range(1500):
        net, y = lh.TwoLayerNet(nets.W[k], nets.a[k]), -g[k] / g[k].norm()
        lower, _ = panel_numbers.certificate(net, x[0], C0, y)
        tried = (panel_numbers.shortened(net, W, x[0], C0) for W in (extremes.farthest(net, x[0], C0, y).W, net.W))
        ours.append((float(g[k].norm()), lower, min(float(each.grad(x).norm()) for each in tried)))
    for name, one, other in zip(("norm", "lower", "found"), theirs, np.array(ours).T, strict=True):
        # Where the least is a limit, the package stops a hair before it: a shift far below the spread.
        assert stats.ks_2samp(one, other).pvalue > 1e-3, name
    norm, lower, found = map(np.array, theirs)
    assert (lower <= found + 1e-9).all() and (found <= norm + 1e-9).all()


# -------------------------------------------------------------------------------------------------------------- the page


@pytest.mark.browser
@pytest.mark.parametrize(("panel", "state"), CASES)
def test_page_shows_the_packages_numbers(opened, panel, state):
    live = panel(**state)
    page = opened(live)
    check_numbers(page, live.panel, panel_numbers.numbers(live.panel, **state))
    assert page.network == [] and page.errors == []


@pytest.mark.browser
def test_where_a_bound_is_vacuous_the_panel_says_so(opened):
    page = opened(FlipsPanel(m=100, C0=40), GradientPanel(d=400, m=10_000), ValuePanel(m=100, C0=1, gamma=0.5))
    assert headline(page, "flips").startswith("The lemma says nothing here: its bound 330 is at least m = 100.")
    assert headline(page, "gradient").startswith("Lemma 4.2 says nothing at d = 400, only from d = ")
    assert "some W in the ball exceeds the lemma’s bound" in headline(page, "value")
    flips, gradient = (page.locator(f"[data-panel={name}]") for name in ("flips", "gradient"))
    flips.get_by_role("slider", name="width").press("End")
    flips.get_by_role("slider", name="size of the lazy ball").press("Home")
    gradient.get_by_role("slider", name="input dimension").press("End")
    page.wait_for_function("!document.body.innerText.includes('says nothing here')")
    settle(page, 3)
    assert headline(page, "flips").startswith("In this draw ") and headline(page, "gradient").startswith(
        "Lemma 4.2 gives "
    )
    gradient.get_by_role("slider", name="size of the lazy ball").press("End")
    gradient.get_by_role("slider", name="width").press("Home")
    page.wait_for_function("document.body.innerText.includes('at this m at no d')")
    settle(page, 3)
    assert shown(page, "gradient")["bound_from"] is None and shown(page, "gradient")["bound"] < 0
    assert page.errors == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [340, 700, 1280])
def test_no_state_overflows_at_any_width(opened, width):
    for states in zip(*STATES.values(), strict=True):
        page = opened(*(panel(**state) for panel, state in zip(STATES, states, strict=True)), width=width)
        assert overflowing(page) == []


@pytest.mark.browser
def test_both_themes_keep_text_readable(opened):
    """Every text, axes too, has a contrast of at least 4.5 with the panel's ground, and with the grey of what says nothing."""
    page = opened(ValuePanel(), FlipsPanel(m=1000, C0=40), GradientPanel())
    assert min(least_contrasts(page).values()) >= 4.5


@pytest.mark.browser
def test_pictures_speak_to_screen_readers_and_controls_to_the_keyboard(opened):
    page = opened(ValuePanel(), FlipsPanel(), GradientPanel())
    labels = page.locator("svg[role=img]").evaluate_all("(all) => all.map((el) => el.getAttribute('aria-label'))")
    assert len(labels) == 5 and all(
        len(label) > 60 and "NaN" not in label and "undefined" not in label for label in labels
    )
    for name in ("value", "flips", "gradient"):
        panel = page.locator(f"[data-panel={name}]")
        for slider in panel.locator("input[type=range]").all():
            before = shown(page, name), headline(page, name)
            slider.press("ArrowRight")
            settle(page, 3)
            assert (shown(page, name), headline(page, name)) != before
        assert (
            panel.get_by_label("probability of failure")
            .get_attribute("aria-valuetext")
            .startswith("0.2, may fail in 20")
        )
    text = page.locator("body").inner_text()
    assert "NaN" not in text and "undefined" not in text and "Infinity" not in text


# ------------------------------------------------------------------------------------------------------------ the widgets


@pytest.mark.parametrize(
    ("panel", "wrong", "message"),
    [
        (ValuePanel, dict(gamma=0), "gamma must be a number from 0.001 to 0.5, got 0: for example gamma=0.1."),
        (FlipsPanel, dict(gamma=1.5), "gamma must be a number from 0.001 to 0.5, got 1.5"),
        (GradientPanel, dict(gamma=math.nan), "gamma must be a number from 0.001 to 0.5, got nan"),
        (GradientPanel, dict(d=24), "d must be a whole number from 25 to 100000, got 24"),
        (ValuePanel, dict(m=2_000_000), "m must be a whole number from 100 to 1000000, got 2000000"),
        (FlipsPanel, dict(C0=0), "C0 must be a number from 1.0 to 40.0, got 0"),
    ],
)
def test_widgets_refuse_wrong_values_in_one_sentence(panel, wrong, message):
    with pytest.raises(traitlets.TraitError, match=message):
        panel(**wrong)


@pytest.mark.parametrize("panel", [ValuePanel, FlipsPanel])
def test_where_d_plays_no_part_there_is_none(panel):
    with pytest.raises(ValueError, match="has no d: it takes m, C0, gamma, seed."):
        panel(d=400)


@pytest.mark.browser
@pytest.mark.parametrize("panel", STATES)
def test_results_reach_the_widget(panel, offline_page, tmp_path):
    """What the panel's JavaScript reports, taken by the Python class: every result has its trait and its kind."""
    live = panel(**STATES[panel][1])
    page = tmp_path / "widget.html"
    page.write_text(widget_page(live), encoding="utf-8")
    results = answer_of(offline_page, live, page.as_uri())
    assert all(getattr(live, key) == pytest.approx(value) for key, value in results.items())
    assert live.draws == panel_numbers.NEURONS // live.m
