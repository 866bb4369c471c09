"""The numbers of the panels of Lemmas 4.1 to 4.3 by the package, from the panels' own draws: `numbers(panel, **state)`."""

import math

import numpy as np
import torch

import lazy_helpers as lh
from lazy_helpers import extremes, lemmas
from lazy_helpers.panels.weights import normals, signs

NEURONS = 10**6  # cut into networks of m neurons
X = torch.tensor([1.0, 0.0], dtype=torch.float64)


def networks(m, seed):
    """(u, z, a), each (draws, m) in float64."""
    draws = NEURONS // m
    long = normals(1000, 1000, seed, "W0"), normals(1000, 1000, seed, "boundary"), signs(NEURONS, seed)
    return tuple(torch.from_numpy(row.ravel()[: draws * m].reshape(draws, m)).double() for row in long)


def chi(n, rows, seed):
    """A chi variable of n degrees of freedom for each of the rows: Marsaglia and Tsang's method, attempt by attempt."""
    z = normals(4 * 25, max(rows) + 1, seed, "chi")[list(rows)].astype(float).reshape(len(rows), 25, 4)
    c = n / 2 - 1 / 3
    v = (1 + z[..., 0] / (3 * math.sqrt(c))) ** 3
    with np.errstate(invalid="ignore"):
        kept = (v > 0) & (-(z[..., 2] ** 2 + z[..., 3] ** 2) / 2 < z[..., 0] ** 2 / 2 + c - c * v + c * np.log(v))
    assert kept.any(1).all()
    return np.sqrt(2 * c * v[np.arange(len(rows)), kept.argmax(1)])


def value_range(m, C0, seed):
    """Lemma 4.1's Range, (draws,) each."""
    u, _, a = networks(m, seed)
    found = lemmas.value_range(lh.TwoLayerNet(u.unsqueeze(-1), a), torch.ones(1, 1, dtype=u.dtype), C0)
    return lemmas.Range(*(part[:, 0] for part in found))


def sign_changes(m, C0, seed):
    """|S_1|, (draws,)."""
    u, _, a = networks(m, seed)
    return lemmas.sign_changes(lh.TwoLayerNet(u.unsqueeze(-1), a), torch.ones(1, 1, dtype=u.dtype), C0)[:, 0]


def gradients(d, m, C0, seed):
    """(norm, lower, found), (draws,) each: networks of two coordinates, along x and along the gradient's rest."""
    u, z, a = networks(m, seed)
    rows = range(len(u))
    first, second = (torch.from_numpy(chi(d - 1 - k, [2 * i + k for i in rows], seed)) for k in (0, 1))
    on = u > 0
    active = on.sum(1, keepdim=True)
    centred = z - (z * on).sum(1, keepdim=True) / active
    p = torch.where(on, a * (centred + first.unsqueeze(1) / active.sqrt()), z)
    out = [least_gradient(torch.stack((u[i], p[i]), -1), a[i], X, C0, float(second[i])) for i in rows]
    return tuple(torch.tensor(part) for part in zip(*out, strict=True))


def certificate(net, x, C0, y):
    """No W of the ball has a gradient whose part in the unit direction -y is shorter; and each neuron's response."""
    u, p, a = (part[:, None] for part in (net.W @ x, net.W @ y, net.a))
    best = extremes.respond(u, p, a, C0 / math.sqrt(net.m), (x @ y)[None], torch.ones(1).to(x))
    return max(0.0, -float(best.gain.sum()) / math.sqrt(net.m)), [part[:, 0] for part in best[:3]]


def shortened(net, W, x, C0):
    """W with the neurons that are active all over the ball moved from W0 against the gradient: to 0 where they can."""
    V = C0 / math.sqrt(net.m)
    sure = (net.W @ x > V).unsqueeze(-1)
    W = torch.where(sure, net.W, W)
    g = net.replace(W=W).grad(x[None])[0]
    move = min(V, float(g.norm()) * math.sqrt(net.m) / max(1, int(sure.sum()))) * g / g.norm()
    return net.replace(W=torch.where(sure, W - net.a.unsqueeze(-1) * move, W))


def least_gradient(W, a, x, C0, rest):
    """(norm, lower, found) of a network with weights (m, 2); across them it has rest / sqrt m for each gate switched."""
    net = lh.TwoLayerNet(W, a)
    m, V, u = net.m, C0 / math.sqrt(net.m), W @ x
    g = net.grad(x[None])[0]
    y = -g / g.norm()
    lower, (gate, along, across) = certificate(net, x, C0, y)
    sure = u > V
    moved = W + torch.where(sure, 0.0, along)[:, None] * x + torch.where(sure, 0.0, across)[:, None] * y
    plane = float(((a * gate)[:, None] * moved).sum(0).norm()) / math.sqrt(m)
    active, off, on = (int(which.sum()) for which in (u > 0, (u > 0) & (gate == 0), (u <= 0) & (gate > 0)))
    turned = off * (1 - off / active) + on
    switched = math.hypot(plane, math.sqrt(turned / m) * rest)
    norm, room = float(g.norm()), V * int(sure.sum()) / math.sqrt(m)
    return norm, lower, max(0.0, min(switched, norm) - room)


def numbers(panel, m, C0, gamma, seed, d=None):
    """What the panel shows, under its own keys; None for a dash."""
    if panel == "value":
        f, low, high = value_range(m, C0, seed)
        reach = torch.maximum(high, -low)
        initial, bound = lemmas.value_bound(m, 0, gamma), lemmas.value_bound(m, C0, gamma)
        return {
            "f_rms": f.square().mean().sqrt(),
            "largest": f.abs().max(),
            "bound_initial": initial,
            "beyond": (f.abs() > initial).double().mean(),
            "rise": (high - low).mean() / 2,
            "largest_in_ball": reach.max(),
            "bound": bound,
            "beyond_in_ball": (reach > bound).double().mean(),
        }
    if panel == "flips":
        flips = sign_changes(m, C0, seed).double()
        bound = lemmas.sign_change_bound(m, C0, gamma)
        return {
            "flips": flips.mean(),
            "flips_expected": lemmas.sign_change_mean(m, C0),
            "flips_linear": math.sqrt(2 / math.pi * m) * C0,
            "bound": bound,
            "share": flips.mean() / m,
            "largest": flips.max(),
            "beyond": (flips > bound).double().mean(),
            "V": C0 / math.sqrt(m),
        }
    norm, lower, found = gradients(d, m, C0, seed)
    share = 0.5 + 1 / math.pi
    return {
        "grad_norm": norm.mean(),
        "found": found.mean(),
        "lower": lower.mean(),
        "sharp": math.sqrt(d / 2) - share * C0,
        "bound": lemmas.gradient_bound(d, m, C0, gamma),
        "bound_from": bound_from(m, C0, gamma),
        "smallest": lower.min(),
        "sharp_from": math.ceil(2 * share**2 * C0**2),
    }


def bound_from(m, C0, gamma):
    """The smallest d at which Lemma 4.2's bound is above 0, None where there is none; it grows with d where it is."""
    low, high = 2, 2**50
    if lemmas.gradient_bound(high, m, C0, gamma) <= 0:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if lemmas.gradient_bound(middle, m, C0, gamma) > 0 else (middle, high)
    return high
