"""Attempts to break the certified bounds of a draw: random networks of the ball, and every tenth one optimised to that end."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from .checks import check_count, check_seed
from .extremes import farthest, largest_gradient_change, shortest
from .lazy import LazyBall
from .lemmas import (
    change_signs,
    difference_bound,
    smallest_gradient,
    value_range,
    worst_delta,
    worst_difference,
)
from .network import TwoLayerNet
from .theorem import flip_sides, worst_network

R = 0.3  # the perturbation radius at which the gradient's difference is tried
STEPS = (0.5, 1.0, 3.0, 10.0)  # steps eta, in units of 1 / ||grad f(x; W0)||^2


def challenge(net: TwoLayerNet, x: Tensor, C0: float, trials: int, seed: int = 0) -> dict[str, float]:
    """``{bound: best found over bound}`` over networks of the ball of one initial ``net``, at one unit point ``(d,)``.

    Every tenth network is optimised. Above 1 a bound is violated. Bounds that can be 0 or below, those of the values and of the
    theorem, are compared by difference: 1 plus the excess over the bound, in units of C0. Also ``trials``, ``optimised`` and
    ``violations``, which counts networks.
    """
    check_count("trials", trials)
    draw = torch.Generator().manual_seed(check_seed(seed))
    point = x.reshape(1, -1)
    V, g0 = LazyBall(net.W, C0).radius, net.grad(point)[0]
    span = value_range(net, point, C0)
    least = float(smallest_gradient(net, point, C0).lower)
    change = float(largest_gradient_change(net, point, C0))
    turn = float(difference_bound(net, point, C0, R))
    eta = torch.tensor(STEPS, dtype=torch.float64).to(x) / g0.square().sum()
    sides = dict(zip((1.0, -1.0), flip_sides(net, x, C0, eta), strict=True))
    u = net.W @ x
    loose = u.abs() <= V * (1 + 1e-6)
    slack = 1e-5 if x.dtype == torch.float32 else 1e-9  # what rounding may add

    best = dict.fromkeys(("value", "gradient", "change", "signs", "difference", "flip", "residual"), 0.0)
    violations = 0
    optimised = itertools.cycle(_optimised(net, x, C0, draw))
    for trial in range(trials):
        if trial % 10 == 9:
            W, delta = next(optimised)()
        else:
            W, delta = _random(net, V, draw), None
        f, g = float(W(point)), W.grad(point)[0]
        if delta is None:
            delta = _perturbation(W, x, g, f, trial, draw)
        sign = math.copysign(1.0, f)
        there = sign * W(x - sign * eta.unsqueeze(-1) * g).double()
        residual = there - (sign * f - eta * g.square().sum()).double()
        moved = (g - W.grad(x + delta.reshape(1, -1))[0]).norm()
        switched = (W.W @ x > 0) != (u > 0)
        found = {
            "value": 1 + max(f - float(span.high), float(span.low) - f) / C0,
            "gradient": least / max(float(g.norm()), 1e-300) if least > 0 else 0.0,
            "change": float((g - g0).norm()) / change,
            "signs": float(2 if (switched & ~loose).any() else int(switched.sum()) / max(1, int(loose.sum()))),
            "difference": float(moved) / turn,
            "flip": 1 + float((there - sides[sign].total).max()) / C0,
            "residual": 1 + float((residual - sides[sign].residual).max()) / C0,
        }
        violations += any(value > 1 + slack for value in found.values())
        best = {name: max(best[name], value) for name, value in found.items()}
    return best | {"trials": trials, "optimised": trials // 10, "violations": violations}


def _random(net: TwoLayerNet, V: float, draw: torch.Generator) -> TwoLayerNet:
    """On the boundary of the ball, or inside."""
    move = torch.nn.functional.normalize(torch.randn(net.W.shape, generator=draw, dtype=net.W.dtype), dim=-1)
    size = 1.0 if torch.rand((), generator=draw) < 0.7 else torch.rand((), generator=draw).to(net.W)
    return net.replace(W=net.W + (1 - 1e-6) * V * size * move)


def _perturbation(W: TwoLayerNet, x: Tensor, g: Tensor, f: float, trial: int, draw: torch.Generator) -> Tensor:
    """Random, or along the gradient, of length R."""
    way = torch.randn(x.shape, generator=draw, dtype=x.dtype) if trial % 2 else -math.copysign(1.0, f) * g
    return (1 - 1e-6) * R * way / way.norm().clamp(min=1e-30)


def _optimised(net: TwoLayerNet, x: Tensor, C0: float, draw: torch.Generator):
    """Ways to a network, with a perturbation that goes with it or None: each aims at one of the bounds."""

    def towards(y: Tensor) -> TwoLayerNet:
        return farthest(net, x, C0, y)

    def some(size: float) -> Tensor:
        g = net.grad(x[None])[0]
        noise = torch.randn(x.shape, generator=draw, dtype=x.dtype)
        return g / g.norm() * size + noise / noise.norm()

    def climbed() -> TwoLayerNet:
        """Far from the initial gradient: the direction of the change, followed."""
        y, g0 = some(1.0), net.grad(x[None])[0]
        for _ in range(4):
            found = towards(y)
            y = found.grad(x[None])[0] - g0
        return found

    def turned() -> tuple[TwoLayerNet, Tensor]:
        return worst_difference(net, x, C0, R, rounds=2)

    def steep() -> tuple[TwoLayerNet, Tensor]:
        found = towards(some(float(torch.randn((), generator=draw))))
        return found, (1 - 1e-6) * worst_delta(found, x[None], R, steps=15)[0]

    yield lambda: (towards(x + 0.1 * some(0.0)), None)  # nearly the largest value
    yield lambda: (towards(-x + 0.1 * some(0.0)), None)
    yield lambda: (towards(-some(3.0)), None)  # nearly the shortest gradient
    yield lambda: (shortest(net, x, C0), None)
    yield lambda: (change_signs(net, x, C0 * (1 - 1e-6)), None)
    yield lambda: (climbed(), None)
    yield steep
    yield lambda: (worst_network(net, x, C0, rounds=1).net, None)
    yield turned
    yield lambda: (towards(some(10 * float(torch.randn((), generator=draw)))), None)
