"""The benchmark's contenders compute what the package computes; JAX and ART only where they are installed."""

import importlib.util
import math
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
import reference
import torch
from conftest import missing

import lazy_helpers as lh

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import libraries  # noqa: E402
import published  # noqa: E402
import scanned  # noqa: E402
import stacked  # noqa: E402

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # foolbox imports GitPython, which else asks for git

K, M, D, N = 3, 120, 10, 45  # members, neurons, inputs, points
BATCH, LR, STEPS = 16, 0.1, 50

contenders = pytest.mark.parametrize("contender", [published, stacked, scanned], ids=lambda module: module.__name__)
draws = pytest.mark.parametrize("seed, bias", [(0, False), (1, True)], ids=["no bias", "bias"])


def needs(*packages):
    for package in packages:
        if importlib.util.find_spec(package) is None:
            if package == "foolbox":  # comes with the tests
                missing("foolbox is not installed: pip install -e .[test]")
            pytest.skip(f"{package} is not installed: pip install -e .[bench]")


def draw(seed, bias):
    """A float32 ensemble, points of about unit norm and their labels."""
    X = reference.normal(N, D, seed=seed, dtype=torch.float32) / math.sqrt(D)
    return lh.TwoLayerNet.init(D, M, K, seed=10 * seed, bias=bias), X, reference.random_signs(N, seed + 100).float()


@contenders
@draws
def test_sgd_is_autograds_on_the_same_minibatches(contender, seed, bias):
    if contender is scanned:
        needs("jax")
    net, X, y = draw(seed, bias)
    batches = torch.randint(N, (STEPS, K, BATCH), generator=reference.stream(seed))
    run = contender.prepare_sgd(net, X, y, batches, LR)
    W = run()
    for k, one in enumerate(reference.singles(net.to(torch.float64))):
        weights = one.weights
        for batch in batches[:, k]:
            weights = reference.sgd_step(one, weights, X[batch].double(), y[batch].double(), LR)
        torch.testing.assert_close(W[k].double(), weights[:, :D], atol=1e-5, rtol=0)
        assert (W[k] - net.W[k]).abs().max() > 1e-3
    assert torch.equal(run(), W)  # a second run starts from the same weights


PGD = {
    "published": (published.prepare_pgd, ()),
    "stacked": (stacked.prepare_pgd, ()),
    "scanned": (scanned.prepare_pgd, ("jax",)),
    "foolbox": (libraries.prepare_pgd_foolbox, ("foolbox",)),
    "art": (libraries.prepare_pgd_art, ("art",)),
}


@pytest.mark.parametrize("contender", PGD)
@draws
def test_pgd_is_the_packages(contender, seed, bias):
    prepare, packages = PGD[contender]
    needs(*packages)
    net, x, _ = draw(seed, bias)
    y = net(x)[0].sign()  # the first member's answers, so that there is a robust accuracy to lose
    eps, steps = 0.2, 10
    run = prepare(net, x, y, eps, steps)
    delta = run()
    expected = lh.pgd(net, x, y, eps, steps)
    # Where a neuron is within rounding of its kink, a step may take either side's gradient: one point in 50 is let off.
    apart = (delta - expected).norm(dim=-1)
    assert apart.quantile(0.98) < 1e-4 and apart.max() < 0.1 * eps
    robust, wanted = ([float((net[k](x + d[k]) * y > 0).float().mean()) for k in range(K)] for d in (delta, expected))
    assert robust == wanted and 0 < robust[0] < 1
    assert torch.equal(run(), delta)


@pytest.fixture(scope="module")
def trained():
    """Networks trained on the digits, and all 360 images: what the libraries are to agree on."""
    parts = [lh.load_binary("digits", normalize=True, split=split) for split in ("train", "test")]
    net = lh.TwoLayerNet.init(64, 300, 2)
    net = lh.train_sgd(net, parts[0].X, parts[0].y, 10.0, max_epochs=100, progress=False)[10.0].net
    return net, torch.cat([part.X for part in parts]), torch.cat([part.y for part in parts])


@pytest.mark.parametrize("library", ["foolbox", "art"])
@pytest.mark.parametrize("eps", [0.1, 0.15, 0.2])
def test_robust_accuracy_is_the_libraries(trained, library, eps):
    """Within half a percent, at the same budget and steps; restarts and the best iterate can only lower it."""
    prepare, packages = PGD[library]
    needs(*packages)
    net, x, y = trained

    def robust(delta):
        return (y * net(x + delta) > 0).double().mean(-1)

    ours = robust(lh.pgd(net, x, y, eps, steps=20))
    assert float((ours - robust(prepare(net, x, y, eps, 20)())).abs().max()) <= 0.005
    assert bool((robust(lh.pgd(net, x, y, eps, steps=20, restarts=2, best=True)) <= ours).all())
    assert 0.01 < float(ours.mean()) < 0.99


@contenders
@draws
def test_flips_are_the_exact_ones_rounded_up_to_the_grid(contender, seed, bias):
    if contender is scanned:
        needs("jax")
    net, x, _ = draw(seed, bias)
    step, end = 4e-3, 0.3
    norm = contender.prepare_flips(net, x, step, end)()
    exact = lh.smallest_flip(net, x)
    near = exact.found & (exact.norm < end - 2 * step)
    far = ~exact.found | (exact.norm > end + 2 * step)
    assert near.any() and far.any()
    # A step of room: where the exact flip is a rounding error away from the grid.
    torch.testing.assert_close(norm[near], (exact.norm[near] / step).ceil() * step, atol=1.01 * step, rtol=0)
    assert (norm[near] > exact.norm[near] - 1e-5).all()
    assert norm[far].isnan().all()


def test_the_published_search_takes_a_sample_of_the_points():
    net, x, _ = draw(0, False)
    chosen = published.sampled(N, 7)
    assert len(set(chosen.tolist())) == 7
    norm = published.prepare_flips(net, x, 1e-2, 0.3, sample=7)()
    torch.testing.assert_close(norm, published.prepare_flips(net, x, 1e-2, 0.3)()[:, chosen], equal_nan=True)
    assert torch.equal(published.sampled(5, 7), torch.arange(5))


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_the_published_cell_leaves_the_ball_where_train_sgd_does(bias):
    data, test = (lh.load_binary("digits", split=split) for split in ("train", "test"))
    net = lh.TwoLayerNet.init(64, 50, 1, seed=5, bias=bias)
    cell = published.prepare_cell(net, data.X, data.y, test.X, points=4, C0=2.0, seed=5)()
    exit = lh.train_sgd(net[0], data.X, data.y, 2.0, seed=5, exit="epoch")[2.0]
    assert cell.left and cell.epochs == exit.epochs > 1
    torch.testing.assert_close(cell.model.W, exit.net.W, atol=1e-4, rtol=0)
    exact = lh.smallest_flip(exit.net, test.X[published.sampled(len(test.X), 4)])
    torch.testing.assert_close(cell.norm, (exact.norm / 1e-3).ceil() * 1e-3, atol=1.01e-3, rtol=0)
    assert cell.points == 4 and cell.train > 0 and cell.search > 0


def test_what_the_benchmark_adds_is_pinned():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    files = [ROOT / "requirements.txt", ROOT / "benchmarks" / "requirements.txt"]
    lines = [[line for line in file.read_text().splitlines() if line and not line.startswith("#")] for file in files]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in lines[1])
    there, added = ({line.split("==")[0] for line in pins} for pins in lines)
    assert not there & added  # what both name could have two versions
    assert {re.match(r"[\w-]+", name)[0] for name in wanted} <= there | added
