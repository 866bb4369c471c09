r"""SGD on the logistic loss with exit times: one trajectory serves every radius of the lazy ball.

The iterate does not depend on C0; only the time at which it is returned does. The update is closed form: with
:math:`z = W x_b` and :math:`g_b = y_b / (1 + e^{y_b f(x_b)}) / B`,

.. math:: w_s \leftarrow w_s + \frac{\mathrm{lr}}{\sqrt m}\, a_s \sum_b g_b\, \mathbf 1[z_{sb} > 0]\, x_b .
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm.auto import tqdm

from .checks import check_count, check_labels, check_points, check_positive, check_seed
from .lazy import LazyBall
from .network import TwoLayerNet

LANES = 16  # 64 bytes of float32: rows of W of such a length make the products up to twice as fast
SHUFFLES = 2_000_003  # offset of the minibatches' seeds, so that no shuffle shares its stream with a draw of W


@dataclasses.dataclass(frozen=True, eq=False)
class Exit:
    """Where the trajectory left the ball of radius C0 / sqrt(m); tensors are ``(*members,)``."""

    net: TwoLayerNet  # exit="step": the last iterate inside the ball; exit="epoch": the first one seen outside
    steps: Tensor  # SGD steps that ``net`` has taken
    epochs: Tensor  # the same in passes over the data
    left: Tensor  # bool: False where training ended inside the ball, at max_epochs
    train_loss: Tensor  # mean logistic loss of ``net`` on the training set


def logistic_loss(net: TwoLayerNet, X: Tensor, y: Tensor) -> Tensor:
    """Mean of log(1 + exp(-y f)) over the points: ``(*members,)``."""
    X = check_points("X", X, net.d, net.members, net.W)
    y = check_labels("y", y, X.shape[-2], net.W)
    return torch.nn.functional.softplus(-y * net(X)).mean(-1)


def train_sgd(
    net: TwoLayerNet,
    X: Tensor,
    y: Tensor,
    C0: float | tuple[float, ...] = (10.0, 20.0, 30.0, 40.0),
    lr: float = 0.1,
    batch_size: int = 64,
    max_epochs: int = 1000,
    seed: int = 0,
    exit: str = "step",
    progress: bool = True,
) -> dict[float, Exit]:
    r"""Minibatch SGD on the logistic loss until the weights leave the lazy ball; returns ``{C0: Exit}``.

    ``X`` is ``(n, d)``, ``y`` is ``(n,)`` in {-1, +1}; the net's members train side by side, member k on the minibatches
    that ``seed + k`` alone gives. ``exit="step"``: the last iterate with
    :math:`\max_s \|w_s - w_{s,0}\| \le C_0/\sqrt m`, found to the step, with a fresh shuffle each epoch.
    ``exit="epoch"`` is the published procedure: one shuffle for all epochs, a check at each epoch's end, and the first
    iterate outside is returned. Training stops when the largest radius is left or after ``max_epochs``. A progress bar
    appears on a terminal after some seconds. Raises ``ValueError`` for labels other than -1 and +1, C0 <= 0 and the like.
    """
    X = check_points("X", X, net.d, net.members, net.W)
    if X.ndim > 2:
        raise ValueError(
            f"X must have shape (n, {net.d}), got {tuple(X.shape)}: the members share the training points."
        )
    y = check_labels("y", y, len(X), net.W)
    lr = check_positive("lr", lr)
    check_count("batch_size", batch_size), check_count("max_epochs", max_epochs)
    seed = check_seed(seed)
    if exit not in ("step", "epoch"):
        raise ValueError(
            f"exit must be 'step' or 'epoch', got {exit!r}: 'step' returns the last iterate inside the ball."
        )
    wanted = tuple(C0) if isinstance(C0, (tuple, list)) else (C0,)
    if not wanted:
        raise ValueError("C0 holds no radius, got an empty sequence: pass, for example, C0=(10.0, 20.0).")
    radii = sorted({LazyBall(net.W, c).radius for c in wanted})

    features = X if net.b is None else torch.cat([X, torch.ones_like(X[:, :1])], dim=-1)
    used = (features != 0).any(0)  # a pixel that is always 0 never moves its weight
    used[0] = True  # one column at least, for points that are all 0
    count = int(used.sum())
    aligned = (0, -count % LANES)
    features = pad(features[:, used], aligned)
    W0 = pad(net.weights.reshape(-1, net.m, len(used))[..., used], aligned)
    run = _trajectory(
        W0, net.a.reshape(-1, net.m), features, y, radii, lr, batch_size, max_epochs, seed, exit, progress
    )

    exits = {}
    for c in sorted(set(wanted)):
        weights, steps, left = (
            part.unflatten(0, net.members) if net.members else part[0] for part in run[LazyBall(net.W, c).radius]
        )
        final = net.weights.clone()
        final[..., used] = weights[..., :count]
        final = net.with_weights(final)
        per_epoch = math.ceil(len(X) / batch_size)
        exits[float(c)] = Exit(final, steps, steps / per_epoch, left, logistic_loss(final, X, y))
    return exits


def _trajectory(W0, a, X, y, radii, lr, batch_size, max_epochs, seed, exit, progress):
    """``{radius: (weights (K, m, d), steps (K,), left (K,))}`` of K members; ``radii`` ascend."""
    K, m, n = len(W0), W0.shape[-2], len(X)
    out = {r: (torch.empty_like(W0), torch.zeros(K, dtype=torch.long), torch.zeros(K, dtype=torch.bool)) for r in radii}
    inside = [list(radii) for _ in range(K)]  # the radii that member k has not left
    gap = [radii[0]] * K  # how far member k can move before it may leave the next one
    rounding = torch.finfo(W0.dtype).eps * float(W0.abs().max()) * math.sqrt(W0.shape[-1])  # of a row's update
    shuffles = [torch.Generator().manual_seed(SHUFFLES + seed + k) for k in range(K)]
    live, W, step = list(range(K)), W0.clone(), 0  # rows of W and a are the members still in training

    def check(rows: list[int]) -> None:
        """Measure these rows' distances and record each exit."""
        for i in rows:
            k = live[i]
            distance = float(LazyBall(W0[k], 1.0).distance(W[i]))
            kept = out[inside[k][0]][0][k]
            if exit == "epoch" and distance > inside[k][0]:
                kept.copy_(W[i])
            while inside[k] and distance > inside[k][0]:
                weights, steps, left = out[inside[k].pop(0)]
                weights[k].copy_(kept)
                steps[k], left[k] = step - (exit == "step"), True
            gap[k] = inside[k][0] - distance if inside[k] else math.inf

    bar = tqdm(range(max_epochs), f"SGD m={m} d={X.shape[1]}", leave=False, delay=5, disable=None if progress else True)
    for epoch in bar:
        if epoch == 0 or exit == "step":
            order = torch.stack([torch.randperm(n, generator=g) for g in shuffles])
        for start in range(0, n, batch_size):
            batch = order[live, start : start + batch_size].to(X.device)
            x = X[batch]  # (K, B, d)
            move, bound = _move(W, a, x, y[batch], lr)
            close = []
            if exit == "step":
                for i, k in enumerate(live):
                    gap[k] -= bound[i] + rounding
                    if gap[k] < 0:  # this step may lead out: keep what stands before it
                        out[inside[k][0]][0][k] = W[i]
                        close.append(i)
            W.baddbmm_(move, x)
            step += 1
            check(close)
            if exit == "epoch" and start + batch_size >= n:
                check(range(len(live)))
            stay = [i for i, k in enumerate(live) if inside[k]]
            if len(stay) < len(live):
                live, W, a = [live[i] for i in stay], W[stay], a[stay]
            if not live:
                return out
    for i, k in enumerate(live):
        for radius in inside[k]:
            weights, steps, _ = out[radius]
            weights[k], steps[k] = W[i], step
    return out


def _move(W: Tensor, a: Tensor, x: Tensor, y: Tensor, lr: float) -> tuple[Tensor, list[float]]:
    """The step as ``move @ x``, with ``move`` of shape ``(K, m, B)``, and the furthest that a neuron can get by it."""
    scale = math.sqrt(W.shape[1])
    z = W @ x.mT  # (K, m, B)
    f = (a.unsqueeze(1) @ z.relu()).squeeze(1) / scale  # (K, B)
    g = torch.sigmoid(-y * f) * (lr / (y.shape[1] * scale))
    bound = 1.0001 * (g * x.norm(dim=-1)).sum(-1)  # triangle inequality, with room for rounding
    return z.gt_(0).mul_(a.unsqueeze(-1)).mul_((g * y).unsqueeze(1)), bound.tolist()
