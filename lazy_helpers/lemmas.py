r"""Lemmas 4.1 to 4.4 and B.6 of the first paper: every quantity as it is, beside its bound.

In what follows ``net`` is the initial network, with weights :math:`W_0`, ``C0`` gives the ball :math:`\|w_s - w_{s,0}\| \le V =
C_0/\sqrt m`, and ``x`` is ``(n, d)``. Quantities are ``(*members, n)``; bounds take numbers and give a number.
A bound with ``gamma`` holds with probability 1 - gamma over the draw of the network.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_bare, check_count, check_gamma, check_points, check_positive, check_reach, check_unit
from .extremes import farthest, highest, largest_singular_value, safe_radius, shortest
from .lazy import LazyBall
from .network import TwoLayerNet

# Lemma 4.1: the value


class Range(NamedTuple):
    """f(x; W0), and the least and the largest f(x; W) over the ball."""

    f: Tensor
    low: Tensor
    high: Tensor


def value_range(net: TwoLayerNet, x: Tensor, C0: float) -> Range:
    r"""What f(x; W) can be over the ball, exactly (our derivation; Lemma 4.1 bounds it).

    Neurons move alone: :math:`w_s^\top x` takes every value within :math:`V\|x\|` of its initial one, so f is largest at
    :math:`w_{s,0} + V a_s x/\|x\|`. Its mean rise at :math:`\|x\| = 1` is :math:`C_0/2` exactly, half of what the lemma allows.
    """
    check_bare(net)
    x = check_points("x", x, net.d, net.members, net.W)
    V = LazyBall(net.W, C0).radius
    z = net.preactivations(x)
    reach = V * x.norm(dim=-1).unsqueeze(-2)
    plus, minus = z.add(reach).relu_(), z.sub(reach).relu_()
    a = net.a.unsqueeze(-1)
    high = torch.where(a > 0, plus, -minus).double().sum(-2) / math.sqrt(net.m)
    low = torch.where(a > 0, minus, -plus).double().sum(-2) / math.sqrt(net.m)
    return Range(net.value_at(z), low.to(z), high.to(z))


def value_bound(m: int, C0: float, gamma: float) -> float:
    r"""Lemma 4.1: :math:`|f(x; W)| \le C_0 + \sqrt{\log(2/\gamma)} + \log(2/\gamma)/\sqrt m` for all W of the ball, at :math:`\|x\| = 1`.

    Bernstein's inequality with variance proxy m/2 and scale 1; C0 = 0 bounds :math:`|f(x; W_0)|`. Constants are our derivation.
    """
    check_count("m", m)
    log = math.log(2 / check_gamma(gamma))
    return (check_positive("C0", C0) if C0 else 0.0) + math.sqrt(log) + log / math.sqrt(m)


# Lemma 4.2: the gradient's norm


class Parts(NamedTuple):
    """||grad f(x)||, its part along x, which is f(x)/||x||, and the length of the rest."""

    norm: Tensor
    along: Tensor
    across: Tensor


class Bracket(NamedTuple):
    """A certified lower bound, and what a W of the ball attains: the truth lies between."""

    lower: Tensor
    found: Tensor


def gradient_parts(net: TwoLayerNet, x: Tensor) -> Parts:
    """The gradient's norm and its parts along x and across it, at the net's own weights."""
    g = net.grad(x)
    unit = torch.nn.functional.normalize(x, dim=-1)
    along = (g * unit).sum(-1)
    return Parts(g.norm(dim=-1), along, (g - along.unsqueeze(-1) * unit).norm(dim=-1))


def smallest_gradient(net: TwoLayerNet, x: Tensor, C0: float, iterations: int = 60) -> Bracket:
    r"""The least :math:`\|\nabla f(x; W)\|` over the ball, bracketed (our derivation; Lemma 4.2 bounds it), at :math:`\|x\| = 1`.

    ``lower`` is certified for this draw, up to rounding; ``found`` is the norm at an explicit W of the ball.
    """
    near = highest(net, x, C0, torch.zeros_like(x), torch.ones_like(x[:, 0]), iterations)
    flat, rows = net.flat(), near.direction.reshape(-1, len(x), net.d)

    def found(one: TwoLayerNet, point: Tensor, y: Tensor) -> Tensor:
        far = farthest(one, point, C0, y)
        tried = (one, far, _shortened(one, far.W, point, C0), shortest(one, point, C0))
        return torch.stack([each.grad(point[None])[0].norm().double() for each in tried]).amin()

    best = [found(flat[k], x[i], rows[k, i]) for k in range(len(flat.a)) for i in range(len(x))]
    return Bracket(near.upper.neg().clamp(min=0).sqrt(), torch.stack(best).view(near.upper.shape))


def _shortened(net: TwoLayerNet, W: Tensor, x: Tensor, C0: float) -> TwoLayerNet:
    """W with the neurons that are active all over the ball moved from :math:`w_{s,0}` against the gradient: to 0 where they can."""
    V = LazyBall(net.W, C0).radius
    sure = ((net.W @ x) > V).unsqueeze(-1)
    W = torch.where(sure, net.W, W)
    g = net.replace(W=W).grad(x[None])[0]
    far = min(V, float(g.norm()) * math.sqrt(net.m) / max(1, int(sure.sum())))
    move = far * torch.nn.functional.normalize(g, dim=-1)
    return net.replace(W=torch.where(sure, W - net.a.unsqueeze(-1) * move, W))


def gradient_bound(d: int, m: int, C0: float, gamma: float) -> float:
    r"""Lemma 4.2: a lower bound of :math:`\|\nabla f(x; W)\|` for all W of the ball, at :math:`\|x\| = 1`; below 0 it says nothing.

    Four events of probability gamma/4 each, :math:`\ell = \log(4/\gamma)`: at least :math:`m(\tfrac12 - \sqrt{\ell/2m})` active neurons,
    :math:`\|P\xi\| \ge \sqrt{d-2} - \sqrt{2\ell}`, Lemma 4.3's bound on :math:`|S_1|`, and :math:`\sigma_{\max}(PW_{0,S_1}) \le \sqrt{d-1} +
    \sqrt{|S_1|} + \sqrt{2\ell}`, which holds for every pattern of switches (our derivation).
    """
    d, m = check_count("d", d, at_least=2), check_count("m", m)
    log, C0 = math.log(4 / check_gamma(gamma)), check_positive("C0", C0) if C0 else 0.0
    active = max(0.0, 0.5 - math.sqrt(log / (2 * m)))
    start = math.sqrt(active) * (math.sqrt(d - 2) - math.sqrt(2 * log))
    if not C0:
        return start
    turned = min(m, sign_change_bound(m, C0, gamma / 4))
    return start - C0 - math.sqrt(turned / m) * (math.sqrt(d - 1) + math.sqrt(turned) + math.sqrt(2 * log))


# Lemma 4.3: sign flips


def sign_changes(net: TwoLayerNet, x: Tensor, C0: float) -> Tensor:
    r"""How many neurons some W of the ball gives another sign at x, exactly: :math:`|w_{s,0}^\top x| \le V\|x\|` (Lemma 4.3).

    At x this is :math:`|S_1|`; at :math:`x + \delta` it is :math:`|S_2|`.
    """
    check_bare(net)
    x = check_points("x", x, net.d, net.members, net.W)
    reach = LazyBall(net.W, C0).radius * x.norm(dim=-1)
    return (net.preactivations(x).abs() <= reach.unsqueeze(-2)).sum(-2)


def change_signs(net: TwoLayerNet, x: Tensor, C0: float) -> TwoLayerNet:
    r"""The network of the ball that gives every neuron of :math:`S_1` another sign at one unit point ``(d,)``, others as they are."""
    check_bare(net)
    x = check_unit("x", check_points("x", x.reshape(1, -1), net.d, (), net.W))[0]
    V = LazyBall(net.W, C0).radius
    u = net.W @ x
    move = torch.where(u.abs() <= V, V * (1 - 2 * (u >= 0).to(u)), 0.0)
    return net.replace(W=net.W + move.unsqueeze(-1) * x)


def sign_change_mean(m: int, C0: float) -> float:
    r"""The mean of :math:`|S_1|`, :math:`m\,\mathrm{erf}(V/\sqrt2)`, at any x, and at any :math:`x + \delta` that does not look at the draw (our derivation)."""
    return check_count("m", m) * math.erf(check_positive("C0", C0) / math.sqrt(2 * m))


def sign_change_bound(m: int, C0: float, gamma: float) -> float:
    r"""Lemma 4.3: :math:`|S_1| \le \sqrt{2/\pi}\,C_0\sqrt m + \sqrt{m \log(1/\gamma)/2}` (Hoeffding's inequality)."""
    check_count("m", m), check_positive("C0", C0)
    return math.sqrt(2 / math.pi) * C0 * math.sqrt(m) + math.sqrt(m * math.log(1 / check_gamma(gamma)) / 2)


# Lemma B.6: flip probabilities


def flip_probability(x: Tensor, delta: Tensor) -> Tensor:
    r"""The probability that a Gaussian w has other signs at x and :math:`x + \delta`: their angle over :math:`\pi` (standard), where :math:`x + \delta \ne 0`.

    ``(n, d)`` each, gives ``(n,)``. Over :math:`\|\delta\| \le R < \|x\| = 1` it is at most :math:`\arcsin(R)/\pi \le R/2` (Lemma B.6).
    """
    x, y = x.double(), (x + delta).double()
    across = y * x.norm(dim=-1, keepdim=True) - x * y.norm(dim=-1, keepdim=True)
    along = y * x.norm(dim=-1, keepdim=True) + x * y.norm(dim=-1, keepdim=True)
    return 2 * torch.atan2(across.norm(dim=-1), along.norm(dim=-1)) / math.pi


def slab_probability(epsilon: float, d: int, length: float = 1.0) -> float:
    r"""Lemma B.6: a bound of the probability that w changes its sign somewhere within epsilon of a point of this length.

    :math:`\sqrt{2/\pi}\,\epsilon\sqrt d/\mathrm{length}` for :math:`d \ge 3`, close to the truth for small epsilon and large d; the paper's
    proof has :math:`8/\sqrt{2\pi}` in the place of :math:`\sqrt{2/\pi}` (constants our derivation).
    """
    ratio = (
        check_positive("epsilon", epsilon)
        * math.sqrt(check_count("d", d, at_least=3))
        / check_positive("length", length)
    )
    return math.sqrt(2 / math.pi) * ratio


# Lemma 4.4: the gradient's difference


class Difference(NamedTuple):
    """||grad f(x) - grad f(x + delta)||, and its component along grad f(x), which alone enters the theorem."""

    norm: Tensor
    along: Tensor


def gradient_difference(net: TwoLayerNet, x: Tensor, delta: Tensor) -> Difference:
    r"""How the gradient turns from x to :math:`x + \delta`, at the net's own weights; ``delta`` ``(n, d)`` or ``(*members, n, d)``."""
    g = net.grad(x)
    turn = g - net.grad(x + delta)
    return Difference(turn.norm(dim=-1), (turn * torch.nn.functional.normalize(g, dim=-1)).sum(-1))


def random_difference(d: int, R: float) -> float:
    r"""The root mean square of the difference at :math:`W_0` for a given :math:`\delta` across x, :math:`\sqrt{d \arctan(R)/\pi}` exactly (our derivation)."""
    return math.sqrt(check_count("d", d) * math.atan(check_reach(R)) / math.pi)


def worst_delta(net: TwoLayerNet, x: Tensor, R: float, steps: int = 60, seed: int = 0) -> Tensor:
    r"""A search for the :math:`\delta` of length at most R that turns the gradient most: ``(*members, n, d)``.

    Gates are smoothed to a width that shrinks from R to R/20, and :math:`\|\nabla f(x) - \nabla f(x + \delta)\|^2` is climbed on the
    sphere from the gradient's direction and from two random ones; what is kept is judged with the true gates.
    """
    check_bare(net)
    x, R = check_unit("x", check_points("x", x, net.d, (), net.W)), check_reach(R)
    check_count("steps", steps)
    flat, out = net.flat(), []
    draw = torch.Generator().manual_seed(seed)
    random = torch.randn(2, len(x), net.d, generator=draw).to(x)
    normalize = torch.nn.functional.normalize
    for k in range(len(flat.a)):
        one, g = flat[k], flat[k].grad(x)
        gates = one.gates(one.preactivations(x))  # (m, n)
        best, kept = torch.full((len(x),), -1.0).to(x), torch.zeros_like(x)
        for start in (-g, *random):
            delta = R * normalize(start, dim=-1)
            for t in range(steps):
                width = R * 0.05 ** (t / max(1, steps - 1))
                z = one.preactivations(x + delta)
                turn = (gates - (z > 0) * one.a.unsqueeze(-1)).mT @ one.W
                better = turn.norm(dim=-1) > best
                kept, best = torch.where(better.unsqueeze(-1), delta, kept), torch.maximum(best, turn.norm(dim=-1))
                soft = torch.sigmoid(z / width)
                turn = (gates - soft * one.a.unsqueeze(-1)).mT @ one.W  # smoothed, (n, d)
                slope = soft * (1 - soft) * one.a.unsqueeze(-1) * (one.W @ turn.mT)
                climb = -(slope.mT @ one.W)
                delta = R * normalize(delta + 0.3 * R * normalize(climb, dim=-1), dim=-1)
        out.append(kept)
    return torch.stack(out).view(*net.members, *x.shape)


def worst_difference(net: TwoLayerNet, x: Tensor, C0: float, R: float, rounds: int = 4) -> tuple[TwoLayerNet, Tensor]:
    r"""A search for W of the ball and :math:`\delta` that turn the gradient most at one unit point ``(d,)``: ``(net, delta)``.

    In turn the worst :math:`\delta` for W (:func:`worst_delta`) and, for that :math:`\delta` and the direction of the present difference, the
    best of a few moves of each neuron: across either of the two planes, or along the direction.
    """
    check_bare(net)
    x = check_unit("x", check_points("x", x.reshape(1, -1), net.d, (), net.W))
    ball, now = LazyBall(net.W, C0), net
    best = (-1.0, net, torch.zeros_like(x))
    for _ in range(check_count("rounds", rounds)):
        delta = worst_delta(now, x, R)
        turn = now.grad(x) - now.grad(x + delta)
        if float(turn.norm()) > best[0]:
            best = (float(turn.norm()), now, delta)
        v, y = turn[0] / turn.norm(), x + delta
        there = y[0] / y.norm()
        apart = torch.nn.functional.normalize(x[0] - there, dim=-1)
        gain, W = torch.full_like(net.a, -math.inf), net.W
        for move in (x[0], -x[0], there, -there, apart, -apart, v, -v, torch.zeros_like(v)):
            moved = net.W + ball.radius * move
            turned = ((moved @ x[0]) > 0).to(v) - ((moved @ y[0]) > 0).to(v)
            new = net.a * turned * (moved @ v)
            W = torch.where((new > gain).unsqueeze(-1), moved, W)
            gain = torch.maximum(gain, new)
        now = net.replace(W=W)
    turn = float(gradient_difference(now, x, best[2]).norm)
    return (now, best[2][0]) if turn > best[0] else (best[1], best[2][0])


def difference_bound(net: TwoLayerNet, x: Tensor, C0: float, R: float) -> Tensor:
    r"""An upper bound of the gradient's difference for all W of the ball and :math:`\|\delta\| \le R`, certified for the draw (our derivation).

    With :math:`\sigma = \sigma_{\max}(W_0) + C_0 \ge \sigma_{\max}(W)`: the k neurons that switch have :math:`\sum (|w_{s,0}^\top x| - V)_+^2 \le
    \sigma^2R^2`, which bounds k, and they turn the gradient by at most :math:`\sigma\sqrt{k/m}`.
    """
    check_bare(net)
    x, R = check_unit("x", check_points("x", x, net.d, net.members, net.W)), check_reach(R)
    sigma = torch.stack([largest_singular_value(W) for W in net.flat().W]).view(*net.members, 1) + C0
    u = net.preactivations(x).mT.double()
    return turn_bound(u, safe_radius(net, C0), sigma, torch.full_like(u[..., 0], R))


def turn_bound(u: Tensor, V: float, sigma: Tensor, R: Tensor) -> Tensor:
    """The bound of :func:`difference_bound` from the pre-activations ``(..., m)`` and sigma; R is ``(...)``."""
    near = (u.abs() - V).clamp(min=0).sort(dim=-1).values.square().cumsum(-1)
    k = (near <= (sigma * R).square().unsqueeze(-1)).sum(-1)
    return sigma * (k / u.shape[-1]).sqrt()
