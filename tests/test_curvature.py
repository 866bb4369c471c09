"""Curvature on the sphere against second differences along great circles, and at kinks against searches of the gates and of the circle."""

import itertools
import math

import numpy as np
import pytest
import torch
from reference import normal
from scipy.optimize import minimize
from torch.testing import assert_close

from lazy_helpers import curvature
from lazy_helpers.activations import Loss, activation_named
from lazy_helpers.curvature import radial, regularity, smallest_element, stationarity, top_eigenvalue
from lazy_helpers.dynamics import on_sphere
from lazy_helpers.landscape import Inner, Network, inner_problem

SMOOTH = ("tanh", "softplus", "quadratic")


def drawn(activation, d, members=(), n=3, m=12, seed=0, scale=1.0, loss="quadratic"):
    """A random problem, and as many random points of its spheres."""
    net, x0 = Network.init(d, m, activation, members, seed), normal(*members, n, d, seed=seed)
    y = normal(*members, n, seed=seed + 1)
    problem = inner_problem(net, x0, y.sign() if loss == "logistic" else y, scale, 0.5, loss)
    return problem, on_sphere(problem, normal(*members, n, d, seed=seed + 2))


def singles(problem, delta):
    """Each member and point as a problem of its own, and its delta (d,)."""
    flat, rows = problem.flat(), delta.reshape(problem.flat().x.shape)
    for k, i in np.ndindex(*flat.shape):
        at = slice(i, i + 1)
        yield Inner(flat.net[k], flat.x[k, at], flat.y[k, at], flat.eps[k, at], flat.loss), rows[k, i]


def along_great_circle(one, delta, v, t=2e-3):
    """L'' along the great circle through delta with the unit tangent v, by arc length: fourth-order differences of L alone."""
    eps = float(one.eps)
    angles = torch.tensor([-2, -1, 0, 1, 2], dtype=torch.float64).unsqueeze(-1) * t
    L = torch.cat([one.value((delta * angle.cos() + eps * v * angle.sin())[None]) for angle in angles])
    return float(L @ torch.tensor([-1.0, 16, -30, 16, -1], dtype=torch.float64)) / 12 / (t * eps) ** 2


def tangent_basis(delta):
    """Columns: an orthonormal basis of the tangent space, by QR."""
    full = torch.cat([delta[:, None], normal(len(delta), len(delta) - 1, seed=99)], dim=1)
    return torch.linalg.qr(full)[0][:, 1:]


def form_on_circles(one, delta):
    """The Riemannian Hessian in a tangent basis, entry by entry from second differences."""
    basis = tangent_basis(delta)
    k = basis.shape[1]
    form = np.diag([along_great_circle(one, delta, basis[:, j]) for j in range(k)])
    for i, j in itertools.combinations(range(k), 2):
        between = along_great_circle(one, delta, (basis[:, i] + basis[:, j]) / math.sqrt(2))
        form[i, j] = form[j, i] = between - (form[i, i] + form[j, j]) / 2
    return form


# --- the sphere ---


@pytest.mark.parametrize("loss", ["quadratic", "logistic", "quartic"])
@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("d", [2, 3, 6])
def test_top_eigenvalue_is_the_largest_second_difference_along_great_circles(activation, d, loss):
    chosen = Loss.of(lambda f, y: (f - y) ** 4 / 4) if loss == "quartic" else loss
    problem, delta = drawn(activation, d, members=(2,), n=2, seed=d, loss=chosen)
    top = top_eigenvalue(problem, delta)
    assert top.shape == problem.shape
    for (one, point), found in zip(singles(problem, delta), top.flatten(), strict=True):
        values = np.linalg.eigvalsh(form_on_circles(one, point))
        scale = 1 + float(torch.linalg.eigvalsh(one.hessian(point[None]))[0].abs().max())
        assert float(found) == pytest.approx(values[-1], abs=1e-5 * scale)


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("first", [1.0, -1.0, 0.0, -0.0, 1e-300, -1e-17])
def test_no_point_of_the_sphere_is_a_bad_one_for_the_tangent_basis(d, first):
    """Householder's vector for n = e_1 and -e_1, and for points orthogonal to e_1."""
    problem, _ = drawn("tanh", d, n=1, seed=7)
    direction = torch.zeros(d, dtype=torch.float64)
    direction[0], direction[1] = first, math.sqrt(1 - first**2)
    delta = problem.eps * direction
    one, point = next(singles(problem, delta[None]))
    expected = np.linalg.eigvalsh(form_on_circles(one, point))[-1]
    assert float(top_eigenvalue(problem, delta[None])) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    if d > 2:
        assert_close(top_eigenvalue(problem, delta[None], dense=1), top_eigenvalue(problem, delta[None]))


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("d", [3, 4, 30])
def test_lanczos_finds_what_the_whole_matrix_has(activation, d):
    problem, delta = drawn(activation, d, members=(2, 2), n=2, seed=d)
    assert_close(top_eigenvalue(problem, delta, dense=1), top_eigenvalue(problem, delta), rtol=1e-8, atol=1e-10)
    assert_close(regularity(problem, delta, dense=1), regularity(problem, delta), rtol=1e-8, atol=1e-10)
    assert torch.equal(top_eigenvalue(problem, delta, dense=1), top_eigenvalue(problem, delta, dense=1))


def test_lanczos_takes_over_in_high_dimension():
    problem, delta = drawn("tanh", curvature.DENSE + 1, n=1, m=50)
    assert_close(top_eigenvalue(problem, delta), top_eigenvalue(problem, delta, dense=1000), rtol=1e-8, atol=1e-10)
    assert_close(regularity(problem, delta), regularity(problem, delta, dense=1000), rtol=1e-8, atol=1e-10)


def test_lanczos_on_a_line_of_tangents():
    """d = 2: one tangent direction, too few for ARPACK."""
    problem, delta = drawn("tanh", 2)
    assert_close(top_eigenvalue(problem, delta, dense=1), top_eigenvalue(problem, delta))


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("d", [1, 2, 7])
def test_regularity_is_numpys_largest_eigenvalue_of_autograds_hessian(activation, d):
    problem, delta = drawn(activation, d, members=(2,), seed=d)
    found = regularity(problem, delta)
    for (one, point), ratio in zip(singles(problem, delta), found.flatten(), strict=True):
        at = lambda t, one=one: one.value(t[None])[0]  # noqa: E731
        H = torch.autograd.functional.hessian(at, point).numpy()
        G = torch.func.grad(at)(point).numpy()
        assert float(ratio) == pytest.approx(float(one.eps) * np.abs(np.linalg.eigvals(H)).max() / np.linalg.norm(G))


def test_regularity_vanishes_with_the_scale():
    """Halving a small scale halves it: H tends to a constant, G to another."""
    net, x0 = Network.init(5, 200, "softplus"), normal(1, 5)
    ratios = []
    for scale in (1e-3, 5e-4):
        problem = inner_problem(net, x0, 3.0, scale)
        ratios.append(float(regularity(problem, on_sphere(problem, normal(1, 5, seed=1)))))
    assert ratios[0] < 1e-2 and ratios[1] == pytest.approx(ratios[0] / 2, rel=1e-2)


@pytest.mark.parametrize("activation", [*SMOOTH, "relu"])
def test_stationarity_is_the_tangential_share_of_the_gradient(activation):
    problem, delta = drawn(activation, 4, members=(2,), seed=3)
    kappa, G = stationarity(problem, delta), problem.grad(delta).numpy()
    for index in np.ndindex(*problem.shape):
        n = delta[index].numpy() / float(problem.eps[index])
        size = np.linalg.norm((np.eye(4) - np.outer(n, n)) @ G[index])
        assert float(kappa[index]) == pytest.approx(size / np.linalg.norm(G[index]))
    assert_close(stationarity(problem, delta, problem.grad(delta)), kappa)
    along = on_sphere(problem, torch.from_numpy(G))
    assert stationarity(problem, along, torch.from_numpy(G)).max() < 1e-14
    assert (stationarity(problem, delta, torch.zeros_like(delta)) == 0).all()


@pytest.mark.parametrize("activation", SMOOTH)
def test_radial_is_the_slope_of_the_value_as_the_ball_grows(activation):
    problem, delta = drawn(activation, 4, members=(2,), seed=4)
    step = 1e-5
    slope = (problem.value(delta * (1 + step)) - problem.value(delta * (1 - step))) / (2 * step)
    assert_close(radial(problem, delta), slope / problem.eps**2, rtol=1e-7, atol=1e-7)


# --- kinks ---

RELU = activation_named("relu")


def ridge_problem(y, sign, reach_of=1.0, mirror=1.0):
    """d = 2, x = (1, 0), eps = 0.3 and f(x) = sign (x_1 + t x_2 - 3 relu(x_2) reach_of) / sqrt 2, bent at delta = (eps, 0)."""
    W = torch.tensor([[1.0, mirror], [0.0, 3.0 * reach_of * mirror]], dtype=torch.float64)
    net = Network(W, sign * torch.tensor([1.0, -1.0], dtype=torch.float64), RELU)
    return inner_problem(net, torch.tensor([[1.0, 0.0]], dtype=torch.float64), y, 1.0, 0.3)


def on_circle(problem, angles):
    """Points of the sphere of a problem in d = 2 with one point: (len(angles), 2)."""
    return problem.eps * torch.stack([angles.cos(), angles.sin()], -1)


def circle_values(problem, angles):
    return problem.loss.value(problem.net(problem.x + on_circle(problem, angles)), problem.y)


def circle_maxima(problem, points=20_000):
    """The angles of the circle's local maxima, by dense search."""
    angles = torch.arange(points, dtype=torch.float64) * 2 * math.pi / points
    L = circle_values(problem, angles)
    return angles[(L > L.roll(1)) & (L >= L.roll(-1))]


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize(("y", "sign"), [(-1.0, 1.0), (3.0, -1.0), (-3.0, 1.0), (1.0, -1.0)])
def test_a_kink_that_holds_a_maximum(y, sign, mirror):
    """The slope of f along the circle is 1 on one side and 1 - 3 on the other: the gate 1/3 makes it 0."""
    problem = ridge_problem(y, sign, mirror=mirror)
    delta = on_circle(problem, torch.zeros(1).double())
    side = circle_values(problem, torch.tensor([-1e-4, 0.0, 1e-4]).double())
    assert side[1] > side[0] and side[1] > side[2]
    kinks = smallest_element(problem, delta)
    assert float(kinks.stationarity) < 1e-12 and (int(kinks.active), int(kinks.ridges), int(kinks.upward)) == (1, 1, 0)
    assert float(radial(problem, delta)) > 0
    beside = smallest_element(problem, on_circle(problem, torch.tensor([0.5e-2]).double()))
    assert float(beside.stationarity) < 0.02 and int(beside.ridges) == 1  # another gate, within reach of the same kink
    away = smallest_element(problem, on_circle(problem, torch.tensor([2e-2]).double()))
    assert int(away.active) == 0 and float(away.stationarity) > 0.5


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize(("y", "sign"), [(3.0, 1.0), (-1.0, -1.0)])
def test_a_kink_that_holds_a_minimum_bends_up(y, sign, mirror):
    problem = ridge_problem(y, sign, mirror=mirror)
    delta = on_circle(problem, torch.zeros(1).double())
    side = circle_values(problem, torch.tensor([-1e-4, 0.0, 1e-4]).double())
    assert side[1] < side[0] and side[1] < side[2]
    kinks = smallest_element(problem, delta)
    assert float(kinks.stationarity) < 1e-12 and (int(kinks.active), int(kinks.ridges), int(kinks.upward)) == (1, 1, 1)


def test_a_kink_on_a_slope_holds_nothing():
    """The slope is 1 before the kink and 1 - 0.6 after it: the smallest element has the gate at its end."""
    problem = ridge_problem(-1.0, 1.0, reach_of=0.2)
    kinks = smallest_element(problem, on_circle(problem, torch.zeros(1).double()))
    assert (int(kinks.active), int(kinks.ridges)) == (1, 0)
    assert float(kinks.stationarity) == pytest.approx(0.4 / math.hypot(1, 0.4))


def test_a_relu_away_from_every_kink_is_as_a_smooth_function_there():
    problem, delta = drawn("relu", 6, members=(2,), m=8, seed=12)
    kinks = smallest_element(problem, delta, reach=1e-9)
    assert (kinks.active == 0).all() and (kinks.ridges == 0).all() and (kinks.upward == 0).all()
    assert_close(kinks.stationarity, stationarity(problem, delta))
    assert kinks.stationarity.shape == kinks.active.shape == problem.shape


def bent_element(one, delta, near, gates):
    """G of one problem with these gates in place of the near neurons' own, in numpy from the definition."""
    W, a, x = one.net.W.numpy(), one.net.a.numpy(), one.x[0].numpy() + delta.numpy()
    on = (W @ x > 0).astype(float)
    on[near] = gates
    f = a @ np.maximum(W @ x, 0) / math.sqrt(len(a))
    return (f - float(one.y)) * (a * on) @ W / math.sqrt(len(a))


@pytest.mark.parametrize(("slope", "kink"), [(1.0, -0.5), (-0.2, 0.5)], ids=["off at the point", "on at the point"])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_kink_that_bends_up_beside_one_that_holds_a_maximum(side, slope, kink):
    """Slopes 1/2, 1, -2 around the circle, or -1/5, 3/10, -27/10 (or mirrored): both kinks' gates can balance, but the first holds it."""
    W = torch.tensor([[1.0, slope], [0.0, 3.0], [1e-3 * kink, kink]]).double() * torch.tensor([1.0, side])
    net = Network(W, torch.tensor([1.0, -1.0, 1.0]).double(), RELU)
    problem = inner_problem(net, torch.tensor([[1.0, 0.0]]).double(), -1.0, 1.0, 0.3)
    assert 0.0 in circle_maxima(problem).tolist()
    kinks = smallest_element(problem, on_circle(problem, torch.zeros(1).double()))
    assert int(kinks.active) == 2 and float(kinks.stationarity) < 1e-12
    assert (int(kinks.ridges), int(kinks.upward)) == (1, 0)


@pytest.mark.parametrize("m", [5, 20, 100, 300])
def test_what_passes_for_a_maximum_lies_at_one(m):
    """d = 2: random points, and all maxima and minima of the circle. Within reach, kinks lie up to 0.02 radians apart."""
    held = 0
    for seed in range(10):
        net, x0 = Network.init(2, m, "relu", seed=seed), torch.nn.functional.normalize(normal(1, 2, seed=seed), dim=-1)
        problem = inner_problem(net, x0, (-1.0) ** seed, 1.0, 0.3)
        angles = torch.arange(20_000, dtype=torch.float64) * math.pi / 10_000
        L, maxima = circle_values(problem, angles), circle_maxima(problem)
        minima = angles[(L < L.roll(1)) & (L <= L.roll(-1))]
        where = torch.cat([maxima, minima, 6 * normal(50, seed=seed)])
        many = inner_problem(net, x0.expand(len(where), 2), (-1.0) ** seed, 1.0, 0.3)
        kinks = smallest_element(many, on_circle(problem, where))
        says = (kinks.stationarity <= 1e-6) & (kinks.upward == 0) & (radial(many, on_circle(problem, where)) > 0)
        gap = torch.remainder(where[:, None] - maxima + math.pi, 2 * math.pi) - math.pi
        assert (gap.abs().amin(-1)[says] < 0.02).all()
        held += int(says[: len(maxima)].sum())
    assert held >= 2


@pytest.mark.parametrize("reach", [0.05, 0.2])
def test_the_smallest_element_has_no_smaller_one(reach):
    """Against a quasi-Newton search over the gates, from many starts; with fewer near kinks than d - 1 it is unique."""
    problem, delta = drawn("relu", 7, members=(4,), n=6, m=15, seed=15)
    kinks = smallest_element(problem, delta, reach)
    cases = list(zip(singles(problem, delta), *(part.flatten().tolist() for part in kinks), strict=True))
    seen = set()
    for (one, point), kappa, active, ridges, upward in cases:
        n = point.numpy() / float(one.eps)
        P = np.eye(7) - np.outer(n, n)
        W = one.net.W.numpy()
        near = np.abs(W @ (one.x[0] + point).numpy()) <= reach * float(one.eps) * np.linalg.norm(W, axis=1)
        assert active == near.sum()
        if not 0 < active < 6:
            continue
        size = lambda g, one=one, point=point, near=near, P=P: np.sum((P @ bent_element(one, point, near, g)) ** 2)  # noqa: E731
        starts = np.random.default_rng(0).random((3, active))
        found = min((minimize(size, g, bounds=[(0, 1)] * active, tol=1e-14) for g in starts), key=lambda end: end.fun)
        G = bent_element(one, point, near, found.x)
        assert kappa == pytest.approx(math.sqrt(found.fun) / np.linalg.norm(G), rel=1e-4)
        held = (found.x > 1e-4) & (found.x < 1 - 1e-4)
        bends_up = (one.residual(point[None]).numpy() * one.net.a.numpy()[near]) > 0
        assert (ridges, upward) == (held.sum(), (held & bends_up).sum())
        seen |= {("active", active), ("ridges", ridges), ("upward", upward)}
    assert {("active", 1), ("ridges", 1), ("upward", 1), ("upward", 0)} <= seen and len(seen) > 4


# --- input that is not as it should be ---

BENT, BENT_AT = drawn("relu", 3)


@pytest.mark.parametrize("dense", [1, curvature.DENSE])
@pytest.mark.parametrize("call", [top_eigenvalue, regularity])
def test_a_kinked_activation_has_no_hessian(call, dense):
    with pytest.raises(ValueError, match="^activation 'relu' has a kink.*take 'tanh', .*or curvature.smallest_element"):
        call(BENT, BENT_AT, dense)


@pytest.mark.parametrize("activation", SMOOTH)
def test_a_smooth_activation_has_no_kinks(activation):
    problem, delta = drawn(activation, 3)
    with pytest.raises(ValueError, match=f"^activation '{activation}' has no kinks: use curvature.top_eigenvalue"):
        smallest_element(problem, delta)


@pytest.mark.parametrize("reach", [0, -1.0, math.nan, "1"])
def test_reach_must_be_positive(reach):
    with pytest.raises(ValueError, match=r"^reach must be a finite number above 0.*pass, for example, reach=1\.0"):
        smallest_element(BENT, BENT_AT, reach)
