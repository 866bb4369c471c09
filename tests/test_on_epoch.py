"""What both trainings show after each epoch, and how an answer ends them: compared with runs of that many epochs."""

import pytest
import torch
from reference import normal

import lazy_helpers as lh
from lazy_helpers import adversarial, sgd


def task(n=40, d=6):
    """Points of unit norm, labelled by the first coordinate, with a gap."""
    X = torch.nn.functional.normalize(normal(n, d), dim=-1)
    y = X[:, 0].sign()
    X[:, 0] += 0.5 * y
    return X.float(), y.float()


def start(members=(3,), bias=False):
    return lh.TwoLayerNet.init(6, 30, members=members, seed=4, bias=bias)


def plain(net, on_epoch=None, max_epochs=12, exit="step"):
    how = dict(C0=(0.5, 1.5, 1e6), lr=0.5, batch_size=7, max_epochs=max_epochs, seed=2, exit=exit, progress=False)
    return lh.train_sgd(net, *task(), **how, on_epoch=on_epoch)


def robust(net, on_epoch=None, max_epochs=12, project="step", stop="never"):
    how = dict(eps=0.1, C0=2.0, lr=0.5, batch_size=7, attack_steps=3, max_epochs=max_epochs, seed=2, progress=False)
    return lh.train_adversarial(net, *task(), **how, project=project, stop=stop, on_epoch=on_epoch)


def same_exits(one, other):
    assert list(one) == list(other)
    for a, b in zip(one.values(), other.values(), strict=True):
        assert torch.equal(a.net.weights, b.net.weights) and torch.equal(a.train_loss, b.train_loss)
        assert torch.equal(a.steps, b.steps) and torch.equal(a.epochs, b.epochs) and torch.equal(a.left, b.left)


def same_outcomes(one, other):
    assert torch.equal(one.net.weights, other.net.weights) and torch.equal(one.before.weights, other.before.weights)
    assert torch.equal(one.epochs, other.epochs) and torch.equal(one.stopped, other.stopped)
    for name, part in vars(one.history).items():
        assert torch.equal(part.nan_to_num(-1), getattr(other.history, name).nan_to_num(-1))


BOTH = pytest.mark.parametrize(
    ("train", "same"),
    [
        pytest.param(plain, same_exits, id="sgd"),
        pytest.param(lambda *a, **k: plain(*a, **k, exit="epoch"), same_exits, id="sgd-published"),
        pytest.param(robust, same_outcomes, id="adversarial"),
        pytest.param(lambda *a, **k: robust(*a, **k, project="epoch"), same_outcomes, id="adversarial-published"),
    ],
)


@BOTH
@pytest.mark.parametrize("members", [(), (3,), (2, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_watching_changes_no_bit_and_shows_what_a_shorter_run_returns(train, same, members, bias):
    net, seen = start(members, bias), []
    kept = net.weights.clone()
    same(train(net, seen.append), train(net))
    assert len(seen) == 12 and torch.equal(net.weights, kept)
    for epochs in (1, 5, 12):  # kept until now: each is a copy
        same(seen[epochs - 1], train(net, max_epochs=epochs))


@BOTH
def test_a_true_answer_ends_training_there(train, same):
    net, seen = start(), []

    def third(now):
        seen.append(now)
        return len(seen) == 3

    ended = train(net, third)
    assert len(seen) == 3
    same(ended, seen[-1])
    same(ended, train(net, max_epochs=3))


def test_the_last_call_is_what_is_returned_where_all_members_left():
    net, seen = start(), []
    how = dict(C0=(0.5, 1.0), lr=0.5, batch_size=7, max_epochs=500, progress=False)
    exits = lh.train_sgd(net, *task(), **how, on_epoch=seen.append)
    assert all(bool(end.left.all()) for end in exits.values()) and len(seen) < 500
    same_exits(exits, seen[-1])


def test_members_that_finish_early_stay_as_they_ended():
    net, seen = start(), []
    how = dict(eps=torch.tensor([1e-3, 0.1, 0.3]), C0=1.0, lr=1.0, batch_size=8, attack_steps=3, max_epochs=80)
    out = lh.train_adversarial(net, *task(), **how, stop="stable", progress=False, on_epoch=seen.append)
    first, last = sorted(out.epochs.tolist())[::2]
    assert first < last == len(seen) and bool(out.stopped.any())
    same_outcomes(out, seen[-1])
    k = out.epochs.tolist().index(first)
    assert torch.equal(seen[first - 1].net.W[k], out.net.W[k]) and bool(seen[first - 1].stopped[k])
    assert not bool(seen[first - 2].stopped[k])


@pytest.mark.parametrize("train", [plain, robust])
def test_members_that_wait_are_as_drawn(monkeypatch, train):
    """One member after the other, as large ones train; ended while the second is at it."""
    monkeypatch.setattr(sgd, "SWEEP_BYTES", 1)
    monkeypatch.setattr(adversarial, "BLOCK_BYTES", 1)
    net, seen = start(), []

    def fourteenth(now):
        seen.append(now)
        return len(seen) == 14

    end, whole = train(net, fourteenth), train(net)
    if train is plain:
        end, whole = end[1e6], whole[1e6]
        assert end.steps.tolist() == [72, 12, 0] and not bool(end.left.any())
    else:
        assert end.epochs.tolist() == [12, 2, 0] and not bool(end.stopped.any())
        loss = end.history.loss
        assert loss.shape == (13, 3) and bool(loss[:, 2].isnan().all())
        assert torch.equal(loss[:, 0], whole.history.loss[:, 0]) and torch.equal(loss[:3, 1], whole.history.loss[:3, 1])
        assert bool(loss[3:, 1].isnan().all())
    assert torch.equal(end.net.W[0], whole.net.W[0]) and torch.equal(end.net.W[2], net.W[2])
    assert not torch.equal(end.net.W[1], net.W[1]) and not torch.equal(end.net.W[1], whole.net.W[1])
