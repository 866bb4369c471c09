r"""Algorithm 1: adversarial training, projected onto the lazy ball.

Each epoch attacks every training point, then runs SGD over minibatches of the attacked points :math:`x_b`,

.. math:: w_s \leftarrow w_s + \frac{\mathrm{lr}}{B\sqrt m}\, a_s \sum_b g_b\, \mathbf 1[w_s^\top x_b > 0]\, x_b, \qquad g_b = \frac{y_b}{1 + e^{y_b f(x_b)}},

and pulls each neuron back to within V of where it began. What is stored is the move from there, W - W0: its rows are what the
projection measures and scales, and the pre-activations at W0 come from one large product an epoch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm.auto import tqdm

from .attack import ascend
from .checks import (  # fmt: skip
    check_box,
    check_choice,
    check_count,
    check_flag,
    check_labels,
    check_per_member,
    check_points,
    check_positive,
    check_seed,
)
from .network import TwoLayerNet
from .tiles import TILE_BYTES
from .train import SHUFFLES

PROJECT = {"step": "after every SGD step, as the paper says", "epoch": "once an epoch, as the published scripts do"}
STOP = {
    "stable": "robust accuracy and loss at rest",
    "published": "no rise in 21 epochs after one another",
    "never": "at max_epochs",
}
WINDOW = 10  # epochs over which training is to be stable; later the last quarter of all, so that slow training is seen
STABLE = 0.005  # how much the line fitted to robust accuracy may change over them
FLAT = 0.005  # the same of the loss, relatively
PATIENCE, RISE = 20, 1e-4  # the published rule: more than 20 epochs after one another that rise by no more
BLOCK_BYTES = 2**22  # rows of the move that stay in a processor's cache between two products


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """What was measured on the training points, ``(epochs + 1, *members)`` each: row t after t epochs, NaN after a member's last.

    With ``project="epoch"`` it is measured before the projection, as in the published scripts.
    """

    robust_accuracy: Tensor  # under the attack in training
    clean_accuracy: Tensor
    loss: Tensor  # mean logistic loss at the attacked points
    C0_used: Tensor  # sqrt(m) times the largest deviation of a neuron


@dataclasses.dataclass(frozen=True, eq=False)
class Adversarial:
    """A network trained adversarially; tensors are ``(*members,)``."""

    net: TwoLayerNet  # after the last epoch, inside the ball
    before: TwoLayerNet  # the same before its last projection: what the published scripts evaluate with project="epoch"
    epochs: Tensor  # how many were taken
    stopped: Tensor  # bool: the stopping rule ended training; False where max_epochs did
    history: History


def train_adversarial(
    net: TwoLayerNet,
    X: Tensor,
    y: Tensor,
    eps: float | Sequence[float] | Tensor = 0.2,
    C0: float | Sequence[float] | Tensor = 10.0,
    lr: float = 0.1,
    batch_size: int = 32,
    attack_steps: int = 100,
    max_epochs: int = 1000,
    seed: int = 0,
    project: str = "step",
    stop: str = "stable",
    box: tuple[float, float] | None = None,
    warm_start: bool = False,
    progress: bool = True,
    on_epoch: Callable[[Adversarial], object] | None = None,
) -> Adversarial:
    r"""Projected adversarial training (Algorithm 1) in the lazy ball of radius C0 / sqrt(m); members train side by side.

    ``X`` is ``(n, d)``, ``y`` ``(n,)`` in {-1, +1}; ``eps`` and ``C0`` are numbers, or one for each member, of shape ``members``.
    At an epoch's start all points are attacked by projected gradient ascent of ``attack_steps`` from 0 (``warm_start``: from
    the last epoch's perturbations), within ``box`` if one is given. ``project="step"``: after every SGD step, with a fresh
    shuffle each epoch. ``project="epoch"``: once an epoch, one shuffle for all of them, and the history is measured before
    the projection, as published. ``stop="stable"``: over the last 10 epochs or the last quarter of all, whichever is more, the least-squares
    line through the training robust accuracy changes by at most 0.005 and that through the loss by half a percent (accuracy alone rests at 0
    while the loss still falls); ``"published"``: accuracy has not risen by more than 1e-4 from the epoch before in 21 epochs after one another.
    Member k's minibatches are those of ``seed + k``. ``on_epoch`` is called after each epoch with what would be returned
    if training ended there; a true answer ends it there. Members that wait for others to finish are as they were drawn, and
    their history is NaN. The published settings are lr=0.01, box=(0, 1), project="epoch" and stop="published". Raises ``ValueError`` for labels other than -1 and +1, eps <= 0 and the like.
    """
    X = check_points("X", X, net.d, net.members, net.W)
    if X.ndim > 2:
        raise ValueError(
            f"X must have shape (n, {net.d}), got {tuple(X.shape)}: the members share the training points."
        )
    y = check_labels("y", y, len(X), net.W)
    eps, C0 = check_per_member("eps", eps, net.members), check_per_member("C0", C0, net.members)
    lr = check_positive("lr", lr)
    check_count("batch_size", batch_size), check_count("attack_steps", attack_steps)
    check_count("max_epochs", max_epochs), check_flag("warm_start", warm_start)
    seed = check_seed(seed)
    check_choice("project", project, PROJECT), check_choice("stop", stop, STOP)
    if box is not None:
        check_box(box, X)

    start = net.flat()
    K = len(start.a)
    room = torch.empty_like if on_epoch is None else torch.clone
    ends = _Ends(room(start.weights), room(start.weights), [0] * K, [False] * K)
    how = (X, y, lr, batch_size, attack_steps, project, box, warm_start)
    bar = tqdm(total=K * max_epochs, desc=f"Algorithm 1 m={net.m} d={net.d}", leave=False, delay=5, disable=None if progress else True)  # fmt: skip
    rows = []  # a crew's history each

    def outcome() -> Adversarial:
        longest = max(len(part) for part in rows)
        history = torch.cat([pad(part, (0, 0, 0, 0, 0, longest - len(part)), value=math.nan) for part in rows], dim=-1)
        history = pad(history, (0, K - history.shape[-1]), value=math.nan)  # the members that have not begun
        return Adversarial(
            net.with_weights(ends.after.view_as(net.weights)),
            net.with_weights(ends.before.view_as(net.weights)),
            torch.tensor(ends.epochs).view(net.members),
            torch.tensor(ends.stopped).view(net.members),
            History(*(part.view(longest, *net.members) for part in history.unbind(1))),
        )

    def over(history: Tensor) -> bool:
        rows[-1] = history
        now = outcome()
        return bool(on_epoch(dataclasses.replace(now, net=_copy(now.net), before=_copy(now.before))))

    with bar:
        for some in crews(start, batch_size):
            rows.append(torch.empty(0))
            shown = None if on_epoch is None else over
            rows[-1], ended = _train(start, some, eps, C0, how, max_epochs, seed, stop, ends, bar, shown)
            if ended:
                break
    return outcome()


def _copy(net: TwoLayerNet) -> TwoLayerNet:
    return net.with_weights(net.weights.clone())


class _Ends(NamedTuple):
    """Where each member's training ended."""

    after: Tensor  # weights (K, m, d or d + 1)
    before: Tensor
    epochs: list[int]
    stopped: list[bool]


def _train(start, some, eps, C0, how, max_epochs, seed, stop, ends, bar, shown) -> tuple[Tensor, bool]:
    """Trains the members ``some`` side by side, writes where they end into ``ends``.

    Returns their history ``(epochs + 1, 4, members)`` and whether ``shown`` ended training, which gets it after each epoch.
    """
    live = list(range(len(start.a)))[some]  # the members in training, in the run's order
    first = some.start
    run = _Run(start[some], eps[some], C0[some], *how)
    shuffles = {k: torch.Generator().manual_seed(SHUFFLES + seed + k) for k in live}
    order = {k: torch.randperm(len(run.X), generator=shuffles[k]) for k in live}
    history = [run.measure()]
    for epoch in range(1, max_epochs + 1):
        run.epoch(torch.stack([order[k] for k in live]))
        row = torch.full_like(history[0], math.nan)
        row[:, [k - first for k in live]] = run.measure()
        history.append(row)
        bar.update(len(live))
        sofar = torch.stack(history)
        over = [_is_over(sofar[:, :, k - first], stop) for k in live]
        done = [i for i in range(len(live)) if over[i] or epoch == max_epochs]
        for i in done if shown is None else range(len(live)):
            k = live[i]
            ends.after[k], ends.before[k] = run.weights(i, projected=True), run.weights(i, projected=False)
            ends.epochs[k], ends.stopped[k] = epoch, over[i]
        bar.update(len(done) * (max_epochs - epoch))
        if shown is not None and shown(sofar):
            return sofar, True
        if len(done) == len(live):
            break
        if done:
            stay = [i for i in range(len(live)) if i not in done]
            run.keep(stay)
            live = [live[i] for i in stay]
        if run.every_step:  # otherwise one shuffle for all epochs
            order = {k: torch.randperm(len(run.X), generator=shuffles[k]) for k in live}
        else:
            run.settle()
    return torch.stack(history), False


def crews(net: TwoLayerNet, batch_size: int) -> list[slice]:
    """Members that train side by side; on a GPU all."""
    K = len(net.a)
    size = K if net.W.is_cuda else max(1, BLOCK_BYTES // (net.m * (net.d + batch_size) * net.W.element_size()))
    return [slice(first, min(first + size, K)) for first in range(0, K, size)]


def _is_over(history: Tensor, stop: str) -> bool:
    """Whether the rule ends training after these epochs ``(epochs + 1, 4)``, the first row before any training."""
    robust, loss = history[:, 0], history[:, 2]
    if stop == "published":
        risen = robust.diff() > RISE
        return len(risen) > PATIENCE and not bool(risen[-PATIENCE - 1 :].any())
    epochs = len(robust) - 1
    window = max(WINDOW, epochs // 4)
    if stop == "never" or epochs < window:
        return False
    return _change(robust[-window:]) <= STABLE and _change(loss[-window:]) <= FLAT * float(loss[-1])


def _change(series: Tensor) -> float:
    """How much the least-squares line through a series changes from its first to its last value, in absolute value."""
    t = torch.arange(len(series), dtype=series.dtype) - (len(series) - 1) / 2
    return abs(float((t * series).sum() / t.square().sum())) * (len(series) - 1)


class _Run:
    """A crew of K members: their moves from the start, and the perturbations of the training points that go with them."""

    def __init__(self, start, eps, C0, X, y, lr, batch_size, attack_steps, project, box, warm_start):
        self.start, self.X, self.y = start, X, y
        self.W0 = start.weights
        self.a = start.a.unsqueeze(-1)
        self.move = torch.zeros_like(self.W0)
        self.V = (C0.to(self.W0) / math.sqrt(start.m)).view(-1, 1, 1)
        self.eps = eps.to(self.W0)
        self.lr, self.batch_size, self.steps = lr, min(batch_size, len(X)), attack_steps
        self.every_step, self.box, self.warm = project == "step", box, warm_start
        self.delta = None

    def net(self) -> TwoLayerNet:
        weights = self.W0 + self.move
        if self.start.b is None:
            return TwoLayerNet(weights, self.start.a)
        return TwoLayerNet(weights[..., :-1].contiguous(), self.start.a, weights[..., -1])

    def attack(self, net: TwoLayerNet) -> None:
        eps = self.eps.unsqueeze(-1).expand(-1, len(self.X))
        start = self.delta if self.warm else None
        self.delta = ascend(net, self.X, self.y, eps, 2.5 * eps / self.steps, self.steps, self.box, start)

    def measure(self) -> Tensor:
        """Robust accuracy, clean accuracy, loss and C0 used ``(4, K)``, after an attack on the networks as they are."""
        net = self.net()
        self.attack(net)
        margin = self.y * net(self.X + self.delta)
        clean = ((self.y * net(self.X)) > 0).double().mean(-1)
        loss = torch.nn.functional.softplus(-margin).double().mean(-1)
        far = self.move.norm(dim=-1).amax(-1).double() * math.sqrt(self.start.m)
        return torch.stack([(margin > 0).double().mean(-1), clean, loss, far]).cpu()

    def settle(self) -> None:
        """The projection once an epoch, and the attack on what it leaves."""
        outside = self.project(self.move, self.V)
        if bool(outside.any()):
            kept = self.delta
            self.attack(self.net())
            self.delta = torch.where(outside, self.delta, kept)

    @staticmethod
    def project(move: Tensor, V: Tensor) -> Tensor:
        """Pulls rows longer than V back to it; returns which members had any, ``(K, 1, 1)``."""
        length = torch.linalg.vector_norm(move, dim=-1, keepdim=True)
        outside = (length > V).any(dim=-2, keepdim=True)
        if bool(outside.any()):
            move.mul_(V / torch.maximum(length, V))
        return outside

    def weights(self, i: int, projected: bool) -> Tensor:
        move = self.move[i].clone()
        if projected and not self.every_step:
            self.project(move, self.V[i])
        return self.W0[i] + move

    def keep(self, rest: list[int]) -> None:
        """Goes on with these members alone."""
        for name in ("W0", "a", "move", "V", "eps", "delta"):
            setattr(self, name, getattr(self, name)[rest])
        self.start = self.start[rest]

    def epoch(self, order: Tensor) -> None:
        """SGD over the attacked points in each member's ``order`` ``(K, n)``, with a projection after every step if asked."""
        (K, m, width), n = self.move.shape, len(self.X)
        order = order.to(self.X.device)
        x = torch.ones(K, n, width, dtype=self.X.dtype, device=self.X.device)  # a last column of ones for the biases
        delta = self.delta.gather(1, order.unsqueeze(-1).expand(-1, -1, self.start.d))
        torch.add(self.X[order], delta, out=x[..., : self.start.d])
        y = self.y[order]
        rows = BLOCK_BYTES // (K * (width + self.batch_size) * x.element_size())
        rows = m if x.is_cuda else min(m, max(64, rows // 64 * 64))
        blocks = [slice(r, min(r + rows, m)) for r in range(0, m, rows)]
        gate = x.new_zeros(K, m, self.batch_size)
        room = x.new_empty(K * min(rows, m) * self.batch_size)
        push, used = x.new_zeros(K, self.batch_size, width), 0
        chunk = max(1, TILE_BYTES // (K * m * self.batch_size * x.element_size())) * self.batch_size
        for first in range(0, n, self.batch_size):
            if first % chunk == 0:
                initial = self.W0 @ x[:, first : first + chunk].mT  # (K, m, chunk), for many minibatches at once
            batch = slice(first, min(first + self.batch_size, n))
            B, there = batch.stop - first, first % chunk
            xT = x[:, batch].mT
            f = x.new_zeros(K, 1, B)
            for r in blocks:
                move, a = self.move[:, r], self.a[:, r]
                if used:
                    self._step(move, gate[:, r, :used], push[:, :used])
                z = room[: K * move.shape[1] * B].view(K, -1, B)
                torch.baddbmm(initial[:, r, there : there + B], move, xT, out=z)
                torch.mul(z > 0, a, out=gate[:, r, :B])
                f.baddbmm_(a.mT, z.relu_(), alpha=1 / math.sqrt(m))
            g = (-y[:, batch] * f.squeeze(1)).sigmoid_().mul_(y[:, batch]).mul_(self.lr / (B * math.sqrt(m)))
            torch.mul(g.unsqueeze(-1), x[:, batch], out=push[:, :B])
            used = B
        for r in blocks:
            self._step(self.move[:, r], gate[:, r, :used], push[:, :used])

    def _step(self, move: Tensor, gate: Tensor, push: Tensor) -> None:
        move.baddbmm_(gate, push)
        if self.every_step:
            self.project(move, self.V)
