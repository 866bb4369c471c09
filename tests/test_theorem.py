"""The theorem assembled for a draw: no network of the ball, random or optimised, may do what the bounds exclude."""

import math

import pytest
import torch

import lazy_helpers as lh
from lazy_helpers import theorem
from lazy_helpers.extremes import farthest, largest_gradient_change, largest_singular_value

F64 = torch.float64


def tried(net, x, C0, draw, many=12):
    """Weights of the ball: random ones, the largest margins, the shortest gradients, what lies between, the worst found."""
    V = C0 / math.sqrt(net.m)
    yield net
    for trial in range(many):
        move = torch.nn.functional.normalize(torch.randn(net.W.shape, generator=draw, dtype=net.W.dtype), dim=-1)
        yield net.replace(W=net.W + V * (1.0 if trial % 2 else float(torch.rand((), generator=draw))) * move)
    g = net.grad(x[None])[0]
    for sign in (1, -1):
        yield net.replace(W=net.W + sign * V * net.a[:, None] * x)
        for angle in (0.3, 0.9, 1.5):
            yield farthest(net, x, C0, sign * math.cos(angle) * x - math.sin(angle) * g / g.norm())
    yield theorem.worst_network(net, x, C0, rounds=2).net


def after(net, x, eta):
    """sign(f) f(x - sign(f) eta grad f) and its parts, for each step."""
    f, g = net(x[None])[0], net.grad(x[None])[0]
    sign = f.sign()
    there = sign * net(x - sign * eta[:, None] * g)
    first = sign * f - eta * (g @ g)
    return there, first, there - first


@pytest.mark.parametrize(
    "d, m, C0", [(5, 40, 0.5), (30, 200, 1.0), (100, 1000, 3.0), (400, 1000, 1.0), (1500, 1000, 1.0), (60, 60, 10.0)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_network_of_the_ball_breaks_the_bound(d, m, C0, seed):
    draw = torch.Generator().manual_seed(seed)
    net, x = lh.TwoLayerNet.init(d, m, seed=seed, dtype=F64), lh.unit_sphere(1, d, seed=seed).double()[0]
    eta = torch.tensor([0.3, 1.0, 3.0, 10.0, 40.0], dtype=F64) / d
    bound = theorem.flip_bound(net, x, C0, eta, iterations=30)
    sides = dict(zip((1.0, -1.0), theorem.flip_sides(net, x, C0, eta, iterations=30), strict=True))
    assert torch.equal(bound.total, torch.maximum(sides[1.0].total, sides[-1.0].total))
    assert torch.allclose(bound.total, bound.first_order + bound.residual)
    seen = set()
    for other in tried(net, x, C0, draw):
        there, first, residual = after(other, x, eta)
        sign = float(other(x[None])[0].sign())
        for found, most in zip((there, first, residual), sides[sign], strict=True):
            assert (found <= most + 1e-9).all()
        seen.add(sign)
    assert seen == {1.0, -1.0} or C0 <= 1


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("d, m, C0", [(10, 80, 1.0), (100, 500, 3.0), (800, 300, 1.0)])
def test_each_bound_of_the_residual_holds_alone(d, m, C0, sign):
    draw = torch.Generator().manual_seed(m)
    net, x = lh.TwoLayerNet.init(d, m, seed=4, dtype=F64), lh.unit_sphere(1, d, seed=4).double()[0]
    if float(net(x[None])[0]) * sign < 0:
        net = net.replace(a=-net.a)
    eta = torch.tensor([0.5, 2.0, 8.0, 30.0], dtype=F64) / d
    g0, sigma, change = (
        net.grad(x[None])[0],
        largest_singular_value(net.W),
        largest_gradient_change(net, x[None], C0)[0],
    )
    u, p, up = net.W @ x, net.W @ g0, sign * net.a > 0
    reach = eta * (g0.norm() + change)
    V = C0 / math.sqrt(m)
    by_size = theorem._by_size(u[up].abs(), V, (sigma + C0) * reach, m)
    by_direction = theorem._by_direction(u, p, up, V, eta, sign, reach, eta * sigma * change)
    seen = 0
    for other in tried(net, x, C0, draw, many=20):
        if float(other(x[None])[0]) * sign > 0:
            residual = after(other, x, eta)[2]
            assert (residual <= by_size + 1e-9).all() and (residual <= by_direction + 1e-9).all()
            seen += 1
    assert seen >= 3


def test_the_residual_bounds_against_brute_force_over_switches():
    """_by_size at a few neurons: all subsets that can switch, each with its best q of length T."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(30):
        u = torch.rand(6, generator=draw, dtype=F64)
        T, C0, m = float(torch.rand((), generator=draw)) * 3, 0.2, 36
        V = C0 / math.sqrt(m)
        best = 0.0
        for mask in range(1, 64):
            some = torch.tensor([bool(mask >> i & 1) for i in range(6)])
            best = max(best, T * math.sqrt(int(some.sum())) - float((u[some] - V).clamp(min=0).sum()))
        assert float(theorem._by_size(u, V, torch.tensor([T], dtype=F64), m)[0]) * math.sqrt(m) == pytest.approx(
            max(best, 0)
        )


@pytest.mark.parametrize("m", [1, 2, 3])
def test_few_neurons_all_of_one_sign(m):
    eta = torch.tensor([0.1, 1.0], dtype=F64)
    for seed in range(6):
        net, x = lh.TwoLayerNet.init(3, m, seed=seed, dtype=F64), lh.unit_sphere(1, 3).double()[0]
        bound = theorem.flip_bound(net, x, 0.1, eta).total
        assert torch.isfinite(bound).all()
        assert (after(net, x, eta)[0] <= bound + 1e-9).all()


def test_certified_steps_flip_every_network_tried():
    d, m, C0 = 4000, 1000, 1.0
    net, x = theorem.same_law(d, m, seed=2)
    steps = theorem.certified_steps(net, x, C0, iterations=30)
    assert float(steps.low) < float(steps.high) and float(steps.bound) < 0
    draw = torch.Generator().manual_seed(0)
    eta = torch.logspace(math.log10(float(steps.low)), math.log10(float(steps.high)), 7, dtype=torch.float64).float()
    for other in tried(net, x, C0, draw, many=4):
        assert (after(other, x, eta)[0] < 0).all()
    worst = theorem.worst_network(net, x, C0)
    assert worst.eta <= float(steps.low)
    assert lh.LazyBall(net.W, C0).contains(worst.net.W)


def test_nothing_is_certified_where_a_network_resists():
    d, m, C0 = 25, 400, 10.0
    net, x = lh.TwoLayerNet.init(d, m), lh.unit_sphere(1, d)[0]
    assert math.isinf(theorem.worst_network(net, x, C0).eta)
    steps = theorem.certified_steps(net, x, C0, grid=10, iterations=10)
    assert math.isnan(float(steps.low)) and math.isnan(float(steps.best)) and float(steps.bound) > 0


def test_the_published_route_bounds_too():
    d, m, C0 = 200, 300, 0.5
    net, x = lh.TwoLayerNet.init(d, m, dtype=F64), lh.unit_sphere(1, d).double()[0]
    eta = torch.tensor([0.1, 1.0, 3.0], dtype=F64) / d
    bound = theorem.published_bound(net, x, C0, eta)
    for other in tried(net, x, C0, torch.Generator().manual_seed(0)):
        assert (after(other, x, eta)[0] <= bound + 1e-9).all()
    assert (theorem.published_bound(net, x, C0, torch.tensor([1.0], dtype=F64)) == math.inf).all()


def test_a_reduced_draw_has_the_same_law():
    """Wide input, few neurons: Gram matrices of reduced and of full draws agree in mean and spread."""
    d, m, n = 60, 8, 4000
    full = torch.randn(n, m, d, generator=torch.Generator().manual_seed(0), dtype=F64)
    nets = [theorem.same_law(d, m, seed=k, dtype=F64) for k in range(n)]
    assert nets[0][0].W.shape == (m, m + 1) and nets[0][1].shape == (m + 1,)
    reduced = torch.stack([net.W for net, _ in nets])
    for one, other in (
        (full @ full.mT, reduced @ reduced.mT),
        (full[..., :1] * full[..., 0].unsqueeze(-2), reduced[..., :1] * reduced[..., 0].unsqueeze(-2)),
    ):
        assert ((one.mean(0) - other.mean(0)).abs() < 5 * one.std(0) * math.sqrt(2 / n)).all()
        assert torch.allclose(one.std(0), other.std(0), rtol=0.2)
    a = torch.stack([net.a for net, _ in nets])
    assert abs(float(a.mean())) < 5 / math.sqrt(n * m)
    plain, x = theorem.same_law(m + 1, m, seed=3)
    assert torch.equal(plain.W, lh.TwoLayerNet.init(m + 1, m, seed=3).W) and float(x @ x) == 1


@pytest.mark.parametrize("d, m, C0", [(3000, 1000, 1.0), (20_000, 1000, 1.0)])
def test_the_formula_lies_above_what_a_draw_gives(d, m, C0):
    eta = 3.0 / d
    formula = theorem.flip_formula(d, m, C0, 0.1, eta)
    for seed in range(3):
        net, x = theorem.same_law(d, m, seed=seed)
        assert float(theorem.flip_bound(net, x, C0, torch.tensor([eta], dtype=F64), 20).total) <= formula


def test_the_formula_certifies_for_some_d_and_not_for_small_ones():
    def certified(d, m=1000, C0=1.0):
        return any(theorem.flip_formula(d, m, C0, 0.01, c / d) < 0 for c in (2, 3, 5, 8, 12, 20, 30))

    assert not certified(100) and not certified(10_000) and certified(10**7, m=10**6)


def test_bad_input_is_refused():
    net, x, eta = lh.TwoLayerNet.init(4, 10), lh.unit_sphere(1, 4)[0], torch.tensor([0.1])
    with pytest.raises(ValueError, match="positive steps"):
        theorem.flip_bound(net, x, 1.0, -eta)
    with pytest.raises(ValueError, match="rows of length 1"):
        theorem.flip_bound(net, 2 * x, 1.0, eta)
    with pytest.raises(ValueError, match="C0 must"):
        theorem.worst_network(net, x, 0.0)
    with pytest.raises(ValueError, match="gamma must"):
        theorem.flip_formula(10, 10, 1.0, 1.0, 0.1)
    with pytest.raises(ValueError, match="grid must"):
        theorem.certified_steps(net, x, 1.0, grid=1)
    with pytest.raises(ValueError, match="biases"):
        theorem.flip_bound(lh.TwoLayerNet.init(4, 10, bias=True), x, 1.0, eta)
