r"""One SGD step of an ensemble in one pass over its weights: the inner loop of training.

With :math:`z = W x_b` and :math:`g_b = y_b / (1 + e^{y_b f(x_b)}) / B`, the step on the logistic loss is

.. math:: w_s \leftarrow w_s + \frac{\mathrm{lr}}{\sqrt m}\, a_s \sum_b g_b\, \mathbf 1[z_{sb} > 0]\, x_b .

W is what is large. A block of its rows takes its update and, while it is in the cache, meets the next minibatch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from .network import TwoLayerNet
from .tiles import TILE_BYTES

LANES = 16  # 64 bytes of float32: rows of W of such a length make the products up to twice as fast
SWEEP_BYTES = 2**23  # rows of W, with their pre-activations, that stay in a processor's cache between two products


def crews(net: TwoLayerNet, batch_size: int) -> list[slice]:
    """Members that train side by side: as many as stay in a processor's cache from step to step; on a GPU all."""
    K = len(net.W)
    size = K if net.W.is_cuda else max(1, _rows(_aligned(net.d + (net.b is not None)), batch_size, net.W) // net.m)
    return [slice(first, min(first + size, K)) for first in range(0, K, size)]


class Packing:
    """An ensemble's weights as SGD moves them: the columns that can move, then the bias, padded to aligned rows.

    A pixel that is 0 in every image never moves its weight, so training leaves its column out.
    """

    def __init__(self, net: TwoLayerNet, X: Tensor):
        """``net`` has one member axis; ``X`` is ``(n, d)``. ``points`` is ``(n + 1, width)``, the last row all 0."""
        used = (X != 0).any(0)
        used[0] = True  # one column at least, for points that are all 0
        self.net, self.inputs = net, int(used.sum())
        self.used = slice(None) if self.inputs == net.d else used.nonzero().squeeze(-1)
        self.width = _aligned(self.inputs + (net.b is not None))
        self.points = torch.zeros(len(X) + 1, self.width, dtype=X.dtype, device=X.device)
        self.points[:-1, : self.inputs] = X[:, self.used]
        if net.b is not None:
            self.points[:-1, self.inputs] = 1

    def parts(self) -> Iterator[slice]:
        """Slices of the neurons, small enough that a copy of such rows is nothing beside W."""
        rows = max(1, TILE_BYTES // (self.net.d * self.net.W.element_size()))
        return (slice(first, min(first + rows, self.net.m)) for first in range(0, self.net.m, rows))

    def start(self, k: int, part: slice) -> Tensor:
        """Member k's initial weights, ``(rows, width)``."""
        W = self.net.W[k, part][:, self.used]
        if self.net.b is not None:
            W = torch.cat([W, self.net.b[k, part, None]], dim=-1)
        return pad(W, (0, self.width - W.shape[-1])) if self.width > W.shape[-1] else W

    def pack(self) -> Tensor:
        """Every member's initial weights: ``(K, m, width)``."""
        W = self.net.W.new_empty(*self.net.a.shape, self.width)
        for k in range(len(W)):
            for part in self.parts():
                W[k, part] = self.start(k, part)
        return W

    def unpack(self, packed: Tensor, k: int, W: Tensor, b: Tensor | None) -> None:
        """Member k's ``(m, width)`` weights, written into member k of W ``(K, m, d)`` and b ``(K, m)``."""
        for part in self.parts():
            if self.inputs < self.net.d:
                W[k, part] = self.net.W[k, part]
            W[k, part][:, self.used] = packed[part, : self.inputs]
        if b is not None:
            b[k] = packed[:, self.inputs]

    def distance(self, W: Tensor, k: int) -> float:
        """The largest deviation of member k's weights W ``(m, width)`` from its initial ones."""
        parts = list(self.parts())
        room = torch.empty_like(W[parts[0]])  # one for all: freed and taken anew, such large pieces pile up
        far = W.new_empty(len(parts))
        for i, part in enumerate(parts):
            move = torch.sub(W[part], self.start(k, part), out=room[: part.stop - part.start])
            far[i] = move.norm(dim=-1).max()
        return float(far.max())


class Stepper:
    r"""K members and the next SGD step of each; every tensor stays where it is, so that a GPU can replay a step.

    ``W`` is ``(K, m, width)``, ``a`` ``(K, m)``, ``points`` ``(n + 1, width)`` with a last row of 0, ``y`` ``(n,)``; ``rates``
    ``(steps,)`` is the learning rate over the batch's size for each step of an epoch, ``order`` and ``following``
    ``(steps, K, B)`` the minibatches of this epoch and the next, as indices into the points. ``leash`` ``(K,)`` is how far a
    member may still move. A step moves a neuron by at most ``bound`` :math:`= \sum_b |g_b|\,\|x_b\|\,\mathrm{lr}/\sqrt m`;
    where that is more than some member's leash, nobody steps until the leash is renewed.
    """

    def __init__(
        self, W: Tensor, a: Tensor, points: Tensor, y: Tensor, rates: Tensor, order: Tensor, following: Tensor
    ):
        (K, m, width), B = W.shape, order.shape[-1]
        self.W, self.a, self.points = W, a.unsqueeze(-1).clone(), points
        self.labels = torch.stack([pad(y, (0, 1)), 1.0001 * points.norm(dim=-1)], dim=-1)  # with room for rounding
        largest = float(torch.linalg.vector_norm(W, ord=math.inf))
        self.rounding = torch.finfo(W.dtype).eps * largest * math.sqrt(width)  # of a row's update
        self.rates = torch.cat([rates, rates]).to(W) / math.sqrt(m)
        self.order = torch.cat([order, following]).to(W.device)  # this epoch's minibatches and the next one's
        self.place = torch.zeros(1, dtype=torch.long, device=W.device)  # steps taken in this epoch
        self.gate = W.new_zeros(K, m, B)  # a 1[z > 0] at the next step's minibatch
        self.push = W.new_zeros(K, B, width)  # the next step is gate @ push
        self.bound, self.leash = W.new_zeros(2, K, dtype=torch.float64)
        self.x, self.f = W.new_empty(K, B, width), W.new_empty(K, 1, B)
        self.rows = K * m if W.is_cuda else _rows(width, B, W)  # of W at a time
        self.z = W.new_empty(min(K * m, self.rows) * B)  # their pre-activations
        self._cut()
        self._sweep()

    def __len__(self) -> int:
        return len(self.W)

    def look(self) -> tuple[int, list[float], list[float]]:
        """Steps taken in this epoch, each member's leash and the next step's bound: the host's only wait for the device."""
        place, *rest = torch.cat([self.place.to(self.leash), self.leash, self.bound]).tolist()
        return int(place), rest[: len(self)], rest[len(self) :]

    def steps(self, count: int) -> None:
        """Up to ``count`` steps, fewer where a leash ends."""
        if self.replay is None:
            self.replay = self._captured() if self.W.is_cuda else self._step
        for _ in range(count):
            self.replay()

    def next_epoch(self, following: Tensor | None) -> None:
        """On to the next epoch; ``following`` ``(steps, K, B)`` is the one after it, ``None`` for the same again."""
        if following is not None:
            steps = len(following)
            self.order[:steps].copy_(self.order[steps:])
            self.order[steps:].copy_(following)
        self.place.zero_()

    def drop(self, i: int) -> None:
        """Takes member i out of training, in place: the last member takes its row."""
        last = len(self) - 1
        for name in ("W", "a", "gate", "push", "bound", "leash", "x", "f"):
            tensor = getattr(self, name)
            tensor[i] = tensor[last]
            setattr(self, name, tensor[:last])
        self.order[:, i] = self.order[:, last]
        self.order = self.order[:, :last]
        self._cut()

    def _cut(self) -> None:
        """Views of each block, made once: a small network's step costs what its calls cost."""
        K, m, _ = self.W.shape
        whole = self.rows >= K * m  # a crew's small members at once, or rows of one large member
        members = [slice(0, K)] if whole else [slice(k, k + 1) for k in range(K)]
        rows = [slice(0, m)] if whole else [slice(r, min(r + self.rows, m)) for r in range(0, m, self.rows)]
        self.blocks = []
        for k in members:
            for r in rows:
                W, gate, a = self.W[k, r], self.gate[k, r], self.a[k, r]
                z = self.z[: gate.numel()].view_as(gate)
                self.blocks.append((W, gate, a, a.mT, z, self.push[k], self.x[k].mT, self.f[k]))
        self.replay = None

    def _step(self) -> None:
        go = (self.leash >= self.bound).all()
        self.leash.sub_(self.bound * go)
        self.place.add_(go)
        self.push.mul_(go)
        self._sweep()

    def _rehearse(self) -> None:
        """Three steps that nobody takes: without a leash, everything stays as it is."""
        leash = self.leash.clone()
        self.leash.fill_(-1)
        for _ in range(3):
            self._step()
        self.leash.copy_(leash)

    def _captured(self) -> Callable[[], None]:
        """The step as a CUDA graph: one launch in the place of thirty."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._rehearse()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph.replay

    def _sweep(self) -> None:
        """W takes ``gate @ push`` and meets the minibatch at ``place``, in one pass."""
        batch = self.order.index_select(0, self.place).flatten()
        torch.index_select(self.points, 0, batch, out=self.x.view(-1, self.x.shape[-1]))
        y, norm = self.labels.index_select(0, batch).view(*self.f.shape, 2).unbind(-1)
        self.f.zero_()
        for W, gate, a, aT, z, push, xT, f in self.blocks:
            W.baddbmm_(gate, push)
            torch.bmm(W, xT, out=z)
            torch.gt(z, 0, out=gate).mul_(a)
            f.baddbmm_(aT, z.relu_(), alpha=-1 / math.sqrt(self.W.shape[1]))  # f is the network's value times -1
        g = (self.f * y).sigmoid_().mul_(self.rates.index_select(0, self.place))
        torch.mul((g * y).mT, self.x, out=self.push)
        # The triangle inequality.
        torch.add((g * norm).sum((1, 2)), self.rounding, out=self.bound)


def _aligned(columns: int) -> int:
    return (columns + LANES - 1) // LANES * LANES


def _rows(width: int, batch_size: int, W: Tensor) -> int:
    """How many rows of W, with their pre-activations, keep to ``SWEEP_BYTES``."""
    rows = SWEEP_BYTES // ((width + batch_size) * W.element_size())
    return max(1, rows // 64 * 64 or rows)
