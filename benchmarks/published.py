r"""Contender: the procedure of the scripts published with the paper, written anew from its description.

A ``torch.nn.Module``, autograd, ``torch.optim.SGD``, one network at a time; the flip by a line search along the fixed
normalised gradient, one test point at a time, with steps of 0.001 in ||delta|| and three forward passes a step.
"""

import dataclasses
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch_module import Module, modules

from lazy_helpers import TwoLayerNet
from lazy_helpers.train import SHUFFLES

NAME = "published procedure (autograd, one network and point at a time)"


def prepare_sgd(net: TwoLayerNet, X: Tensor, y: Tensor, batches: Tensor, lr: float) -> Callable[[], Tensor]:
    """SGD on the logistic loss, one step a row of ``batches (steps, K, B)``; the callable returns W ``(K, m, d)``."""
    batches = batches.to(X.device)

    def run() -> Tensor:
        trained = modules(net)
        for k, model in enumerate(trained):
            optimizer = torch.optim.SGD(model.parameters(), lr=lr)
            for batch in batches[:, k]:
                _step(model, optimizer, X[batch], y[batch])
        return torch.stack([model.W.detach() for model in trained])

    return run


def prepare_pgd(net: TwoLayerNet, x: Tensor, y: Tensor, eps: float, steps: int) -> Callable[[], Tensor]:
    """l2 PGD with the normalised gradient of the logistic loss at points ``(n, d)``; returns delta ``(K, n, d)``."""
    models = [model.requires_grad_(False) for model in modules(net)]
    alpha, tiny = 2.5 * eps / steps, torch.finfo(x.dtype).tiny

    def attack(model: Module) -> Tensor:
        delta = torch.zeros_like(x)
        for _ in range(steps):
            moved = (x + delta).requires_grad_()
            (g,) = torch.autograd.grad(softplus(-y * model(moved)).sum(), moved)
            # The published attack has 0/0 at a zero gradient; here delta stays.
            delta += alpha * g / g.norm(dim=-1, keepdim=True).clamp(min=tiny)
            delta *= eps / delta.norm(dim=-1, keepdim=True).clamp(min=eps)
        return delta

    return lambda: torch.stack([attack(model) for model in models])


def prepare_flips(
    net: TwoLayerNet, x: Tensor, step: float = 1e-3, end: float = 5.0, sample: int | None = None
) -> Callable[[], Tensor]:
    """||delta|| of the first flip on the grid of ``step``, NaN where there is none up to ``end``; returns ``(K, n)``.

    ``sample`` searches that many of the points only, those that :func:`sampled` names; then ``(K, sample)``.
    """
    models = [model.requires_grad_(False) for model in modules(net)]
    points = x if sample is None else x[sampled(len(x), sample)]
    return lambda: x.new_tensor([[_search(model, point, step, end) for point in points] for model in models])


def sampled(n: int, sample: int) -> Tensor:
    """Indices of ``sample`` points (all, if there are fewer), evenly spread over n: long ``(sample,)``."""
    sample = min(sample, n)
    return torch.arange(sample) * n // sample


@dataclasses.dataclass(frozen=True)
class CellTimes:
    """A cell of Figure 2 and its seconds; those of ``search`` are for ``points`` test points, and grow in proportion."""

    train: float
    search: float
    points: int
    epochs: int
    left: bool  # False: training ended inside the ball, at max_epochs
    norm: Tensor  # ||delta|| of the points searched, NaN where none was found: (points,)
    model: Module  # the first iterate seen outside


def prepare_cell(
    net: TwoLayerNet,
    X: Tensor,
    y: Tensor,
    x: Tensor,
    points: int,
    C0: float = 10.0,
    lr: float = 0.1,
    batch_size: int = 64,
    max_epochs: int = 1000,
    seed: int = 0,
    step: float = 1e-3,
    end: float = 5.0,
) -> Callable[[], CellTimes]:
    """One cell of Figure 2: train on ``X``, ``y`` until outside C0 / sqrt(m), then search ``points`` points of ``x``.

    ``net`` is an ensemble of one, K = 1. The minibatches are those of ``train_sgd(exit="epoch", seed=seed)``.
    """
    if len(net.W) != 1:
        raise ValueError(f"net must have one member, got {len(net.W)}: the scripts train one network at a time.")
    # One shuffle before training; every epoch runs through the data in that order.
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(SHUFFLES + seed))
    batches = list(zip(X[order].split(batch_size), y[order].split(batch_size), strict=True))
    points_searched = x[sampled(len(x), points)]
    radius = C0 / math.sqrt(net.m)

    def run() -> CellTimes:
        start = time.perf_counter()
        (model,) = modules(net)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        for epoch in range(1, max_epochs + 1):  # noqa: B007 the last one is returned
            for batch in batches:
                _step(model, optimizer, *batch)
            left = _distance(model, net) > radius  # the comparison waits for a GPU, so the clock is right there too
            if left:
                break
        trained = time.perf_counter()
        model.requires_grad_(False)
        norm = x.new_tensor([_search(model, point, step, end) for point in points_searched])
        searched = time.perf_counter()
        return CellTimes(trained - start, searched - trained, len(norm), epoch, left, norm, model)

    return run


def _step(model: Module, optimizer: torch.optim.Optimizer, X: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    softplus(-y * model(X)).mean().backward()
    optimizer.step()


def _distance(model: Module, start: TwoLayerNet) -> float:
    """max_s ||w_s - w_{s,0}||, a hidden bias counted in."""
    squares = (model.W.detach() - start.W[0]).square_().sum(-1)
    if model.b is not None:
        squares += (model.b.detach() - start.b[0]).square()
    return math.sqrt(float(squares.max()))


def _search(model: Module, x: Tensor, step: float, end: float) -> float:
    """The line search at one point ``(d,)``: the first multiple of ``step`` at which f has the opposite sign."""
    x = x.clone().requires_grad_()
    value = model(x)
    (g,) = torch.autograd.grad(value, x)
    x = x.detach()
    away = -value.detach().sign() * g / g.norm().clamp(min=torch.finfo(x.dtype).tiny)
    with torch.no_grad():
        for count in range(1, round(end / step) + 1):
            moved = x + count * step * away
            # Three forward passes a step, as published: f before and after, and f after once more for the label.
            before, after = model(x), model(moved)
            label = model(moved).sign()
            if before * after < 0 and label != before.sign():
                return count * step
    return math.nan
