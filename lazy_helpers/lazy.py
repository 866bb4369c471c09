r"""The lazy regime (Definition 2.1): the ball in the 2,infinity norm around the initial weights, and its cone."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_positive, check_weights

ROWS = 2**16  # neurons handled at a time, so that a distance needs no second copy of W


class Rescaling(NamedTuple):
    """The best positive rescaling of W: ``distance = min_r ||r W - W0||`` in the 2,infinity norm, attained at ``r``."""

    distance: Tensor
    r: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class LazyBall:
    r""":math:`\{W : \max_s \|w_s - w_{s,0}\|_2 \le C_0/\sqrt m\}`, the lazy regime of Definition 2.1.

    ``W0`` is ``(*members, m, d)``; with hidden biases pass ``net.weights``, so that a neuron's bias counts in its
    deviation. Raises ``ValueError`` unless ``C0 > 0``.
    """

    W0: Tensor
    C0: float

    def __post_init__(self):
        check_positive("C0", self.C0)
        check_weights("W0", self.W0)

    @property
    def radius(self) -> float:
        """The lazy radius V = C0 / sqrt(m)."""
        return float(self.C0) / math.sqrt(self.W0.shape[-2])

    @cached_property
    def slack(self) -> float:
        """What rounding of the weights can add to a distance: a projected row may stand out by this much."""
        return 4 * torch.finfo(self.W0.dtype).eps * (float(self.W0.abs().max()) + self.radius)

    def deviations(self, W: Tensor) -> Tensor:
        """Each neuron's deviation ||w_s - w_{s,0}||: ``(*members, m)``."""
        return torch.cat(
            [
                (w - w0).norm(dim=-1)
                for w, w0 in zip(self._like(W).split(ROWS, dim=-2), self.W0.split(ROWS, dim=-2), strict=True)
            ],
            dim=-1,
        )

    def distance(self, W: Tensor) -> Tensor:
        """The 2,infinity norm of W - W0: the largest deviation, ``(*members,)``."""
        return self.deviations(W).amax(dim=-1)

    def contains(self, W: Tensor) -> Tensor:
        """Whether W lies in the ball, up to rounding of the weights: ``(*members,)`` bool."""
        return self.distance(W) <= self.radius + self.slack

    def project(self, W: Tensor) -> Tensor:
        r"""The nearest point of the ball: :math:`w_{s,0} + (w_s - w_{s,0}) \min\{1, V/\|w_s - w_{s,0}\|\}` (the projection of Algorithm 1)."""
        deviation = self.deviations(W).unsqueeze(-1)
        pulled = self.W0 + (W - self.W0) * (self.radius / deviation.clamp(min=self.radius))
        return torch.where(deviation <= self.radius + self.slack, W, pulled)

    def rescaled(self, W: Tensor) -> Rescaling:
        r"""The smallest distance of r W from W0 over r > 0, and the r that attains it ("Beyond the lazy regime").

        Squared, each neuron's distance is the parabola :math:`r^2\|w_s\|^2 - 2r\langle w_s, w_{s,0}\rangle + \|w_{s,0}\|^2`;
        their maximum is convex in r and is minimised by bisection on its slope, in float64. Where every scalar
        product is negative the infimum belongs to r -> 0, and ``r`` is 0.
        """
        w, w0 = self._like(W).double(), self.W0.double()
        A, B, C = w.square().sum(-1), (w * w0).sum(-1), w0.square().sum(-1)  # (*members, m)
        low = torch.zeros_like(A[..., 0])
        high = (
            (B / A.clamp(min=torch.finfo(A.dtype).tiny)).amax(-1).clamp(min=0)
        )  # every parabola rises beyond its vertex
        for _ in range(100):
            r = (low + high) / 2
            worst = (A * r.unsqueeze(-1).square() - 2 * B * r.unsqueeze(-1) + C).argmax(-1, keepdim=True)
            rising = A.gather(-1, worst).squeeze(-1) * r >= B.gather(-1, worst).squeeze(-1)
            low, high = torch.where(rising, low, r), torch.where(rising, r, high)
        # Not from the parabolas: close to W0 their difference would lose half the digits.
        return Rescaling((w * high[..., None, None] - w0).norm(dim=-1).amax(-1), high)

    def cone_contains(self, W: Tensor) -> Tensor:
        """Whether some positive rescaling of W lies in the ball (the cone of Figure 1): ``(*members,)`` bool."""
        best = self.rescaled(W)
        attained = (best.distance <= self.radius + self.slack) & (best.r > 0)
        approached = best.distance < self.radius  # at r = 0, by small r > 0
        return attained | approached | self.contains(W)

    def _like(self, W: Tensor) -> Tensor:
        if not isinstance(W, Tensor) or W.shape != self.W0.shape:
            got = tuple(W.shape) if isinstance(W, Tensor) else type(W).__name__
            raise ValueError(
                f"W must have the shape of W0, {tuple(self.W0.shape)}, got {got}: pass weights of the same network."
            )
        return W
