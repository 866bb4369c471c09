"""Where the paper's published scripts depart from its text, and what each departure changes, from the stored results."""

from __future__ import annotations

from pathlib import Path

from .entries import Discrepancy, hashes, seeds_of
from .runs import RESULTS, load_results
from .verdicts import Estimate, estimate, select

NOT_YET = "(not run yet)"


def discrepancies(results: Path = RESULTS) -> list[Discrepancy]:
    """All that are known. Raises ``ValueError`` for a result that is not there, was altered, or has too few cells."""
    fig2, left = (select(name, results, variant="published") for name in ("fig2", "fig4_left"))
    d, D = fig2.d.min(), fig2.d.max()
    narrow, largest = fig2[fig2.m == 1_000], fig2[fig2.d == D]
    wide = load_results("fig3", results)
    wide = wide[(wide.C0 == wide.C0.max()) & (wide.m == 1_000)]
    resized = select("differences", results, variant="antialias", d=d).mean_input_norm.mean()
    steps, length = (narrow.eta / narrow.step_size).groupby(narrow.d).mean(), narrow.groupby("d").mean_input_norm.mean()
    early = left.robust_accuracy_before - left.robust_accuracy
    averaged = narrow.relative_perturbation_published / narrow.relative_perturbation

    def size(variant: str, name: str = "differences", digits: str = ".2f") -> str:
        first, last = (ratio(variant, at, results, name) for at in (d, D))
        return f"‖δ‖/‖x‖ × {first:{digits}} at d = {d}, × {last:{digits}} at d = {D}"

    entries = (
        (
            "adversarial training can be run",
            "advtrain.py reads an argument that is commented out",
            "None: it cannot run. We follow its sister script, whose attack takes steps of 2.5 eps/100.",
            (),
            {},
        ),
        (
            "no biases",
            "hidden biases, trained and counted in the deviation; an output bias of 1/√m or -1/√m",
            f"Without the hidden ones: {size('no bias')}. With them in Algorithm 1: {change('bias', results)}. Ours have no output "
            f"bias: with it, {size('published', 'output_bias', '.3f')}.",
            ("differences", "fig2", "algorithm", "output_bias"),
            {"variant": "no bias"},
        ),
        (
            "‖x‖ = 1",
            "Figure 2 takes the pixels as they are, and plots η/‖x‖",
            f"The step taken is {steps[d]:.1f} times the plotted one at d = {d}, {steps[D]:.1f} times at d = {D}; the mean ‖x‖ is "
            f"{length[d]:.1f} and {length[D]:.1f}. "
            f"With unit norm: {size('unit norm')}.",
            ("fig2", "differences"),
            {"variant": "published", "m": 1_000},
        ),
        (
            "networks inside the ball",
            "checked once an epoch; the first network seen outside is used",
            f"At C0 = 10 the networks of Figure 2 are at C0 = {fig2.deviation_C0.min():.1f} to {fig2.deviation_C0.max():.1f}, "
            f"after {largest.epochs.min():.0f} to {largest.epochs.max():.0f} epochs at d = {D}. The last network inside: {size('step exit')}. "
            f"At C0 = {wide.C0.max():g} the cap of 1000 epochs comes before the exit in {(~wide.left).sum()} of {len(wide)} runs of Figure 3 at m = 1,000.",
            ("fig2", "differences", "fig3"),
            {"variant": "published"},
        ),
        (
            "project after every step",
            "project once an epoch; report the accuracy before projecting",
            f"In Figure 4, left, the C0 used is {left.deviation_C0.mean():.1f} before projecting, and the accuracy then is higher by "
            f"{estimate(early.groupby(left.seed).mean()):.3f} in the mean over cells, by {early.max():.3f} at most. "
            f"Reported so, instead of projecting after every step: {change('epoch projection', results, 'robust_accuracy_before')}.",
            ("fig4_left", "algorithm"),
            {"variant": "published"},
        ),
        (
            "train until the accuracy is stable",
            "stop after 21 epochs in a row without a gain of 0.0001, at most 1000",
            f"With the scripts' rule: {change('published stop', results)}; {_lasting(results)}.",
            ("algorithm",),
            {"variant": "published stop"},
        ),
        (
            "an attack within ‖δ‖ ≤ eps",
            "attacked images are also clipped to the box [0, 1]",
            f"With the box: {change('box', results)}.",
            ("algorithm",),
            {"variant": "box"},
        ),
        (
            "not stated",
            "images are resized without antialiasing",
            f"With antialiasing: {size('antialias')}; the mean ‖x‖ at d = {d} is {resized:.2f} instead of {length[d]:.2f}.",
            ("differences", "fig2"),
            {"variant": "antialias"},
        ),
        (
            "SGD",
            "one shuffle before training, the same order in every epoch",
            f"With a new shuffle in every epoch: {size('published', 'reshuffled', '.3f')}.",
            ("reshuffled", "fig2"),
            {"variant": "published"},
        ),
        (
            "means over test points",
            "‖∇f‖ counts every point; δ and η count a misclassified one as 0",
            f"‖δ‖/‖x‖ × {averaged.min():.3f} to {averaged.max():.3f} at m = 1,000, with {narrow.misclassified.min()} to "
            f"{narrow.misclassified.max()} points misclassified; this includes the rounding to the grid of the scripts' search.",
            ("fig2",),
            {"variant": "published", "m": 1_000},
        ),
    )
    return [
        Discrepancy(number, text, code, effect, where, seeds_of(where[0], results, **only), hashes(where, results))
        if where
        else Discrepancy(number, text, code, effect, ("none",), "none", ("none",))
        for number, (text, code, effect, where, only) in enumerate(entries, 1)
    ]


def ratio(variant: str, d: int, results: Path = RESULTS, name: str = "differences") -> Estimate:
    """What one switched choice multiplies the published procedure's relative perturbation by, seed by seed, m = 1000."""
    one = select(name, results, variant=variant, d=d, m=1_000).set_index("seed").relative_perturbation
    base = select("fig2", results, variant="published", d=d, m=1_000).set_index("seed").relative_perturbation
    return estimate((one / base).dropna())


def change(variant: str, results: Path = RESULTS, column: str = "robust_accuracy", base: str = "theory") -> str:
    """What one switched choice adds to the robust accuracy of the ``base``, over the same cells.

    The base is Algorithm 1 as in the text, or the published scripts', whose accuracy is that before the projection.
    """
    table, keys = load_results("algorithm", results), ["seed", "d", "m", "eps"]
    one, other = (table[table.variant == name].set_index(keys) for name in (variant, base))
    added = (one[column] - other["robust_accuracy" if base == "theory" else "robust_accuracy_before"]).dropna()
    if added.empty:
        return f"robust accuracy {NOT_YET}"
    added = added.unstack("seed").dropna(axis=1)  # the seeds that have every cell
    d = ", ".join(str(d) for d in sorted(set(added.index.get_level_values("d"))))
    return f"robust accuracy {estimate(added.mean()):+.3f} at d = {d}"


def _lasting(results: Path) -> str:
    """How long training lasts by the published stopping rule and by ours."""
    table, keys = load_results("algorithm", results), ["seed", "d", "m", "eps"]
    ruled, own = (table[table.variant == name].set_index(keys) for name in ("published stop", "theory"))
    both = ruled.join(own.epochs.rename("own"), how="inner")
    if both.empty:
        return f"its epochs {NOT_YET}"
    return (
        f"training lasts {both.epochs.mean():.0f} epochs in the mean instead of {both.own.mean():.0f}, and "
        f"{both.stopped.sum()} of {len(both)} runs end by the rule"
    )
