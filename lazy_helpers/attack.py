r"""Attacks on the input: the exact smallest flip along the gradient, and projected gradient ascent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import (
    check_box,
    check_budget,
    check_count,
    check_flag,
    check_labels,
    check_points,
    check_positive,
    check_seed,
)
from .network import TwoLayerNet
from .tiles import TILE_BYTES, in_tiles, pick

STARTS = 4_000_037  # offset of the random starts' seeds, so that they share no stream with a network's weights


@dataclasses.dataclass(frozen=True, eq=False)
class Flip:
    r"""The smallest step along the gradient that makes the sign of f the opposite one; each field is ``(*members, n)``.

    The perturbation is :math:`\delta = -\mathrm{sign} f(x)\,|\eta|\,\nabla f(x)`. Where ``found`` is false, no step
    of any size does it, and ``eta`` and ``norm`` are NaN.
    """

    eta: Tensor  # |eta|, the step's absolute value
    norm: Tensor  # ||delta|| = eta ||grad f||
    found: Tensor  # bool
    value: Tensor  # f(x)
    grad_norm: Tensor  # ||grad f(x)||


def smallest_flip(net: TwoLayerNet, x: Tensor) -> Flip:
    r"""The exact smallest :math:`\eta > 0` at which :math:`f(x - \mathrm{sign} f(x)\, \eta \nabla f(x))` changes sign (Theorem 3.1).

    ``x`` is ``(n, d)`` or ``(*members, n, d)``. Along the ray f is piecewise linear, and it bends where a neuron
    switches, at :math:`\eta_s = -u_s/v_s` with u the pre-activations and v their rates of change. The bends are sorted,
    prefix sums (float64) give f at each, and the first bend below zero ends the segment that holds the root. Reaching
    zero without crossing it is no flip. Points are handled some at a time, so memory stays bounded. Raises ``ValueError``
    for points of the wrong shape, dtype or device.
    """
    x = check_points("x", x, net.d, net.members, net.W)
    flat, n = net.flat(), x.shape[-2]
    fields = torch.empty(5, len(flat.a), n, dtype=torch.float64, device=x.device)

    room = x.new_empty(0, dtype=torch.uint8)

    def work(members: slice, points: slice) -> None:
        # A tile's large tensors in one piece, kept from tile to tile: new memory costs as much as what is done in it.
        nonlocal room
        size = points.stop - points.start
        cut = 8 * size * net.m
        if len(room) < cut * (1 + x.element_size() // 2):
            room = room.new_empty(cut * (1 + x.element_size() // 2))
        wide = room[:cut].view(torch.float64).view(size, net.m)
        rest = room[cut : cut * (1 + x.element_size() // 2)].view(x.dtype).view(4, size, net.m)
        for k in range(members.start, members.stop):
            tile = pick(x, slice(k, k + 1), points).view(-1, net.d)
            fields[:, k, points] = _flip_tile(flat[k], tile, wide, *rest)

    in_tiles(work, flat.a, n)
    eta, norm, value, grad_norm = (field.view(*net.members, n).to(x.dtype) for field in fields[:4])
    return Flip(eta, norm, fields[4].view(*net.members, n) > 0, value, grad_norm)


def _flip_tile(net: TwoLayerNet, x: Tensor, wide: Tensor, u: Tensor, v: Tensor, on: Tensor, other: Tensor) -> Tensor:
    """``(eta, norm, value, grad_norm, found)`` of one network at some points, as a ``(5, n)`` float64 tensor.

    What comes after x is room to work in, ``(n, m)``: points first, since most runs along a point's neurons.
    """
    torch.mm(x, net.W.mT, out=u)
    if net.b is not None:
        u += net.b
    # Value and slope are summed in float64 from the same u and v as the bends, so that a ray on which every neuron
    # goes silent ends at zero to 1e-12 of its terms, whatever the network's own dtype.
    noise_u = _noise(u)
    value = wide.copy_(torch.clamp(u, min=0, out=other)) @ net.a.double() / math.sqrt(net.m)
    value = torch.where(value.abs() <= noise_u, 0.0, value)  # zero but for rounding has no sign
    orient = value.sign()  # everything below is for h = sign(f) f, which falls from |f|
    torch.gt(u, 0, out=on)  # as numbers: on a CPU four times as fast as as truth values
    grad = torch.mul(on, net.a, out=other) @ net.W / math.sqrt(net.m)  # (n, d)
    torch.mm(-orient.to(x.dtype).unsqueeze(-1) * grad, net.W.mT, out=v)
    slope = orient * wide.copy_(other.mul_(v)).sum(-1) / math.sqrt(net.m)
    noise = torch.stack([noise_u, _noise(v)], dim=-1)

    linear = value.abs() / -slope  # the root if no neuron switched
    rays = _Rays(u, v, on, other, value.abs(), slope, linear, noise, orient)
    eta = torch.full_like(value, math.nan)
    able = (value != 0) & (slope < 0)
    for window in (1.25, 4.0, math.inf):  # few bends lie before the root: look near first
        pending = (able & eta.isnan()).nonzero().squeeze(-1)
        if not len(pending):
            break
        ahead = rays._replace(reach=linear * window)
        eta[pending] = _first_roots(ahead if len(pending) == len(x) else ahead.of(pending), net.a)
    grad_norm = torch.linalg.vector_norm(grad.double(), dim=-1)
    return torch.stack([eta, eta * grad_norm, value, grad_norm, (~eta.isnan()).double()])


class _Rays(NamedTuple):
    """h = sign(f) f along n rays, as far as ``reach``; the first four are ``(n, m)``, the others ``(n,)`` but noise ``(n, 2)``."""

    u: Tensor  # pre-activations at eta = 0
    v: Tensor  # their rates of change
    on: Tensor  # 1 where u > 0, else 0
    far: Tensor  # room for what they are at the far end
    value: Tensor  # h = |f| at eta = 0
    slope: Tensor  # dh/d eta at eta = 0
    reach: Tensor
    noise: Tensor  # what rounding leaves of a zero, at eta = 0 and for each unit of eta
    orient: Tensor  # sign(f)

    def of(self, rows: Tensor | slice) -> _Rays:
        return _Rays(*(part[rows] for part in self))


def _noise(terms: Tensor) -> Tensor:
    """What rounding leaves of a zero that is the sum of ``a * terms / sqrt(m)``: in the terms, and in a sum in float64."""
    relative = max(1e-12, 4 * torch.finfo(terms.dtype).eps / math.sqrt(terms.shape[-1]))
    return relative * torch.linalg.vector_norm(terms, dim=-1).double()


def _first_roots(rays: _Rays, a: Tensor) -> Tensor:
    """The first crossing of zero with eta <= reach on each ray, NaN where there is none; some rays at a time."""
    endless = bool(rays.reach.isinf().all())
    if endless:
        far = torch.where(rays.v != 0, rays.v, rays.u)
    else:
        far = torch.addcmul(rays.u, rays.v, rays.reach.to(rays.u.dtype).unsqueeze(-1), out=rays.far)
    switched = far.gt_(0).sub_(rays.on)  # off -> on is 1, on -> off is -1
    count = torch.linalg.vector_norm(switched, ord=1, dim=-1).long()
    size = max(1, TILE_BYTES // (64 * (int(count.max()) + 1)))
    blocks = (slice(first, first + size) for first in range(0, len(count), size))
    return torch.cat([_first_root(rays.of(block), switched[block], count[block], endless, a) for block in blocks])


def _first_root(rays: _Rays, switched: Tensor, count: Tensor, endless: bool, a: Tensor) -> Tensor:
    """As :func:`_first_roots`; ``switched`` marks the neurons that switch on the way, ``count`` of them on each ray."""
    n, m = switched.shape
    at = switched.flatten().nonzero().squeeze(-1)
    row = torch.arange(n, device=at.device).repeat_interleave(count)
    rate = rays.v.flatten()[at].double()
    bends = -rays.u.flatten()[at].double() / rate
    # off -> on adds the rate, on -> off takes a negative one away
    jumps = rays.orient[row] * a.double()[at - row * m] * rate.abs() / math.sqrt(m)
    end = rays.reach
    if endless:
        end = torch.zeros_like(end).scatter_reduce_(0, row, bends, "amax")
    # A row for each ray, filled up with bends of weight 0 at its end; one column more than the bends, so that each has one.
    width = int(count.max()) + 1
    first = torch.arange(n, device=at.device) * width - (count.cumsum(0) - count)
    place = torch.arange(len(at), device=at.device) + first[row]
    bend = end.unsqueeze(-1).repeat(1, width)
    jump = torch.zeros_like(bend)
    bend.view(-1)[place] = bends
    jump.view(-1)[place] = jumps

    bend, order = bend.sort(dim=-1)
    jump = jump.gather(-1, order)
    rise, lag = jump.cumsum(-1), (jump * bend).cumsum(-1)
    h = torch.addcmul(rays.value.unsqueeze(-1) - lag, rays.slope.unsqueeze(-1) + rise, bend)
    below = (h + rays.noise[:, :1]).addcmul_(bend, rays.noise[:, 1:]) < 0
    found, index = below.any(-1), below.to(torch.uint8).argmax(-1, keepdim=True)
    # The segment that ends at the first bend below zero, from the sums before that bend.
    there, before = bend.gather(-1, index).squeeze(-1), jump.gather(-1, index).squeeze(-1)
    fall = -(rays.slope + rise.gather(-1, index).squeeze(-1) - before)
    root = (rays.value - lag.gather(-1, index).squeeze(-1) + before * there) / fall
    start = torch.where(index > 0, bend.gather(-1, (index - 1).clamp(min=0)), 0.0).squeeze(-1)
    root = torch.minimum(torch.maximum(root, start), there)
    if endless:  # beyond the last bend h may fall for ever
        fall = -(rays.slope + rise[:, -1])
        beyond = ~found & (fall > rays.noise[:, 1])
        root = torch.where(beyond, torch.maximum((rays.value - lag[:, -1]) / fall, end), root)
        found |= beyond
    return torch.where(found, root, math.nan)


def pgd(
    net: TwoLayerNet,
    x: Tensor,
    y: Tensor,
    eps: float | Sequence[float] | Tensor,
    steps: int = 100,
    step_size: float | None = None,
    box: tuple[float, float] | None = None,
    restarts: int = 1,
    best: bool = False,
    seed: int = 0,
) -> Tensor:
    r"""l2 projected gradient ascent on the logistic loss (the attack of Algorithm 1): delta ``(*members, n, d)``.

    Each step adds ``step_size`` (default 2.5 eps / steps) times the loss's normalised input gradient, clips x + delta to
    ``box`` if one is given, and pulls delta back into the ball ||delta|| <= eps (one eps, or one for each member). The loss increases exactly where y f
    decreases, so the direction is :math:`-y \nabla f/\|\nabla f\|`, at any margin; where the gradient is zero, delta stays.
    With ``restarts`` the ascent runs that many times, first from 0, then from points drawn uniformly from the ball (``seed``;
    the members share them), and each point keeps the delta with the smallest margin y f. ``best`` keeps the best of all
    iterates instead of the last. ``y`` is ``(n,)`` in {-1, +1}. Raises ``ValueError`` for wrong shapes, labels, eps <= 0 or a
    box that does not hold x.
    """
    x = check_points("x", x, net.d, net.members, net.W)
    y = check_labels("y", y, x.shape[-2], net.W)
    check_count("steps", steps), check_count("restarts", restarts), check_flag("best", best)
    radius, seed = check_budget(eps, net.members), check_seed(seed)
    alpha = 2.5 * radius / steps if step_size is None else check_positive("step_size", step_size)
    if box is not None:
        check_box(box, x)
    flat, n = net.flat(), x.shape[-2]
    K = len(flat.a)
    if isinstance(radius, Tensor):
        radius, alpha = (
            part.to(x).unsqueeze(-1).expand(K, n) if isinstance(part, Tensor) else part for part in (radius, alpha)
        )
    delta = ascend(flat, x, y, radius, alpha, steps, box, best=best)
    if restarts > 1:
        draw = torch.Generator().manual_seed(STARTS + seed)
        x = x if x.ndim == 2 else x.reshape(delta.shape)
        low = y * flat(x + delta)
        for _ in range(restarts - 1):
            start = in_unit_ball(n, net.d, draw).to(x) * (
                radius.unsqueeze(-1) if isinstance(radius, Tensor) else radius
            )
            if box is not None:
                start = (x + start).clamp(*box) - x
            other = ascend(flat, x, y, radius, alpha, steps, box, start, best)
            margin = y * flat(x + other)
            better = margin < low
            low = torch.where(better, margin, low)
            delta = torch.where(better.unsqueeze(-1), other, delta)
    return delta.view(*net.members, n, net.d)


def ascend(
    net: TwoLayerNet,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    box: tuple[float, float] | None = None,
    start: Tensor | None = None,
    best: bool = False,
) -> Tensor:
    """:func:`pgd` from one start, unchecked: ``net`` has one member axis, delta is ``(K, n, d)``.

    ``eps`` and ``alpha``, the step, may be ``(K, n)``, one for each point. ``start`` is a delta in the ball and the box, of the
    shape of x or of the result.
    """
    n = x.shape[-2]
    delta = x.new_empty(len(net.a), n, net.d)
    tiny = torch.finfo(x.dtype).tiny

    def work(members: slice, points: slice) -> None:
        W, a, b = net.W[members], net.a[members], None if net.b is None else net.b[members]
        origin = pick(x, members, points)
        radius = eps[members, points, None] if isinstance(eps, Tensor) else eps
        step = alpha[members, points, None] if isinstance(alpha, Tensor) else alpha
        towards = -step * y[points].unsqueeze(-1)  # the loss increases where y f decreases
        d = delta[members, points]
        d.zero_() if start is None else d.copy_(pick(start, members, points))
        moved = origin + d
        low = kept = None
        for i in range(steps + best):  # the last iterate is judged as well
            z = moved @ W.mT if b is None else torch.add(moved @ W.mT, b.unsqueeze(-2))
            gates = z.gt_(0).mul_(a.unsqueeze(-2))
            g = gates @ W
            if best:
                # sqrt(m) f, since f is its gradient times the point, and the gates times the biases.
                f = (g * moved).sum(-1) if b is None else (g * moved).sum(-1) + (gates @ b.unsqueeze(-1)).squeeze(-1)
                f *= y[points]
                better = torch.ones_like(f, dtype=torch.bool) if low is None else f < low
                low = torch.where(better, f, f if low is None else low)
                kept = torch.where(better.unsqueeze(-1), d, d if kept is None else kept)
                if i == steps:
                    d.copy_(kept)
                    break
            d.addcmul_(g.div_(g.norm(dim=-1, keepdim=True).clamp(min=tiny)), towards)
            if box is not None:
                torch.sub((origin + d).clamp_(*box), origin, out=d)
            d.mul_(radius / d.norm(dim=-1, keepdim=True).clamp(min=radius))
            torch.add(origin, d, out=moved)

    in_tiles(work, net.a, n)
    return delta


def in_unit_ball(n: int, d: int, draw: torch.Generator) -> Tensor:
    """Points uniform in the unit ball ``(n, d)``."""
    direction = torch.nn.functional.normalize(torch.randn(n, d, generator=draw), dim=-1)
    return direction * torch.rand(n, 1, generator=draw) ** (1 / d)
