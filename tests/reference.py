"""Slow, plain references for the tests: definitions written out, autograd, brute force. And hypothesis' settings."""

import math

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

import lazy_helpers as lh
from lazy_helpers.train import SHUFFLES

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("repeatable")

MEMBERS = st.sampled_from([(), (1,), (3,), (2, 2)])
BIASES = st.booleans()
SEEDS = st.integers(0, 10**6)


def stream(seed):
    return torch.Generator().manual_seed(10**9 + seed)  # no stream of the package's


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=stream(seed), dtype=dtype)


def random_signs(n, seed=0):
    return torch.where(normal(n, seed=seed) > 0, 1.0, -1.0).double()


@st.composite
def nets(draw, max_m=12, max_d=6, members=MEMBERS, bias=BIASES):
    """A small random network in float64."""
    d, m = draw(st.integers(1, max_d)), draw(st.integers(1, max_m))
    return lh.TwoLayerNet.init(d, m, draw(members), seed=draw(SEEDS), bias=draw(bias), dtype=torch.float64)


def singles(net):
    """The ensemble's members as networks of their own, in row-major order."""
    b = [None] * math.prod(net.members) if net.b is None else net.b.reshape(-1, net.m)
    rows = zip(net.W.reshape(-1, net.m, net.d), net.a.reshape(-1, net.m), b, strict=True)
    return [lh.TwoLayerNet(*parts) for parts in rows]


def value(W, a, b, x):
    """f by its definition, for autograd: a sum over neurons. W (*members, m, d), x (*members, n, d) or (n, d)."""
    z = torch.einsum("...sd,...nd->...ns", W, x.expand(*W.shape[:-2], *x.shape[-2:]))
    if b is not None:
        z = z + b[..., None, :]
    return torch.einsum("...s,...ns->...n", a, z.relu()) / math.sqrt(W.shape[-2])


def value_and_grad(net, x):
    """f and its input gradient by autograd, (*members, n) and (*members, n, d)."""
    x = x.expand(*net.members, *x.shape[-2:]).clone().requires_grad_()
    f = value(net.W, net.a, net.b, x)
    return f.detach(), torch.autograd.grad(f.sum(), x)[0]


def smallest_flip(net, x):
    """The smallest flipping step of one network at one point (d,) from every bend of the ray, in numpy; None if none."""
    W, a, x = net.W.double().numpy(), net.a.double().numpy(), x.double().numpy()
    b = np.zeros(len(a)) if net.b is None else net.b.double().numpy()

    def f(z):
        return float(a @ np.maximum(W @ z + b, 0)) / math.sqrt(len(a))

    start, grad = f(x), (a * (W @ x + b > 0)) @ W / math.sqrt(len(a))
    if start == 0 or not grad.any():
        return None
    away = -np.sign(start) * grad
    u, v = W @ x + b, W @ away
    bends = -u[v != 0] / v[v != 0]
    bends = np.concatenate([[0], np.unique(bends[bends > 0])])
    heights = np.sign(start) * np.array([f(x + eta * away) for eta in bends])
    for i in range(1, len(bends)):
        if heights[i] < -1e-11:
            high = max(heights[i - 1], 0)
            return bends[i - 1] + (bends[i] - bends[i - 1]) * high / (high - heights[i])
    fall = heights[-1] - np.sign(start) * f(x + (bends[-1] + 1) * away)
    return bends[-1] + max(heights[-1], 0) / fall if fall > 1e-9 else None


def minibatches(n, batch_size, epochs, seed, exit="step"):
    """The index sets of every step: a fresh shuffle each epoch, or one shuffle for all of them."""
    shuffle = torch.Generator().manual_seed(SHUFFLES + seed)
    for epoch in range(epochs):
        if epoch == 0 or exit == "step":
            order = torch.randperm(n, generator=shuffle)
        yield from order.split(batch_size)


def sgd_step(net, weights, X, y, lr):
    """One step on the mean logistic loss of one minibatch, by autograd."""
    inputs = X if net.b is None else torch.cat([X, torch.ones_like(X[:, :1])], 1)
    weights = weights.clone().requires_grad_()
    loss = torch.nn.functional.softplus(-y * value(weights, net.a, None, inputs)).mean()
    return (weights - lr * torch.autograd.grad(loss, weights)[0]).detach()


def sgd(net, X, y, radii, lr, batch_size, epochs, seed, exit="step"):
    """Autograd SGD of one network, measured after every step: {radius: (weights, steps, left)}."""
    W, found, step, pass_ = net.weights, {}, 0, math.ceil(len(X) / batch_size)
    for batch in minibatches(len(X), batch_size, epochs, seed, exit):
        before, W = W, sgd_step(net, W, X[batch], y[batch], lr)
        step += 1
        if exit == "epoch" and step % pass_:
            continue
        distance = float((W - net.weights).norm(dim=-1).max())
        for radius in radii:
            if radius not in found and distance > radius:
                found[radius] = (before, step - 1, True) if exit == "step" else (W, step, True)
        if len(found) == len(radii):
            break
    return {radius: found.get(radius, (W, step, False)) for radius in radii}


def pgd(net, x, y, eps, steps, alpha, box=None):
    """PGD of one network at points (n, d), written on the loss with autograd, point by point."""
    deltas = []
    for point, label in zip(x, y, strict=True):
        delta = torch.zeros_like(point)
        for _ in range(steps):
            moved = (point + delta).requires_grad_()
            f = value(net.W, net.a, net.b, moved[None])[0]
            (g,) = torch.autograd.grad(torch.nn.functional.softplus(-label * f), moved)
            if g.norm() > 0:
                delta = delta + alpha * g / g.norm()
            if box is not None:
                delta = (point + delta).clamp(*box) - point
            if delta.norm() > eps:
                delta = delta * eps / delta.norm()
        deltas.append(delta)
    return torch.stack(deltas)


def adversarial(net, X, y, eps, C0, lr, batch_size, attack_steps, epochs, seed, project="step", box=None):
    """Algorithm 1 for one network, by autograd: its weights before and after the last projection, and the robust accuracies."""
    W0 = W = net.weights
    V, per_epoch = C0 / math.sqrt(net.m), math.ceil(len(X) / batch_size)

    def projected(W):
        rows = [
            w0 + (w - w0) * min(1, V / float((w - w0).norm().clamp(min=1e-300))) for w, w0 in zip(W, W0, strict=True)
        ]
        return torch.stack(rows)

    def attacked(W):
        one = net.with_weights(W)
        moved = X + pgd(one, X, y, eps, attack_steps, 2.5 * eps / attack_steps, box)
        robust.append(float((y * value(one.W, one.a, one.b, moved) > 0).double().mean()))
        return moved

    robust = []
    order = "step" if project == "step" else "epoch"
    for step, batch in enumerate(minibatches(len(X), batch_size, epochs, seed, order)):
        if step % per_epoch == 0:
            if project == "epoch" and step:
                attacked(W)  # measured before the projection
                W = projected(W)
            moved = attacked(W)
            if project == "epoch" and step:
                robust.pop()
        W = sgd_step(net, W, moved[batch], y[batch], lr)
        if project == "step":
            W = projected(W)
    attacked(W)
    return W, projected(W), robust


def anywhere(net, C0, draw, boundary=True):
    """Random weights of the ball, on its boundary or inside."""
    move = torch.randn(net.W.shape, generator=draw, dtype=net.W.dtype)
    move = move / move.norm(dim=-1, keepdim=True)
    if not boundary:
        move = move * torch.rand(*net.W.shape[:-1], 1, generator=draw, dtype=net.W.dtype)
    return net.replace(W=net.W + C0 / math.sqrt(net.m) * move)
