r"""The two-layer ReLU network of Section 2, its value and its input gradient, both in closed form.

.. math:: f(x; a, W) = \frac{1}{\sqrt m} \sum_{s=1}^m a_s\, \sigma(w_s^\top x), \qquad
          \nabla_x f = \frac{1}{\sqrt m} \sum_{s=1}^m a_s\, \sigma'(w_s^\top x)\, w_s
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .checks import check_count, check_device, check_members, check_neurons, check_points, check_seed, check_weights

BLOCK_BYTES = 2**24  # one temporary of (members, m, points): about a processor's cache, where a block is fastest


@dataclasses.dataclass(frozen=True, eq=False)
class TwoLayerNet:
    r"""A two-layer ReLU network, or an ensemble of them, with fixed output signs (paper 1, Section 2).

    ``W`` is ``(*members, m, d)``, ``a`` is ``(*members, m)`` in {-1, +1}; ``b`` is ``None`` or a hidden bias
    ``(*members, m)``, which the published scripts train and count in a neuron's deviation. Their output bias
    of :math:`\pm 1/\sqrt m` is left out. :math:`\sigma'(0) = 0`.
    """

    W: Tensor
    a: Tensor
    b: Tensor | None = None

    @classmethod
    def init(
        cls,
        d: int,
        m: int,
        members: int | tuple[int, ...] = (),
        seed: int = 0,
        bias: bool = False,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> TwoLayerNet:
        r"""Draw :math:`w_{s,0} \sim N(0, I_d)`, :math:`a_s` uniform on {-1, +1} and, if asked, :math:`b_{s,0} \sim N(0, 1)`.

        Member k (in row-major order of ``members``) is the network that ``seed + k`` alone gives, bit for bit.
        Draws are made on the CPU in float32 and then moved, so a seed names the same network on every device
        and in every dtype. Raises ``ValueError`` for sizes below 1 or a device that is not there.
        """
        check_count("d", d), check_count("m", m)
        seed = check_seed(seed)
        members, device = check_members(members), check_device(device)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating point torch.dtype, got {dtype!r}: pass dtype=torch.float32.")
        W = torch.empty(*members, m, d, dtype=dtype, device=device)
        a = torch.empty(*members, m, dtype=dtype, device=device)
        b = torch.empty(*members, m, dtype=dtype, device=device) if bias else None
        for k in range(math.prod(members)):
            generator = torch.Generator().manual_seed(seed + k)
            _draw_normal(W.view(-1, m, d)[k], generator)
            a.view(-1, m)[k] = (2 * torch.randint(0, 2, (m,), generator=generator) - 1).to(dtype)
            if b is not None:  # drawn last: with and without bias, a seed gives the same W and a
                _draw_normal(b.view(-1, m)[k], generator)
        return cls(W, a, b)

    def __post_init__(self):
        check_weights("W", self.W)
        check_neurons("a", self.a, self.W)
        if self.b is not None:
            check_neurons("b", self.b, self.W)

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

    @property
    def weights(self) -> Tensor:
        """All that is trained: ``W``, or ``[W | b]`` of shape ``(*members, m, d + 1)``, whose rows the ball measures."""
        return self.W if self.b is None else torch.cat([self.W, self.b.unsqueeze(-1)], dim=-1)

    def replace(self, **changes: Tensor) -> TwoLayerNet:
        """The same network with other ``W``, ``a`` or ``b``."""
        return dataclasses.replace(self, **changes)

    def with_weights(self, weights: Tensor) -> TwoLayerNet:
        """The same ``a`` with other ``weights``, as :attr:`weights` lays them out."""
        return self.replace(W=weights) if self.b is None else self.replace(W=weights[..., :-1], b=weights[..., -1])

    def __getitem__(self, member: int | tuple) -> TwoLayerNet:
        """A member (or a slice) of the ensemble."""
        return TwoLayerNet(self.W[member], self.a[member], None if self.b is None else self.b[member])

    def to(self, *args, **kwargs) -> TwoLayerNet:
        """The network on another device or in another dtype, as ``torch.Tensor.to``."""
        return TwoLayerNet(
            self.W.to(*args, **kwargs),
            self.a.to(*args, **kwargs),
            None if self.b is None else self.b.to(*args, **kwargs),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """The value f. ``x`` is ``(n, d)`` or ``(*members, n, d)``; returns ``(*members, n)``."""
        x = check_points("x", x, self.d, self.members, self.W)
        return torch.cat([self.value_at(self.preactivations(x[..., block, :])) for block in self.blocks(x)], dim=-1)

    def grad(self, x: Tensor) -> Tensor:
        """The input gradient, closed form. ``x`` as in a call; returns ``(*members, n, d)``."""
        x = check_points("x", x, self.d, self.members, self.W)
        return torch.cat([self.grad_at(self.preactivations(x[..., block, :])) for block in self.blocks(x)], dim=-2)

    # What follows is unchecked and works on one block of points, neurons first: (*members, m, n). W @ x.mT
    # is half as fast again as x @ W.mT on a CPU, since W is read along its rows.

    def blocks(self, x: Tensor) -> Iterator[slice]:
        """Slices of the points, such that one ``(*members, m, points)`` temporary keeps to ``BLOCK_BYTES``."""
        size, n = block_size(self.a), x.shape[-2]
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def preactivations(self, x: Tensor) -> Tensor:
        """w_s . x (+ b_s): ``(*members, m, n)``."""
        z = self.W @ x.mT
        return z if self.b is None else z.add_(self.b.unsqueeze(-1))

    def value_at(self, z: Tensor) -> Tensor:
        """f from pre-activations: ``(*members, n)``."""
        return (self.a.unsqueeze(-2) @ z.relu()).squeeze(-2) / math.sqrt(self.m)

    def grad_at(self, z: Tensor) -> Tensor:
        """The input gradient from pre-activations: ``(*members, n, d)``."""
        return (z > 0).to(z.dtype).mul_(self.a.unsqueeze(-1)).mT @ self.W / math.sqrt(self.m)


def block_size(a: Tensor) -> int:
    """How many points at a time keep one temporary to ``BLOCK_BYTES``; at least 16, for which W is worth reading."""
    return max(16, BLOCK_BYTES // (a.numel() * a.element_size()))


def _draw_normal(target: Tensor, generator: torch.Generator) -> None:
    """Standard normal draws, made on the CPU in float32; in place where the target is just that, for want of a second W."""
    if target.dtype == torch.float32 and target.device.type == "cpu":
        target.normal_(generator=generator)
    else:
        target.copy_(torch.randn(target.shape, generator=generator))
