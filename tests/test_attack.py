"""The smallest flip against brute force over every bend and a dense scan; PGD against autograd and random directions."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import SEEDS, nets, normal, random_signs, singles, value_and_grad

import lazy_helpers as lh
from lazy_helpers import attack, tiles

FLOATS = [torch.float32, torch.float64]


def double(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def compare_with_brute_force(net, x):
    """Every field of every member's flip at every point; returns how many were found."""
    flip = lh.smallest_flip(net, x)
    f, g = value_and_grad(net, x)
    torch.testing.assert_close(flip.value, f, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(flip.grad_norm, g.norm(dim=-1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(flip.norm, flip.eta * flip.grad_norm, rtol=1e-12, atol=0, equal_nan=True)
    eta, found = (part.reshape(-1, x.shape[-2]) for part in (flip.eta, flip.found))
    points = x.expand(*net.members, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
    for k, member in enumerate(singles(net)):
        for i in range(x.shape[-2]):
            true = reference.smallest_flip(member, points[k, i])
            assert bool(found[k, i]) == (true is not None)
            assert eta[k, i].isnan() if true is None else eta[k, i].item() == pytest.approx(true, rel=1e-9, abs=1e-9)
    return int(found.sum())


def along_the_ray(net, x, eta):
    """sign(f(x)) f(x - sign(f) eta grad f) at one point (1, d), for each eta: by the definition, in float64."""
    net, x = net.to(torch.float64), x.double()
    f, g = value_and_grad(net, x)
    return f.sign() * reference.value(net.W, net.a, net.b, x - f.sign() * eta.unsqueeze(-1) * g)


# --- the smallest flip ---


@given(nets(), st.integers(1, 4), st.booleans(), SEEDS)
def test_flip_equals_brute_force_over_every_bend(net, n, shared, seed):
    compare_with_brute_force(net, normal(*(() if shared else net.members), n, net.d, seed=seed))


@given(nets(max_m=8, max_d=3), SEEDS)
def test_flip_equals_brute_force_where_bends_coincide(net, seed):
    """Whole numbers: pre-activations exactly 0, bends on top of each other, values that touch zero, gradients zero."""
    net = net.with_weights(net.weights.round())
    compare_with_brute_force(net, normal(4, net.d, seed=seed).round())


def test_flips_of_random_networks_are_both_found_and_not_found():
    """So that the comparisons above say something."""
    net = lh.TwoLayerNet.init(3, 5, members=40, dtype=torch.float64)
    assert 40 < compare_with_brute_force(net, normal(5, 3)) < 160


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("m", "d", "n"), [(300, 20, 5), (10_000, 30, 2)])
def test_sign_is_constant_before_the_flip_and_changed_after(m, d, n, bias):
    net = lh.TwoLayerNet.init(d, m, seed=m, bias=bias, dtype=torch.float64)
    x = torch.nn.functional.normalize(normal(n, d), dim=-1)
    flip = lh.smallest_flip(net, x)
    assert bool(flip.found.all())
    for i in range(n):
        scan = torch.linspace(0, 1, 1001).double()
        before = along_the_ray(net, x[i : i + 1], flip.eta[i] * scan * (1 - 1e-9))
        after = along_the_ray(net, x[i : i + 1], flip.eta[i] * (1 + torch.tensor([1e-9, 1e-6, 1e-3]).double()))
        assert bool((before > 0).all()) and bool((after < 0).all())


@given(nets(max_m=30), SEEDS)
def test_rays_without_a_flip_never_change_sign(net, seed):
    x = normal(5, net.d, seed=seed)
    flip = lh.smallest_flip(net, x)
    steps = torch.cat([torch.linspace(0, 10, 300), torch.logspace(1, 6, 100)]).double()
    members, found = singles(net), flip.found.reshape(-1, 5)
    for k, i in (~found).nonzero().tolist():
        heights = along_the_ray(members[k], x[i : i + 1], steps)
        assert float((heights / (1 + steps)).min()) > -1e-12


@given(nets(max_m=30), SEEDS)
def test_permuting_neurons_changes_nothing(net, seed):
    x, order = normal(4, net.d, seed=seed), torch.randperm(net.m, generator=reference.stream(seed))
    b = None if net.b is None else net.b[..., order]
    shuffled = lh.TwoLayerNet(net.W[..., order, :], net.a[..., order], b)
    one, other = lh.smallest_flip(net, x), lh.smallest_flip(shuffled, x)
    assert torch.equal(one.found, other.found)
    torch.testing.assert_close(one.eta, other.eta, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS)
def test_linear_network_flips_at_f_over_the_squared_gradient(dtype):
    """relu(z) - relu(-z) = z, so pairs (w, -w) of opposite sign make f linear."""
    W = normal(6, 4, dtype=dtype)
    net = lh.TwoLayerNet(torch.cat([W, -W]), torch.cat([torch.ones(6), -torch.ones(6)]).to(dtype))
    x, w = normal(9, 4, dtype=dtype), W.sum(0) / math.sqrt(12)
    flip = lh.smallest_flip(net, x)
    assert bool(flip.found.all())
    torch.testing.assert_close(flip.eta, (x @ w).abs() / w.square().sum(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(flip.norm, (x @ w).abs() / w.norm(), rtol=1e-4, atol=1e-5)


@given(nets(bias=st.just(False)), SEEDS, st.sampled_from([0.01, 3.0, 100.0]))
def test_scaling_the_weights_or_the_point_scales_the_flip(net, seed, r):
    """At r W the same delta is reached by the step eta / r; at r x by r eta (no bias)."""
    x = normal(4, net.d, seed=seed)
    flip, heavy, far = (
        lh.smallest_flip(net, x),
        lh.smallest_flip(net.replace(W=r * net.W), x),
        lh.smallest_flip(net, r * x),
    )
    assert torch.equal(flip.found, heavy.found) and torch.equal(flip.found, far.found)
    torch.testing.assert_close(heavy.norm, flip.norm, rtol=1e-8, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(heavy.eta, flip.eta / r, rtol=1e-8, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(far.eta, flip.eta * r, rtol=1e-8, atol=1e-12, equal_nan=True)


def test_a_root_far_beyond_the_linear_prediction_is_found():
    """f(z) sqrt 3 = relu(100 z - 99) + relu(z + 1) - relu(-z) at z = 1: the tangent's root is 0.03 away, f's own 1.5."""
    net = lh.TwoLayerNet(double([100.0], [1.0], [-1.0]), double(1.0, 1.0, -1.0), double(-99.0, 1.0, 0.0))
    flip = lh.smallest_flip(net, double([1.0]))
    assert flip.eta.item() == pytest.approx(1.5 * math.sqrt(3) / 101, rel=1e-12)
    assert flip.norm.item() == pytest.approx(1.5, rel=1e-12)


def test_a_root_beyond_the_last_bend_is_found():
    """f(z) sqrt 2 = relu(z + 1) - relu(-z / 2 - 1 / 4) at z = 2: bends at -1/2 and -1, and f is 1/4 at the last one."""
    net = lh.TwoLayerNet(double([1.0], [-0.5], [0.0]), double(1.0, -1.0, 1.0), double(1.0, -0.25, 0.5))
    flip = lh.smallest_flip(net, double([2.0]))  # + 1/2 throughout; beyond -1 the slope is 1/2, and the root is -3/2
    assert flip.norm.item() == pytest.approx(3.5, rel=1e-12)


def test_a_stretch_at_zero_is_passed_before_the_crossing():
    """relu(z + 1) - relu(-z - 3) is 0 between -1 and -3 and negative only beyond: the flip is at -3, not at -1."""
    net = lh.TwoLayerNet(double([1.0], [-1.0]), double(1.0, -1.0), double(1.0, -3.0))
    flip = lh.smallest_flip(net, double([1.0]))
    assert bool(flip.found) and flip.norm.item() == pytest.approx(4.0, rel=1e-12)


def test_a_neuron_that_wakes_at_once_counts():
    """A pre-activation of exactly 0 that grows along the ray: its bend is at eta = 0."""
    net = lh.TwoLayerNet(double([1.0, 1.0], [0.0, -1.0]), double(1.0, -1.0))
    flip = lh.smallest_flip(net, double([1.0, 0.0]))
    assert flip.eta.item() == pytest.approx(math.sqrt(2) / 3, rel=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
def test_reaching_zero_without_crossing_is_no_flip(dtype):
    silent = lh.TwoLayerNet(normal(50, 6, dtype=dtype), torch.ones(50, dtype=dtype))  # f >= 0 everywhere
    valley = lh.TwoLayerNet(torch.tensor([[1.0], [-1.0]], dtype=dtype), torch.ones(2, dtype=dtype))  # |z|
    below = lh.TwoLayerNet(normal(50, 6, dtype=dtype), -torch.ones(50, dtype=dtype))
    for net, x in (
        (silent, normal(20, 6, dtype=dtype)),
        (valley, torch.ones(1, 1, dtype=dtype)),
        (below, normal(20, 6, dtype=dtype)),
    ):
        flip = lh.smallest_flip(net, x)
        assert not flip.found.any() and flip.eta.isnan().all() and flip.norm.isnan().all()
        assert bool((flip.value != 0).all()) and bool((flip.grad_norm > 0).all())


def with_cancelling_pairs(w, P, seed):
    """Neurons w of sign +1, and pairs that cancel for every x, in random order: f >= 0 everywhere."""
    order = torch.randperm(len(w) + 2 * len(P), generator=reference.stream(seed))
    a = torch.cat([torch.ones(len(w) + len(P)), -torch.ones(len(P))]).to(w)
    return lh.TwoLayerNet(torch.cat([w, P, P])[order], a[order])


@pytest.mark.parametrize("pairs", [1, 5, 50, 500])
def test_neurons_that_cancel_make_no_flip_out_of_rounding(pairs):
    """Though the sums leave +-1e-17 of a zero, of its slope, and of the slope at infinity."""
    for seed in range(20):
        w, P, x = normal(1, 5, seed=seed), normal(pairs, 5, seed=seed + 1000), normal(7, 5, seed=seed + 2000)
        flip = lh.smallest_flip(with_cancelling_pairs(w, P, seed), x)
        assert not flip.found.any() and flip.eta.isnan().all()
        assert bool((flip.value[(x @ w.T).squeeze(-1) < 0] == 0).all())  # zero, not 1e-16


@pytest.mark.parametrize(("same", "pairs"), [(2, 1), (2, 7), (4, 6), (4, 30)])  # m = 4, 16, 16, 64
def test_neurons_that_cancel_make_no_flip_in_float32(same, pairs):
    """Whole numbers and a whole root of m: here every product is exact, and equal neurons get equal numbers."""
    for seed in range(50):
        w, P, x = ((8 * normal(n, 5, seed=seed + n)).round().float() for n in (1, pairs, 9))
        flip = lh.smallest_flip(with_cancelling_pairs(w.expand(same, -1), P, seed), x)
        assert not flip.found.any() and flip.eta.isnan().all()


def test_neurons_that_cancel_make_no_flip_out_of_float32_rounding():
    for seed in range(50):
        for pairs in (2, 5, 50):
            w, P, x = (normal(n, 5, seed=seed + n).float() for n in (1, pairs, 7))
            assert not lh.smallest_flip(with_cancelling_pairs(w, P, seed), x).found.any()


def test_a_crossing_as_shallow_as_a_billionth_is_found():
    """What counts as rounding is far smaller: |z| - 1e-9 dips below zero around z = 0, and has a sign at z = 3e-9."""
    net = lh.TwoLayerNet(double([1.0], [-1.0], [0.0]), double(1.0, 1.0, -1.0), double(0.0, 0.0, 1e-9))
    flip = lh.smallest_flip(net, double([1.0], [3e-9]))
    assert bool(flip.found.all())
    torch.testing.assert_close(flip.norm, double(1 - 1e-9, 2e-9), rtol=1e-12, atol=1e-14)


def test_a_value_of_exactly_zero_has_no_sign_to_change():
    net = lh.TwoLayerNet(-torch.ones(2, 5, 3), torch.ones(2, 5))  # every neuron silent
    flip = lh.smallest_flip(net, torch.ones(4, 3))
    assert not flip.found.any() and flip.eta.isnan().all() and not flip.value.any() and not flip.grad_norm.any()
    flip = lh.smallest_flip(lh.TwoLayerNet.init(3, 50), torch.zeros(1, 3))  # the origin
    assert not flip.found.any() and not flip.value.any()


def test_a_zero_gradient_is_no_flip_and_no_nan_elsewhere():
    """relu(z + 2) + relu(-z + 2) = 4 around z = 0."""
    net = lh.TwoLayerNet(double([1.0], [-1.0]), double(1.0, 1.0), double(2.0, 2.0))
    flip = lh.smallest_flip(net, double([0.5]))
    assert not flip.found.any() and flip.grad_norm.item() == 0 and flip.value.item() == pytest.approx(4 / math.sqrt(2))


@given(nets(), st.integers(1, 40), SEEDS)
def test_flips_in_small_tiles_are_the_same(net, n, seed):
    x = normal(n, net.d, seed=seed)
    whole = lh.smallest_flip(net, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_BYTES", 1)
        patch.setattr(attack, "TILE_BYTES", 1)  # one point at a time among those whose root is sought
        parts = lh.smallest_flip(net, x)
    assert torch.equal(whole.found, parts.found)
    for name in ("eta", "norm", "value", "grad_norm"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), rtol=1e-9, atol=1e-12, equal_nan=True)


def test_members_keep_their_order_whatever_their_layout():
    net = lh.TwoLayerNet.init(3, 20, members=(2, 3), bias=True, dtype=torch.float64)
    x = normal(2, 3, 5, 3)
    flip = lh.smallest_flip(net, x)
    turned = lh.TwoLayerNet(net.W.transpose(0, 1), net.a.transpose(0, 1), net.b.transpose(0, 1))  # not contiguous
    other = lh.smallest_flip(turned, x.transpose(0, 1))
    torch.testing.assert_close(other.eta, flip.eta.transpose(0, 1), equal_nan=True)
    for i in range(2):
        for j in range(3):
            alone = lh.smallest_flip(net[i, j], x[i, j])
            torch.testing.assert_close(flip.eta[i, j], alone.eta, equal_nan=True)


@pytest.mark.parametrize(("m", "d"), [(1000, 25), (10_000, 100)])
def test_float32_flips_agree_with_float64(m, d):
    net, x = lh.TwoLayerNet.init(d, m, seed=1), lh.unit_sphere(32, d, seed=1)
    single, true = lh.smallest_flip(net, x), lh.smallest_flip(net.to(torch.float64), x.double())
    assert torch.equal(single.found, true.found) and bool(true.found.all())
    assert single.eta.dtype == single.norm.dtype == torch.float32
    f = true.value.abs()
    torch.testing.assert_close(single.value.double(), true.value, rtol=0, atol=1e-6)
    assert bool(((single.eta.double() - true.eta).abs() <= 1e-5 * true.eta * (1 + 1 / f)).all())


def test_random_networks_flip_near_the_linear_prediction():
    """The theorem's regime: eta is near |f| / ||grad f||^2 at d = 100, m = 10 000, and ||grad f|| near sqrt(d / 2)."""
    flip = lh.smallest_flip(lh.TwoLayerNet.init(100, 10_000, seed=2), lh.unit_sphere(40, 100, seed=2))
    linear = flip.value.abs() / flip.grad_norm.square()
    assert bool(((flip.eta / linear - 1).abs() < 0.2).all())
    assert abs(float(flip.grad_norm.mean()) / math.sqrt(50) - 1) < 0.1


MEMORY = """
import sys, torch, lazy_helpers as lh
def status(key):  # KiB: VmHWM is this process' peak, VmRSS what it holds now
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
m, d, n = map(int, sys.argv[1:4])
torch.set_num_threads(1)
small = lh.TwoLayerNet.init(2, 3)
lh.smallest_flip(small, lh.unit_sphere(20, 2)), small.grad(lh.unit_sphere(20, 2))
base = status("VmRSS")
net, x = lh.TwoLayerNet.init(d, m), lh.unit_sphere(n, d)
if sys.argv[4] == "never":  # f >= 0: every bend of every ray is looked at
    net = net.replace(a=torch.ones(m))
flip = lh.smallest_flip(net, x)
net(x[:64]), net.grad(x[:64])
assert bool((flip.found == (sys.argv[4] == "flips")).all())
print((status("VmHWM") - base) / 1024 - net.W.nbytes / 2**20)
"""


def peak_beyond_weights(m, d, n, rays):
    """MiB that a process needs to draw a network and flip n points, beyond its base and the weights."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc, which Linux has")
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(Path(lh.__file__).parents[1]))
    command = [sys.executable, "-c", MEMORY, *map(str, (m, d, n)), rays]
    return float(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize(("n", "rays"), [(120, "flips"), (20, "never")])
def test_memory_of_a_flip_is_bounded(n, rays):
    """Unblocked, it takes more than 500 MiB in either case."""
    assert peak_beyond_weights(200_000, 50, n, rays) < 300


@pytest.mark.slow
@pytest.mark.skipif("LAZY_HELPERS_SLOW" not in os.environ, reason="takes 5 GB and minutes: set LAZY_HELPERS_SLOW=1")
def test_a_million_neurons_need_their_weights_and_one_gibibyte():
    assert peak_beyond_weights(10**6, 784, 2115, "flips") < 1024


# --- projected gradient ascent ---


def attacked(net, x, y, eps, **more):
    """The margins y f before and after."""
    delta = lh.pgd(net, x, y, eps, **more)
    return y * net(x), y * net(x + delta), delta


@given(nets(), st.integers(1, 4), st.sampled_from([0.01, 0.5, 5.0]), st.booleans(), SEEDS)
def test_pgd_equals_pgd_written_with_autograd(net, n, eps, boxed, seed):
    x, y = normal(*net.members, n, net.d, seed=seed), random_signs(n, seed=seed)
    box = (float(x.min()) - 0.1, float(x.max()) + 0.1) if boxed else None
    delta = lh.pgd(net, x, y, eps, steps=7, step_size=eps / 3, box=box)
    assert delta.shape == x.shape
    points = x.reshape(-1, n, net.d)
    for k, member in enumerate(singles(net)):
        expected = reference.pgd(member, points[k], y, eps, 7, eps / 3, box)
        torch.testing.assert_close(delta.reshape(-1, n, net.d)[k], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", FLOATS)
@given(seed=SEEDS, eps=st.sampled_from([1e-3, 0.3, 4.0]), boxed=st.booleans(), large=st.booleans())
def test_delta_keeps_to_the_ball_and_the_box(dtype, seed, eps, boxed, large):
    net = lh.TwoLayerNet.init(5, 30, members=2, seed=seed, bias=True, dtype=dtype)
    x = torch.rand(6, 5, generator=reference.stream(seed), dtype=dtype)
    delta = lh.pgd(
        net,
        x,
        random_signs(6, seed=seed),
        eps,
        steps=9,
        step_size=100 * eps if large else None,
        box=(0.0, 1.0) if boxed else None,
    )
    rounding = 4 * torch.finfo(dtype).eps
    assert float(delta.norm(dim=-1).max()) <= eps * (1 + rounding)
    if boxed:
        assert float((x + delta).min()) >= -rounding and float((x + delta).max()) <= 1 + rounding


@pytest.mark.parametrize(("eps", "steps"), [(2.0, 1), (200.0, 100), (0.5, 100), (1e30, 3)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_zero_gradient_leaves_delta_at_zero(eps, steps, dtype):
    net = lh.TwoLayerNet(-torch.ones(3, 2, dtype=dtype), torch.ones(3, dtype=dtype))
    delta = lh.pgd(net, torch.ones(2, 2, dtype=dtype), torch.ones(2, dtype=dtype), eps, steps=steps)
    assert torch.equal(delta, torch.zeros(2, 2, dtype=dtype))


def test_delta_stays_where_the_gradient_vanishes_on_the_way():
    """relu(z) with y = +1 is pushed down until it is silent; there delta rests, finite and within the ball."""
    delta = lh.pgd(lh.TwoLayerNet(double([1.0]), double(1.0)), double([0.25]), double(1.0), eps=1.0, steps=10)
    assert -0.5 <= delta.item() <= -0.25  # two steps of a quarter at most


def test_attack_raises_the_loss_of_every_point():
    net, x = lh.TwoLayerNet.init(20, 500, members=3, seed=4, bias=True), lh.unit_sphere(50, 20, seed=4)
    y = random_signs(50).float()
    before, after, _ = attacked(net, x, y, eps=0.3)
    assert bool((after < before - 0.1).all())


def test_attack_moves_at_any_margin():
    """At y f = 1000 the logistic loss and its gradient underflow, the direction does not."""
    net = lh.TwoLayerNet.init(20, 500, seed=4)
    net = net.replace(W=1000 * net.W)
    x = lh.unit_sphere(20, 20, seed=4)
    before, after, delta = attacked(net, x, net(x).sign(), eps=0.1)
    assert bool((after < before).all()) and float(delta.norm(dim=-1).min()) > 0.09


def test_attack_beats_random_directions():
    net, x = lh.TwoLayerNet.init(10, 300, seed=5, dtype=torch.float64), normal(8, 10)
    y = net(x).sign()
    _, after, _ = attacked(net, x, y, eps=0.5)
    tried = x + 0.5 * torch.nn.functional.normalize(normal(2000, 1, 10), dim=-1)
    lowest = (y * net(tried.reshape(-1, 10)).view(2000, 8)).amin(0)
    assert bool((after < lowest).all())


def test_attack_on_a_linear_network_is_optimal():
    w = normal(1, 6)
    net = lh.TwoLayerNet(torch.cat([w, -w]), double(1.0, -1.0))
    x, y = normal(5, 6), random_signs(5)
    torch.testing.assert_close(lh.pgd(net, x, y, 0.7), -0.7 * y[:, None] * w / w.norm(), rtol=1e-10, atol=1e-10)


def test_one_step_is_the_normalised_gradient():
    net, x, y = lh.TwoLayerNet.init(4, 20, dtype=torch.float64), normal(6, 4), random_signs(6)
    g = value_and_grad(net, x)[1]
    step = lh.pgd(net, x, y, eps=10.0, steps=1, step_size=0.3)
    torch.testing.assert_close(step, -0.3 * y[:, None] * g / g.norm(dim=-1, keepdim=True))


def test_default_is_a_hundred_steps_of_two_and_a_half_eps():
    net, x, y = lh.TwoLayerNet.init(4, 20), lh.unit_sphere(5, 4), torch.ones(5)
    assert torch.equal(lh.pgd(net, x, y, 0.2), lh.pgd(net, x, y, 0.2, steps=100, step_size=2.5 * 0.2 / 100))


def test_attack_in_small_tiles_is_the_same(monkeypatch):
    net, x = lh.TwoLayerNet.init(4, 20, members=2, dtype=torch.float64), normal(40, 4)
    y = random_signs(40)
    whole = lh.pgd(net, x, y, 0.5, steps=10)
    monkeypatch.setattr(tiles, "TILE_BYTES", 1)
    torch.testing.assert_close(lh.pgd(net, x, y, 0.5, steps=10), whole, rtol=1e-10, atol=1e-10)


def test_attacks_leave_their_inputs_alone():
    net, x, y = lh.TwoLayerNet.init(4, 20, bias=True), lh.unit_sphere(5, 4), torch.ones(5)
    kept, weights = x.clone(), net.weights.clone()
    lh.pgd(net, x, y, 0.5, box=(-1.0, 1.0)), lh.smallest_flip(net, x)
    assert torch.equal(x, kept) and torch.equal(net.weights, weights) and torch.equal(y, torch.ones(5))


def test_a_flip_a_hair_larger_than_the_smallest_flips():
    """The public meaning of `eta` and `norm`, through the network's own call."""
    net, x = lh.TwoLayerNet.init(50, 3000, members=2, seed=7), lh.unit_sphere(30, 50, seed=7)
    flip, f, g = lh.smallest_flip(net, x), net(x), net.grad(x)
    for k in range(2):
        for factor, sign in ((0.999, 1), (1.001, -1)):
            delta = -f[k].sign()[:, None] * factor * flip.eta[k][:, None] * g[k]
            assert bool((net[k](x + delta).sign() == sign * f[k].sign()).all())
            torch.testing.assert_close(delta.norm(dim=-1), factor * flip.norm[k])


# --- random starts and the best iterate ---


@given(nets(), st.integers(1, 4), st.sampled_from([0.05, 0.5, 5.0]), st.booleans(), SEEDS)
def test_best_is_the_best_of_all_iterates(net, n, eps, boxed, seed):
    x, y = normal(*net.members, n, net.d, seed=seed), random_signs(n, seed=seed)
    box = (float(x.min()) - 0.1, float(x.max()) + 0.1) if boxed else None
    how = dict(step_size=eps / 3, box=box)
    iterates = torch.stack([torch.zeros_like(x), *(lh.pgd(net, x, y, eps, steps=k, **how) for k in range(1, 6))])
    margins = torch.stack([y * net(x + delta) for delta in iterates])
    best = lh.pgd(net, x, y, eps, steps=5, best=True, **how)
    torch.testing.assert_close(y * net(x + best), margins.amin(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_more_starts_never_lose_and_a_seed_names_them(bias, best):
    net = lh.TwoLayerNet.init(5, 30, members=(2, 2), seed=1, bias=bias, dtype=torch.float64)
    x, y = normal(20, 5), random_signs(20)
    how = dict(eps=0.8, steps=5, box=(-4.0, 4.0), best=best)
    found = [lh.pgd(net, x, y, restarts=k, **how) for k in (1, 2, 6)]
    low = [y * net(x + delta) for delta in found]
    assert torch.equal(found[0], lh.pgd(net, x, y, **how))  # the first start is 0
    assert bool((low[1] <= low[0]).all() and (low[2] <= low[1]).all()) and bool((low[2] < low[0] - 1e-3).any())
    assert torch.equal(found[2], lh.pgd(net, x, y, restarts=6, seed=0, **how))
    assert not torch.equal(found[2], lh.pgd(net, x, y, restarts=6, seed=1, **how))
    for delta in found:
        assert float(delta.norm(dim=-1).max()) <= 0.8 * (1 + 1e-12) and float((x + delta).abs().max()) <= 4 + 1e-12
    alone = lh.pgd(net[1, 0], x, y, restarts=6, **how)
    torch.testing.assert_close(found[2][1, 0], alone, rtol=1e-9, atol=1e-9)


def test_a_random_start_leaves_a_point_where_nothing_moves():
    """At 0 every neuron is silent and the gradient is 0; elsewhere in the ball f is negative."""
    net = lh.TwoLayerNet(double([1.0, 0.0]), double(-1.0))
    x, y = double([0.0, 0.0]), double(1.0)
    assert torch.equal(lh.pgd(net, x, y, 1.0), torch.zeros(1, 2).double())
    assert float(net(x + lh.pgd(net, x, y, 1.0, restarts=9))) < -0.9


def test_starts_fill_the_unit_ball_evenly():
    start = attack.in_unit_ball(20_000, 3, torch.Generator().manual_seed(1))
    radius = start.norm(dim=-1)
    assert float(radius.max()) <= 1 and abs(float((radius**3).mean()) - 0.5) < 0.01  # r^d is uniform
    assert float(start.mean(0).abs().max()) < 0.02


@pytest.mark.parametrize("box", [None, (-3.0, 3.0)])
@pytest.mark.parametrize("more", [{}, {"restarts": 3, "best": True}], ids=["plain", "restarts"])
def test_a_budget_for_each_member(box, more):
    net, x, y = lh.TwoLayerNet.init(4, 20, members=(2, 2), bias=True), lh.unit_sphere(7, 4), torch.ones(7)
    eps = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    together = lh.pgd(net, x, y, eps, steps=9, box=box, **more)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        alone = lh.pgd(net[i, j], x, y, float(eps[i, j]), steps=9, box=box, **more)
        torch.testing.assert_close(together[i, j], alone, rtol=0, atol=1e-5)
    assert torch.equal(lh.pgd(net[0], x, y, [0.1, 0.2], steps=9), lh.pgd(net[0], x, y, eps[0], steps=9))
