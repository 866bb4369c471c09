"""Two hidden layers: autograd, torch.nn and torch.optim beside the closed forms; flips against brute force on every bend."""

import dataclasses
import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import MEMBERS, SEEDS, normal, random_signs

import lazy_helpers as lh
from lazy_helpers import deep
from lazy_helpers.deep import DeepNet, flip_deep, measure_deep, train_deep, used_C0
from lazy_helpers.experiments import Cell

DOUBLE = torch.float64


@st.composite
def nets(draw, max_m=10, max_d=5):
    """A small random network in float64."""
    d, m1, m2 = draw(st.integers(1, max_d)), draw(st.integers(1, max_m)), draw(st.integers(1, max_m))
    return DeepNet.init(d, m1, m2, draw(MEMBERS), seed=draw(SEEDS), dtype=DOUBLE)


def singles(net):
    """The ensemble's members as networks of their own, in row-major order."""
    flat = net.flat()
    return [flat[k] for k in range(len(flat.a))]


def sequential(net):
    """One network as torch.nn has it, its constants in the output layer and between the two others."""
    (m1, d), m2 = net.W1.shape, len(net.a)
    layers = [torch.nn.Linear(*sizes, bias=False, dtype=net.W1.dtype) for sizes in ((d, m1), (m1, m2), (m2, 1))]
    with torch.no_grad():
        layers[0].weight.copy_(net.W1)
        layers[1].weight.copy_(net.W2)
        layers[2].weight.copy_(net.a / math.sqrt(m2))

    class Between(torch.nn.Module):
        def forward(self, h):
            return h * math.sqrt(2 / m1)

    relu = torch.nn.ReLU()
    return torch.nn.Sequential(layers[0], relu, Between(), layers[1], relu, layers[2], torch.nn.Flatten(0))


def ray(net, x):
    """One network's value and gradient at x (d,) in plain numpy, and f as a function."""
    W1, W2, a = (part.double().numpy() for part in (net.W1, net.W2, net.a))
    scale = math.sqrt(2 / (len(W1) * len(W2)))

    def f(z):
        return scale * float(a @ np.maximum(W2 @ np.maximum(W1 @ z, 0), 0))

    on1 = W1 @ x > 0
    on2 = W2 @ np.maximum(W1 @ x, 0) > 0
    return f, scale * ((a * on2) @ W2 * on1) @ W1, W1, W2


def brute_force(net, x):
    """The smallest flipping step at x (d,), None if there is none: f by its definition at every bend of both layers."""
    x = x.double().numpy()
    f, grad, W1, W2 = ray(net, x)
    start = f(x)
    if abs(start) < 1e-12 or not grad.any():
        return None
    away = -np.sign(start) * grad

    def second(t):
        return W2 @ np.maximum(W1 @ (x + t * away), 0)

    def between(low, high):
        """Bends of the second layer where its pre-activations are linear, by their values at two places there."""
        at = low + (high - low) * np.array([0.25, 0.75])
        z = np.stack([second(t) for t in at])
        with np.errstate(divide="ignore", invalid="ignore"):
            return at[0] - z[0] * (at[1] - at[0]) / (z[1] - z[0])

    u, v = W1 @ x, W1 @ away
    inner = -u[v != 0] / v[v != 0]
    knots = np.concatenate([[0], np.unique(inner[inner > 0])])
    bends = list(knots)
    for low, high in zip(knots, [*knots[1:], math.inf], strict=True):
        roots = between(low, min(high, low + 1))
        bends += [t for t in roots if low < t < high]
    bends = np.unique(bends)
    heights = np.sign(start) * np.array([f(x + t * away) for t in bends])
    for i in range(1, len(bends)):
        if heights[i] < -1e-10 * (1 + bends[i]):
            high = max(heights[i - 1], 0)
            return bends[i - 1] + (bends[i] - bends[i - 1]) * high / (high - heights[i])
    fall = heights[-1] - np.sign(start) * f(x + (bends[-1] + 1) * away)
    return bends[-1] + max(heights[-1], 0) / fall if fall > 1e-8 * (1 + bends[-1]) else None


def compare_with_brute_force(net, x):
    """Every member's flip at every point; returns how many were found."""
    flip = flip_deep(net, x)
    for k, member in enumerate(singles(net)):
        points = x if x.ndim == 2 else x.reshape(-1, *x.shape[-2:])[k]
        for i, point in enumerate(points):
            eta, found = (part.reshape(-1, len(points))[k, i] for part in (flip.eta, flip.found))
            true = brute_force(member, point)
            assert bool(found) == (true is not None)
            assert eta.isnan() if true is None else eta.item() == pytest.approx(true, rel=1e-8, abs=1e-8)
    return int(flip.found.sum())


# --- the network ---


@given(nets(), st.integers(1, 4), st.booleans(), SEEDS)
def test_value_and_gradient_equal_torch_nn_and_autograd(net, n, shared, seed):
    x = normal(*(() if shared else net.members), n, net.d, seed=seed)
    f, g = net(x), net.grad(x)
    assert f.shape == (*net.members, n) and g.shape == (*net.members, n, net.d)
    points = x.expand(*net.members, n, net.d).reshape(-1, n, net.d)
    for k, member in enumerate(singles(net)):
        at = points[k].clone().requires_grad_()
        true = sequential(member)(at)
        torch.testing.assert_close(f.reshape(-1, n)[k], true.detach(), rtol=1e-10, atol=1e-10)
        (slope,) = torch.autograd.grad(true.sum(), at)
        torch.testing.assert_close(g.reshape(-1, n, net.d)[k], slope, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close((g * x).sum(-1), f, rtol=1e-9, atol=1e-9)  # no biases: f is 1-homogeneous


def test_members_are_bit_for_bit_the_networks_of_their_seeds():
    pair = DeepNet.init(4, 5, 6, members=(2, 2), seed=7)
    for k, member in enumerate(singles(pair)):
        alone = DeepNet.init(4, 5, 6, seed=7 + k)
        assert all(torch.equal(getattr(member, part), getattr(alone, part)) for part in ("W1", "W2", "a"))
    assert not torch.equal(pair.W1[0, 0], pair.W1[0, 1])
    assert torch.equal(DeepNet.init(4, 5, 6, seed=7, dtype=DOUBLE).W2, pair.W2[0, 0].double())


def test_the_start_is_the_papers_in_law():
    """The second layer sees N(0, 1), E f^2 = 1/2 and E ||grad f||^2 is about d/2, as for one hidden layer."""
    d, m = 40, 200
    net = DeepNet.init(d, m, m, members=400, dtype=DOUBLE)
    x = torch.nn.functional.normalize(normal(1, d), dim=-1)
    z = deep.GAIN / math.sqrt(m) * net.W2 @ (net.W1 @ x[0]).relu().unsqueeze(-1)
    assert float(z.mean()) == pytest.approx(0, abs=0.02) and float(z.var()) == pytest.approx(1, abs=0.03)
    assert float(net(x).square().mean()) == pytest.approx(0.5, abs=0.15)
    assert float(net.grad(x).square().sum(-1).mean()) == pytest.approx(d / 2, rel=0.05)
    assert set(net.a.unique().tolist()) == {-1.0, 1.0} and float(net.a.mean()) == pytest.approx(0, abs=0.02)


# --- the smallest flip ---


@given(nets(), st.integers(1, 4), st.booleans(), SEEDS)
def test_flip_equals_brute_force_over_every_bend(net, n, shared, seed):
    compare_with_brute_force(net, normal(*(() if shared else net.members), n, net.d, seed=seed))


@given(nets(max_m=6, max_d=3), SEEDS)
def test_flip_equals_brute_force_where_bends_coincide(net, seed):
    """Whole numbers: pre-activations exactly 0, bends of both layers on top of each other, gradients and values 0."""
    whole = DeepNet(net.W1.round(), net.W2.round(), net.a)
    compare_with_brute_force(whole, normal(4, net.d, seed=seed).round())


def test_flips_of_random_networks_are_both_found_and_not_found():
    """So that the comparisons above say something."""
    net = DeepNet.init(3, 5, 5, members=40, dtype=DOUBLE)
    assert 40 < compare_with_brute_force(net, normal(5, 3)) < 160


@pytest.mark.parametrize(("d", "m1", "m2"), [(3, 30, 80), (20, 200, 60), (50, 400, 400)])
def test_sign_is_constant_before_the_flip_and_changed_after(d, m1, m2):
    """A fine grid on the ray misses no earlier change, by the definition of f."""
    net = DeepNet.init(d, m1, m2, seed=d, dtype=DOUBLE)
    x = torch.nn.functional.normalize(normal(6, d), dim=-1)
    flip = flip_deep(net, x)
    assert int(flip.found.sum()) >= 4
    model = sequential(net)
    for i in flip.found.nonzero().squeeze(-1):
        grid = torch.linspace(0, 1 - 1e-9, 4001, dtype=DOUBLE)
        away = -flip.value[i].sign() * net.grad(x[i : i + 1])
        with torch.no_grad():
            before = model(x[i] + flip.eta[i] * grid.unsqueeze(-1) * away) * flip.value[i].sign()
            after = model(x[i] + flip.eta[i] * (1 + 1e-9) * away) * flip.value[i].sign()
        assert bool((before > 0).all()) and float(after) < 0
        assert float(flip.norm[i]) == pytest.approx(float(flip.eta[i] * away.norm()), rel=1e-12)
        assert float(flip.grad_norm[i]) == pytest.approx(float(away.norm()), rel=1e-12)


def one(W1, W2, a):
    return DeepNet(*(torch.tensor(part, dtype=DOUBLE) for part in (W1, W2, a)))


def test_no_gradient_no_value_no_flip():
    silent = one([[1.0, 0.0]], [[1.0]], [1.0])
    x = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=DOUBLE)
    flip = flip_deep(silent, x)  # off, at the bend, and on: f then falls to 0 and no further
    assert not bool(flip.found.any()) and bool(flip.eta.isnan().all() and flip.norm.isnan().all())
    assert flip.value.tolist() == pytest.approx([0, 0, math.sqrt(2)])
    assert flip.grad_norm.tolist() == pytest.approx([0, 0, math.sqrt(2)])
    balanced = one([[1.0], [1.0]], [[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0])
    at_zero = flip_deep(balanced, torch.tensor([[2.0]], dtype=DOUBLE))
    assert at_zero.value.item() == 0 and not bool(at_zero.found)


def test_a_value_that_cancels_but_for_rounding_has_no_sign():
    half = DeepNet.init(7, 40, 30, dtype=DOUBLE)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    net = DeepNet(half.W1, torch.cat([half.W2, half.W2[order]]), torch.cat([half.a, -half.a[order]]))
    flip = flip_deep(net, normal(20, 7))
    assert bool((flip.value == 0).all()) and not bool(flip.found.any())


def test_a_neuron_that_turns_on_late_makes_the_flip():
    """By hand: relu(x) - relu(3 relu(-x) - relu(x)) falls from x = 1 to 0 at x = 0, and turns negative right there."""
    net = one([[1.0], [-1.0]], [[1.0, 0.0], [-1.0, 3.0]], [1.0, -1.0])
    scale = math.sqrt(2 / 4)
    flip = flip_deep(net, torch.tensor([[1.0]], dtype=DOUBLE))
    assert bool(flip.found) and flip.norm.item() == pytest.approx(1.0)
    assert flip.value.item() == pytest.approx(scale) and flip.eta.item() == pytest.approx(1 / scale)


def test_flips_of_many_points_do_not_depend_on_their_tiles(monkeypatch):
    net = DeepNet.init(10, 60, 50, members=2)
    x = torch.nn.functional.normalize(normal(130, 10, dtype=torch.float32), dim=-1)
    whole = flip_deep(net, x)
    monkeypatch.setattr("lazy_helpers.tiles.TILE_BYTES", 1)  # 16 points at a time
    parts = flip_deep(net, x)
    for field in dataclasses.fields(whole):
        a, b = getattr(whole, field.name), getattr(parts, field.name)
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, equal_nan=True)
    each = torch.stack([flip_deep(net[k], x).eta for k in range(2)])
    torch.testing.assert_close(whole.eta, each, rtol=1e-6, atol=1e-7, equal_nan=True)


# --- training ---


def torch_steps(net, X, y, lr, batch_size, epochs, seed):
    """torch.nn with torch.optim.SGD: (W1, W2) after every step."""
    model = sequential(net)
    weights = [model[0].weight, model[3].weight]
    optimiser = torch.optim.SGD(weights, lr=lr)
    for batch in reference.minibatches(len(X), batch_size, epochs, seed):
        optimiser.zero_grad()
        torch.log1p(torch.exp(-y[batch] * model(X[batch]))).mean().backward()
        optimiser.step()
        yield tuple(W.detach().clone() for W in weights)


def used(net, weights):
    """The C0 that each layer uses, row by row."""
    pairs = zip(weights, (net.W1, net.W2), strict=True)
    return [math.sqrt(len(W)) * max(float((w - w0).norm()) for w, w0 in zip(W, W0, strict=True)) for W, W0 in pairs]


def torch_sgd(net, X, y, C0, lr, batch_size, epochs, seed):
    """The last (W1, W2) inside, steps, left; measured after every step."""
    inside, steps = (net.W1, net.W2), 0
    for weights in torch_steps(net, X, y, lr, batch_size, epochs, seed):
        if max(used(net, weights)) > C0:
            return *inside, steps, True
        inside, steps = weights, steps + 1
    return *inside, steps, False


def problem(n, d, seed=0):
    X = torch.nn.functional.normalize(normal(n, d, seed=seed), dim=-1)
    return X, random_signs(n, seed=seed + 1)


@pytest.mark.parametrize(("C0", "lr", "leaves"), [(0.2, 0.1, True), (1.0, 0.5, True), (1e3, 0.1, False), (1e-6, 0.1, True)])  # fmt: skip
def test_training_equals_torch_optim_step_for_step(C0, lr, leaves):
    """51 points in batches of 8: the last one is smaller. The exit is the last iterate inside, or the start itself."""
    X, y = problem(51, 6)
    net = DeepNet.init(6, 12, 9, members=3, seed=5, dtype=DOUBLE)
    exit = train_deep(net, X, y, C0, lr=lr, batch_size=8, max_epochs=6, seed=3)
    for k, member in enumerate(singles(net)):
        W1, W2, steps, left = torch_sgd(member, X, y, C0, lr, 8, 6, seed=3 + k)
        assert (int(exit.steps[k]), bool(exit.left[k])) == (steps, left) and left == leaves
        torch.testing.assert_close(exit.net.W1[k], W1, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(exit.net.W2[k], W2, rtol=1e-9, atol=1e-9)
        assert float(exit.epochs[k]) == pytest.approx(steps / 7)
        loss = torch.log1p(torch.exp(-y * sequential(exit.net[k])(X).detach())).mean()
        assert float(exit.train_loss[k]) == pytest.approx(float(loss))
    assert bool((used_C0(exit.net, net) <= C0).all())


@pytest.mark.parametrize(("m1", "m2", "ends"), [(60, 4, 0), (2, 60, 1)])
def test_either_layer_ends_the_training(m1, m2, ends):
    """Every iterate up to the exit is inside both balls; after the next step one layer's is left, and either may be the one."""
    X, y = problem(64, 8)
    net = DeepNet.init(8, m1, m2, seed=2, dtype=DOUBLE)
    exit = train_deep(net, X, y, 1.0, batch_size=16, max_epochs=50)
    steps = int(exit.steps)
    trace = [used(net, weights) for weights in torch_steps(net, X, y, 0.1, 16, steps // 4 + 1, 0)]
    assert bool(exit.left) and steps > 0
    assert max(map(max, trace[:steps])) <= 1 < max(trace[steps])
    assert trace[steps][ends] > 1 > trace[steps][1 - ends]
    assert used_C0(exit.net, net).tolist() == pytest.approx(trace[steps - 1])


def test_members_train_bit_for_bit_as_alone():
    X, y = problem(40, 5)
    X, y = X.float(), y.float()
    net = DeepNet.init(5, 30, 20, members=(2, 2), seed=1)
    exit = train_deep(net, X, y, 1.0, batch_size=8, max_epochs=4, seed=1)
    for k in range(4):
        alone = train_deep(DeepNet.init(5, 30, 20, seed=1 + k), X, y, 1.0, batch_size=8, max_epochs=4, seed=1 + k)
        place = divmod(k, 2)
        assert torch.equal(exit.net.W1[place], alone.net.W1) and torch.equal(exit.net.W2[place], alone.net.W2)
        assert exit.steps[place] == alone.steps and exit.left[place] == alone.left


def test_training_that_diverges_has_left():
    X, y = problem(20, 4)
    exit = train_deep(DeepNet.init(4, 5, 5, dtype=DOUBLE), 1e200 * X, y, 1e300, lr=1e200, batch_size=4, max_epochs=3)
    assert bool(exit.left) and bool(exit.net.W1.isfinite().all())


# --- a cell ---


def test_a_cell_is_what_its_parts_give():
    cells = [Cell(30, seed, 64, "theory", 3.0, "digits") for seed in (0, 1)]
    rows = measure_deep(cells, torch.device("cpu"))
    train, test = (lh.load_binary("digits", 8, normalize=True, split=split) for split in ("train", "test"))
    for cell, row in zip(cells, rows, strict=True):
        start = DeepNet.init(64, 30, 30, seed=cell.seed)
        W1, W2, steps, left = torch_sgd(start, train.X, train.y, 3.0, 0.1, 64, 1000, seed=cell.seed)
        assert (row["steps"], row["left"]) == (steps, left) and row["epochs"] == pytest.approx(steps / 4)
        net = DeepNet(W1, W2, start.a).to(DOUBLE)
        X, y = test.X.double(), test.y
        right = [float(f) * float(label) > 0 for f, label in zip(sequential(net)(X).detach(), y, strict=True)]
        etas = [brute_force(net, point) if good else None for good, point in zip(right, X, strict=True)]
        norms = [float(net.grad(X[i : i + 1]).norm()) for i in range(len(X))]
        steps_taken = [eta * norm for eta, norm in zip(etas, norms, strict=True) if eta is not None]
        assert row["relative_perturbation"] == pytest.approx(np.mean(steps_taken), rel=1e-3)
        assert row["relative_perturbation_sd"] == pytest.approx(np.std(steps_taken, ddof=1), rel=1e-3)
        assert row["eta"] == pytest.approx(np.mean([eta for eta in etas if eta is not None]), rel=1e-3)
        assert row["grad_norm"] == pytest.approx(np.mean(norms), rel=1e-4)
        assert row["misclassified"] == len(X) - sum(right)
        assert row["test_accuracy"] == pytest.approx(np.mean(right))
        assert row["not_found"] == sum(right) - len(steps_taken)
        assert row["abs_f"] == pytest.approx(float(sequential(net)(X).detach().abs().mean()), rel=1e-4)
        assert row["deviation_C0"] == max(row["deviation_C0_first"], row["deviation_C0_second"]) <= 3.0
    assert measure_deep(cells[1:], torch.device("cpu")) == rows[1:]


# --- wrong input ---


NET = DeepNet.init(3, 4, 5)
X, Y = lh.unit_sphere(6, 3), torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])


WRONG = [
    (lambda: DeepNet.init(0, 4, 5), "d"),
    (lambda: DeepNet.init(3, 2.5, 5), "m1"),
    (lambda: DeepNet.init(3, 4, -1), "m2"),
    (lambda: DeepNet.init(3, 4, 5, members=0), "members"),
    (lambda: DeepNet.init(3, 4, 5, seed=-1), "seed"),
    (lambda: DeepNet.init(3, 4, 5, device="tpu"), "device"),
    (lambda: DeepNet.init(3, 4, 5, dtype=torch.int64), "dtype"),
    (lambda: DeepNet(NET.W1[0], NET.W2, NET.a), "W1"),
    (lambda: DeepNet(NET.W1, NET.W2[:, :3], NET.a), "W2"),
    (lambda: DeepNet(NET.W1, NET.W2.double(), NET.a), "W2"),
    (lambda: DeepNet(NET.W1, NET.W2, NET.a[:4]), "a"),
    (lambda: NET(X[:, :2]), "x"),
    (lambda: NET.grad(X.double()), "x"),
    (lambda: flip_deep(NET, X * math.nan), "x"),
    (lambda: flip_deep(NET, X[:0]), "x"),
    (lambda: train_deep(NET, X[None], Y), "X"),
    (lambda: train_deep(DeepNet.init(3, 4, 5, members=2), X.expand(2, 6, 3), Y), "X"),
    (lambda: train_deep(NET, X, Y[:5]), "y"),
    (lambda: train_deep(NET, X, 2 * Y), "y"),
    (lambda: train_deep(NET, X, Y, C0=0), "C0"),
    (lambda: train_deep(NET, X, Y, lr=-1), "lr"),
    (lambda: train_deep(NET, X, Y, batch_size=0), "batch_size"),
    (lambda: train_deep(NET, X, Y, max_epochs=0.5), "max_epochs"),
    (lambda: train_deep(NET, X, Y, seed="a"), "seed"),
    (lambda: measure_deep([Cell(30, 0, 64, "published", 3.0, "digits")], torch.device("cpu")), "variant"),
]


@pytest.mark.parametrize(("call", "name"), WRONG, ids=[f"{name}-{i}" for i, (_, name) in enumerate(WRONG)])
def test_wrong_input_is_one_sentence(call, name):
    with pytest.raises(ValueError) as error:
        call()
    message = str(error.value)
    assert message.startswith(f"{name} ") and message.endswith(".") and "\n" not in message
