"""The panels of the ascent: their JavaScript against activations, landscape, curvature and dynamics, and the panels in a page."""

import math

import numpy as np
import pytest
import torch
import traitlets
from panel_page import answer_of, headline, least_contrasts, overflowing, settle, shown, widget_page

from lazy_helpers import curvature, dynamics
from lazy_helpers.activations import ACTIVATIONS
from lazy_helpers.landscape import Network, inner_problem
from lazy_helpers.panels import ScalePanel, SpherePanel, draw
from lazy_helpers.panels.weights import normals, signs

SMOOTH = ("tanh", "softplus", "quadratic")


@pytest.fixture
def maths(panel_maths):
    """A function that evaluates JavaScript among the panels' own names."""
    return panel_maths(
        "{ ACTIVATIONS, Network, Inner, inner_problem, gradient_start, stationarity, radial, top_eigenvalue, smallest_element,"
        " pga, predicted_steps, second_maximum, profile, critical_scale, grid, gridMaxima, seen, unseen, geodesic, PANELS }"
    )


def drawn(d, m, activation, s=1.0, rho=0.3, y=1.0, seed=0):
    """A random network and input: what JavaScript is given, and the package's problem of one member and one point."""
    rng = np.random.default_rng(seed)
    W, a = rng.standard_normal((m, d)), rng.choice([-1.0, 1.0], m)
    x0, delta, v = rng.standard_normal((3, d))
    x0, delta = x0 / np.linalg.norm(x0), rho * s * delta / np.linalg.norm(delta)
    given = dict(
        d=d, W=W.ravel().tolist(), a=a.tolist(), activation=activation,
        x0=x0.tolist(), s=s, rho=rho, y=y, delta=delta.tolist(), v=v.tolist(),
    )  # fmt: skip
    net = Network(torch.from_numpy(W), torch.from_numpy(a), ACTIVATIONS[activation])
    point = lambda t: torch.from_numpy(t)[None]  # noqa: E731
    problem = inner_problem(net, point(x0), y, s, rho)
    return given, problem, point(delta), point(v)


MADE = """const make = ({ d, W, a, activation, x0, s, rho, y }) => {
    const net = new lazy.Network(d, Float64Array.from(a), Float64Array.from(W), activation);
    return lazy.inner_problem(net, Float64Array.from(x0), y, s, rho);
};"""

LOOK = """(all) => { MADE return all.map((given) => {
    const problem = make(given), delta = Float64Array.from(given.delta), smooth = problem.net.sigma.second !== null;
    return {
        f: problem.net.value(problem.at(delta)),
        grad: [...problem.net.value_and_grad(problem.at(delta)).g],
        value: problem.value(delta),
        residual: problem.residual(delta),
        G: [...problem.grad(delta)],
        Hv: smooth ? [...problem.hvp(delta)(Float64Array.from(given.v))] : null,
        kappa: lazy.stationarity(problem, delta),
        radial: lazy.radial(problem, delta),
        top: smooth ? lazy.top_eigenvalue(problem, delta) : null,
        up: [...lazy.gradient_start(problem, 1)],
        down: [...lazy.gradient_start(problem, -1)],
    };
}); }""".replace("MADE", MADE)


# ------------------------------------------------------------------------------------------------------------- the maths


@pytest.mark.browser
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_their_derivatives_are_the_packages(maths, activation):
    z = [*np.linspace(-15, 15, 61), -200.0, 200.0, 1e-9]
    script = """([name, z]) => {
        const { value, first, second } = lazy.ACTIVATIONS[name];
        return [z.map(value), z.map((at) => first(at, value(at))), second && z.map((at) => second(at, value(at)))];
    }"""
    found, sigma, at = maths(script, [activation, z]), ACTIVATIONS[activation], torch.tensor(z, dtype=torch.float64)
    assert (found[2] is None) == (sigma.second is None)
    for theirs, ours in zip(found, (sigma.value, sigma.first, sigma.second), strict=True):
        if ours is not None:
            np.testing.assert_allclose(theirs, ours(at), rtol=1e-9, atol=1e-14)


@pytest.mark.browser
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_gradient_hessian_and_curvature_are_the_packages(maths, activation):
    cases = [
        drawn(d, m, activation, s, rho, y, seed)
        for seed, (d, m, s, rho, y) in enumerate(
            [(2, 10, 0.05, 0.9, 1.0), (2, 3000, 10.0, 0.05, -1.0), (3, 50, 1.0, 0.3, -1.0), (3, 1, 3.0, 0.9, 1.0),
             (5, 100, 0.4, 0.3, 1.0), (50, 100, 2.0, 0.3, -1.0), (101, 60, 5.0, 0.2, 1.0)]
        )
    ]  # fmt: skip
    for (_, problem, delta, v), js in zip(cases, maths(LOOK, [given for given, *_ in cases]), strict=True):
        x = problem.x + delta
        wanted = {
            "f": problem.net(x),
            "grad": problem.net.grad(x)[0],
            "value": problem.value(delta),
            "residual": problem.residual(delta),
            "G": problem.grad(delta)[0],
            "kappa": curvature.stationarity(problem, delta),
            "radial": curvature.radial(problem, delta),
            "up": dynamics.gradient_start(problem)[0],
            "down": dynamics.gradient_start(problem, -1)[0],
        }
        if activation in SMOOTH:
            wanted |= {"Hv": problem.hvp(delta, v)[0], "top": curvature.top_eigenvalue(problem, delta)}
        for key, value in wanted.items():
            size = float(value.abs().max())
            np.testing.assert_allclose(np.atleast_1d(js[key]), value, rtol=1e-8, atol=1e-9 * (1 + size), err_msg=key)


@pytest.mark.browser
@pytest.mark.parametrize("activation", SMOOTH)
def test_the_inner_derivatives_are_autograds(maths, activation):
    """Without the package: L written out, differentiated by torch."""
    given, problem, delta, v = drawn(4, 30, activation, 1.3, 0.4, -1.0, 7)
    W, a = problem.net.W, problem.net.a
    sigma = {"tanh": torch.tanh, "softplus": torch.nn.functional.softplus, "quadratic": lambda z: z**2 / 2}[activation]

    def L(at):
        return ((sigma(W @ (problem.x[0] + at)) @ a) / math.sqrt(30) + 1) ** 2 / 2

    G, H = torch.autograd.functional.jacobian(L, delta[0]), torch.autograd.functional.hessian(L, delta[0])
    n = delta[0] / delta.norm()
    P = torch.eye(4).double() - torch.outer(n, n)
    R = P @ H @ P - (G @ n / delta.norm()) * P
    top = torch.linalg.eigvalsh(R - 1e6 * torch.outer(n, n))[-1]
    js = maths(LOOK, [given])[0]
    np.testing.assert_allclose(js["value"], L(delta[0]), rtol=1e-10)
    np.testing.assert_allclose(js["G"], G, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(js["Hv"], H @ v[0], rtol=1e-9, atol=1e-11)
    assert js["top"] == pytest.approx(float(top), rel=1e-7, abs=1e-8)
    assert js["kappa"] == pytest.approx(float((P @ G).norm() / G.norm()), rel=1e-10)


PGA = """([all, how]) => { MADE return all.map((given) => {
    const problem = make(given), { path, delta, ...rest } = lazy.pga(problem, Float64Array.from(given.delta), { ...how, record: true });
    return { ...rest, delta: [...delta], path: { ...path, delta: path.delta.map((at) => [...at]) } };
}); }""".replace("MADE", MADE)

ASCENTS = [
    dict(eta=1.0, rule="current", max_steps=300),
    dict(eta=0.3, rule="first", max_steps=200),
    dict(eta=1.0, rule="current", max_steps=25),
    dict(eta=2.0, rule="first", max_steps=100, decay=0.1),
]


@pytest.mark.browser
@pytest.mark.parametrize("how", ASCENTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_ascent_is_the_packages_step_by_step(maths, activation, how):
    cases = [
        drawn(d, m, activation, s, 0.3, y, seed)
        for seed, (d, m, s, y) in enumerate([(2, 200, 0.3, 1.0), (3, 100, 1.0, -1.0), (20, 50, 0.7, 1.0)])
    ]
    if activation == "relu":
        how = how | dict(max_steps=25)  # chattering at a kink, the two sums drift apart
    for (_, problem, delta, _), js in zip(cases, maths(PGA, [[given for given, *_ in cases], how]), strict=True):
        ours = dynamics.pga(problem, delta, record=True, **how)
        assert js["steps"] == int(ours.steps) and js["status"] == ours.status.item()
        assert js["converged"] == bool(ours.converged)
        np.testing.assert_allclose(js["delta"], ours.delta[0], rtol=1e-6, atol=1e-9)
        assert js["value"] == pytest.approx(float(ours.value), rel=1e-9)
        top = float(ours.top)
        assert js["top"] == (top if math.isinf(top) else pytest.approx(top, rel=1e-6, abs=1e-6))
        np.testing.assert_allclose(js["path"]["delta"], ours.path.delta[:, 0], rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(js["path"]["value"], ours.path.value[:, 0], rtol=1e-8)
        np.testing.assert_allclose(js["path"]["stationarity"], ours.path.stationarity[:, 0], rtol=1e-4, atol=1e-8)


@pytest.mark.browser
def test_a_linear_slope_is_climbed_as_the_angle_to_it_predicts(maths):
    """Far below the critical scale the angle theta to G follows tan theta' = sin theta / (cos theta + eta), about a factor 1 + eta a step."""
    for eta in (0.1, 1.0, 10.0):
        wanted = dynamics.predicted_steps(1e-6, eta)
        assert maths("(eta) => lazy.predicted_steps(1e-6, eta)", eta) == pytest.approx(wanted, rel=1e-12)
        given, problem, delta, _ = drawn(3, 2000, "tanh", 1e-5, 0.1)
        G = problem.grad(delta)[0]
        angle, steps = math.acos(float(G @ delta[0] / G.norm() / delta.norm())), 0
        while math.sin(angle) > 1e-6:
            angle, steps = math.atan2(math.sin(angle), math.cos(angle) + eta), steps + 1
        found = maths(PGA, [[given], dict(eta=eta)])[0]
        assert abs(found["steps"] - steps) <= 1 and found["top"] == pytest.approx(-1, abs=1e-3)
        rates = np.array(found["path"]["stationarity"][-3:])
        np.testing.assert_allclose(rates[1:] / rates[:-1], 1 / (1 + eta), rtol=0.01)


SECOND = """([all, how]) => { MADE return all.map((given) => {
    const { predicted, found, up, down } = lazy.second_maximum(make(given), how);
    return { predicted, found, up: up.steps, down: down.steps };
}); }""".replace("MADE", MADE)


@pytest.mark.browser
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_second_maxima_are_the_packages(maths, activation):
    cases = [
        drawn(d, m, activation, s, 0.3, 1.0, 10 * seed + k)
        for seed in range(6)
        for k, (d, m, s) in enumerate([(3, 200, 1.0), (30, 100, 0.3), (30, 100, 1.0), (50, 80, 2.0)])
    ]
    how = dict(eta=1.0, tol=1e-3, max_steps=60, decay=0.1 if activation == "relu" else 0.0)
    both = [0, 0]
    for (_, problem, _, _), js in zip(cases, maths(SECOND, [[given for given, *_ in cases], how]), strict=True):
        ours = dynamics.second_maximum(problem, **how)
        assert js["predicted"] == bool(ours.predicted)
        assert (js["up"], js["down"]) == (int(ours.up.steps), int(ours.down.steps))
        assert js["found"] == bool(ours.found)
        both[js["found"]] += 1
    assert min(both) >= 2  # the draws hold both kinds


CRITICAL = """(all) => { MADE return all.map((given) => {
    const { net } = make(given);
    return lazy.critical_scale(net, lazy.profile(net, Float64Array.from(given.x0)), given.y, given.rho);
}); }""".replace("MADE", MADE)


@pytest.mark.browser
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_critical_scales_are_the_packages_and_relus_closed_form(maths, activation):
    cases = [drawn(d, 150, activation, 1.0, rho, y, k) for k, (d, rho, y) in enumerate([(2, 0.05, 1.0), (5, 0.3, -1.0), (50, 0.9, 1.0)] * 4)]  # fmt: skip
    never = 0
    for (given, problem, _, _), js in zip(cases, maths(CRITICAL, [given for given, *_ in cases]), strict=True):
        ours = dynamics.critical_scale(problem.net, problem.x, given["y"], given["rho"])
        assert (js is not None) == bool(ours.found)
        never += js is None
        if js is not None:
            assert js == pytest.approx(float(ours.scale), rel=1e-9)
        if activation == "relu":
            f, g = problem.net.value_and_grad_at(problem.x)
            below = given["rho"] * float(g.norm()) + given["y"] * float(f)
            if below > 0:
                assert js == pytest.approx(1 / below, rel=1e-9)
            else:
                assert js is None
    assert never < len(cases)


KINKS = """(all) => { MADE return all.map((given) => lazy.smallest_element(make(given), Float64Array.from(given.delta), given.reach)); }""".replace("MADE", MADE)  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize("reach", [1e-2, 0.05])
def test_a_relus_kinks_are_judged_as_the_package_does(maths, reach):
    cases = [
        drawn(d, m, "relu", 1.0, 0.3, y, seed)
        for seed, (d, m, y) in enumerate([(2, 30, 1.0), (3, 100, -1.0), (10, 200, 1.0), (40, 60, -1.0)] * 6)
    ]
    active = 0
    found = maths(KINKS, [given | dict(reach=reach) for given, *_ in cases])
    for (given, problem, delta, _), js in zip(cases, found, strict=True):
        ours = curvature.smallest_element(problem, delta, reach)
        assert js["active"] == int(ours.active)
        assert js["stationarity"] == pytest.approx(float(ours.stationarity), rel=1e-5, abs=1e-8)
        if js["active"] < given["d"]:  # else gates that balance one another are not unique
            assert (js["ridges"], js["upward"]) == (int(ours.ridges), int(ours.upward))
        active += js["active"]
    assert active >= 10


@pytest.mark.browser
def test_a_relus_ascent_settles_on_its_kinks(maths):
    """Where the package says a local maximum, the panel's mathematics does."""
    how = dict(eta=1.0, tol=1e-6, max_steps=300, decay=0.1)
    cases = [drawn(d, m, "relu", s, 0.3, 1.0, k) for k, (d, m, s) in enumerate([(2, 100, 1.0), (3, 300, 0.3), (20, 100, 2.0)] * 4)]  # fmt: skip
    settled = 0
    for (_, problem, delta, _), js in zip(cases, maths(PGA, [[given for given, *_ in cases], how]), strict=True):
        ours = dynamics.pga(problem, delta, **how)
        assert js["converged"] == bool(ours.converged)
        assert js["status"] == ours.status.item()
        settled += js["status"] == dynamics.MAXIMUM
    assert settled > 6


# ------------------------------------------------------------------------------------------------------ the sphere panel

SPHERES = [  # each away from where the panel opens
    dict(s=0.1, rho=0.3, m=100, eta=1.0, d=3, y=-1, rule="first", activation="tanh", seed=1),
    dict(s=2.0, rho=0.6, m=500, eta=0.5, d=2, y=1, rule="current", activation="softplus", seed=0),
    dict(s=1.3, rho=0.6, m=300, eta=2.0, d=3, y=1, rule="current", activation="quadratic", seed=3),
    dict(s=5.0, rho=0.9, m=3000, eta=0.05, d=2, y=-1, rule="first", activation="tanh", seed=2**31 - 1),
    dict(s=0.5, rho=0.5, m=10, eta=1.0, d=3, y=1, rule="current", activation="relu", seed=4),
]
DEGREE = math.pi / 180


def sphere_problem(s, rho, m, d, y, activation, seed, **_):
    """The panel's problem, of one member and `points` copies of its input."""
    W, a, x = (torch.from_numpy(part).double() for part in draw(d, m, seed))
    net = Network(W, a, ACTIVATIONS[activation])
    return lambda points: inner_problem(net, x.expand(points, -1), y, s, rho)


def frame_of(problem):
    """Rows: along G at delta = 0, then in its plane with x, then across both."""
    G, x = problem.grad(torch.zeros_like(problem.x))[0].numpy(), problem.x[0].numpy()
    d, rows = len(x), []
    for v in (G, x, *np.eye(d)):
        rest = v - sum(((v @ row) * row for row in rows), np.zeros(d))
        if len(rows) < d and np.linalg.norm(rest) > 1e-6 * np.linalg.norm(v):
            rows.append(rest / np.linalg.norm(rest))
    return np.array(rows)


def directions(d):
    """Where the starts stand at first, and the grid, in the frame's coordinates."""

    def spread(angle, around):
        return [math.cos(angle), math.sin(angle) * math.cos(around), math.sin(angle) * math.sin(around)]

    if d == 2:
        ring = [[math.cos(2 * math.pi * k / 720), math.sin(2 * math.pi * k / 720)] for k in range(720)]
        return [[math.cos(angle * DEGREE), math.sin(angle * DEGREE)] for angle in (80, -125, 168)], ring
    starts = [spread(angle * DEGREE, around * DEGREE) for angle, around in ((72, -14), (112, -116), (150, -35))]
    return starts, [spread(5 * row * DEGREE, 5 * k * DEGREE) for row in range(37) for k in range(72)]


def ascents(state, units):
    """The package's runs from these directions of the frame."""
    problem = sphere_problem(**state)(len(units))
    start = dynamics.on_sphere(problem, torch.tensor(np.array(units) @ frame_of(problem)))
    decay = 0.1 if state["activation"] == "relu" else 0.0
    return dynamics.pga(problem, start, eta=state["eta"], rule=state["rule"], max_steps=300, decay=decay)


@pytest.mark.browser
@pytest.mark.parametrize("state", SPHERES)
def test_the_sphere_panel_shows_the_packages_ascents(offline_page, tmp_path, state):
    live = SpherePanel(**state)
    page = tmp_path / "widget.html"
    page.write_text(widget_page(live), encoding="utf-8")
    results = answer_of(offline_page, live, page.as_uri())
    starts, _ = directions(state["d"])
    ours = ascents(state, starts)
    assert results["steps"] == live.steps == ours.steps.tolist()
    np.testing.assert_allclose(live.value, ours.value, rtol=1e-6)
    converged = [status != dynamics.NOT_CONVERGED for status in live.status]
    assert converged == ours.converged.tolist()
    assert live.status == ours.status.tolist()
    assert live.predicted_steps == pytest.approx(dynamics.predicted_steps(1e-6, state["eta"]))
    problem = sphere_problem(**state)(1)
    assert live.predicted == bool(dynamics.second_maximum(problem, max_steps=1).predicted)
    critical = dynamics.critical_scale(problem.net, problem.x / state["s"], state["y"], state["rho"], 0.01, 100.0)
    assert live.critical == (pytest.approx(float(critical.scale), rel=1e-6) if critical.found else None)
    assert offline_page.errors == [] and offline_page.network == []


@pytest.mark.browser
@pytest.mark.parametrize("state", SPHERES)
def test_the_sampled_sphere_and_its_maxima(maths, state):
    data = maths("""(state) => {
        const { frame, residual, maxima } = lazy.PANELS.sphere.measure(state, {});
        return { frame: frame.map((axis) => [...axis]), residual: [...residual], maxima, grid: lazy.grid(state.d) };
    }""", state)  # fmt: skip
    _, units = directions(state["d"])
    problem = sphere_problem(**state)(len(units))
    np.testing.assert_allclose(data["frame"], frame_of(problem), atol=1e-6)
    np.testing.assert_allclose(data["grid"], units, atol=1e-12)
    r = problem.residual(dynamics.on_sphere(problem, torch.tensor(np.array(units) @ np.array(data["frame"])))).numpy()
    np.testing.assert_allclose(data["residual"], r, rtol=1e-8, atol=1e-8)
    if state["d"] == 2:
        top = (np.abs(r) > np.abs(np.roll(r, 1))) & (np.abs(r) >= np.abs(np.roll(r, -1)))
        assert data["maxima"] == {"below": int((top & (r < 0)).sum()), "above": int((top & (r > 0)).sum())}


@pytest.mark.browser
def test_maxima_of_a_known_function_on_the_ball(maths):
    """|r| with two tops of opposite sign: one at a pole, one anywhere."""
    script = "(values) => lazy.gridMaxima(Float64Array.from(values), 3)"
    units = np.array(directions(3)[1])
    for up, down in (([1, 0, 0], [0, 0.6, 0.8]), ([0.3, -0.5, 0.8], [-1, 0, 0]), ([0, 0, -1], [0.2, 0.9, 0])):
        bump = lambda at: np.exp(8 * (units @ (np.array(at) / np.linalg.norm(at)) - 1))  # noqa: E731
        assert maths(script, (bump(up) - 0.5 * bump(down)).tolist()) == {"below": 1, "above": 1}
        assert maths(script, (bump(up) + 0.5 * bump(down) + 0.1).tolist()) == {"below": 0, "above": 2}


@pytest.mark.browser
def test_the_ball_is_seen_where_it_is_taken_hold_of(maths):
    rng = np.random.default_rng(0)
    script = """([u, view, to]) => {
        const [right, up, out] = lazy.seen(u, view);
        return { out, back: lazy.unseen(right, up, view), rim: lazy.unseen(3 * right, 3 * up, view), way: lazy.geodesic(u, to) };
    }"""
    for _ in range(20):
        u, to = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
        view = dict(around=float(rng.uniform(-3, 3)), tilt=float(rng.uniform(-1.5, 1.5)))
        found = maths(script, [u.tolist(), view, to.tolist()])
        if found["out"] > 0.05:
            np.testing.assert_allclose(found["back"], u, atol=1e-9)
        way = np.array([u, *found["way"]])
        np.testing.assert_allclose(np.linalg.norm(way, axis=1), 1, atol=1e-9)
        np.testing.assert_allclose(way[-1], to, atol=1e-9)
        np.testing.assert_allclose(way @ np.cross(u, to), 0, atol=1e-9)
        assert np.linalg.norm(found["rim"]) == pytest.approx(1)


CANVAS = "(all) => [...document.querySelectorAll('canvas')].map((el) => el.width ? el.toDataURL() : '')"


def pixels(page):
    return page.evaluate(CANVAS, None)


def held(page, k):
    """Where a start's handle is, in pixels of the page."""
    box = page.get_by_role("slider", name=f"start {k}").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, start, right, down):
    page.mouse.move(*start)
    page.mouse.down()
    for part in (0.5, 1):
        page.mouse.move(start[0] + part * right, start[1] + part * down)
    page.mouse.up()


@pytest.mark.browser
@pytest.mark.parametrize("d", [2, 3])
def test_a_start_is_dragged_and_climbs_from_there(opened, d):
    state = SPHERES[1] | dict(d=d)
    page = opened(SpherePanel(**state))
    page.locator("canvas").first.scroll_into_view_if_needed()
    before, words, there = shown(page, "sphere"), headline(page, "sphere"), held(page, 1)
    drag(page, there, -45, 60)
    assert held(page, 1) != there
    after = shown(page, "sphere")
    assert after["steps"] != before["steps"] or headline(page, "sphere") != words
    fixed = ("predicted_steps", "reach", "gap", "critical", "grid")
    assert {key: after[key] for key in fixed} == {key: before[key] for key in fixed}
    page.get_by_role("button", name="Starts back").click()
    assert shown(page, "sphere") == before and headline(page, "sphere") == words
    assert page.errors == [] and page.network == []


@pytest.mark.browser
def test_a_start_on_the_circle_is_the_angle_that_is_said(opened):
    """What the panel reports of a start moved by keys is the package's ascent from that angle."""
    state = SPHERES[1]
    page = opened(SpherePanel(**state))
    start = page.get_by_role("slider", name="start 1")
    for _ in range(4):
        start.press("ArrowRight")
    start.press("Shift+ArrowLeft")
    assert start.get_attribute("aria-valuenow") == "99"  # 80 + 4 * 5 - 1
    angle = 99 * DEGREE
    ours = ascents(state, [[math.cos(angle), math.sin(angle)]])
    assert f"{int(ours.steps)} steps" in start.get_attribute("aria-valuetext")
    assert ours.status.item() in start.get_attribute("aria-valuetext")


@pytest.mark.browser
def test_keys_move_a_start_over_the_ball_even_over_its_rim(opened):
    page = opened(SpherePanel(**SPHERES[0]))
    start = page.get_by_role("slider", name="start 2")
    box = page.locator(".lp-stage svg").first.bounding_box()
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):
        seen = set()
        for _ in range(16):  # 80 degrees, from near the rim
            start.press(key)
            x, y = held(page, 2)
            assert box["x"] <= x <= box["x"] + box["width"] and box["y"] <= y <= box["y"] + box["height"]
            seen.add((round(x), round(y), start.get_attribute("aria-valuenow")))
        assert len(seen) > 8
    assert page.errors == []


@pytest.mark.browser
def test_the_ball_turns_by_drag_and_by_keys_and_nothing_else_changes(opened):
    page = opened(SpherePanel(**SPHERES[2]))
    numbers, first = shown(page, "sphere"), pixels(page)
    box = page.locator(".lp-stage svg").first.bounding_box()
    drag(page, (box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2 + 10), 70, 40)
    turned = pixels(page)
    assert turned[0] != first[0] and turned[1] == first[1]  # the map stays
    page.locator(".lp-stage svg").first.focus()
    page.keyboard.press("ArrowLeft")
    assert pixels(page)[0] != turned[0] and shown(page, "sphere") == numbers
    ring = opened(SpherePanel(**SPHERES[1]))
    first = pixels(ring)
    drag(ring, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), 70, 40)
    assert pixels(ring) == first and ring.errors == []


@pytest.mark.browser
def test_sliders_change_the_picture_and_choices_the_ascents(opened):
    page = opened(SpherePanel(**SPHERES[0]))
    panel = page.locator("[data-panel=sphere]")
    for name in ("scale of the input", "perturbation ratio", "width", "input dimension", "target"):
        before = pixels(page), shown(page, "sphere")
        panel.get_by_label(name).press("ArrowLeft" if name == "input dimension" else "ArrowRight")
        settle(page, 1)
        assert pixels(page) != before[0] and shown(page, "sphere") != before[1], name
    for change in (
        lambda: panel.get_by_label("relative step").press("End"),
        lambda: panel.get_by_label("the current ‖G‖").check(),
        lambda: panel.get_by_label("softplus").check(),
        lambda: panel.get_by_role("button", name="New draw").click(),
    ):
        before = page.locator(".lp-figure").evaluate_all("(all) => all.map((el) => el.innerHTML)")
        change()
        settle(page, 1)
        assert page.locator(".lp-figure").evaluate_all("(all) => all.map((el) => el.innerHTML)") != before
    page.wait_for_function("['sphere.eta=10', 'sphere.rule=current', 'sphere.d=2', 'sphere.seed=2'].every((part) => location.search.includes(part))")  # fmt: skip
    assert page.errors == []


def steps_said(page):
    return page.locator(".lp-run .lp-seed").text_content()


@pytest.mark.browser
def test_the_ascent_plays_steps_and_honours_reduced_motion(opened):
    page = opened(SpherePanel(**SPHERES[1]))
    whole = page.locator(".lp-figure").nth(2).inner_html()
    last = int(max(ascents(SPHERES[1], directions(2)[0]).steps))
    assert steps_said(page) == f"step {last} of {last}"
    page.get_by_role("button", name="Step").click()
    assert steps_said(page) == f"step 1 of {last}" and page.locator(".lp-figure").nth(2).inner_html() != whole
    page.get_by_role("button", name="Starts back").click()
    assert steps_said(page) == f"step {last} of {last}"
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"!document.querySelector('.lp-run .lp-seed').textContent.startsWith('step {last} ')")
    page.get_by_role("button", name="Pause").click()
    stopped = steps_said(page)
    page.wait_for_timeout(400)
    assert steps_said(page) == stopped
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"document.querySelector('.lp-run .lp-seed').textContent === 'step {last} of {last}'")
    page.get_by_role("button", name="Play").wait_for()
    assert page.locator(".lp-figure").nth(2).inner_html() == whole
    page.emulate_media(reduced_motion="reduce")
    page.get_by_role("button", name="Step").click()
    page.get_by_role("button", name="Play").click()
    assert steps_said(page) == f"step {last} of {last}" and page.errors == []


# ------------------------------------------------------------------------------------------------------- the scale panel

SCALES = [
    dict(s=0.5, rho=0.3, m=100, d=20, network=7, activation="tanh", seed=1),
    dict(s=1.4, rho=0.6, m=50, d=5, network=30, activation="softplus", seed=2**31 - 1),
    dict(s=2.0, rho=0.1, m=60, d=50, network=2, activation="quadratic", seed=0),
    dict(s=0.8, rho=0.45, m=80, d=30, network=12, activation="relu", seed=3),
]


def scale_problem(m, d, rho, activation, seed, **_):
    """scale -> the panel's 30 networks at that scale."""
    W = torch.from_numpy(normals(d, 30 * m, seed, "W0")).double().view(30, m, d)
    net = Network(W, torch.from_numpy(signs(30 * m, seed)).double().view(30, m), ACTIVATIONS[activation])
    return lambda s: inner_problem(net, torch.eye(1, d).double(), 1.0, s, rho)


@pytest.mark.browser
@pytest.mark.parametrize("state", SCALES)
def test_the_scale_panel_counts_as_the_package_does(offline_page, tmp_path, state):
    live = ScalePanel(**state)
    page = tmp_path / "widget.html"
    page.write_text(widget_page(live), encoding="utf-8")
    answer_of(offline_page, live, page.as_uri())
    at = scale_problem(**state)
    how = dict(tol=1e-3, max_steps=30, decay=0.1 if state["activation"] == "relu" else 0.0)
    here = dynamics.second_maximum(at(state["s"]), **how)
    assert live.predicted == int(here.predicted.sum()) and live.found == int(here.found.sum())
    assert live.agreement == pytest.approx(float((here.predicted == here.found).double().mean()))
    critical = dynamics.critical_scale(at(1.0).net, torch.eye(1, state["d"]).double(), 1.0, state["rho"], 0.02, 20.0)
    assert [value is not None for value in live.critical] == critical.found[:, 0].tolist()
    theirs = [value for value in live.critical if value is not None]
    np.testing.assert_allclose(theirs, critical.scale[critical.found], rtol=1e-6)
    assert offline_page.errors == [] and offline_page.network == []


@pytest.mark.browser
@pytest.mark.parametrize("state", SCALES)
def test_the_curves_of_the_scale_panel(maths, state):
    script = "(state) => { const { predicted, found, around } = lazy.PANELS.scales.measure(state, {}); return { predicted, found, around }; }"  # fmt: skip
    data, at = maths(script, state), scale_problem(**state)
    how = dict(tol=1e-3, max_steps=30, decay=0.1 if state["activation"] == "relu" else 0.0)
    assert len(data["found"]) == 24 and data["found"][0][0] == 0.05
    for s, count in data["found"][::5]:
        assert count == int(dynamics.second_maximum(at(s), **how).found.sum())
    for s, count in data["predicted"][::20]:
        assert count == int(dynamics.second_maximum(at(s), max_steps=1).predicted.sum())
    problem = at(state["s"])
    one = inner_problem(
        problem.net[state["network"] - 1], torch.eye(1, state["d"]).double(), 1.0, state["s"], state["rho"]
    )
    u = torch.nn.functional.normalize(one.grad(torch.zeros_like(one.x))[0], dim=0)
    drawn = torch.from_numpy(normals(state["d"], state["network"], state["seed"], "boundary")[-1]).double()
    v = torch.nn.functional.normalize(drawn - (drawn @ u) * u, dim=0)
    for k in range(0, 361, 30):
        angle = (k - 90) * DEGREE
        delta = one.eps * (math.cos(angle) * u + math.sin(angle) * v)
        assert data["around"][k] == pytest.approx(float(one.residual(delta[None])), rel=1e-6, abs=1e-8)


@pytest.mark.browser
def test_a_second_basin_appears_as_the_scale_grows(opened):
    page = opened(ScalePanel(**SCALES[0]))
    assert "predicted at this β" in page.locator(".lp-numbers").inner_text()
    slider = page.get_by_label("scale of the input")
    slider.press("Home")
    settle(page, 1)
    small = shown(page, "scales")
    assert small["predicted"] == small["found"] == 0 and small["second"] is None and small["agreement"] == 1
    assert "neither predicted nor found" in headline(page, "scales")
    assert page.locator(".lp-figure").nth(1).locator("svg[role=img] path.limit").count() == 0
    slider.press("End")
    settle(page, 1)
    large = shown(page, "scales")
    assert large["predicted"] > 20 and large["found"] > 10 and large["second"] > 0
    assert page.locator(".lp-figure").nth(1).locator("svg[role=img] path.limit").count() >= 1
    assert large["critical_one"] == small["critical_one"] and large["critical_median"] == small["critical_median"]
    page.get_by_label("network shown").press("ArrowRight")
    settle(page, 1)
    other = shown(page, "scales")
    assert other["critical_one"] != large["critical_one"] and other["found"] == large["found"]
    assert page.errors == [] and page.network == []


@pytest.mark.browser
def test_what_was_asked_before_changes_no_number(maths):
    script = """(states) => {
        const cache = {}, last = states.at(-1);
        const kept = states.map((state) => lazy.PANELS.scales.measure(state, cache)).at(-1);
        return JSON.stringify(kept) === JSON.stringify(lazy.PANELS.scales.measure(last, {}));
    }"""
    state = dict(s=1, rho=0.3, m=50, d=5, network=1, activation="tanh", seed=4)
    others = [dict(s=2), dict(rho=0.5), dict(m=60), dict(d=7), dict(network=9), dict(activation="relu"), dict(seed=5)]
    assert maths(script, [state | other for other in others] + [state])


# --------------------------------------------------------------------------------------------------- both, in a page


@pytest.mark.browser
@pytest.mark.parametrize("width", [340, 390, 700, 1280])
def test_no_state_overflows_at_any_width(opened, width):
    panels = [SpherePanel(**state) for state in SPHERES[:3]] + [SpherePanel(activation="tanh", rule="first")]
    page = opened(*panels, ScalePanel(**SCALES[0]), ScalePanel(**SCALES[3]), width=width)
    assert overflowing(page) == []
    text = page.locator("body").inner_text()
    text += " ".join(page.locator("svg[role=img]").evaluate_all("(all) => all.map((el) => el.getAttribute('aria-label'))"))  # fmt: skip
    assert not any(word in text for word in ("NaN", "undefined", "Infinity"))


@pytest.mark.browser
def test_pictures_speak_and_every_control_has_its_keys(opened):
    page = opened(SpherePanel(**SPHERES[1]), ScalePanel(**SCALES[1]))
    labels = page.locator("svg[role=img]").evaluate_all("(all) => all.map((el) => el.getAttribute('aria-label'))")
    assert len(labels) == 6 and all(len(label) > 60 for label in labels)
    for name in ("sphere", "scales"):
        for control in page.locator(f"[data-panel={name}]").locator("input[type=range], input:checked").all():
            before = page.locator(f"[data-panel={name}]").inner_text()
            top = control.evaluate("(el) => el.type === 'range' && el.valueAsNumber === Number(el.max)")
            control.press("ArrowLeft" if top else "ArrowRight")
            settle(page, 2)
            assert page.locator(f"[data-panel={name}]").inner_text() != before


@pytest.mark.browser
def test_both_themes_keep_text_readable(opened):
    """Text against its ground, and the three starts' colours against the panel's, as lines are to be told from it."""
    page = opened(SpherePanel(), ScalePanel(**SCALES[0]))
    assert min(least_contrasts(page).values()) >= 4.5


@pytest.mark.parametrize(
    ("panel", "wrong", "message"),
    [
        (SpherePanel, dict(d=4), "d must be one of 2, 3, got 4: try d=3."),
        (SpherePanel, dict(y=0), "y must be one of -1, 1, got 0: try y=1."),
        (SpherePanel, dict(s=0), "s must be a number from 0.05 to 10.0, got 0: for example s=3.2."),
        (SpherePanel, dict(rho=1.0), "rho must be a number from 0.05 to 0.9, got 1.0"),
        (SpherePanel, dict(m=5), "m must be a whole number from 10 to 3000, got 5"),
        (SpherePanel, dict(eta=math.nan), "eta must be a number from 0.05 to 10.0, got nan"),
        (SpherePanel, dict(rule="last"), "rule must be one of 'current', 'first', got 'last'."),
        (ScalePanel, dict(activation="gelu"), "activation must be one of 'softplus', 'tanh', 'quadratic', 'relu', got 'gelu'."),
        (ScalePanel, dict(d=300), "d must be a whole number from 5 to 200, got 300"),
        (ScalePanel, dict(network=0), "network must be a whole number from 1 to 30, got 0: for example network=1."),
    ],
)  # fmt: skip
def test_widgets_refuse_wrong_values_in_one_sentence(panel, wrong, message):
    with pytest.raises(traitlets.TraitError, match=message):
        panel(**wrong)
