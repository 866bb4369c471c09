"""The network: its draws, and its value and input gradient against autograd in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import SEEDS, nets, normal, singles, value_and_grad

import lazy_helpers as lh
from lazy_helpers import tiles

# --- draws ---


def within(sample, mean, variance, fourth_central, sigmas=5):
    """The sample's mean and variance lie within ``sigmas`` standard errors of what they should be."""
    sample = sample.double().flatten()
    n, centred = len(sample), sample.double() - mean
    assert abs(centred.mean()) < sigmas * math.sqrt(variance / n)
    assert abs(centred.square().mean() - variance) <= sigmas * math.sqrt((fourth_central - variance**2) / n)


def test_weights_and_biases_are_standard_normal():
    net = lh.TwoLayerNet.init(d=50, m=4000, seed=3, bias=True)
    for sample in (net.W, net.b):
        within(sample, mean=0, variance=1, fourth_central=3)
        fourth = sample.double().pow(4)
        assert abs(fourth.mean() - 3) < 5 * math.sqrt((105 - 9) / fourth.numel())
        assert abs((sample.abs() < 1.959964).double().mean() - 0.95) < 5 * math.sqrt(0.95 * 0.05 / sample.numel())


def test_signs_are_fair_coins():
    a = lh.TwoLayerNet.init(d=1, m=40_000, seed=4).a
    assert set(a.tolist()) == {-1.0, 1.0}
    within(a, mean=0, variance=1, fourth_central=1)
    within(a[1:] * a[:-1], mean=0, variance=1, fourth_central=1)  # neighbours are independent


def test_neurons_coordinates_signs_and_members_are_uncorrelated():
    net = lh.TwoLayerNet.init(d=30, m=1000, members=(4,), seed=5, bias=True)
    columns = torch.cat([net.weights, net.a.unsqueeze(-1)], dim=-1)  # (4, m, 32)
    columns = columns.permute(0, 2, 1).reshape(-1, 1000).double()
    correlation = torch.corrcoef(columns) - torch.eye(len(columns))
    assert correlation.abs().max() < 5.5 / math.sqrt(1000)  # 8128 pairs
    rows = lh.TwoLayerNet.init(d=1000, m=60, seed=6).W.double()
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 5.5 / math.sqrt(1000)


def test_value_at_a_unit_vector_has_variance_one_half():
    """f is a sum of m independent a_s relu(N(0, 1)) / sqrt m, and E relu^2 = 1/2."""
    x = torch.nn.functional.normalize(normal(1, 20, dtype=torch.float32), dim=-1)
    f = lh.TwoLayerNet.init(d=20, m=200, members=3000, seed=10)(x)
    within(f, mean=0, variance=0.5, fourth_central=3 * 0.25 + (1.5 - 0.75) / 200)


@pytest.mark.parametrize("members", [(3,), (2, 2), (1,), (2, 1, 2)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_member_is_bit_for_bit_the_network_of_its_own_seed(members, bias, dtype):
    ensemble = lh.TwoLayerNet.init(5, 7, members=members, seed=11, bias=bias, dtype=dtype)
    assert ensemble.members == members
    for k, member in enumerate(singles(ensemble)):
        alone = lh.TwoLayerNet.init(5, 7, seed=11 + k, bias=bias, dtype=dtype)
        assert torch.equal(member.W, alone.W) and torch.equal(member.a, alone.a)
        assert member.b is alone.b is None or torch.equal(member.b, alone.b)


def test_neighbouring_members_differ():
    W = lh.TwoLayerNet.init(5, 7, members=4, seed=0).W
    assert all(not torch.equal(W[i], W[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("m", "d"), [(1, 1), (3, 1), (1, 5), (40, 30)])  # below and above 16 numbers
def test_other_dtypes_are_the_float32_draws_cast(dtype, m, d):
    single = lh.TwoLayerNet.init(d, m, members=2, seed=6, bias=True)
    other = lh.TwoLayerNet.init(d, m, members=2, seed=6, bias=True, dtype=dtype)
    assert other.W.dtype == other.a.dtype == other.b.dtype == dtype
    assert torch.equal(other.weights, single.weights.to(dtype)) and torch.equal(other.a, single.a.to(dtype))


@pytest.mark.parametrize(("m", "d"), [(1, 1), (5, 2), (40, 30)])
def test_weights_and_signs_are_the_same_with_and_without_bias(m, d):
    with_bias, without = (lh.TwoLayerNet.init(d, m, members=2, seed=8, bias=bias) for bias in (True, False))
    assert torch.equal(with_bias.W, without.W) and torch.equal(with_bias.a, without.a)


def test_drawing_leaves_the_global_generator_alone_and_repeats():
    state = torch.get_rng_state()
    first, second = lh.TwoLayerNet.init(3, 4, seed=1, bias=True), lh.TwoLayerNet.init(3, 4, seed=1, bias=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.weights, second.weights) and torch.equal(first.a, second.a)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_points_are_independent_of_the_weights_of_the_same_seed(seed):
    """Once both were the first draws of one stream, so that x_1 pointed along w_1."""
    d, n = 400, 30
    W = lh.TwoLayerNet.init(d, n, seed=seed, bias=True).W
    cosines = lh.unit_sphere(n, d, seed=seed) @ torch.nn.functional.normalize(W, dim=-1).T
    assert cosines.abs().max() < 5 / math.sqrt(d)
    assert abs(cosines.diag().mean()) < 5 / math.sqrt(n * d)


def test_drawing_needs_no_second_copy_of_the_weights(monkeypatch):
    """Every draw of a float32 network happens in place."""
    drawn = []
    monkeypatch.setattr(torch, "randn", lambda *args, **kwargs: drawn.append(args))
    lh.TwoLayerNet.init(6, 5, members=2, bias=True)
    assert not drawn


# --- parts ---


def test_replace_changes_what_is_named_and_nothing_else():
    net = lh.TwoLayerNet.init(3, 4, members=2, bias=True)
    W = torch.zeros_like(net.W)
    other = net.replace(W=W)
    assert other.W is W and other.a is net.a and other.b is net.b
    assert not torch.equal(net.W, W)  # the original stays


@given(nets())
def test_weights_hold_the_bias_last_and_go_back_in(net):
    weights = net.weights
    assert weights.shape == (*net.members, net.m, net.d + (net.b is not None))
    assert torch.equal(weights[..., : net.d], net.W)
    assert net.b is None or torch.equal(weights[..., -1], net.b)
    back = net.with_weights(2 * weights)
    assert torch.equal(back.W, 2 * net.W) and torch.equal(back.a, net.a) and torch.equal(back.weights, 2 * weights)


def test_indexing_takes_a_member_or_a_slice():
    net = lh.TwoLayerNet.init(3, 4, members=(2, 3), bias=True)
    assert torch.equal(net[1, 2].weights, net.weights[1, 2]) and net[1, 2].members == ()
    assert net[0].members == (3,) and net[:, 1:].members == (2, 2)
    assert torch.equal(net[:, 1:].a, net.a[:, 1:])


def test_to_moves_every_part():
    net = lh.TwoLayerNet.init(3, 4, bias=True).to(torch.float64)
    assert net.W.dtype == net.a.dtype == net.b.dtype == torch.float64
    assert lh.TwoLayerNet.init(3, 4).to(torch.float64).b is None


# --- value and gradient ---


@given(nets(), st.integers(1, 5), st.booleans(), SEEDS)
def test_value_and_gradient_equal_autograd(net, n, shared, seed):
    x = normal(*(() if shared else net.members), n, net.d, seed=seed)
    f, g = value_and_grad(net, x)
    assert net(x).shape == (*net.members, n) and net.grad(x).shape == (*net.members, n, net.d)
    torch.testing.assert_close(net(x), f, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(net.grad(x), g, rtol=1e-10, atol=1e-10)


def test_float32_agrees_with_float64_to_rounding():
    net = lh.TwoLayerNet.init(100, 2000, members=2, seed=2)
    x = lh.unit_sphere(20, 100, seed=2)
    f, g = value_and_grad(net.to(torch.float64), x.double())
    torch.testing.assert_close(net(x).double(), f, rtol=0, atol=1e-5)
    torch.testing.assert_close(net.grad(x).double(), g, rtol=0, atol=1e-4)


@given(nets(bias=st.just(False)), SEEDS)
def test_gradient_times_x_is_f_without_bias(net, seed):
    """f is 1-homogeneous (PAPER: <grad f, x> = f), and so is its argument's rescaling."""
    x = normal(4, net.d, seed=seed)
    torch.testing.assert_close((net.grad(x) * x).sum(-1), net(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net(3 * x), 3 * net(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net.replace(W=3 * net.W).grad(x), 3 * net.grad(x), rtol=1e-12, atol=1e-12)


@given(nets(), SEEDS)
def test_points_in_small_tiles_give_the_same(net, seed):
    x = normal(50, net.d, seed=seed)
    f, g = net(x), net.grad(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_BYTES", 1)
        patch.setattr(tiles, "SMALL_BYTES", 1)
        torch.testing.assert_close(net(x), f, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(net.grad(x), g, rtol=1e-12, atol=1e-12)


def test_a_neuron_at_zero_is_silent():
    """sigma'(0) = 0: a neuron whose pre-activation is exactly 0 adds nothing to the gradient."""
    net = lh.TwoLayerNet(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.ones(2))
    x = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    assert torch.equal(net.grad(x)[0], torch.tensor([0.0, 1 / math.sqrt(2)]))
    assert net(x)[1] == 0 and torch.equal(net.grad(x)[1], torch.zeros(2))


def test_one_neuron_one_dimension_one_point_by_hand():
    net = lh.TwoLayerNet(torch.tensor([[-2.0]]), torch.tensor([-1.0]), torch.tensor([0.5]))
    assert net(torch.tensor([[-1.0]])).tolist() == [-2.5] and net.grad(torch.tensor([[-1.0]])).tolist() == [[2.0]]
    assert net(torch.tensor([[1.0]])).tolist() == [0.0] and net.grad(torch.tensor([[1.0]])).tolist() == [[0.0]]


def test_silent_networks_are_zero_everywhere():
    net = lh.TwoLayerNet(-torch.ones(2, 5, 3), torch.ones(2, 5))
    x = torch.ones(4, 3)
    assert not net(x).any() and not net.grad(x).any()


def test_a_call_leaves_its_input_alone():
    net, x = lh.TwoLayerNet.init(3, 4, bias=True), torch.ones(2, 3)
    before = net.weights.clone()
    net(x), net.grad(x)
    assert torch.equal(x, torch.ones(2, 3)) and torch.equal(net.weights, before)


def test_points_on_the_sphere_are_uniform():
    """Norm 1, coordinates of mean 0 and variance 1/d, and a seed repeats."""
    X = lh.unit_sphere(20_000, 10, seed=3)
    torch.testing.assert_close(X.norm(dim=-1), torch.ones(20_000))
    within(X, mean=0, variance=0.1, fourth_central=3 / (10 * 12))
    covariance = X.double().T @ X.double() / len(X) - torch.eye(10) / 10
    assert covariance.fill_diagonal_(0).abs().max() < 5 * math.sqrt(1 / 120 / len(X))
    assert torch.equal(X, lh.unit_sphere(20_000, 10, seed=3)) and X.dtype == torch.float32
    assert set(lh.unit_sphere(50, 1).flatten().tolist()) == {-1.0, 1.0}
