"""What the machine gives: its product rate, its memory bandwidth, and how time and memory are measured."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """One run, the device's work included."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def side_by_side(calls: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call, ``repeats`` times, in turn, so that what else the machine does falls on all of them."""
    for call in calls.values():
        call()  # warm-up
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    return times


def product_rate(device: torch.device, size: int = 3000) -> float:
    """float32 operations a second of a large square matrix product: the best of several, for it is a ceiling."""
    A, B = torch.randn(2, size, size, device=device)
    out = torch.empty(size, size, device=device)
    times = side_by_side({"product": lambda: torch.mm(A, B, out=out)}, 9, device)["product"]
    return 2 * size**3 / min(times)


def bandwidth(device: torch.device, numbers: int = 2**26) -> float:
    """Bytes a second of a copy far larger than any cache, read and written: the best of several."""
    A, out = torch.randn(numbers, device=device), torch.empty(numbers, device=device)
    return 8 * numbers / min(side_by_side({"copy": lambda: out.copy_(A)}, 9, device)["copy"])


def peak_mib(call: Callable[[], object], device: torch.device) -> float:
    """Peak memory of a call beyond what was held before it, in MiB; NaN where the system does not tell (not Linux)."""
    gc.collect()
    if device.type == "cuda":
        wait(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        wait(device)
        return (torch.cuda.max_memory_allocated(device) - held) / 2**20
    try:
        REFS.write_text("5")  # the peak falls back to what is held now
        held = _status("VmRSS")
        call()
        return (_status("VmHWM") - held) / 2**10
    except OSError:
        return float("nan")


def _status(field: str) -> int:
    """A line of this process's status, in KiB."""
    return int(next(line for line in STATUS.read_text().splitlines() if line.startswith(field)).split()[1])


def median(values: list[float]) -> float:
    return statistics.median(values)
