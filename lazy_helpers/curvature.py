r"""Curvature of the inner problem: stationarity, the Riemannian Hessian's top eigenvalue, and what stands for it at kinks.

With G and H the gradient and the Hessian of L at :math:`\delta`, :math:`\nu = \delta/\varepsilon` and :math:`P = I - \nu \nu^\top`, the
Riemannian Hessian on the sphere is :math:`\mathcal H = P H P - \frac{\langle G, \nu \rangle}{\varepsilon} P`; our own derivation.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import lsq_linear
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from .checks import check_positive
from .landscape import Inner

DENSE = 300  # up to this dimension a Hessian is written out; above, Lanczos asks for its products with vectors


def stationarity(problem: Inner, delta: Tensor, G: Tensor | None = None) -> Tensor:
    r""":math:`\kappa = \|P G\| / \|G\|` on the sphere, 0 where G is: ``(*members, n)``."""
    G = problem.grad(delta) if G is None else G
    n = delta / problem.eps.unsqueeze(-1)
    tangent = G - (G * n).sum(-1, keepdim=True) * n
    return tangent.norm(dim=-1) / G.norm(dim=-1).clamp(min=torch.finfo(G.dtype).tiny)


def radial(problem: Inner, delta: Tensor) -> Tensor:
    r""":math:`\langle G, \nu \rangle / \varepsilon`, the sphere's own share of the curvature: ``(*members, n)``."""
    return (problem.grad(delta) * delta).sum(-1) / problem.eps**2


def top_eigenvalue(problem: Inner, delta: Tensor, dense: int = DENSE) -> Tensor:
    r"""The largest eigenvalue of the Riemannian Hessian on the tangent space, ``(*members, n)``; d >= 2.

    Up to ``dense`` dimensions from the whole matrix, above by Lanczos' method (SciPy's ``eigsh``). Raises ``ValueError`` where the
    activation has a kink.
    """
    if problem.net.d > max(dense, 2):  # ARPACK needs two tangent directions
        return _lanczos(problem, delta, "LA", on_sphere=True) - radial(problem, delta)
    h = _reflection(delta / problem.eps.unsqueeze(-1)).unsqueeze(-1)
    R = torch.eye(problem.net.d, dtype=h.dtype, device=h.device) - 2 * h * h.mT
    tangent = (R @ problem.hessian(delta) @ R)[..., 1:, 1:]
    return torch.linalg.eigvalsh(tangent)[..., -1] - radial(problem, delta)


def regularity(problem: Inner, delta: Tensor, dense: int = DENSE) -> Tensor:
    r""":math:`\varepsilon \|H\|_2 / \|G\|`, which tends to 0 with the scale: L is then nearly linear on the sphere. ``(*members, n)``."""
    if problem.net.d > dense:
        size = _lanczos(problem, delta, "LM", on_sphere=False).abs()
    else:
        size = torch.linalg.eigvalsh(problem.hessian(delta)).abs().amax(-1)
    return problem.eps * size / problem.grad(delta).norm(dim=-1)


def _reflection(n: Tensor) -> Tensor:
    """The unit vector h of the Householder reflection I - 2 h h^T that takes n to an axis: its other rows span the tangent space."""
    h = n.clone()
    h[..., 0] += torch.where(n[..., 0] < 0, -1.0, 1.0)
    return h / h.norm(dim=-1, keepdim=True)


def _lanczos(problem: Inner, delta: Tensor, which: str, on_sphere: bool) -> Tensor:
    """An extreme eigenvalue of H at each point, restricted to the tangent space where asked."""
    flat, shape = problem.flat(), problem.shape
    delta = delta.reshape(flat.x.shape)
    found = torch.empty(flat.y.shape, dtype=delta.dtype, device=delta.device)
    for k, i in itertools.product(*map(range, found.shape)):
        here, at = slice(k, k + 1), slice(i, i + 1)
        one = Inner(flat.net[here], flat.x[here, at], flat.y[here, at], flat.eps[here, at], flat.loss)
        point = delta[here, at]
        h = _reflection(point / one.eps.unsqueeze(-1))

        def product(v, one=one, point=point, h=h):
            v = torch.as_tensor(v, dtype=point.dtype, device=point.device).view(1, 1, -1)
            if on_sphere:
                v = torch.nn.functional.pad(v, (1, 0))
                v = v - 2 * (v * h).sum() * h
            v = one.hvp(point, v)
            if on_sphere:
                v = (v - 2 * (v * h).sum() * h)[..., 1:]
            return v.double().cpu().numpy().reshape(-1)

        size = flat.net.d - on_sphere
        start = np.random.default_rng(0).standard_normal(size)  # ARPACK draws its own: a number must come out again
        operator = LinearOperator((size, size), matvec=product, dtype=float)
        found[k, i] = eigsh(operator, k=1, which=which, return_eigenvectors=False, v0=start)[0]
    return found.view(shape)


class Kinks(NamedTuple):
    """What the generalised gradient says at each point: ``(*members, n)`` each."""

    stationarity: Tensor  # of its smallest element: ||P G|| / ||G||
    active: Tensor  # how many kinks lie within reach
    ridges: Tensor  # how many of them hold the point: gates strictly between 0 and 1
    upward: Tensor  # how many of those bend L up, where no maximum can be


def smallest_element(problem: Inner, delta: Tensor, reach: float = 1e-2, tol: float = 1e-6) -> Kinks:
    r"""The smallest tangential element of the generalised gradient at points near a ReLU's kinks.

    A neuron whose kink lies within ``reach`` times :math:`\varepsilon` of the point may have any gate in [0, 1] in place of 0 or 1
    (with independent weights this is Clarke's gradient, taken over a small neighbourhood as Goldstein does); the gates that leave
    the least :math:`\|P G\|` solve a bounded least squares problem (SciPy's ``lsq_linear``), among the gates of ridges alone where these bring it
    down to ``tol`` times ||G||. A kink bends L down where
    :math:`\ell' a_s < 0`: the slope falls across it. Where all ridges do and the smallest element is zero, every direction along them is
    level for f, so there the top eigenvalue is the sphere's, :math:`-\langle G, \nu \rangle/\varepsilon`. Raises ``ValueError`` for a smooth activation.
    """
    if problem.net.activation.smooth:
        raise ValueError(f"activation {problem.net.activation.name!r} has no kinks: use curvature.top_eigenvalue.")
    check_positive("reach", reach)
    flat = problem.flat()
    deltas = delta.reshape(flat.x.shape)
    z = (flat.x + deltas) @ flat.net.W.mT  # (K, n, m)
    near = z.abs() <= reach * flat.eps.unsqueeze(-1) * flat.net.W.norm(dim=-1).unsqueeze(-2)
    slope = flat.residual(deltas) / math.sqrt(flat.net.m)
    out = torch.zeros(4, *z.shape[:2], dtype=torch.float64)
    for k in range(z.shape[0]):
        W, a = flat.net.W[k].double().cpu().numpy(), flat.net.a[k].double().cpu().numpy()
        for i in range(z.shape[1]):
            n = (deltas[k, i] / flat.eps[k, i]).double().cpu().numpy()
            some = near[k, i].cpu().numpy()
            r = float(slope[k, i])
            on = (z[k, i] > 0).cpu().numpy() & ~some
            rest = r * (a[on] @ W[on])
            columns = (r * a[some, None] * W[some]).T  # (d, active)
            # Gates that balance one another are not unique: those of ridges move first, the others only where they must.
            gates, down = (z[k, i] > 0).cpu().numpy()[some].astype(float), r * a[some] < 0
            P = np.eye(len(n)) - np.outer(n, n)
            for free in (down, np.ones_like(down)):
                if free.any():
                    fixed = rest + columns[:, ~free] @ gates[~free]
                    gates[free] = lsq_linear(P @ columns[:, free], -P @ fixed, bounds=(0, 1), method="bvls").x
                G = rest + columns @ gates
                tangent = np.linalg.norm(P @ G)
                if tangent <= tol * np.linalg.norm(G):
                    break
            held = (gates > 1e-6) & (gates < 1 - 1e-6)
            upward = (r * a[some][held] > 0).sum()
            out[:, k, i] = torch.tensor([tangent / max(np.linalg.norm(G), 1e-300), some.sum(), held.sum(), upward])
    kappa, *counts = out.view(4, *problem.shape)
    return Kinks(kappa, *(count.long() for count in counts))
