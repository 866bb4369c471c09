"""The lazy ball against definitions, closed forms, a dense grid and scipy; the cone against a dense scan of r."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import MEMBERS, SEEDS, normal
from scipy.optimize import minimize_scalar

import lazy_helpers as lh
from lazy_helpers import lazy


@st.composite
def pairs(draw, dtypes=(torch.float64, torch.float32)):
    """A ball and weights, most of them outside: a random size, C0 from tiny to huge, any member axes."""
    m, d = draw(st.sampled_from([1, 2, 3, 10, 50])), draw(st.sampled_from([1, 2, 5, 50]))
    members, dtype = draw(MEMBERS), draw(st.sampled_from(dtypes))
    seed, C0 = draw(SEEDS), draw(st.sampled_from([1e-3, 0.01, 1.0, 10.0, 40.0, 1e3, 1e6]))
    W0 = normal(*members, m, d, seed=seed).to(dtype)
    ball = lh.LazyBall(W0, C0)
    far = draw(st.sampled_from([0.1, 1.0, 10.0])) * ball.radius / math.sqrt(d)
    return ball, W0 + far * normal(*members, m, d, seed=seed + 1).to(dtype)


def largest_deviation(ball, W):
    """The 2,infinity norm of W - W0, entry by entry in python floats."""
    W, W0 = (w.reshape(-1, *w.shape[-2:]).double().tolist() for w in (W, ball.W0))
    return [max(math.dist(w, w0) for w, w0 in zip(*member, strict=True)) for member in zip(W, W0, strict=True)]


# --- distance and membership ---


@given(pairs())
def test_distance_is_the_largest_deviation_of_a_neuron(pair):
    ball, W = pair
    distance = ball.distance(W)
    rounding = torch.finfo(W.dtype).eps * 4
    assert distance.shape == W.shape[:-2] and ball.deviations(W).shape == W.shape[:-1]
    for found, true in zip(distance.flatten().tolist(), largest_deviation(ball, W), strict=True):
        assert found == pytest.approx(true, rel=rounding * 10)


@given(pairs())
def test_contains_is_distance_up_to_the_radius(pair):
    ball, W = pair
    true = torch.tensor(largest_deviation(ball, W))
    inside = ball.contains(W)
    assert inside.shape == W.shape[:-2] and inside.dtype == torch.bool
    for is_inside, distance in zip(inside.flatten().tolist(), true.tolist(), strict=True):
        if abs(distance - ball.radius) > 2 * ball.slack:  # nearer, either answer is rounding
            assert is_inside == (distance < ball.radius)


def test_radius_is_C0_over_root_m():
    assert lh.LazyBall(torch.zeros(2, 25, 3), 10).radius == 2.0


def test_slack_is_rounding_only():
    """What `contains` forgives stays near the precision of the numbers themselves."""
    W0 = normal(30, 20).float()
    for C0 in (1e-3, 10.0, 1e4):
        ball = lh.LazyBall(W0, C0)
        assert 0 < ball.slack <= 1e-6 * (W0.abs().max() + ball.radius)


def test_one_neuron_outside_is_enough():
    W0 = torch.zeros(3, 100, 2)
    ball = lh.LazyBall(W0, 10.0)  # radius 1
    W = W0.clone()
    W[1, 99] = torch.tensor([0.8, 0.61])
    W[2, 0] = torch.tensor([0.6, 0.8])  # on the sphere
    assert ball.contains(W).tolist() == [True, False, True]


def test_many_neurons_are_handled_in_blocks(monkeypatch):
    W0, W = normal(2, 23, 3), normal(2, 23, 3, seed=1)
    ball = lh.LazyBall(W0, 3.0)
    whole, projected = ball.deviations(W), ball.project(W)
    monkeypatch.setattr(lazy, "ROWS", 5)
    assert torch.equal(ball.deviations(W), whole) and torch.equal(ball.project(W), projected)
    torch.testing.assert_close(whole, torch.linalg.vector_norm(W - W0, dim=-1))


def test_a_bias_counts_in_a_neurons_deviation():
    net = lh.TwoLayerNet.init(3, 4, bias=True)
    moved = net.replace(b=net.b + torch.tensor([0.0, 0.0, 0.7, 0.0]))
    assert lh.LazyBall(net.weights, 1.0).distance(moved.weights).item() == pytest.approx(0.7, rel=1e-6)
    assert lh.LazyBall(net.W, 1.0).distance(moved.W) == 0


# --- projection ---


@given(pairs())
def test_projection_is_feasible(pair):
    ball, W = pair
    projected = ball.project(W)
    assert bool(ball.contains(projected).all())
    assert max(largest_deviation(ball, projected)) <= ball.radius + ball.slack


@given(pairs())
def test_projection_is_idempotent(pair):
    ball, W = pair
    once = ball.project(W)
    assert torch.equal(ball.project(once), once)


@given(pairs())
def test_neurons_inside_are_left_bitwise_alone(pair):
    ball, W = pair
    inside = ball.deviations(W) <= ball.radius
    assert torch.equal(ball.project(W)[inside], W[inside])
    assert torch.equal(ball.project(ball.W0), ball.W0)


@given(pairs(dtypes=(torch.float64,)))
def test_projection_is_the_closed_form_neuron_by_neuron(pair):
    ball, W = pair
    projected = ball.project(W)
    for p, w, w0 in zip(*(t.reshape(-1, W.shape[-1]) for t in (projected, W, ball.W0)), strict=True):
        length = float((w - w0).norm())
        expected = w if length <= ball.radius else w0 + (w - w0) * ball.radius / length
        torch.testing.assert_close(p, expected, rtol=1e-12, atol=1e-12)


def test_projection_is_the_nearest_point_of_the_ball():
    """In the plane, no point of a dense grid of the disc is nearer, and the projection is as near as the grid allows."""
    ball = lh.LazyBall(torch.tensor([[0.3, -0.2]]).double(), 0.7)
    angle, length = torch.meshgrid(
        torch.linspace(0, 2 * math.pi, 721).double(), torch.linspace(0, 0.7, 71).double(), indexing="ij"
    )
    disc = ball.W0 + torch.stack([length * angle.cos(), length * angle.sin()], dim=-1).reshape(-1, 2)
    for seed in range(20):
        w = ball.W0 + normal(1, 2, seed=seed)
        nearest = (disc - w).norm(dim=-1).min()
        distance = (ball.project(w) - w).norm()
        assert distance <= nearest + 1e-12 and distance > nearest - 0.02


@given(pairs(dtypes=(torch.float64,)), SEEDS)
def test_projection_obeys_its_variational_inequality(pair, seed):
    """<W - P(W), V - P(W)> <= 0 for every V of the ball, neuron by neuron: P(W) is the nearest point."""
    ball, W = pair
    P = ball.project(W)
    step = torch.nn.functional.normalize(normal(5, *W.shape, seed=seed), dim=-1)
    V = ball.W0 + ball.radius * step
    products = ((W - P) * (V - P)).sum(-1)
    assert float(products.max()) <= 1e-9 * max(1, ball.radius**2)


@pytest.mark.parametrize("C0", [1e3, 1e5, 1e7])
def test_a_huge_ball_contains_what_it_projects(C0):
    """Rounding of W - W0 grows with the radius as well as with the weights."""
    for seed in range(30):
        W0 = normal(3, 50, seed=seed).float()
        ball = lh.LazyBall(W0, C0)
        assert ball.contains(ball.project(W0 + C0 * normal(3, 50, seed=seed + 100).float()))


@pytest.mark.parametrize("W0", [torch.ones(1, 1), torch.zeros(4, 3)])
def test_projection_of_W0_itself_has_no_0_over_0(W0):
    assert torch.equal(lh.LazyBall(W0, 1.0).project(W0), W0)


# --- positive rescalings and the cone ---


@given(st.integers(1, 9), st.integers(1, 5), SEEDS, st.sampled_from([1.0, 0.1, 30.0]))
def test_rescaled_is_the_least_over_r_against_scipy(m, d, seed, scale):
    W0, W = normal(m, d, seed=seed), scale * normal(m, d, seed=seed + 1)
    ball = lh.LazyBall(W0, 1.0)

    def distance(r):
        return float((r * W - W0).norm(dim=-1).max())

    found, r = (float(part) for part in ball.rescaled(W))
    best = [minimize_scalar(distance, bounds=(0, hi / scale), method="bounded") for hi in (0.1, 1, 10, 1000)]
    least, size = min(distance(0.0), *(b.fun for b in best)), float(W0.square().sum(-1).max())
    assert found**2 == pytest.approx(distance(r) ** 2, abs=1e-14 * size)  # attained at the r that it names
    assert found**2 <= least**2 + 1e-14 * size
    assert found == pytest.approx(least, abs=1e-4)  # as near as scipy comes


@given(st.integers(1, 6), st.integers(1, 4), SEEDS)
def test_rescaled_is_the_least_over_a_dense_scan_of_r(m, d, seed):
    W0, W = normal(m, d, seed=seed), normal(m, d, seed=seed + 1)
    grid = torch.linspace(0, 5, 20_001).double()
    scan = (grid[:, None, None] * W - W0).norm(dim=-1).amax(-1)
    found = lh.LazyBall(W0, 1.0).rescaled(W)
    assert found.distance <= scan.min() + 1e-12
    if found.r < 5:
        assert found.distance > scan.min() - float(W.norm(dim=-1).max()) * 5 / 20_000


@given(SEEDS, st.floats(0.01, 100))
def test_a_rescaled_copy_of_W0_is_found_at_distance_zero(seed, r):
    W0 = normal(7, 3, seed=seed)
    found = lh.LazyBall(W0, 1.0).rescaled(W0 / r)
    assert found.distance < 1e-7 and float(found.r) == pytest.approx(r, rel=1e-7)


def test_one_neuron_of_one_dimension_by_hand():
    best = lh.LazyBall(torch.tensor([[2.0]]), 1.0).rescaled(torch.tensor([[0.5]]))
    assert best.distance == 0 and best.r == pytest.approx(4)
    best = lh.LazyBall(torch.tensor([[3.0, 4.0]]), 1.0).rescaled(torch.tensor([[1.0, 0.0]]))
    assert best.distance == pytest.approx(4) and best.r == pytest.approx(3)  # the foot of the perpendicular


def test_weights_that_all_point_away_belong_to_r_at_zero():
    W0 = normal(4, 3)
    best = lh.LazyBall(W0, 1.0).rescaled(-W0)
    assert best.r == 0 and best.distance == pytest.approx(float(W0.norm(dim=-1).max()))


@given(SEEDS)
def test_members_are_rescaled_each_on_its_own(seed):
    W0, W = normal(2, 3, 5, 2, seed=seed), normal(2, 3, 5, 2, seed=seed + 1)
    together = lh.LazyBall(W0, 1.0).rescaled(W)
    assert together.distance.shape == together.r.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = lh.LazyBall(W0[i, j], 1.0).rescaled(W[i, j])
            torch.testing.assert_close(together.distance[i, j], alone.distance)
            torch.testing.assert_close(together.r[i, j], alone.r)


@given(SEEDS, st.sampled_from([1.0, 3.0, 6.0]))
def test_cone_is_every_positive_multiple_of_the_ball(seed, C0):
    """Against a dense scan of r, for weights near the cone's edge."""
    W0 = normal(2, 2, seed=seed)
    ball, W = lh.LazyBall(W0, C0), W0 + normal(2, 2, seed=seed + 1)
    scan = (torch.logspace(-6, 3, 40_001).double()[:, None, None] * W - W0).norm(dim=-1).amax(-1).min()
    if abs(scan - ball.radius) > 1e-3:
        assert bool(ball.cone_contains(W)) == bool(scan < ball.radius)


@given(pairs(dtypes=(torch.float64,)), st.sampled_from([1e-3, 0.5, 1.0, 7.0, 1e3]))
def test_cone_holds_every_multiple_of_what_lies_inside_the_ball(pair, r):
    ball, W = pair
    inside = lh.LazyBall(ball.W0, 0.99 * ball.C0).project(W)
    assert bool(ball.cone_contains(r * inside).all())


def test_cone_holds_the_balls_own_sphere():
    """In float64 too, what `contains` accepts belongs to the cone: r = 1 is a rescaling."""
    for seed in range(100):
        W0 = normal(2, 1, seed=seed)
        ball = lh.LazyBall(W0, 0.01)
        on_the_sphere = ball.project(W0 + normal(2, 1, seed=seed + 100))
        assert ball.contains(on_the_sphere) and ball.cone_contains(on_the_sphere)


def test_cone_reaches_what_small_r_pulls_into_the_ball():
    """W = -W0 / 2 with ||W0|| < V: r W tends to 0, which lies inside the ball, though no r W is nearest."""
    ball = lh.LazyBall(torch.ones(1, 1), 2.0)
    for W in (-0.5, -5.0, -1000.0):
        assert ball.cone_contains(torch.full((1, 1), W))
    assert not lh.LazyBall(torch.ones(1, 1), 0.5).cone_contains(torch.full((1, 1), -0.5))


def test_cone_does_not_hold_what_only_r_equal_zero_would():
    """||W0|| = V exactly: 0 lies on the sphere, and r W leaves the ball for every r > 0."""
    assert not lh.LazyBall(torch.ones(1, 1), 1.0).cone_contains(-torch.ones(1, 1))


def test_sign_of_f_is_the_same_all_along_the_cones_ray():
    """The reason for the cone: f at r W is r f at W."""
    net = lh.TwoLayerNet.init(5, 20, members=2, dtype=torch.float64)
    x = normal(6, 5)
    ball = lh.LazyBall(net.W, 1.0)
    scaled = net.replace(W=0.2 * net.W)
    assert bool(ball.cone_contains(scaled.W).all()) and not bool(ball.contains(scaled.W).any())
    torch.testing.assert_close(scaled(x), 0.2 * net(x))
