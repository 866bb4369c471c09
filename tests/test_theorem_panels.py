"""The panels of Lemma 4.4 and Theorem 3.1: their JavaScript against the package, number by number, and in law."""

import math

import numpy as np
import pytest
import theorem_numbers
import torch
import traitlets
from panel_page import answer_of, check_numbers, headline, least_contrasts, overflowing, settle, shown, widget_page
from scipy import stats

import lazy_helpers as lh
from lazy_helpers import lemmas
from lazy_helpers.panels import DifferencePanel, TheoremPanel

STATES = {  # each away from where the panels open
    DifferencePanel: [
        dict(d=25, m=100, C0=1.0, R=0.001, delta="gradient", seed=1),
        dict(d=28, m=100, C0=3.0, R=0.9, delta="random", seed=3),
        dict(d=400, m=4500, C0=40.0, R=0.033, delta="gradient", seed=2**31 - 1),
        dict(d=100_000, m=2000, C0=10.0, R=0.2, delta="random", seed=0),
        dict(d=1_000_000, m=50_000, C0=2.0, R=0.0045, delta="gradient", seed=5),
    ],
    TheoremPanel: [
        dict(d=25, m=100, C0=1.0, R=0.9, lens="network", seed=1),
        dict(d=25, m=200, C0=40.0, R=0.002, lens="ball", seed=3),
        dict(d=400, m=4500, C0=10.0, R=0.033, lens="network", seed=2**31 - 1),
        dict(d=100_000, m=20_000, C0=2.0, R=0.022, lens="ball", seed=0),
        dict(d=1_000_000, m=50_000, C0=1.0, R=0.01, lens="ball", seed=5),
        dict(d=1_000_000, m=50_000, C0=5.0, R=0.0055, lens="paper", seed=6),
    ],
}
CASES = [(panel, state) for panel, states in STATES.items() for state in states]


@pytest.fixture
def maths(panel_maths):
    """A function that evaluates JavaScript among the panels' own names."""
    return panel_maths(
        "{ along, chi, firstFlip, valueAt, valuesTo, turning, singular_bound, streamKey, failing, PANELS }"
    )


# --------------------------------------------------------------------------------------------------------------- the law

LAW = """({ d, m, seeds, radii, way }) => Array.from({ length: seeds }, (_, seed) => {
    const cache = {}, net = lazy.along({ d, m, seed }, way, cache);
    const turns = radii.map((R) => lazy.turning(net, R, cache).at(-1));
    const flip = way === "gradient" ? lazy.firstFlip(net) ?? 2 : 0;
    const [near, far] = turns;
    return [Math.abs(net.f), net.g, near.norm, near.aside, near.switched, far.norm, far.aside, far.norm - near.norm, flip];
})"""


def explicit_law(d, m, seeds, radii, way):
    """The same numbers of whole networks."""
    nets, x = lh.TwoLayerNet.init(d, m, members=(seeds,), seed=10**6, dtype=torch.float64), torch.eye(1, d).double()
    g, f = nets.grad(x), nets(x)
    if way == "gradient":
        ahead = -torch.sign(f)[..., None] * torch.nn.functional.normalize(g, dim=-1)
    else:
        ahead = torch.randn(seeds, 1, d, generator=torch.Generator().manual_seed(0)).double()
        ahead[..., 0] = 0
        ahead = torch.nn.functional.normalize(ahead, dim=-1)
    on = nets.preactivations(x) > 0
    turned = []
    for R in radii:
        turn = lemmas.gradient_difference(nets, x, R * ahead)
        switched = (on != (nets.preactivations(x + R * ahead) > 0)).sum(-2)
        turned.append((turn.norm[:, 0], turn.along[:, 0], switched[:, 0].double()))
    (norm, along, switched), (far_norm, far_along, _) = turned
    flip = lh.smallest_flip(nets, x)
    first = torch.where(flip.found & (flip.norm <= 1), flip.norm, 2.0)[:, 0]
    if way != "gradient":
        first = 0 * first
    parts = (f[:, 0].abs(), g[:, 0].norm(dim=-1), norm, along, switched, far_norm, far_along, far_norm - norm, first)
    return torch.stack(parts, -1).numpy()


@pytest.mark.browser
@pytest.mark.parametrize("way", ["gradient", "random"])
@pytest.mark.parametrize(("d", "m"), [(25, 100), (60, 300)])
def test_what_is_drawn_has_the_law_of_whole_networks(maths, d, m, way):
    case = dict(d=d, m=m, seeds=800, radii=[0.1, 0.5], way=way)
    theirs, ours = np.array(maths(LAW, case)), explicit_law(**case)
    names = ("|f|", "|g|", "norm", "along", "switched", "norm, far", "along, far", "between", "flip")
    for k, name in enumerate(names):
        spread = math.hypot(theirs[:, k].std(), ours[:, k].std()) / math.sqrt(800)
        assert abs(theirs[:, k].mean() - ours[:, k].mean()) <= 4.5 * spread, name
        if theirs[:, k].std():
            assert stats.ks_2samp(theirs[:, k], ours[:, k]).pvalue > 1e-3, name
    for one, other in ((1, 2), (2, 3), (2, 5), (4, 2), (0, 8)):  # and jointly, as far as correlations go
        if theirs[:, other].std():
            here, there = (np.arctanh(np.corrcoef(part[:, one], part[:, other])[0, 1]) for part in (theirs, ours))
            assert abs(here - there) < 4.5 * math.sqrt(2 / 797), (names[one], names[other])


@pytest.mark.browser
def test_a_random_turn_has_the_predicted_size(maths):
    script = """({ d, m, R, seeds }) => Array.from({ length: seeds }, (_, seed) => {
        const cache = {};
        return lazy.turning(lazy.along({ d, m, seed }, "random", cache), R, cache).at(-1).norm ** 2;
    })"""
    for d, R in ((10_000, 0.05), (1_000_000, 0.5)):
        squares = np.array(maths(script, dict(d=d, m=2000, R=R, seeds=200)))
        error = squares.std() / math.sqrt(200)
        assert abs(squares.mean() - lemmas.random_difference(d, R) ** 2) < 4.5 * error


@pytest.mark.browser
@pytest.mark.parametrize("n", [1, 2, 999_998])
def test_lengths_of_vectors_of_any_dimension(maths, n):
    script = "([n, rows]) => { const key = lazy.streamKey(6, 'chi'); return Array.from({ length: rows }, (_, row) => lazy.chi(n, key, row)); }"
    assert stats.kstest(maths(script, [n, 10_000]), "chi", args=(n,)).pvalue > 1e-3


@pytest.mark.browser
def test_largest_singular_values_stay_below_their_bound(maths):
    """Davidson and Szarek: the share of draws beyond the bound stands beside gamma."""
    for d, m in ((20, 20), (10, 60)):
        bound = maths("([d, m]) => lazy.singular_bound(d, m, 0.5)", [d, m])
        assert bound == pytest.approx(theorem_numbers.sigma(d, m, 0.5))
        W = np.random.default_rng(0).standard_normal((2000, m, d))
        assert np.mean(np.linalg.norm(W, 2, axis=(1, 2)) > bound) <= 0.5


@pytest.mark.browser
def test_f_along_the_ray_and_its_first_flip_are_exact(maths):
    script = """({ d, m, seed }) => {
        const net = lazy.along({ d, m, seed }, "gradient", {});
        const radii = Array.from({ length: 33 }, (_, k) => k / 32);
        return { flip: lazy.firstFlip(net), one: radii.map((R) => lazy.valueAt(net, R)), all: lazy.valuesTo(net, 1, 32) };
    }"""
    never = 0
    for seed in range(60):
        d, m = (25, 100) if seed % 2 else (400, 3000)
        found = maths(script, dict(d=d, m=m, seed=seed))
        net, _ = theorem_numbers.plane(d, m, seed, "gradient")
        x, moves = torch.eye(1, 2).double(), theorem_numbers.deltas(net, "gradient", [k / 32 for k in range(33)])
        np.testing.assert_allclose(found["one"], net(x + moves), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found["all"], net(x + moves), rtol=1e-9, atol=1e-9)
        flip = lh.smallest_flip(net, x)
        if flip.found and flip.norm <= 1:
            assert found["flip"] == pytest.approx(float(flip.norm), rel=1e-9)
        else:
            never += 1
            assert found["flip"] is None
    assert never < 30


# -------------------------------------------------------------------------------------------------------------- the page


@pytest.mark.browser
@pytest.mark.parametrize(("panel", "state"), CASES)
def test_page_shows_the_packages_numbers(opened, panel, state):
    live = panel(**state)
    page = opened(live)
    check_numbers(page, live.panel, theorem_numbers.numbers(live.panel, **state))
    assert page.network == [] and page.errors == []


@pytest.mark.browser
def test_numbers_do_not_depend_on_what_was_asked_before(maths):
    """A kept draw serves every smaller m, another R and another C0."""
    script = """([states, wanted]) => {
        const cache = {};
        const answers = states.map(([name, state]) => lazy.PANELS[name].measure(state, cache));
        return JSON.stringify(answers.at(-1)) === JSON.stringify(lazy.PANELS[wanted[0]].measure(wanted[1], {}));
    }"""
    for panel, key, options in (
        ("difference", "delta", ("gradient", "random")),
        ("theorem", "lens", ("ball", "paper")),
    ):
        for option in options:
            state = {**dict(d=100, m=500, C0=3, R=0.05, seed=4), key: option}
            others = [dict(m=3000), dict(d=900), dict(R=0.123), dict(C0=7), dict(seed=9), {key: options[0]}, {}]
            assert maths(script, [[[panel, state | other] for other in others], [panel, state]])


@pytest.mark.browser
def test_the_headline_names_the_term_that_fails(opened):
    page = opened(TheoremPanel(d=1_000_000, m=100_000, C0=2, R=0.02, lens="ball"), DifferencePanel())
    panel = page.locator("[data-panel=theorem]")

    def words(start):
        page.wait_for_function(
            "(start) => document.querySelector('.lp-headline').textContent.startsWith(start)", arg=start
        )
        settle(page, 2)
        return headline(page, "theorem")

    assert "every W of the ball changes its sign" in words("Flip: ")
    assert "empty at this d" in words("Flip: ")
    panel.get_by_label("perturbation radius").press("Home")
    words("Nothing is certified: term (1) fails, the margin")
    panel.get_by_label("perturbation radius").press("End")
    words("Nothing is certified: term (3) fails, the gradient may turn too much")
    panel.get_by_label("size of the lazy ball").press("End")
    panel.get_by_label("input dimension").press("Home")
    words("Nothing is certified: term (2) fails, the gradient is too short for C₀ = 40 at d = 25")
    panel.get_by_label("every W, the paper’s route").check()
    assert "Lemma 4.2’s bound is not above 0" in words("Nothing is certified: term (2) fails")
    page = opened(TheoremPanel(d=25, R=0.001), DifferencePanel())
    words("No flip: term (1) fails")
    assert shown(page, "theorem")["certified_from"] is None
    assert "is vacuous here" in headline(page, "difference")
    page.locator("[data-panel=difference]").get_by_label("input dimension").press("End")
    page.locator("[data-panel=difference]").get_by_label("width").press("End")
    page.locator("[data-panel=difference]").get_by_label("perturbation radius").press("Home")
    page.wait_for_function("!document.querySelectorAll('.lp-headline')[1].textContent.includes('vacuous')")
    settle(page, 2)
    assert "no W of the ball and no δ turns it by more than" in headline(page, "difference")
    assert page.errors == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [340, 700, 1280])
def test_no_state_overflows_at_any_width(opened, width):
    page = opened(*(panel(**state) for panel, state in CASES), width=width)
    assert overflowing(page) == []


@pytest.mark.browser
def test_pictures_speak_to_screen_readers_and_controls_to_the_keyboard(opened):
    page = opened(DifferencePanel(), TheoremPanel(lens="ball"))
    labels = page.locator("svg[role=img]").evaluate_all("(all) => all.map((el) => el.getAttribute('aria-label'))")
    assert len(labels) == 4 and all(len(label) > 60 for label in labels)
    assert not any(word in label for label in labels for word in ("NaN", "undefined", "Infinity"))
    for name in ("difference", "theorem"):
        panel = page.locator(f"[data-panel={name}]")
        for control in panel.locator("input[type=range], input:checked").all():
            before = shown(page, name), headline(page, name)
            control.press("ArrowRight")
            settle(page, 2)
            assert (shown(page, name), headline(page, name)) != before
        assert "R√d = " in panel.get_by_label("perturbation radius").get_attribute("aria-valuetext")
    text = page.locator("body").inner_text()
    assert "NaN" not in text and "undefined" not in text and "Infinity" not in text


@pytest.mark.browser
def test_both_themes_keep_text_readable(opened):
    """Every text has a contrast of at least 4.5 with the panel's ground, and with the tints that lie under the pictures' text."""
    page = opened(DifferencePanel(), TheoremPanel())
    assert min(least_contrasts(page).values()) >= 4.5


# ------------------------------------------------------------------------------------------------------------ the widgets


@pytest.mark.parametrize(
    ("panel", "wrong", "message"),
    [
        (DifferencePanel, dict(R=1.0), "R must be a number from 0.001 to 0.9, got 1.0: for example R=0.1."),
        (TheoremPanel, dict(R=0), "R must be a number from 0.001 to 0.9, got 0"),
        (TheoremPanel, dict(R=math.nan), "R must be a number from 0.001 to 0.9, got nan"),
        (DifferencePanel, dict(delta="worst"), "delta must be one of 'gradient', 'random', got 'worst'."),
        (TheoremPanel, dict(lens="poster"), "lens must be one of 'network', 'ball', 'paper', got 'poster'."),
        (TheoremPanel, dict(d=10**7), "d must be a whole number from 25 to 1000000, got 10000000"),
        (DifferencePanel, dict(m=99), "m must be a whole number from 100 to 1000000, got 99"),
    ],
)
def test_widgets_refuse_wrong_values_in_one_sentence(panel, wrong, message):
    with pytest.raises(traitlets.TraitError, match=message):
        panel(**wrong)


@pytest.mark.browser
@pytest.mark.parametrize(("panel", "state"), CASES)
def test_results_reach_the_widget(panel, state, offline_page, tmp_path):
    """What the panel's JavaScript reports, taken by the Python class: every result has its trait and its kind."""
    live = panel(**state)
    page = tmp_path / "widget.html"
    page.write_text(widget_page(live), encoding="utf-8")
    results = answer_of(offline_page, live, page.as_uri())
    for key, value in results.items():
        assert getattr(live, key) == (value if isinstance(value, str | bool | None) else pytest.approx(value))
    if panel is TheoremPanel:
        assert live.flips == (live.fails is None) == (live.bound < 0)
        assert live.bound == pytest.approx(live.margin - live.R * (live.gradient - live.turning), rel=1e-9, abs=1e-9)
