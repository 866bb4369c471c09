r"""Theorem 3.1 for a given draw: for which steps is the flip certified for every W of the ball?

With :math:`g = \nabla f(x; W)`, :math:`f > 0` and :math:`\delta = -\eta g`, three terms decide (signs swapped for f < 0):

.. math:: f(x + \delta; W) = f(x; W) - \eta\|g\|^2 + r, \qquad r = f(x + \delta) - f(x) - \langle g, \delta\rangle .

Bounds are our derivation; they hold for the draw, with no probability, up to rounding of the network's dtype.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .attack import smallest_flip
from .checks import check_bare, check_count, check_gamma, check_points, check_positive, check_seed, check_unit
from .extremes import farthest, highest, largest_gradient_change, largest_singular_value, safe_radius, shortest
from .lazy import LazyBall
from .lemmas import gradient_bound, sign_change_bound, smallest_gradient, turn_bound, value_bound, value_range
from .network import TwoLayerNet


class Terms(NamedTuple):
    """Upper bounds ``(*members, k)`` for k steps; ``total``, of sign(f) f(x + delta), below 0 is a flip.

    Of one sign of f each part is a bound over the W with that sign. Of both, the parts are those of the sign whose total is
    larger, and only the total is a bound over all W of the ball.
    """

    total: Tensor
    first_order: Tensor  # of |f| - eta ||g||^2
    residual: Tensor  # of the rest


def flip_bound(net: TwoLayerNet, x: Tensor, C0: float, eta: Tensor, iterations: int = 60) -> Terms:
    r"""A bound of :math:`\mathrm{sign} f(x)\, f(x - \mathrm{sign} f(x)\,\eta\nabla f(x))` over every W of the ball (our derivation).

    ``net`` is the initial network, ``x`` one unit point ``(d,)``, ``eta`` ``(k,)`` positive steps. The first two terms are maximised
    together (:func:`~lazy_helpers.extremes.highest`), the residual by the better of two bounds: :func:`_by_size` needs
    the length of :math:`\delta` alone, :func:`_by_direction` also that it points nearly along :math:`\nabla f(x; W_0)`.
    """
    plus, minus = flip_sides(net, x, C0, eta, iterations)
    return Terms(*(torch.where(plus.total >= minus.total, one, other) for one, other in zip(plus, minus, strict=True)))


def flip_sides(net: TwoLayerNet, x: Tensor, C0: float, eta: Tensor, iterations: int = 60) -> tuple[Terms, Terms]:
    """:func:`flip_bound` over the W with f(x; W) > 0 and over those with f(x; W) < 0."""
    check_bare(net)
    x = check_unit("x", check_points("x", x.reshape(1, -1), net.d, (), net.W))
    many = x.expand(len(eta), -1)
    firsts = tuple(highest(net, many, C0, z, eta, iterations).upper.view(-1, len(eta)) for z in (many, -many))
    flat, V, change = net.flat(), safe_radius(net, C0), largest_gradient_change(net, x, C0).view(-1)
    rows = ([], [])
    for k in range(len(flat.a)):
        sigma = largest_singular_value(flat.W[k])
        g = flat[k].grad(x)[0]
        u, p, length = (flat.W[k] @ x[0]).double(), (flat.W[k] @ g).double(), g.double().norm()
        for side, sign, first in zip(rows, (1, -1), firsts, strict=True):
            r = _residual(u, p, flat.a[k], length, C0, V, eta.double(), sign, sigma, change[k])
            side.append(torch.stack([first[k] + r, first[k], r]))
    shape = (3, *net.members, len(eta))
    return tuple(Terms(*torch.stack(side, dim=1).view(shape)) for side in rows)


def _residual(u, p, a, length, C0, V, eta, sign, sigma, change):
    """The better bound of sign r over the ball, ``(k,)``; u = W0 x, p = W0 g0, ``length`` = ||g0||."""
    reach = eta * (length + change)  # of delta
    up = sign * a > 0
    return torch.minimum(
        _by_size(u[up].abs(), V, (sigma + C0) * reach, len(u)),
        _by_direction(u, p, up, V, eta, sign, reach, eta * sigma * change),
    )


def _by_size(u: Tensor, V: float, T: Tensor, m: int) -> Tensor:
    r"""The residual by the length of :math:`\delta` alone, with :math:`T \ge \|W\delta\|`; u are the up neurons' :math:`|w_{s,0}^\top x|`.

    A neuron adds to the residual only if it switches, and then :math:`|w_s^\top\delta| - |w_s^\top x|`. Over k of them the first
    sum to at most :math:`T\sqrt k`, and :math:`|w_s^\top x| \ge |w_{s,0}^\top x| - V`.
    """
    spent = torch.nn.functional.pad((u - V).clamp(min=0).sort().values.cumsum(0), (1, 0))
    root = torch.arange(len(u) + 1, dtype=u.dtype, device=u.device).sqrt()
    return (T.unsqueeze(-1) * root - spent).amax(-1) / math.sqrt(m)


def _by_direction(u, p, up, V, eta, sign, reach, T):
    r"""The residual by the direction: :math:`w_s^\top\delta` is :math:`\mp\eta\, w_{s,0}^\top\nabla f(x; W_0)` but for :math:`\zeta_s`, :math:`\|\zeta\| \le T`.

    Neurons of the one output sign add to the residual, those of the other take away, but for what :math:`\zeta` and the moves
    inside the ball can change. The maximum over :math:`\zeta` is bounded by Lagrange's dual: any multiplier gives a bound.
    """
    m = len(u)
    eta, reach, T = (part.unsqueeze(-1) for part in (eta, reach, T.clamp(min=1e-300)))
    side = torch.where(u > 0, 1.0, -1.0)
    q = -sign * eta * p  # (k, m)
    past = -side * (u + q)  # how far beyond its plane, if it switches
    slack = V * (1 + reach)
    loose = u.abs() <= V  # W itself may have given these another sign
    high = torch.where(loose, torch.maximum(past + slack, side * q + V * reach), past + slack)[:, up]
    low = torch.where(loose, 0.0, past - slack).clamp(min=0)[:, ~up]
    best = torch.full_like(eta[:, 0], math.inf)
    for scale in torch.logspace(-3, 2, 41).tolist():
        price = scale * math.sqrt(m) / T
        gain = 1 / (4 * price)
        rise = (high + gain).clamp(min=0).sum(-1)
        fall = torch.where(2 * gain <= low, gain - low, -price * low.square()).sum(-1)
        best = torch.minimum(best, (price * T.square())[:, 0] + rise + fall)
    return best / math.sqrt(m)


class Steps(NamedTuple):
    """The smallest and the largest step tried that is certified, and the one whose bound is lowest; NaN where there is none."""

    low: Tensor
    high: Tensor
    best: Tensor
    bound: Tensor  # the lowest bound over the steps tried; below 0 where there are certified steps


def certified_steps(net: TwoLayerNet, x: Tensor, C0: float, grid: int = 40, iterations: int = 60) -> Steps:
    r"""The steps :math:`\eta` for which :func:`flip_bound` certifies the flip for every W of the ball; ``(*members,)`` each.

    Tried on a geometric grid from 0.3 to 100 times :math:`1/\|\nabla f(x; W_0)\|^2`, the mean over members.
    """
    scale = net.grad(x.reshape(1, -1)).double().square().sum(-1).mean()
    eta = torch.logspace(
        math.log10(0.3), 2, check_count("grid", grid, at_least=2), dtype=torch.float64, device=x.device
    )
    eta = eta / scale
    total = flip_bound(net, x, C0, eta, iterations).total
    sure = total < -1e-6  # more than rounding
    low = torch.where(sure, eta, math.inf).amin(-1)
    high = torch.where(sure, eta, -math.inf).amax(-1)
    none = ~sure.any(-1)
    nan = torch.full_like(low, math.nan)
    at = total.argmin(-1)
    return Steps(
        torch.where(none, nan, low), torch.where(none, nan, high), torch.where(none, nan, eta[at]), total.amin(-1)
    )


def published_bound(net: TwoLayerNet, x: Tensor, C0: float, eta: Tensor) -> Tensor:
    r"""The same bound by the paper's route: :math:`\sup|f| - \eta L\,(L - D)`, L the least gradient norm, D the gradient's largest difference.

    ``(*members, k)``. Each is bounded for the draw as tightly as this package can: Lemmas 4.1, 4.2 and 4.4 with their best constants.
    Lemma 4.4 is about :math:`\|\delta\| < 1`: where it could be longer, the bound is infinite.
    """
    x = x.reshape(1, -1)
    span = value_range(net, x, C0)
    f = torch.maximum(span.high.abs(), span.low.abs())[..., 0].double()
    L = smallest_gradient(net, x, C0).lower[..., 0]
    length = net.grad(x).double().norm(dim=-1)[..., 0] + largest_gradient_change(net, x, C0)[..., 0]
    V, sigma = safe_radius(net, C0), torch.stack([largest_singular_value(W) for W in net.flat().W]) + C0
    u, sigma = net.preactivations(x)[..., 0].double(), sigma.view(length.shape)
    out = []
    for step in eta.tolist():
        D = turn_bound(u, V, sigma, step * length)
        least = torch.maximum(L, D / 2)  # where t (t - D) is smallest over t >= L
        out.append(torch.where(step * length < 1, f - step * least * (least - D), math.inf))
    return torch.stack(out, dim=-1)


def _resisting(net: TwoLayerNet, x: Tensor, C0: float, sign: int) -> TwoLayerNet:
    """A gradient along x alone, as far as the ball allows, f(x) as large as may be, and f(-x) of the same sign: then the
    step runs through the origin to -x, and meets the same sign there."""
    V = LazyBall(net.W, C0).radius
    still = shortest(net, x, C0, across=True)
    u = net.W @ x
    left = (V * V - (still.W - net.W).square().sum(-1)).clamp(min=0).sqrt() * (1 - 1e-4)
    push = (
        torch.where(u > V, left, torch.where(u < -V, -left, 0.0)) * net.a * sign
    )  # the moves so far are across x there
    return net.replace(W=LazyBall(net.W, C0).project(still.W + push.unsqueeze(-1) * x))


class Worst(NamedTuple):
    """A network of the ball that one step hardly flips: ``eta`` its smallest flipping step, infinite where none flips it."""

    net: TwoLayerNet
    eta: float
    norm: float  # ||delta||
    f: float


def worst_network(net: TwoLayerNet, x: Tensor, C0: float, rounds: int = 3) -> Worst:
    r"""A search for the W of the ball that needs the largest step at one unit point ``(d,)``; ``net`` has no members.

    Tried for both signs of f: the networks that go farthest in the directions between x and :math:`\mp\nabla f`, which trade a large
    margin for a short gradient, and those with the largest :math:`f(x + \delta)` for steps of several lengths, each met again
    with its own gradient ``rounds`` times.
    """
    check_bare(net)
    point = check_unit("x", check_points("x", x.reshape(1, -1), net.d, (), net.W))
    x, V = point[0], LazyBall(net.W, C0).radius
    worst = None

    def judge(tried: TwoLayerNet) -> None:
        nonlocal worst
        flip = smallest_flip(tried, point)
        found = bool(flip.found[0])
        eta, norm = (float(part[0]) if found else math.inf for part in (flip.eta, flip.norm))
        if worst is None or eta > worst.eta:
            worst = Worst(tried, eta, norm, float(flip.value[0]))

    judge(net)
    for sign in (1, -1):
        judge(_resisting(net, x, C0, sign))
        for angle in torch.linspace(0, 0.5 * math.pi, 10).tolist()[:-1]:
            now = net
            for _ in range(rounds):
                g = now.grad(point)[0]
                now = farthest(net, x, C0, sign * math.cos(angle) * x - math.sin(angle) * g / g.norm())
                judge(now)
        for length in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
            now = net
            for _ in range(rounds):
                g = now.grad(point)[0]
                there = x - sign * min(length / math.sqrt(net.d), 2.0) * g / g.norm()
                now = net.replace(W=net.W + sign * V * net.a.unsqueeze(-1) * (there / there.norm()))
                judge(now)
    return worst


def same_law(d: int, m: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[TwoLayerNet, Tensor]:
    r"""A network and a unit point ``(d',)`` with the law of ``TwoLayerNet.init(d, m)`` at any unit point, up to a rotation.

    Only the scalar products of the weights and x matter to the theorem, so where d > m + 1 the weights are written in d' = m + 1
    coordinates: x, and a triangular matrix with chi-distributed diagonal (Bartlett's decomposition of a Wishart matrix). What is
    certified there holds in d dimensions too: the bounds use norms and scalar products with these vectors alone.
    """
    check_count("d", d), check_count("m", m)
    if d <= m + 1:
        net = TwoLayerNet.init(d, m, seed=seed, dtype=dtype)
        return net, torch.eye(1, d, dtype=dtype)[0]
    draw = torch.Generator().manual_seed(check_seed(seed))
    W = torch.zeros(m, m + 1, dtype=torch.float64)
    W[:, 1:] = torch.randn(m, m, generator=draw, dtype=torch.float64).tril(-1)
    freedom = torch.arange(d - 1, d - 1 - m, -1, dtype=torch.float64)
    torch_gamma = torch._standard_gamma(freedom / 2, generator=draw)
    W[:, 1:].diagonal().copy_((2 * torch_gamma).sqrt())
    W[:, 0] = torch.randn(m, generator=draw, dtype=torch.float64)
    a = (2 * torch.randint(0, 2, (m,), generator=draw) - 1).to(dtype)
    return TwoLayerNet(W.to(dtype), a), torch.eye(1, m + 1, dtype=dtype)[0]


def flip_formula(d: int, m: int, C0: float, gamma: float, eta: float) -> float:
    r"""The bound of :func:`flip_bound` as a formula, with probability at least 1 - gamma over the draw (our derivation).

    :math:`F - \eta L^2 + r`: F by Lemma 4.1, L by Lemma 4.2, and the residual by length, with :math:`\sigma_{\max}(W_0) \le \sqrt m + \sqrt d +
    \sqrt{2\ell}`, and at most :math:`\tfrac{m}{2}\sqrt{2/\pi}\,t + \sqrt{m\ell/2}` pre-activations of either output sign within t of 0 (Dvoretzky,
    Kiefer, Wolfowitz, Massart). Ten events of probability gamma/10, :math:`\ell = \log(10/\gamma)`.
    """
    eta = check_positive("eta", eta)
    part = check_gamma(gamma) / 10
    log = math.log(1 / part)
    F, L = value_bound(m, C0, part), gradient_bound(d, m, C0, 4 * part)
    if L <= 0:
        return math.inf
    turned = min(m, sign_change_bound(m, C0, part))
    change = C0 + math.sqrt(turned / m) * (math.sqrt(d - 1) + math.sqrt(turned) + math.sqrt(2 * log))
    longest = F + math.sqrt(0.5 + math.sqrt(log / (2 * m))) * (math.sqrt(d - 1) + math.sqrt(2 * log)) + change
    T = (math.sqrt(m) + math.sqrt(d) + math.sqrt(2 * log) + C0) * eta * longest
    k = torch.arange(1, m + 1, dtype=torch.float64)
    t = (k - math.sqrt(m * log / 2)).clamp(min=0) * math.sqrt(2 * math.pi) / m
    spent = (t - C0 / math.sqrt(m)).clamp(min=0).cumsum(0)
    residual = float((T * k.sqrt() - spent).max().clamp(min=0)) / math.sqrt(m)
    return F - eta * L * L + residual
