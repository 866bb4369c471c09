r"""How far a network's answer holds, from below: radii within which nothing flips it, and robust accuracy from both sides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_labels, check_points, check_positive
from .extremes import largest_singular_value
from .network import TwoLayerNet
from .strongest import Minimal, minimal_perturbation
from .tiles import in_tiles, pick


def certified_radius(net: TwoLayerNet, x: Tensor, y: Tensor) -> Tensor:
    r"""A radius within which no perturbation makes y f <= 0: ``(*members, n)`` float64 (our derivation), 0 for a wrong answer.

    Take y = +1, f(x) > 0, and write g for the gradient, z for the pre-activations, v = W delta for their changes. Neuron s adds
    :math:`a_s[\sigma(z_s + v_s) - \sigma(z_s) - \sigma'(z_s) v_s]/\sqrt m` to what the tangent plane says. The bracket is 0 unless
    the neuron switches, and then it is :math:`|v_s| - |z_s| \ge 0`: only neurons with :math:`a_s = -1` lower f. If k of them
    switch, :math:`\sum |v_s| \le \sqrt k\, \|W_- \delta\| \le \sqrt k\, \sigma R`, with :math:`\sigma` the largest singular value of the
    rows :math:`W_-` of that sign, and :math:`\sum |z_s|` is at least :math:`c_k`, the sum of the k smallest. So

    .. math:: f(x + \delta) \ge f(x) - R\|g\| - \max_k\, [\sigma R \sqrt k - c_k]/\sqrt m \qquad (\|\delta\| \le R),

    and the right side is positive as long as it is so for each k alone, that is up to

    .. math:: R = \min_{k \ge 0}\, \frac{\sqrt m\, f(x) + c_k}{\sqrt m\, \|g\| + \sigma \sqrt k}.

    For y = -1 the neurons with :math:`a_s = +1` count. Biases are allowed. The bound holds for these weights, with no
    probability, up to rounding in float64; nothing about a ball of weights is assumed.
    """
    x = check_points("x", x, net.d, net.members, net.W)
    y = check_labels("y", y, x.shape[-2], net.W)
    flat, n = net.flat().to(torch.float64), x.shape[-2]
    radius = torch.zeros(len(flat.a), n, dtype=torch.float64, device=x.device)
    x, y, root = x.double(), y.double(), math.sqrt(net.m)
    lowering = [{sign: (flat.a[k] == -sign) for sign in (1.0, -1.0)} for k in range(len(flat.a))]
    sigma = [
        {s: largest_singular_value(flat.W[k][rows]) for s, rows in lowering[k].items()} for k in range(len(flat.a))
    ]

    def work(members: slice, points: slice) -> None:
        for k in range(members.start, members.stop):
            one = flat[k]
            z = one.preactivations(pick(x, slice(k, k + 1), points).view(-1, net.d))  # (m, n)
            f = one.value_at(z)
            g = (z > 0).double().mul_(one.a.unsqueeze(-1)).mT @ one.W  # sqrt(m) times the gradient
            slope, out = g.norm(dim=-1), torch.zeros_like(f)
            for sign in (1.0, -1.0):
                at = ((y[points] == sign) & (sign * f > 0)).nonzero().squeeze(-1)
                if not len(at):
                    continue
                spent = z[lowering[k][sign]][:, at].abs().sort(dim=0).values.cumsum(0)
                many = torch.arange(1, len(spent) + 1, dtype=f.dtype, device=f.device).sqrt().unsqueeze(-1)
                top, bottom = root * f[at].abs(), slope[at]
                best = top / bottom  # k = 0; infinite where the gradient is 0 and nothing else moves f
                if len(spent):
                    best = torch.minimum(best, ((top + spent) / (bottom + sigma[k][sign] * many)).amin(0))
                out[at] = best
            radius[k, points] = out

    in_tiles(work, flat.a, n)
    return radius.view(*net.members, n)


def lipschitz_radius(net: TwoLayerNet, x: Tensor, y: Tensor) -> Tensor:
    r"""The same by a plain Lipschitz constant: :math:`|f(x)|/\sigma_{\max}(W)`, 0 for a wrong answer; ``(*members, n)`` float64.

    :math:`|f(x + \delta) - f(x)| \le \frac{1}{\sqrt m}\|a\|\,\|W\delta\| \le \sigma_{\max}(W)\,\|\delta\|`, since :math:`\|a\| = \sqrt m`.
    """
    x = check_points("x", x, net.d, net.members, net.W)
    y = check_labels("y", y, x.shape[-2], net.W)
    flat = net.flat().to(torch.float64)
    sigma = torch.stack([largest_singular_value(W) for W in flat.W])
    points = x.double() if x.ndim == 2 else x.double().reshape(-1, *x.shape[-2:])
    return ((y.double() * flat(points)).clamp(min=0) / sigma.unsqueeze(-1)).view(*net.members, -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Bracket:
    """Robust accuracy from both sides, and how far apart they are."""

    eps: Tensor  # the budgets ``(k,)``
    lower: Tensor  # the share of points that nothing within the budget flips, certified: (*members, k)
    upper: Tensor  # the share that no attack flipped: (*members, k)
    gap: Tensor  # median over the points answered rightly of smallest norm found / certified radius: (*members,)
    lipschitz_gap: Tensor  # the same with the Lipschitz radius
    certified: Tensor  # radii (*members, n)
    minimal: Minimal


def bracket(
    net: TwoLayerNet, x: Tensor, y: Tensor, eps: float | Sequence[float], steps: int = 40, rounds: int = 8
) -> Bracket:
    r"""Robust accuracy at the budgets ``eps``, bracketed by :func:`certified_radius` (or :func:`lipschitz_radius`, where that is larger) and :func:`~lazy_helpers.strongest.minimal_perturbation`.

    ``x`` is ``(n, d)`` or ``(*members, n, d)``, ``y`` ``(n,)`` in {-1, +1}; ``steps`` and ``rounds`` as there. A point for which no
    attack found anything counts as robust above, and has no gap. Raises ``ValueError`` for wrong shapes, labels, eps <= 0.
    """
    budgets = [check_positive("eps", e) for e in (eps if isinstance(eps, Sequence | Tensor) else (eps,))]
    lipschitz = lipschitz_radius(net, x, y)
    certified = torch.maximum(certified_radius(net, x, y), lipschitz)
    minimal = minimal_perturbation(net, x, y, steps, rounds, below=certified)
    norm = torch.where(minimal.found, minimal.norm.double(), math.inf)
    levels = torch.tensor(budgets, dtype=torch.float64, device=norm.device).unsqueeze(-1)

    def share(radius: Tensor) -> Tensor:
        return (radius.unsqueeze(-2) > levels).double().mean(-1)

    def gap(radius: Tensor) -> Tensor:
        counts = minimal.found & (radius > 0)
        return torch.where(counts, norm / radius, math.nan).nanmedian(dim=-1).values

    return Bracket(
        levels.squeeze(-1), share(certified), share(norm), gap(certified), gap(lipschitz), certified, minimal
    )
