"""The numbers of the panels of Lemma 4.4 and Theorem 3.1 by the package, from the panels' own draws: `numbers(panel, **state)`."""

import math
from unittest import mock

import numpy as np
import torch
from panel_numbers import certificate, chi

import lazy_helpers as lh
from lazy_helpers import lemmas, theorem
from lazy_helpers.panels.weights import ROW, normals, signs

RADII = [*(float(f"{0.001 * 10 ** (k / 20):.1e}") for k in range(59)), 0.9]
GAMMA = 0.01


def plane(d, m, seed, way):
    """The network in the coordinates of x and delta, `(m, 2)` weights, and the length of grad f(x) in the d - 2 others."""
    u, z = torch.from_numpy(normals(2, m, seed, "W0")).double().unbind(-1)
    a = torch.from_numpy(signs(m, seed)).double()
    on = u > 0
    c = a * on / math.sqrt(m)
    ray = c / c.norm()
    length = float(chi(d - 1, [0], seed)[0])
    if way == "gradient":
        e = torch.where(on, a * z, z)
        return lh.TwoLayerNet(torch.stack([u, e + (length - ray @ e) * ray], -1), a), 0.0
    away = float(chi(d - 2, [1], seed)[0])
    share = length / math.hypot(float(ray @ z), away)
    return lh.TwoLayerNet(torch.stack([u, z + (share - 1) * (ray @ z) * ray], -1), a), share * away * float(c.norm())


def deltas(net, way, radii):
    """One delta for each radius, `(k, 2)`."""
    x = torch.eye(1, 2).double()
    g = net.grad(x)[0]
    ahead = -torch.sign(net(x)[0]) * g / g.norm() if way == "gradient" else torch.tensor([0.0, 1.0]).double()
    return torch.tensor(radii).double()[:, None] * ahead


def explicit(d, m, seed, way, R):
    """A network in as many coordinates as it takes to turn as the panel says, and a delta for each radius, R last."""
    net, rest = plane(d, m, seed, way)
    x, moves = torch.eye(1, 2).double(), deltas(net, way, [*RADII, R])
    gates = ((net.W @ x.T > 0).double() - (net.W @ (x + moves).T > 0).double()) * net.a[:, None] / math.sqrt(m)
    c = ((net.W[:, :1] > 0) * net.a[:, None]) / math.sqrt(m)
    T = torch.cat([c, gates], 1).T.numpy()  # rows: c and one t for each radius
    if way == "gradient":  # nothing of grad f is left, and t counts without its part along c
        T[1:] -= np.outer(T[1:] @ T[0], T[0]) / (T[0] @ T[0])
    rows = T[1:] if way == "gradient" else T
    X = triangle(rows @ rows.T) @ gaussians(len(rows), d - 2, seed, rest / math.sqrt(T[0] @ T[0]))
    if way == "gradient":
        X = np.vstack([np.zeros(X.shape[1]), X])
    others = np.linalg.lstsq(T, X, rcond=1e-10)[0]
    W = torch.cat([net.W, torch.from_numpy(others)], 1)
    wide = torch.nn.functional.pad(moves, (0, W.shape[1] - 2))
    return net.replace(W=W), torch.eye(1, W.shape[1]).double(), wide


def gaussians(k, n, seed, known):
    """k Gaussian vectors of n coordinates up to a rotation, lower triangular; the first one's length may be known."""
    B = np.zeros((k, k))
    drawn = normals(ROW, k + 2, seed, "chi")[2:, ROW // 2 :].astype(float)
    for i in range(k):
        B[i, : min(i, n)] = drawn[i, : min(i, n)]
        if i < n:
            B[i, i] = chi(n - i, [i + 2], seed)[0]
    if known:
        B[0, 0] = known
    return B


def triangle(gram):
    """Cholesky's, with a row of zeros beyond the diagonal for what depends on the rows before."""
    L = np.zeros_like(gram)
    for i in range(len(gram)):
        for j in range(i + 1):
            left = gram[i, j] - L[i, :j] @ L[j, :j]
            if i == j:
                L[i, i] = math.sqrt(left) if left > 1e-12 * gram[i, i] else 0.0
            elif L[j, j]:
                L[i, j] = left / L[j, j]
    return L


def sigma(d, m, gamma=GAMMA):
    """What sigma_max(W0) is at most, with probability 1 - gamma."""
    return math.sqrt(m) + math.sqrt(d) + math.sqrt(2 * math.log(1 / gamma))


def difference_bound(net, d, C0, R, gamma=GAMMA):
    """The package's, with the bound of sigma_max in the place of the network's own."""
    told = torch.tensor(sigma(d, net.m, gamma), dtype=torch.float64)
    with mock.patch.object(lemmas, "largest_singular_value", lambda W: told):
        return float(lemmas.difference_bound(net, torch.eye(1, 2).double(), C0, R)[0])


def difference(d, m, C0, R, delta, seed):
    net, x, moves = explicit(d, m, seed, delta, R)
    turns = lemmas.gradient_difference(net, x.expand(len(moves), -1), moves)
    signs_at = [(net.preactivations(x + move) > 0) for move in (0 * moves[-1:], moves[-1:])]
    bound = difference_bound(plane(d, m, seed, delta)[0], d, C0, R)
    return {
        "norm": turns.norm[-1],
        "along": turns.along[-1],
        "grad_norm": net.grad(x).norm(),
        "switches": (signs_at[0] != signs_at[1]).sum(),
        "predicted": lemmas.random_difference(d, R),
        "bound": bound,
        "bound_switches": m * (bound / (sigma(d, m) + C0)) ** 2,
        "sigma": sigma(d, m) + C0,
    }


def terms(net, d, C0, R, lens):
    """(margin, gradient, turning) of each side that counts."""
    x, m = torch.eye(1, 2).double(), net.m
    g, f = net.grad(x)[0], net(x)[0]
    if lens == "network":
        there = torch.sign(f) * net(x + deltas(net, "gradient", [R]))[0]
        return [(abs(f), g.norm(), g.norm() - (abs(f) - there) / R)]
    if lens == "paper":
        part = GAMMA / 3
        turning = difference_bound(net, d, C0, R, part)
        return [(lemmas.value_bound(m, C0, part), lemmas.gradient_bound(d, m, C0, part), turning)]
    span, y = lemmas.value_range(net, x, C0), -g / g.norm()
    least, _ = certificate(net, x[0], C0, y)
    T, u = torch.tensor([(sigma(d, m) + C0) * R]).double(), net.W[:, 0]
    sides = ((float(span.high[0]), net.a > 0), (-float(span.low[0]), net.a < 0))
    return [
        (top, least, float(theorem._by_size(u[up].abs(), C0 / math.sqrt(m), T, m)[0]) / R)
        for top, up in sides
        if top > 0
    ]


def three_terms(d, m, C0, R, lens, seed):
    net, _ = plane(d, m, seed, "gradient")

    def worst(radius):
        return max((top - radius * (g - turn), top, g, turn) for top, g, turn in terms(net, d, C0, radius, lens))

    bound, margin, gradient, turning = worst(R)
    flip = lh.smallest_flip(net, torch.eye(1, 2).double())
    reached = bool(flip.found) and float(flip.norm) <= 1
    sure = [radius for radius in RADII if worst(radius)[0] < 0] if lens != "network" else []
    return {
        "margin": margin,
        "gradient": gradient,
        "turning": turning,
        "bound": bound,
        "delta_norm": float(flip.norm) if reached else None,
        "certified_from": sure[0] if sure else None,
    }


def numbers(panel, **state):
    """What the panel shows, under its own keys; None for a dash."""
    return (difference if panel == "difference" else three_terms)(**state)
