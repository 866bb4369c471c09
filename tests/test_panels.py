"""The live panels: their JavaScript against the package, the page without a kernel, and the Jupyter widgets."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import traitlets
from panel_page import least_contrasts, overflowing
from scipy import stats

import lazy_helpers as lh
from lazy_helpers.panels import SettingPanel, StepPanel, ball_member, bundle, draw, sphinx_ext
from lazy_helpers.panels.weights import normals, signs
from lazy_helpers.panels.widgets import WEIGHTS, Panel

RELATIVE = 1e-6
STATES = [
    dict(d=25, m=100, C0=1.0, weights="initial", seed=0),
    dict(d=25, m=250, C0=40.0, weights="margin", seed=5),
    dict(d=49, m=999, C0=10.0, weights="random", seed=1),
    dict(d=121, m=1001, C0=30.0, weights="margin", seed=2),
    dict(d=400, m=2000, C0=10.0, weights="initial", seed=2**31 - 1),
    dict(d=784, m=3000, C0=20.0, weights="random", seed=3),
]


# ----------------------------------------------------------------------------- what the package says of a panel's state


def package_step(d, m, C0, weights, seed, **_):
    """The step panel's numbers by `lazy_helpers`, on the same weights in float64."""
    W0, a, x = draw(d, m, seed)
    W = ball_member(W0, a, x, C0, weights, seed)
    net = lh.TwoLayerNet(torch.from_numpy(W), torch.from_numpy(a).double())
    flip = lh.smallest_flip(net, torch.from_numpy(x).double()[None])
    return {
        "f": flip.value.item(),
        "grad_norm": flip.grad_norm.item(),
        "found": flip.found.item(),
        "eta": flip.eta.item() if flip.found else None,
        "delta_norm": flip.norm.item() if flip.found else None,
    }


def shown_step(**state):
    """Those of them that the page shows."""
    return {key: value for key, value in package_step(**state).items() if key != "found"}


def package_setting(d, m, C0, seed, **_):
    """The setting panel's numbers, the extremes by moving every weight along +-x and evaluating the network."""
    W0, a, x = (torch.from_numpy(array).double() for array in draw(d, m, seed))
    V = C0 / math.sqrt(m)
    value = lambda W: lh.TwoLayerNet(W, a)(x[None]).item()  # noqa: E731
    return {
        "flips": int(((W0 @ x).abs() <= V).sum()),
        "f": value(W0),
        "f_min": value(W0 - V * torch.outer(a, x)),
        "f_max": value(W0 + V * torch.outer(a, x)),
    }


def assert_close(found, wanted):
    for key, value in wanted.items():
        if value is None or isinstance(value, bool | int):
            assert found[key] == value, key
        else:
            assert found[key] == pytest.approx(value, rel=RELATIVE, abs=1e-9), key


# ------------------------------------------------------------------------------------------------------------- the draw


def test_draw_is_standard_normal_and_fair():
    W = normals(100, 2000, 0, "W0")
    assert W.dtype == np.float32 and W.shape == (2000, 100)
    assert stats.kstest(W.ravel(), "norm").pvalue > 1e-3
    moments = [float(np.mean(W.astype(float) ** k)) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.05)
    assert np.abs(np.corrcoef(W.T) - np.eye(100)).max() < 5 / math.sqrt(2000)
    a = signs(10_000, 0)
    assert set(a) == {-1, 1} and abs(a.mean()) < 0.04


def test_draws_are_nested_and_streams_are_apart():
    W = normals(30, 200, 7, "W0")
    np.testing.assert_array_equal(W[:150, :25], normals(25, 150, 7, "W0"))
    np.testing.assert_array_equal(signs(150, 7), signs(200, 7)[:150])
    for other in (normals(30, 200, 8, "W0"), normals(30, 200, 7, "boundary")):
        assert abs(np.corrcoef(W.ravel(), other.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("wrong", [dict(d=0), dict(d=1025), dict(m=0), dict(seed=-1)])
def test_draw_refuses_what_it_cannot_draw(wrong):
    with pytest.raises(ValueError, match="draw takes"):
        draw(**{"d": 25, "m": 100, "seed": 0} | wrong)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_members_lie_in_the_ball_and_margin_is_the_best(weights):
    W0, a, x = draw(49, 400, 0)
    W = torch.from_numpy(ball_member(W0, a, x, 10.0, weights, 0))
    ball = lh.LazyBall(torch.from_numpy(W0).double(), 10.0)
    assert ball.contains(W)
    assert ball.distance(W).item() == pytest.approx(0 if weights == "initial" else ball.radius)
    if weights == "margin":
        numbers = package_setting(49, 400, 10.0, 0)
        best = numbers["f_max"] if numbers["f"] > 0 else numbers["f_min"]
        assert package_step(49, 400, 10.0, weights, 0)["f"] == pytest.approx(best)


def test_unknown_member_is_refused():
    with pytest.raises(ValueError, match='"initial", "random" or "margin"'):
        ball_member(*draw(25, 100, 0), 10.0, "best", 0)


# ----------------------------------------------------------------------------------- the JavaScript against the package


@pytest.fixture
def maths(panel_maths):
    """A function that evaluates JavaScript among the panels' own names."""
    return panel_maths(
        "{ draw, TwoLayerNet, ray, smallest_flip, value_range, sign_changes, erf, ballMember, PANELS, D, M, C0 }"
    )


@pytest.mark.browser
def test_javascript_draws_the_same_weights_bit_for_bit(maths):
    script = """({ d, m, seed, all }) => {
        const { W0, a } = lazy.draw(d, m, seed);
        if (all) return [[...W0], [...a]];
        let sum = 0;
        for (const word of new Uint32Array(W0.buffer)) sum = Math.imul(sum ^ word, 0x01000193) >>> 0;
        return sum;
    }"""
    for d, m, seed in ((25, 60, 0), (28, 50, 2**31 - 1)):
        W0, a, _ = draw(d, m, seed)
        theirs = maths(script, dict(d=d, m=m, seed=seed, all=True))
        np.testing.assert_array_equal(np.array(theirs[0], dtype=np.float64), W0.ravel().astype(np.float64))
        np.testing.assert_array_equal(theirs[1], a)
    checksum = 0
    for word in draw(784, 500, 11)[0].view(np.uint32).ravel().tolist():
        checksum = (checksum ^ word) * 0x01000193 & 0xFFFFFFFF
    assert maths(script, dict(d=784, m=500, seed=11, all=False)) == checksum


@pytest.mark.browser
def test_javascript_agrees_with_the_package(maths):
    for state in STATES:
        step = maths("(state) => lazy.PANELS.step.measure(state, {})", state)
        assert_close({**step, "f": step["value"], "delta_norm": step["norm"]}, package_step(**state))
        assert_close(maths("(state) => lazy.PANELS.setting.measure(state, {})", state), package_setting(**state))


@pytest.mark.browser
def test_a_kept_draw_serves_every_smaller_network(maths):
    state = dict(d=100, m=300, C0=10.0, weights="random", seed=4)
    script = """(state) => {
        const cache = {};
        lazy.PANELS.step.measure({ ...state, d: 225, m: 1000 }, cache);
        return lazy.PANELS.step.measure(state, cache);
    }"""
    step = maths(script, state)
    assert_close({**step, "f": step["value"], "delta_norm": step["norm"]}, package_step(**state))


SMALL = """(nets) => nets.map(({ W, a, x }) => {
    const net = new lazy.TwoLayerNet(x.length, a, { B: Float32Array.from(W.flat()), stride: x.length });
    const along = lazy.ray(net, x);
    return { ...lazy.smallest_flip(along), f: net.f(x), grad: [...net.grad(x)] };
})"""


@pytest.mark.browser
def test_value_gradient_and_flip_of_small_networks_found_or_not(maths):
    """Few neurons in few dimensions: often no step flips the sign, which both sides must say of the same networks."""
    rng = np.random.default_rng(0)
    nets = []
    for _ in range(400):
        m, d = rng.integers(1, 9), rng.integers(1, 5)
        W, a, x = rng.standard_normal((m, d)), rng.choice([-1.0, 1.0], m), rng.standard_normal(d)
        nets.append((W.astype(np.float32).astype(float), a, x))
    theirs = maths(SMALL, [dict(zip(("W", "a", "x"), map(np.ndarray.tolist, net), strict=True)) for net in nets])
    found = 0
    for (W, a, x), js in zip(nets, theirs, strict=True):
        net, x = lh.TwoLayerNet(torch.from_numpy(W), torch.from_numpy(a)), torch.from_numpy(x)[None]
        flip = lh.smallest_flip(net, x)
        assert js["f"] == pytest.approx(net(x).item(), rel=RELATIVE, abs=1e-12)
        np.testing.assert_allclose(js["grad"], net.grad(x)[0].numpy(), rtol=RELATIVE, atol=1e-12)
        assert js["found"] == flip.found.item()
        if js["found"]:
            found += 1
            assert js["eta"] == pytest.approx(flip.eta.item(), rel=RELATIVE)
            assert js["norm"] == pytest.approx(flip.norm.item(), rel=RELATIVE)
        else:
            assert js["eta"] is None and js["norm"] is None
    assert 50 < found < 350


@pytest.mark.browser
def test_touching_zero_is_no_flip(maths):
    silent = dict(W=[[3, 0], [1, 0], [2, 1]], a=[1, 1, 1], x=[1, 0])  # f falls to 0 as every neuron falls silent
    linear = dict(W=[[1, 0], [-1, 0]], a=[1, -1], x=[0.3, 0.4])  # f = x_1 / sqrt 2: the flip is at |f| / ||grad f||^2
    silent, linear = maths(SMALL, [silent, linear])
    assert not silent["found"] and silent["eta"] is None
    assert linear["found"] and linear["eta"] == pytest.approx(0.3 * math.sqrt(2))


@pytest.mark.browser
def test_the_range_over_the_ball_bounds_every_member_and_erf_is_scipys(maths):
    W0, a, x = draw(25, 60, 9)
    low, high = maths("({ u, a, V }) => lazy.value_range(u, a, V)", dict(u=W0[:, 0].tolist(), a=a.tolist(), V=0.5))
    rng = np.random.default_rng(1)
    values = []
    for _ in range(300):
        step = rng.standard_normal(W0.shape)
        step *= 0.5 * rng.random() / np.linalg.norm(step, axis=1, keepdims=True)
        values.append(a @ np.maximum((W0 + step) @ x, 0) / math.sqrt(60))
    assert low <= min(values) and max(values) <= high
    numbers = package_setting(25, 60, 0.5 * math.sqrt(60), 9)
    assert (low, high) == pytest.approx((numbers["f_min"], numbers["f_max"]))
    z = np.linspace(0, 4, 9)
    ours = maths("(z) => z.map(lazy.erf)", z.tolist())
    np.testing.assert_allclose(ours, 1 - 2 * stats.norm.sf(z * math.sqrt(2)), rtol=1e-12)


@pytest.mark.browser
def test_sliders_offer_what_the_widgets_accept(maths):
    tables = maths("() => Object.entries(lazy.PANELS).map(([name, { controls }]) => [name, controls])")
    widgets = {panel.class_traits()["panel"].default_value: panel for panel in Panel.__subclasses__()}
    assert sorted(widgets) == sorted(name for name, _ in tables)
    for name, controls in tables:
        panel = widgets[name]
        assert [*controls, "seed"] == list(panel.INPUTS)
        for key, control in controls.items():
            trait = panel.class_traits()[key]
            if "values" in control:
                assert (control["values"][0], control["values"][-1]) == (trait.low, trait.high)
                assert sorted(set(control["values"])) == control["values"] and trait.default_value in control["values"]
            else:
                assert tuple(control["options"]) == trait.words


def test_modules_that_do_not_join_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "FOLDER", tmp_path)
    (tmp_path / "one.mjs").write_text("export const a = 1;\n")
    (tmp_path / "two.mjs").write_text('import { a } from "./one.mjs";\nexport function b() {}\n')
    (tmp_path / "three.mjs").write_text("export default 1;\nconst a = 2;\n")
    assert bundle.joined(["one", "two"]) == "const a = 1;\n\nfunction b() {}\n"
    with pytest.raises(ValueError, match="cannot be joined: not understood .*default.*, declared twice .'a'."):
        bundle.joined(["one", "three"])


# -------------------------------------------------------------------------------------------- the page without a kernel


def marker(panel):
    return panel._repr_mimebundle_()[0]["text/html"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder of HTML that Sphinx built: `panels.html` with both panels' stored outputs, `plain.html` with none."""
    from sphinx.application import Sphinx

    root = tmp_path_factory.mktemp("panels")
    raw = "\n".join(marker(panel) for panel in (SettingPanel(), StepPanel(d=100, m=500)))
    (root / "conf.py").write_text('extensions = ["lazy_helpers.panels.sphinx_ext"]\nhtml_theme = "basic"\n')
    (root / "index.rst").write_text("Start\n=====\n\n.. toctree::\n\n   panels\n   plain\n")
    (root / "panels.rst").write_text("Panels\n======\n\n.. raw:: html\n\n   " + raw.replace("\n", "\n   ") + "\n")
    (root / "plain.rst").write_text("Plain\n=====\n\nNo panel.\n")
    app = Sphinx(root, root, root / "html", root / "doctrees", "html", status=None, warningiserror=True)
    app.build()
    return root / "html"


def open_panels(page, built, query=""):
    """The page at its first answers."""
    page.goto((built / "panels.html").as_uri() + query)
    settle(page)
    return {name: page.locator(f"[data-panel={name}]") for name in ("setting", "step")}


def settle(page):
    answered = "document.querySelectorAll('.lazy-panel[aria-busy=false] .lp-number[data-value]').length"
    page.wait_for_function(f"{answered} === 14")


def numbers_of(panel):
    script = "(all) => Object.fromEntries(all.map((el) => [el.dataset.key, JSON.parse(el.dataset.value)]))"
    return panel.locator(".lp-number").evaluate_all(script)


def test_only_pages_with_a_panel_carry_the_script(built):
    assert "lazyPanels" in (built / "panels.html").read_text(encoding="utf-8")
    plain = (built / "plain.html").read_text(encoding="utf-8")
    assert "lazyPanels" not in plain and "lazy-panel" not in plain


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_live_and_equals_the_package(offline_page, built, theme):
    page = offline_page
    panels = open_panels(page, built)
    page.evaluate("(theme) => (document.documentElement.dataset.theme = theme)", theme)
    state = dict(d=400, m=2000, C0=10, seed=0)
    assert_close(numbers_of(panels["setting"]), package_setting(**state))
    panels["setting"].get_by_label("size of the lazy ball").press("ArrowRight")
    panels["setting"].get_by_label("width").press("Home")
    panels["setting"].get_by_role("button", name="New draw").press("Enter")
    settle(page)
    assert_close(numbers_of(panels["setting"]), package_setting(**state | dict(C0=11, m=100, seed=1)))

    state = dict(d=100, m=500, C0=10, weights="initial", seed=0)
    assert_close(numbers_of(panels["step"]), shown_step(**state))
    panels["step"].get_by_label("input dimension").press("ArrowRight")
    panels["step"].get_by_label("largest margin at x").check()
    settle(page)
    assert_close(numbers_of(panels["step"]), shown_step(**state | dict(d=121, weights="margin")))

    assert page.network == [] and page.errors == []


@pytest.mark.browser
def test_both_themes_keep_text_readable(offline_page, built):
    """Every text of a panel, axes too, has a contrast of at least 4.5 with the panel's ground (WCAG 2, level AA)."""
    open_panels(offline_page, built)
    assert min(least_contrasts(offline_page).values()) >= 4.5


@pytest.mark.browser
def test_radius_is_answered_in_words(offline_page, built):
    panel = open_panels(offline_page, built)["step"]
    delta_norm = package_step(100, 500, 10, "initial", 0)["delta_norm"]
    radius = panel.get_by_label("perturbation radius")
    radius.press("Home")
    assert panel.locator(".lp-headline").text_content().startswith("Not within R")
    radius.press("End")
    assert panel.locator(".lp-headline").text_content().startswith("Within R")
    assert 0.01 < delta_norm < 1
    assert radius.get_attribute("aria-valuetext").startswith("1, ")
    offline_page.wait_for_function("document.querySelectorAll('.lp-spoken')[1].textContent.startsWith('Within R')")
    assert panel.get_attribute("role") == "group" and panel.locator("svg[role=img][aria-label]").count() == 1


@pytest.mark.browser
def test_state_goes_round_through_the_address(offline_page, built):
    page = offline_page
    panels = open_panels(page, built, "?theirs=1#panels")
    panels["step"].get_by_label("input dimension").press("End")
    panels["step"].get_by_label("random, on the boundary").check()
    panels["setting"].get_by_role("button", name="New draw").click()
    page.wait_for_function("['step.weights=random', 'setting.seed=1'].every((part) => location.search.includes(part))")
    settle(page)
    kept = {name: numbers_of(panel) for name, panel in panels.items()}
    address = page.url
    assert address.endswith("#panels") and "theirs=1" in address and "step.d=784" in address

    page.goto("about:blank")
    page.goto(address)
    settle(page)
    assert {name: numbers_of(panel) for name, panel in panels.items()} == kept
    for panel in panels.values():
        panel.get_by_role("button", name="Reset").click()
    page.wait_for_function("!location.search.includes('step.') && !location.search.includes('setting.')")
    settle(page)
    assert_close(numbers_of(panels["step"]), shown_step(d=100, m=500, C0=10, weights="initial", seed=0))


@pytest.mark.browser
def test_nonsense_in_the_address_is_passed_over(offline_page, built):
    query = "?step.d=7&step.m=1e9&step.C0=x&step.R=&step.weights=toString&step.seed=1.5&step.other=2&setting.C0=12.5"
    panels = open_panels(offline_page, built, query)
    assert_close(numbers_of(panels["step"]), shown_step(d=100, m=500, C0=10, weights="initial", seed=0))
    assert_close(numbers_of(panels["setting"]), package_setting(400, 2000, 12.5, 0))
    assert offline_page.errors == []


BROKEN_WORKER = """window.Worker = class {
    constructor() { setTimeout(() => this.onerror(new Event("error", { cancelable: true }))); }
    postMessage() {}
}"""


@pytest.mark.browser
@pytest.mark.parametrize("hindrance", ["delete window.Worker", BROKEN_WORKER])
def test_a_browser_without_workers_still_answers(offline_page, built, hindrance):
    offline_page.add_init_script(hindrance)
    panels = open_panels(offline_page, built)
    assert_close(numbers_of(panels["step"]), shown_step(d=100, m=500, C0=10, weights="initial", seed=0))


@pytest.mark.browser
def test_a_narrow_page_does_not_overflow(offline_page, built):
    offline_page.set_viewport_size({"width": 340, "height": 800})
    open_panels(offline_page, built, "?step.d=784&step.m=10000&setting.m=10000&setting.d=784")
    assert overflowing(offline_page) == []


# --------------------------------------------------------------------------------------------------- the Jupyter widget


@pytest.mark.parametrize(
    ("panel", "wrong", "message"),
    [
        (SettingPanel, dict(d=24), "d must be a whole number from 25 to 784, got 24: for example d=400."),
        (SettingPanel, dict(m=1000.5), "m must be a whole number from 100 to 10000, got 1000.5"),
        (SettingPanel, dict(C0=0), "C0 must be a number from 1.0 to 40.0, got 0"),
        (StepPanel, dict(R=math.nan), "R must be a number from 0.01 to 1.0, got nan"),
        (StepPanel, dict(seed=True), "seed must be a whole number"),
        (StepPanel, dict(weights="best"), "weights must be one of 'initial', 'random', 'margin', got 'best'."),
    ],
)
def test_widgets_refuse_wrong_values_in_one_sentence(panel, wrong, message):
    with pytest.raises(traitlets.TraitError, match=message):
        panel(**wrong)
    live = panel()
    with pytest.raises(traitlets.TraitError, match=message):
        setattr(live, *next(iter(wrong.items())))


def test_widgets_refuse_unknown_names():
    with pytest.raises(ValueError, match="SettingPanel has no R: it takes d, m, C0, seed."):
        SettingPanel(R=0.1)


def test_widget_traits_go_both_ways_and_results_are_never_stale():
    panel = StepPanel(d=np.int64(49), m=300)
    assert panel.state == dict(d=49, m=300, C0=10.0, R=0.1, weights="initial", seed=0) and panel.f is None
    panel.set_state({"C0": 20, "weights": "margin"})  # as a slider in JupyterLab does
    assert panel.C0 == 20.0 and panel.V == pytest.approx(20 / math.sqrt(300))
    results = dict.fromkeys(panel.RESULTS) | dict(f=1, grad_norm=4.5, found=False)
    panel.set_state({"_answer": {"state": {**panel.state, "C0": 20}, "results": results}})
    assert (panel.f, panel.grad_norm, panel.found, panel.eta) == (1.0, 4.5, False, None)
    panel.d = 64
    assert all(getattr(panel, key) is None for key in panel.RESULTS)
    panel.d = 49  # the answer on hand is to this very question
    assert panel.f == 1.0
    with pytest.raises(traitlets.TraitError, match="read-only"):
        panel.f = 2.0


def test_stored_output_is_the_same_every_time():
    def stored():
        data = SettingPanel(C0=5)._repr_mimebundle_()[0]
        del data["application/vnd.jupyter.widget-view+json"]  # the kernel's business, and skipped by nbval
        return data

    assert stored() == stored()
    assert stored()["text/plain"] == "SettingPanel(d=400, m=2000, C0=5.0, seed=0)"
    assert sphinx_ext.MARKER in stored()["text/html"]


@pytest.mark.browser
def test_widget_module_follows_its_model_and_reports(offline_page, tmp_path):
    """The module that anywidget loads, against a model of the shape that anywidget promises."""
    model = """
        const traits = TRAITS, heard = {};
        window.saves = 0;
        window.model = {
            get: (key) => traits[key],
            set: (key, value) => {
                if (traits[key] === value) return;
                traits[key] = value;
                heard[`change:${key}`]?.forEach((call) => call());
            },
            on: (event, call) => (heard[event] ??= new Set()).add(call),
            off: (event, call) => heard[event].delete(call),
            save_changes: () => window.saves++,
            traits, heard,
        };
        document.body.append(document.createElement("main"));
        window.panel = panel;
        window.close_panel = panel.render({ model: window.model, el: document.querySelector("main") });
    """
    traits = json.dumps({"panel": "step", **StepPanel(d=64, m=200).state})
    script = bundle.widget_module().replace("export default", "const panel =") + model.replace("TRAITS", traits)
    page = tmp_path / "widget.html"
    page.write_text(f'<meta charset="utf-8"><body><script type="module">{script}</script>', encoding="utf-8")
    offline_page.goto(page.as_uri())

    def answer(**state):
        wanted = package_step(**dict(d=64, m=200, C0=10, weights="initial", seed=0) | state)
        told = "(state) => Object.keys(state).every((key) => model.traits._answer?.state[key] === state[key])"
        offline_page.wait_for_function(told, arg={"d": 64} | state)
        assert_close(offline_page.evaluate("model.traits._answer.results"), wanted)

    answer()
    offline_page.evaluate("model.set('weights', 'margin')")
    answer(weights="margin")
    offline_page.get_by_label("size of the lazy ball").press("ArrowLeft")
    answer(weights="margin", C0=9)
    assert offline_page.evaluate("[model.traits.C0, location.search]") == [9, ""]

    # A second view of the same model, as JupyterLab makes one for each output: no id or radio group is shared.
    offline_page.evaluate("void panel.render({ model: window.model, el: document.body })")
    ids = offline_page.evaluate("[...document.querySelectorAll('[id]')].map((el) => el.id)")
    assert len(ids) == len(set(ids)) and offline_page.get_by_label("input dimension").count() == 2
    assert offline_page.locator("input:checked").count() == 2
    offline_page.evaluate("close_panel()")
    assert set(offline_page.evaluate("Object.values(model.heard).map((calls) => calls.size)")) == {1}  # the second's
    assert offline_page.errors == []


def test_the_package_does_not_import_its_panels():
    script = "import sys, lazy_helpers; print({'lazy_helpers.panels', 'anywidget', 'matplotlib'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
