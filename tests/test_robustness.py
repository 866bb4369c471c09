"""What no perturbation flips, against random and optimised ones; what some perturbation flips, against brute force."""

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import SEEDS, nets, normal, random_signs

import lazy_helpers as lh
from lazy_helpers import robustness, strongest, tiles
from lazy_helpers.attack import ascend
from lazy_helpers.experiments import FIGURES, cells_of
from lazy_helpers.measurements import measure_bracket, measure_robust


def trained(size=None, m=300, name="digits", members=2, epochs=150):
    """Networks trained until they leave the ball of C0 = 10, and test points they have not seen; unit norm."""
    train, test = (lh.load_binary(name, size=size, normalize=True, split=split) for split in ("train", "test"))
    net = lh.TwoLayerNet.init(train.X.shape[1], m, members)
    return lh.train_sgd(net, train.X, train.y, C0=10.0, max_epochs=epochs, progress=False)[10.0].net, test.X, test.y


@pytest.fixture(scope="module")
def digits():
    return trained()


# --- the certified radius ---


@given(nets(), SEEDS, st.sampled_from([0.1, 1.0, 10.0]))
def test_only_switching_neurons_add_to_the_tangent_plane_and_those_of_the_other_sign_lower_it(net, seed, reach):
    """The step of the proof: each adds a_s (|v_s| - |z_s|) / sqrt(m) where it switches, and nothing else."""
    x, delta = normal(5, net.d, seed=seed), reach * normal(5, net.d, seed=seed + 1)
    f, g = reference.value_and_grad(net, x)
    rest = net(x + delta) - f - (g * delta).sum(-1)
    z, v = net.preactivations(x), net.W @ delta.mT
    switches = ((z > 0) != (z + v > 0)).double()
    each = net.a.unsqueeze(-1) * switches * (v.abs() - z.abs()) / math.sqrt(net.m)
    torch.testing.assert_close(rest, each.sum(-2), rtol=1e-9, atol=1e-9)
    assert bool((each * net.a.unsqueeze(-1) >= -1e-12).all())


@given(nets(max_m=30), SEEDS, st.booleans())
def test_nothing_within_the_certified_radius_flips(net, seed, shared):
    n = 4
    x = normal(*(() if shared else net.members), n, net.d, seed=seed)
    y = random_signs(n, seed=seed)
    radius = robustness.certified_radius(net, x, y)
    margin = y * net(x)
    assert bool(((radius > 0) == (margin > 0)).all())
    flat = net.flat()
    points = x.expand(*net.members, n, net.d).reshape(len(flat.a), n, net.d)
    R = radius.view(len(flat.a), n).clamp(max=1e6, min=1e-300) * (1 - 1e-9)
    g = reference.value_and_grad(flat, points)[1]
    top = torch.stack([torch.linalg.svd(W).Vh[0] for W in flat.W]).unsqueeze(1).expand_as(points)
    optimised = [ascend(flat, points, y, R, R / 5, 40, best=True), -y.unsqueeze(-1) * g, top, -top, -points]
    aimless = [normal(len(flat.a), n, net.d, seed=seed + k) for k in range(1, 30)]
    for delta in optimised + aimless:
        length = delta.norm(dim=-1, keepdim=True).clamp(min=1e-300)
        moved = points + delta / length * torch.minimum(length, R.unsqueeze(-1)) if delta is optimised[0] else points + delta / length * R.unsqueeze(-1)  # fmt: skip
        after = (y * reference.value(flat.W, flat.a, flat.b, moved)).view_as(margin)
        assert bool((after[margin > 0] > -1e-9).all())


def test_one_neuron_is_certified_exactly():
    """f = relu(w . x) is positive up to its plane, and no neuron can lower it further."""
    net = lh.TwoLayerNet(torch.tensor([[3.0, 4.0]]), torch.ones(1))
    x, y = torch.tensor([[1.0, 0.5]]), torch.ones(1)
    assert float(robustness.certified_radius(net, x, y)) == pytest.approx(1.0)
    assert float(robustness.lipschitz_radius(net, x, y)) == pytest.approx(1.0)
    found = lh.minimal_perturbation(net, x, y)
    assert float(found.norm) == pytest.approx(1.0, rel=1e-3) and bool(found.found)


def test_the_closed_form_is_the_bisections_root():
    """The largest R at which the bound of the docstring is positive, found by bisection on the bound itself."""
    net, x = lh.TwoLayerNet.init(8, 60, seed=3, dtype=torch.float64), normal(10, 8)
    f, g = reference.value_and_grad(net, x)
    y = f.sign()
    radius = robustness.certified_radius(net, x, y)
    for i in range(10):
        down = net.W[net.a == -y[i]]
        sigma, c = torch.linalg.svdvals(down)[0], (down @ x[i]).abs().sort().values.cumsum(0)
        k = torch.arange(1, len(down) + 1).double()
        low, high = 0.0, 100.0
        for _ in range(60):
            R = (low + high) / 2
            bound = f[i].abs() - R * g[i].norm() - (sigma * R * k.sqrt() - c).max().clamp(min=0) / math.sqrt(net.m)
            low, high = (R, high) if bound > 0 else (low, R)
        assert float(radius[i]) == pytest.approx(low, rel=1e-9)


@given(nets(max_m=30), SEEDS)
def test_the_lipschitz_radius_holds_too(net, seed):
    x, y = normal(4, net.d, seed=seed), random_signs(4, seed=seed)
    radius = robustness.lipschitz_radius(net, x, y)
    margin = y * net(x)
    for k in range(20):
        delta = torch.nn.functional.normalize(normal(4, net.d, seed=seed + k), dim=-1) * radius.unsqueeze(-1)
        assert bool((y * net(x + delta) > -1e-9)[margin > 0].all())
    assert bool(((radius > 0) == (margin > 0)).all())


# --- the smallest perturbation found ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_networks_distance_is_found(dtype):
    w = normal(1, 6, dtype=dtype)
    net = lh.TwoLayerNet(torch.cat([w, -w]), torch.tensor([1.0, -1.0], dtype=dtype))
    x = normal(9, 6, dtype=dtype)
    y = net(x).sign()
    found = lh.minimal_perturbation(net, x, y)
    distance = ((x @ w.T)[:, 0].abs() / w.norm()).expand(3, 9)
    torch.testing.assert_close(found.norms, distance, rtol=1e-3, atol=1e-5)
    assert bool((found.norm >= distance[0] * (1 - 1e-5)).all())


@pytest.mark.parametrize("bias", [False, True])
def test_the_smallest_found_is_near_brute_force_over_all_directions(bias):
    """In the plane: 2000 directions, and along each the first of 2000 steps that flips."""
    net = lh.TwoLayerNet.init(2, 10, members=12, seed=2, bias=bias, dtype=torch.float64)
    x = normal(6, 2)
    y = random_signs(6)
    found = lh.minimal_perturbation(net, x, y)
    angle = torch.linspace(0, 2 * math.pi, 721).double()[:-1]
    around = torch.stack([angle.cos(), angle.sin()], -1)
    step = 4e-3 * x.norm(dim=-1).max()
    best = torch.full((12, 6), math.inf).double()
    for k in range(1, 400):
        moved = (x + k * step * around.unsqueeze(1)).reshape(-1, 2)
        flips = ((y * net(moved).view(12, -1, 6)) <= 0).any(1)
        best = torch.where(flips & best.isinf(), k * step, best)
    wrong = y * net(x) <= 0
    assert torch.equal(found.norm == 0, wrong)
    near = ~wrong & best.isfinite()
    assert int(near.sum()) > 20 and float(found.found[near].double().mean()) > 0.9
    near &= found.found
    ratio = found.norm[near] / best[near]
    assert bool((found.norm[near] > best[near] - 2 * step).all())
    assert float(ratio.median()) < 1.02 and float((ratio < 1.1).double().mean()) > 0.9


@given(nets(max_m=20), SEEDS, st.booleans())
def test_what_is_found_flips_and_is_no_smaller_than_certified(net, seed, shared):
    x = normal(*(() if shared else net.members), 4, net.d, seed=seed)
    y = random_signs(4, seed=seed)
    found = lh.minimal_perturbation(net, x, y, steps=10, rounds=3)
    assert found.norm.shape == (*net.members, 4) and found.delta.shape == (*net.members, 4, net.d)
    there = y * net(x + found.delta.nan_to_num(0.0))
    assert bool((there[found.found] <= 1e-12).all())
    torch.testing.assert_close(found.delta.norm(dim=-1)[found.found], found.norm[found.found], rtol=1e-9, atol=1e-12)
    assert torch.equal(found.norm.isnan(), ~found.found)
    radius = robustness.certified_radius(net, x, y)
    assert bool((found.norm[found.found] >= radius[found.found] * (1 - 1e-9)).all())
    lowest = torch.where(found.norms.isnan(), math.inf, found.norms).amin(0)
    torch.testing.assert_close(lowest[found.found], found.norm[found.found], rtol=1e-9, atol=1e-12)


def test_where_nothing_flips_nothing_is_found():
    net = lh.TwoLayerNet(normal(5, 3), torch.ones(5).double(), torch.ones(5).double() * 50)
    net = net.replace(W=0 * net.W)  # f is a positive constant
    found = lh.minimal_perturbation(net, normal(4, 3), torch.ones(4))
    assert not found.found.any() and found.norm.isnan().all() and found.norms.isnan().all()
    assert bool(robustness.certified_radius(net, normal(4, 3), torch.ones(4)).isinf().all())


def test_members_are_independent_and_tiles_change_nothing(monkeypatch):
    net = lh.TwoLayerNet.init(5, 40, members=(2, 2), seed=1, dtype=torch.float64)
    x, y = normal(30, 5), random_signs(30)
    whole = lh.minimal_perturbation(net, x, y, steps=15, rounds=4)
    attack = lh.strongest_attack(net, x, y, 0.3, steps=15, restarts=3)
    radius = robustness.certified_radius(net, x, y)
    alone = lh.minimal_perturbation(net[1, 0], x, y, steps=15, rounds=4)
    torch.testing.assert_close(whole.norm[1, 0], alone.norm, rtol=1e-6, atol=1e-9, equal_nan=True)
    monkeypatch.setattr(tiles, "TILE_BYTES", 1)
    torch.testing.assert_close(robustness.certified_radius(net, x, y), radius)
    again = lh.strongest_attack(net, x, y, 0.3, steps=15, restarts=3)
    torch.testing.assert_close(again.margin, attack.margin, rtol=1e-6, atol=1e-9)


# --- the strongest attack ---


@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_the_strongest_attack_keeps_to_its_budget_and_loses_to_none_of_its_parts(digits, box):
    net, x, y = digits
    x, y = x[:40], y[:40]
    for eps in (0.15, torch.tensor([0.1, 0.25])):
        attack = lh.strongest_attack(net, x, y, eps, steps=20, restarts=2, box=box)
        torch.testing.assert_close(attack.margin, y * net(x + attack.delta), rtol=1e-4, atol=1e-5)
        budget = torch.as_tensor(eps).expand(2).unsqueeze(-1)
        assert bool((attack.delta.norm(dim=-1) <= budget * (1 + 1e-5)).all())
        if box is not None:
            assert float((x + attack.delta).min()) >= -1e-6 and float((x + attack.delta).max()) <= 1 + 1e-6
        plain = y * net(x + lh.pgd(net, x, y, eps, steps=20, box=box))
        assert bool((attack.margin <= plain + 1e-5).all())
        flip = lh.smallest_flip(net, x)
        if box is None:
            assert bool((attack.margin <= 1e-5)[flip.found & (flip.norm < 0.999 * budget)].all())


def test_iterated_linearisation_keeps_to_its_budget():
    net, x, y = lh.TwoLayerNet.init(6, 50, members=3, dtype=torch.float64), normal(20, 6), random_signs(20)
    eps = torch.rand(3, 20, generator=reference.stream(0)).double()
    x3 = x.expand(3, 20, 6)
    delta = strongest._linearised(net, x3, y, eps, 12, None, smallest=False)
    assert bool((delta.norm(dim=-1) <= eps * (1 + 1e-12)).all())
    assert bool((y * net(x + delta) <= y * net(x) + 1e-12).all())


# --- both sides ---


def test_robust_accuracy_lies_between_its_bounds(digits):
    net, x, y = digits
    eps = [0.02, 0.1, 0.2, 0.4]
    both = lh.bracket(net, x, y, eps)
    assert bool((both.lower <= both.upper).all()) and both.lower.shape == both.upper.shape == (2, 4)
    assert bool((both.upper.diff(dim=-1) <= 0).all()) and bool((both.lower.diff(dim=-1) <= 0).all())
    for i, e in enumerate(eps):
        attack = lh.strongest_attack(net, x, y, e, steps=20, restarts=1)
        robust = (attack.margin > 0).double().mean(-1)
        assert bool((robust >= both.lower[:, i]).all()) and bool(((robust - both.upper[:, i]).abs() < 0.03).all())
    assert bool((both.gap < 2.3).all()) and bool((both.gap >= 1).all())
    assert bool((both.lipschitz_gap > 3).all()) and bool((both.lipschitz_gap < 7).all())


def test_at_the_edge_of_the_budget_the_bracket_is_one_number():
    net, x, y = lh.TwoLayerNet.init(4, 20), lh.unit_sphere(9, 4), torch.ones(9)
    both = lh.bracket(net, x, y, 1e-9)
    clean = (net(x) > 0).double().mean()
    assert both.lower.tolist() == both.upper.tolist() == [clean]


def test_attacks_and_bounds_leave_their_inputs_alone():
    net, x, y = lh.TwoLayerNet.init(4, 20, bias=True), lh.unit_sphere(5, 4), torch.ones(5)
    kept, weights, state = x.clone(), net.weights.clone(), torch.get_rng_state()
    lh.bracket(net, x, y, 0.2), lh.strongest_attack(net, x, y, 0.2, box=(-1.0, 1.0))
    assert torch.equal(x, kept) and torch.equal(net.weights, weights) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize("size", [10, 28])
def test_the_gap_on_mnist(mnist, size):
    net, x, y = trained(size, 1000, "mnist", (), epochs=10)
    some = torch.randperm(len(x), generator=reference.stream(0))[:100]
    both = lh.bracket(net, x[some], y[some], 0.1)
    assert both.gap < 2.3 and 1.8 * both.gap < both.lipschitz_gap < 7


def test_a_cell_of_figure_4_is_bracketed():
    (cell, *_) = cells_of(FIGURES["fig4_bracket"], "digits")
    (row,), (trained,) = (measure([cell], torch.device("cpu")) for measure in (measure_bracket, measure_robust))
    assert (
        row["images"] == 119 and row["pgd"] == trained["robust_accuracy"]
    )  # all test images: the same network, the same attack
    assert 0 <= row["lipschitz"] <= row["certified"] <= row["strongest"] <= row["pgd"] < row["test_accuracy"]
    assert row["strongest"] > row["certified"] and 1 < row["gap"] < row["lipschitz_gap"]
