"""One image of each class and its smallest flipping step, for the book's first picture: ``python -m lazy_helpers example``."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from .attack import smallest_flip
from .cells import BATCH, LR
from .data import fingerprint, load_binary
from .experiments import CORE
from .network import TwoLayerNet
from .runs import RESULTS, module_hashes, store
from .train import train_sgd

D, M, C0, SEED = 784, 10_000, 10.0, 0


def flipped_digits() -> tuple[list[dict], dict]:
    """Train in the theory's setting on MNIST; in each class take the test image whose flip has the median norm.

    Returns the rows of a table (pixel, x and delta of each class, ||x|| = 1) and the numbers that go with it.
    """
    train, test = (load_binary("mnist", normalize=True, split=split) for split in ("train", "test"))
    net = train_sgd(TwoLayerNet.init(D, M, seed=SEED), train.X, train.y, C0, lr=LR, batch_size=BATCH, seed=SEED)[C0].net
    flip = smallest_flip(net, test.X)
    right = (flip.value * test.y > 0) & flip.found
    columns, facts = {}, {"d": D, "m": M, "C0": C0, "seed": SEED, "test_accuracy": float(right.double().mean())}
    for label, name in ((-1, "zero"), (1, "one")):
        rows = (right & (test.y == label)).nonzero().squeeze(-1)
        i = int(rows[flip.norm[rows].argsort()[len(rows) // 2]])
        x = test.X[i : i + 1]
        eta = -flip.value[i].sign() * flip.eta[i]
        delta = eta * net.grad(x)
        past = 1.5 * delta  # half as far again, so that the sign is plainly the other one
        columns |= {f"x_{name}": x[0].tolist(), f"delta_{name}": delta[0].tolist()}
        facts |= {
            f"f_{name}": float(flip.value[i]),
            f"f_past_{name}": float(net(x + past)),
            f"norm_{name}": float(flip.norm[i]),
        }
    rows = [{"pixel": p, **{name: column[p] for name, column in columns.items()}} for p in range(D)]
    return rows, facts


def store_example(results: Path = RESULTS) -> Path:
    """Compute the example: its pixels in ``example.csv``, its numbers in ``example_numbers.csv``, each with a manifest."""
    rows, facts = flipped_digits()
    manifest = {
        "title": "An image of each class of MNIST and its smallest flipping step",
        "modules_sha256": module_hashes((*CORE, "example")),
        "data_sha256": {"mnist": fingerprint("mnist")},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    store(results / "example_numbers.csv", [facts], manifest)
    return store(results / "example.csv", rows, manifest)
