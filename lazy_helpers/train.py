r"""SGD on the logistic loss with exit times: one trajectory serves every radius of the lazy ball.

The iterate does not depend on C0; only the time at which it is returned does. That time is found to the step without
measuring after each: no step moves a neuron by more than a bound that comes with it, so a member that has been measured
has a leash, its distance from the next sphere, and nobody looks at it again until it has used that up.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm.auto import tqdm

from .checks import check_count, check_labels, check_points, check_positive, check_seed
from .lazy import LazyBall
from .network import TwoLayerNet
from .sgd import Packing, Stepper, crews

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
    on_epoch: Callable[[dict[float, Exit]], object] | None = None,
) -> dict[float, Exit]:
    r"""Minibatch SGD on the logistic loss until the weights leave the lazy ball; returns ``{C0: Exit}``.

    ``X`` is ``(n, d)``, ``y`` is ``(n,)`` in {-1, +1}; the net's members train side by side, member k on the minibatches
    that ``seed + k`` alone gives. ``exit="step"``: the last iterate with
    :math:`\max_s \|w_s - w_{s,0}\| \le C_0/\sqrt m`, found to the step, with a fresh shuffle each epoch.
    ``exit="epoch"`` is the published procedure: one shuffle for all epochs, a check at each epoch's end, and the first
    iterate outside is returned. Training stops when the largest radius is left or after ``max_epochs``. A progress bar
    appears on a terminal after some seconds. ``on_epoch`` is called after each epoch with what would be returned if training
    ended there; a true answer ends it there. Members that wait for others to finish are as they were drawn. Raises
    ``ValueError`` for labels other than -1 and +1, C0 <= 0 and the like.
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

    def exits_of(run) -> dict[float, Exit]:
        exits = {}
        for c in sorted(set(wanted)):
            W, b, steps, left = (
                None if part is None else part.view(net.members + part.shape[1:])
                for part in run[LazyBall(net.W, c).radius]
            )
            final = net.replace(W=W, b=b)
            epochs = steps / math.ceil(len(X) / batch_size)
            exits[float(c)] = Exit(final, steps, epochs, left, logistic_loss(final, X, y))
        return exits

    def show(run) -> bool:
        copies = {r: tuple(None if part is None else part.clone() for part in end) for r, end in run.items()}
        return bool(on_epoch(exits_of(copies)))

    shown = None if on_epoch is None else show
    return exits_of(trajectories(net.flat(), X, y, radii, lr, batch_size, max_epochs, seed, exit, progress, shown))


def trajectories(start, X, y, radii, lr, batch_size, max_epochs, seed, exit, progress, on_epoch=None):
    """``{radius: (W, b, steps, left)}`` of ``start``, which has one member axis; ``radii`` ascend. Nothing is checked.

    ``on_epoch`` gets the same after each epoch, to read and not to keep; a true answer ends training.
    """
    K, room = len(start.W), torch.empty_like if on_epoch is None else torch.clone
    ends = {
        r: (
            room(start.W),
            None if start.b is None else room(start.b),
            torch.zeros(K, dtype=torch.long),
            torch.zeros(K, dtype=torch.bool),
        )
        for r in radii
    }
    over = None if on_epoch is None else lambda: on_epoch(ends)
    for some in crews(start, batch_size):
        share = {r: tuple(None if part is None else part[some] for part in end) for r, end in ends.items()}
        if _train(start[some], share, X, y, lr, batch_size, max_epochs, seed + some.start, exit, progress, over):
            break
    return ends


def _train(start, ends, X, y, lr, batch_size, max_epochs, seed, exit, progress, over=None) -> bool:
    """Trains members side by side; what each radius returns of them goes into ``ends``. Returns whether ``over`` ended it."""
    K, n = len(start.W), len(X)
    per_epoch = math.ceil(n / batch_size)
    packing = Packing(start, X)
    inside = [list(ends) for _ in range(K)]  # the radii that member k has not left
    live = list(range(K))  # the members in training, in the stepper's order
    shuffles = [torch.Generator().manual_seed(SHUFFLES + seed + k) for k in range(K)]

    def shuffled() -> Tensor:
        """An epoch's minibatches ``(per_epoch, members in training, B)``; n, the row of zeros, fills up the last one."""
        orders = torch.stack([torch.randperm(n, generator=shuffles[k]) for k in live])
        return pad(orders, (0, -n % batch_size), value=n).view(len(live), per_epoch, batch_size).transpose(0, 1)

    def within(i: int, far: float, reach: float = 0.0) -> list[float]:
        """The radii that member i, at distance ``far`` when measured, is past or within ``reach`` of. NaN is past all."""
        return [r for r in inside[live[i]] if not r - far >= reach]

    def distance(i: int) -> float:
        return packing.distance(stepper.W[i], live[i])

    def keep(i: int, radii: list[float]) -> None:
        """Writes down member i's weights as what these radii return."""
        for r in radii:
            packing.unpack(stepper.W[i], live[i], *ends[r][:2])

    def leave(i: int, radii: list[float], steps: int) -> None:
        for r in radii:
            inside[live[i]].remove(r)
            ends[r][2][live[i]], ends[r][3][live[i]] = steps, True

    def stay(steps: int) -> None:
        """Writes down where the members in training are, for the radii that they have not left."""
        for i, k in enumerate(live):
            keep(i, inside[k])
            for r in inside[k]:
                ends[r][2][k] = steps

    def step_by_step(before: int) -> None:
        """An epoch in which each exit is found to the step; ``before`` is the number of steps before it."""
        while live:
            place, leash, bound = stepper.look()
            if place == per_epoch:
                return
            risky = []  # members that the next step may lead out of a ball
            for i in range(len(live)):
                if not leash[i] >= bound[i]:
                    far = distance(i)
                    leash[i] = inside[live[i]][0] - far
                    if not leash[i] >= bound[i]:
                        keep(i, within(i, far, bound[i]))
                        risky.append(i)
                        leash[i] = math.inf
            stepper.leash.copy_(torch.tensor(leash, dtype=torch.float64))
            ahead = 1 if risky else int(0.75 * min(map(operator.truediv, leash, bound)))
            stepper.steps(min(max(1, ahead), per_epoch - place))
            for i in risky:
                far = distance(i)
                leave(i, within(i, far), before + place)
                stepper.leash[i] = inside[live[i]][0] - far if inside[live[i]] else 0
            drop()

    def as_published(before: int) -> None:
        """An epoch with one measurement, at its end."""
        stepper.leash.fill_(math.inf)
        stepper.steps(per_epoch)
        for i in range(len(live)):
            passed = within(i, distance(i))
            keep(i, passed)
            leave(i, passed, before + per_epoch)
        drop()

    def drop() -> None:
        """Members that have left every ball are done."""
        for i in reversed(range(len(live))):
            if not inside[live[i]]:
                stepper.drop(i)
                live[i] = live[-1]
                live.pop()

    last = n - (per_epoch - 1) * batch_size
    rates = lr / torch.tensor([batch_size] * (per_epoch - 1) + [last], dtype=torch.float64)
    order = shuffled()
    following = shuffled() if exit == "step" else order
    stepper = Stepper(packing.pack(), start.a, packing.points, y, rates, order, following)
    bar = tqdm(range(max_epochs), f"SGD m={start.m} d={start.d}", leave=False, delay=5, disable=None if progress else True)  # fmt: skip
    for epoch in bar:
        (step_by_step if exit == "step" else as_published)(epoch * per_epoch)
        if over is not None:
            stay((epoch + 1) * per_epoch)
            if over():
                return True
        if not live:
            break
        stepper.next_epoch(shuffled() if exit == "step" else None)
    stay(max_epochs * per_epoch)
    return False
