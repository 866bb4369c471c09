r"""The strongest affordable attacks: several at once, the best of them for each point.

:func:`strongest_attack` looks for the smallest margin within a budget, :func:`minimal_perturbation` for the smallest budget.
A point counts as lost where :math:`y f \le 0`, as in the robust error. What they find is an upper bound of what a
perturbation needs; :mod:`~lazy_helpers.robustness` has the lower one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .attack import STARTS, ascend, in_unit_ball, pgd, smallest_flip
from .checks import check_budget, check_count, check_labels, check_points, check_seed
from .network import TwoLayerNet
from .tiles import in_tiles, pick

BEYOND = 1.02  # iterated linearisation aims that much past the zero, relative to the point's first margin
METHODS = ("one step", "iterated linearisation", "PGD")


@dataclasses.dataclass(frozen=True, eq=False)
class Attack:
    """The worst perturbation found within a budget."""

    delta: Tensor  # (*members, n, d)
    margin: Tensor  # y f(x + delta): (*members, n), 0 or less where the point is lost


@dataclasses.dataclass(frozen=True, eq=False)
class Minimal:
    """The smallest perturbation found that a point does not survive; NaN where none was found, 0 for a point lost already."""

    norm: Tensor  # ||delta||: (*members, n)
    delta: Tensor  # (*members, n, d)
    found: Tensor  # bool (*members, n)
    norms: Tensor  # the smallest by each of METHODS alone, ``(3, *members, n)``; PGD starts from what the others found


def strongest_attack(
    net: TwoLayerNet,
    x: Tensor,
    y: Tensor,
    eps: float | Sequence[float] | Tensor,
    steps: int = 100,
    restarts: int = 5,
    box: tuple[float, float] | None = None,
    seed: int = 0,
) -> Attack:
    r"""The smallest margin y f(x + delta) found with ||delta|| <= eps (a number, or one for each member), for each point by the best of three attacks.

    Projected gradient ascent with ``restarts`` and its best iterate, the exact smallest step along the gradient
    (:func:`~lazy_helpers.attack.smallest_flip`, where it is within the budget), and iterated linearisation: each
    step goes to the zero of the tangent plane, or as far towards it as the budget allows. ``x`` is ``(n, d)`` or ``(*members, n,
    d)``, ``y`` ``(n,)`` in {-1, +1}. Raises ``ValueError`` as :func:`~lazy_helpers.attack.pgd` does.
    """
    delta = pgd(net, x, y, eps, steps, box=box, restarts=restarts, best=True, seed=seed)  # checks its arguments
    y, flat = check_labels("y", y, x.shape[-2], net.W), net.flat()
    x = x.expand(*net.members, *x.shape[-2:]).reshape(len(flat.a), *x.shape[-2:])
    delta = delta.view_as(x)
    margin = y * flat(x + delta)
    budget = torch.as_tensor(check_budget(eps, net.members)).to(x).reshape(-1, 1).expand(margin.shape)
    step, reached = _one_step(flat, x, y)
    tried = torch.where((reached & (step.norm(dim=-1) <= budget)).unsqueeze(-1), step, 0.0)
    for other in (tried, _linearised(flat, x, y, budget, steps, box, smallest=False)):
        if box is not None:
            other = (x + other).clamp(*box) - x
        there = y * flat(x + other)
        delta = torch.where((there < margin).unsqueeze(-1), other, delta)
        margin = torch.minimum(margin, there)
    return Attack(delta.view(*net.members, *x.shape[1:]), margin.view(*net.members, -1))


def minimal_perturbation(
    net: TwoLayerNet,
    x: Tensor,
    y: Tensor,
    steps: int = 40,
    rounds: int = 8,
    restarts: int = 5,
    below: Tensor | None = None,
    seed: int = 0,
) -> Minimal:
    r"""The smallest perturbation found that makes y f(x + delta) <= 0, by three methods after one another.

    One exact step along the gradient; ``steps`` of iterated linearisation,
    :math:`\delta \leftarrow (\langle g, \delta\rangle - f)\, g/\|g\|^2` with f and its gradient g at x + delta, which rests
    where delta is normal to the zero set; and PGD with a budget a little above the smallest norm so far (where there is none yet,
    of a ball that holds the origin, from up to ``restarts`` starts), which is then bisected ``rounds`` times between that norm and ``below``
    (0, or a certified lower bound ``(*members, n)``). Each delta is shortened along its own direction. All members and
    points at once; ``x``, ``y`` as in :func:`strongest_attack`.
    """
    x = check_points("x", x, net.d, net.members, net.W)
    y = check_labels("y", y, x.shape[-2], net.W)
    check_count("steps", steps), check_count("rounds", rounds, at_least=0), check_count("restarts", restarts)
    draw = torch.Generator().manual_seed(STARTS + check_seed(seed))
    flat = net.flat()
    x = x.expand(*net.members, *x.shape[-2:]).reshape(len(flat.a), *x.shape[-2:])
    lost = y * flat(x) <= 0
    size = torch.where(lost, 0.0, math.inf)
    delta = torch.zeros_like(x)
    norms = []

    def keep(other: Tensor, norm: Tensor) -> None:
        nonlocal delta, size
        delta = torch.where((norm < size).unsqueeze(-1), other, delta)
        size = torch.minimum(size, norm)

    def known(norm: Tensor) -> Tensor:
        return torch.where(lost, 0.0, norm)

    step, reached = _one_step(flat, x, y)
    norm = torch.where(reached, step.norm(dim=-1), math.inf)
    keep(step, norm)
    norms.append(known(norm))
    anywhere = torch.full_like(size, math.inf)
    iterated, norm = _shortened(flat, x, y, _linearised(flat, x, y, anywhere, steps, None, smallest=True))
    keep(iterated, norm)
    norms.append(known(norm))

    best = torch.full_like(size, math.inf)

    def climb(eps: Tensor, start: Tensor | None = None) -> Tensor:
        """PGD within ``eps`` ``(K, n)``; the norm of what it finds."""
        nonlocal best
        tried, norm = _shortened(flat, x, y, ascend(flat, x, y, eps, 2.5 * eps / steps, steps, start=start, best=True))
        keep(tried, norm)
        best = torch.minimum(best, norm)
        return norm

    high = torch.where(size.isinf(), 2 * x.norm(dim=-1) + 1, 1.05 * size)
    none = size.isinf()
    climb(high.clamp(min=torch.finfo(x.dtype).tiny))
    for _ in range(restarts - 1):
        none = none & size.isinf()
        if not bool(none.any()):
            break
        wide = torch.where(none, high, torch.finfo(x.dtype).tiny)  # the others stay where they are
        climb(wide, wide.unsqueeze(-1) * in_unit_ball(x.shape[-2], net.d, draw).to(x))
    high = torch.minimum(high, size)
    low = torch.zeros_like(size) if below is None else below.reshape(size.shape).to(size)
    low = torch.minimum(low, high)
    for _ in range(rounds):
        middle = (low + high) / 2
        norm = climb(middle.clamp(min=torch.finfo(x.dtype).tiny))
        low, high = torch.where(norm.isinf(), middle, low), torch.minimum(high, norm)
        low = torch.minimum(low, high)
    norms.append(known(best))
    found = size.isfinite()
    shape = (*net.members, x.shape[-2])
    every = torch.stack(norms)
    return Minimal(
        torch.where(found, size, math.nan).view(shape),
        torch.where(found.unsqueeze(-1), delta, math.nan).view(*shape, net.d),
        found.view(shape),
        torch.where(every.isinf(), math.nan, every).view(len(METHODS), *shape),
    )


def value_and_gradient(net: TwoLayerNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """f ``(K, n)`` and its gradient ``(K, n, d)``; without biases f is the gradient times the point."""
    g = net.grad(x)
    return ((g * x).sum(-1) if net.b is None else net(x)), g


def _one_step(net: TwoLayerNet, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The exact smallest step along the gradient, a hair longer, and where it changes a right answer."""
    flip = smallest_flip(net, x)
    f, g = value_and_gradient(net, x)
    step = -(f.sign() * flip.eta.nan_to_num(0.0) * _hair(x)).unsqueeze(-1) * g
    return step, flip.found & (y * f > 0) & (y * net(x + step) <= 0)


def _hair(x: Tensor) -> float:
    """A step past a zero that rounding does not undo."""
    return 1 + 100 * torch.finfo(x.dtype).eps


def _linearised(net, x, y, eps, steps, box, smallest):
    """Iterated linearisation within ``eps`` ``(K, n)``: its iterate of least margin, or the shortest one with y f <= 0."""
    delta, kept = torch.zeros_like(x), torch.zeros_like(x)
    score = torch.full_like(eps, math.inf)
    tiny = torch.finfo(x.dtype).tiny
    first = None
    for i in range(steps + 1):
        f, g = value_and_gradient(net, x + delta)
        f *= y
        first = f.abs() if first is None else first
        now = torch.where(f <= 0, delta.norm(dim=-1), math.inf) if smallest else f
        kept = torch.where((now < score).unsqueeze(-1), delta, kept)
        score = torch.minimum(score, now)
        if i == steps:
            return kept
        g *= y.unsqueeze(-1)
        # The point nearest to x where the tangent plane is that much below zero.
        depth = f + (BEYOND - 1) * first - (g * delta).sum(-1)
        target = -(depth.clamp(min=0) / g.square().sum(-1).clamp(min=tiny)).unsqueeze(-1) * g
        # The first step is the whole of it; then half of it, since f bends on the way.
        delta = target if i == 0 else torch.lerp(delta, target, 0.5)
        if box is not None:
            delta = (x + delta).clamp(*box) - x
        length = delta.norm(dim=-1)
        delta = delta * torch.where(length > eps, eps / length.clamp(min=tiny), 1.0).unsqueeze(-1)
        delta = torch.where(delta.isfinite().all(-1, keepdim=True), delta, 0.0)


def _shortened(net: TwoLayerNet, x: Tensor, y: Tensor, delta: Tensor, halvings: int = 22) -> tuple[Tensor, Tensor]:
    """delta as short as y f <= 0 allows along its direction, by bisection, and its norm: infinite where it does not flip."""
    end = torch.ones_like(x[..., 0])

    def work(members: slice, points: slice) -> None:
        part = net[members]
        start, move = pick(x, members, points), pick(delta, members, points)
        u, v = part.preactivations(start), part.W @ move.mT  # (k, m, n)
        low, high = torch.zeros_like(end[members, points]), end[members, points]
        for _ in range(halvings):
            middle = (low + high) / 2
            below = y[points] * part.value_at(torch.addcmul(u, v, middle.unsqueeze(-2))) <= 0
            low, high = torch.where(below, low, middle), torch.where(below, middle, high)
        end[members, points] = high

    in_tiles(work, net.a, x.shape[-2])
    short = delta * (end * _hair(x)).clamp(max=1).unsqueeze(-1)
    short = torch.where((y * net(x + short) <= 0).unsqueeze(-1), short, delta)  # where rounding undid it
    norm = short.norm(dim=-1)
    return short, torch.where(y * net(x + short) <= 0, norm, math.inf)
