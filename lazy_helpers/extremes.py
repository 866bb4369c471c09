r"""Worst cases over the lazy ball: which input gradients its networks can have at a point (our derivation).

With :math:`\|x\| = 1` and any y, :math:`\langle y, \nabla f(x; W)\rangle = \frac{1}{\sqrt m}\sum_s a_s \mathbf 1[w_s^\top x > 0]
\langle y, w_s\rangle` is a sum in which each neuron moves alone, so its maximum over the ball is a closed form. It says
how far the set of all gradients reaches in the direction y, and gradients together with f itself, since
:math:`f = \langle x, \nabla f\rangle`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_bare, check_count, check_points, check_unit
from .lazy import LazyBall
from .network import TwoLayerNet


def safe_radius(net: TwoLayerNet, C0: float) -> float:
    r"""V, widened by what rounding can do to a pre-activation, so that a bound of the computed numbers is one of the exact ones."""
    eps = 8 * torch.finfo(net.W.dtype).eps
    return LazyBall(net.W, C0).radius * (1 + eps) + eps * float(net.W.norm(dim=-1).max())


class Response(NamedTuple):
    """For each neuron (m) and point (n) the best move inside the ball, ``along * x + across * y``: ``(m, n)`` each."""

    on: Tensor  # 1 where the neuron is then active, else 0
    along: Tensor
    across: Tensor
    gain: Tensor  # what it then adds to sqrt(m) <y, grad f>


class Highest(NamedTuple):
    """The maximum of <z, g> - eta ||g||^2 over the gradients g of the ball, bracketed; ``(*members, n)``."""

    upper: Tensor  # certified: no W of the ball does better
    found: Tensor  # what one W of the ball (or a limit of such) does
    direction: Tensor  # (*members, n, d): that W goes farthest in this direction, see :func:`farthest`


def highest(net: TwoLayerNet, x: Tensor, C0: float, z: Tensor, eta: Tensor, iterations: int = 60) -> Highest:
    r"""The maximum of :math:`\langle z, g\rangle - \eta\|g\|^2` over :math:`g = \nabla f(x; W)`, W in the ball, bracketed (our derivation).

    ``net`` is the initial network, ``x`` unit vectors ``(n, d)``, ``z`` ``(n, d)``, ``eta`` ``(n,)`` positive. With z = 0 it is the smallest
    gradient norm, with z = x the first-order change of f along its gradient, since :math:`f = \langle x, g\rangle`. Frank and Wolfe's
    algorithm on the convex hull of the gradients: each step goes towards the farthest gradient in the direction :math:`y = z -
    2\eta g` of the steepest rise, and certifies :math:`\eta\|g\|^2 + \max\langle y, \cdot\rangle`, as :math:`\|g'\|^2 \ge 2\langle g, g'\rangle - \|g\|^2`.
    As a sum of many small sets, the gradients nearly fill their hull. Bounds hold up to the rounding of sums in the network's dtype.
    """
    check_bare(net)
    x = check_unit("x", check_points("x", x, net.d, (), net.W))
    z = check_points("z", z, net.d, (), net.W)
    check_count("iterations", iterations)
    if not bool((eta > 0).all()):
        raise ValueError("eta must hold positive steps: their sign is the opposite of f's.")
    flat, V = net.flat(), safe_radius(net, C0)
    rows = [_highest(flat[k], x, V, z, eta.to(x), iterations) for k in range(len(flat.a))]
    upper, found, direction = (torch.stack(part) for part in zip(*rows, strict=True))
    shape = (*net.members, len(x))
    return Highest(upper.view(shape), found.view(shape), direction.view(*shape, net.d))


def _highest(net: TwoLayerNet, x: Tensor, V: float, z: Tensor, eta: Tensor, iterations: int):
    u = net.preactivations(x)  # (m, n)
    g = net.gates(u.clone()).mT @ net.W / math.sqrt(net.m)
    upper = x.new_full((len(x),), math.inf, dtype=torch.float64)
    found, direction = -upper, torch.zeros_like(x)

    def dot(one: Tensor, other: Tensor) -> Tensor:
        return (one.double() * other.double()).sum(-1)

    for _ in range(iterations):
        y = z - 2 * eta.unsqueeze(-1) * g
        most, s = _farthest(net, u, x, y, V)
        upper = torch.minimum(upper, eta * dot(g, g) + most)
        value = dot(z, s) - eta * dot(s, s)
        direction = torch.where((value > found).unsqueeze(-1), y, direction)
        found = torch.maximum(found, value)
        move = s - g
        step = (dot(y, move) / (2 * eta * dot(move, move)).clamp(min=1e-300)).clamp(0, 1)
        g = g + step.to(g).unsqueeze(-1) * move
    return upper, found, direction


def _farthest(net: TwoLayerNet, u: Tensor, x: Tensor, y: Tensor, V: float) -> tuple[Tensor, Tensor]:
    """The maximum of <y, grad f(x; W)> over the ball, ``(n,)`` in float64, and the gradient that attains it, ``(n, d)``."""
    best = respond(u, net.W @ y.mT, net.a.unsqueeze(-1), V, (x * y).sum(-1), y.square().sum(-1))
    c = best.on * net.a.unsqueeze(-1)
    moved = (c * best.along).sum(0).unsqueeze(-1) * x + (c * best.across).sum(0).unsqueeze(-1) * y
    return best.gain.double().sum(0) / math.sqrt(net.m), (c.mT @ net.W + moved) / math.sqrt(net.m)


def respond(u: Tensor, p: Tensor, a: Tensor, V: float, yx: Tensor, yy: Tensor) -> Response:
    r"""Each neuron's move to the maximum of :math:`a\,\mathbf 1[w^\top x > 0]\,\langle y, w\rangle` over :math:`\|w - w_0\| \le V`.

    ``u`` and ``p`` ``(m, n)`` are :math:`w_0^\top x` and :math:`w_0^\top y`, ``a`` is ``(m, 1)``, ``yx`` and ``yy`` ``(n,)`` are
    :math:`\langle y, x\rangle` and :math:`\|y\|^2`, and :math:`\|x\| = 1`. An active neuron goes along a y as far as it stays active, and
    then along the plane :math:`w^\top x = 0`; where even that is a loss, it falls silent if it can.
    """
    length = yy.sqrt()
    noise = 8 * torch.finfo(u.dtype).eps * yy  # of the difference of squares: the gain is no smaller than the true one
    side = ((yy - yx.square()).clamp(min=0) + noise).sqrt()  # the part of y across x
    plane = side > 1e-3 * length  # below, rounding alone would say where across x is

    def per(amount: Tensor | float, size: Tensor, there: Tensor) -> Tensor:
        return torch.where(there, amount / torch.where(there, size, 1.0), 0.0)

    free = u + a * V * per(yx, length, length > 0) >= 0  # the ball's far end in the direction a y is active
    half = (V * V - u.square()).clamp(min=0).sqrt()  # how far the ball reaches along the plane
    gain = torch.where(free, a * p + V * length, a * (p - u * yx) + half * side)
    on = (u > -V) & ((gain > 0) | (u > V))
    slide = a * per(half, side, plane)
    across = torch.where(free, a * per(V, length, length > 0), slide)
    along = torch.where(free, 0.0, -u - slide * yx)
    leave = torch.where(u > 0, -u, 0.0)  # to the plane, no farther
    return Response(on.to(u), torch.where(on, along, leave), torch.where(on, across, 0.0), torch.where(on, gain, 0.0))


def farthest(net: TwoLayerNet, x: Tensor, C0: float, y: Tensor) -> TwoLayerNet:
    r"""The network of the ball with the largest :math:`\langle y, \nabla f(x; W)\rangle`, at one unit point (our derivation).

    ``x`` and ``y`` are ``(d,)``; y = x gives the largest f, y = :math:`-\nabla f(x; W_0)` nearly the smallest gradient norm. Where
    the supremum is a limit, at weights on the plane :math:`w^\top x = 0`, neurons stop a hair before it.
    """
    check_bare(net)
    x = check_unit("x", check_points("x", x.reshape(1, -1), net.d, (), net.W))
    y = check_points("y", y.reshape(1, -1), net.d, (), net.W)
    ball = LazyBall(net.W, C0)
    u, p, a, V = net.W @ x[0], net.W @ y[0], net.a, ball.radius
    best = respond(*(part.reshape(-1, 1) for part in (u, p, a)), V, (x * y).sum(-1), y.square().sum(-1))
    on, along, across, _ = (part.view(u.shape) for part in best)
    hair = 1e-4 * V
    W = net.W + (1 - 1e-4) * (along.unsqueeze(-1) * x + across.unsqueeze(-1) * y)
    z = W @ x[0]
    wanted = torch.where(on > 0, z.clamp(min=hair / 4), z.clamp(max=-hair / 4))
    near = (u.abs() <= V) & (z != wanted)  # those that had to cross the plane, or come close to it
    W = torch.where(near.unsqueeze(-1), W + (wanted - z).unsqueeze(-1) * x, W)
    return net.replace(W=ball.project(W))


def shortest(net: TwoLayerNet, x: Tensor, C0: float, across: bool = False) -> TwoLayerNet:
    r"""A search for the network of the ball with the shortest gradient at one unit point ``(d,)``, or part of it across x.

    Gates of :math:`S_1` (Lemma 4.3) are turned one at a time, the best first, while the gradient shrinks; then all neurons that are
    active whatever they do move against what is left of it, as far as is needed.
    """
    check_bare(net)
    x = check_unit("x", check_points("x", x.reshape(1, -1), net.d, (), net.W))[0]
    V = LazyBall(net.W, C0).radius
    hair = 1e-3 * V
    u = net.W @ x
    on, loose = u > 0, (u.abs() < V - hair).nonzero().squeeze(-1)
    rows = net.a.unsqueeze(-1) * (net.W - u.unsqueeze(-1) * x)  # across x
    full = rows if across else net.a.unsqueeze(-1) * net.W
    g = on.to(u) @ full
    # What turning a gate adds: on -> off takes the neuron's part away, off -> on adds a weight that lies on the plane.
    turns = torch.where(on[loose].unsqueeze(-1), -full[loose], rows[loose])
    length = turns.square().sum(-1)
    turned = torch.zeros_like(loose, dtype=torch.bool)
    for _ in range(2 * len(loose)):
        change = torch.where(turned, -1.0, 1.0) * (2 * (turns @ g)) + length
        best = int(change.argmin())
        if not float(change[best]) < 0:
            break
        g = g + (-turns[best] if turned[best] else turns[best])
        turned[best] = ~turned[best]
    moved = loose[turned]
    W = net.W.clone()
    W[moved] -= (u[moved] + torch.where(on[moved], hair, -hair)).unsqueeze(-1) * x
    sure = u > V
    if len(loose) + int(sure.sum()):
        now = net.replace(W=W).grad(x[None])[0] * math.sqrt(net.m)
        left = now - (now @ x) * x if across else now
        need = min(V, float(left.norm()) / max(1, int(sure.sum())))
        W = torch.where(
            sure.unsqueeze(-1), W - need * net.a.unsqueeze(-1) * torch.nn.functional.normalize(left, dim=0), W
        )
    return net.replace(W=W)


def largest_gradient_change(net: TwoLayerNet, x: Tensor, C0: float) -> Tensor:
    r"""An upper bound of :math:`\|\nabla f(x; W) - \nabla f(x; W_0)\|` over the ball, certified for the draw (our derivation).

    ``(*members, n)``. The gates that can change are those of :math:`S_1` (Lemma 4.3), each in one direction; with :math:`\kappa_s =
    \pm a_s` they add at most :math:`\tfrac12\|\sum_{S_1}\kappa_s w_{s,0}\| + \tfrac12\sqrt{|S_1|}\,\sigma_{\max}(W_{0,S_1})`, over
    :math:`\sqrt m`; the moves of the neurons that can be active add at most V each, over :math:`\sqrt m`.
    """
    check_bare(net)
    x = check_unit("x", check_points("x", x, net.d, (), net.W))
    V = safe_radius(net, C0)
    flat, out = net.flat(), []
    for k in range(len(flat.a)):
        one = flat[k]
        u = one.preactivations(x)
        for i in range(len(x)):
            free = u[:, i].abs() <= V
            rows = one.W[free].double()
            kappa = torch.where(u[free, i] > 0, -one.a[free], one.a[free]).double()
            turned = (kappa @ rows).norm() + math.sqrt(len(rows)) * largest_singular_value(rows)
            out.append((turned / 2 + V * int((u[:, i] > -V).sum())) / math.sqrt(one.m))
    return torch.stack(out).view(*net.members, len(x))


def largest_singular_value(W: Tensor) -> Tensor:
    """sigma_max of one matrix, from its smaller Gram matrix in float64."""
    W = W.double()
    if min(W.shape) == 0:
        return W.new_zeros(())
    gram = W @ W.mT if W.shape[0] <= W.shape[1] else W.mT @ W
    return torch.linalg.eigvalsh(gram)[-1].clamp(min=0).sqrt()
