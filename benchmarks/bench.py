"""The benchmark: our core beside every other way to do the same, in one run on one machine.

    make bench                                    or, with what benchmarks/requirements.txt pins installed,
    python benchmarks/bench.py [--device cuda] [--only flips sgd ...]

Prints ratios and shares of the machine's ceilings, and stores ``bench_<device>.csv``, its bars and the panels' times in
``book/results/``, each with its manifest. ``--only`` measures some parts and stores none but the panels.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import house
import numpy as np
import pandas as pd
import panels
import published
import scanned
import stacked
import torch
import works
from machine import bandwidth, product_rate

from lazy_helpers import runs
from lazy_helpers.checks import check_device

HERE = Path(__file__).resolve().parent
PARTS = ("flips", "sgd", "steady", "pgd", "cells", "column", "radii", "growth", "bars", "panels")
MODULES = ("network", "tiles", "lazy", "attack", "sgd", "train")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="measure these parts, store none but the panels"
    )
    parser.add_argument("--results", type=Path, default=runs.RESULTS, help="folder of the results")
    chosen = parser.parse_args(arguments)
    try:
        device = check_device(chosen.device)
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    start = time.perf_counter()
    ceilings = {"gflops": product_rate(device) / 1e9, "gbytes": bandwidth(device) / 1e9}
    print(f"{processor(device)}: {ceilings['gflops']:.0f} GFLOP/s in a large product, {ceilings['gbytes']:.0f} GB/s")

    rows = []
    for part in [part for part in PARTS[:-2] if part in chosen.only]:
        for row in getattr(works, part)(device):
            rows.append(row)
            show(row, rows)
    stored = tuple(chosen.only) == PARTS
    manifest = {
        "title": "Benchmark",
        "processor": processor(device),
        "threads": torch.get_num_threads(),
        "ceilings": {name: round(value, 1) for name, value in ceilings.items()},
        "versions": versions(),
        "modules_sha256": runs.module_hashes(MODULES),
    }

    def keep(name: str, part: list[dict]) -> None:
        """Each part is stored when it is there: what comes later may fail."""
        if (stored or name == "_panels") and part:
            taken = {"wall_seconds": round(time.perf_counter() - start)}
            print(runs.store(chosen.results / f"bench_{device.type}{name}.csv", part, manifest | taken))

    keep("", rows)
    if "panels" in chosen.only and device.type == "cpu":
        keep("_panels", panel_rows())
    if "bars" in chosen.only:
        reached = bars(pd.DataFrame(rows), device)
        for bar in reached:
            print(
                f"{'met' if bar['met'] else 'NOT MET':<8} {bar['bar']}: {bar['measured']:.3g} (asked: {bar['asked']})"
            )
        keep("_bars", reached)
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")
    return 0


def show(row: dict, rows: list[dict]) -> None:
    """A line for a measurement: its time, over ours at the same work, and its share of the machine's product rate."""
    same = ("work", "d", "m", "members")
    ours = [r for r in rows if r["contender"] == works.OURS and all(r[key] == row[key] for key in same)]
    ratio = f"{row['seconds'] / ours[0]['seconds']:8.1f} x" if ours and row["contender"] != works.OURS else " " * 10
    mark = " " if row["share"] == 1 else "~"  # extrapolated
    print(
        f"{row['work'][:28]:<28} d={row['d']:<6} m={row['m']:<8} K={row['members']:<4} {row['contender'][:30]:<30}"
        f" {mark}{row['seconds']:10.4f} s {ratio} {row['of_product']:6.2f} of a large product's rate"
        f" {row['peak_mib']:7.0f} MiB {row['agrees']}",
        flush=True,
    )


def bars(table: pd.DataFrame, device: torch.device) -> list[dict]:
    """What was asked for, beside what was measured."""
    out = []

    def bar(name: str, asked: str, measured: float, met: bool, note: str = "") -> None:
        out.append({"bar": name, "asked": asked, "measured": float(measured), "met": bool(met), "note": note})

    def times(work: str, **at) -> dict[str, float]:
        found = table[(table.work == work) & np.logical_and.reduce([table[key] == value for key, value in at.items()])]
        return dict(zip(found.contender, found.seconds, strict=True))

    def rate(work: str, **at) -> float:
        found = table[(table.work == work) & (table.contender == works.OURS)]
        found = found[np.logical_and.reduce([found[key] == value for key, value in at.items()])]
        return float(found.of_product.iloc[0])

    wide, narrow, small = (
        dict(d=784, m=10_000, members=1),
        dict(d=784, m=1_000, members=1),
        dict(d=25, m=1_000, members=1),
    )
    t = times("smallest flips", **narrow)
    value = t[published.NAME] / t[works.OURS]
    bar("smallest flips against the step-wise search, d = 784, m = 1000", "500 times", value, value >= 500)
    t = times("smallest flips", **wide)
    value = t[works.OURS] / t["three products"]
    bar("smallest flips over their three products, d = 784, m = 10 000", "at most 2.5", value, value <= 2.5)
    t = times("smallest flips", **small)
    value = t[works.OURS] / t["three products"]
    bar("smallest flips over their three products, d = 25, m = 1000", "at most 8", value, value <= 8)
    value = rate("SGD steps, 101 to 300", **wide)
    note = (
        f"with what happens once a run (packing, four networks returned) {rate('SGD steps', **wide):.2f} in 100 steps"
    )
    bar("SGD steps, share of the product rate, d = 784, m = 10 000", "0.85", value, value >= 0.85, note)
    rivals = {
        "SGD steps": {"autograd or torch.func": (published.NAME, stacked.NAME), "JAX": (scanned.NAME,)},
        "PGD": {
            "foolbox or ART": ("foolbox", "ART"),
            "autograd or torch.func": (published.NAME, stacked.NAME),
            "JAX": (scanned.NAME,),
        },
    }
    for work, groups in rivals.items():
        for group, names in groups.items():
            nearest, where = math.inf, "not installed"
            for d, m, K in works.settings():
                t = times(work, d=d, m=m, members=K)
                for name in set(names) & set(t):
                    if t[name] / t[works.OURS] < nearest:
                        nearest, where = t[name] / t[works.OURS], f"d = {d}, m = {m}, {K} networks"
            bar(f"{work}, {group}: their time over ours, at the size that suits them best", "1", nearest, nearest >= 1, where)  # fmt: skip
    t, loop = times("SGD steps", d=25, m=1000, members=100), times("SGD steps", **small)
    value = 100 * loop[works.OURS] / t[works.OURS]
    together = rate("SGD steps", d=25, m=1000, members=100)
    note = f"the ensemble's steps run at {together:.2f} of the product rate, one network's at {rate('SGD steps', **small):.2f}"
    bar("SGD, 100 networks side by side against one after the other, d = 25", "3 times", value, value >= 3, note)
    value = rate("PGD", **wide)
    bar("PGD, share of the product rate, d = 784, m = 10 000", "0.8", value, value >= 0.8)
    t = times("Figure 2, one cell", **narrow)
    value = t[published.NAME] / t[works.OURS]
    bar("a whole cell of Figure 2 against the published procedure, d = 784, m = 1000", "50 times", value, value >= 50)
    first, second = table[table.work == "radii"].seconds
    bar("four radii over the largest alone", "at most 1.1", first / second, first / second <= 1.1)
    for work in ("smallest flips", "SGD steps", "PGD"):
        for axis in works.GROWTH:
            grown = table[table.work == f"{work} against {axis}"]
            if len(grown) > 2:
                upper = grown.iloc[-2:]  # small sizes cost what a call costs
                exponent = float(np.diff(np.log(upper.seconds))[0] / np.diff(np.log(upper[axis]))[0])
                bar(f"{work}: exponent of the time in {axis}, last step", "about 1", exponent, exponent <= 1.15)
    if device.type == "cpu":
        training, flips = memory()
        bar("MiB beyond W0, W and what is returned: training at m = 10^6, d = 784", "1024", training, training <= 1024)
        bar("MiB beyond W: smallest flips at m = 10^6, d = 784", "1024", flips, flips <= 1024)
        value = house.import_seconds()
        bar("seconds to import the package beyond torch", "0.2", value, value <= 0.2)
        value = house.build_seconds()
        bar("seconds of a strict build of the book", "60", value, value <= 60)
        value, where = house.longest_cell()
        bar("seconds of the notebooks' longest cell", "20", value, value <= 20, where)
    return out


def memory() -> tuple[float, float]:
    """What ``memory.py`` finds at m = 10^6, in a process of its own; NaN where it finds too little memory."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        free = math.inf
    if free < 12 * 2**30:
        return math.nan, math.nan
    run = subprocess.run([sys.executable, HERE / "memory.py"], capture_output=True, text=True, check=True)
    return tuple(map(float, run.stdout.split()))


def panel_rows() -> list[dict]:
    try:
        return panels.rows()
    except ValueError as error:
        print(f"  panels: {error}")
        return []


def processor(device: torch.device) -> str:
    """The device's name and how many threads or gigabytes of it are used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "jax", "foolbox", "adversarial-robustness-toolbox"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


if __name__ == "__main__":
    sys.exit(main())
