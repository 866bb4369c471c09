r"""Adversarial training on the quadratic loss at a scale :math:`\beta` of the inputs and a fixed ratio :math:`\rho`.

.. math:: \min_W \frac1n \sum_i \max_{\|\delta_i\| = \rho\beta} \tfrac12 \big(f(\beta x_i + \delta_i; W) - y_i\big)^2, \qquad \|x_i\| = 1

by full-batch gradient descent with the learning rate :math:`c / \beta^2`. For a bias-free ReLU network
:math:`f(\beta(x + \delta)) = \beta f(x + \delta)`, so this is, exactly, training :math:`\beta f` on the unscaled inputs with that rate: the output scale
:math:`\alpha = \beta` of Chizat, Oyallon and Bach (2019). The question whether small scales help is one of Deng et al. (ICML 2020); the protocol is ours.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from .activations import LOSSES
from .checks import check_count, check_labels, check_points, check_positive
from .dynamics import climb, on_sphere
from .landscape import Inner, Network
from .lazy import LazyBall

EVALUATE = 50  # steps of the attack that judges a trained network


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenGates(Network):
    r"""The network that training sees if no gate ever moves: linear in W, its gates those of ``W0`` (ReLU).

    .. math:: f(x; W) = \frac{1}{\sqrt m} \sum_s a_s\, \mathbf 1[w_{s,0}^\top x > 0]\, w_s^\top x

    It is the network's linearisation at W0, so it is lazy at any distance from there.
    """

    W0: Tensor | None = None

    def value_and_grad_at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        g = self.gates_at(x) @ self.W
        return (g * x).sum(-1), g

    def value_at(self, x: Tensor) -> Tensor:
        return self.value_and_grad_at(x)[0]

    def gates_at(self, x: Tensor) -> Tensor:
        return ((x @ self.W0.mT) > 0).to(x) * (self.a / math.sqrt(self.m)).unsqueeze(-2)


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A network after so many steps, and what was measured on the way."""

    net: Network
    steps: int  # taken
    diverged: bool  # the loss left the finite numbers or rose to 1000 times the first
    adversarial_loss: Tensor  # (steps + 1,): before each step and after the last
    clean_loss: Tensor
    C0_used: Tensor  # sqrt(m) max ||w - w0||


def train_at_scale(
    net: Network,
    X: Tensor,
    y: Tensor,
    scale: float,
    ratio: float = 0.3,
    rate: float = 1.0,
    steps: int = 150,
    attack_steps: int = 10,
) -> Trained:
    r"""Full-batch adversarial training of one network on ``X`` ``(n, d)``, unit norms, ``y`` ``(n,)`` in {-1, +1}.

    The learning rate is ``rate`` / scale^2. Each step attacks all points anew: PGA on the sphere of radius ``ratio`` * ``scale``
    from the loss's own gradient, ``attack_steps`` steps with :math:`\eta_{rel} = 1` and the current gradient's norm. The
    clean loss is the mean of (f - y)^2 / 2 at the points themselves. Raises
    ``ValueError`` for ensembles, labels other than -1 and +1, and numbers that are not positive.
    """
    X = check_points("X", X, net.d, net.members, net.W)
    if net.members:
        raise ValueError(f"net must be one network, got members {net.members}: train net[k].")
    y = check_labels("y", y, len(X), net.W)
    scale, rate = check_positive("scale", scale), check_positive("rate", rate)
    check_count("steps", steps), check_count("attack_steps", attack_steps)
    lr, start, rows = rate / scale**2, net, []
    for t in range(steps + 1):
        problem = inner_problem_of(net, X, y, scale, ratio)
        attacked = problem.x + climb(problem, gradient_of_loss(problem), attack_steps)
        residual = net.value_at(attacked) - y
        adversarial = float(residual.square().mean() / 2)
        clean = float((net.value_at(problem.x) - y).square().mean() / 2)
        rows.append((adversarial, clean, used_C0(net, start)))
        diverged = not adversarial <= 1000 * rows[0][0]  # NaN, too
        if diverged or t == steps:
            break
        net = net.replace(W=net.W - lr * weight_gradient(net, attacked, residual))
    adversarial, clean, used = torch.tensor(rows, dtype=torch.float64).T
    return Trained(net, t, diverged, adversarial, clean, used)


def inner_problem_of(net: Network, X: Tensor, y: Tensor, scale: float, ratio: float, loss: str = "quadratic") -> Inner:
    """:func:`~lazy_helpers.landscape.inner_problem` without its checks, for a loop."""
    return Inner(net, scale * X, y, ratio * scale * X.norm(dim=-1), LOSSES[loss])


def gradient_of_loss(problem: Inner) -> Tensor:
    """Where the loss's own gradient at the input points, at length eps; along the input where that is zero."""
    G = problem.grad(torch.zeros_like(problem.x))
    return on_sphere(problem, torch.where((G != 0).any(-1, keepdim=True), G, problem.x))


def weight_gradient(net: Network, x: Tensor, residual: Tensor) -> Tensor:
    """The gradient of the mean of residual^2 / 2 in W, ``(m, d)``."""
    return (net.gates_at(x) * (residual / len(x)).unsqueeze(-1)).mT @ x


def used_C0(net: Network, start: Network) -> float:
    r"""The least C0 whose ball holds the weights: :math:`\sqrt m \max_s \|w_s - w_{s,0}\|`."""
    return math.sqrt(net.m) * float(LazyBall(start.W, 1.0).distance(net.W))


def accuracies(net: Network, X: Tensor, y: Tensor, scale: float, ratio: float) -> tuple[float, float]:
    """Robust and clean accuracy: robust where y f > 0 both at the point and after 50 steps of PGA down the margin y f."""
    problem = inner_problem_of(net, X, y, scale, ratio, "margin")
    right = y * net.value_at(problem.x) > 0
    held = y * net.value_at(problem.x + climb(problem, gradient_of_loss(problem), EVALUATE)) > 0
    return float((right & held).double().mean()), float(right.double().mean())
