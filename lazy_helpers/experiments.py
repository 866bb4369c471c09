"""The paper's figures as declared grids of cells, and beyond them the questions that the paper leaves open."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from .cells import OF_SCRIPTS, TRAININGS, VARIANTS, Cell, RobustCell, Setup, Training, grid
from .deep import measure_deep
from .first_order import (
    RATES,
    STARTERS,
    Start,
    measure_ascent,
    measure_maxima,
    measure_patience,
    measure_scales,
    measure_start,
    scale_grid,
)
from .measurements import (
    measure_bracket,
    measure_certified,
    measure_flips,
    measure_histograms,
    measure_minimal,
    measure_reshuffled,
    measure_robust,
    measure_trials,
)
from .output_bias import measure_output_bias


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
    kin: tuple[
        str, ...
    ] = ()  # figures with the same measurement: a finished cell of theirs is one of this figure's, too
    variants: dict[str, Setup] | dict[str, Training] | dict[str, Start] = dataclasses.field(
        default_factory=lambda: VARIANTS
    )


SQUARES = (25, 49, 100, 196, 289, 400, 484, 625, 784)
DIMENSIONS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
RADII = (10.0, 20.0, 30.0, 40.0)
SIDES = (5, 6, 7, 8, 10, 14, 20, 28)
# Budgets around the one that halves robust accuracy: in units of 3 / side in the theory's setting; the published grid's own.
AROUND = (0.35, 0.55, 0.7, 0.85, 1.0, 1.15, 1.35, 1.7)
FIRST = {5: 8, 6: 6, 7: 6, 8: 5, 10: 4, 14: 3, 20: 2, 28: 1}  # the least of eight published budgets, in units of 0.05
TWINS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.75)  # around the one that halves a mirrored start's
ACROSS = (5.0, 10.0, 13.0, 16.0, 18.0, 20.0, 22.0, 25.0)  # C0 on both sides of the transition at d = 784, eps = 0.2
CORE = ("network", "tiles", "lazy", "attack", "sgd", "train", "data")
ALTERED = tuple(name for name in TRAININGS if name not in ("published", "published stop", *OF_SCRIPTS))
BOTH = lambda *_: (0.25, 0.35)  # noqa: E731  two budgets on both sides of the transition at d = 100
SCALES = (0.1, 0.3, 1.0, 3.0, 10.0)
LADDER = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
FIRST_ORDER = ("network", "lazy", "data", "activations", "landscape", "curvature", "dynamics", "scales", "first_order")
ALGORITHM = ("network", "tiles", "lazy", "attack", "train", "adversarial", "data")


def beside_figure2(variant: str) -> dict[str, Callable[[int | None], list[Cell]]]:
    """The presets of a grid whose cells stand beside those of Figure 2 at m = 1000."""
    return {
        "quick": grid((variant,), (25, 784), {1_000: 2}),
        "paper": grid((variant,), SQUARES, {1_000: 5}),
        "digits": grid((variant,), (16, 64), {200: 3}, data="digits"),
    }


def around(variant: str, side: int) -> tuple[float, ...]:
    """Eight budgets on both sides of the one that halves robust accuracy."""
    if variant in ("published", *OF_SCRIPTS):
        return tuple(round(0.05 * (FIRST[side] + k), 2) for k in range(8))
    return TWINS if variant == "mirrored" else tuple(round(3 * part / side, 3) for part in AROUND)


INSIDE = lambda variant, side: around(variant, side)[4:5]  # noqa: E731  a budget inside the transition
NEAR_HALF = lambda variant, side: around(variant, side)[2:5:2]  # noqa: E731  the same, and one before it


def sides(variants, sides_, seeds: dict[int, int], budgets=around, data: str = "mnist"):
    """Robust cells over sides and each side's budgets (Figure 4, left)."""

    def cells(override: int | None) -> list[RobustCell]:
        return sorted(
            RobustCell(m, seed, side**2, variant, 10.0, data, eps)
            for m, count in seeds.items()
            for seed in range(override or count)
            for side in sides_
            for variant in variants
            for eps in budgets(variant, side)
        )

    return cells


def radii(C0s, seeds: dict[int, int], d: int = 784, eps: float = 0.2, data: str = "mnist"):
    """Robust cells over C0 at one d and one budget (Figure 4, right)."""

    def cells(override: int | None) -> list[RobustCell]:
        return sorted(
            RobustCell(m, seed, d, "theory", C0, data, eps)
            for m, count in seeds.items()
            for seed in range(override or count)
            for C0 in C0s
        )

    return cells


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
            "fig2_mirrored",
            "Beyond Figure 2: the theory's setting from a mirrored start",
            beside_figure2("mirrored"),
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
            "reshuffled",
            "Figure 2 as published, but for a new shuffle of the data in every epoch",
            beside_figure2("published"),
            measure_reshuffled,
            CORE,
            shared=(),
        ),
        Figure(
            "output_bias",
            "Figure 2 as published, with the scripts' output bias",
            beside_figure2("published"),
            measure_output_bias,
            CORE,
            shared=(),
        ),
        Figure(
            "fig3",
            "Figure 3: the smallest flipping step against d at four radii of the ball, as published",
            {
                "quick": grid(("published",), (25, 100), {1_000: 1}, C0s=(10.0, 20.0)),
                "paper": grid(("published",), SQUARES, {1_000: 3, 10_000: 1, 100_000: 1}, C0s=RADII),
                "digits": grid(("published",), (16, 64), {200: 1}, "digits", (2.0, 5.0)),
            },
            measure_flips,
            CORE,
            kin=("fig2",),
        ),
        Figure(
            "fig6",
            "Figure 6: Figure 3 with unit norms, without biases and with the last iterate inside the ball",
            {
                "quick": grid(("theory",), (25, 100), {1_000: 1}, C0s=(10.0, 20.0)),
                "paper": grid(("theory",), SQUARES, {1_000: 3, 10_000: 1, 100_000: 1}, C0s=RADII),
                "digits": grid(("theory",), (16, 64), {200: 1}, "digits", (2.0, 5.0)),
            },
            measure_flips,
            CORE,
            kin=("fig2",),
        ),
        Figure(
            "fig7",
            "Figure 7: how ||delta||, ||grad f|| and eta spread over the test points",
            {
                "quick": grid(("published", "theory"), (784,), {1_000: 1}),
                "paper": grid(("published", "theory"), (784,), {1_000: 3, 10_000: 3}),
                "digits": grid(("published", "theory"), (64,), {200: 1}, "digits"),
            },
            measure_histograms,
            CORE,
            shared=(),
        ),
        Figure(
            "fig4_left",
            "Figure 4, left: robust accuracy after adversarial training over d and the attack's budget, C0 = 10",
            {
                "quick": sides(("theory",), (5, 10), {1_000: 1}),
                "paper": sides(("theory", "published"), SIDES, {1_000: 3}),
                "whole": sides(
                    ("published",), range(5, 29), {1_000: 1}, lambda *_: tuple(round(0.05 * k, 2) for k in range(1, 21))
                ),
                "digits": sides(("theory", "published"), (5, 8), {100: 1}, lambda *_: (0.2, 0.4), "digits"),
            },
            measure_robust,
            ALGORITHM,
            shared=(),
            variants=TRAININGS,
        ),
        Figure(
            "fig4_bracket",
            "Figure 4, left, without a box: robust accuracy under stronger attacks, and certified",
            {
                "quick": sides(("theory",), (5,), {1_000: 1}, NEAR_HALF),
                "paper": sides(("theory", "mirrored"), (5, 10, 28), {1_000: 3}, NEAR_HALF),
                "digits": sides(("theory",), (5, 8), {100: 1}, lambda *_: (0.2,), "digits"),
            },
            measure_bracket,
            (*ALGORITHM, "strongest", "robustness", "extremes"),
            shared=(),
            variants=TRAININGS,
        ),
        Figure(
            "fig4_mirrored",
            "Beyond Figure 4, left: the same from a mirrored start",
            {
                "quick": sides(("mirrored",), (5, 10), {1_000: 1}, lambda *_: (0.5, 0.6)),
                "paper": sides(("mirrored",), SIDES, {1_000: 3}),
                "digits": sides(("mirrored",), (5, 8), {100: 1}, lambda *_: (0.2, 0.4), "digits"),
            },
            measure_robust,
            ALGORITHM,
            shared=(),
            variants=TRAININGS,
        ),
        Figure(
            "fig4_right",
            "Figure 4, right: robust accuracy at d = 784 and eps = 0.2 over the width and the ball's radius",
            {
                "quick": radii((5.0, 13.0), {1_000: 1}),
                "paper": radii(ACROSS, {1_000: 3, 2_000: 3, 5_000: 3, 10_000: 3}),
                "whole": radii(ACROSS, {1_000: 3, 2_000: 3, 5_000: 3, 10_000: 3, 20_000: 3}),
                "digits": radii((2.0, 10.0), {100: 1, 200: 1}, 64, 0.2, "digits"),
            },
            measure_robust,
            ALGORITHM,
            shared=(),
            variants=TRAININGS,
        ),
        Figure(
            "algorithm",
            "Algorithm 1 with one choice switched at a time",
            {
                "quick": sides(("theory", "box"), (10,), {1_000: 1}, lambda *_: (0.25,)),
                "paper": lambda seeds: sorted(
                    {
                        *sides(ALTERED, (10,), {1_000: 3}, BOTH)(seeds),
                        *sides(("theory", "full attack"), (10,), {1_000: 6}, BOTH)(seeds),  # twelve pairs
                        *sides(("published stop",), (10,), {1_000: 1}, BOTH)(1),  # 1000 epochs each
                        # Cells of Figure 4, left: the published rate and images, and the economical attack elsewhere.
                        *sides(("slow", "published", *OF_SCRIPTS), (5, 10, 14), {1_000: 3}, INSIDE)(seeds),
                        *sides(("theory", "full attack"), (5, 10, 14), {1_000: 6}, INSIDE)(seeds),
                    }
                ),
                "digits": sides(("theory", "mirrored"), (8,), {100: 1}, lambda *_: (0.2,), "digits"),
            },
            measure_robust,
            ALGORITHM,
            shared=(),
            variants=TRAININGS,
        ),
        Figure(
            "minimal",
            "The smallest perturbation against d by three attacks, and what is certified; over m and C0; mirrored",
            {
                "quick": grid(("theory",), (25, 100), {1_000: 1}, C0s=(10.0,)),
                "paper": lambda seeds: (
                    grid(("theory",), (25, 49, 100, 196, 400, 784), {300: 5, 1_000: 5, 3_000: 3}, C0s=(1.0, 3.0, 10.0))(
                        seeds
                    )
                    + grid(("mirrored",), (25, 49, 100, 196, 400, 784), {1_000: 5}, C0s=(1.0, 3.0, 10.0))(seeds)
                    + grid(("theory",), (100, 784), {1_000: 5}, C0s=(0.5, 2.0, 5.0, 7.0, 14.0, 20.0, 30.0, 40.0))(seeds)
                ),
                "digits": grid(("theory", "mirrored"), (16, 64), {100: 1}, "digits", (1.0, 3.0)),
            },
            measure_minimal,
            (*CORE, "strongest", "robustness", "extremes"),
        ),
        Figure(
            "deep",
            "Two hidden layers: the smallest flipping step against d, in the theory's setting",
            {
                "quick": grid(("theory",), (25, 100, 784), {250: 2}),
                "paper": grid(("theory",), SQUARES, {250: 5, 1_000: 5}),
                "digits": grid(("theory",), (16, 64), {200: 3}, data="digits"),
            },
            measure_deep,
            ("tiles", "attack", "train", "data", "deep"),
            shared=(),
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
        Figure(
            "ascent",
            "Projected gradient ascent: steps to a tolerance, ends and regularity over the scale, d and m",
            {
                "quick": scale_grid(("tanh", "relu"), (0.1, 3.0), 2, ms=(100,)),
                "paper": lambda seeds: sorted(
                    {
                        *scale_grid(("relu", "tanh", "softplus", "quadratic"), SCALES, 20)(seeds),
                        *scale_grid(("tanh", "softplus"), (0.1, 1.0), 10, (10, 20, 50, 100, 200, 500))(seeds),
                        *scale_grid(("tanh", "softplus"), (0.1, 1.0), 10, ms=(100, 300, 1_000, 3_000))(seeds),
                    }
                ),
            },
            measure_ascent,
            FIRST_ORDER,
            shared=(),
            variants=STARTERS,
        ),
        Figure(
            "maxima",
            "Second maxima over the scale, predicted and found",
            {
                "quick": scale_grid(("tanh",), (0.2, 1.0), 2, ms=(100,)),
                "paper": lambda seeds: (
                    scale_grid(("relu", "tanh", "softplus", "quadratic"), LADDER, 30)(seeds)
                    + scale_grid(("tanh",), LADDER, 30, ds=(200,))(seeds)
                ),
            },
            measure_maxima,
            FIRST_ORDER,
            shared=("scale",),
            variants=STARTERS,
        ),
        Figure(
            "scales",
            "Adversarial training at a fixed ratio over the scale of the inputs, each at four rates",
            {
                "quick": scale_grid(("relu",), (0.1, 3.0), 1, (64,), (100,), "digits", (3.0,)),
                "paper": lambda seeds: (
                    scale_grid(("relu",), SCALES, 10, (100,), (400,), "mnist", RATES)(seeds)
                    + scale_grid(("relu",), SCALES, 10, (64,), (400,), "digits", RATES)(seeds)
                    + scale_grid(("tanh",), SCALES, 10, (100,), (400,), "mnist", (0.3, 1.0, 3.0, 10.0))(seeds)
                ),
            },
            measure_scales,
            FIRST_ORDER,
            shared=(),
            variants=STARTERS,
        ),
        Figure(
            "start",
            "Robust accuracy and the C0 used over the scale: the usual start, the mirrored one, and gates that never move",
            {
                "quick": scale_grid(("relu", "mirrored"), (1.0,), 1, (64,), (100,), "digits"),
                "paper": lambda seeds: (
                    scale_grid(("relu", "mirrored"), SCALES, 10, (100,), (400,), "mnist")(seeds)
                    + scale_grid(("frozen", "mirrored frozen"), (0.1, 1.0, 10.0), 10, (100,), (400,), "mnist")(seeds)
                ),
            },
            measure_start,
            FIRST_ORDER,
            shared=(),
            variants=STARTERS,
        ),
        Figure(
            "patience",
            "The usual start at large scales, trained five times as long at a rate that leaves the network alive",
            {
                "quick": scale_grid(("relu",), (3.0,), 1, (64,), (100,), "digits", (10.0,)),
                "paper": scale_grid(("relu",), (1.0, 3.0, 10.0), 10, (100,), (400,), "mnist", (10.0,)),
            },
            measure_patience,
            FIRST_ORDER,
            shared=(),
            variants=STARTERS,
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
