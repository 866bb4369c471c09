"""Are the cells of a sweep faster as members of one computation than one after the other? `python benchmarks/together.py`.

Stores book/results/bench_cpu_together.csv (or bench_cuda_together.csv) and its manifest. Both ways run in turn, on the sweeps' own
data and settings, and give the same networks. What the columns mean:

work          what the members do: SGD as in Figure 2, on as many seeds; Algorithm 1 as in Figure 4, at as many budgets
d, m          the size of a network
members       how many there are
epochs        passes over the training images
together_s    seconds of all of them as one computation; the median over ROUNDS runs
alone_s       seconds of all of them, one after the other; the same
gain          alone_s over together_s
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import bench
import torch
from machine import median, side_by_side

import lazy_helpers as lh
from lazy_helpers import runs
from lazy_helpers.cells import BATCH, LR, TRAININGS
from lazy_helpers.checks import check_device
from lazy_helpers.experiments import around
from lazy_helpers.measurements import drawn

ROUNDS = 3
MODULES = ("network", "tiles", "lazy", "attack", "sgd", "train", "adversarial")


class Setting(NamedTuple):
    """One row of the table."""

    work: str
    side: int
    m: int
    members: int
    epochs: int
    data: str = "mnist"


SETTINGS = (
    Setting("SGD", 5, 1_000, 5, 4),
    Setting("SGD", 28, 1_000, 5, 1),
    Setting("Algorithm 1", 5, 1_000, 8, 4),
    Setting("Algorithm 1", 10, 1_000, 8, 2),
    Setting("Algorithm 1", 28, 1_000, 8, 1),
)


def trainer(setting: Setting, device: torch.device) -> Callable[[slice], lh.TwoLayerNet]:
    """A function that trains the members of a slice side by side and returns them."""
    how, all_ = TRAININGS["theory"], lh.load_binary(setting.data, setting.side, normalize=True)
    start = lh.TwoLayerNet.init(setting.side**2, setting.m, members=setting.members, device=device)
    if setting.work == "SGD":
        X, y = all_.X.to(device), all_.y.to(device)

        def train(some: slice) -> lh.TwoLayerNet:
            how = dict(lr=LR, batch_size=BATCH, max_epochs=setting.epochs, progress=False)
            return lh.train_sgd(start[some], X, y, C0=1e9, seed=some.start, **how)[1e9].net

        return train
    few = drawn(len(all_.y), how.images, seed=0)
    X, y = all_.X[few].to(device), all_.y[few].to(device)
    budgets = torch.tensor(around("theory", setting.side)[: setting.members], device=device)

    def train(some: slice) -> lh.TwoLayerNet:
        return lh.train_adversarial(
            start[some], X, y, budgets[some], 10.0, lr=how.lr, attack_steps=how.attack_steps, seed=some.start,
            warm_start=how.warm_start, max_epochs=setting.epochs, stop="never", progress=False,
        ).net  # fmt: skip

    return train


def rows(settings: tuple[Setting, ...], device: torch.device) -> Iterator[dict]:
    for setting in settings:
        train, K = trainer(setting, device), setting.members
        ways = {
            "together": lambda train=train, K=K: train(slice(0, K)),
            "alone": lambda train=train, K=K: [train(slice(k, k + 1)) for k in range(K)],
        }
        times = side_by_side(ways, ROUNDS, device)
        both = {name: median(taken) for name, taken in times.items()}
        yield {
            "work": setting.work, "d": setting.side**2, "m": setting.m, "members": K, "epochs": setting.epochs,
            "together_s": both["together"], "alone_s": both["alone"], "gain": both["alone"] / both["together"],
        }  # fmt: skip


def main(arguments: list[str] | None = None, settings=SETTINGS, results: Path = runs.RESULTS) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    start, found = time.perf_counter(), []
    try:
        device = check_device(parser.parse_args(arguments).device)
        for row in rows(settings, device):
            found.append(row)
            print(*(f"{name} {f'{value:.3g}' if isinstance(value, float) else value}" for name, value in row.items()), sep="  ", flush=True)  # fmt: skip
    except ValueError as error:
        print(f"together: {error}", file=sys.stderr)
        return 2
    manifest = {
        "title": "Members of one computation against one after the other",
        "processor": bench.processor(device),
        "threads": torch.get_num_threads(),
        "versions": bench.versions(),
        "modules_sha256": runs.module_hashes(MODULES),
        "wall_seconds": round(time.perf_counter() - start),
    }
    print(runs.store(results / f"bench_{device.type}_together.csv", found, manifest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
