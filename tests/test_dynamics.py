"""Projected gradient ascent against the same rule in numpy, dense searches of the circle, and the claims of paper 2 as we measure them."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from reference import SEEDS, normal
from scipy.optimize import minimize
from scipy.stats import binomtest, wilcoxon
from torch.testing import assert_close

from lazy_helpers.activations import LOSSES, Loss
from lazy_helpers.curvature import regularity, smallest_element, stationarity, top_eigenvalue
from lazy_helpers.dynamics import (
    MAXIMUM,
    NOT_CONVERGED,
    SADDLE,
    climb,
    critical_scale,
    found_scale,
    gradient_start,
    on_sphere,
    pga,
    predicted_steps,
    random_start,
    second_maximum,
)
from lazy_helpers.landscape import Network, inner_problem

SMOOTH = ("tanh", "softplus", "quadratic")
SLOPE = {  # sigma' in numpy
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
    "softplus": lambda z: 1 / (1 + np.exp(-z)),
    "quadratic": lambda z: z,
    "relu": lambda z: (z > 0).astype(float),
}
VALUE = {
    "tanh": np.tanh,
    "softplus": lambda z: np.logaddexp(0, z),
    "quadratic": lambda z: z**2 / 2,
    "relu": lambda z: np.maximum(z, 0),
}


def units(*shape, seed=0):
    return torch.nn.functional.normalize(normal(*shape, seed=seed), dim=-1)


def drawn(activation, members=(), n=3, d=5, m=20, seed=0, loss="quadratic"):
    """A random problem in which every member and point has its own input, target, scale and ratio."""
    net, shape = Network.init(d, m, activation, members, seed), (*members, n)
    y = normal(*shape, seed=seed + 1)
    scale, ratio = (0.5 * normal(*shape, seed=seed + 2)).exp(), normal(*shape, seed=seed + 3).sigmoid()
    return inner_problem(
        net, units(*shape, d, seed=seed + 4), y if loss == "quadratic" else y.sign(), scale, ratio, loss
    )


def single(problem, index):
    """The problem of one member at one point."""
    *member, i = index
    part = lambda t: t[*member, i : i + 1]  # noqa: E731
    return dataclasses.replace(
        problem, net=problem.net[tuple(member)], x=part(problem.x), y=part(problem.y), eps=part(problem.eps)
    )


def plain_pga(one, start, eta, steps, rule, within="sphere", decay=0.0):
    """The iterates of one ascent on a problem of one point, from the definition, in numpy."""
    W, a, x, y, eps = (t.numpy() for t in (one.net.W, one.net.a, one.x[0], one.y[0], one.eps[0]))
    sigma, slope = VALUE[one.net.activation.name], SLOPE[one.net.activation.name]

    def gradient(delta):
        z = W @ (x + delta)
        f = a @ sigma(z) / math.sqrt(len(a))
        outer = {"quadratic": f - y, "logistic": -y / (1 + np.exp(y * f)), "margin": -y}[one.loss.name]
        return outer * ((a * slope(z)) @ W) / math.sqrt(len(a))

    path = [start.numpy()]
    first = np.linalg.norm(gradient(path[0]))
    for t in range(steps):
        G = gradient(path[-1])
        moved = path[-1] + eta / (1 + decay * t) * eps / (first if rule == "first" else np.linalg.norm(G)) * G
        far = np.linalg.norm(moved)
        path.append(moved * eps / far if within == "sphere" or far > eps else moved)
    return np.stack(path)


# --- starts ---


@pytest.mark.parametrize("members", [(), (3,), (2, 2)])
def test_starts_lie_on_the_sphere_and_a_member_has_those_of_its_own_seed(members):
    problem = drawn("tanh", members)
    for start in (random_start(problem, 4), gradient_start(problem), gradient_start(problem, -1.0)):
        assert start.shape == (*problem.shape, 5)
        assert_close(start.norm(dim=-1), problem.eps)
    for k, index in enumerate(np.ndindex(members)):
        alone = inner_problem(problem.net[index], problem.x[index], 1.0)
        mine = random_start(problem, 4)[index] / problem.eps[index][:, None]
        assert_close(mine, random_start(alone, 4 + k) / alone.eps[:, None])
    assert torch.equal(random_start(problem, 4), random_start(problem, 4))
    assert not torch.isclose(random_start(problem, 4), random_start(problem, 5)).any()


def test_random_starts_are_uniform_on_the_sphere():
    net = Network.init(3, 2, "tanh")
    n = random_start(inner_problem(net, units(1, 3).expand(20_000, 3), 1.0, 1.0, 0.25)) / 0.25
    assert n.mean(0).abs().max() < 5 / math.sqrt(3 * 20_000)
    assert (n.T @ n / 20_000 - torch.eye(3) / 3).abs().max() < 5 * math.sqrt(4 / 45 / 20_000)
    # On S^2 a coordinate is uniform on [-1, 1].
    empirical = n[:, 0].sort().values
    assert (empirical - torch.linspace(-1, 1, 20_000)).abs().max() < 2 * 1.95 / math.sqrt(20_000)


def test_gradient_starts_follow_the_slope_of_f():
    problem = drawn("softplus", (2,))
    g = problem.net.grad(problem.x)
    cosine = torch.cosine_similarity(gradient_start(problem), g, dim=-1)
    assert_close(cosine, torch.ones_like(cosine))
    assert_close(gradient_start(problem, -1.0), -gradient_start(problem))
    shared = inner_problem(problem.net, units(3, 5), 1.0)  # points that all members share
    assert gradient_start(shared).shape == (2, 3, 5)


# --- the ascent ---


@pytest.mark.parametrize("loss", ["quadratic", "logistic", "margin"])
@pytest.mark.parametrize("activation", [*SMOOTH, "relu"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("rule", ["first", "current"])
def test_twenty_steps_are_those_of_the_rule_written_out(rule, decay, activation, loss):
    problem = drawn(activation, (2,), seed=50, loss=loss)
    start = random_start(problem, 7)
    for within in ("sphere", "ball"):
        begin = start if within == "sphere" else start * torch.tensor([1.0, 0.5, 0.0]).double()[:, None]
        if begin is not start and loss == "quadratic" and activation == "quadratic":
            begin = start * 0.9
        how = dict(eta=0.3, tol=1e-13, max_steps=20, rule=rule, decay=decay, within=within, record=True)
        found = pga(problem, begin, **how)
        for index in np.ndindex(*problem.shape):
            expected = plain_pga(single(problem, index), begin[index], 0.3, 20, rule, within, decay)
            rows = found.path.delta[(slice(None), *index)].numpy()
            np.testing.assert_allclose(rows, expected, rtol=1e-9, atol=1e-9 * float(problem.eps[index]))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_an_unjudged_climb_takes_the_same_steps(activation):
    problem = drawn(activation, (2,), seed=55)
    start = random_start(problem)
    ends = climb(problem, start, 12, eta=0.3)
    for index in np.ndindex(*problem.shape):
        expected = plain_pga(single(problem, index), start[index], 0.3, 12, "current")[-1]
        np.testing.assert_allclose(ends[index].numpy(), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(climb(problem, start, 0), start)


@given(SEEDS)
def test_no_iterate_leaves_the_sphere_or_the_ball(seed):
    problem = drawn(("relu", *SMOOTH)[seed % 4], (2,), seed=seed)
    start, eps = random_start(problem, seed), problem.eps
    for eta in (0.01, 1.0, 100.0)[seed % 3 :]:
        path = pga(problem, start, eta=eta, max_steps=8, record=True).path.delta
        assert ((path.norm(dim=-1) - eps).abs() <= 1e-13 * eps).all()
        begin = start * normal(2, 3, 1, seed=seed).sigmoid()
        path = pga(problem, begin, eta=eta, max_steps=8, record=True, within="ball").path.delta
        assert (path.norm(dim=-1) <= eps * (1 + 1e-13)).all()


@pytest.mark.parametrize("within", ["sphere", "ball"])
def test_steps_are_counted_until_the_tolerance_and_a_converged_point_stays_put(within):
    problem = drawn("tanh", (2, 2), n=4, seed=3)
    end = pga(problem, random_start(problem), max_steps=60, within=within, record=True)
    delta, value, kappa = end.path
    rows = len(delta)
    assert delta.shape == (rows, 2, 2, 4, 5) and value.shape == kappa.shape == (rows, 2, 2, 4)
    assert rows == end.steps.max() + 1 and len(end.steps.unique()) > 2
    assert_close(delta[0], random_start(problem))
    for index in np.ndindex(2, 2, 4):
        at = (slice(None), *index)
        t = int(end.steps[index])
        assert (kappa[at][:t] > 1e-6).all()
        assert bool(kappa[at][t] <= 1e-6) == bool(end.converged[index]) and (t == 60 or end.converged[index])
        assert (delta[at][t:] == end.delta[index]).all() and (kappa[at][t:] == kappa[at][t]).all()
        assert_close(value[at][t:], end.value[index].expand(rows - t))
    assert_close(end.value, problem.value(end.delta))
    assert_close(end.stationarity, kappa[-1])
    if within == "sphere":
        assert_close(kappa, torch.stack([stationarity(problem, row) for row in delta]), rtol=1e-9, atol=1e-15)
    assert_close(value, torch.stack([problem.value(row) for row in delta]))


def test_a_record_changes_nothing_and_an_end_is_an_end_again():
    problem = drawn("softplus", (3,), seed=8)
    start = random_start(problem)
    once, recorded = pga(problem, start), pga(problem, start, record=True)
    assert once.path is None
    for name in ("delta", "value", "steps", "stationarity", "converged", "top"):
        assert torch.equal(getattr(once, name), getattr(recorded, name))
    again = pga(problem, once.delta)
    assert once.converged.all() and (again.steps == 0).all() and torch.equal(again.delta, once.delta)
    assert (again.status == once.status).all()


@pytest.mark.parametrize(("activation", "how"), [
    ("tanh", {}), ("softplus", {"rule": "first"}), ("quadratic", {"within": "ball"}), ("relu", {"decay": 0.1}),
])  # fmt: skip
def test_members_starts_and_scales_side_by_side_are_those_alone(activation, how):
    problem = drawn(activation, (2, 2), seed=60)
    start = random_start(problem)
    together = pga(problem, start, max_steps=100, **how)
    for index in np.ndindex(*problem.shape):
        alone = pga(single(problem, index), start[index][None], max_steps=100, **how)
        assert_close(alone.delta[0], together.delta[index], rtol=1e-7, atol=1e-9)
        assert_close(alone.value[0], together.value[index])
        assert abs(alone.steps[0] - together.steps[index]) <= 1  # a batch's rounding may end it a step earlier
        assert bool(alone.converged[0]) == bool(together.converged[index])
        assert alone.status[0] == together.status[index]
    shared = inner_problem(problem.net, problem.x[0, 0], 1.0)
    begin = random_start(shared)[0, 0]
    ends = pga(shared, begin, max_steps=20, **how).delta  # (n, d) is for every member
    assert_close(ends, pga(shared, begin.expand(2, 2, 3, 5), max_steps=20, **how).delta)


# --- what it ends at ---


def on_circle(problem, angles):
    """Points of the sphere of one point's problem in d = 2: (len(angles), 2)."""
    return problem.eps[0] * torch.stack([angles.cos(), angles.sin()], -1)


def circle(net, x0, y, scale, starts, loss="quadratic", ratio=0.3, points=20_000):
    """A problem in d = 2 for as many starts around the circle, the starts, and its local maxima by dense search: angles, residuals."""
    problem = inner_problem(net, x0.expand(starts, 2), y, scale, ratio, loss)
    angles = torch.arange(points, dtype=torch.float64) * 2 * math.pi / points
    dense = inner_problem(net, x0.expand(points, 2), y, scale, ratio, loss)
    L, r = dense.value(on_circle(dense, angles)), dense.residual(on_circle(dense, angles))
    top = (L > L.roll(1)) & (L >= L.roll(-1))
    begin = on_circle(problem, torch.arange(starts, dtype=torch.float64) * 2 * math.pi / starts + 0.01)
    return problem, begin, angles[top], r[top], r


def gaps(delta, angles):
    """Angles between points of the circle and given ones, (len(delta), len(angles))."""
    apart = torch.atan2(delta[:, 1], delta[:, 0]).unsqueeze(-1) - angles
    return (torch.remainder(apart + math.pi, 2 * math.pi) - math.pi).abs()


@pytest.mark.parametrize("loss", ["quadratic", "logistic"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("activation", SMOOTH)
def test_on_a_circle_the_ends_are_the_maxima_of_a_dense_search(activation, scale, loss):
    """The quadratic loss with y amid f's values, so that there are two maxima or more."""
    settled = 0.0
    for seed in range(6):
        net, x0 = Network.init(2, 30, activation, seed=seed), units(1, 2, seed=seed)
        y = (-1.0) ** seed if loss == "logistic" else float(net(scale * x0))
        problem, start, maxima, _, _ = circle(net, x0, y, scale, 64, loss)
        assert len(maxima) > (loss == "quadratic")
        end = pga(problem, start, eta=0.1, max_steps=800)
        apart = gaps(end.delta, maxima)
        good = end.converged
        assert (
            (end.status[good] == MAXIMUM).all() and (end.top[good] < 0).all() and (end.stationarity[good] <= 1e-6).all()
        )
        assert (apart.amin(1)[good] < 1e-3).all()
        assert (apart.amin(0) < 0.1).all()  # every maximum draws an end near, converged or not
        settled += float(good.double().mean()) / 6
    assert settled > (0.7 if scale > 1 else 1 - 1e-9)


@pytest.mark.parametrize("m", [10, 100, 1000])
def test_on_a_circle_a_relus_ends_are_the_maxima_of_a_dense_search(m):
    """Within 0.02 radians, what ``reach`` lets pass: 300 steps with decay=0.1 settle on kinks."""
    all_of_them = found = 0
    for seed in range(10):
        net, x0 = Network.init(2, m, "relu", seed=seed), units(1, 2, seed=0)
        problem, start, maxima, _, _ = circle(net, x0, 1.0, 1.0, 32)
        end = pga(problem, start, decay=0.1, max_steps=300)
        apart = gaps(end.delta, maxima)
        assert (end.status == MAXIMUM).all() and (apart.amin(1) < 0.02).all()
        all_of_them, found = all_of_them + len(maxima), found + int((apart.amin(0) < 0.02).sum())
    assert found > 0.7 * all_of_them  # the others lie a step's width from a higher one


def test_a_relu_settles_on_a_kink_known_in_closed_form():
    """f = (x_1 + x_2 - 3 relu(x_2)) / sqrt 2 near x = (1, 0), y = -1: the maximum is the bend at delta = (eps, 0)."""
    W, a = torch.tensor([[1.0, 1.0], [0.0, 3.0]]).double(), torch.tensor([1.0, -1.0]).double()
    net = Network(W, a, Network.init(1, 1).activation)
    x0 = torch.tensor([[1.0, 0.0]]).double()
    problem = inner_problem(net, x0.expand(5, 2), -1.0)
    start = on_circle(problem, torch.tensor([-1.0, -0.5, 0.1, 0.5, 1.0]).double())
    end = pga(problem, start, decay=1.0, max_steps=300)  # the last step is shorter than reach
    assert (end.status == MAXIMUM).all() and (end.stationarity < 1e-12).all() and (end.top == -1).all()
    assert (end.steps == 300).all() and gaps(end.delta, torch.zeros(1).double()).max() < 0.02
    assert_close(end.value, torch.full((5,), (1.3 / math.sqrt(2) + 1) ** 2 / 2).double(), rtol=1e-2, atol=0)
    upward = inner_problem(net, x0, 3.0)  # f < y: the same kink is now a minimum's
    still = pga(upward, on_circle(upward, torch.tensor([1e-7]).double()), eta=1e-9, max_steps=1)
    assert bool(still.converged) and still.status[0] == SADDLE and float(still.top) == math.inf
    assert int(smallest_element(upward, still.delta).upward) == 1


def test_a_minimum_is_stationary_and_no_maximum():
    """The margin loss of the other label turns the landscape over."""
    problem = drawn("tanh", (3,), seed=70, loss="margin")
    high = pga(problem, random_start(problem))
    assert high.converged.all()
    over = dataclasses.replace(problem, y=-problem.y)
    low = pga(over, high.delta)
    assert (low.steps == 0).all() and low.converged.all()
    assert ((high.status == MAXIMUM) == (high.top.numpy() < 0)).all() and (high.status == MAXIMUM).sum() > 4
    assert (low.status[high.status == MAXIMUM] == SADDLE).all() and (low.top[high.top < 0] > 0).all()


def test_a_saddle_of_a_quadratic_form():
    """sigma = z^2 / 2 and the margin loss: L is a form x^T A x, here around x = 0, and its critical points are A's eigenvectors."""
    net = Network.init(3, 8, "quadratic", seed=2)
    A = (net.W.T * net.a) @ net.W / (2 * math.sqrt(8))
    values, vectors = torch.linalg.eigh(A)
    problem = inner_problem(net, units(3, 3), -1.0)  # y = -1: L = f
    problem = dataclasses.replace(problem, x=torch.zeros(3, 3).double(), loss=LOSSES["margin"])
    end = pga(problem, on_sphere(problem, vectors.T))
    assert end.converged.all() and (end.steps == 0).all()
    assert list(end.status) == [SADDLE, SADDLE, MAXIMUM]
    others = [max(values[1], values[2]), values[2], values[1]]
    expected = torch.stack(
        [2 * (other - value) / (2 * value.abs()) for other, value in zip(others, values, strict=True)]
    )
    assert_close(end.top, expected, rtol=1e-6, atol=1e-8)


def test_too_few_steps_do_not_converge():
    problem = drawn("tanh", (2,))
    end = pga(problem, random_start(problem), eta=0.01, max_steps=2)
    assert (end.status == NOT_CONVERGED).all() and not end.converged.any() and (end.steps == 2).all()
    assert (end.stationarity > 1e-6).all()


@pytest.mark.parametrize("activation", SMOOTH)
def test_the_relative_top_eigenvalue_is_the_top_over_the_radial_slope(activation):
    problem = drawn(activation, (2,), seed=80)
    end = pga(problem, random_start(problem), max_steps=50)
    slope = (problem.grad(end.delta) * end.delta).sum(-1).abs() / problem.eps**2
    assert_close(end.top, top_eigenvalue(problem, end.delta) / slope)


# --- the ball ---


def bowl(d=3, ratio=1.5, seed=0):
    """L = -x^T A x / 2 with A > 0: all signs -1 of a quadratic activation, y = -1 for the margin loss. Its peak is x = 0."""
    net = Network.init(d, 3 * d, "quadratic", seed=seed)
    net = net.replace(a=-torch.ones_like(net.a))
    return inner_problem(net, units(4, d, seed=seed), -1.0, 1.0, ratio, "margin"), net.W.T @ net.W / math.sqrt(3 * d)


@pytest.mark.parametrize("d", [2, 3, 6])
@pytest.mark.parametrize("rule", ["first", "current"])
def test_a_maximum_inside_the_ball_is_found_by_the_first_rule(d, rule):
    """The current rule's steps keep their length: they circle the peak, unless they decay."""
    problem, _ = bowl(d)
    how = dict(eta=0.1, max_steps=3000) if rule == "first" else dict(eta=0.3, max_steps=500, decay=0.1)
    end = pga(problem, random_start(problem), rule=rule, within="ball", **how)
    if rule == "first":
        assert end.converged.all() and (end.status == MAXIMUM).all() and (end.top < 0).all()
        assert_close(end.delta, -problem.x, rtol=0, atol=1e-5)
    else:
        assert (end.delta + problem.x).norm(dim=-1).max() < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_a_maximum_on_the_edge_of_the_ball_is_the_constrained_one(seed):
    """Ratio 0.5: the peak lies outside. The only maximum of a concave L on the ball, against SciPy's SLSQP."""
    problem, A = bowl(3, ratio=0.5, seed=seed)
    end = pga(problem, 0.2 * random_start(problem), within="ball", eta=0.1, max_steps=2000)
    assert (end.status == MAXIMUM).all()
    for i in range(4):
        x, eps = problem.x[i].numpy(), float(problem.eps[i])
        inside = {"type": "ineq", "fun": lambda t, eps=eps: eps**2 - t @ t}
        best = minimize(lambda t, x=x: (x + t) @ A.numpy() @ (x + t) / 2, np.zeros(3), constraints=inside, tol=1e-13)
        np.testing.assert_allclose(end.delta[i].numpy(), best.x, atol=1e-4)
        assert float(end.delta[i].norm()) == pytest.approx(eps, rel=1e-12)


@pytest.mark.parametrize("activation", SMOOTH)
def test_where_the_concave_loss_peaks_inside_the_gradient_vanishes(activation):
    """-(f - y)^2 / 2 with y = f at a point inside: a whole surface of maxima, f = y, each with L = 0."""
    net, x0 = Network.init(4, 30, activation, seed=5), units(6, 4, seed=5)
    x = inner_problem(net, x0, 0.0).x
    y = net(x + 0.1 * units(6, 4, seed=6))
    problem = inner_problem(net, x0, y, loss=Loss.of(lambda f, y: -((f - y) ** 2) / 2))
    end = pga(problem, 0.5 * random_start(problem), rule="first", eta=0.1, within="ball", tol=1e-5, max_steps=2000)
    inside = end.converged & (end.delta.norm(dim=-1) < 0.3 - 1e-9)
    assert inside.sum() >= 4
    assert end.value[inside].abs().max() < 1e-8 and (net(x + end.delta) - y)[inside].abs().max() < 1e-4
    assert (problem.grad(end.delta).norm(dim=-1)[inside] < 1e-4).all()


def test_an_interior_saddle():
    """A form with eigenvalues of both signs, at its critical point: H itself decides inside the ball."""
    net = Network.init(3, 8, "quadratic", seed=2)
    problem = inner_problem(net, units(2, 3), -1.0, 1.0, 1.5, "margin")
    end = pga(problem, -problem.x, within="ball")
    assert end.converged.all() and (end.status == SADDLE).all() and (end.top > 0).all()


def test_on_the_edge_a_gradient_that_points_inwards_is_not_stationary():
    """At the sphere's lowest point the tangential gradient is 0, but the ball's ascent leaves it."""
    problem = drawn("tanh", n=4, seed=70, loss="margin")
    low = pga(dataclasses.replace(problem, y=-problem.y), random_start(problem)).delta  # a minimum of L on the sphere
    inward = (problem.grad(low) * low).sum(-1) < 0
    assert inward.any()
    end = pga(problem, low, within="ball", max_steps=500)
    assert (end.steps[inward] > 0).all() and (end.value[inward] > problem.value(low)[inward]).all()
    still = pga(problem, low)
    assert (still.steps == 0).all()


# --- the claims ---


def networks(activation, d, m, many, seed=0):
    """An ensemble, an input of its own for each member and a target of alternating sign."""
    net = Network.init(d, m, activation, (many,), seed)
    y = (-1.0) ** torch.arange(many, dtype=torch.float64).unsqueeze(-1)
    return net, units(many, 1, d, seed=seed), y


def test_predicted_steps_are_those_of_a_linear_function():
    """tanh at tiny inputs: the sine of the angle to G is divided by |1 + eta e^(i angle)| a step, by 1 + eta in the end."""
    net = Network.init(4, 50, "tanh", seed=1)
    problem = inner_problem(net, units(1, 4).expand(20, 4), 1.0, 1e-6)
    start = random_start(problem)
    cosine = torch.cosine_similarity(problem.grad(start), start, dim=-1).tolist()
    for tol, eta in ((1e-5, 1.0), (1e-5, 0.1), (1e-3, 0.5)):
        assert (1 + eta) ** -predicted_steps(tol, eta) == pytest.approx(tol)
        end = pga(problem, start, eta=eta, tol=tol)
        for c, steps in zip(cosine, end.steps.tolist(), strict=True):
            angle, taken = complex(c, math.sqrt(1 - c * c)), 0
            while angle.imag > tol:
                angle = (angle + eta) / abs(angle + eta)
                taken += 1
            assert abs(steps - taken) <= 1
        assert abs(end.steps.double().median() - predicted_steps(tol, eta)) <= 2 / math.log1p(eta)
    assert predicted_steps(1e-6, 1.0) == pytest.approx(19.93, abs=0.01)
    assert predicted_steps(1e-6, 0.1) == pytest.approx(144.95, abs=0.01)


@pytest.mark.parametrize("rule", ["first", "current"])
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_at_a_small_scale_pga_takes_the_predicted_number_of_steps(activation, rule):
    """20 networks of 4 random starts each, d = 50, m = 1000, ratio 0.3, scale 0.1: every end a local maximum."""
    net, x0, y = networks(activation, 50, 1000, 20)
    problem = inner_problem(net, x0.expand(20, 4, 50), y, 0.1)
    end = pga(problem, random_start(problem), rule=rule)
    assert abs(float(end.steps.double().median()) - predicted_steps(1e-6, 1.0)) <= 3
    assert (end.status == MAXIMUM).all()
    apart = (end.delta - end.delta[:, :1]).norm(dim=-1) / problem.eps
    assert apart.max() < 1e-4  # one maximum, whatever the start
    assert (end.top < -0.9).all()


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_regularity_grows_with_the_scale(activation):
    """eps ||H|| / ||G|| at random points, 40 networks: its median from scale to scale, and paired by network."""
    net, x0, y = networks(activation, 50, 300, 40)
    scales = (0.1, 0.3, 1.0, 3.0)
    problem = inner_problem(net, x0.expand(40, 4, 50), y, torch.tensor(scales))
    each = regularity(problem, random_start(problem))
    for k in range(3):
        low, high = each[:, k].numpy(), each[:, k + 1].numpy()
        assert np.median(high) > 1.3 * np.median(low)
        assert wilcoxon(high, low, alternative="greater").pvalue < 1e-3


@pytest.mark.parametrize(("activation", "d", "m", "ratio", "scales"), [
    ("tanh", 200, 300, 0.15, (0.2, 0.4, 0.6, 1.0, 3.0)),
    ("softplus", 50, 500, 0.3, (0.4, 0.8, 1.5, 3.0)),
])  # fmt: skip
def test_a_second_maximum_is_found_where_it_is_predicted(activation, d, m, ratio, scales):
    """30 networks at every scale: at least 0.95 agree, pooled, and the lower end of the exact 95 % interval is above 0.9."""
    net, x0, y = networks(activation, d, m, 30)
    both = second_maximum(
        inner_problem(net, x0.expand(30, len(scales), d), y, torch.tensor(scales), ratio), max_steps=300
    )
    agree = both.predicted == both.found
    share = binomtest(int(agree.sum()), agree.numel())
    interval = share.proportion_ci(0.95, method="exact")
    print(f"{activation}: {share.k} of {share.n} agree, 95 % interval {interval.low:.3f} to {interval.high:.3f}")
    assert share.statistic >= 0.95 and interval.low > 0.9
    often = both.found.double().mean(0)
    assert (often.diff() >= 0).all() and often[0] < 0.3 and often[-1] > 0.8
    assert ((both.up.delta * both.down.delta).sum(-1)[both.found] < 0).any()


@pytest.mark.parametrize("activation", ["tanh", "softplus", "relu"])
def test_on_a_circle_two_maxima_of_opposite_residuals_exist_iff_f_minus_y_takes_both_signs(activation):
    seen, predicted_right, cases = set(), 0, 0
    for seed in range(8):
        net, x0 = Network.init(2, 40, activation, seed=seed), units(1, 2, seed=seed)
        for y, scale in ((0.1, 0.3), (0.5, 1.0), (-1.0, 2.0), (-2.0, 5.0)):
            problem, _, maxima, residuals, r = circle(net, x0, y, scale, 1, points=5000)
            if r.abs().min() < 1e-4 and not r.min() < -1e-2 < 1e-2 < r.max():
                continue  # y is f's largest or smallest value, to within the grid
            both = bool(r.min() < 0 < r.max())
            assert bool(residuals.min() < 0 < residuals.max()) == both
            how = dict(decay=0.1) if activation == "relu" else {}
            found = second_maximum(problem, max_steps=100, **how)
            assert both or not bool(found.found)  # opposite signs at two ends prove the pair
            predicted_right, cases = predicted_right + (bool(found.predicted) == both), cases + 1
            seen.add(both)
    assert seen == {True, False} and predicted_right > 0.8 * cases


@pytest.mark.parametrize("loss", ["logistic", "margin"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_monotone_loss_has_no_second_maximum_of_the_other_sign(loss, activation):
    net, x0, y = networks(activation, 20, 100, 10)
    problem = inner_problem(net, x0.expand(10, 4, 20), y, torch.tensor([0.1, 1.0, 5.0, 50.0]), 0.9, loss)
    both = second_maximum(problem, max_steps=50)
    assert not both.predicted.any() and not both.found.any()
    assert (problem.residual(both.up.delta) * y < 0).all()


def test_the_prediction_for_the_quadratic_loss_is_its_formula():
    problem = drawn("tanh", (5,), n=8, seed=90)
    f, g = problem.net(problem.x), problem.net.grad(problem.x)
    both = second_maximum(problem, max_steps=5)
    expected = problem.eps * g.norm(dim=-1) > (f - problem.y).abs()
    assert torch.equal(both.predicted, expected) and 0 < expected.double().mean() < 1
    assert torch.equal(both.up.delta, pga(problem, gradient_start(problem), max_steps=5).delta)
    assert torch.equal(both.down.delta, pga(problem, gradient_start(problem, -1.0), max_steps=5).delta)
    assert torch.equal(
        both.found, problem.residual(both.up.delta).sign() * problem.residual(both.down.delta).sign() < 0
    )


# --- the critical scale ---


@pytest.mark.parametrize("y", [1.0, -1.0, 0.3])
@pytest.mark.parametrize("ratio", [0.3, 0.05])
def test_a_relus_critical_scale_is_its_closed_form(y, ratio):
    net, x0 = Network.init(10, 100, "relu", (6,)), normal(6, 3, 10)  # not of length 1
    found = critical_scale(net, x0, y, ratio)
    below = ratio * x0.norm(dim=-1) * net.grad(x0).norm(dim=-1) + math.copysign(1, y) * net(x0)
    assert torch.equal(found.found, below > 0)
    assert_close(found.scale[found.found], (abs(y) / below)[found.found], rtol=1e-10, atol=0)
    assert found.scale[~found.found].isnan().all()
    assert found.found.any() and (ratio == 0.3 or not found.found.all())


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_the_critical_scale_is_the_least_that_a_finer_search_finds(activation):
    net, x0 = Network.init(6, 50, activation, (5,)), units(5, 2, 6)
    y = torch.tensor([[1.0, -0.5]]).double()
    found = critical_scale(net, x0, y, 0.3, low=1e-2, high=1e2)
    scales = torch.logspace(-2, 2, 20_000, dtype=torch.float64)
    for k, i in np.ndindex(5, 2):
        x = scales[:, None] * x0[k, i]
        f, g = net[k](x), net[k].grad(x)
        met = scales * 0.3 * g.norm(dim=-1) > (f - y[0, i]).abs()
        assert bool(found.found[k, i]) == bool(met.any())
        if met.any():
            least = scales[met.to(torch.uint8).argmax()]
            assert float(found.scale[k, i]) == pytest.approx(float(least), rel=6e-4)
            assert float(found.scale[k, i]) <= float(least) * (1 + 1e-12)
            problem = inner_problem(net[k], x0[k, i][None], y[0, i], float(found.scale[k, i]) * (1 + 1e-9))
            assert bool(second_maximum(problem, max_steps=1).predicted)
    assert found.found.any()


def test_there_is_no_critical_scale_where_f_is_out_of_reach():
    net, x0 = Network.init(6, 50, "tanh", (4,)), units(2, 6)
    found = critical_scale(net, x0, 100.0, 0.3)  # |f| <= sqrt 50
    assert found.found.shape == (4, 2) and not found.found.any() and found.scale.isnan().all()
    early = critical_scale(net, x0, 1.0, 0.3, high=1e-2)  # below the first one
    assert not early.found.any()
    later = critical_scale(Network.init(6, 50, "relu"), x0, 0.0)  # y = 0: met at every scale or at none
    assert_close(later.scale[later.found], torch.full((int(later.found.sum()),), 1e-3).double())


def test_the_scale_at_which_a_pair_is_found_is_no_less_than_where_a_circle_first_has_one():
    """d = 2: PGA finds a pair at this scale and none one percent below; by dense search none exists before."""
    net, x0 = Network.init(2, 40, "tanh", (12,), seed=3), units(12, 1, 2, seed=3)
    y = 0.3 * (-1.0) ** torch.arange(12, dtype=torch.float64).unsqueeze(-1)
    found = found_scale(net, x0, y, 0.5, max_steps=40)
    assert found.scale.shape == found.found.shape == (12, 1)
    kept = found.found[:, 0]
    assert kept.sum() >= 4 and found.scale[~kept].isnan().all()
    for share in (1.0, 0.99):
        problem = inner_problem(net[kept], x0[kept], y[kept], share * found.scale[kept], 0.5)
        assert (second_maximum(problem, max_steps=40).found == (share == 1)).all()
    angles = torch.arange(500, dtype=torch.float64) * math.pi / 250
    around = x0 + 0.5 * torch.stack([angles.cos(), angles.sin()], -1)  # (12, 500, 2)
    scales = torch.logspace(-1, 0, 300, dtype=torch.float64)
    above = torch.stack([net(scale * around) > y for scale in scales])
    both = above.any(-1) & ~above.all(-1)  # (300, 12)
    least = scales[both.to(torch.uint8).argmax(0)]
    assert both.any(0)[kept].all() and (least[kept] > 0.11).all()
    ratio = found.scale[kept, 0] / least[kept]
    assert (ratio > 0.99).all() and ratio.median() < 1.01


# --- input that is not as it should be ---

PROBLEM = drawn("tanh", (2,))
START = random_start(PROBLEM)
NUMBERS = (0, -1.0, math.nan, math.inf, "1", None)


def ascend(start=START, **wrong):
    return lambda: pga(PROBLEM, start, max_steps=wrong.pop("max_steps", 1), **wrong)


WRONG = [
    *((ascend(**{name: bad}), rf"^{name} must be a finite number above 0.*pass, for example, {name}=1\.0")
      for name in ("eta", "tol") for bad in NUMBERS),
    (ascend(decay=-0.1), r"^decay must be a finite number above 0, got -0\.1: pass, for example, decay=1\.0"),
    (ascend(decay=math.nan), "^decay must be a finite number above 0, got nan"),
    *((ascend(max_steps=bad), "^max_steps must be a whole number of at least 1.*pass an int") for bad in (0, 1.5, True)),
    (ascend(rule="newton"), r"^rule must be one of \['current', 'first'\], got 'newton': pass 'first' \(the step scaled by the first"),
    (ascend(within="cube"), r"^within must be one of \['ball', 'sphere'\], got 'cube': pass 'sphere' \(\|\|delta\|\| = eps\)"),
    (ascend(START * 1.01), r"^start lies off the sphere.* 1\.01 times the length eps: pass dynamics\.on_sphere\(problem, start\)"),
    (ascend(START * 0.99), r"^start lies off the sphere.* 0\.99 times the length eps: pass dynamics\.on_sphere\(problem, start\)"),
    (ascend(START * 0), r"^start lies off the sphere.* 0 times the length eps"),
    (ascend(START * 1.01, within="ball"), r"^start lies outside the ball.* 1\.01 times .*pass dynamics\.on_sphere\(problem, start\)"),
    (ascend(START[..., :2]), "^start must have shape .*put the input dimension d = 5 last"),
    (ascend(START[:1].expand(3, 3, 5)), r"^start has leading axes \(3,\) .*pass \(n, d\) to share"),
    (ascend(START.float()), r"^start is torch.float32 .*convert it with start.to\(torch.float64\)"),
    (ascend(START * math.nan), "^start holds NaN"),
    (ascend(START.numpy()), r"^start must be a torch.Tensor, got ndarray: wrap it in torch.as_tensor"),
    (lambda: random_start(PROBLEM, -1), "^seed must be a whole number of at least 0"),
    *((lambda bad=bad: predicted_steps(bad, 1.0), r"^tol must be below 1, got .*pass, for example, tol=1e-6") for bad in (1, 1.0, 7.5)),
    *((lambda bad=bad: predicted_steps(bad, 1.0), "^tol must be a finite number above 0") for bad in (0, -1, math.nan)),
    *((lambda bad=bad: predicted_steps(1e-6, bad), "^eta must be a finite number above 0") for bad in (0, -1, math.inf)),
    (lambda: second_maximum(PROBLEM, rule="newton"), "^rule must be one of"),
    (lambda: critical_scale(PROBLEM.net, START, 1.0, ratio=0), "^ratio must be a finite number above 0"),
    (lambda: critical_scale(PROBLEM.net, START, 1.0, low=0), "^low must be a finite number above 0"),
    (lambda: critical_scale(PROBLEM.net, START, 1.0, high=math.inf), "^high must be a finite number above 0"),
    (lambda: critical_scale(PROBLEM.net, 0 * START, 1.0), "^x0 holds a point at the origin.*leave it out"),
    (lambda: found_scale(PROBLEM.net, START, 1.0), r"^x0 must be one point of shape \(1, d\), got \(2, 3, 5\): pass x0\[:1\]"),
    (lambda: found_scale(PROBLEM.net, START[:, :1], 1.0, low=-1), "^low must be a finite number above 0"),
    (lambda: critical_scale(PROBLEM.net, START, torch.ones(7)), r"^y must be a number or broadcast to .*pass y=1\.0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "says"), WRONG, ids=[f"{k}: {says[1:20]}" for k, (_, says) in enumerate(WRONG)])
def test_bad_input_gets_one_sentence_with_the_remedy(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_a_start_in_the_ball_may_lie_anywhere_in_it():
    for share in (0.0, 0.3, 1.0, 1 + 1e-10):
        end = pga(PROBLEM, START * share, within="ball", max_steps=3)
        assert (end.delta.norm(dim=-1) <= PROBLEM.eps * (1 + 1e-9)).all()
    pga(PROBLEM, START * (1 + 1e-10), max_steps=1)  # rounding is forgiven
