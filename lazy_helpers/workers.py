"""Where a group of cells is computed: what a worker does with it, this process, and processes on this machine.

Any other ``concurrent.futures`` executor will do as well, such as Dask's ``client.get_executor()``: what goes to a worker is
a function of this module, a figure's measurement and plain data, and what comes back is text. A worker touches no files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from .cells import Cell
from .checks import device_named
from .runs import module_hashes


class Answer(NamedTuple):
    """What a worker returns: a finished row in JSON for each cell, or no row and a traceback."""

    rows: list[str]
    traceback: str
    record: dict  # seconds, device and the like


def work(measure, cells: list[Cell], call: str, device: str, code: str, modules: dict[str, str]) -> Answer:
    """Measures a group, where the worker is. The seconds are the group's in equal parts.

    ``call`` is another for each call, as some engines repeat the answer that they gave to the same question before.
    """
    start, name = time.perf_counter(), device
    try:
        if _modules(tuple(modules)) != modules:
            raise RuntimeError(
                "this worker's lazy_helpers is other code than the runner's: give both the same checkout"
            )
        chosen = device_named(device)
        name = (
            torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
        )
        values = measure(cells, chosen)
        record = {
            "seconds": round((time.perf_counter() - start) / len(cells), 2),
            "device": name,
            "torch": torch.__version__,
            "code": code,
        }
        rows = [
            json.dumps({"key": cell.key, **dataclasses.asdict(cell), **found, **record}, indent=1)
            for cell, found in zip(cells, values, strict=True)
        ]
        return Answer(rows, "", record)
    except Exception as error:
        return refusal(error, name, code, time.perf_counter() - start)


@functools.cache
def _modules(files: tuple[str, ...]) -> dict[str, str]:
    return module_hashes(file.removesuffix(".py") for file in files)


def refusal(error: BaseException, device: str, code: str, seconds: float = 0.0) -> Answer:
    """No row, and why."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = {"time": now, "seconds": round(seconds, 2), "device": device, "code": code}
    return Answer([], "".join(traceback.format_exception(error)), record)


class Here(Executor):
    """This process: a call is over when ``submit`` returns."""

    def submit(self, call, /, *args, **kwargs) -> Future:
        future = Future()
        future.set_result(call(*args, **kwargs))
        return future


class Workers(ProcessPoolExecutor):
    """Processes that share this machine's cores, and that stop when told not to be waited for, or when their parent dies."""

    def __init__(self, count: int):
        context = multiprocessing.get_context("spawn")
        ear, self._mouth = context.Pipe(duplex=False)
        super().__init__(count, context, attend, (ear, max(1, torch.get_num_threads() // count)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if not wait:
            self._mouth.close()
        super().shutdown(wait, cancel_futures=cancel_futures)


def attend(ear, threads: int) -> None:
    """Sets a worker up: its torch threads, and a watch on the pipe that closes when it is to stop."""

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            ear.recv_bytes()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the parent decides
    threading.Thread(target=watch, daemon=True).start()
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a process that is stopped would leave behind
