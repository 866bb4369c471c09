"""One network of an ensemble as a ``torch.nn.Module``: what autograd, torch.func and the attack libraries take."""

import math

import torch
from torch import Tensor

from lazy_helpers import TwoLayerNet


class Module(torch.nn.Module):
    """f of one network; ``W`` and ``b`` (if any) are parameters, the output layer a / sqrt(m) is not trained."""

    def __init__(self, net: TwoLayerNet):
        super().__init__()
        # Not torch.nn.Linear: its own random draw of 784 x 1e5 weights would be thrown away, and timed.
        self.W = torch.nn.Parameter(net.W.clone())
        self.b = None if net.b is None else torch.nn.Parameter(net.b.clone())
        self.register_buffer("output", net.a / math.sqrt(net.m))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` is ``(d,)`` or ``(n, d)``; returns ``()`` or ``(n,)``."""
        return torch.nn.functional.linear(x, self.W, self.b).relu() @ self.output


def modules(net: TwoLayerNet) -> list[Module]:
    """The members of an ensemble with one members axis, each as a module."""
    return [Module(net[k]) for k in range(len(net.W))]
