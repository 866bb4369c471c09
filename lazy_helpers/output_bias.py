r"""Figure 2 with the one thing of the published scripts that the package's networks lack: an output bias of :math:`\pm 1/\sqrt m`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .attack import smallest_flip
from .cells import BATCH, EPOCHS, LR, VARIANTS, Cell
from .lazy import LazyBall
from .measurements import DRAWN, mean_flip, prepared
from .network import TwoLayerNet
from .train import SHUFFLES


def with_output_bias(net: TwoLayerNet, c: float) -> TwoLayerNet:
    """The network f + c: ``net``, which has hidden biases, and a neuron that is 1 at every input."""
    one, whole = net.a.new_ones(1), math.sqrt((net.m + 1) / net.m)  # that of the factors 1 / sqrt(m)
    a = torch.cat([net.a * whole, one * c * math.sqrt(net.m + 1)])
    return TwoLayerNet(torch.cat([net.W, torch.zeros_like(net.W[:1])]), a, torch.cat([net.b, one]))


def train_beside(
    net: TwoLayerNet, X: Tensor, y: Tensor, c: float, C0: float, seed: int, max_epochs: int
) -> tuple[TwoLayerNet, int]:
    """SGD on f + c by autograd, c held fixed, as published: one shuffle, and the first network that an epoch's end sees outside.

    ``X`` is ``(n, d)``, ``y`` is ``(n,)`` in {-1, +1}. Returns the network without c, and the epochs.
    """
    ball, ones = LazyBall(net.weights, C0), torch.ones_like(X[:, :1])
    X, weights = torch.cat([X, ones], dim=1), net.weights.clone().requires_grad_()
    optimizer = torch.optim.SGD([weights], lr=LR)
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(SHUFFLES + seed))
    epochs, outside = 0, False
    while not outside and epochs < max_epochs:
        for batch in order.split(BATCH):
            f = (X[batch] @ weights.mT).relu() @ net.a / math.sqrt(net.m) + c
            optimizer.zero_grad()
            torch.nn.functional.softplus(-y[batch] * f).mean().backward()
            optimizer.step()
        epochs, outside = epochs + 1, bool(ball.distance(weights.detach()) > ball.radius)
    return net.with_weights(weights.detach()), epochs


def measure_output_bias(cells: list[Cell], device: torch.device) -> list[dict[str, float]]:
    """Figure 2 as published, with the output bias held fixed; its sign comes with the seed. Means as in ``measure_flips``."""
    rows = []
    for cell in cells:
        start, train, test = prepared(cell, VARIANTS[cell.variant], device)
        sign = 2 * int(torch.randint(2, (), generator=torch.Generator().manual_seed(DRAWN + cell.seed))) - 1
        c = sign / math.sqrt(cell.m)
        net, epochs = train_beside(start, train.X, train.y, c, cell.C0, cell.seed, EPOCHS)
        rows.append(
            mean_flip(smallest_flip(with_output_bias(net, c), test.X), test)
            | {
                "sign": sign,
                "epochs": epochs,
                "deviation_C0": float(LazyBall(start.weights, cell.C0).distance(net.weights)) * math.sqrt(cell.m),
            }
        )
    return rows
