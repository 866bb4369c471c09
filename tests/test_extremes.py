"""Worst cases over the ball against brute force: a grid for one neuron, random and optimised weights for many."""

import math

import pytest
import torch
from reference import anywhere

import lazy_helpers as lh
from lazy_helpers.extremes import (
    _farthest,
    farthest,
    highest,
    largest_gradient_change,
    largest_singular_value,
    respond,
)

F64 = torch.float64


def climbed(net, ball, objective, steps=150, rate=0.3):
    """Weights of the ball that projected ascent with autograd finds for a function of W, gates smoothed for the slope."""
    W = net.W.clone()
    for _ in range(steps):
        W = W.detach().requires_grad_()
        (slope,) = torch.autograd.grad(objective(W), W)
        size = slope.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        W = ball.project((W + rate * ball.radius * slope / size).detach())
    return net.replace(W=W)


def soft_gradient(W, a, x, width):
    return (a * torch.sigmoid(W @ x / width)) @ W / math.sqrt(len(a))


@pytest.mark.parametrize("seed", range(6))
def test_one_neuron_against_a_grid(seed):
    """The closed form of a neuron's best move, against all moves in the plane of x and y on a fine polar grid."""
    draw = torch.Generator().manual_seed(seed)
    V = 0.7
    r = torch.linspace(0, V, 241, dtype=F64)
    t = torch.linspace(0, 2 * math.pi, 721, dtype=F64)
    grid = torch.stack([(r[:, None] * t.cos()).flatten(), (r[:, None] * t.sin()).flatten()], dim=-1)
    x = torch.tensor([1.0, 0.0], dtype=F64)
    for _ in range(40):
        w = torch.randn(2, generator=draw, dtype=F64)
        y = torch.randn(2, generator=draw, dtype=F64)
        a = 1.0 if torch.rand((), generator=draw) < 0.5 else -1.0
        best = respond(
            (w @ x).view(1, 1), (w @ y).view(1, 1), torch.tensor([[a]], dtype=F64), V, (y @ x).view(1), (y @ y).view(1)
        )
        move = best.along.item() * x + best.across.item() * y
        assert move.norm() <= V + 1e-12
        gain = a * best.on.item() * float(y @ (w + move))
        u = float((w + move) @ x)
        assert u >= -1e-12 if best.on.item() else u <= 1e-12
        moved = w + grid
        assert gain == pytest.approx(float(best.gain), abs=1e-12)
        brute = float((a * (moved @ x > 0) * (moved @ y)).max())
        assert brute <= gain + 1e-9 and gain - brute < 0.02 * float(y.norm())


def test_moves_for_y_along_x_and_for_y_zero_are_finite():
    u = torch.tensor([[0.3], [-0.3], [2.0], [-2.0], [0.0]], dtype=F64)
    a = torch.ones(5, 1, dtype=F64)
    for y, p in ((torch.ones(1, dtype=F64), u), (-torch.ones(1, dtype=F64), -u), (torch.zeros(1, dtype=F64), 0 * u)):
        best = respond(u, p, a, 0.5, y, y.square())
        assert all(torch.isfinite(part).all() for part in best)
    up = respond(u, u, a, 0.5, torch.ones(1, dtype=F64), torch.ones(1, dtype=F64))
    assert torch.allclose(up.on * (u + up.along + up.across), (u + 0.5).clamp(min=0))  # y = x: sigma(u + V)
    assert torch.allclose(up.gain, (u + 0.5).clamp(min=0))


@pytest.mark.parametrize("d, m, C0", [(2, 5, 0.5), (5, 40, 1.0), (20, 200, 3.0), (100, 1000, 10.0), (30, 20, 20.0)])
def test_no_network_of_the_ball_goes_farther(d, m, C0):
    """The support of the gradients: random and optimised W stay below it, and an explicit W comes close to it."""
    draw = torch.Generator().manual_seed(d)
    net = lh.TwoLayerNet.init(d, m, seed=d, dtype=F64)
    x, y = lh.unit_sphere(1, d).double(), torch.randn(1, d, generator=draw, dtype=F64)
    ball = lh.LazyBall(net.W, C0)
    most, s = _farthest(net, net.preactivations(x), x, y, ball.radius)
    most = float(most)
    assert float((y * s).sum()) == pytest.approx(most)
    for trial in range(60):
        other = anywhere(net, C0, draw, boundary=trial % 2 == 0)
        assert float((y * other.grad(x)).sum()) <= most + 1e-9
    for width in (0.3, 0.03):
        other = climbed(net, ball, lambda W, width=width: soft_gradient(W, net.a, x[0], width) @ y[0])
        assert ball.contains(other.W) and float((y * other.grad(x)).sum()) <= most + 1e-9
    built = farthest(net, x[0], C0, y[0])
    assert ball.contains(built.W)
    assert float((y * built.grad(x)).sum()) == pytest.approx(most, abs=2e-3 * (1 + abs(most)))


@pytest.mark.parametrize("d, m, C0", [(5, 60, 0.5), (20, 300, 2.0), (100, 1000, 5.0)])
def test_the_highest_value_is_bracketed(d, m, C0):
    draw = torch.Generator().manual_seed(m)
    net = lh.TwoLayerNet.init(d, m, members=(2,), seed=m, dtype=F64)
    x = lh.unit_sphere(3, d).double()
    eta = torch.tensor([0.5, 1.0, 2.0], dtype=F64) / d
    out = highest(net, x, C0, x, eta)
    assert out.upper.shape == out.found.shape == (2, 3) and out.direction.shape == (2, 3, d)
    assert (out.found <= out.upper + 1e-9).all()
    assert ((out.upper - out.found) < 0.05 * (1 + out.upper.abs())).all()  # the gap left by the hull and the iterations
    for k in range(2):
        one, ball = net[k], lh.LazyBall(net[k].W, C0)

        def value(W, i, k=k):
            g = net[k].replace(W=W).grad(x[i : i + 1])[0]
            return float(x[i] @ g - eta[i] * g @ g)

        for trial in range(40):
            other = anywhere(one, C0, draw, boundary=trial % 2 == 0)
            assert all(value(other.W, i) <= out.upper[k, i] + 1e-9 for i in range(3))
        for i in range(3):

            def objective(W, i=i, one=one):
                g = soft_gradient(W, one.a, x[i], 0.05)
                return x[i] @ g - eta[i] * g @ g

            other = climbed(one, ball, objective)
            assert value(other.W, i) <= out.upper[k, i] + 1e-9
            built = farthest(one, x[i], C0, out.direction[k, i])
            assert value(built.W, i) == pytest.approx(
                float(out.found[k, i]), abs=0.02 * (1 + abs(float(out.found[k, i])))
            )


@pytest.mark.parametrize("d, m, C0", [(3, 30, 1.0), (25, 200, 3.0), (100, 1000, 10.0)])
def test_the_gradient_changes_no_more_than_certified(d, m, C0):
    draw = torch.Generator().manual_seed(d + m)
    net, x = lh.TwoLayerNet.init(d, m, seed=1, dtype=F64), lh.unit_sphere(2, d).double()
    bound, g0 = largest_gradient_change(net, x, C0), net.grad(x)
    assert bound.shape == (2,)
    tried = [anywhere(net, C0, draw, boundary=trial % 2 == 0) for trial in range(40)]
    for i in range(2):
        y = g0[i]
        for _ in range(8):  # climb: go farthest in the direction of the present change
            other = farthest(net, x[i], C0, y)
            y = other.grad(x)[i] - g0[i]
            tried.append(other)
    changes = torch.stack([(other.grad(x) - g0).norm(dim=-1) for other in tried])
    assert (changes <= bound + 1e-9).all()
    assert (changes.amax(0) > 0.25 * bound).all()  # and the bound is no formality


def test_largest_singular_value():
    for shape in ((3, 7), (7, 3), (1, 1), (40, 40)):
        W = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        assert float(largest_singular_value(W)) == pytest.approx(
            float(torch.linalg.matrix_norm(W.double(), 2)), rel=1e-9
        )
    assert float(largest_singular_value(torch.zeros(0, 5))) == 0


def test_bad_input_is_refused():
    net = lh.TwoLayerNet.init(4, 10)
    x, one = lh.unit_sphere(2, 4), torch.ones(2)
    with pytest.raises(ValueError, match="length 1"):
        highest(net, 2 * x, 1.0, x, one)
    with pytest.raises(ValueError, match="C0 must be"):
        highest(net, x, 0.0, x, one)
    with pytest.raises(ValueError, match="iterations"):
        highest(net, x, 1.0, x, one, iterations=0)
    with pytest.raises(ValueError, match="biases"):
        largest_gradient_change(lh.TwoLayerNet.init(4, 10, bias=True), x, 1.0)


def test_a_neuron_a_hair_outside_the_slab_counts_as_inside():
    """In float32 the exact |u| <= V may be computed as more: certified bounds allow for it."""
    W = torch.zeros(4, 64)
    W[:, 0] = torch.tensor([-0.5 * (1 + 1e-7), 3.0, 3.0, 3.0])
    W[0, 1:] = 1.0
    net, x = lh.TwoLayerNet(W, torch.ones(4)), torch.eye(1, 64)
    assert float(largest_gradient_change(net, x, 1.0)) > 3.5
    with pytest.raises(ValueError, match="positive steps"):
        highest(net, x, 1.0, x, torch.zeros(1))
