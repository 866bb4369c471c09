"""Algorithm 1 against autograd, one network and one point at a time; its projection, its stopping rules, its members."""

import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import SEEDS, nets, normal, random_signs, singles

import lazy_helpers as lh
from lazy_helpers import adversarial


def task(n=40, d=6, seed=0):
    """Points of unit norm, labelled by the first coordinate, with a gap."""
    X = torch.nn.functional.normalize(normal(n, d, seed=seed), dim=-1)
    y = X[:, 0].sign()
    X[:, 0] += 0.5 * y
    return X, y


def train(net, X, y, **how):
    settings_ = dict(eps=0.1, C0=5.0, lr=0.3, batch_size=8, attack_steps=4, max_epochs=5, stop="never", progress=False)
    return lh.train_adversarial(net, X, y, **(settings_ | how))


# --- the trajectory ---


@given(
    nets(max_m=10),
    st.sampled_from([1, 5, 11]),
    st.sampled_from([1, 4, 64]),
    st.sampled_from([0.1, 1.0, 20.0]),
    st.sampled_from(["step", "epoch"]),
    st.booleans(),
    SEEDS,
)
@settings(max_examples=25)
def test_it_equals_algorithm_1_written_with_autograd(net, n, batch_size, C0, project, boxed, seed):
    X, y = normal(n, net.d, seed=seed), random_signs(n, seed=seed + 1)
    box = (float(X.min()) - 0.1, float(X.max()) + 0.1) if boxed else None
    how = dict(eps=0.3, C0=C0, lr=0.5, batch_size=batch_size, attack_steps=3, project=project, box=box)
    out = train(net, X, y, max_epochs=3, seed=seed % 1000, **how)
    histories = out.history.robust_accuracy.reshape(4, -1)
    for k, (start, before, after) in enumerate(zip(*map(singles, (net, out.before, out.net)), strict=True)):
        W, projected, robust = reference.adversarial(start, X, y, epochs=3, seed=seed % 1000 + k, **how)
        torch.testing.assert_close(before.weights, W, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(after.weights, projected, rtol=1e-7, atol=1e-8)
        assert histories[:, k].tolist() == pytest.approx(robust)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("project", "exit"), [("step", "step"), ("epoch", "epoch")])
def test_a_tiny_budget_is_plain_sgd(bias, project, exit):
    net = lh.TwoLayerNet.init(6, 50, members=3, seed=2, bias=bias, dtype=torch.float64)
    X, y = task()
    out = train(net, X, y, eps=1e-13, C0=1e6, seed=4, batch_size=16, max_epochs=7, project=project)
    plain = lh.train_sgd(net, X, y, C0=1e6, lr=0.3, batch_size=16, max_epochs=7, seed=4, exit=exit, progress=False)[1e6]
    torch.testing.assert_close(out.net.weights, plain.net.weights, rtol=0, atol=1e-11)
    torch.testing.assert_close(out.history.loss[-1], plain.train_loss, rtol=0, atol=1e-11)


def test_no_step_leaves_the_ball(monkeypatch):
    steps, step = [], adversarial._Run._step

    def watched(run, move, gate, push):
        step(run, move, gate, push)
        steps.append(float((move.norm(dim=-1, keepdim=True) / run.V).max()))

    monkeypatch.setattr(adversarial._Run, "_step", watched)
    net = lh.TwoLayerNet.init(6, 30, members=2)
    X, y = (part.float() for part in task())
    out = train(net, X, y, C0=1.0, lr=1.0)
    assert len(steps) == 25 and max(steps) <= 1 + 1e-6 and max(steps[5:]) > 0.999
    assert bool(lh.LazyBall(net.W, 1.0).contains(out.net.W).all())
    assert float(out.history.C0_used.max()) <= 1 + 1e-5 and float(out.history.C0_used[0].max()) == 0
    assert torch.equal(out.net.W, out.before.W)


def test_once_an_epoch_the_ball_is_left_and_entered_again():
    net = lh.TwoLayerNet.init(6, 30, members=2, dtype=torch.float64)
    X, y = task()
    out = train(net, X, y, C0=1.0, lr=1.0, project="epoch")
    ball = lh.LazyBall(net.W, 1.0)
    assert bool(ball.contains(out.net.W).all()) and not bool(ball.contains(out.before.W).any())
    torch.testing.assert_close(ball.project(out.before.W), out.net.W)
    torch.testing.assert_close(out.history.C0_used[-1], ball.distance(out.before.W) * math.sqrt(30))
    delta = lh.pgd(out.before, X, y, 0.1, steps=4)
    robust = (y * out.before(X + delta) > 0).double().mean(-1)
    torch.testing.assert_close(out.history.robust_accuracy[-1], robust)  # measured before the projection


def test_the_history_is_the_last_networks():
    net = lh.TwoLayerNet.init(6, 100, members=(2, 2), bias=True, dtype=torch.float64)
    X, y = task()
    out = train(net, X, y, max_epochs=6)
    margin = y * out.net(X + lh.pgd(out.net, X, y, 0.1, steps=4))
    assert out.history.loss.shape == (7, 2, 2)
    torch.testing.assert_close(out.history.robust_accuracy[-1], (margin > 0).double().mean(-1))
    torch.testing.assert_close(out.history.clean_accuracy[-1], (y * out.net(X) > 0).double().mean(-1))
    torch.testing.assert_close(out.history.loss[-1], torch.nn.functional.softplus(-margin).mean(-1))
    far = lh.LazyBall(net.weights, 1.0).distance(out.net.weights) * 10
    torch.testing.assert_close(out.history.C0_used[-1], far)


def test_adversarial_training_is_more_robust_than_plain_training():
    train_set, test = (lh.load_binary("digits", normalize=True, split=split) for split in ("train", "test"))
    net = lh.TwoLayerNet.init(64, 300, members=2)
    how = dict(C0=20.0, lr=0.3, batch_size=16, max_epochs=60)
    out = lh.train_adversarial(net, train_set.X, train_set.y, eps=0.3, attack_steps=10, stop="never", **how)
    plain = lh.train_sgd(net, train_set.X, train_set.y, **how)[20.0].net
    robust, standard = (
        (test.y * one(test.X + lh.pgd(one, test.X, test.y, 0.3)) > 0).double().mean(-1) for one in (out.net, plain)
    )
    assert bool((robust > standard + 0.1).all())
    assert bool((out.history.robust_accuracy[-1] > 0.7).all()) and bool(
        (out.history.loss[-1] < out.history.loss[0]).all()
    )


# --- members ---


@pytest.mark.parametrize("project", ["step", "epoch"])
@pytest.mark.parametrize("warm", [False, True])
def test_a_member_trains_as_it_would_alone(project, warm):
    net = lh.TwoLayerNet.init(5, 30, members=(2, 2), seed=4, dtype=torch.float64)
    X, y = task(d=5)
    eps, C0 = torch.tensor([[0.05, 0.1], [0.2, 0.4]]), torch.tensor([[0.5, 1.0], [2.0, 4.0]])
    how = dict(project=project, warm_start=warm, lr=0.5, stop="stable", max_epochs=30)
    together = train(net, X, y, eps=eps, C0=C0, seed=9, **how)
    for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        alone = train(net[i, j], X, y, eps=float(eps[i, j]), C0=float(C0[i, j]), seed=9 + k, **how)
        assert together.epochs[i, j] == alone.epochs and together.stopped[i, j] == alone.stopped
        torch.testing.assert_close(together.net.W[i, j], alone.net.W, rtol=0, atol=1e-7)
        torch.testing.assert_close(together.before.W[i, j], alone.before.W, rtol=0, atol=1e-7)
        end = int(alone.epochs) + 1
        torch.testing.assert_close(together.history.loss[:end, i, j], alone.history.loss, rtol=0, atol=1e-7)
        assert together.history.loss[end:, i, j].isnan().all()
    assert len(set(together.epochs.flatten().tolist())) > 1


@pytest.mark.parametrize("bytes_", [1, 30 * (6 + 8) * 8 * 2])
def test_in_small_crews_and_blocks_it_is_the_same(monkeypatch, bytes_):
    net = lh.TwoLayerNet.init(6, 130, members=3, seed=4, bias=True, dtype=torch.float64)
    X, y = task(50)
    whole = train(net, X, y, C0=1.0)
    monkeypatch.setattr(adversarial, "BLOCK_BYTES", bytes_)
    monkeypatch.setattr(adversarial, "TILE_BYTES", 3 * 130 * 8 * 8 * 2)
    assert len(adversarial.crews(net, 8)) == 3
    parts = train(net, X, y, C0=1.0)
    torch.testing.assert_close(parts.net.weights, whole.net.weights, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parts.history.loss, whole.history.loss)


def test_a_seed_names_the_run_and_nothing_else_is_touched():
    net, (X, y) = lh.TwoLayerNet.init(6, 20, members=2, bias=True, dtype=torch.float64), task()
    kept, weights, state = X.clone(), net.weights.clone(), torch.get_rng_state()
    one, same, other = (train(net, X, y, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.net.weights, same.net.weights) and not torch.equal(one.net.weights, other.net.weights)
    assert torch.equal(X, kept) and torch.equal(net.weights, weights) and torch.equal(torch.get_rng_state(), state)


# --- edges ---


def test_one_batch_larger_than_the_data():
    net, (X, y) = lh.TwoLayerNet.init(6, 20, dtype=torch.float64), task()
    torch.testing.assert_close(train(net, X, y, batch_size=1000).net.W, train(net, X, y, batch_size=40).net.W)


def test_points_without_a_gradient_stay():
    """Every neuron silent at every point: no perturbation, no step."""
    net = lh.TwoLayerNet(-torch.ones(3, 2).double(), torch.ones(3).double())
    out = train(net, torch.ones(4, 2).double(), torch.ones(4), eps=0.1)
    assert torch.equal(out.net.W, net.W) and float(out.history.robust_accuracy.max()) == 0
    assert bool((out.history.loss == math.log(2)).all())


def test_a_warm_start_goes_on_from_the_last_perturbations(monkeypatch):
    starts, ascend = [], adversarial.ascend

    def watched(net, x, y, eps, alpha, steps, box, start):
        delta = ascend(net, x, y, eps, alpha, steps, box, start)
        starts.append((start, delta))
        return delta

    monkeypatch.setattr(adversarial, "ascend", watched)
    net, (X, y) = lh.TwoLayerNet.init(6, 20, members=2, dtype=torch.float64), task()
    train(net, X, y, warm_start=True, max_epochs=3)
    assert starts[0][0] is None and all(torch.equal(starts[k][0], starts[k - 1][1]) for k in (1, 2, 3))
    starts.clear()
    train(net, X, y, max_epochs=3)
    assert [start for start, _ in starts] == [None] * 4


# --- stopping ---


def rows(robust, loss=None):
    robust = torch.as_tensor(robust).double()
    loss = torch.ones_like(robust) if loss is None else torch.as_tensor(loss).double()
    return torch.stack([robust, robust, loss, robust], dim=-1)


def test_the_published_rule_counts_21_epochs_after_one_another():
    flat = [0.1] + [0.5] * 21
    assert not adversarial._is_over(rows(flat), "published") and adversarial._is_over(rows([*flat, 0.5]), "published")
    assert not adversarial._is_over(rows([0.1] + [0.5] * 20 + [0.6] + [0.5] * 20), "published")  # jitter resets it
    falling = [0.5 - 0.01 * t for t in range(22)]
    assert adversarial._is_over(rows(falling), "published") and not adversarial._is_over(rows(falling[1:]), "published")


def test_stable_means_accuracy_and_loss_at_rest():
    over = lambda *history: adversarial._is_over(rows(*history), "stable")  # noqa: E731
    noise = 0.003 * normal(60)
    assert not over([0.9] * 10) and over([0.9] * 11)
    assert over(0.8 + noise) and not over(0.5 + 0.002 * torch.arange(60) + noise)
    assert not over([0.0] * 60, [1 - 0.01 * t for t in range(60)])  # accuracy rests at 0 while the loss falls
    assert not over([0.5 + 0.0004 * t for t in range(100)]) and over([0.5 + 0.0001 * t for t in range(100)])
    assert not adversarial._is_over(rows([0.9] * 99), "never")


def test_a_run_that_stops_says_so():
    net, (X, y) = lh.TwoLayerNet.init(6, 50, dtype=torch.float64), task()
    done = train(net, X, y, eps=1e-3, C0=0.5, lr=1.0, stop="stable", max_epochs=200)
    assert bool(done.stopped) and 10 <= int(done.epochs) < 200 and len(done.history.loss) == int(done.epochs) + 1
    cut = train(net, X, y, stop="stable", max_epochs=3)
    assert not bool(cut.stopped) and int(cut.epochs) == 3
