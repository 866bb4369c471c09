r"""Attacks on the input: the exact smallest flip along the gradient, and projected gradient ascent."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from .checks import check_box, check_count, check_labels, check_points, check_positive
from .network import BLOCK_BYTES, TwoLayerNet, block_size


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
    zero without crossing it is no flip. Points are handled in blocks, so memory stays bounded. Raises ``ValueError``
    for points of the wrong shape, dtype or device.
    """
    x = check_points("x", x, net.d, net.members, net.W)
    members, n = net.members, x.shape[-2]
    fields = torch.empty(5, math.prod(members), n, dtype=torch.float64, device=x.device)
    rows = block_size(net.a.reshape(-1, net.m)[0])
    for k in range(math.prod(members)):
        one = TwoLayerNet(
            net.W.reshape(-1, net.m, net.d)[k],
            net.a.reshape(-1, net.m)[k],
            None if net.b is None else net.b.reshape(-1, net.m)[k],
        )
        points = x if x.ndim == 2 else x.reshape(-1, n, net.d)[k]
        for start in range(0, n, rows):
            block = slice(start, start + rows)
            fields[:, k, block] = _flip_block(one, points[block])
    eta, norm, value, grad_norm = (field.view(*members, n).to(x.dtype) for field in fields[:4])
    return Flip(eta, norm, fields[4].view(*members, n) > 0, value, grad_norm)


def _flip_block(net: TwoLayerNet, x: Tensor) -> Tensor:
    """``(eta, norm, value, grad_norm, found)`` of one network at a block of points, as a ``(5, n)`` float64 tensor."""
    u = x @ net.W.mT  # (n, m), points first: what follows runs along a point's neurons
    if net.b is not None:
        u += net.b
    active = (u > 0).to(u.dtype)
    grad = (active * net.a) @ net.W / math.sqrt(net.m)  # (n, d)
    a = net.a.double()
    # Value and slope are summed in float64 from the same u and v as the bends, so that a ray on which every
    # neuron goes silent ends at zero to 1e-12 of its terms, whatever the network's own dtype.
    noise_u = _noise(u)
    value = torch.where(u > 0, u, 0.0).double() @ a / math.sqrt(net.m)
    value = torch.where(value.abs() <= noise_u, 0.0, value)  # zero but for rounding has no sign
    v = (-value.sign().to(x.dtype).unsqueeze(-1) * grad) @ net.W.mT
    orient = value.sign()  # everything below is for h = sign(f) f, which falls from |f|
    slope = orient * ((active * v).double() @ a) / math.sqrt(net.m)
    slope_at_infinity = orient * (v.clamp(min=0).double() @ a) / math.sqrt(net.m)
    noise = torch.stack([noise_u, _noise(v)], dim=-1)

    eta = torch.full_like(value, math.nan)
    linear = value.abs() / -slope  # the root if no neuron switched
    pending = ((value != 0) & (slope < 0)).nonzero().squeeze(-1)
    for window in (2.0, 8.0, math.inf):  # few bends lie before the root: look near first
        if not len(pending):
            break
        reach = window * linear[pending]
        switched = _switched(u[pending], v[pending], reach)
        size = max(1, BLOCK_BYTES // (64 * (int(switched.sum(-1).max()) + 1)))
        for part in range(0, len(pending), size):
            some = pending[part : part + size]
            eta[some] = _first_root(
                u[some],
                v[some],
                switched[part : part + size],
                orient[some, None] * a / math.sqrt(net.m),
                value[some].abs(),
                slope[some],
                slope_at_infinity[some],
                reach[part : part + size],
                noise[some],
            )
        pending = pending[eta[pending].isnan()]
    grad_norm = torch.linalg.vector_norm(grad.double(), dim=-1)
    return torch.stack([eta, eta * grad_norm, value, grad_norm, (~eta.isnan()).double()])


def _noise(terms: Tensor) -> Tensor:
    """What rounding leaves of a zero that is the sum of ``a * terms / sqrt(m)``: in the terms, and in a sum in float64."""
    relative = max(1e-12, 4 * torch.finfo(terms.dtype).eps / math.sqrt(terms.shape[-1]))
    return relative * torch.linalg.vector_norm(terms, dim=-1).double()


def _switched(u: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    """Which neurons are active at one of eta = 0 and eta = reach and not at the other: ``(n, m)`` bool."""
    near = reach.isfinite().to(u.dtype).unsqueeze(-1)
    far = torch.addcmul(u * near, v, torch.where(reach.isfinite(), reach, 1.0).to(u.dtype).unsqueeze(-1))
    return (far > 0).logical_xor_(u > 0).logical_and_(v != 0)


def _first_root(u, v, switched, weight, value, slope, slope_at_infinity, reach, noise) -> Tensor:
    """The first crossing of zero with eta <= reach, NaN where there is none. ``weight`` is ``sign(f) a / sqrt m``."""
    n = len(u)
    row, neuron = switched.nonzero(as_tuple=True)
    count = switched.sum(-1)
    place = torch.arange(len(row), device=u.device) - (count.cumsum(0) - count)[row]
    rate = v[row, neuron].double()
    # One column more than the bends: the end of the window, which is a bend of weight 0.
    bend = torch.full((n, int(count.max()) + 1), math.inf, dtype=torch.float64, device=u.device)
    bend[row, place] = -u[row, neuron].double() / rate
    jump = torch.zeros_like(bend)
    jump[row, place] = weight[row, neuron] * rate.abs()  # off -> on adds the rate, on -> off takes a negative one away
    bend[torch.arange(n, device=u.device), count] = reach

    bend, order = bend.sort(dim=-1)
    jump = jump.gather(-1, order)
    finite = bend.isfinite()
    at = torch.where(finite, bend, 0.0)
    rise, lag = jump.cumsum(-1), (jump * at).cumsum(-1)
    h = value.unsqueeze(-1) + (slope.unsqueeze(-1) + rise) * at - lag
    tolerance = noise[:, :1] + at * noise[:, 1:]
    endless = (reach.isinf() & (slope_at_infinity < -noise[:, 1])).unsqueeze(
        -1
    )  # beyond the last bend f falls for ever
    below = torch.where(finite, h < -tolerance, endless)
    first = below.to(torch.uint8).argmax(-1, keepdim=True)
    # The segment that ends at the first bend below zero, from the sums before that bend.
    before = torch.gather(jump, -1, first)
    fall = -(slope.unsqueeze(-1) + torch.gather(rise, -1, first) - before)
    fall = torch.where(torch.gather(finite, -1, first), fall, -slope_at_infinity.unsqueeze(-1))
    root = (value.unsqueeze(-1) - (torch.gather(lag, -1, first) - before * torch.gather(at, -1, first))) / fall
    start = torch.where(first > 0, torch.gather(at, -1, (first - 1).clamp(min=0)), 0.0)
    root = torch.minimum(torch.maximum(root, start), torch.gather(bend, -1, first))
    return torch.where(below.any(-1), root.squeeze(-1), math.nan)


def pgd(
    net: TwoLayerNet,
    x: Tensor,
    y: Tensor,
    eps: float,
    steps: int = 100,
    step_size: float | None = None,
    box: tuple[float, float] | None = None,
) -> Tensor:
    r"""l2 projected gradient ascent on the logistic loss (the attack of Algorithm 1): delta ``(*members, n, d)``.

    Each step adds ``step_size`` (default 2.5 eps / steps) times the loss's normalised input gradient, clips x + delta to
    ``box`` if one is given, and pulls delta back into the ball ||delta|| <= eps. The loss increases exactly where y f
    decreases, so the direction is :math:`-y \nabla f/\|\nabla f\|`, at any margin; where the gradient is zero, delta stays.
    ``y`` is ``(n,)`` in {-1, +1}. Raises ``ValueError`` for wrong shapes, labels, eps <= 0 or a box that does not hold x.
    """
    x = check_points("x", x, net.d, net.members, net.W)
    y = check_labels("y", y, x.shape[-2], net.W)
    eps, steps = check_positive("eps", eps), check_count("steps", steps)
    alpha = 2.5 * eps / steps if step_size is None else check_positive("step_size", step_size)
    if box is not None:
        check_box(box, x)
    delta = torch.zeros(*net.members, *x.shape[-2:], dtype=x.dtype, device=x.device)
    tiny = torch.finfo(x.dtype).tiny
    for block in net.blocks(x):
        xb, db, away = x[..., block, :], delta[..., block, :], -y[block].unsqueeze(-1)
        for _ in range(steps):
            g = net.grad_at(net.preactivations(xb + db))
            db.add_(g / g.norm(dim=-1, keepdim=True).clamp(min=tiny) * (alpha * away))
            if box is not None:
                db.copy_((xb + db).clamp(*box) - xb)
            db.mul_(eps / db.norm(dim=-1, keepdim=True).clamp(min=eps))
    return delta
