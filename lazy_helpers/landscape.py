r"""The inner problem of adversarial training: its network, its value, gradient and Hessian, in closed form.

.. math:: \max_{\|\delta\| = \varepsilon} L(\delta), \quad L(\delta) = \ell(f(x + \delta), y), \quad
          f(x) = \frac{1}{\sqrt m} \sum_{s=1}^m a_s\, \phi(w_s^\top x), \quad x = \beta x_0,\ \varepsilon = \rho \|x\|

with the scale :math:`\beta` of the inputs and the ratio :math:`\rho`. Setting and question are those of Deng et al. (ICML 2020); the formulas
are our own derivation.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from .activations import Activation, Loss, activation_named, loss_named
from .checks import check_neurons, check_points, check_positive, check_weights
from .network import TwoLayerNet


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    r"""The two-layer network of the first paper with any activation, or an ensemble of such networks.

    ``W`` is ``(*members, m, d)``, ``a`` is ``(*members, m)`` in {-1, +1}.
    """

    W: Tensor
    a: Tensor
    activation: Activation

    @classmethod
    def init(cls, d: int, m: int, activation: str | Activation = "relu", members=(), seed: int = 0, device=None, dtype=torch.float64) -> Network:  # fmt: skip
        """The draws of :meth:`~lazy_helpers.network.TwoLayerNet.init` for the same seed, in float64 unless asked otherwise."""
        net = TwoLayerNet.init(d, m, members, seed, device=device, dtype=dtype)
        return cls(net.W, net.a, activation_named(activation))

    def __post_init__(self):
        check_weights("W", self.W), check_neurons("a", self.a, self.W)

    @property
    def members(self) -> tuple[int, ...]:
        """The ensemble's leading axes, ``()`` for one network."""
        return tuple(self.W.shape[:-2])

    @property
    def m(self) -> int:
        """The width."""
        return self.W.shape[-2]

    @property
    def d(self) -> int:
        """The input dimension."""
        return self.W.shape[-1]

    def __getitem__(self, member) -> Network:
        """A member (or some) of the ensemble."""
        return self.replace(**{name: part[member] for name, part in vars(self).items() if isinstance(part, Tensor)})

    def replace(self, **changes) -> Network:
        """The same network with other ``W``, ``a`` or ``activation``."""
        return dataclasses.replace(self, **changes)

    def mirrored(self) -> Network:
        """Each neuron beside its negative, with the same w and the other sign: 2 m neurons with f = 0 everywhere."""
        return self.replace(W=torch.cat([self.W, self.W], dim=-2), a=torch.cat([self.a, -self.a], dim=-1))

    def __call__(self, x: Tensor) -> Tensor:
        """The value f. ``x`` is ``(n, d)`` or ``(*members, n, d)``; returns ``(*members, n)``."""
        return self.value_at(check_points("x", x, self.d, self.members, self.W))

    def grad(self, x: Tensor) -> Tensor:
        """The input gradient, ``(*members, n, d)``; a ReLU at 0 counts as off."""
        return self.value_and_grad_at(check_points("x", x, self.d, self.members, self.W))[1]

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        r""":math:`\nabla^2 f(x)\, v`, for ``x`` and ``v`` as in a call; returns ``(*members, n, d)``. ``ValueError`` where phi has a kink."""
        x, v = (check_points(name, part, self.d, self.members, self.W) for name, part in (("x", x), ("v", v)))
        return self.hvp_at(x, v)

    def hessian(self, x: Tensor) -> Tensor:
        r""":math:`\nabla^2 f(x)`, ``(*members, n, d, d)``. ``ValueError`` where phi has a kink."""
        return self.hessian_at(check_points("x", x, self.d, self.members, self.W))

    # What follows is unchecked.

    def value_at(self, x: Tensor) -> Tensor:
        return (self.activation.value(x @ self.W.mT) @ self.a.unsqueeze(-1)).squeeze(-1) / math.sqrt(self.m)

    def gates_at(self, x: Tensor) -> Tensor:
        """a phi'(z) / sqrt m, ``(*members, n, m)``: its product with W is the input gradient."""
        return self.activation.first(x @ self.W.mT) * (self.a / math.sqrt(self.m)).unsqueeze(-2)

    def value_and_grad_at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = x @ self.W.mT  # once for both
        a = self.a / math.sqrt(self.m)
        f = (self.activation.value(z) @ a.unsqueeze(-1)).squeeze(-1)
        return f, (self.activation.first(z) * a.unsqueeze(-2)) @ self.W

    def hvp_at(self, x: Tensor, v: Tensor) -> Tensor:
        return (self._bends(x) * (v @ self.W.mT)) @ self.W

    def hessian_at(self, x: Tensor) -> Tensor:
        return (self.W.mT.unsqueeze(-3) * self._bends(x).unsqueeze(-2)) @ self.W.unsqueeze(-3)

    def _bends(self, x: Tensor) -> Tensor:
        """a phi''(z) / sqrt m, ``(*members, n, m)``."""
        if not self.activation.smooth:
            raise ValueError(
                f"activation {self.activation.name!r} has a kink and no second derivative: take 'tanh', 'softplus' or 'quadratic', "
                "or curvature.smallest_element, which judges kinks by their generalised gradient."
            )
        return self.activation.second(x @ self.W.mT) * (self.a / math.sqrt(self.m)).unsqueeze(-2)


@dataclasses.dataclass(frozen=True, eq=False)
class Inner:
    r"""The inner problem at n points for each member: maximise :math:`L(\delta) = \ell(f(x + \delta), y)` over :math:`\|\delta\| = \varepsilon`.

    ``x`` is ``(n, d)`` or ``(*members, n, d)``, already scaled; ``y`` and ``eps`` broadcast to ``(*members, n)``. A ``delta`` is
    ``(*members, n, d)``. :func:`inner_problem` makes one from unit inputs, a scale and a ratio.
    """

    net: Network
    x: Tensor
    y: Tensor
    eps: Tensor
    loss: Loss

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*members, n)``."""
        return (*self.net.members, self.x.shape[-2])

    def value(self, delta: Tensor) -> Tensor:
        """L, ``(*members, n)``."""
        return self.loss.value(self.net.value_at(self.x + delta), self.y)

    def residual(self, delta: Tensor) -> Tensor:
        r""":math:`\ell'(f(x + \delta), y)`, for the quadratic loss f - y: ``(*members, n)``."""
        return self.loss.first(self.net.value_at(self.x + delta), self.y)

    def grad(self, delta: Tensor) -> Tensor:
        r"""G, :math:`\ell' \nabla f`: ``(*members, n, d)``."""
        f, g = self.net.value_and_grad_at(self.x + delta)
        return self.loss.first(f, self.y).unsqueeze(-1) * g

    def hvp(self, delta: Tensor, v: Tensor) -> Tensor:
        r"""H v with :math:`H = \ell'' \nabla f \nabla f^\top + \ell' \nabla^2 f`: ``(*members, n, d)``."""
        x = self.x + delta
        f, g = self.net.value_and_grad_at(x)
        along = self.loss.second(f, self.y) * (g * v).sum(-1)
        return along.unsqueeze(-1) * g + self.loss.first(f, self.y).unsqueeze(-1) * self.net.hvp_at(x, v)

    def hessian(self, delta: Tensor) -> Tensor:
        """H, ``(*members, n, d, d)``."""
        x = self.x + delta
        f, g = self.net.value_and_grad_at(x)
        outer = g.unsqueeze(-1) * g.unsqueeze(-2)
        first, second = self.loss.first(f, self.y), self.loss.second(f, self.y)
        return second[..., None, None] * outer + first[..., None, None] * self.net.hessian_at(x)

    def members(self, some) -> Inner:
        """The problem of some members of a flat one."""
        return Inner(self.net[some], self.x[some], self.y[some], self.eps[some], self.loss)

    def flat(self) -> Inner:
        """The same problem with exactly one member axis, and with x, y and eps for each member."""
        n, d, net = self.x.shape[-2], self.net.d, self.net
        each = lambda t, *tail: t.expand(*net.members, *tail).reshape(-1, *tail)  # noqa: E731
        parts = {name: part for name, part in vars(net).items() if isinstance(part, Tensor)}
        return Inner(
            net.replace(**{name: part.reshape(-1, *part.shape[len(net.members) :]) for name, part in parts.items()}),
            each(self.x, n, d), each(self.y, n), each(self.eps, n), self.loss,
        )  # fmt: skip


def inner_problem(net: Network, x0: Tensor, y: Tensor, scale=1.0, ratio=0.3, loss: str | Loss = "quadratic") -> Inner:
    r"""The inner problem at :math:`x = \beta x_0` with :math:`\varepsilon = \rho \|x\|`.

    ``x0`` is ``(n, d)`` or ``(*members, n, d)``, none of its points zero; ``y`` is a number or broadcasts to ``(*members, n)``, and is
    -1 or +1 for the logistic loss; ``scale`` beta and ``ratio`` rho are positive numbers, or tensors that broadcast likewise, so networks,
    starts and scales run side by side. Raises ``ValueError`` otherwise.
    """
    x0, loss = check_points("x0", x0, net.d, net.members, net.W), loss_named(loss)
    shape = (*net.members, x0.shape[-2])
    length = x0.norm(dim=-1)
    if not bool((length > 0).all()):
        raise ValueError("x0 holds a point at the origin, which has no scale: leave it out.")
    y = _numbers("y", y, shape, x0)
    if loss.labels and not bool((y.abs() == 1).all()):
        raise ValueError(f"y must be -1 or +1 for the {loss.name} loss: pass y.sign(), or loss='quadratic'.")
    scale, ratio = _positive("scale", scale, shape, x0), _positive("ratio", ratio, shape, x0)
    return Inner(net, scale.unsqueeze(-1) * x0, y, ratio * scale * length, loss)


def _numbers(name: str, value, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A number or a tensor as ``shape``, finite."""
    try:
        value = torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(shape)
    except (TypeError, ValueError, RuntimeError):
        got = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
        raise ValueError(
            f"{name} must be a number or broadcast to (*members, n) = {shape}, got {got}: pass {name}=1.0, or a tensor of that shape."
        ) from None
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinite values: pass finite numbers.")
    return value


def _positive(name: str, value, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """As :func:`_numbers`, all above zero."""
    if not isinstance(value, (Tensor, list, tuple)):
        check_positive(name, value)
    value = _numbers(name, value, shape, like)
    if not bool((value > 0).all()):
        raise ValueError(
            f"{name} must be above 0 everywhere, got {float(value.min()):g}: pass, for example, {name}=1.0."
        )
    return value
