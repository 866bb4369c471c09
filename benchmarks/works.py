"""The work that is measured: each function yields rows, one a contender, all timed side by side in this run.

``share`` is the part of the whole work that was run; seconds are those of the whole, extrapolated where it is below 1.
Every extrapolation is along an axis in which the contender's work repeats itself: steps, points or members.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import libraries
import published
import scanned
import stacked
import torch
from machine import median, peak_mib, seconds, side_by_side
from torch import Tensor

import lazy_helpers as lh
from lazy_helpers import tiles
from lazy_helpers.cells import BATCH, LR
from lazy_helpers.experiments import SQUARES
from lazy_helpers.train import trajectories

OURS = "lazy_helpers"
SIZES = ((25, 1_000), (784, 1_000), (784, 10_000))
MEMBERS = {25: (1, 5, 20, 100), 784: (1, 5)}
RADII = (10.0, 20.0, 30.0, 1e9)  # several exits to detect, and one ball that nobody leaves
POINTS = 2115  # MNIST's test images of 0 and 1
STEPS = 1000


def settings() -> Iterator[tuple[int, int, int]]:
    return ((d, m, K) for d, m in SIZES for K in MEMBERS[d])


def row(work, contender, d, m, K, times, share, gflop, rate=math.nan, memory=math.nan, agrees="") -> dict:
    """``gflop`` is the arithmetic of the products that the work cannot do without, whoever does it; ``rate`` is what a
    large product reached in the same rounds, in GFLOP/s."""
    whole = median(times) / share
    return {
        "work": work, "contender": contender, "d": d, "m": m, "members": K, "seconds": whole,
        "low": min(times) / share, "high": max(times) / share, "repeats": len(times), "share": share,
        "gflop": gflop, "gflops": gflop / whole, "of_product": gflop / whole / rate, "peak_mib": memory, "n": math.nan, "agrees": agrees,
    }  # fmt: skip


def images(d: int, device, normalize: bool = False) -> tuple[Tensor, Tensor]:
    """MNIST's test images, resized as for the published figures."""
    test = lh.load_binary("mnist", math.isqrt(d), normalize, split="test")
    return test.X.to(device), test.y.to(device)


def moved(d: int, m: int, K: int, device) -> lh.TwoLayerNet:
    """Networks that have learned a little: 40 steps on 2560 training images."""
    train = lh.load_binary("mnist", math.isqrt(d))
    X, y = train.X[:2560].to(device), train.y[:2560].to(device)
    net = lh.TwoLayerNet.init(d, m, members=(K,), device=device)
    return lh.train_sgd(net, X, y, C0=1e9, lr=LR, max_epochs=1, progress=False)[1e9].net


def others(works: dict[str, tuple], repeats: int, device) -> tuple[dict, dict, float]:
    """``{contender: (prepare, share)}`` timed in turn, beside a large product; those whose package is missing are left out.

    Returns times, shares and the product's GFLOP/s. A processor is not equally fast all the time, above all one that is
    shared; what is measured in the same rounds can be compared.
    """
    calls, shares = {}, {}
    for name, (prepare, share) in works.items():
        try:
            calls[name], shares[name] = prepare(), share
        except ImportError as error:
            print(f"  {name}: not installed ({error.name}), see benchmarks/requirements.txt")
    A, B, out = torch.randn(3, 2048, 2048, device=device)
    times = side_by_side(calls | {"product": lambda: torch.mm(A, B, out=out)}, repeats, device)
    return times, shares, 2e-9 * 2048**3 / median(times.pop("product"))


def flips(device) -> Iterator[dict]:
    """The smallest flip of every test image; the others walk in steps of 0.001."""
    for d, m, K in settings():
        net, (x, _) = moved(d, m, K, device), images(d, device)
        few, grid = 16 if m > 1000 else 64, 3 if m > 1000 else 5
        some = x[published.sampled(len(x), few).to(x.device)]
        one = net[:1]
        plan = {
            OURS: (lambda: lambda: lh.smallest_flip(net, x), 1.0),
            "three products": (lambda: lambda: _three_products(net, x), 1.0),
            stacked.NAME: (lambda: stacked.prepare_flips(one, some), few / POINTS / K),
            scanned.NAME: (lambda: scanned.prepare_flips(one, some), few / POINTS / K),
            published.NAME: (lambda: published.prepare_flips(one, x, sample=grid), grid / POINTS / K),
        }
        times, shares, rate = others(plan, 1 if m > 1000 else 3, device)
        exact = lh.smallest_flip(one, some).norm[0]
        for name, taken in times.items():
            agrees, memory = "", math.nan
            if name == OURS:
                memory = peak_mib(lambda: lh.smallest_flip(net, x), device)
            elif name in (stacked.NAME, scanned.NAME):
                walked = plan[name][0]()()[0].to(exact)
                inside = exact < 4.99
                agrees = f"{float((walked - exact)[inside].abs().max()):.4f}"
            yield row(
                "smallest flips", name, d, m, K, taken, shares[name], 6e-9 * d * m * POINTS * K, rate, memory, agrees
            )


def _three_products(net: lh.TwoLayerNet, x: Tensor) -> None:
    """The products that a flip cannot do without, alone: u, the gradient, v; as large as they come in the attack."""
    for k in range(len(net.W)):
        for part in x.split(tiles.POINTS):
            u = part @ net.W[k].mT
            u @ net.W[k]
            part @ net.W[k].mT


def sgd(device) -> Iterator[dict]:
    """1000 steps of batch 64 (100 at m = 10,000), exits from four balls found to the step by ours alone."""
    for d, m, K in settings():
        steps = STEPS // 10 if m > 1000 else STEPS
        per_epoch = 20
        draw = torch.Generator().manual_seed(1)
        X = torch.rand(per_epoch * BATCH, d, generator=draw)  # no pixel is always 0: no column can be left out
        y = (X @ torch.randn(d, generator=draw) > 0.0).float() * 2 - 1
        net = lh.TwoLayerNet.init(d, m, members=(K,), device=device)
        few = steps if d * m * K < 2e5 else max(10, min(100, round(1e8 / (d * m * K))))
        mine = steps if d * m * K < 1e6 else 100
        batches = torch.randint(len(X), (few, K, BATCH), generator=draw)
        X, y = X.to(device), y.to(device)
        radii = [c / math.sqrt(m) for c in RADII]
        lr = 0.1 * 25 / d

        def ours(net=net, X=X, y=y, radii=radii, lr=lr, epochs=mine // per_epoch):
            return trajectories(net, X, y, radii, lr, BATCH, epochs, 0, "step", False)

        plan = {
            OURS: (lambda: ours, mine / steps),
            stacked.NAME: (lambda: stacked.prepare_sgd(net, X, y, batches, lr), few / steps),
            scanned.NAME: (lambda: scanned.prepare_sgd(net, X, y, batches, lr), few / steps),
            published.NAME: (lambda: published.prepare_sgd(net, X, y, batches, lr), few / steps),
        }
        times, shares, rate = others(plan, 5 if K == 1 else 3, device)
        for name, taken in times.items():
            memory = peak_mib(plan[name][0](), device)
            yield row("SGD steps", name, d, m, K, taken, shares[name], 4e-9 * d * m * BATCH * steps * K, rate, memory)


def steady(device) -> Iterator[dict]:
    """The same steps at the largest size without what happens once a run: 300 steps less 100."""
    d, m = SIZES[-1]
    draw = torch.Generator().manual_seed(1)
    X = torch.rand(20 * BATCH, d, generator=draw).to(device)
    y = torch.where(X @ torch.randn(d, generator=draw).to(device) > 0, 1.0, -1.0)
    net = lh.TwoLayerNet.init(d, m, members=(1,), device=device)
    radii = [c / math.sqrt(m) for c in RADII]
    plan = {
        f"{20 * epochs}": (
            lambda epochs=epochs: lambda: trajectories(net, X, y, radii, 2.5 / d, BATCH, epochs, 0, "step", False),
            1.0,
        )
        for epochs in (5, 15)
    }
    times, _, rate = others(plan, 5, device)
    taken = [long - short for long, short in zip(times["300"], times["100"], strict=True)]
    yield row("SGD steps, 101 to 300", OURS, d, m, 1, taken, 1.0, 4e-9 * d * m * BATCH * 200, rate)


def pgd(device) -> Iterator[dict]:
    """PGD-100 on every test image of unit norm (PGD-10 on 512 of them at m = 10,000), eps = 0.2."""
    for d, m, K in settings():
        x, y = images(d, device, normalize=True)
        n, steps = (512, 10) if m > 1000 else (POINTS, 100)
        x, y, net = x[:n], y[:n], lh.TwoLayerNet.init(d, m, members=(K,), device=device)
        few = min(steps, max(2, round(1.2e10 * steps / (d * m * n * steps * K))))
        plan = {
            OURS: (lambda: lambda: lh.pgd(net, x, y, 0.2, few), few / steps),
            "foolbox": (lambda: libraries.prepare_pgd_foolbox(net, x, y, 0.2, few), few / steps),
            "ART": (lambda: libraries.prepare_pgd_art(net, x, y, 0.2, few), few / steps),
            stacked.NAME: (lambda: stacked.prepare_pgd(net, x, y, 0.2, few), few / steps),
            scanned.NAME: (lambda: scanned.prepare_pgd(net, x, y, 0.2, few), few / steps),
            published.NAME: (lambda: published.prepare_pgd(net, x, y, 0.2, few), few / steps),
        }
        times, shares, rate = others(plan, 2, device)
        for name, taken in times.items():
            call = plan[name][0]()
            delta = []
            memory = peak_mib(lambda: delta.append(call()), device)  # noqa: B023
            robust = float((y * net(x + delta[0].to(x)) > 0).double().mean())
            yield row(
                "PGD", name, d, m, K, taken, shares[name], 4e-9 * d * m * n * steps * K, rate, memory, f"{robust:.4f}"
            )


def _published_cell(d: int, K: int, net: lh.TwoLayerNet, exit, device) -> dict[str, float]:
    """What a cell takes the others: their time for a step times its steps, and their search of some points."""
    train = lh.load_binary("mnist", math.isqrt(d))
    X, y = train.X.to(device), train.y.to(device)
    x, _ = images(d, device)
    few, points = 20, 3
    batches = torch.randint(len(X), (few, 1, BATCH), generator=torch.Generator().manual_seed(0))
    total = float(exit.steps.sum())
    one, some = net[:1], x[published.sampled(len(x), 16).to(x.device)]
    total_seconds = {}
    for module in (published, stacked, scanned):
        search = (
            (lambda m=module: m.prepare_flips(exit.net[:1], x, sample=points), points)
            if module is published
            else (lambda m=module: m.prepare_flips(exit.net[:1], some), len(some))
        )
        plan = {"step": (lambda m=module: m.prepare_sgd(one, X, y, batches, LR), few), "flip": search}
        times, shares, rate = others(plan, 1, device)
        if "step" in times:
            step, flip = (median(times[name]) / shares[name] for name in ("step", "flip"))
            total_seconds[module.NAME] = total * step + K * POINTS * flip
    return total_seconds


def _our_cell(d: int, m: int, K: int, device):
    """Training until the ball of C0 = 10 is left, as published, and every test image flipped."""
    train = lh.load_binary("mnist", math.isqrt(d))
    net = lh.TwoLayerNet.init(d, m, members=(K,), bias=True, device=device)
    exit = lh.train_sgd(net, train.X.to(device), train.y.to(device), 10.0, exit="epoch", progress=False)[10.0]
    lh.smallest_flip(exit.net, images(d, device)[0])
    return net, exit


def cells(device) -> Iterator[dict]:
    """A whole cell of Figure 2, C0 = 10, published variant."""
    for d, m in SIZES:
        kept = []
        times = [seconds(lambda: kept.append(_our_cell(d, m, 1, device)), device)]  # noqa: B023
        net, exit = kept[-1]
        gflop = 4e-9 * d * m * BATCH * float(exit.steps.sum()) + 6e-9 * d * m * POINTS
        yield row("Figure 2, one cell", OURS, d, m, 1, times, 1.0, gflop)
        for name, taken in _published_cell(d, 1, net, exit, device).items():
            yield row("Figure 2, one cell", name, d, m, 1, [taken], 1.0, gflop) | {"share": math.nan}


def column(device, members: int = 5) -> Iterator[dict]:
    """Figure 2 at m = 1000: nine d, five seeds."""
    m, mine, gflop, theirs = 1000, 0.0, 0.0, {}
    for d in SQUARES:
        kept = []
        taken = seconds(lambda: kept.append(_our_cell(d, m, members, device)), device)  # noqa: B023
        net, exit = kept[0]
        mine += taken
        gflop += 4e-9 * d * m * BATCH * float(exit.steps.sum()) + 6e-9 * d * m * POINTS * members
        for name, value in _published_cell(d, members, net, exit, device).items():
            theirs[name] = theirs.get(name, 0.0) + value
    yield row("Figure 2, column m = 1000", OURS, 0, m, members, [mine], 1.0, gflop)
    for name, taken in theirs.items():
        yield row("Figure 2, column m = 1000", name, 0, m, members, [taken], 1.0, gflop) | {"share": math.nan}


def radii(device) -> Iterator[dict]:
    """Figure 3's four balls in one run, beside the largest alone: the same trajectory."""
    train = lh.load_binary("mnist", 10, normalize=True)
    X, y = train.X[:6400].to(device), train.y[:6400].to(device)
    net = lh.TwoLayerNet.init(100, 1000, device=device)

    def run(C0):
        return lambda: lh.train_sgd(net, X, y, C0, max_epochs=20, progress=False)

    several, one = "C0 = 10, 12, 14, 16", "C0 = 16"
    times = side_by_side({several: run((10.0, 12.0, 14.0, 16.0)), one: run(16.0)}, 3, device)
    steps = int(run(16.0)()[16.0].steps)
    for name, taken in times.items():
        yield row("radii", name, 100, 1000, 1, taken, 1.0, 4e-9 * 100 * 1000 * BATCH * steps)


BASE = {"d": 100, "m": 1000, "n": 512, "members": 1}
GROWTH = {
    "m": (1_000, 10_000, 100_000, 1_000_000),
    "d": (10, 100, 1_000, 10_000),
    "n": (64, 512, 4_096, 32_768),
    "members": (1, 10, 100, 1_000),
}


def growth(device) -> Iterator[dict]:
    """Time and memory along one axis at a time, from a base of d = 100, m = 1000, 512 points and one network.

    Along m and members d is 25 and the points are 64, so that the largest still fits.
    """
    for axis, values in GROWTH.items():
        for value in values:
            at = BASE | ({"d": 25, "n": 64} if axis in ("m", "members") else {}) | {axis: value}
            d, m, n, K = at.values()
            net = lh.TwoLayerNet.init(d, m, members=(K,), device=device)
            x, y = lh.unit_sphere(n, d).to(device), torch.ones(n, device=device)
            X, labels = lh.unit_sphere(8 * BATCH, d).to(device), torch.ones(8 * BATCH, device=device)
            calls = {
                "smallest flips": lambda: lh.smallest_flip(net, x),  # noqa: B023
                "PGD": lambda: lh.pgd(net, x, y, 0.2, 4),  # noqa: B023
                "SGD steps": lambda: trajectories(net, X, labels, [1e9], 0.1, BATCH, 1, 0, "step", False),  # noqa: B023
            }
            if axis == "n":
                del calls["SGD steps"]  # its points come in minibatches, whatever their number
            for work, call in calls.items():
                times = side_by_side({work: call}, 2, device)[work]
                entry = row(work, OURS, d, m, K, times, 1.0, math.nan, memory=peak_mib(call, device))
                yield entry | {"work": f"{work} against {axis}", "n": n}
