"""SGD with exit times against autograd SGD on the same minibatches, measured after every step."""

import math

import pytest
import reference
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import SEEDS, nets, normal, random_signs, singles

import lazy_helpers as lh


def task(n, d, seed=0):
    """Points of norm about 2 and random labels."""
    return 2 * torch.nn.functional.normalize(normal(n, d, seed=seed), dim=-1), random_signs(n, seed=seed + 1)


def separable(n=40, d=6, seed=0):
    """Labels by the first coordinate, with a gap: a task that SGD learns."""
    X = torch.nn.functional.normalize(normal(n, d, seed=seed), dim=-1)
    y = X[:, 0].sign()
    X[:, 0] += 0.5 * y
    return X, y


def compare_with_brute_force(net, X, y, C0, lr, batch_size, epochs, seed, exit):
    """Weights, steps and `left` of every member at every radius; returns how many left."""
    out = lh.train_sgd(net, X, y, C0, lr, batch_size, epochs, seed, exit, progress=False)
    radii = [c / math.sqrt(net.m) for c in C0]
    for k, member in enumerate(singles(net)):
        true = reference.sgd(member, X, y, radii, lr, batch_size, epochs, seed + k, exit)
        for c, radius in zip(C0, radii, strict=True):
            weights, steps, left = true[radius]
            found = singles(out[c].net)[k]
            assert int(out[c].steps.reshape(-1)[k]) == steps and bool(out[c].left.reshape(-1)[k]) == left
            torch.testing.assert_close(found.weights, weights, rtol=1e-9, atol=1e-9)
            assert torch.equal(found.a, member.a)
    return sum(int(one.left.sum()) for one in out.values())


# --- the trajectory ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("members", [(), (3,), (2, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_200_steps_equal_autograd_sgd(dtype, members, bias):
    net = lh.TwoLayerNet.init(6, 50, members=members, seed=3, bias=bias, dtype=dtype)
    X, y = (part.to(dtype) for part in task(37, 6))
    (end,) = lh.train_sgd(net, X, y, C0=1e6, lr=0.5, batch_size=8, max_epochs=40, seed=5).values()
    assert bool((end.steps == 200).all())
    for k, (before, after) in enumerate(zip(singles(net), singles(end.net), strict=True)):
        true, steps, _ = reference.sgd(before, X, y, [1e6], 0.5, 8, 40, seed=5 + k)[1e6]
        assert steps == 200 and float((true - before.weights).norm(dim=-1).max()) > 0.3  # it has moved
        torch.testing.assert_close(after.weights, true, rtol=0, atol=1e-5)


@given(
    nets(max_m=20, max_d=20),  # rows shorter, as long and longer than a multiple of 16
    st.sampled_from([1, 5, 23]),
    st.sampled_from([1, 4, 64]),
    st.sampled_from([0.05, 0.5, 3.0]),
    st.sampled_from(["step", "epoch"]),
    SEEDS,
)
@settings(max_examples=60)
def test_exits_equal_brute_force_measured_after_every_step(net, n, batch_size, lr, exit, seed):
    X, y = task(n, net.d, seed=seed)
    if seed % 2:  # pixels that are 0 in some images or in all of them
        X = X * (normal(n, net.d, seed=seed + 2) > 0.5)
    assume(net.b is not None or bool(X.any()))
    compare_with_brute_force(net, X, y, (0.3, 1.0, 1.01, 5.0), lr, batch_size, 8, seed % 1000, exit)


def test_the_comparison_sees_members_that_leave_and_members_that_stay():
    net = lh.TwoLayerNet.init(4, 20, members=6, dtype=torch.float64)
    X, y = task(23, 4)
    left = compare_with_brute_force(net, X, y, (0.3, 1.0, 6.0, 9.0), 0.5, 4, 12, 0, "step")
    assert 6 < left < 24


def test_one_trajectory_for_all_radii_equals_a_run_for_each():
    net = lh.TwoLayerNet.init(5, 30, members=3, seed=1, bias=True, dtype=torch.float64)
    X, y = separable(d=5)
    radii = (2.0, 0.5, 1.0, 1e9)  # in any order, one never left
    together = lh.train_sgd(net, X, y, radii, lr=0.5, batch_size=8, max_epochs=30, progress=False)
    assert list(together) == [0.5, 1.0, 2.0, 1e9]
    for c in radii:
        alone = lh.train_sgd(net, X, y, c, lr=0.5, batch_size=8, max_epochs=30, progress=False)[c]
        assert torch.equal(alone.steps, together[c].steps) and torch.equal(alone.left, together[c].left)
        torch.testing.assert_close(alone.net.weights, together[c].net.weights, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("exit", ["step", "epoch"])
def test_a_member_trains_as_it_would_alone(exit):
    """The same minibatches and the same numbers to rounding, though others leave before it does."""
    net = lh.TwoLayerNet.init(5, 30, members=(2, 2), seed=4)
    X, y = (part.float() for part in separable(d=5))
    ensemble = lh.train_sgd(net, X, y, (0.5, 2.0), lr=0.5, batch_size=8, max_epochs=60, seed=9, exit=exit)
    for k in range(4):
        alone = lh.TwoLayerNet.init(5, 30, seed=4 + k)
        out = lh.train_sgd(alone, X, y, (0.5, 2.0), lr=0.5, batch_size=8, max_epochs=60, seed=9 + k, exit=exit)
        for c in (0.5, 2.0):
            assert ensemble[c].steps.shape == (2, 2) and out[c].steps.shape == ()
            assert out[c].steps == ensemble[c].steps.reshape(-1)[k]
            torch.testing.assert_close(ensemble[c].net.W.reshape(4, 30, 5)[k], out[c].net.W, rtol=0, atol=2e-6)


def test_pixels_that_are_always_zero_change_nothing():
    net = lh.TwoLayerNet.init(5, 30, members=2, seed=1, bias=True, dtype=torch.float64)
    X, y = separable(d=5)
    wide = lh.TwoLayerNet(torch.cat([net.W, normal(2, 30, 3)], dim=-1)[..., [5, 0, 1, 6, 2, 3, 4, 7]], net.a, net.b)
    blank = torch.cat([X, torch.zeros(40, 3).double()], dim=-1)[:, [5, 0, 1, 6, 2, 3, 4, 7]]
    narrow_out = lh.train_sgd(net, X, y, (0.5, 2.0), lr=0.5, batch_size=8, max_epochs=30)
    wide_out = lh.train_sgd(wide, blank, y, (0.5, 2.0), lr=0.5, batch_size=8, max_epochs=30)
    for c in (0.5, 2.0):
        assert torch.equal(narrow_out[c].steps, wide_out[c].steps)
        trained = wide_out[c].net.W
        torch.testing.assert_close(trained[..., [1, 2, 4, 5, 6]], narrow_out[c].net.W, rtol=1e-10, atol=1e-10)
        assert torch.equal(trained[..., [0, 3, 7]], wide.W[..., [0, 3, 7]])
        torch.testing.assert_close(wide_out[c].train_loss, narrow_out[c].train_loss)


def test_a_point_at_zero_moves_no_weight():
    net = lh.TwoLayerNet.init(3, 4, dtype=torch.float64)
    (end,) = lh.train_sgd(net, torch.zeros(5, 3).double(), torch.ones(5), C0=1.0, max_epochs=3).values()
    assert torch.equal(end.net.W, net.W) and not end.left and end.steps == 3


def test_training_learns_and_reports_its_loss():
    net = lh.TwoLayerNet.init(6, 200, members=3, seed=2, dtype=torch.float64)
    X, y = separable()
    end = lh.train_sgd(net, X, y, C0=1e6, lr=1.0, batch_size=8, max_epochs=200)[1e6]
    margins = y * reference.value(end.net.W, end.net.a, None, X)
    assert bool((margins > 0).all())
    torch.testing.assert_close(end.train_loss, torch.log1p(torch.exp(-margins)).mean(-1))
    torch.testing.assert_close(lh.logistic_loss(end.net, X, y), end.train_loss)


def test_loss_of_huge_margins_neither_overflows_nor_vanishes():
    net = lh.TwoLayerNet(torch.tensor([[1000.0]]), torch.ones(1))
    X = torch.ones(1, 1)
    assert lh.logistic_loss(net, X, -torch.ones(1)) == 1000 and lh.logistic_loss(net, X, torch.ones(1)) == 0


def test_training_leaves_its_inputs_and_the_global_generator_alone():
    net = lh.TwoLayerNet.init(5, 10, bias=True, dtype=torch.float64)
    X, y = separable(d=5)
    kept, weights, state = X.clone(), net.weights.clone(), torch.get_rng_state()
    out = lh.train_sgd(net, X, y, C0=(0.5, 5.0), lr=0.5, max_epochs=5)
    assert torch.equal(X, kept) and torch.equal(net.weights, weights) and torch.equal(torch.get_rng_state(), state)
    again = lh.train_sgd(net, X, y, C0=(0.5, 5.0), lr=0.5, max_epochs=5)
    assert all(torch.equal(out[c].net.weights, again[c].net.weights) for c in (0.5, 5.0))
    other = lh.train_sgd(net, X, y, C0=(0.5, 5.0), lr=0.5, batch_size=7, max_epochs=5, seed=1)
    assert not torch.equal(other[5.0].net.weights, again[5.0].net.weights)


# --- where it is left ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
def test_last_iterate_is_inside_and_the_next_step_is_outside(dtype, bias):
    """The exit's own weights, and one autograd step more on the minibatch that comes next."""
    net = lh.TwoLayerNet.init(5, 30, seed=1, bias=bias, dtype=dtype)
    X, y = (part.to(dtype) for part in separable(d=5))
    batches = list(reference.minibatches(40, 8, 40, seed=3))
    for c, end in lh.train_sgd(net, X, y, (0.3, 1.0, 2.0), lr=0.5, batch_size=8, max_epochs=40, seed=3).items():
        ball, batch = lh.LazyBall(net.weights, c), batches[int(end.steps)]
        assert end.left and ball.distance(end.net.weights) <= ball.radius
        assert ball.distance(reference.sgd_step(net, end.net.weights, X[batch], y[batch], 0.5)) > ball.radius


def test_steps_so_small_that_they_round_up_do_not_overshoot():
    """W = 1.5, and a step of 0.7 units in the last place moves it by a whole one: 100 fit in the ball, not 143."""
    ulp = 2.0**-23
    net = lh.TwoLayerNet(torch.full((1, 1), 1.5), torch.ones(1))
    lr = 0.7 * ulp * (1 + math.exp(1.5))
    end = lh.train_sgd(net, torch.ones(1, 1), torch.ones(1), C0=100.5 * ulp, lr=lr, batch_size=1, max_epochs=400)
    (end,) = end.values()
    assert end.left and end.steps == 100 and float((end.net.W - net.W).abs()) == 100 * ulp


def test_a_ball_left_at_the_first_step_gives_the_initial_weights():
    net = lh.TwoLayerNet.init(5, 30, members=2, seed=1)
    X, y = (part.float() for part in separable(d=5))
    end = lh.train_sgd(net, X, y, C0=1e-6, lr=0.5)[1e-6]
    assert end.left.all() and end.steps.tolist() == [0, 0] and end.epochs.tolist() == [0, 0]
    assert torch.equal(end.net.W, net.W)


def test_a_ball_never_left_gives_the_last_iterate_and_says_so():
    net = lh.TwoLayerNet.init(5, 30, members=2, seed=1)
    X, y = (part.float() for part in separable(d=5))
    for exit in ("step", "epoch"):
        end = lh.train_sgd(net, X, y, C0=1e6, lr=0.5, batch_size=7, max_epochs=4, exit=exit)[1e6]
        assert not end.left.any() and end.left.dtype == torch.bool
        assert end.steps.tolist() == [24, 24] and end.epochs.tolist() == [4, 4]  # 40 points: 6 minibatches
        assert not torch.equal(end.net.W, net.W)


def test_epochs_are_steps_over_the_minibatches_of_a_pass():
    net = lh.TwoLayerNet.init(5, 30, members=4, seed=1)
    X, y = (part.float() for part in separable(d=5))
    end = lh.train_sgd(net, X, y, C0=1.0, lr=0.5, batch_size=7, max_epochs=30)[1.0]
    torch.testing.assert_close(end.epochs, end.steps / 6)


# --- exit="epoch": the published procedure ---


def test_epoch_exit_is_the_first_iterate_seen_outside_at_an_epochs_end():
    net = lh.TwoLayerNet.init(5, 30, members=5, seed=1, dtype=torch.float64)
    X, y = separable(d=5)
    steps = 5
    out = lh.train_sgd(net, X, y, (0.5, 1.0), lr=0.5, batch_size=8, max_epochs=60, exit="epoch")
    for c, end in out.items():
        ball = lh.LazyBall(net.W, c)
        assert end.left.all() and bool((ball.distance(end.net.W) > ball.radius).all())
        assert bool((end.steps % steps == 0).all()) and bool((end.epochs >= 1).all())
        for k, member in enumerate(singles(net)):  # an epoch earlier it was inside
            epochs = int(end.epochs[k]) - 1
            if epochs:
                before = reference.sgd(member, X, y, [1e9], 0.5, 8, epochs, seed=k, exit="epoch")[1e9][0]
                assert lh.LazyBall(member.W, c).contains(before)


def test_epoch_exit_ignores_a_trip_outside_that_ends_within_the_epoch():
    """First the label +1, then -1: the weight leaves the ball and comes back before it is measured."""
    net = lh.TwoLayerNet(torch.tensor([[0.01]]).double(), torch.ones(1).double())
    X, y = torch.ones(2, 1).double(), torch.ones(2).double()
    y[list(reference.minibatches(2, 1, 1, seed=0))[1]] = -1
    how = dict(C0=0.1, lr=0.5, batch_size=1, max_epochs=1, seed=0)
    by_step, by_epoch = (lh.train_sgd(net, X, y, exit=exit, **how)[0.1] for exit in ("step", "epoch"))
    assert by_step.left and by_step.steps == 0
    assert not by_epoch.left and by_epoch.steps == 2 and float((by_epoch.net.W - net.W).abs()) < 0.1


def test_epoch_exit_shuffles_once_and_step_exit_shuffles_each_epoch():
    """With fixed minibatches the order of an epoch repeats; told apart by autograd runs with either order."""
    net = lh.TwoLayerNet.init(3, 10, dtype=torch.float64)
    X, y = task(9, 3)
    for exit, other in (("step", "epoch"), ("epoch", "step")):
        end = lh.train_sgd(net, X, y, C0=1e6, lr=1.0, batch_size=2, max_epochs=6, seed=3, exit=exit)[1e6]
        same = reference.sgd(net, X, y, [1e9], 1.0, 2, 6, seed=3, exit=exit)[1e9][0]
        different = reference.sgd(net, X, y, [1e9], 1.0, 2, 6, seed=3, exit=other)[1e9][0]
        torch.testing.assert_close(end.net.W, same, rtol=0, atol=1e-10)
        assert float((end.net.W - different).abs().max()) > 1e-3


def test_one_batch_larger_than_the_data_is_gradient_descent():
    net = lh.TwoLayerNet.init(3, 10, dtype=torch.float64)
    X, y = task(9, 3)
    ends = [
        lh.train_sgd(net, X, y, C0=1e6, lr=1.0, batch_size=64, max_epochs=5, seed=seed, exit=exit)[1e6].net.W
        for seed in (0, 1)
        for exit in ("step", "epoch")
    ]
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-12)


def test_no_progress_bar_where_there_is_no_terminal(capfd):
    net = lh.TwoLayerNet.init(3, 10)
    lh.train_sgd(net, torch.ones(4, 3), torch.ones(4), C0=1e6, max_epochs=50)
    assert capfd.readouterr() == ("", "")
