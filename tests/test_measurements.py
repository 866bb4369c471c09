"""What a cell's row says of its network, against numpy on flips that are searched point by point."""

import math

import numpy as np
import pytest
import reference
import torch
from scipy import stats

import lazy_helpers as lh
from lazy_helpers.cells import EPOCHS, Cell
from lazy_helpers.experiments import cells_of, figure_named, sides
from lazy_helpers.measurements import (
    measure_bracket,
    measure_flips,
    measure_histograms,
    measure_reshuffled,
)
from lazy_helpers.output_bias import measure_output_bias, train_beside, with_output_bias

CPU = torch.device("cpu")
# Figure 7's; and networks of five neurons, which get points wrong, leave some without a flip and have some beyond 4 sd.
CELLS = cells_of(figure_named("fig7"), "digits") + [Cell(5, 2, 64, v, 2.0, "digits") for v in ("published", "theory")]


def trained(cell):
    """The cell's exit, and the test digits."""
    published = cell.variant == "published"
    train, test = (lh.load_binary("digits", 8, not published, split=split) for split in ("train", "test"))
    start = lh.TwoLayerNet.init(cell.d, cell.m, seed=cell.seed, bias=published)
    how = dict(lr=0.1, batch_size=64, max_epochs=1000, seed=cell.seed, progress=False)
    exit = lh.train_sgd(start, train.X, train.y, cell.C0, exit="epoch" if published else "step", **how)[cell.C0]
    return exit, test


def flips(net, data):
    """(||delta||, ||grad f||, eta) of the points answered rightly that a step flips, each (points,), in float64."""
    net, X, y = net.to(torch.float64), data.X.double(), data.y.double()
    f, gradient = reference.value_and_grad(net, X)
    eta = [reference.smallest_flip(net, x) for x in X]
    eta = np.array([math.nan if step is None else step for step in eta])
    used = (f * y > 0).numpy() & ~np.isnan(eta)
    length = gradient.norm(dim=-1).numpy()
    return (eta * length)[used], length[used], eta[used], used


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.key)
def test_histograms_describe_the_flips_of_every_point(cell):
    (row,) = measure_histograms([cell], CPU)
    exit, test = trained(cell)
    *quantities, used = flips(exit.net, test)
    assert (row["points"], row["epochs"], row["left"]) == (used.sum(), float(exit.epochs), True)
    if cell in CELLS[-2:]:
        assert 10 < used.sum() < len(used) and max(stats.zscore(quantities[0])) > 4

    for name, values in zip(("norm", "grad_norm", "eta"), quantities, strict=True):
        mean, sd = np.mean(values), np.std(values, ddof=1)
        z = (values - mean) / np.std(values)
        # D'Agostino and Pearson: the sum of two squared normal scores, whose law is exponential of mean 2.
        score = stats.skewtest(values).statistic ** 2 + stats.kurtosistest(values).statistic ** 2
        below = stats.norm.cdf(np.sort(values), mean, sd)
        steps = np.arange(len(values) + 1) / len(values)  # the empirical distribution before and after each point
        wanted = {
            "mean": mean,
            "sd": sd,
            "skewness": np.mean(z**3),
            "kurtosis": np.mean(z**4) - 3,
            "log10_p": -score / 2 / math.log(10),
            "distance": max((steps[1:] - below).max(), (below - steps[:-1]).max()),
        }
        found = {key: row[f"{name}_{key}"] for key in wanted}
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5), name

        # 40 bins of a fifth of an sd; what lies beyond 4 sd is in the outer ones.
        counts, _ = np.histogram(values, mean + sd * np.array([-1e9, *np.arange(-19, 20) / 5, 1e9]))
        assert [row[f"{name}_bin{k:02d}"] for k in range(40)] == counts.tolist(), name
        assert f"{name}_bin40" not in row


@pytest.mark.parametrize("d", [16, 64])
def test_a_new_shuffle_in_every_epoch_is_the_only_difference(d):
    (once,) = measure_flips([Cell(200, 1, d, "published", 0.1, "digits")], CPU)
    (anew,) = measure_reshuffled([Cell(200, 1, d, "published", 0.1, "digits")], CPU)
    assert once["epochs"] == anew["epochs"] == 1  # the first epoch's order is the same
    assert anew["relative_perturbation"] == pytest.approx(once["relative_perturbation"], rel=1e-6)

    (row,) = measure_reshuffled([Cell(200, 1, d, "published", 5.0, "digits")], CPU)
    train, test = (lh.load_binary("digits", math.isqrt(d), split=split) for split in ("train", "test"))
    start = lh.TwoLayerNet.init(d, 200, seed=1, bias=True)

    def after(epochs):
        return lh.train_sgd(
            start, train.X, train.y, 1e4, batch_size=64, max_epochs=epochs, seed=1, exit="step", progress=False
        )[1e4].net

    last, before = after(int(row["epochs"])), after(int(row["epochs"]) - 1)
    ball = lh.LazyBall(start.weights, 5.0)
    assert row["epochs"] == int(row["epochs"]) > 1 and row["left"]
    assert ball.distance(before.weights) <= ball.radius < ball.distance(last.weights)
    flip = lh.smallest_flip(last, test.X)
    used = (flip.value * test.y > 0) & flip.found
    mean = (flip.norm / test.X.norm(dim=1))[used].mean()
    assert row["relative_perturbation"] == pytest.approx(float(mean), rel=1e-5)


@pytest.mark.parametrize("c", [0.3, -0.3])
def test_an_output_bias_is_a_neuron_that_is_always_one(c):
    net = lh.TwoLayerNet.init(6, 9, seed=3, bias=True, dtype=torch.float64)
    x = lh.unit_sphere(50, 6, seed=1).double()
    both = with_output_bias(net, c)
    assert torch.allclose(both(x), net(x) + c, atol=1e-12) and torch.allclose(both.grad(x), net.grad(x), atol=1e-12)


def test_without_its_output_bias_that_training_is_the_published_one():
    train = lh.load_binary("digits", 8)
    start = lh.TwoLayerNet.init(64, 200, seed=1, bias=True)
    net, epochs = train_beside(start, train.X, train.y, 0.0, 10.0, 1, EPOCHS)
    exit = lh.train_sgd(start, train.X, train.y, 10.0, exit="epoch", seed=1, progress=False)[10.0]
    assert epochs == float(exit.epochs) > 1 and torch.allclose(net.weights, exit.net.weights, atol=1e-4)
    other, _ = train_beside(start, train.X, train.y, 0.5, 10.0, 1, epochs)
    assert (other.weights - net.weights).abs().max() > 0.01


@pytest.mark.parametrize("d", [16, 64])
def test_the_steps_with_an_output_bias_flip_f_plus_c(d, monkeypatch):
    """Each point's step found by walking along the gradient of f + c, on the network that was trained."""
    cell = Cell(200, 1, d, "published", 10.0, "digits")
    (row,) = measure_output_bias([cell], CPU)
    side = math.isqrt(d)
    train, test = (lh.load_binary("digits", side, split=split) for split in ("train", "test"))
    start, c = lh.TwoLayerNet.init(d, 200, seed=1, bias=True), row["sign"] / math.sqrt(200)
    net, epochs = train_beside(start, train.X, train.y, c, 10.0, 1, EPOCHS)
    f, gradient = reference.value_and_grad(net.to(torch.float64), test.X.double())
    relative = []
    for x, y, value, g in zip(test.X.double(), test.y, f + c, gradient, strict=True):
        if value * y > 0:
            etas = torch.linspace(0, 3, 20_001, dtype=torch.float64) * abs(float(value)) / float(g @ g)
            line = x @ net.W.double().mT + net.b.double(), g @ net.W.double().mT
            along = sum(
                float(a) * (z - torch.sign(value) * etas * w).relu()
                for a, z, w in zip(net.a, *line, strict=True)
            ) / math.sqrt(200) + c  # fmt: skip
            crossed = (along * value <= 0).nonzero()
            if len(crossed):
                relative.append(float(etas[crossed[0, 0]] * g.norm() / x.norm()))
    assert row["epochs"] == epochs and row["deviation_C0"] > 10
    assert math.isclose(row["relative_perturbation"], np.mean(relative), rel_tol=1e-3)


def test_a_bracket_of_a_training_with_a_box_is_refused():
    (cell,) = sides(("published",), (5,), {100: 1}, lambda *_: (0.2,), "digits")(None)
    with pytest.raises(ValueError, match="'published' has one: choose a variant without"):
        measure_bracket([cell], CPU)
