r"""Two hidden layers in the lazy regime. Our choice throughout: the paper leaves depth open.

.. math:: f(x) = \frac{1}{\sqrt{m_2}}\, a^\top \sigma\Big(\frac{\sqrt 2}{\sqrt{m_1}}\, W_2\, \sigma(W_1 x)\Big)

with standard normal :math:`W_1, W_2` and fixed signs a. The factor :math:`\sqrt 2` undoes the half that the first ReLU takes:
at the start and for ||x|| = 1 the second layer's pre-activations are N(0, 1), as the only layer's are in the paper. So
:math:`\mathrm{E} f^2 = 1/2` and :math:`\mathrm{E}\|\nabla f\|^2 \approx d/2`, as there, and what differs afterwards is depth.
The ball is that of Definition 2.1 for each layer: :math:`\max_s \|w_s - w_{s,0}\| \le C_0/\sqrt{m_l}` for the rows of both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .attack import Flip
from .checks import (
    check_count,
    check_device,
    check_labels,
    check_members,
    check_neurons,
    check_points,
    check_positive,
    check_seed,
    check_weights,
)
from .data import load_binary
from .tiles import in_tiles, pick
from .train import SHUFFLES, Exit

GAIN = math.sqrt(2)
NOISE = 1e-12  # what rounding in float64 leaves of a zero, relative to the root of the sum of its terms' squares
LR, BATCH, EPOCHS = 0.1, 64, 1000  # as for one hidden layer


@dataclasses.dataclass(frozen=True, eq=False)
class DeepNet:
    r"""A ReLU network with two hidden layers, or an ensemble of them, with fixed output signs.

    ``W1`` is ``(*members, m1, d)``, ``W2`` ``(*members, m2, m1)``, ``a`` ``(*members, m2)`` in {-1, +1}; :math:`\sigma'(0) = 0`.
    """

    W1: Tensor
    W2: Tensor
    a: Tensor

    @classmethod
    def init(
        cls,
        d: int,
        m1: int,
        m2: int,
        members: int | tuple[int, ...] = (),
        seed: int = 0,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> DeepNet:
        """Standard normal weights and random signs; member k is what ``seed + k`` alone gives, bit for bit, on any device."""
        check_count("d", d), check_count("m1", m1), check_count("m2", m2)
        seed, members, device = check_seed(seed), check_members(members), check_device(device)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating point torch.dtype, got {dtype!r}: pass dtype=torch.float32.")
        draws = []
        for k in range(math.prod(members)):
            draw = torch.Generator().manual_seed(seed + k)  # on the CPU in float32, then moved
            W1, W2 = torch.randn(m1, d, generator=draw), torch.randn(m2, m1, generator=draw)
            draws.append((W1, W2, 2.0 * torch.randint(0, 2, (m2,), generator=draw) - 1))
        stacked = (torch.stack(part).to(device, dtype) for part in zip(*draws, strict=True))
        return cls(*(part.view(*members, *part.shape[1:]) for part in stacked))

    def __post_init__(self):
        check_weights("W1", self.W1), check_weights("W2", self.W2)
        W1, W2 = self.W1, self.W2
        if (*W2.shape[:-2], W2.shape[-1]) != W1.shape[:-1] or W2.dtype != W1.dtype or W2.device != W1.device:
            raise ValueError(
                f"W2 must have shape (*members, m2, m1) with (*members, m1) = {tuple(W1.shape[:-1])}, and W1's dtype and device, "
                f"got {tuple(W2.shape)}, {W2.dtype} on {W2.device}: pass one column for each row of W1."
            )
        check_neurons("a", self.a, W2)

    @property
    def members(self) -> tuple[int, ...]:
        """The ensemble's leading axes, ``()`` for one network."""
        return tuple(self.W1.shape[:-2])

    @property
    def d(self) -> int:
        """The input dimension."""
        return self.W1.shape[-1]

    @property
    def scale(self) -> float:
        """What multiplies a . gates2 W2 gates1 W1 x."""
        return GAIN / math.sqrt(self.W1.shape[-2] * self.W2.shape[-2])

    def flat(self) -> DeepNet:
        """The same ensemble with exactly one member axis."""
        return DeepNet(*(part.reshape(-1, *part.shape[len(self.members) :]) for part in (self.W1, self.W2, self.a)))

    def __getitem__(self, member: int | tuple | slice) -> DeepNet:
        """A member (or a slice) of the ensemble."""
        return DeepNet(self.W1[member], self.W2[member], self.a[member])

    def to(self, *args, **kwargs) -> DeepNet:
        """The network on another device or in another dtype, as ``torch.Tensor.to``."""
        return DeepNet(*(part.to(*args, **kwargs) for part in (self.W1, self.W2, self.a)))

    def __call__(self, x: Tensor) -> Tensor:
        """The value f. ``x`` is ``(n, d)`` or ``(*members, n, d)``; returns ``(*members, n)``."""
        return self._tiled(DeepNet.value_at, x)

    def grad(self, x: Tensor) -> Tensor:
        """The input gradient, closed form: two products through the gates. ``x`` as in a call; returns ``(*members, n, d)``."""
        return self._tiled(DeepNet.grad_at, x, self.d)

    def _tiled(self, formula: Callable[[DeepNet, Tensor], Tensor], x: Tensor, *last: int) -> Tensor:
        x = check_points("x", x, self.d, self.members, self.W1)
        net, out = self.flat(), x.new_empty(math.prod(self.members), x.shape[-2], *last)

        def work(members: slice, points: slice) -> None:
            out[members, points] = formula(net[members], pick(x, members, points))

        in_tiles(work, net.widest, x.shape[-2])
        return out.view(*self.members, *out.shape[1:])

    # What follows is unchecked.

    @property
    def widest(self) -> Tensor:
        """``(*members, max(m1, m2))``, for the size of a tile."""
        return max(self.W1[..., 0], self.a, key=lambda part: part.shape[-1])

    def value_at(self, x: Tensor) -> Tensor:
        """f, differentiable by autograd."""
        top = ((x @ self.W1.mT).relu() @ self.W2.mT).relu()
        return self.scale * (top @ self.a.unsqueeze(-1)).squeeze(-1)

    def grad_at(self, x: Tensor) -> Tensor:
        """The input gradient."""
        z1 = x @ self.W1.mT
        on2 = (z1.relu() @ self.W2.mT > 0).to(x)
        return self.scale * ((on2 * self.a.unsqueeze(-2)) @ self.W2 * (z1 > 0)) @ self.W1


def used_C0(net: DeepNet, start: DeepNet) -> Tensor:
    r""":math:`\sqrt{m_l} \max_s \|w_s - w_{s,0}\|` of each layer, ``(2, *members)``; the larger one is the C0 used."""
    pairs = ((net.W1, start.W1), (net.W2, start.W2))
    return torch.stack([math.sqrt(W.shape[-2]) * (W - W0).norm(dim=-1).amax(-1) for W, W0 in pairs])


def train_deep(
    net: DeepNet,
    X: Tensor,
    y: Tensor,
    C0: float = 10.0,
    lr: float = LR,
    batch_size: int = BATCH,
    max_epochs: int = EPOCHS,
    seed: int = 0,
) -> Exit:
    """Minibatch SGD of W1 and W2 on the logistic loss until a layer leaves its ball; returns the last iterate inside both.

    As :func:`~lazy_helpers.train.train_sgd` with ``exit="step"``, its minibatches included; the members one after another, so
    each is bit for bit what ``seed + k`` alone gives. ``X`` is ``(n, d)``, ``y`` ``(n,)`` in {-1, +1}; the ``Exit``'s ``net`` is a
    :class:`DeepNet`. Raises ``ValueError`` for wrong shapes, labels and numbers.
    """
    X = check_points("X", X, net.d, net.members, net.W1)
    if X.ndim > 2:
        raise ValueError(f"X must have shape (n, {net.d}), got {tuple(X.shape)}: the members share its points.")
    y = check_labels("y", y, len(X), net.W1)
    C0, lr, seed = check_positive("C0", C0), check_positive("lr", lr), check_seed(seed)
    check_count("batch_size", batch_size), check_count("max_epochs", max_epochs)
    flat = net.flat()
    ends = [_train(flat[k], X, y, C0, lr, batch_size, max_epochs, seed + k) for k in range(len(flat.a))]
    W1, W2 = (torch.stack([getattr(end, name) for end, _, _ in ends]) for name in ("W1", "W2"))
    final = DeepNet(W1.view_as(net.W1), W2.view_as(net.W2), net.a)
    steps, left = (torch.tensor([end[i] for end in ends]).view(net.members) for i in (1, 2))
    loss = softplus(-y * final(X)).mean(-1)
    return Exit(final, steps, steps / math.ceil(len(X) / batch_size), left, loss)


def _train(start, X, y, C0, lr, batch_size, max_epochs, seed) -> tuple[DeepNet, int, bool]:
    """One network's last iterate inside, its steps, and whether it left."""
    shuffle = torch.Generator().manual_seed(SHUFFLES + seed)
    net, steps = start, 0
    for _ in range(max_epochs):
        for batch in torch.randperm(len(X), generator=shuffle).to(X.device).split(batch_size):
            W1, W2 = net.W1.detach().requires_grad_(), net.W2.detach().requires_grad_()
            loss = softplus(-y[batch] * DeepNet(W1, W2, net.a).value_at(X[batch])).mean()
            g1, g2 = torch.autograd.grad(loss, (W1, W2))
            following = DeepNet(net.W1 - lr * g1, net.W2 - lr * g2, net.a)
            if not bool(used_C0(following, start).amax() <= C0):  # NaN has left
                return net, steps, True
            net, steps = following, steps + 1
    return net, steps, False


def flip_deep(net: DeepNet, x: Tensor) -> Flip:
    r"""The exact smallest :math:`\eta > 0` at which :math:`f(x - \mathrm{sign} f(x)\, \eta \nabla f(x))` changes sign.

    Conventions and errors are those of :func:`~lazy_helpers.attack.smallest_flip`. Along the ray f is piecewise linear, but a
    second layer's bends depend on which first-layer neurons are on, so they cannot all be sorted at once: all rays walk
    from bend to bend, each to its own next one, in float64, until one ends below zero.
    """
    x = check_points("x", x, net.d, net.members, net.W1)
    flat, n = net.flat(), x.shape[-2]
    fields = torch.empty(5, len(flat.a), n, dtype=torch.float64, device=x.device)

    def work(members: slice, points: slice) -> None:
        for k in range(members.start, members.stop):
            tile = pick(x, slice(k, k + 1), points).view(-1, net.d)
            fields[:, k, points] = _flips(flat[k].to(torch.float64), tile.double())

    in_tiles(work, flat.widest, n)
    eta, norm, value, grad_norm = (field.view(*net.members, n).to(x.dtype) for field in fields[:4])
    return Flip(eta, norm, fields[4].view(*net.members, n) > 0, value, grad_norm)


def _flips(net: DeepNet, x: Tensor) -> Tensor:
    """``(eta, norm, value, grad_norm, found)`` of one network at the points x ``(n, d)``, all in float64."""
    columns = net.scale * net.W2.norm(dim=0)

    def noise(terms: Tensor) -> Tensor:
        return NOISE * (terms * columns).norm(dim=-1)

    u = x @ net.W1.mT
    value, grad = net.value_at(x), net.grad_at(x)
    value = torch.where(value.abs() <= noise(u), 0.0, value)  # zero but for rounding has no sign
    v = -value.sign().unsqueeze(-1) * grad @ net.W1.mT
    eta = torch.full_like(value, math.nan)
    rows = ((value != 0) & (grad != 0).any(-1)).nonzero().squeeze(-1)
    if len(rows):
        eta[rows] = _first_crossings(net, u[rows], v[rows], value.sign()[rows], noise(u[rows]), noise(v[rows]))
    length = grad.norm(dim=-1)
    return torch.stack([eta, eta * length, value, length, (~eta.isnan()).double()])


def _first_crossings(net: DeepNet, u: Tensor, v: Tensor, orient: Tensor, noise: Tensor, drift: Tensor) -> Tensor:
    """Where h(t) = orient f, with first-layer pre-activations u + t v ``(n, m1)``, first falls below zero: NaN where nowhere.

    Zero is what |h| <= noise + t drift. Until the next bend the second layer's pre-activations are p + t q (times a constant).
    """
    root = torch.full_like(orient, math.nan)
    ahead = torch.where(u > 0, v < 0, v > 0)  # each first-layer neuron switches at most once
    bends, order = torch.where(ahead, -u / v, math.inf).sort(dim=-1)
    bends = torch.nn.functional.pad(bends, (0, 1), value=math.inf)
    p, q = u.relu() @ net.W2.mT, ((u > 0) * v) @ net.W2.mT
    on, t, passed = p > 0, torch.zeros_like(orient), torch.zeros_like(order[:, 0])
    rays, columns, weight = torch.arange(len(u), device=u.device), net.W2.mT.contiguous(), net.scale * net.a
    while len(rays):
        # A neuron of the second layer is on its way to zero where it is on and falls, or off and rises.
        second, s = torch.where(torch.where(on, q < 0, q > 0), -p / q, math.inf).min(dim=-1)
        second = torch.maximum(second, t)  # rounding may put a bend that is due just behind
        first = bends[rays, passed]
        end = torch.minimum(first, second)
        # Up to the end, h is height + t slope.
        height, slope = orient * ((on * p) @ weight), orient * ((on * q) @ weight)
        last = ~end.isfinite()  # or NaN, from weights that are not finite
        below = torch.where(last, slope < -drift, height + end * slope < -noise - end * drift)
        crossing = torch.minimum(torch.maximum(-height / slope, t), end)
        root[rays[below]] = crossing[below]

        j = order[rays, passed.clamp(max=order.shape[1] - 1)]
        inner = (first <= second) & ~last
        sign, column = v[rays, j].sign() * inner, columns[j]  # turned on, its part is added; off, taken away
        p.addcmul_((sign * u[rays, j]).unsqueeze(-1), column)
        q.addcmul_((sign * v[rays, j]).unsqueeze(-1), column)
        passed, t = passed + inner, end
        outer = (~inner & ~last).nonzero().squeeze(-1)
        on[outer, s[outer]] ^= True
        if bool((below | last).any()):
            going = ~(below | last)
            parts = (rays, p, q, on, t, passed, orient, noise, drift)
            rays, p, q, on, t, passed, orient, noise, drift = (part[going] for part in parts)
    return root


def measure_deep(cells: list, device: torch.device) -> list[dict[str, float]]:
    """Figure 2's theory variant (||x|| = 1, no bias, exits found to the step) with two hidden layers of width m.

    Each cell (of :mod:`~lazy_helpers.experiments`) by itself. Means as in Figure 2: over the correctly classified test points
    whose sign one step flips, but for ``grad_norm`` and ``abs_f``, over all.
    """
    rows = []
    for cell in cells:
        if cell.variant != "theory":
            raise ValueError(f"variant must be 'theory', got {cell.variant!r}: no other has two hidden layers.")
        train, test = (load_binary(cell.data, math.isqrt(cell.d), normalize=True, split=s) for s in ("train", "test"))
        start = DeepNet.init(cell.d, cell.m, cell.m, seed=cell.seed, device=device)
        exit = train_deep(start, train.X.to(device), train.y.to(device), cell.C0, seed=cell.seed)
        flip = flip_deep(exit.net, test.X.to(device))
        eta, norm, f, grad_norm = (part.double().cpu() for part in (flip.eta, flip.norm, flip.value, flip.grad_norm))
        right = f * test.y.double() > 0
        used = right & flip.found.cpu()
        relative = (norm / test.X.double().norm(dim=1))[used]
        first, second = used_C0(exit.net, start).tolist()
        rows.append(
            {
                "relative_perturbation": float(relative.mean()),
                "relative_perturbation_sd": float(relative.std()),
                "grad_norm": float(grad_norm.mean()),
                "eta": float(eta[used].mean()),
                "abs_f": float(f.abs().mean()),
                "test_accuracy": float(right.double().mean()),
                "misclassified": int((~right).sum()),
                "not_found": int((right & ~used).sum()),
                "steps": int(exit.steps),
                "epochs": float(exit.epochs),
                "left": bool(exit.left),
                "deviation_C0": max(first, second),
                "deviation_C0_first": first,
                "deviation_C0_second": second,
                "train_loss": float(exit.train_loss),
            }
        )
    return rows
