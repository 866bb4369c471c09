"""The experiments on the first-order adversary: their cells, and what is measured in one. All of it is our own protocol.

An input is a random unit vector, or an image of unit norm; its label alternates with the seed. :math:`\\eta_{rel} = 1` unless a column
says otherwise. Runs that do not reach a tolerance count as infinitely many steps.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from .curvature import regularity
from .data import load_binary
from .dynamics import MAXIMUM, critical_scale, found_scale, on_sphere, pga, random_start, second_maximum
from .landscape import Network, inner_problem
from .scales import FrozenGates, accuracies, train_at_scale, used_C0

STARTS, RANDOM_STARTS = 4, 8  # of one network's runs; of those that look for the second maximum blindly
TOLERANCES, TOL = (1e-2, 1e-4, 1e-6, 1e-8), 1e-6
CAP = 2000  # steps of a smooth network's ascent
KINKED = {"decay": 0.1, "max_steps": 300}  # how a ReLU's settles
PROTOCOLS = {"first": ("first", 1.0), "first_slow": ("first", 0.1), "current": ("current", 1.0)}  # rule, eta_rel
IMAGES = 500  # of the training set, drawn with the seed
STEPS, LONG = 150, 400  # of training: tuned rates side by side, or one rate to the end
RATES = (1.0, 3.0, 10.0, 30.0)  # of which a long run takes what is best after a tenth of its steps
CLEAN = 0.02  # the clean loss that a long run is to reach
CHECKPOINTS, PATIENT = (50, 100, 200, 400), (200, 500, 1_000, 2_000)


@dataclasses.dataclass(frozen=True)
class Start:
    """A network before training: its activation, and how it begins."""

    activation: str
    mirrored: bool = False  # m / 2 neurons, each beside its negative: f = 0
    frozen: bool = False  # gates that never move: the network's linearisation


STARTERS = {
    "relu": Start("relu"),
    "tanh": Start("tanh"),
    "softplus": Start("softplus"),
    "quadratic": Start("quadratic"),
    "mirrored": Start("relu", mirrored=True),
    "frozen": Start("relu", frozen=True),
    "mirrored frozen": Start("relu", mirrored=True, frozen=True),
}


@dataclasses.dataclass(frozen=True, order=True)
class ScaleCell:
    """A network at a scale of its inputs; ``rate`` 0 where nothing is trained or the run tunes it itself."""

    m: int
    seed: int
    d: int
    variant: str
    scale: float
    data: str = "sphere"
    ratio: float = 0.3
    rate: float = 0.0

    @property
    def key(self) -> str:
        """The cell's name, and its file's."""
        name = f"{self.variant.replace(' ', '-')}_{self.data}_d{self.d}_m{self.m}_x{self.scale:g}_r{self.ratio:g}"
        return f"{name}_c{self.rate:g}_s{self.seed}" if self.rate else f"{name}_s{self.seed}"

    @property
    def cost(self) -> float:
        """Relative cost, for the estimate of the time left; training takes a hundred times an ascent."""
        return (self.d * self.m + 1e4) * (1 if self.data == "sphere" else 100)


def scale_grid(variants, scales, seeds: int, ds=(50,), ms=(1_000,), data: str = "sphere", rates=(0.0,)):
    """All cells with these values, ``seeds`` of each."""

    def cells(override: int | None) -> list[ScaleCell]:
        return sorted(
            ScaleCell(m, seed, d, variant, scale, data, rate=rate)
            for m in ms
            for seed in range(override or seeds)
            for d in ds
            for variant in variants
            for scale in scales
            for rate in rates
        )

    return cells


def starter(cell: ScaleCell, device: torch.device, dtype: torch.dtype) -> Network:
    """The cell's network before any training; its m neurons are m / 2 pairs where it is mirrored."""
    how = STARTERS[cell.variant]
    net = Network.init(cell.d, cell.m // 2 if how.mirrored else cell.m, how.activation, seed=cell.seed, device=device, dtype=dtype)  # fmt: skip
    net = net.mirrored() if how.mirrored else net
    return FrozenGates(net.W, net.a, net.activation, net.W) if how.frozen else net


def random_input(cell: ScaleCell, device: torch.device) -> tuple[Tensor, float]:
    """A random unit vector ``(1, d)`` and a label, for a seed the same at every scale and activation."""
    draw = torch.Generator().manual_seed(2**40 + cell.seed)
    x0 = torch.nn.functional.normalize(torch.randn(1, cell.d, generator=draw, dtype=torch.float64), dim=-1)
    return x0.to(device), 1.0 if cell.seed % 2 == 0 else -1.0


def measure_ascent(cells: list[ScaleCell], device: torch.device) -> list[dict[str, float]]:
    """PGA from random starts: steps to each tolerance (medians over the starts), what the ends are, how regular the landscape is."""
    rows = []
    for cell in cells:
        net, (x0, y) = starter(cell, device, torch.float64), random_input(cell, device)
        problem = inner_problem(net, x0.expand(STARTS, -1), y, cell.scale, cell.ratio)
        start, smooth, row = random_start(problem, cell.seed), net.activation.smooth, {}
        for name, (rule, eta) in PROTOCOLS.items():
            how = {"max_steps": CAP, "tol": TOLERANCES[-1]} if smooth else KINKED
            out = pga(problem, start, eta=eta, rule=rule, record=True, **how)
            reached = out.stationarity <= TOL
            units = out.delta / problem.eps.unsqueeze(-1)
            row |= {f"{name}_steps_{tol:g}": _median_steps(out.path.stationarity, tol) for tol in TOLERANCES}
            row |= {
                f"{name}_converged": float(reached.double().mean()),
                f"{name}_maximum": float((reached & (out.top < 0)).double().mean()),
                f"{name}_top": float(out.top.median()),
                f"{name}_kappa": float(out.stationarity.median()),
                f"{name}_plain_kappa": float(out.path.stationarity[-1].median()),
                f"{name}_apart": float(torch.cdist(units, units).max()),
                f"{name}_gap": float((out.value.max() - out.value.min()) / out.value.max()),
            }
        G0, G = problem.grad(torch.zeros_like(start)), problem.grad(start)
        row |= {
            "gradient_change": float(((G - G0).norm(dim=-1) / G0.norm(dim=-1)).median()),
            "regularity": float(regularity(problem, start).median()) if smooth else math.nan,
        }
        rows.append(row)
    return rows


def _median_steps(kappa: Tensor, tol: float) -> float:
    """The median over starts of the first step with kappa <= tol, infinite where half of them never get there; ``(steps + 1, n)``."""
    met = kappa <= tol
    first = torch.where(met.any(0), met.to(torch.uint8).argmax(0).double(), math.inf)
    low, high = (float(first.sort().values[k]) for k in ((len(first) - 1) // 2, len(first) // 2))
    return (low + high) / 2


def measure_maxima(cells: list[ScaleCell], device: torch.device) -> list[dict[str, float]]:
    """Second maxima at the scales of the cells, which differ in nothing else: predicted, found, found from random starts."""
    cell = cells[0]
    net, (x0, y) = starter(cell, device, torch.float64), random_input(cell, device)
    how = {"max_steps": KINKED["max_steps"]} if net.activation.smooth else KINKED
    scales = torch.tensor([cell.scale for cell in cells], dtype=torch.float64, device=device)
    problem = inner_problem(net, x0.expand(len(cells), -1), y, scales, cell.ratio)
    second = second_maximum(problem, **how)
    blind = inner_problem(
        net, x0.expand(len(cells) * RANDOM_STARTS, -1), y, scales.repeat_interleave(RANDOM_STARTS), cell.ratio
    )
    once = inner_problem(net, x0.expand(RANDOM_STARTS, -1), y, 1.0, cell.ratio)  # the same directions at every scale
    start = on_sphere(blind, random_start(once, cell.seed).repeat(len(cells), 1))
    ends = blind.residual(pga(blind, start, **how).delta).view(len(cells), -1)
    logistic = second_maximum(inner_problem(net, x0.expand(len(cells), -1), y, scales, cell.ratio, "logistic"), **how)
    predicted, found = critical_scale(net, x0, y, cell.ratio), found_scale(net, x0, y, cell.ratio, **how)
    return [
        {
            "predicted": bool(second.predicted[k]),
            "found": bool(second.found[k]),
            "maxima": sum(int(end.status[k] == MAXIMUM) for end in (second.up, second.down)),
            "found_blindly": bool((ends[k].max() > 0) & (ends[k].min() < 0)),
            "logistic_found": bool(logistic.found[k]),
            "critical_predicted": float(predicted.scale[0]),
            "critical_found": float(found.scale[0]),
        }
        for k in range(len(cells))
    ]


def images(cell: ScaleCell, device: torch.device):
    """The cell's training images, drawn with its seed, and the test images, all of unit norm."""
    side = math.isqrt(cell.d)
    train, test = (load_binary(cell.data, side, normalize=True, split=split) for split in ("train", "test"))
    some = torch.randperm(len(train.y), generator=torch.Generator().manual_seed(cell.seed))[:IMAGES]
    return train.X[some].to(device), train.y[some].to(device), test.X.to(device), test.y.to(device)


def measure_scales(cells: list[ScaleCell], device: torch.device) -> list[dict[str, float]]:
    """Adversarial training at the cell's scale and rate for 150 steps: losses on the way, accuracies at the end."""
    rows = []
    for cell in cells:
        X, y, test_X, test_y = images(cell, device)
        net = starter(cell, device, torch.float32)
        out = train_at_scale(net, X, y, cell.scale, cell.ratio, cell.rate, STEPS)
        robust, clean = accuracies(out.net, test_X, test_y, cell.scale, cell.ratio)
        rows.append(
            {
                **{f"adversarial_loss_{t}": _at(out.adversarial_loss, t) for t in (0, 10, 30, 50, 100, STEPS)},
                "steps_to_0.45": _first_below(out.adversarial_loss, 0.45),
                "clean_loss": float(out.clean_loss[-1]),
                "robust_accuracy": robust,
                "test_accuracy": clean,
                "C0_used": float(out.C0_used[-1]),
                "diverged": out.diverged,
                "images": len(y),
            }
        )
    return rows


def measure_start(cells: list[ScaleCell], device: torch.device) -> list[dict[str, float]]:
    """Adversarial training for 400 steps at the best of four rates: C0 used and robust accuracy at checkpoints.

    The rate is the one with the least adversarial loss after 40 steps from the same network, so every cell is tuned alike.
    """
    rows = []
    for cell in cells:
        X, y, test_X, test_y = images(cell, device)
        net = starter(cell, device, torch.float32)
        tries = {c: train_at_scale(net, X, y, cell.scale, cell.ratio, c, LONG // 10) for c in RATES}
        losses = {c: math.inf if out.diverged else float(out.adversarial_loss[-1]) for c, out in tries.items()}
        rate = min(losses, key=losses.get)
        rows.append({"best_rate": rate} | _followed(cell, net, rate, CHECKPOINTS, X, y, test_X, test_y))
    return rows


def measure_patience(cells: list[ScaleCell], device: torch.device) -> list[dict[str, float]]:
    """The same at the cell's own rate for 2000 steps: what time alone does."""
    return [
        _followed(cell, starter(cell, device, torch.float32), cell.rate, PATIENT, *images(cell, device))
        for cell in cells
    ]


def _followed(cell: ScaleCell, net: Network, rate: float, checkpoints, X, y, test_X, test_y) -> dict[str, float]:
    """What is measured at each checkpoint of one training at one rate."""
    row, here, clean_loss = {}, net, []
    for first, last in zip((0, *checkpoints), checkpoints, strict=False):
        out = train_at_scale(here, X, y, cell.scale, cell.ratio, rate, last - first)
        here = out.net
        clean_loss += out.clean_loss.tolist()[first > 0 :]  # a leg begins where the last one ended
        robust, clean = accuracies(here, test_X, test_y, cell.scale, cell.ratio)
        row |= {
            f"robust_accuracy_{last}": robust,
            f"test_accuracy_{last}": clean,
            f"adversarial_loss_{last}": float(out.adversarial_loss[-1]),
            f"clean_loss_{last}": clean_loss[-1],
            f"C0_used_{last}": used_C0(here, net),
            f"gates_moved_{last}": _gates_moved(net, here, cell.scale * X),
        }
    return row | {
        "steps_to_clean": _first_below(torch.tensor(clean_loss), CLEAN),
        "start_f": float(net.value_at(cell.scale * X).square().mean().sqrt()),
        "images": len(y),
    }


def _at(series: Tensor, t: int) -> float:
    """The value after t steps, infinite for a run that diverged before."""
    return float(series[t]) if t < len(series) else math.inf


def _first_below(series: Tensor, level: float) -> float:
    """The first step at which a series is at most ``level``, infinite where it never is."""
    met = torch.nonzero(series <= level)
    return float(met[0]) if len(met) else math.inf


def _gates_moved(start: Network, net: Network, x: Tensor) -> float:
    """The share of gates that training has switched at the training points."""
    return float((((x @ start.W.mT) > 0) != ((x @ net.W.mT) > 0)).double().mean())
