"""Activations and losses with their first two derivatives, all in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .checks import check_choice

Elementwise = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Activation:
    r""":math:`\phi`, :math:`\phi'` and :math:`\phi''`, elementwise; ``second`` is ``None`` where :math:`\phi` has a kink."""

    name: str
    value: Elementwise
    first: Elementwise
    second: Elementwise | None

    @property
    def smooth(self) -> bool:
        """Twice differentiable everywhere."""
        return self.second is not None


ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("relu", torch.relu, lambda z: (z > 0).to(z), None),  # phi'(0) = 0, as in the first paper
        Activation("tanh", torch.tanh, lambda z: 1 - z.tanh() ** 2, lambda z: -2 * z.tanh() * (1 - z.tanh() ** 2)),
        Activation("softplus", softplus, torch.sigmoid, lambda z: z.sigmoid() * (-z).sigmoid()),
        Activation("quadratic", lambda z: z * z / 2, lambda z: z, torch.ones_like),
    )
}
SAYS = {"relu": "max(z, 0)", "tanh": "tanh z", "softplus": "log(1 + e^z)", "quadratic": "z^2 / 2"}


@dataclasses.dataclass(frozen=True)
class Loss:
    r""":math:`\ell(f, y)` and its first two derivatives in f, elementwise on tensors of one shape."""

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    first: Callable[[Tensor, Tensor], Tensor]
    second: Callable[[Tensor, Tensor], Tensor]
    labels: bool = False  # y must be -1 or +1

    @classmethod
    def of(cls, value: Callable[[Tensor, Tensor], Tensor], name: str = "custom", labels: bool = False) -> Loss:
        """A loss from its value alone, which must be elementwise and twice differentiable in f; autograd gives the rest."""

        def first(f: Tensor, y: Tensor) -> Tensor:
            with torch.enable_grad():
                f = f.detach().requires_grad_()
                return torch.autograd.grad(value(f, y).sum(), f)[0]

        def second(f: Tensor, y: Tensor) -> Tensor:
            with torch.enable_grad():
                f = f.detach().requires_grad_()
                (slope,) = torch.autograd.grad(value(f, y).sum(), f, create_graph=True)
                if not slope.requires_grad:  # linear in f
                    return torch.zeros_like(f)
                (curvature,) = torch.autograd.grad(slope.sum(), f, allow_unused=True)
                return torch.zeros_like(f) if curvature is None else curvature

        return cls(name, value, first, second, labels)


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("quadratic", lambda f, y: (f - y) ** 2 / 2, lambda f, y: f - y, lambda f, y: torch.ones_like(f)),
        Loss(
            "logistic",
            lambda f, y: softplus(-y * f),
            lambda f, y: -y * (-y * f).sigmoid(),
            lambda f, y: (y * f).sigmoid() * (-y * f).sigmoid(),
            labels=True,
        ),
        Loss("margin", lambda f, y: -y * f, lambda f, y: -y * torch.ones_like(f), lambda f, y: torch.zeros_like(f), labels=True),
    )
}  # fmt: skip
LOSS_SAYS = {"quadratic": "(f - y)^2 / 2", "logistic": "log(1 + e^{-yf})", "margin": "-y f"}


def activation_named(activation: str | Activation) -> Activation:
    """An :class:`Activation`, or the one of that name; ``ValueError`` lists those there are."""
    if isinstance(activation, Activation):
        return activation
    return ACTIVATIONS[check_choice("activation", activation, SAYS)]


def loss_named(loss: str | Loss) -> Loss:
    """A :class:`Loss`, or the one of that name; ``ValueError`` lists those there are."""
    return loss if isinstance(loss, Loss) else LOSSES[check_choice("loss", loss, LOSS_SAYS)]
