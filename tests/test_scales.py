"""Adversarial training on the scale of the inputs, and the grids of the first-order adversary: against autograd, loops and hand-made cases."""

import dataclasses
import math

import pytest
import torch
from reference import normal, random_signs
from torch.testing import assert_close

from lazy_helpers import first_order
from lazy_helpers.dynamics import climb, second_maximum
from lazy_helpers.experiments import FIGURES, cells_of
from lazy_helpers.first_order import ScaleCell, _at, _first_below, _gates_moved, _median_steps, scale_grid, starter
from lazy_helpers.landscape import Network, inner_problem
from lazy_helpers.scales import FrozenGates, accuracies, gradient_of_loss, train_at_scale, used_C0

SIGMA = {"relu": lambda z: z.clamp(min=0), "tanh": torch.tanh}
EXACT = {"rtol": 1e-10, "atol": 1e-11}
CPU = torch.device("cpu")
GRIDS = ("ascent", "maxima", "scales", "start", "patience")


def unit(n, d, seed=0):
    return torch.nn.functional.normalize(normal(n, d, seed=seed), dim=-1)


def task(activation="relu", d=6, m=20, n=9, seed=0):
    """A small network in float64, points of unit norm and their labels."""
    return Network.init(d, m, activation, seed=seed), unit(n, d, seed), random_signs(n, seed=seed + 1)


# --- the reference: every step written out in autograd ---


def plain(net, W, x):
    """f by its definition, the gates those of W0 where they are frozen."""
    if isinstance(net, FrozenGates):
        z = torch.where(x @ net.W0.T > 0, x @ W.T, 0.0)
    else:
        z = SIGMA[net.activation.name](x @ W.T)
    return (z * net.a).sum(-1) / math.sqrt(len(net.a))


def attacked(f, X, y, eps, steps, loss):
    """Normalised ascent on the sphere, one point at a time, from the gradient at the point itself."""
    deltas = []
    for x, label in zip(X, y, strict=True):

        def slope(delta, x=x, label=label):
            delta = delta.clone().requires_grad_()
            return torch.autograd.grad(loss(f((x + delta)[None])[0], label), delta)[0]

        delta = slope(torch.zeros_like(x))
        delta = delta if delta.any() else x
        delta = eps * delta / delta.norm()
        for _ in range(steps):
            G = slope(delta)
            delta = delta if not G.any() else delta + eps * G / G.norm()
            delta = eps * delta / delta.norm()
        deltas.append(delta)
    return X + torch.stack(deltas)


def squared(f, y):
    return (f - y) ** 2 / 2


def trained(net, X, y, eps, lr, steps, attack_steps, scale=1.0):
    """Gradient descent on scale * f at the inputs ``X``: weights, adversarial and clean loss before each step and after the last."""
    W, rows = net.W.clone(), []
    for t in range(steps + 1):
        W = W.detach()
        moved = attacked(lambda x, W=W: scale * plain(net, W, x), X, y, eps, attack_steps, squared)
        W = W.clone().requires_grad_()
        loss = squared(scale * plain(net, W, moved.detach()), y).mean()
        clean = squared(scale * plain(net, W.detach(), X), y).mean()
        rows.append((W.detach(), float(loss.detach()), float(clean)))
        if t < steps:
            W = W - lr * torch.autograd.grad(loss, W)[0]
    return rows


def frozen(net):
    return FrozenGates(net.W, net.a, net.activation, net.W)


@pytest.mark.parametrize("scale", [0.2, 3.0])
@pytest.mark.parametrize("kind", ["relu", "tanh", "frozen"])
def test_training_follows_autograd_step_by_step(kind, scale):
    net, X, y = task("relu" if kind == "frozen" else kind)
    net = frozen(net) if kind == "frozen" else net
    T, ratio, rate, attack_steps = 8, 0.3, 1.5, 4
    rows = trained(net, scale * X, y, ratio * scale, rate / scale**2, T, attack_steps)
    whole = train_at_scale(net, X, y, scale, ratio, rate, T, attack_steps)
    assert whole.steps == T and not whole.diverged
    assert_close(whole.adversarial_loss, torch.tensor([row[1] for row in rows], dtype=torch.float64), **EXACT)
    assert_close(whole.clean_loss, torch.tensor([row[2] for row in rows], dtype=torch.float64), **EXACT)
    assert rows[-1][1] < rows[0][1]  # it trains
    for t in range(1, T + 1):
        assert_close(train_at_scale(net, X, y, scale, ratio, rate, t, attack_steps).net.W, rows[t][0], **EXACT)
        moved = max(float((w - w0).norm()) for w, w0 in zip(rows[t][0], net.W, strict=True))
        assert float(whole.C0_used[t]) == pytest.approx(math.sqrt(net.m) * moved, rel=1e-10)
    assert float(whole.C0_used[0]) == 0
    assert torch.equal(whole.net.a, net.a) and (not isinstance(net, FrozenGates) or torch.equal(whole.net.W0, net.W))


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
def test_a_scaled_input_is_a_scaled_output_for_a_relu_without_biases(scale):
    net, X, y = task(m=30)
    T, ratio, rate = 10, 0.3, 1.0
    ours = train_at_scale(net, X, y, scale, ratio, rate, T, 5)
    rows = trained(net, X, y, ratio, rate / scale**2, T, 5, scale=scale)  # s f on unit inputs
    assert_close(ours.net.W, rows[-1][0], **EXACT)
    assert_close(ours.adversarial_loss, torch.tensor([row[1] for row in rows], dtype=torch.float64), **EXACT)
    assert float((ours.net.W - net.W).norm()) > 1e-3  # they moved at all
    if scale != 1:
        other, *_ = task("tanh", m=30)  # not homogeneous: another network
        there = trained(other, X, y, ratio, rate / scale**2, T, 5, scale=scale)[-1][0]
        assert float((train_at_scale(other, X, y, scale, ratio, rate, T, 5).net.W - there).norm()) > 1e-3


def test_the_attack_begins_along_the_losss_gradient_and_where_there_is_none_along_the_input():
    net, X, y = task()
    dead = net.replace(W=-X[:1].abs().expand(net.m, -1).clone())  # every gate off at an input with coordinates above 0
    X = torch.cat([X[:1].abs(), X[1:]])
    problem = inner_problem(dead, X, y, 2.0, 0.3)
    start = gradient_of_loss(problem)
    assert_close(start.norm(dim=-1), problem.eps)
    assert_close(start[0], 0.3 * problem.x[0])
    alive = (problem.grad(torch.zeros_like(X)) != 0).any(-1)
    assert not alive[0] and alive.any()
    expected = attacked(lambda x: plain(dead, dead.W, x), problem.x, y, 0.6, 0, squared) - problem.x
    assert_close(start, expected, **EXACT)
    assert torch.equal(climb(problem, start, 0), start)
    assert bool(climb(problem, start, 3).isfinite().all())


# --- frozen gates ---


@pytest.mark.parametrize("members", [(), (2,)])
def test_frozen_gates_are_the_networks_expansion_in_its_weights(members):
    net = Network.init(5, 12, "relu", members, seed=3)
    here, x = frozen(net), normal(*members, 7, 5, seed=4)
    assert_close(here(x), net(x), **EXACT)  # at W0
    assert_close(here.grad(x), net.grad(x), **EXACT)
    V, U = normal(*net.W.shape, seed=5), normal(*net.W.shape, seed=6)
    # the first-order expansion: f(x; W0) + <its weight gradient, V>, by autograd
    value = lambda W: ((x @ W.mT).relu() * net.a.unsqueeze(-2)).sum(-1) / math.sqrt(net.m)  # noqa: E731
    f, along = torch.autograd.functional.jvp(value, net.W, V)
    assert_close(here.replace(W=net.W + V)(x), f + along, **EXACT)
    assert_close(here.replace(W=2 * V - 3 * U)(x), 2 * here.replace(W=V)(x) - 3 * here.replace(W=U)(x), **EXACT)
    far = here.replace(W=net.W + 100 * V)
    assert_close(far(x), f + 100 * along, rtol=1e-9, atol=1e-9)
    assert float((far(x) - net.replace(W=far.W)(x)).abs().max()) > 1  # the network itself is long elsewhere
    z = x.clone().requires_grad_()
    gates = (x @ net.W.mT > 0).double()
    linear = ((z @ far.W.mT) * gates * net.a.unsqueeze(-2)).sum() / math.sqrt(net.m)
    assert_close(far.grad(x), torch.autograd.grad(linear, z)[0], **EXACT)


# --- what is measured on the way ---


@pytest.mark.parametrize(("activation", "d", "ratio", "seed"), [("relu", 6, 0.12, 8), ("tanh", 2, 0.6, 1)])
def test_accuracies_agree_with_a_loop(activation, d, ratio, seed):
    net, X, y = task(activation, d, n=40, seed=seed)
    margin = lambda f, label: -label * f  # noqa: E731
    scale = 1.7
    moved = attacked(lambda x: plain(net, net.W, x), scale * X, y, ratio * scale, 50, margin)
    clean = held = mended = 0
    for x, z, label in zip(scale * X, moved, y, strict=True):
        right, stands = (float(label * plain(net, net.W, point[None])) > 0 for point in (x, z))
        clean, held, mended = clean + right, held + (right and stands), mended + (stands and not right)
    robust, plainly = accuracies(net, X, y, scale, ratio)
    assert (robust, plainly) == (held / 40, clean / 40)
    assert 0 < held < clean < 40  # all three kinds occur
    assert mended or activation == "relu"  # an attack that went wrong makes no wrong answer robust


def test_used_C0_is_the_longest_move():
    net, *_ = task(m=16)
    W = net.W.clone()
    W[3, 0] += 3.0
    W[3, 1] += 4.0
    W[5, 2] -= 4.9
    assert used_C0(net.replace(W=W), net) == pytest.approx(4 * 5.0)
    assert used_C0(net, net) == 0


@pytest.mark.parametrize("rate", [1e4, 1e200, 1e308])  # too large, infinite losses, infinite weights (NaN)
def test_a_run_that_diverges_says_so_and_stops(rate):
    net, X, y = task()
    out = train_at_scale(net, X, y, 0.1, rate=rate, steps=50)
    assert out.diverged and out.steps < 50
    assert len(out.adversarial_loss) == len(out.clean_loss) == len(out.C0_used) == out.steps + 1
    assert not float(out.adversarial_loss[-1]) <= 1000 * float(out.adversarial_loss[0])
    assert bool((out.adversarial_loss[:-1] <= 1000 * out.adversarial_loss[0]).all())


NET, X, Y = task()
WRONG = {
    "an ensemble": ({"net": Network.init(6, 4, members=2)}, r"members \(2,\).*train net\[k\]"),
    "points too wide": ({"X": normal(9, 7)}, "X must have shape"),
    "points in float32": ({"X": X.float()}, r"X\.to\(torch\.float64\)"),
    "points with NaN": ({"X": X * math.nan}, "X holds NaN"),
    "labels 0/1": ({"y": (Y + 1) / 2}, "turn labels 0/1"),
    "too few labels": ({"y": Y[:4]}, "one label for each row"),
    "scale 0": ({"scale": 0.0}, "scale must be a finite number above 0"),
    "scale NaN": ({"scale": math.nan}, "scale must be a finite number above 0"),
    "rate -1": ({"rate": -1.0}, "rate must be a finite number above 0"),
    "no steps": ({"steps": 0}, "steps must be a whole number of at least 1"),
    "half a step": ({"attack_steps": 0.5}, "attack_steps must be a whole number"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_named_with_the_remedy(wrong):
    changed, says = WRONG[wrong]
    with pytest.raises(ValueError, match=says):
        train_at_scale(**{"net": NET, "X": X, "y": Y, "scale": 1.0, "steps": 1, **changed})


# --- the grids ---


@pytest.mark.parametrize("name", GRIDS)
def test_every_cell_has_a_key_of_its_own(name):
    for preset in FIGURES[name].presets:
        cells = cells_of(FIGURES[name], preset)
        assert len({cell.key for cell in cells}) == len(cells) > 0
        assert all(cell.variant in FIGURES[name].variants for cell in cells)
        fewer = cells_of(FIGURES[name], preset, 1)
        assert {cell.seed for cell in fewer} == {0} and set(fewer) <= set(cells)


def test_a_key_tells_every_field():
    cell = ScaleCell(400, 3, 100, "mirrored frozen", 0.3, "mnist", 0.3, 10.0)
    changes = {"m": 8, "seed": 4, "d": 64, "variant": "relu", "scale": 1.0, "data": "digits", "ratio": 0.2, "rate": 1.0}
    keys = {dataclasses.replace(cell, **{name: value}).key for name, value in changes.items()}
    assert len(keys | {cell.key, dataclasses.replace(cell, rate=0.0).key}) == len(changes) + 2
    assert all(" " not in key for key in keys)
    assert len(scale_grid(("relu", "tanh"), (1.0, 3.0), 5, (10, 20), (7,), rates=(1.0, 2.0))(2)) == 2 * 2 * 2 * 2 * 2


def test_median_steps_of_hand_made_series():
    inf = math.inf
    kappa = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.5, 0.1, 0.5, 1.0], [0.1, 0.01, 0.5, 1.0], [0.01, 0.01, 0.1, 1.0]])
    assert _median_steps(kappa, 0.1) == 2.5  # 2, 1, 3, never
    assert _median_steps(kappa, 0.01) == inf  # 3, 2, never, never
    assert _median_steps(kappa[:, :3], 0.1) == 2 and _median_steps(kappa[:, :1], 0.01) == 3
    assert _median_steps(kappa, 1.0) == 0 and _median_steps(kappa, 1e-9) == inf
    dips = torch.tensor([[1.0], [0.1], [1.0], [0.1]])  # the first time counts
    assert _median_steps(dips, 0.1) == 1
    series = torch.tensor([3.0, 1.0, 0.4, 0.5, 0.4])
    assert _first_below(series, 0.45) == 2 and _first_below(series, 0.4) == 2 and _first_below(series, 3.0) == 0
    assert _first_below(series, 0.1) == inf and _first_below(torch.tensor([math.nan, inf]), 1.0) == inf
    assert _at(series, 4) == pytest.approx(0.4) and _at(series, 5) == inf


def test_starters_are_what_their_names_say():
    cell = ScaleCell(12, 5, 6, "relu", 2.0)
    start = {
        name: starter(dataclasses.replace(cell, variant=name), CPU, torch.float64) for name in first_order.STARTERS
    }
    x = normal(30, 6)
    assert all(net.m == 12 and net.W.dtype == torch.float64 for net in start.values())
    for name in ("mirrored", "mirrored frozen"):
        assert float(start[name](x).abs().max()) < 1e-12
    for name in ("frozen", "mirrored frozen"):
        assert isinstance(start[name], FrozenGates) and torch.equal(start[name].W, start[name].W0)
    assert_close(start["frozen"](x), start["relu"](x), **EXACT)
    assert torch.equal(start["tanh"].W, start["relu"].W)  # one draw for a seed
    moved = start["relu"].replace(W=start["relu"].W * torch.tensor([-1.0] * 3 + [1.0] * 9)[:, None])
    assert _gates_moved(start["relu"], moved, x) == pytest.approx(3 / 12)


def agree(row, other):
    """The same numbers to rounding; a flag, a count or a median number of steps exactly."""
    assert row.keys() == other.keys()
    for name in row:
        assert row[name] == pytest.approx(other[name], rel=1e-6, abs=1e-9, nan_ok=True), name


CELLS = [
    ScaleCell(60, seed, 12, variant, scale)
    for variant in ("softplus", "relu")
    for seed in (0, 1)
    for scale in (0.3, 2.0)
]


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(first_order, "CAP", 60)
    monkeypatch.setattr(first_order, "KINKED", {"decay": 0.1, "max_steps": 60})


def test_an_ascent_is_the_same_alone_and_in_company(brief):
    together = first_order.measure_ascent(CELLS, CPU)
    for cell, row in zip(reversed(CELLS), reversed(together), strict=True):
        agree(row, first_order.measure_ascent([cell], CPU)[0])
    assert len({row["gradient_change"] for row in together}) == len(CELLS)  # and not all the same


def test_second_maxima_are_the_same_alone_and_in_company(brief):
    for variant in ("softplus", "relu"):
        cells = [dataclasses.replace(CELLS[0], variant=variant, scale=scale) for scale in (0.3, 1.0, 3.0, 10.0)]
        together = first_order.measure_maxima(cells, CPU)
        assert first_order.measure_maxima(cells, CPU) == together
        for cell, row in zip(cells, together, strict=True):
            agree(row, first_order.measure_maxima([cell], CPU)[0])
        assert len({row["critical_predicted"] for row in together}) == 1
        first = together[0]["critical_found"]
        assert [row["found"] for row in together if row["found"]] and not any(row["logistic_found"] for row in together)
        assert all(row["found"] for cell, row in zip(cells, together, strict=True) if first < cell.scale < 1.1 * first)


def test_what_is_measured_is_what_the_package_finds():
    cell = ScaleCell(60, 1, 12, "softplus", 2.0)
    (row,) = first_order.measure_maxima([cell], CPU)
    net, (x0, y) = starter(cell, CPU, torch.float64), first_order.random_input(cell, CPU)
    assert y == -1.0 and first_order.random_input(dataclasses.replace(cell, seed=0), CPU)[1] == 1.0
    f, g = net(2 * x0)[0], net.grad(2 * x0)[0]
    assert row["predicted"] == bool(0.3 * 2 * g.norm() > (f - y).abs())
    assert row["found"] == bool(second_maximum(inner_problem(net, x0, y, 2.0, 0.3), max_steps=300).found)


@pytest.fixture
def small(monkeypatch):
    """The two trainings on the embedded digits, short."""
    for name, value in {"IMAGES": 40, "STEPS": 12, "LONG": 20, "CHECKPOINTS": (5, 10), "RATES": (1.0, 3.0)}.items():
        monkeypatch.setattr(first_order, name, value)
    real = first_order._at
    monkeypatch.setattr(first_order, "_at", lambda series, t: real(series, min(t, 12)))


TRAINED = [
    ScaleCell(40, 0, 16, "relu", 0.3, "digits", rate=3.0),
    ScaleCell(40, 1, 16, "tanh", 2.0, "digits", rate=1.0),
]


def test_a_training_cell_is_the_same_alone_and_in_company(small):
    together = first_order.measure_scales(TRAINED, CPU)
    for cell, row in zip(reversed(TRAINED), reversed(together), strict=True):
        assert first_order.measure_scales([cell], CPU) == [row]
    cell, row = TRAINED[0], together[0]
    X, y, test_X, test_y = first_order.images(cell, CPU)
    assert len(X) == len(y) == row["images"] == 40
    assert_close(X.norm(dim=-1), torch.ones(40))
    out = train_at_scale(starter(cell, CPU, torch.float32), X, y, 0.3, 0.3, 3.0, 12)
    assert row["adversarial_loss_0"] == float(out.adversarial_loss[0])
    assert row["clean_loss"] == float(out.clean_loss[-1]) and row["C0_used"] == float(out.C0_used[-1])
    assert (row["robust_accuracy"], row["test_accuracy"]) == accuracies(out.net, test_X, test_y, 0.3, 0.3)
    other, *_ = first_order.images(dataclasses.replace(cell, seed=1), CPU)
    assert not torch.equal(X, other)


def test_a_long_run_takes_its_best_rate_and_goes_on_from_checkpoint_to_checkpoint(small, monkeypatch):
    cells = [dataclasses.replace(cell, variant="mirrored", rate=0.0) for cell in TRAINED]
    together = first_order.measure_start(cells, CPU)
    assert first_order.measure_start(cells[1:], CPU) == together[1:]
    cell, row = cells[0], together[0]
    X, y, *_ = first_order.images(cell, CPU)
    net = starter(cell, CPU, torch.float32)
    best = min(
        (1.0, 3.0), key=lambda c: float(train_at_scale(net, X, y, 0.3, 0.3, c, 2).adversarial_loss[-1])
    )  # two steps: a tenth of LONG
    assert row["best_rate"] == best and row["start_f"] < 1e-6
    out = train_at_scale(net, X, y, 0.3, 0.3, best, 10)  # in one go
    assert row["adversarial_loss_5"] == pytest.approx(float(out.adversarial_loss[5]), rel=1e-5)
    assert row["adversarial_loss_10"] == pytest.approx(float(out.adversarial_loss[10]), rel=1e-5)
    assert row["C0_used_10"] == pytest.approx(used_C0(out.net, net), rel=1e-5)
    assert row["gates_moved_10"] == pytest.approx(_gates_moved(net, out.net, 0.3 * X), abs=1e-3)
    # a clean loss that the usual start meets in the second leg
    cell = dataclasses.replace(cell, variant="relu")
    monkeypatch.setattr(first_order, "RATES", (0.1,))
    loss = train_at_scale(starter(cell, CPU, torch.float32), X, y, 0.3, 0.3, 0.1, 10).clean_loss
    monkeypatch.setattr(first_order, "CLEAN", float(loss[7:9].mean()))
    assert first_order.measure_start([cell], CPU)[0]["steps_to_clean"] == 8


def test_patience_is_one_training_at_the_cells_rate(small, monkeypatch):
    monkeypatch.setattr(first_order, "PATIENT", (4, 9))
    together = first_order.measure_patience(TRAINED, CPU)
    assert first_order.measure_patience(TRAINED[1:], CPU) == together[1:]
    for cell, row in zip(TRAINED, together, strict=True):
        X, y, test_X, test_y = first_order.images(cell, CPU)
        net = starter(cell, CPU, torch.float32)
        out = train_at_scale(net, X, y, cell.scale, 0.3, cell.rate, 9)
        assert row["adversarial_loss_9"] == pytest.approx(float(out.adversarial_loss[9]), rel=1e-5)
        assert row["clean_loss_4"] == pytest.approx(float(out.clean_loss[4]), rel=1e-5)
        assert row["C0_used_9"] == pytest.approx(used_C0(out.net, net), rel=1e-5)
        robust, clean = accuracies(out.net, test_X, test_y, cell.scale, 0.3)
        assert (row["robust_accuracy_9"], row["test_accuracy_9"]) == pytest.approx((robust, clean), abs=0.02)
        rms = float(net(cell.scale * X).square().mean().sqrt())
        assert row["start_f"] == pytest.approx(rms, rel=1e-5) and row["images"] == 40
