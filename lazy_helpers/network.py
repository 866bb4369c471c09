r"""The two-layer ReLU network of Section 2, its value and its input gradient, both in closed form.

.. math:: f(x; a, W) = \frac{1}{\sqrt m} \sum_{s=1}^m a_s\, \sigma(w_s^\top x), \qquad
          \nabla_x f = \frac{1}{\sqrt m} \sum_{s=1}^m a_s\, \sigma'(w_s^\top x)\, w_s
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from .checks import check_count, check_device, check_members, check_neurons, check_points, check_seed, check_weights
from .tiles import in_tiles, pick


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

    def mirrored(self) -> TwoLayerNet:
        """Each neuron beside its negative, with the same w and the other sign: 2 m neurons with f = 0 everywhere."""
        b = None if self.b is None else torch.cat([self.b, self.b], dim=-1)
        return TwoLayerNet(torch.cat([self.W, self.W], dim=-2), torch.cat([self.a, -self.a], dim=-1), b)

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
        net, f = self.flat(), x.new_empty(math.prod(self.members), x.shape[-2])

        def work(members: slice, points: slice) -> None:
            part = net[members]
            f[members, points] = part.value_at(part.preactivations(pick(x, members, points)))

        in_tiles(work, net.a, f.shape[-1])
        return f.view(*self.members, -1)

    def grad(self, x: Tensor) -> Tensor:
        """The input gradient, closed form. ``x`` as in a call; returns ``(*members, n, d)``."""
        x = check_points("x", x, self.d, self.members, self.W)
        net, g = self.flat(), x.new_empty(math.prod(self.members), *x.shape[-2:])

        def work(members: slice, points: slice) -> None:
            part = net[members]
            z = part.preactivations(pick(x, members, points))
            g[members, points] = part.gates(z).mT @ part.W / math.sqrt(self.m)

        in_tiles(work, net.a, g.shape[-2])
        return g.view(*self.members, *x.shape[-2:])

    def flat(self) -> TwoLayerNet:
        """The same ensemble with exactly one member axis."""
        b = None if self.b is None else self.b.reshape(-1, self.m)
        return TwoLayerNet(self.W.reshape(-1, self.m, self.d), self.a.reshape(-1, self.m), b)

    # What follows is unchecked and has neurons first, (*members, m, n): W @ x.mT is half as fast again as x @ W.mT
    # on a CPU, since W is read along its rows.

    def preactivations(self, x: Tensor) -> Tensor:
        """w_s . x (+ b_s): ``(*members, m, n)``."""
        z = self.W @ x.mT
        return z if self.b is None else z.add_(self.b.unsqueeze(-1))

    def value_at(self, z: Tensor) -> Tensor:
        """f from pre-activations: ``(*members, n)``."""
        return (self.a.unsqueeze(-2) @ z.relu()).squeeze(-2) / math.sqrt(self.m)

    def gates(self, z: Tensor) -> Tensor:
        """a 1[z > 0], in the place of the pre-activations z; its product with W is sqrt(m) times the input gradient."""
        return z.gt_(0).mul_(self.a.unsqueeze(-1))


def _draw_normal(target: Tensor, generator: torch.Generator) -> None:
    """Standard normal draws, made on the CPU in float32; in place where the target is just that, for want of a second W."""
    if target.dtype == torch.float32 and target.device.type == "cpu":
        target.normal_(generator=generator)
    else:
        target.copy_(torch.randn(target.shape, generator=generator))
