"""The inner loop: packing, blocks, leashes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import SEEDS, nets, normal, random_signs

import lazy_helpers as lh
from lazy_helpers import sgd
from lazy_helpers.sgd import Packing, Stepper


def stepper(net, n=20, batch_size=5, seed=0):
    """One on random points, with its minibatches (steps, K, B)."""
    X, y = normal(n, net.d, seed=seed), random_signs(n, seed=seed)
    packing = Packing(net, X)
    draw = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(n, generator=draw) for _ in net.W]).view(len(net.W), -1, batch_size)
    order = order.transpose(0, 1)
    rates = torch.full((len(order),), 0.1 / batch_size, dtype=torch.float64)
    return Stepper(packing.pack(), net.a, packing.points, y, rates, order, order), packing


@given(nets(max_d=20), SEEDS)
def test_packing_and_unpacking_gives_the_network_back(net, seed):
    net = net.flat()
    X = normal(5, net.d, seed=seed) * (normal(1, net.d, seed=seed + 1) > 0)  # some pixels are always 0
    packing = Packing(net, X)
    packed = packing.pack()
    assert packed.shape[-1] % sgd.LANES == 0
    W, b = torch.full_like(net.W, math.nan), None if net.b is None else torch.full_like(net.b, math.nan)
    for k in range(len(packed)):
        assert packing.distance(packed[k], k) == 0
        packing.unpack(packed[k], k, W, b)
    assert torch.equal(W, net.W) and (b is None or torch.equal(b, net.b))
    z = packed @ packing.points[:-1].mT
    torch.testing.assert_close(z, net.preactivations(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_distance_is_the_balls(bias):
    net = lh.TwoLayerNet.init(6, 30, members=3, bias=bias, dtype=torch.float64)
    X = normal(5, 6)
    packing = Packing(net, X)
    packed = packing.pack()
    moved = packed.clone()
    moved[..., : 6 + bias] += 0.1 * normal(3, 30, 6 + bias)
    W, b = torch.empty_like(net.W), torch.empty_like(net.b) if bias else None
    for k in range(3):
        packing.unpack(moved[k], k, W, b)
    true = lh.LazyBall(net.weights, 1.0).distance(net.replace(W=W, b=b).weights)
    assert [packing.distance(moved[k], k) for k in range(3)] == pytest.approx(true.tolist())


@given(st.integers(1, 7), st.integers(1, 40), st.sampled_from([1, 3000, 20_000, 2**22]))
def test_blocks_cover_every_row_of_every_member_once(K, m, bytes_):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sgd, "SWEEP_BYTES", bytes_)
        machine, _ = stepper(lh.TwoLayerNet.init(3, m, members=K, dtype=torch.float64))
        machine.W.zero_()
        for W, *_ in machine.blocks:
            W += 1
    assert bool((machine.W == 1).all())


@pytest.mark.parametrize("bytes_", [1, 5000, 12_000])
def test_training_in_small_blocks_is_the_same(monkeypatch, bytes_):
    net = lh.TwoLayerNet.init(6, 30, members=3, seed=4, bias=True, dtype=torch.float64)
    X, y = normal(50, 6), random_signs(50)
    how = dict(C0=(1.0, 4.0), lr=0.5, batch_size=8, max_epochs=30, progress=False)
    whole = lh.train_sgd(net, X, y, **how)
    monkeypatch.setattr(sgd, "SWEEP_BYTES", bytes_)
    for c, end in lh.train_sgd(net, X, y, **how).items():
        assert torch.equal(end.steps, whole[c].steps)
        torch.testing.assert_close(end.net.weights, whole[c].net.weights, rtol=1e-9, atol=1e-9)


def test_nobody_steps_beyond_a_leash():
    machine, packing = stepper(lh.TwoLayerNet.init(6, 30, members=3, dtype=torch.float64), n=200)
    machine.leash.fill_(math.inf)
    machine.steps(3)
    place, leash, bound = machine.look()
    assert place == 3 and leash == [math.inf] * 3 and min(bound) > 0
    before = machine.W.clone()
    machine.leash.copy_(torch.tensor([math.inf, 0.999 * bound[1], math.inf]))
    machine.steps(5)
    assert machine.look()[0] == 3 and torch.equal(machine.W, before) and machine.look()[2] == bound
    machine.leash[1] = 1.001 * bound[1]
    machine.steps(5)
    place, leash, after = machine.look()
    assert place == 4 and not torch.equal(machine.W, before)
    assert leash[1] == pytest.approx(0.001 * bound[1]) and after != bound


def test_a_rehearsal_changes_nothing():
    """On a GPU a step is rehearsed before it is captured as a graph, in the middle of training."""
    machine, _ = stepper(lh.TwoLayerNet.init(6, 30, members=3, dtype=torch.float64), n=200)
    machine.leash.copy_(torch.tensor([math.inf, 5.0, 7.0]))
    machine.steps(3)
    names = ("W", "gate", "push", "bound", "leash", "place", "order")
    before = {name: getattr(machine, name).clone() for name in names}
    machine._rehearse()
    for name in names:
        assert torch.equal(getattr(machine, name), before[name]), name


@given(nets(max_m=20), st.integers(1, 20), SEEDS)
def test_no_neuron_moves_further_than_the_bound(net, steps, seed):
    machine, packing = stepper(net.flat(), n=100, seed=seed)
    machine.leash.fill_(math.inf)
    for _ in range(steps):
        bound, before = machine.look()[2], machine.W.clone()
        machine.steps(1)
        assert bool(((machine.W - before).norm(dim=-1).amax(-1) <= torch.tensor(bound)).all())


def test_the_host_looks_seldom():
    """On a GPU each look waits for the device."""
    looks, steps = 0, 0
    look, walk = Stepper.look, Stepper._step

    class Counted(Stepper):
        def look(self):
            nonlocal looks
            looks += 1
            return look(self)

        def _step(self):
            nonlocal steps
            steps += 1
            return walk(self)

    X = lh.unit_sphere(400, 20)
    y = X[:, 0].sign()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lazy_helpers.train.Stepper", Counted)
        net = lh.TwoLayerNet.init(20, 200)
        ends = lh.train_sgd(net, X, y, (3.0, 6.0), lr=0.05, batch_size=8, max_epochs=400, progress=False)
    taken = int(ends[6.0].steps)
    assert bool(ends[6.0].left) and taken > 1000
    assert looks < 0.2 * taken and steps < 1.1 * taken


def test_a_trajectory_that_overflows_leaves_the_ball():
    """Weights that became NaN are outside, and what is returned is finite."""
    net, X = lh.TwoLayerNet.init(3, 10), 1e18 * lh.unit_sphere(8, 3)
    end = lh.train_sgd(net, X, torch.ones(8), 1.0, lr=1e30, batch_size=4, max_epochs=3)[1.0]
    assert bool(end.left) and bool(end.net.W.isfinite().all())


@pytest.mark.parametrize("exit", ["step", "epoch"])
def test_crews_share_the_members_out(monkeypatch, exit):
    net = lh.TwoLayerNet.init(6, 30, members=(2, 3), seed=4, bias=True, dtype=torch.float64)
    X, y = normal(50, 6), random_signs(50)
    how = dict(C0=(1.0, 4.0), lr=0.5, batch_size=8, max_epochs=30, seed=3, exit=exit, progress=False)
    whole = lh.train_sgd(net, X, y, **how)
    monkeypatch.setattr(sgd, "SWEEP_BYTES", 30 * (16 + 8) * 8 * 4)
    assert sgd.crews(net.flat(), 8) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    for c, end in lh.train_sgd(net, X, y, **how).items():
        assert torch.equal(end.steps, whole[c].steps) and torch.equal(end.left, whole[c].left)
        torch.testing.assert_close(end.net.weights, whole[c].net.weights, rtol=1e-9, atol=1e-9)
