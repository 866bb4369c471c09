"""What an experiment is made of: its variants, and the cells of its grids."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Setup:
    """The choices in which a variant of the experiment differs from another."""

    normalize: bool  # ||x|| = 1, or the pixels as they are
    bias: bool  # a hidden bias, trained and counted in the deviation
    exit: str  # "epoch": the first iterate seen outside the ball; "step": the last one inside
    antialias: bool  # when the images are resized
    mirrored: bool = False  # each neuron beside its negative: f = 0 at the start, outside Definition 2.1


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
    # The theory's setting with f = 0 at the start.
    "mirrored": Setup(normalize=True, bias=False, exit="step", antialias=False, mirrored=True),
}


@dataclasses.dataclass(frozen=True)
class Training:
    """How Algorithm 1 is run; a variant differs in some of these. Images have unit norm in all."""

    bias: bool = False  # as in Setup
    box: tuple[float, float] | None = None  # the images that an attack may make
    project: str = "step"  # or once an "epoch"
    stop: str = "stable"
    lr: float = 0.1
    images: int | None = 4_000  # of the training set, drawn with the cell's seed; None: all
    attack_steps: int = 5  # in training; the last epoch's perturbations are where the next attack starts
    warm_start: bool = True
    mirrored: bool = False  # as in Setup


TRAININGS = {
    "theory": Training(),  # Definition 2.1, Algorithm 1 as the paper's text has it
    "published": Training(bias=True, box=(0.0, 1.0), project="epoch"),  # the published scripts' problem
    # The theory's with one choice switched.
    "box": Training(box=(0.0, 1.0)),
    "bias": Training(bias=True),
    "epoch projection": Training(project="epoch"),
    "published stop": Training(stop="published"),
    "slow": Training(lr=0.01, images=None),  # the published rate and images
    "full attack": Training(attack_steps=100, warm_start=False),
    "mirrored": Training(mirrored=True),
}
OF_SCRIPTS = {  # the published problem with one choice switched
    "published slow": dataclasses.replace(TRAININGS["published"], lr=0.01, images=None),
    "published full attack": dataclasses.replace(TRAININGS["published"], attack_steps=100, warm_start=False),
}
TRAININGS |= OF_SCRIPTS
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


@dataclasses.dataclass(frozen=True, order=True)
class RobustCell(Cell):
    """A cell of adversarial training: the attack's budget goes with it, and the variant is one of ``TRAININGS``."""

    eps: float = 0.2

    @property
    def key(self) -> str:
        return f"{super().key}_e{self.eps:g}"

    @property
    def cost(self) -> float:
        how = TRAININGS[self.variant]
        epochs = 25 if how.stop == "published" else 0.1 / how.lr  # the published rule does not end training
        return super().cost * epochs * (how.attack_steps + 3) / 8 * (how.images or 12_000) / 4_000


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
