r"""Projected gradient ascent (PGA) on the inner problem, what it converges to, and how fast.

On the sphere a step is :math:`\delta \leftarrow \varepsilon\, \frac{\delta + \eta G}{\|\delta + \eta G\|}` with
:math:`\eta = \eta_{rel}\, \varepsilon / \|G\|`; in the ball it is the projection of :math:`\delta + \eta G`. Setting and question are those
of Deng et al. (ICML 2020), whose steps and constants did not reach us: the protocol is our own.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_choice, check_count, check_points, check_positive, check_seed
from .curvature import radial, smallest_element, stationarity, top_eigenvalue
from .landscape import Inner, Network, inner_problem

RULES = {"first": "the step scaled by the first gradient's norm", "current": "by the current one's"}
SETS = {"sphere": "||delta|| = eps", "ball": "||delta|| <= eps"}
MAXIMUM, SADDLE, NOT_CONVERGED = "local maximum", "saddle", "not converged"
NUDGE = 1e-9  # relative distance from the sphere at which a start counts as on it, in float64


@dataclasses.dataclass(frozen=True, eq=False)
class Ascent:
    """Where PGA ended, ``(*members, n)`` each but for ``delta`` and ``path``."""

    delta: Tensor  # (*members, n, d)
    value: Tensor  # L
    steps: Tensor  # taken until the tolerance was met, or all of them
    stationarity: Tensor  # kappa at the end; a ReLU's of the smallest element; inside the ball ||G|| / ||first G||
    converged: Tensor  # bool: kappa <= tol
    top: Tensor  # the largest eigenvalue of the Riemannian Hessian (in the interior, of H), in units of |<G, nu>| / eps
    status: np.ndarray  # "local maximum", "saddle" or "not converged"
    path: Path | None  # asked for by record=True


class Path(NamedTuple):
    """The iterates, row t after t steps: a point that has converged stays where it is."""

    delta: Tensor  # (steps + 1, *members, n, d)
    value: Tensor  # (steps + 1, *members, n)
    stationarity: Tensor


def random_start(problem: Inner, seed: int = 0) -> Tensor:
    """Uniform points of the sphere ``(*members, n, d)``; member k's are those of ``seed + k``, drawn on the CPU in float64."""
    seed, (*members, n) = check_seed(seed), problem.shape
    draws = [
        torch.randn(n, problem.net.d, generator=torch.Generator().manual_seed(seed + k), dtype=torch.float64)
        for k in range(math.prod(members))
    ]
    draws = torch.stack(draws).view(*members, n, -1).to(problem.x)
    return on_sphere(problem, draws)


def on_sphere(problem: Inner, directions: Tensor) -> Tensor:
    """Directions, none of them zero, at length eps."""
    return problem.eps.unsqueeze(-1) * directions / directions.norm(dim=-1, keepdim=True)


def gradient_start(problem: Inner, sign: float = 1.0) -> Tensor:
    r""":math:`\pm\varepsilon \nabla f(x) / \|\nabla f(x)\|`: up or down the network's slope at the input; along x where that is 0."""
    g = problem.net.value_and_grad_at(problem.x)[1].expand(*problem.shape, -1)
    return on_sphere(problem, sign * torch.where((g != 0).any(-1, keepdim=True), g, problem.x))


def pga(
    problem: Inner,
    start: Tensor,
    eta: float = 1.0,
    tol: float = 1e-6,
    max_steps: int = 5000,
    rule: str = "current",
    within: str = "sphere",
    decay: float = 0.0,
    reach: float = 1e-2,
    record: bool = False,
) -> Ascent:
    r"""Ascend from ``start`` until :math:`\kappa = \|P G\|/\|G\| \le` ``tol``; all points of all members side by side.

    ``start`` is ``(n, d)`` or ``(*members, n, d)`` on the sphere (in the ball: not outside it). ``eta`` is :math:`\eta_{rel}`;
    ``rule="first"`` divides by the first gradient's norm throughout, ``"current"`` by that of each step. ``decay`` > 0 divides step t
    by 1 + decay t. A ReLU's ascent needs that to settle on its kinks, takes all of ``max_steps``, and is judged at the end
    by :func:`~lazy_helpers.curvature.smallest_element` with ``reach``: at large width 300 steps with decay=0.1 do; few neurons make
    steep kinks, which want a last step eta / (1 + decay t) below ``reach``. Status: a converged point is a local maximum where the
    largest eigenvalue of the Riemannian Hessian is below 0, otherwise a saddle, as which we count whatever is not a strict maximum.
    Raises ``ValueError`` for a start off the sphere and numbers that are not positive.
    """
    net = problem.net
    start = check_points("start", start, net.d, net.members, net.W).expand(*problem.shape, net.d)
    eta, tol = check_positive("eta", eta), check_positive("tol", tol)
    check_count("max_steps", max_steps), check_choice("rule", rule, RULES), check_choice("within", within, SETS)
    if decay != 0:
        check_positive("decay", decay)
    _check_start(problem, start, within)
    flat = problem.flat()
    delta = start.reshape(flat.x.shape).clone()
    first = flat.grad(delta).norm(dim=-1)
    steps = torch.zeros(flat.y.shape, dtype=torch.long, device=delta.device)
    rows = []
    tiny = torch.finfo(delta.dtype).tiny
    live, part, first_live = torch.arange(len(delta), device=delta.device), flat, first
    for t in range(max_steps + 1):
        d = delta[live]
        G = part.grad(d)
        kappa = _kappa(part, d, G, first_live, within)
        going = kappa > tol
        if record:
            whole = torch.zeros_like(flat.y) if not rows else rows[-1][2].clone()
            whole[live] = kappa
            rows.append((delta.clone(), flat.value(delta), whole))
        if t == max_steps or not bool(going.any()):
            break
        if len(live) > 1 and bool((~going).all(-1).any()):  # members at rest are left out
            keep = going.any(-1)
            live, d, G, going, first_live = live[keep], d[keep], G[keep], going[keep], first_live[keep]
            part = flat.members(live)
        size = first_live if rule == "first" else G.norm(dim=-1)
        length = eta / (1 + decay * t) * part.eps / size.clamp(min=tiny)
        moved = d + length.unsqueeze(-1) * G
        eps, far = part.eps.unsqueeze(-1), moved.norm(dim=-1, keepdim=True)
        moved = moved * (eps / (far.clamp(min=tiny) if within == "sphere" else torch.maximum(far, eps)))
        delta[live] = torch.where(going.unsqueeze(-1), moved, d)
        steps[live] += going
    end = delta.view(*problem.shape, net.d)
    converged, kappa, top, status = _judged(problem, end, first.view(problem.shape), tol, within, reach)
    path = None
    if record:
        parts = [torch.stack(part) for part in zip(*rows, strict=True)]
        path = Path(*(part.view(len(rows), *problem.shape, *part.shape[3:]) for part in parts))
    return Ascent(end, problem.value(end), steps.view(problem.shape), kappa, converged, top, status, path)


def climb(problem: Inner, delta: Tensor, steps: int, eta: float = 1.0) -> Tensor:
    """So many steps on the sphere by the current gradient's norm, for training: nothing is checked or judged."""
    tiny = torch.finfo(delta.dtype).tiny
    eps = problem.eps.unsqueeze(-1)
    for _ in range(steps):
        G = problem.grad(delta)
        delta = delta + eta * eps * G / G.norm(dim=-1, keepdim=True).clamp(min=tiny)
        delta = eps * delta / delta.norm(dim=-1, keepdim=True).clamp(min=tiny)
    return delta


def _check_start(problem: Inner, start: Tensor, within: str) -> None:
    far = start.norm(dim=-1) / problem.eps
    slack = max(NUDGE, 50 * torch.finfo(start.dtype).eps)
    off = far - 1 if within == "ball" else (far - 1).abs()
    if not bool((off <= slack).all()):
        worst = float(far.flatten()[off.argmax()])
        where = "outside the ball" if within == "ball" else "off the sphere"
        raise ValueError(
            f"start lies {where}: one of its points has {worst:.4g} times the length eps: pass dynamics.on_sphere(problem, start)."
        )


def _kappa(problem: Inner, delta: Tensor, G: Tensor, first: Tensor, within: str) -> Tensor:
    """Stationarity on the set. In the ball's interior ||G|| relative to the first; on its edge 1 where G points inwards."""
    kappa = stationarity(problem, delta, G)
    if within == "sphere":
        return kappa
    kappa = torch.where((G * delta).sum(-1) >= 0, kappa, 1.0)
    free = G.norm(dim=-1) / first.clamp(min=torch.finfo(G.dtype).tiny)
    return torch.where(_inside(problem, delta), free, kappa)


def _inside(problem: Inner, delta: Tensor) -> Tensor:
    return delta.norm(dim=-1) < problem.eps * (1 - 50 * torch.finfo(delta.dtype).eps)


def _judged(problem: Inner, delta: Tensor, first: Tensor, tol: float, within: str, reach: float):
    """Whether each end is stationary, its stationarity, its relative top eigenvalue and its status."""
    kappa = _kappa(problem, delta, problem.grad(delta), first, within)
    c = radial(problem, delta)
    if problem.net.activation.smooth:
        converged = kappa <= tol
        top = top_eigenvalue(problem, delta)
        if within == "ball":
            inside = _inside(problem, delta)
            if bool(inside.any()):
                top = torch.where(inside, torch.linalg.eigvalsh(problem.hessian(delta))[..., -1], top)
        maximum = top < 0
        top = top / c.abs().clamp(min=torch.finfo(c.dtype).tiny)
    else:
        kinks = smallest_element(problem, delta, reach, tol)
        held = kinks.stationarity.to(kappa)
        top = torch.where(kinks.upward.to(c.device) > 0, math.inf, -c.sign())
        if within == "ball":
            # Inside it a stationary point, where the loss's slope is 0, is level along f: no strict maximum.
            inside = _inside(problem, delta)
            held = torch.where(inside, kappa, torch.where(c >= 0, held, 1.0))
            top = torch.where(inside, 0.0, top)
        kappa = held
        converged = kappa <= tol
        maximum = top < 0
    status = np.where(converged.cpu(), np.where(maximum.cpu(), MAXIMUM, SADDLE), NOT_CONVERGED)
    return converged, kappa, top, status


def predicted_steps(tol: float, eta: float) -> float:
    r""":math:`\ln(1/tol) / \ln(1 + \eta_{rel})`: a linear L pulls the error together by :math:`1/(1+\eta_{rel})` a step (our derivation)."""
    tol, eta = check_positive("tol", tol), check_positive("eta", eta)
    if tol >= 1:
        raise ValueError(f"tol must be below 1, got {tol!r}: pass, for example, tol=1e-6.")
    return math.log(1 / tol) / math.log1p(eta)


class SecondMaximum(NamedTuple):
    """Whether a second maximum is predicted, and whether PGA finds it; ``(*members, n)`` bool."""

    predicted: Tensor
    found: Tensor
    up: Ascent  # from + grad f
    down: Ascent  # from - grad f


def second_maximum(problem: Inner, **how) -> SecondMaximum:
    r"""Two maxima, one with :math:`\ell'` above 0 and one below: predicted to first order, and looked for from :math:`\pm\nabla f(x)`.

    A loss that falls and then rises, as the quadratic one does, has such a pair exactly where :math:`\ell'` takes both signs on the
    sphere: in each of the two open parts L has a largest value, above that on the border between them. Two ends of PGA with
    :math:`\ell'` of opposite signs therefore prove the pair, converged or not. The prediction takes :math:`f(x) \pm \varepsilon \|\nabla f(x)\|` for
    the ends of f's range; for the quadratic loss it is :math:`\varepsilon \|\nabla f(x)\| > |f(x) - y|`. A monotone loss has no such pair at any
    scale. ``how`` goes to :func:`pga`. Our derivation.
    """
    f, g = problem.net.value_and_grad_at(problem.x)
    span = problem.eps * g.norm(dim=-1)
    low, high = (problem.loss.first(f + sign * span, problem.y) for sign in (-1, 1))
    up, down = (pga(problem, gradient_start(problem, sign), **how) for sign in (1.0, -1.0))
    found = problem.residual(up.delta) * problem.residual(down.delta) < 0
    return SecondMaximum(low * high < 0, found, up, down)


class CriticalScale(NamedTuple):
    """The least scale with a second maximum, ``(*members, n)``, where one was ``found`` below the upper end of the search."""

    scale: Tensor
    found: Tensor


def critical_scale(net: Network, x0: Tensor, y, ratio=0.3, low: float = 1e-3, high: float = 1e3) -> CriticalScale:
    r"""The least :math:`\beta` in [low, high] from which :math:`\beta \rho \|x_0\| \|\nabla f(\beta x_0)\| > |f(\beta x_0) - y|` is met (quadratic loss).

    The first of 400 scales, a factor apart, that meets it, then bisection. A ReLU network is homogeneous: for it
    :math:`\beta_c = |y| / (\rho \|x_0\| \|\nabla f(x_0)\| + \mathrm{sign}(y) f(x_0))` where the denominator is above 0, and there is none elsewhere. Arguments as in
    :func:`~lazy_helpers.landscape.inner_problem`. Our derivation.
    """
    check_positive("low", low), check_positive("high", high)

    def excess(scale: Tensor | float) -> Tensor:
        problem = inner_problem(net, x0, y, scale, ratio)
        f, g = net.value_and_grad_at(problem.x)
        return problem.eps * g.norm(dim=-1) - (f - problem.y).abs()

    grid = torch.logspace(math.log10(low), math.log10(high), 400, dtype=torch.float64).tolist()
    met = torch.stack([excess(s) > 0 for s in grid])
    found = met.any(0)
    index = met.to(torch.uint8).argmax(0)  # the first
    points = torch.tensor(grid, dtype=x0.dtype, device=x0.device)
    left, right = points[(index - 1).clamp(min=0)], points[index]
    for _ in range(60):
        middle = (left * right).sqrt()
        above = excess(middle) > 0
        left, right = torch.where(above, left, middle), torch.where(above, middle, right)
    return CriticalScale(torch.where(found, right, math.nan), found)


def found_scale(net: Network, x0: Tensor, y, ratio=0.3, low: float = 0.02, high: float = 50.0, **how) -> CriticalScale:
    """The least scale in [low, high] at which :func:`second_maximum` finds a pair, to half a percent; ``how`` goes to :func:`pga`.

    Three rounds of 17 scales a factor apart, each between the last without a pair and the first with one. Arguments as in
    :func:`~lazy_helpers.landscape.inner_problem`, but for ``x0``, which is one point ``(1, d)``; returns ``(*members, 1)``.
    """
    check_positive("low", low), check_positive("high", high)
    if x0.shape[-2] != 1:
        raise ValueError(f"x0 must be one point of shape (1, d), got {tuple(x0.shape)}: pass x0[:1].")
    steps = 17
    left = torch.full((*net.members, 1), low, dtype=x0.dtype, device=x0.device)
    right = torch.full_like(left, high)
    rungs = torch.linspace(0, 1, steps, dtype=x0.dtype, device=x0.device)
    found = None
    for _ in range(3):
        scales = left * (right / left) ** rungs
        problem = inner_problem(net, x0.expand(*net.members, steps, -1), y, scales, ratio)
        met = second_maximum(problem, **how).found
        found = met.any(-1, keepdim=True) if found is None else found
        first = met.to(torch.uint8).argmax(-1, keepdim=True)
        right = torch.where(met.any(-1, keepdim=True), scales.gather(-1, first), right)
        left = torch.where(met.any(-1, keepdim=True), scales.gather(-1, (first - 1).clamp(min=0)), left)
    return CriticalScale(torch.where(found, right, math.nan), found)
