"""The panels of the ascent: their JavaScript against activations, landscape, curvature and dynamics, and the panels in a page."""

import math

import numpy as np
import pytest
import torch

from lazy_helpers import curvature, dynamics
from lazy_helpers.activations import ACTIVATIONS
from lazy_helpers.landscape import Network, inner_problem

SMOOTH = ("tanh", "softplus", "quadratic")


@pytest.fixture
def maths(panel_maths):
    """A function that evaluates JavaScript among the panels' own names."""
    return panel_maths(
        "{ ACTIVATIONS, Network, Inner, inner_problem, gradient_start, stationarity, radial, top_eigenvalue, smallest_element,"
        " pga, predicted_steps, second_maximum, profile, critical_scale, PANELS }"
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
    for (given, problem, delta, _), js in zip(cases, maths(PGA, [[given for given, *_ in cases], how]), strict=True):
        ours = dynamics.pga(problem, delta, **how)
        assert js["converged"] == bool(ours.converged)
        if int(curvature.smallest_element(problem, ours.delta).active) < given["d"]:  # else the gates are not unique
            assert js["status"] == ours.status.item()
        settled += js["status"] == dynamics.MAXIMUM
    assert settled > 6
