"""The paper's figures as declared grids of cells, and what is measured in a cell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from multiprocessing import parent_process

import torch

from .attack import smallest_flip
from .data import load_binary, unit_sphere
from .lazy import LazyBall
from .lemmas import smallest_gradient, value_range
from .network import TwoLayerNet
from .theorem import certified_steps, flip_bound, published_bound, same_law, worst_network
from .train import train_sgd
from .trials import challenge


@dataclasses.dataclass(frozen=True)
class Setup:
    """The choices in which a variant of the experiment differs from another."""

    normalize: bool  # ||x|| = 1, or the pixels as they are
    bias: bool  # a hidden bias, trained and counted in the deviation
    exit: str  # "epoch": the first iterate seen outside the ball; "step": the last one inside
    antialias: bool  # when the images are resized


VARIANTS = {
    "published": Setup(normalize=False, bias=True, exit="epoch", antialias=False),  # Figure 2, as its scripts ran
    "theory": Setup(
        normalize=True, bias=False, exit="step", antialias=False
    ),  # Definition 2.1; Figure 5 shares its norm and its lack of biases
    # The published procedure with one choice switched.
    "unit norm": Setup(normalize=True, bias=True, exit="epoch", antialias=False),
    "no bias": Setup(normalize=False, bias=False, exit="epoch", antialias=False),
    "step exit": Setup(normalize=False, bias=True, exit="step", antialias=False),
    "antialias": Setup(normalize=False, bias=True, exit="epoch", antialias=True),
}
LR, BATCH, EPOCHS = 0.1, 64, 1000  # the published scripts'
SEARCH_STEP, SEARCH_END = 0.001, 5.0  # ||delta|| in the published line search
BENCHMARK = 5.0  # the published benchmark curve of ||delta|| / ||x|| is 5 / sqrt(d)


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """One point of a grid; ordered so that a run does the cheap widths first and finishes a seed before the next."""

    m: int
    seed: int
    d: int
    variant: str
    C0: float = 10.0
    data: str = "mnist"

    @property
    def key(self) -> str:
        """The cell's name, and its file's."""
        return f"{self.variant.replace(' ', '-')}_{self.data}_d{self.d}_m{self.m}_C{self.C0:g}_s{self.seed}"

    @property
    def cost(self) -> float:
        """Relative cost, for the estimate of the time left: the products with W, and what a cell costs at any size."""
        return min(self.d, self.m + 1) * self.m + 2e5


@dataclasses.dataclass(frozen=True)
class Figure:
    """A named grid with its presets (``preset -> number of seeds or None -> cells``) and what is measured in a cell.

    ``measure`` takes cells that differ along the ``shared`` axes alone, and returns a dict for each, in their order: what
    such cells have in common is computed once. A cell's numbers do not depend on which others come with it.
    """

    name: str
    title: str
    presets: dict[str, Callable[[int | None], list[Cell]]]
    measure: Callable[[list[Cell], torch.device], list[dict[str, float]]]
    modules: tuple[str, ...]  # of this package: what the measurement rests on
    shared: tuple[str, ...] = ("C0",)  # fields of a cell; (): each cell by itself


def grid(variants, ds, seeds: dict[int, int], data: str = "mnist", C0s=(10.0,)) -> Callable[[int | None], list[Cell]]:
    """All cells with these variants, d and C0; ``seeds`` is the number of seeds at each width."""

    def cells(override: int | None) -> list[Cell]:
        return sorted(
            Cell(m, seed, d, variant, C0, data)
            for m, count in seeds.items()
            for seed in range(override or count)
            for d in ds
            for variant in variants
            for C0 in C0s
        )

    return cells


def measure_flips(cells: list[Cell], device: torch.device) -> list[dict[str, float]]:
    r"""Train until the weights leave the ball, then flip every test point by one exact step (Figure 2).

    The cells differ in C0 alone and share one trajectory. Means are over the correctly classified test points whose sign
    one step can flip, but for ``grad_norm`` and ``abs_f``, which are over all. The columns that end in ``_published``
    repeat the published averages: norms rounded up to the line search's grid and capped at its end, misclassified points
    averaged in as 0.
    """
    cell, radii = cells[0], tuple(cell.C0 for cell in cells)
    setup = VARIANTS[cell.variant]
    train, test = (
        load_binary(cell.data, math.isqrt(cell.d), setup.normalize, setup.antialias, split)
        for split in ("train", "test")
    )
    start = TwoLayerNet.init(cell.d, cell.m, seed=cell.seed, bias=setup.bias, device=device)
    exits = train_sgd(
        start, train.X.to(device), train.y.to(device), radii, lr=LR, batch_size=BATCH, max_epochs=EPOCHS,
        seed=cell.seed, exit=setup.exit, progress=parent_process() is None,  # workers draw no bars
    )  # fmt: skip
    length = test.X.double().norm(dim=1)
    rows = []
    for cell in cells:
        exit = exits[cell.C0]
        flip = smallest_flip(exit.net, test.X.to(device))
        eta, norm, f, grad_norm = (part.double().cpu() for part in (flip.eta, flip.norm, flip.value, flip.grad_norm))
        right = f * test.y.double() > 0
        used = right & flip.found.cpu()
        searched = (torch.ceil(norm / SEARCH_STEP) * SEARCH_STEP).nan_to_num(SEARCH_END).clamp(max=SEARCH_END)
        published = torch.where(right, searched, 0.0) / length
        relative = (norm / length)[used]
        rows.append(
            {
                "relative_perturbation": float(relative.mean()),
                "relative_perturbation_sd": float(relative.std()),
                "relative_perturbation_max": float(relative.max()),
                "relative_perturbation_published": float(published.mean()),
                "robust_error": float((~right | (norm / length <= BENCHMARK / math.sqrt(cell.d))).double().mean()),
                "grad_norm": float(grad_norm.mean()),
                "grad_norm_sd": float(grad_norm.std()),
                "eta": float(eta[used].mean()),
                "step_size": float((relative / grad_norm[used]).mean()),
                "step_size_published": float((published / grad_norm).mean()),
                "abs_f": float(f.abs().mean()),
                # the exact step over |f| / ||grad f||^2
                "linear_ratio": float((eta * grad_norm.square() / f.abs())[used].mean()),
                "test_accuracy": float(right.double().mean()),
                "misclassified": int((~right).sum()),
                "not_found": int((right & ~used).sum()),
                "beyond_search": int((norm[used] > SEARCH_END).sum()),
                "mean_input_norm": float(length.mean()),
                "steps": int(exit.steps),
                "epochs": float(exit.epochs),
                "left": bool(exit.left),
                "deviation_C0": float(LazyBall(start.weights, cell.C0).distance(exit.net.weights)) * math.sqrt(cell.m),
                "train_loss": float(exit.train_loss),
            }
        )
    return rows


def measure_certified(cells: list[Cell], device: torch.device) -> list[dict[str, float]]:
    r"""Which steps of one draw are certified for every W of the ball, by our route and by the published one (Theorem 3.1).

    Columns ``eta_*`` are NaN where there is none; ``eta_worst`` is infinite where one step does not flip the worst W found.
    """
    rows = []
    for cell in cells:
        net, x = same_law(cell.d, cell.m, cell.seed, torch.float64)
        net, x = net.to(device), x.to(device)
        point = x.unsqueeze(0)
        steps = certified_steps(net, x, cell.C0, iterations=40)
        certified = bool(steps.low.isfinite())
        # where the terms are shown
        at = steps.best if certified else 3 / net.grad(point).square().sum()
        ours = flip_bound(net, x, cell.C0, at.reshape(1), iterations=40)
        scan = torch.logspace(-0.5, 2, 26, dtype=x.dtype, device=device) / net.grad(point).square().sum()
        span, flip = value_range(net, point, cell.C0), smallest_flip(net, point)
        worst = worst_network(net.to(torch.float32), x.to(torch.float32), cell.C0, rounds=2)
        rows.append(
            {
                "certified": certified,
                "eta_low": float(steps.low),
                "eta_high": float(steps.high),
                "bound": float(steps.bound),
                "first_order": float(ours.first_order),
                "residual": float(ours.residual),
                "bound_published": float(published_bound(net, x, cell.C0, scan).min()),
                "f": float(span.f),
                "f_low": float(span.low),
                "f_high": float(span.high),
                "grad_norm": float(net.grad(point).norm()),
                "grad_lower": float(smallest_gradient(net, point, cell.C0, 40).lower),
                "eta_flip": float(flip.eta),  # at W0
                "eta_worst": worst.eta,
                "norm_worst": worst.norm,
            }
        )
    return rows


def measure_trials(cells: list[Cell], device: torch.device) -> list[dict[str, float]]:
    """Attempts to break the certified bounds of one draw; each column is best found over bound (:mod:`lazy_helpers.trials`)."""
    rows = []
    for cell in cells:
        wide = cell.m > 1_000
        net = TwoLayerNet.init(
            cell.d, cell.m, seed=cell.seed, device=device, dtype=torch.float32 if wide else torch.float64
        )
        x = torch.nn.functional.normalize(unit_sphere(1, cell.d, seed=cell.seed).to(net.W), dim=-1)[0]
        rows.append(challenge(net, x, cell.C0, 250 if wide else 1_100, cell.seed))
    return rows


SQUARES = (25, 49, 100, 196, 289, 400, 484, 625, 784)
DIMENSIONS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
CORE = ("network", "tiles", "lazy", "attack", "sgd", "train", "data")

FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "fig2",
            "Figure 2: the smallest flipping step against d, as published and as the theory has it",
            {
                "quick": grid(("published", "theory"), (25, 100, 784), {1_000: 2}),
                "paper": grid(("published", "theory"), SQUARES, {1_000: 5, 10_000: 5, 100_000: 3}),
                "digits": grid(("published", "theory"), (16, 64), {200: 3}, data="digits"),
            },
            measure_flips,
            CORE,
        ),
        Figure(
            "differences",
            "Figure 2 with one choice of the published procedure switched at a time",
            {
                "quick": grid(("unit norm", "no bias", "step exit", "antialias"), (25, 784), {1_000: 2}),
                "paper": grid(("unit norm", "no bias", "step exit", "antialias"), SQUARES, {1_000: 5}),
                "digits": grid(("unit norm", "no bias", "step exit"), (16, 64), {200: 3}, data="digits"),
            },
            measure_flips,
            CORE,
        ),
        Figure(
            "certified",
            "Theorem 3.1 for given draws: which steps are certified for every W of the ball, by two routes",
            {
                "quick": grid(("theory",), (100, 1_000, 10_000), {1_000: 1}, "sphere", (1.0, 3.0)),
                "paper": grid(("theory",), DIMENSIONS, {1_000: 4, 4_000: 1}, "sphere", (1.0, 3.0, 10.0)),
            },
            measure_certified,
            ("network", "tiles", "lazy", "attack", "extremes", "lemmas", "theorem"),
            shared=(),
        ),
        Figure(
            "trials",
            "Attempts to break the certified bounds of Lemmas 4.1 to 4.4 and Theorem 3.1",
            {
                "quick": grid(("theory",), (5, 100), {100: 1}, "sphere", (1.0, 10.0)),
                "paper": lambda seeds: (
                    grid(("theory",), (5, 25, 100), {100: 8, 1_000: 8}, "sphere", (1.0, 10.0))(seeds)
                    + grid(("theory",), (784,), {10_000: 2}, "sphere", (1.0, 10.0))(seeds)
                ),
            },
            measure_trials,
            ("network", "tiles", "lazy", "attack", "extremes", "lemmas", "theorem", "trials"),
            shared=(),
        ),
    )
}


def figure_named(name: str) -> Figure:
    """The figure, or a ``ValueError`` that lists those there are."""
    if name not in FIGURES:
        raise ValueError(f"figure {name!r} is not declared: choose one of {', '.join(FIGURES)}.")
    return FIGURES[name]


def cells_of(figure: Figure, preset: str = "paper", seeds: int | None = None) -> list[Cell]:
    """The cells of a preset, in the order in which they run."""
    if preset not in figure.presets:
        raise ValueError(
            f"preset {preset!r} does not exist for {figure.name}: choose one of {', '.join(figure.presets)}."
        )
    if seeds is not None and seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}: pass, for example, --seeds 3.")
    return figure.presets[preset](seeds)
