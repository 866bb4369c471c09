"""Running a grid, here or on the workers of any ``concurrent.futures`` executor, so that nothing finished is lost.

Cells that differ along a figure's shared axes alone make a group, which is measured in one go. The runner keeps some groups
in flight and holds their cells' locks meanwhile, so that another runner on the same folder passes them by; the system frees
the locks of a runner that dies. A worker gets a function and cells and returns rows: the runner alone writes files.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from pathlib import Path
from typing import NamedTuple

import filelock
from tqdm.auto import tqdm

from .cells import Cell
from .checks import device_named
from .experiments import Figure
from .runs import (
    RESULTS,
    RUNS,
    code_digest,
    code_file,
    code_hashes,
    failed_file,
    finished_rows,
    lock_file,
    make_folder,
    module_hashes,
    modules_behind,
    read_row,
    row_file,
    todays_codes,
    write_whole,
    writing,
)
from .workers import Answer, Here, refusal, work

BREAKS = 3  # executors that may break under a group


class Outcome(NamedTuple):
    """What a run did itself; other cells were finished or in work elsewhere."""

    computed: int
    failed: tuple[str, ...]  # keys; the tracebacks are in runs/<figure>/failed/


@dataclasses.dataclass(eq=False)
class Group:
    """Cells that are measured in one go, and how many executors broke while they were in flight."""

    cells: list[Cell]
    breaks: int = 0


def groups_of(figure: Figure, cells: Iterable[Cell]) -> list[Group]:
    """The cells that agree but for the figure's shared axes, together; in the order of their first cells."""
    kin = collections.defaultdict(list)
    for cell in cells:
        kin[tuple(value for name, value in vars(cell).items() if name not in figure.shared)].append(cell)
    return [Group(some) for some in kin.values()]


def run(
    figure: Figure,
    cells: Iterable[Cell],
    device: str = "auto",
    runs: Path = RUNS,
    results: Path = RESULTS,
    stale: bool = False,
    executor: Callable[[], Executor] | None = None,
    at_once: int = 1,
) -> Outcome:
    """Compute the cells that are not finished, and those that failed before; one that fails does not stop the others.

    ``executor()`` gives a place to compute, such as ``lambda: Workers(4)`` or Dask's ``client.get_executor``, and is asked
    again when that breaks; without one it is this process. ``at_once`` groups are in flight: as many as there are workers.
    Groups in flight at a break are run again, for the third time alone, and fail when that breaks too. Where a measurement
    fails, its cells are tried one by one. A cell that other code than today's finished counts as finished unless ``stale``
    is set. Raises ``ValueError`` where nothing can be written.
    """
    if executor is None:
        device_named(device)  # a cluster's workers may have what this machine lacks
    make_folder(runs / figure.name / "locks")
    make_folder(runs / figure.name / "code")
    code, modules = code_digest(figure), module_hashes(modules_behind(figure))
    write_whole(code_file(runs, figure, code), json.dumps(code_hashes(figure), indent=1))
    job = functools.partial(work, figure.measure, device=device, code=code, modules=modules)
    today = todays_codes(figure)
    finished = {key for key, row in finished_rows(figure, runs, results).items() if not stale or row["code"] in today}
    waiting = collections.deque(groups_of(figure, [cell for cell in cells if cell.key not in finished]))
    place, flights, locks = None, {}, {}  # the executor; future -> (group, its cells in work, executor); key -> lock
    computed, failed = 0, []
    bar = tqdm(
        total=sum(cell.cost for group in waiting for cell in group.cells),
        desc=figure.name,
        bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} < {remaining} {postfix}",
    )

    def take(group: Group) -> list[Cell]:
        """Locks the cells that no other process is at or has finished, and returns them."""
        for cell in group.cells:
            lock = filelock.FileLock(lock_file(runs, figure, cell.key), timeout=0.1, poll_interval=0.02)
            with writing(runs / figure.name / "locks"), contextlib.suppress(filelock.Timeout):
                locks[cell.key] = lock.acquire().lock
            earlier = read_row(row_file(runs, figure, cell.key)) if cell.key in locks else None
            if earlier is not None and (not stale or earlier["code"] in today):
                free([cell])
        return [cell for cell in group.cells if cell.key in locks]

    def free(cells: list[Cell]) -> None:
        for cell in cells:
            locks.pop(cell.key).release()

    def keep(cells: list[Cell], answer: Answer) -> int:
        """Writes down what became of the cells; returns how many are finished."""
        if answer.rows:
            for cell, row in zip(cells, answer.rows, strict=True):
                write_whole(row_file(runs, figure, cell.key), row)
                with writing(runs / figure.name / "failed"):
                    failed_file(runs, figure, cell.key).unlink(missing_ok=True)
            return len(cells)
        make_folder(runs / figure.name / "failed")
        for cell in cells:
            failed.append(cell.key)
            record = {"key": cell.key, **dataclasses.asdict(cell), **answer.record, "traceback": answer.traceback}
            write_whole(failed_file(runs, figure, cell.key), json.dumps(record, indent=1))
        return 0

    try:
        while waiting or flights:
            suspect = any(group.breaks == BREAKS - 1 for group, _, _ in flights.values())
            while waiting and len(flights) < at_once and not suspect:
                suspect = waiting[0].breaks == BREAKS - 1
                if suspect and flights:
                    break  # it flies alone: what breaks the executor each time shall not take others along
                group = waiting.popleft()
                mine = take(group)
                if mine:
                    bar.set_postfix_str(mine[0].key)
                    place = place or (executor or Here)()
                    flights[_submit(place, job, mine)] = group, mine, place
                else:
                    bar.update(sum(cell.cost for cell in group.cells))
            for future in wait(flights, return_when=FIRST_COMPLETED).done:
                group, mine, where = flights.pop(future)
                try:
                    answer = future.result()
                except (BrokenExecutor, CancelledError) as error:
                    group.breaks += 1
                    if where is place:
                        place = None
                        with contextlib.suppress(Exception):  # what is broken may not even close
                            where.shutdown(wait=False)
                    if group.breaks < BREAKS:
                        free(mine)
                        waiting.append(group)
                        continue
                    answer = refusal(error, device, code)
                except Exception as error:  # what the engine says of a worker that died: Dask's KilledWorker
                    answer = refusal(error, device, code)
                else:
                    if answer.traceback and len(mine) > 1:  # one may fail for all: each by itself
                        free(mine)
                        waiting.extend(Group([cell]) for cell in mine)
                        continue
                computed += keep(mine, answer)
                free(mine)
                bar.update(sum(cell.cost for cell in group.cells))
    finally:
        for future in flights:
            future.cancel()
        with contextlib.suppress(Exception):
            if place is not None:
                place.shutdown(wait=not flights)
        for lock in locks.values():
            lock.release()
        bar.close()
    return Outcome(computed, tuple(failed))


def _submit(place: Executor, job, cells: list[Cell]) -> Future:
    """A future of the group. An executor that takes no more work is broken, and says so there as in the others."""
    try:
        return place.submit(job, cells, uuid.uuid4().hex)
    except Exception as error:
        future, broken = Future(), BrokenExecutor("the executor took no more work")
        broken.__cause__ = error
        future.set_exception(broken)
        return future
