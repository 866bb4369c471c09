"""How long an epoch takes in the playground at every size it offers, and how soon it hears its reader: `python benchmarks/playground.py`.

Stores book/results/bench_cpu_playground.csv and its manifest. Each size is trained in a page of its own in a headless Chromium, as
a reader would: the panel is opened, Train is pressed, and the page's own numbers are read. What the columns mean:

training    "plain" or "adversarial"; C0 = 20, where no run ends before it is timed
d, m        the size of the network
epoch_ms    the time of an epoch, everything included: SGD, the attacks on the 119 test images and, if adversarial, on the 241
            training images, and the pictures. The median over ROUNDS runs of some seconds each, after two epochs of warm-up.
slowest_ms  the slowest of these runs
worker_ms   how long the Worker computed for an epoch, by the system's own account: what else the machine does does not count. The
            median; empty where the system does not tell (not Linux).
epochs      how many epochs were timed in all
blocked_ms  the longest time, while it trained, for which the page itself did not answer: see panels.py
restart_ms  from the moment at which, in mid-training, the width is set to its least stop (from there to the next one) to the first
            numbers of the new network: the Worker leaves what it does, draws, measures and attacks the new one
"""

import hashlib
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import bench
import panels
import torch

from lazy_helpers import runs
from lazy_helpers.panels import PlaygroundPanel, bundle

ROUNDS = 3
SECONDS = 2.0  # a run's least length
COLUMNS = ("training", "d", "m", "epoch_ms", "slowest_ms", "worker_ms", "epochs", "blocked_ms", "restart_ms")

LESSON = """
const number = (key) => JSON.parse(document.querySelector(`[data-key=${key}]`).dataset.value);
const until = (test) => new Promise((resolve, reject) => {
    const look = () => test() ? (clearInterval(timer), clearTimeout(limit), resolve(performance.now())) : null;
    const timer = setInterval(look, 2), limit = setTimeout(() => reject(new Error("Nothing trains.")), 60000);
});
const perEpoch = 8, main = () => document.querySelector(".lp-main");
const ended = () => main().textContent === "Train again";
let start, first;
const begin = async () => {
    main().click();
    start = await until(() => number("steps") >= 2 * perEpoch);
    beats.splice(0, beats.length - 1);
    first = number("steps");
};
const lesson = async (least) => {
    const end = await until(() => ended() || (performance.now() - start > least && number("steps") > first + 2 * perEpoch));
    const gaps = beats.slice(1).map((beat, k) => beat - beats[k]);
    return { ms: end - start, epochs: (number("steps") - first) / perEpoch, blocked: Math.max(...gaps) };
};
const restart = async () => {
    if (ended()) main().click(), await until(() => number("steps") >= perEpoch);
    await pause(60 * Math.random());
    const width = document.querySelectorAll("input[type=range]")[1], pressed = performance.now();
    width.value = width.value === "0" ? 1 : 0;
    width.dispatchEvent(new Event("input", { bubbles: true }));
    await answered();
    return performance.now() - pressed;
};
"""


def rows() -> list[dict]:
    """One row a size and way of training, with the keys COLUMNS; ValueError where there is no browser."""
    with panels.browser() as chromium, tempfile.TemporaryDirectory() as folder:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        offered = panels.controls(page, Path(folder))["playground"]
        sizes = [(way, d, m) for way in offered["training"] for d in offered["d"] for m in offered["m"]]
        return [row(way, d, m, timed(page, Path(folder), way, d, m)) for way, d, m in sizes]


def timed(page, folder: Path, training: str, d: int, m: int) -> list[dict]:
    """ROUNDS lessons, each in a page opened anew."""
    found = []
    for _ in range(ROUNDS):
        widget = PlaygroundPanel(training=training, d=d, m=m, C0=20.0)
        source = panels.panel_page(widget).replace("<script>", f"<script>{LESSON}", 1)
        page.goto(panels.write(folder, source))
        page.evaluate("() => opened")
        page.evaluate("() => begin()")
        computed = worker_seconds()
        lesson = page.evaluate("(least) => lesson(least)", 1000 * SECONDS)
        lesson["worker"] = 1000 * (worker_seconds() - computed) / lesson["epochs"]
        found.append(lesson | {"restart": page.evaluate("() => restart()")})
    return found


def worker_seconds() -> float:
    """How long the Workers of this process's browser have computed so far; NaN where the system does not tell."""
    try:
        ticks = os.sysconf("SC_CLK_TCK")
        stats = {file.parent.name: _fields(file) for file in Path("/proc").glob("[0-9]*/stat")}
        ours, more = set(), {str(os.getpid())}
        while more:
            ours |= more
            more = {process for process, fields in stats.items() if fields[2] in more} - ours
        threads = [_fields(file) for process in ours for file in Path(f"/proc/{process}/task").glob("*/stat")]
        times = [
            int(user) + int(system)
            for name, _, _, *rest in threads
            if name == "DedicatedWorker"
            for user, system in [rest[9:11]]
        ]
        return sum(times) / ticks if times else math.nan
    except (OSError, ValueError):
        return math.nan


def _fields(file: Path) -> list[str]:
    """A line of /proc/.../stat from the name on: the name itself may hold spaces. Empty strings once the process is gone."""
    try:
        name, rest = file.read_text().split("(", 1)[1].rsplit(")", 1)
    except OSError:
        return [""] * 20
    return [name, *rest.split()]


def row(training: str, d: int, m: int, lessons: list[dict]) -> dict:
    epochs = [lesson["ms"] / lesson["epochs"] for lesson in lessons]
    worker = statistics.median(lesson["worker"] for lesson in lessons)
    found = {
        "training": training,
        "d": d,
        "m": m,
        "epoch_ms": round(statistics.median(epochs), 1),
        "slowest_ms": round(max(epochs), 1),
        "worker_ms": "" if math.isnan(worker) else round(worker, 1),
        "epochs": round(sum(lesson["epochs"] for lesson in lessons)),
        "blocked_ms": round(max(lesson["blocked"] for lesson in lessons), 1),
        "restart_ms": round(max(lesson["restart"] for lesson in lessons), 1),
    }
    print(*(f"{name} {found[name]}" for name in COLUMNS), sep="  ", flush=True)
    return found


def main(results: Path = runs.RESULTS) -> int:
    start, load = time.perf_counter(), os.getloadavg() if hasattr(os, "getloadavg") else None
    try:
        found = rows()
    except ValueError as error:
        print(f"playground: {error}", file=sys.stderr)
        return 2
    manifest = {
        "title": "The playground's time for an epoch",
        "processor": bench.processor(torch.device("cpu")),
        "versions": bench.versions(),
        "modules_sha256": runs.module_hashes(("panels/digits", "panels/weights")),
        "scripts_sha256": {
            f"{name}.mjs": hashlib.sha256((bundle.FOLDER / f"{name}.mjs").read_bytes()).hexdigest()
            for name in ("training", "worker", "playground")
        },
        "load_before": load,  # of the last 1, 5 and 15 minutes: what else ran on the machine
        "wall_seconds": round(time.perf_counter() - start),
    }
    print(runs.store(results / "bench_cpu_playground.csv", found, manifest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
