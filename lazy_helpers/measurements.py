"""What is measured in a cell of each figure: functions of cells that return a row for each."""

from __future__ import annotations

import math
from multiprocessing import parent_process

import numpy as np
import torch
from scipy import stats

from .adversarial import Adversarial, train_adversarial
from .attack import Flip, pgd, smallest_flip
from .cells import (  # fmt: skip
    BATCH,
    BENCHMARK,
    EPOCHS,
    LR,
    SEARCH_END,
    SEARCH_STEP,
    TRAININGS,
    VARIANTS,
    Cell,
    RobustCell,
    Setup,
    Training,
)
from .data import BinaryData, load_binary, unit_sphere
from .lazy import LazyBall
from .lemmas import smallest_gradient, value_range
from .network import TwoLayerNet
from .robustness import bracket, lipschitz_radius
from .strongest import strongest_attack
from .theorem import certified_steps, flip_bound, published_bound, same_law, worst_network
from .train import Exit, train_sgd
from .trials import challenge

DRAWN = 2_000_003  # offset of the seeds that draw images
EXAMINED = 200  # test images whose smallest perturbations are searched
CHECKED = 500  # test images on which PGD is compared with stronger attacks
BINS = 40  # of a histogram, from 4 standard deviations below the mean to 4 above; what lies beyond is in the outer ones
LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0)  # budgets in units of 1 / sqrt(d)


def initial(cell: Cell, setup: Setup | Training, device: torch.device) -> TwoLayerNet:
    """The cell's network at its initialisation; a mirrored one is m / 2 neurons beside their negatives."""
    if setup.mirrored:
        return TwoLayerNet.init(cell.d, cell.m // 2, seed=cell.seed, bias=setup.bias, device=device).mirrored()
    return TwoLayerNet.init(cell.d, cell.m, seed=cell.seed, bias=setup.bias, device=device)


def drawn(count: int, images: int | None, seed: int) -> torch.Tensor:
    """Indices of ``images`` of ``count`` images, without repetition; ``None``: all."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(DRAWN + seed))
    return order if images is None else order[:images]


def prepared(cell: Cell, setup: Setup, device: torch.device) -> tuple[TwoLayerNet, BinaryData, BinaryData]:
    """The cell's network as drawn, its training and its test points, on the device."""
    train, test = (
        load_binary(cell.data, math.isqrt(cell.d), setup.normalize, setup.antialias, split)
        for split in ("train", "test")
    )
    return initial(cell, setup, device), *(BinaryData(part.X.to(device), part.y.to(device)) for part in (train, test))


def trained(
    cells: list[Cell], device: torch.device, on_epoch=None
) -> tuple[TwoLayerNet, dict[float, Exit], BinaryData]:
    """The network as drawn, where SGD ends for each cell's C0, and the test points; the cells differ in C0 alone."""
    cell, radii = cells[0], tuple(cell.C0 for cell in cells)
    setup = VARIANTS[cell.variant]
    start, train, test = prepared(cell, setup, device)
    exits = train_sgd(
        start, train.X, train.y, radii, lr=LR, batch_size=BATCH, max_epochs=EPOCHS, seed=cell.seed, exit=setup.exit,
        progress=parent_process() is None,  # workers draw no bars
        on_epoch=on_epoch,
    )  # fmt: skip
    return start, exits, test


def trained_robustly(cell: RobustCell, device: torch.device, on_epoch=None) -> tuple[Adversarial, BinaryData, int]:
    """What Algorithm 1 returns for the cell, the test points, and the number of images it was trained on."""
    how, side = TRAININGS[cell.variant], math.isqrt(cell.d)
    train, test = (load_binary(cell.data, side, normalize=True, split=split) for split in ("train", "test"))
    some = drawn(len(train.y), how.images, cell.seed)
    out = train_adversarial(
        initial(cell, how, device), train.X[some].to(device), train.y[some].to(device), cell.eps, cell.C0,
        lr=how.lr, attack_steps=how.attack_steps, max_epochs=EPOCHS, seed=cell.seed, project=how.project,
        stop=how.stop, box=how.box, warm_start=how.warm_start, progress=parent_process() is None,
        on_epoch=on_epoch,
    )  # fmt: skip
    return out, BinaryData(test.X.to(device), test.y.to(device)), len(some)


def measure_flips(cells: list[Cell], device: torch.device, on_epoch=None) -> list[dict[str, float]]:
    r"""Train until the weights leave the ball, then flip every test point by one exact step (Figure 2).

    The cells differ in C0 alone and share one trajectory. Means are over the correctly classified test points whose sign
    one step can flip, but for ``grad_norm`` and ``abs_f``, which are over all. The columns that end in ``_published``
    repeat the published averages: norms rounded up to the line search's grid and capped at its end, misclassified points
    averaged in as 0. ``on_epoch`` goes to the training.
    """
    start, exits, test = trained(cells, device, on_epoch)
    length, y = test.X.double().norm(dim=1).cpu(), test.y.double().cpu()
    rows = []
    for cell in cells:
        exit = exits[cell.C0]
        flip = smallest_flip(exit.net, test.X)
        eta, norm, f, grad_norm = (part.double().cpu() for part in (flip.eta, flip.norm, flip.value, flip.grad_norm))
        right = f * y > 0
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


def mean_flip(flip: Flip, test: BinaryData) -> dict[str, float]:
    """The mean over the correctly classified test points whose sign one step can flip, as in :func:`measure_flips`."""
    right = flip.value * test.y > 0
    relative = flip.norm.double() / test.X.double().norm(dim=1)
    return {
        "relative_perturbation": float(relative[right & flip.found].mean()),
        "test_accuracy": float(right.double().mean()),
    }


def measure_reshuffled(cells: list[Cell], device: torch.device) -> list[dict[str, float]]:
    """Figure 2 but for the order of the data: a new shuffle in every epoch, and still the first network that an epoch's end sees outside the ball."""
    rows = []
    for cell in cells:
        start, train, test = prepared(cell, VARIANTS[cell.variant], device)
        ball, far = LazyBall(start.weights, cell.C0), 100 * cell.C0  # so far away that the training itself ends nothing

        def outside(ends, ball=ball, far=far) -> bool:
            return bool(ball.distance(ends[far].net.weights) > ball.radius)

        end = train_sgd(
            start, train.X, train.y, far, lr=LR, batch_size=BATCH, max_epochs=EPOCHS, seed=cell.seed, exit="step",
            progress=parent_process() is None, on_epoch=outside,
        )[far]  # fmt: skip
        rows.append(
            mean_flip(smallest_flip(end.net, test.X), test)
            | {
                "epochs": float(end.epochs),
                "left": outside({far: end}),
                "deviation_C0": float(ball.distance(end.net.weights)) * math.sqrt(cell.m),
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


def measure_histograms(cells: list[Cell], device: torch.device) -> list[dict[str, float]]:
    r"""Train as in Figure 2, flip every test point, and describe how ||delta||, ||grad f|| and eta spread over points (Figure 7).

    The points are those of Figure 2's means: answered rightly, and flipped by one step. For each quantity: moments, the
    p-value of D'Agostino and Pearson's test for a Gaussian as its decimal logarithm, the largest distance between the empirical
    and the fitted Gaussian's distribution functions, and counts in ``BINS`` bins.
    """
    rows = []
    for cell in cells:
        _, exits, test = trained([cell], device)
        exit = exits[cell.C0]
        flip = smallest_flip(exit.net, test.X)
        used = (flip.value * test.y > 0) & flip.found
        row = {"points": int(used.sum()), "epochs": float(exit.epochs), "left": bool(exit.left)}
        for name, values in (("norm", flip.norm), ("grad_norm", flip.grad_norm), ("eta", flip.eta)):
            values = values[used].double().cpu().numpy()
            mean, sd = values.mean(), values.std(ddof=1)
            edges = np.linspace(-4, 4, BINS + 1)
            counts, _ = np.histogram(np.clip((values - mean) / sd, -4, 4), edges)
            row |= {
                f"{name}_mean": float(mean),
                f"{name}_sd": float(sd),
                f"{name}_skewness": float(stats.skew(values)),
                f"{name}_kurtosis": float(stats.kurtosis(values)),  # 0 for a Gaussian
                f"{name}_log10_p": float(np.log10(max(stats.normaltest(values).pvalue, 1e-300))),
                f"{name}_distance": float(stats.kstest(values, "norm", args=(mean, sd)).statistic),
            } | {f"{name}_bin{k:02d}": int(count) for k, count in enumerate(counts)}
        rows.append(row)
    return rows


def measure_robust(cells: list[RobustCell], device: torch.device, on_epoch=None) -> list[dict[str, float]]:
    """Train by Algorithm 1, then attack every test image by PGD-100 within the same budget (Figure 4).

    ``robust_accuracy`` is that of the network inside the ball; ``robust_accuracy_before`` that before the last projection,
    which is what the published scripts report. ``on_epoch`` goes to the training.
    """
    rows = []
    for cell in cells:
        how = TRAININGS[cell.variant]
        out, test, images = trained_robustly(cell, device, on_epoch)
        X, y = test.X, test.y

        def robust(net, how=how, cell=cell, X=X, y=y) -> float:
            delta = pgd(net, X, y, cell.eps, steps=100, box=how.box)
            return float((y * net(X + delta) > 0).double().mean())

        epochs, inside = int(out.epochs), robust(out.net)
        rows.append(
            {
                "robust_accuracy": inside,
                "robust_accuracy_before": inside if how.project == "step" else robust(out.before),
                "test_accuracy": float((y * out.net(X) > 0).double().mean()),
                "train_robust_accuracy": float(out.history.robust_accuracy[epochs]),
                "train_loss": float(out.history.loss[epochs]),
                "deviation_C0": float(out.history.C0_used[epochs]),
                "images": images,
                "epochs": epochs,
                "stopped": bool(out.stopped),
            }
        )
    return rows


def measure_bracket(cells: list[RobustCell], device: torch.device) -> list[dict[str, float]]:
    """Train by Algorithm 1 as for Figure 4, and bracket robust accuracy at the same budget, on some test images.

    From above PGD-100 (``pgd``) and all attacks (``strongest``); from below the certified radii (``certified``, and ``lipschitz`` for a
    plain Lipschitz bound alone). ``gap`` and ``lipschitz_gap`` are medians of smallest perturbation found over certified radius.
    Raises ``ValueError`` for a variant whose attacks are held in a box.
    """
    rows = []
    for cell in cells:
        if TRAININGS[cell.variant].box is not None:
            raise ValueError(
                f"the strongest attack knows no box, and {cell.variant!r} has one: choose a variant without."
            )
        out, test, _ = trained_robustly(cell, device)
        net, checked = out.net, drawn(len(test.y), CHECKED, cell.seed)
        X, y = test.X[checked], test.y[checked]

        def survives(delta, net=net, X=X, y=y) -> torch.Tensor:
            return y * net(X + delta) > 0

        both = bracket(net, X, y, cell.eps)
        by_pgd = survives(pgd(net, X, y, cell.eps, steps=100))
        best = by_pgd & survives(strongest_attack(net, X, y, cell.eps).delta)
        best &= ~(both.minimal.found & (both.minimal.norm <= cell.eps))
        rows.append(
            {
                "pgd": float(by_pgd.double().mean()),
                "strongest": float(best.double().mean()),
                "certified": float(both.lower[0]),
                "lipschitz": float((lipschitz_radius(net, X, y) > cell.eps).double().mean()),
                "gap": float(both.gap),
                "lipschitz_gap": float(both.lipschitz_gap),
                "test_accuracy": float((y * net(X) > 0).double().mean()),
                "images": len(checked),
            }
        )
    return rows


def measure_minimal(cells: list[Cell], device: torch.device) -> list[dict[str, float]]:
    r"""Train until the weights leave the ball; for some test images, the smallest perturbations that the attacks find.

    The cells differ in C0 alone and share one trajectory. Norms are medians over the images answered rightly, infinite where an
    attack failed on half of them; ``*_found`` is the share on which it did not. ``robust_error_*`` count the images lost within a
    budget of that many 1 / sqrt(d), ``certified_error_*`` those not certified.
    """
    start, exits, test = trained(cells, device)
    some = drawn(len(test.y), EXAMINED, cells[0].seed)
    X, y = test.X[some], test.y[some]
    rows = []
    for cell in cells:
        exit = exits[cell.C0]
        budgets = [level / math.sqrt(cell.d) for level in LEVELS]
        both = bracket(exit.net, X, y, budgets)
        right = y * exit.net(X) > 0
        norms = torch.where(both.minimal.norms.isfinite(), both.minimal.norms, math.inf).double()[:, right]
        best, certified = norms.amin(0), both.certified[right]
        rows.append(
            {
                **dict(zip(("one_step", "iterated", "climbed"), norms.median(-1).values.tolist(), strict=True)),
                "strongest": float(best.median()),
                "certified": float(certified.median()),
                "one_step_found": float(norms[0].isfinite().double().mean()),
                "strongest_found": float(best.isfinite().double().mean()),
                "gap": float(both.gap),
                "lipschitz_gap": float(both.lipschitz_gap),
            }
            | {f"robust_error_{level:g}": 1 - float(up) for level, up in zip(LEVELS, both.upper, strict=True)}
            | {f"certified_error_{level:g}": 1 - float(low) for level, low in zip(LEVELS, both.lower, strict=True)}
            | {
                "images": len(some),
                "right": int(right.sum()),
                "test_accuracy": float((exit.net(test.X) * test.y > 0).double().mean()),
                "steps": int(exit.steps),
                "epochs": float(exit.epochs),
                "left": bool(exit.left),
                "deviation_C0": float(LazyBall(start.weights, cell.C0).distance(exit.net.weights)) * math.sqrt(cell.m),
                "train_loss": float(exit.train_loss),
            }
        )
    return rows
