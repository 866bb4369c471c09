"""The lemmas' quantities against brute force and closed forms; bounds against weights and perturbations that try to break them."""

import math

import pytest
import torch
from reference import anywhere
from scipy import stats

import lazy_helpers as lh
from lazy_helpers import lemmas

F64 = torch.float64


SIZES = [(2, 8, 0.5), (5, 60, 2.0), (100, 1000, 10.0), (10, 30, 20.0)]  # the last ball can silence every neuron


@pytest.mark.parametrize("d, m, C0", SIZES)
def test_the_range_of_values_is_attained_and_never_left(d, m, C0):
    draw = torch.Generator().manual_seed(d)
    net = lh.TwoLayerNet.init(d, m, members=(2, 3), dtype=F64)
    x = lh.unit_sphere(4, d).double() * torch.tensor([[1.0], [1.0], [0.3], [2.0]], dtype=F64)
    span = lemmas.value_range(net, x, C0)
    assert span.low.shape == (2, 3, 4) and torch.allclose(span.f, net(x))
    for trial in range(40):
        f = anywhere(net, C0, draw, boundary=trial % 2 == 0)(x)
        assert (span.low - 1e-9 <= f).all() and (f <= span.high + 1e-9).all()
    V = C0 / math.sqrt(m)
    for i in range(4):
        step = V * net.a.unsqueeze(-1) * x[i] / x[i].norm()
        for sign, end in ((1, span.high), (-1, span.low)):
            other = net.replace(W=net.W + sign * step)
            assert lh.LazyBall(net.W, C0).contains(other.W).all()
            assert torch.allclose(other(x)[..., i], end[..., i])


def test_the_mean_rise_is_half_of_C0():
    net, x = lh.TwoLayerNet.init(10, 2000, members=300), lh.unit_sphere(1, 10)
    for C0 in (1.0, 10.0):
        rise = lemmas.value_range(net, x, C0)
        for gain in (rise.high - rise.f, rise.f - rise.low):
            assert abs(gain.mean() - C0 / 2) < 4 * gain.std() / math.sqrt(300)


@pytest.mark.parametrize("m, gamma", [(30, 0.5), (1000, 0.1), (1000, 0.02)])
def test_the_value_bound_is_broken_no_more_often_than_gamma(m, gamma):
    """Pre-activations at a unit point are standard normal, so draws of f need no W."""
    draw = torch.Generator().manual_seed(m)
    n = 4000
    u, a = torch.randn(n, m, generator=draw), torch.randint(0, 2, (n, m), generator=draw) * 2 - 1
    f = (a * u.relu()).sum(-1) / math.sqrt(m)
    broken = int((f.abs() > lemmas.value_bound(m, 0, gamma)).sum())
    assert stats.binomtest(broken, n, gamma, alternative="greater").pvalue > 1e-3
    for C0 in (1.0, 20.0):
        V = C0 / math.sqrt(m)
        high = torch.where(a > 0, (u + V).relu(), -(u - V).relu()).sum(-1) / math.sqrt(m)
        assert (high - f <= C0 + 1e-4).all()
        assert lemmas.value_bound(m, C0, gamma) == pytest.approx(lemmas.value_bound(m, 0, gamma) + C0)


def test_gradient_parts():
    net, x = lh.TwoLayerNet.init(7, 50, members=3, dtype=F64), 2.5 * lh.unit_sphere(4, 7).double()
    norm, along, across = lemmas.gradient_parts(net, x)
    assert torch.allclose(norm.square(), along.square() + across.square())
    assert torch.allclose(along * 2.5, net(x)) and torch.allclose(norm, net.grad(x).norm(dim=-1))


@pytest.mark.parametrize(
    "d, m, C0", [(2, 20, 0.5), (10, 100, 1.0), (100, 1000, 3.0), (100, 1000, 10.0), (25, 400, 10.0)]
)
def test_the_smallest_gradient_is_bracketed(d, m, C0):
    draw = torch.Generator().manual_seed(m)
    net, x = lh.TwoLayerNet.init(d, m, members=(2,), dtype=F64), lh.unit_sphere(2, d).double()
    lower, found = lemmas.smallest_gradient(net, x, C0)
    assert lower.shape == found.shape == (2, 2) and (lower <= found + 1e-9).all()
    norms = [anywhere(net, C0, draw, boundary=t % 2 == 0).grad(x).norm(dim=-1) for t in range(40)]
    assert (torch.stack(norms) >= lower - 1e-9).all()
    assert (found <= torch.stack(norms).amin(0)).all()  # the search beats random weights


def test_the_bracket_of_the_gradient_closes_where_m_is_large():
    """The set of gradients nearly fills its hull; (1/2 + 1/pi) C0 is what the ball can take away, for m far above d."""
    net, x = lh.TwoLayerNet.init(100, 20_000, members=2), lh.unit_sphere(1, 100)
    lower, found = lemmas.smallest_gradient(net, x, 2.0)
    assert (found - lower < 0.05 * lower).all()
    lost = net.grad(x).norm(dim=-1) - found
    assert torch.allclose(lost, torch.tensor((0.5 + 1 / math.pi) * 2.0, dtype=lost.dtype), rtol=0.12)


@pytest.mark.parametrize("d, m, C0, gamma", [(50, 500, 0, 0.5), (200, 4000, 0, 0.1), (400, 4000, 1.0, 0.5)])
def test_the_gradient_bound_is_broken_no_more_often_than_gamma(d, m, C0, gamma):
    net, x = lh.TwoLayerNet.init(d, m, members=12), lh.unit_sphere(2, d)
    bound = lemmas.gradient_bound(d, m, C0, gamma)
    assert bound > 0
    least = net.grad(x).norm(dim=-1) if not C0 else lemmas.smallest_gradient(net, x, C0, 20).found
    broken = int((least < bound).any(-1).sum())
    assert stats.binomtest(broken, 12, gamma, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize("d, m, C0", SIZES)
def test_exactly_the_neurons_of_S1_can_change_sign(d, m, C0):
    draw = torch.Generator().manual_seed(m)
    net, x = lh.TwoLayerNet.init(d, m, dtype=F64), lh.unit_sphere(1, d).double()
    V = C0 / math.sqrt(m)
    u = net.W @ x[0]
    some = u.abs() <= V
    assert int(lemmas.sign_changes(net, x, C0)) == int(some.sum())
    other = lemmas.change_signs(net, x[0], C0)
    assert lh.LazyBall(net.W, C0).contains(other.W)
    assert torch.equal((other.W @ x[0]).sign() != u.sign(), some)
    for trial in range(40):
        turned = (anywhere(net, C0, draw, boundary=trial % 2 == 0).W @ x[0]).sign() != u.sign()
        assert not (turned & ~some).any()


def test_a_neuron_on_its_plane_changes_sign_too():
    net = lh.TwoLayerNet(torch.tensor([[0.0, 1.0], [0.05, 1.0], [-0.05, 1.0]]), torch.ones(3))
    x = torch.tensor([1.0, 0.0])
    before, after = net.W @ x, lemmas.change_signs(net, x, 1.0).W @ x
    assert int(lemmas.sign_changes(net, x[None], 1.0)) == 3 and (before.sign() != after.sign()).all()


def test_the_count_of_sign_changes_has_its_mean_and_its_bound_at_x_and_beside_it():
    m, C0, d = 2000, 10.0, 5
    net, x = lh.TwoLayerNet.init(d, m, members=400), lh.unit_sphere(1, d)
    delta = 0.7 * lh.unit_sphere(1, d, seed=5)
    for points in (x, x + delta):
        count = lemmas.sign_changes(net, points, C0).double()[:, 0]
        assert abs(count.mean() - lemmas.sign_change_mean(m, C0)) < 4 * count.std() / 20
        for gamma in (0.5, 0.1):
            broken = int((count > lemmas.sign_change_bound(m, C0, gamma)).sum())
            assert stats.binomtest(broken, 400, gamma, alternative="greater").pvalue > 1e-3
    assert lemmas.sign_change_mean(m, C0) <= math.sqrt(2 / math.pi) * C0 * math.sqrt(m)


def test_flip_probability_is_an_angle():
    draw = torch.Generator().manual_seed(3)
    x = lh.unit_sphere(5, 4)
    delta = (
        0.9
        * torch.rand(5, 1, generator=draw)
        * torch.nn.functional.normalize(torch.randn(5, 4, generator=draw), dim=-1)
    )
    p, n = lemmas.flip_probability(x, delta), 200_000
    w = torch.randn(n, 4, generator=draw)
    share = ((w @ x.T > 0) != (w @ (x + delta).T > 0)).double().mean(0)
    assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()
    R = delta.norm(dim=-1).double()
    assert (p <= R.asin() / math.pi + 1e-7).all() and (R.asin() / math.pi <= R / 2).all()
    assert lemmas.flip_probability(x, torch.zeros_like(x)).abs().max() == 0
    tangent = torch.tensor([[1.0, 0.0]]), torch.tensor([[-0.25, math.sqrt(0.25 - 0.0625)]])  # R = 1/2, at its worst
    assert float(lemmas.flip_probability(*tangent)) == pytest.approx(math.asin(0.5) / math.pi, abs=1e-7)


def test_slab_probability():
    d, epsilon = 100, 0.005
    draw = torch.Generator().manual_seed(0)
    for length in (1.0, 0.6):
        w = torch.randn(200_000, d, generator=draw)
        share = float((length * w[:, 0].abs() <= epsilon * w.norm(dim=-1)).double().mean())
        assert share == pytest.approx(lemmas.slab_probability(epsilon, d, length), rel=0.04)


@pytest.mark.parametrize("d", [50, 400])
def test_the_difference_for_a_random_delta(d):
    R, n = 5 / math.sqrt(d) if d > 100 else 0.3, 20
    net, x = lh.TwoLayerNet.init(d, 8 * d, members=6), lh.unit_sphere(n, d)
    delta = lh.unit_sphere(n, d, seed=9)
    delta = delta - (delta * x).sum(-1, keepdim=True) * x
    delta = R * delta / delta.norm(dim=-1, keepdim=True)
    norm, along = lemmas.gradient_difference(net, x, delta)
    square = norm.double().square().mean(-1)
    assert abs(square.mean().sqrt() - lemmas.random_difference(d, R)) < 4 * square.std() / math.sqrt(6)
    turn = net.grad(x) - net.grad(x + delta)
    assert torch.allclose(norm, turn.norm(dim=-1)) and (along.abs() <= norm * (1 + 1e-5)).all()


@pytest.mark.parametrize(
    "d, m, C0, R", [(3, 50, 0.5, 0.3), (10, 200, 2.0, 0.5), (40, 1000, 5.0, 0.2), (100, 400, 1.0, 0.5)]
)
def test_no_delta_and_no_network_of_the_ball_turns_the_gradient_more_than_certified(d, m, C0, R):
    draw = torch.Generator().manual_seed(d)
    net, x = lh.TwoLayerNet.init(d, m, dtype=F64), lh.unit_sphere(3, d).double()
    bound = lemmas.difference_bound(net, x, C0, R)
    for trial in range(40):
        other = anywhere(net, C0, draw, boundary=trial % 2 == 0)
        length = R if trial % 3 else R * torch.rand(3, 1, generator=draw, dtype=F64)
        delta = length * torch.nn.functional.normalize(torch.randn(3, d, generator=draw, dtype=F64), dim=-1)
        assert (lemmas.gradient_difference(other, x, delta).norm <= bound + 1e-9).all()
        if trial % 4 == 0:
            delta = lemmas.worst_delta(other, x, R, steps=20)
            assert (delta.norm(dim=-1) <= R * (1 + 1e-9)).all()
            assert (lemmas.gradient_difference(other, x, delta).norm <= bound + 1e-9).all()
    for i in range(3):
        other, delta = lemmas.worst_difference(net, x[i], C0, R, rounds=3)
        assert lh.LazyBall(net.W, C0).contains(other.W) and delta.norm() <= R * (1 + 1e-9)
        assert float(lemmas.gradient_difference(other, x[i : i + 1], delta).norm) <= float(bound[i]) + 1e-9


def test_the_searches_beat_what_is_drawn_at_random():
    d, m, R = 100, 2000, 0.4
    net, x = lh.TwoLayerNet.init(d, m), lh.unit_sphere(3, d)
    found = lemmas.gradient_difference(net, x, lemmas.worst_delta(net, x, R)).norm
    g = net.grad(x)
    for delta in (R * lh.unit_sphere(3, d, seed=1), -R * g / g.norm(dim=-1, keepdim=True)):
        assert (found > 1.1 * lemmas.gradient_difference(net, x, delta).norm).all()
    other, delta = lemmas.worst_difference(net, x[0], 10.0, R)
    assert float(lemmas.gradient_difference(other, x[:1], delta).norm) > 1.1 * float(found[0])


def test_scalings():
    """1, sqrt d, sqrt m and d^(1/4): fitted exponents whose intervals hold the theory's."""
    from lazy_helpers.fit import power_law

    ds, seeds = (50, 100, 200, 400, 800), 16
    values, norms, turns = ([], [], [])
    for d in ds:
        net, x = lh.TwoLayerNet.init(d, 4000, members=seeds), lh.unit_sphere(8, d)
        delta = lh.unit_sphere(8, d, seed=3)
        delta = torch.nn.functional.normalize(delta - (delta * x).sum(-1, keepdim=True) * x, dim=-1) / math.sqrt(d)
        values.append(lemmas.value_range(net, x, 10.0).high.mean(-1))
        norms.append(net.grad(x).norm(dim=-1).mean(-1))
        turns.append(lemmas.gradient_difference(net, x, delta).norm.mean(-1))

    def exponent(rows):
        return power_law(ds, torch.stack(rows, dim=-1).double())

    for rows, expected, slack in ((values, 0.0, 0.02), (norms, 0.5, 0.01), (turns, 0.25, 0.03)):
        fit = exponent(rows)
        assert fit.low - slack <= expected <= fit.high + slack and fit.high - fit.low < 0.1, (expected, fit)
    ms = (1000, 4000, 16_000, 64_000)
    x = lh.unit_sphere(1, 3)
    counts = [lemmas.sign_changes(lh.TwoLayerNet.init(3, m, members=seeds), x, 5.0)[:, 0].double() for m in ms]
    fit = power_law(ms, torch.stack(counts, dim=-1))
    assert fit.low - 0.01 <= 0.5 <= fit.high + 0.01, fit


@pytest.mark.parametrize("gamma", [0, 1, -0.1, 2.0, math.nan, "a"])
def test_gamma_is_a_probability(gamma):
    for bound in (
        lambda: lemmas.value_bound(100, 1.0, gamma),
        lambda: lemmas.gradient_bound(100, 100, 1.0, gamma),
        lambda: lemmas.sign_change_bound(100, 1.0, gamma),
    ):
        with pytest.raises(ValueError, match="gamma must"):
            bound()


def test_bad_input_is_refused():
    net, x = lh.TwoLayerNet.init(4, 10), lh.unit_sphere(2, 4)
    for call in (
        lambda x: lemmas.smallest_gradient(net, x, 1.0),
        lambda x: lemmas.change_signs(net, x[0], 1.0),
        lambda x: lemmas.worst_delta(net, x, 0.1),
        lambda x: lemmas.difference_bound(net, x, 1.0, 0.1),
        lambda x: lemmas.worst_difference(net, x[0], 1.0, 0.1),
    ):
        with pytest.raises(ValueError, match="rows of length 1"):
            call(1.5 * x)
    for R in (0, -1, 1.0, 3.0, math.inf):
        with pytest.raises(ValueError, match="R must"):
            lemmas.difference_bound(net, x, 1.0, R)
        with pytest.raises(ValueError, match="R must"):
            lemmas.worst_delta(net, x, R)
    biased = lh.TwoLayerNet.init(4, 10, bias=True)
    for call in (lemmas.value_range, lemmas.sign_changes, lemmas.smallest_gradient):
        with pytest.raises(ValueError, match="biases"):
            call(biased, x, 1.0)
        with pytest.raises(ValueError, match="C0 must"):
            call(net, x, -1.0)
