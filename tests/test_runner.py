"""Runs that lose nothing: workers and runners that are killed, cells that fail, disks that fill up; here, in a pool, with Dask.

The measurements below stand in for a figure's: they work on the embedded digits, and write down who was asked for what in
the folder that ``RUNNER_TEST`` names, as they run in other processes.
"""

import collections
import contextlib
import dataclasses
import errno
import functools
import json
import os
import re
import signal
import sys
import time
import types
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import filelock
import psutil
import pytest
import torch
from conftest import missing
from test_runs import start

from lazy_helpers import __main__ as command_line
from lazy_helpers import measurements, runs
from lazy_helpers.cells import grid
from lazy_helpers.experiments import FIGURES, cells_of, figure_named
from lazy_helpers.measurements import measure_flips
from lazy_helpers.runner import Outcome, groups_of, run
from lazy_helpers.workers import Here, Workers, work

FIG2 = figure_named("fig2")
RADII = grid(("published", "theory"), (16, 64), {50: 2}, "digits", (2.0, 5.0, 8.0))(None)  # 8 trajectories, 24 cells
VICTIM = RADII[3]  # a cell of the second group


def note(name, cells):
    """One line in one write, so that no other process' gets in between."""
    with open(Path(os.environ["RUNNER_TEST"]) / name, "a") as file:
        file.write(f"{os.getpid()} {' '.join(cell.key for cell in cells)}\n")


def noted(folder, name="asked"):
    lines = (folder / name).read_text().splitlines() if (folder / name).exists() else []
    return [(int(line.split()[0]), tuple(line.split()[1:])) for line in lines]


def measure(cells, device):
    note("asked", cells)
    return [{"value": cell.C0 + cell.d} for cell in cells]


def fail(cells, device):
    note("asked", cells)
    if any(cell.d == 64 for cell in cells) and not (Path(os.environ["RUNNER_TEST"]) / "mended").exists():
        raise RuntimeError("out of\nmemory")
    return [{"value": 1.0} for _ in cells]


def fail_at_five(cells, device):
    if any(cell.C0 == 5.0 for cell in cells):
        raise RuntimeError("five")
    return [{"value": 1.0} for _ in cells]


def die_once(cells, device):
    """The process that is first asked for the victim is killed while it holds it."""
    note("asked", cells)
    if VICTIM in cells and not noted(Path(os.environ["RUNNER_TEST"]), "died"):
        note("died", cells)
        os.kill(os.getpid(), signal.SIGKILL)
    return [{"value": cell.C0 + cell.d} for cell in cells]


def die_always(cells, device):
    note("asked", cells)
    if VICTIM in cells:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return [{"value": cell.C0 + cell.d} for cell in cells]


def strange(cells, device):
    """What no JSON holds, and fewer rows than cells."""
    return [{"value": torch.zeros(2)}] if cells[0].d == 64 else []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNNER_TEST", str(tmp_path))
    return tmp_path


def go(folder, measured, cells=RADII, **more):
    figure = dataclasses.replace(FIG2, measure=measured)
    return run(figure, cells, "cpu", folder / "runs", folder / "results", **more)


def values(folder):
    """What each finished cell holds, but for the time and the place."""
    rows = runs.finished_rows(FIG2, folder / "runs", folder / "results").values()
    return {row["key"]: {k: v for k, v in row.items() if k not in ("seconds", "device", "code")} for row in rows}


def failures(folder):
    return runs.failed_rows(FIG2, folder / "runs")


def held(folder):
    locks = (folder / "runs" / "fig2" / "locks").glob("*.lock")
    return [lock.stem for lock in locks if runs.is_locked(lock)]


def two():
    return Workers(2)


@contextlib.contextmanager
def dask_cluster(**settings):
    """Two workers, as a scheduler on a cluster has them; yields what makes an executor."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        missing("Dask is not installed: pip install -e .[scale]")

    local = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "dashboard_address": None,
        "host": "127.0.0.1",
        "silence_logs": 60,
    }
    with dask.config.set(settings), LocalCluster(**local) as cluster, Client(cluster) as client:
        yield client.get_executor


# What is measured in one go


def test_cells_that_differ_in_C0_alone_make_a_group():
    groups = groups_of(FIG2, RADII)
    assert [len(group.cells) for group in groups] == [3] * 8
    assert all(len({(c.m, c.seed, c.d, c.variant, c.data) for c in group.cells}) == 1 for group in groups)
    assert [cell for group in groups for cell in group.cells] == RADII  # no cell is lost, cheap ones first
    alone = figure_named("certified")
    assert all(len(group.cells) == 1 for group in groups_of(alone, cells_of(alone)))


def test_a_shared_trajectory_gives_what_each_radius_alone_gives(monkeypatch):
    trained = []
    real = measurements.train_sgd
    monkeypatch.setattr(measurements, "train_sgd", lambda *args, **more: trained.append(1) or real(*args, **more))
    for group in groups_of(FIG2, RADII)[:2]:  # both ways to leave
        trained.clear()
        together = measure_flips(group.cells[::-1], torch.device("cpu"))[::-1]
        assert len(trained) == 1
        assert together == [measure_flips([cell], torch.device("cpu"))[0] for cell in group.cells]
        assert [row["steps"] for row in together] == sorted({row["steps"] for row in together})  # three exits


# Workers


def test_processes_give_the_numbers_that_one_process_gives(folder):
    cells = RADII[:6]
    assert go(folder / "one", measure_flips, cells) == (6, ())
    assert go(folder / "two", measure_flips, cells, executor=two, at_once=2) == (6, ())
    assert values(folder / "two") == values(folder / "one") and len(values(folder / "one")) == 6


def test_no_more_groups_are_in_flight_than_asked_for(folder):
    class Watched(Executor):
        """Answers when it is waited for; notes how many were in flight, and that their cells were locked."""

        flights, most = [], 0

        def submit(self, call, cells, *rest):
            future = Future()
            self.flights.append((future, call, cells, rest))
            Watched.most = max(self.most, len(self.flights))
            assert {cell.key for _, _, cells, _ in self.flights for cell in cells} == set(held(folder))
            if len(self.flights) == 3 or not self.left(cells):
                while self.flights:
                    future_, call, cells, rest = self.flights.pop()
                    future_.set_result(call(cells, *rest))
            return future

        def left(self, cells):
            return RADII[-1] not in cells

    assert go(folder, measure, executor=Watched, at_once=3) == (24, ())
    assert Watched.most == 3 and not held(folder)
    assert [keys for _, keys in noted(folder)] and len(noted(folder)) == 8


def test_a_killed_worker_loses_only_what_it_held(folder):
    assert go(folder, die_once, executor=two, at_once=2) == (24, ())
    asked = [keys for _, keys in noted(folder)]
    again = {keys for keys in asked if asked.count(keys) > 1}
    assert tuple(cell.key for cell in groups_of(FIG2, RADII)[1].cells) in again
    assert len(again) <= 2  # the other process' group may have been in flight
    assert set(values(folder)) == {cell.key for cell in RADII} and not failures(folder) and not held(folder)


def test_what_breaks_the_pool_each_time_fails_and_the_others_do_not(folder):
    outcome = go(folder, die_always, executor=two, at_once=2)
    lost = {cell.key for cell in groups_of(FIG2, RADII)[1].cells}
    assert outcome == Outcome(21, tuple(cell.key for cell in RADII if cell.key in lost))
    assert [keys for _, keys in noted(folder)].count(tuple(cell.key for cell in RADII[3:6])) == 3
    assert set(failures(folder)) == lost and set(values(folder)).isdisjoint(lost) and not held(folder)
    assert "BrokenProcessPool" in failures(folder)[VICTIM.key]["traceback"]


@pytest.mark.parametrize("broken", ["on submit", "cancelled"])
def test_an_executor_that_never_works_ends_as_failures(folder, broken):
    made = []

    class Broken(Executor):
        def __init__(self):
            made.append(self)

        def submit(self, call, /, *args):
            if broken == "on submit":
                raise BrokenProcessPool("no memory to start a process")
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    outcome = go(folder, measure, RADII[:6], executor=Broken, at_once=2)
    assert outcome.computed == 0 and set(outcome.failed) == {cell.key for cell in RADII[:6]} and len(made) <= 6
    said = failures(folder)[RADII[0].key]["traceback"]
    assert ("no memory" if broken == "on submit" else CancelledError.__name__) in said


def test_a_worker_with_other_code_is_refused(folder, monkeypatch):
    monkeypatch.setattr("lazy_helpers.runner.module_hashes", lambda modules: {"network.py": "another"})
    assert go(folder, measure, RADII[:3]).failed
    assert "same checkout" in failures(folder)[RADII[0].key]["traceback"] and not values(folder)


@pytest.mark.parametrize("name", ["measurements", "cells", "train"])
def test_a_worker_has_the_measurement_and_its_constants_of_the_runner(folder, name):
    """The runner sends the hash of every module that the numbers rest on, and a worker compares them all."""
    sent = []

    class Post(Here):
        def submit(self, job, cells, call):
            sent.append(job.keywords["modules"])
            return super().submit(job, cells, call)

    go(folder, measure_flips, RADII[:1], executor=Post)
    assert sent[0] == runs.module_hashes(runs.modules_behind(FIG2)) and f"{name}.py" in sent[0]
    answer = work(measure, RADII[:1], "", "cpu", "", sent[0] | {f"{name}.py": "another"})
    assert "same checkout" in answer.traceback and not answer.rows


# Dask


def test_dask_gives_the_same_and_loses_only_what_a_killed_worker_held(folder):
    go(folder / "one", measure)
    (folder / "asked").unlink()
    with dask_cluster() as executor:
        assert go(folder, die_once, executor=executor, at_once=4) == (24, ())
        assert go(folder, die_once, executor=executor, at_once=4) == (
            0,
            (),
        )  # the executor is closed, its client is not
    assert values(folder) == values(folder / "one")
    asked = collections.defaultdict(list)
    for pid, keys in noted(folder):
        asked[keys].append(pid)
    victims = asked[tuple(cell.key for cell in RADII[3:6])]
    assert len(asked) == 8 and len(victims) == 2 and len({pid for pids in asked.values() for pid in pids}) >= 2
    assert all(pids[0] == victims[0] for pids in asked.values() if len(pids) > 1)  # what the killed worker had begun
    assert not failures(folder)


def test_the_lines_for_slurm_that_the_book_shows_run(folder, monkeypatch):
    """On a local cluster in the place of the SLURM one, with the digits in the place of MNIST."""
    book = json.loads((runs.ROOT / "book" / "scale.ipynb").read_text())
    text = "".join(line for cell in book["cells"] for line in cell["source"])
    lines = re.search(r"```python\n(.*?SLURMCluster.*?)```", text, re.DOTALL)[1]
    asked = {}
    with dask_cluster() as executor:
        client = executor.__self__

        def cluster(**settings):
            asked.update(settings)
            return types.SimpleNamespace(scale=lambda jobs: asked.update(jobs=jobs))

        monkeypatch.setitem(sys.modules, "dask_jobqueue", types.SimpleNamespace(SLURMCluster=cluster))
        monkeypatch.setattr("dask.distributed.Client", lambda cluster: client)
        monkeypatch.setattr("lazy_helpers.experiments.cells_of", lambda figure: cells_of(figure, "digits"))
        here = functools.partial(run, runs=folder / "runs", results=folder / "results")
        monkeypatch.setattr("lazy_helpers.runner.run", here)
        exec(compile(lines, "scale.ipynb", "exec"), {})
    assert asked["cores"] * asked["jobs"] == 80
    assert len(list((folder / "runs" / "fig3").glob("*.json"))) == len(cells_of(FIGURES["fig3"], "digits"))


def test_a_cell_that_kills_dasks_workers_fails_and_is_tried_again(folder):
    with dask_cluster(**{"distributed.scheduler.allowed-failures": 0}) as executor:
        outcome = go(folder, die_always, executor=executor, at_once=1)
        assert set(outcome.failed) == {cell.key for cell in RADII[3:6]} and outcome.computed == 21
        assert "KilledWorker" in failures(folder)[VICTIM.key]["traceback"]
        assert go(folder, measure, executor=executor, at_once=2) == (3, ()) and not failures(folder)


# Cells that fail


@pytest.mark.parametrize("executor", [None, two])
def test_a_cell_that_fails_keeps_its_traceback_and_is_tried_again(folder, executor):
    bad = {cell.key for cell in RADII if cell.d == 64}
    outcome = go(folder, fail, executor=executor, at_once=2)
    assert outcome.computed == 24 - len(bad) and set(outcome.failed) == bad == set(failures(folder))
    record = failures(folder)[min(bad)]
    assert 'raise RuntimeError("out of\\nmemory")' in record["traceback"] and record["device"].startswith("cpu (")
    assert record["time"].startswith("20") and record["d"] == 64 and set(values(folder)).isdisjoint(bad)
    assert not held(folder) and not list(folder.rglob("*.part"))

    (folder / "mended").touch()
    assert go(folder, fail) == (len(bad), ())  # only what failed
    assert not failures(folder) and len(values(folder)) == 24


def test_a_cell_that_fails_takes_no_other_of_its_group_along(folder):
    outcome = go(folder, fail_at_five)
    assert outcome.computed == 16 and set(outcome.failed) == {cell.key for cell in RADII if cell.C0 == 5.0}


def test_what_is_no_row_is_a_failure(folder):
    assert go(folder, strange, RADII[:1] + [cell for cell in RADII if cell.d == 64][:1]).computed == 0
    said = "".join(record["traceback"] for record in failures(folder).values())
    assert "not JSON serializable" in said and "zip()" in said


def test_the_command_says_how_many_failed_and_where_to_look(folder, capsys, monkeypatch):
    monkeypatch.setitem(FIGURES, "fig2", dataclasses.replace(FIG2, measure=fail))
    places = [f"--runs={folder / 'runs'}", f"--results={folder / 'results'}"]
    command = ["run", "fig2", "--preset", "digits", "--device", "cpu", *places]
    assert command_line.main(command) == 1
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if "lazy_helpers:" in line]
    assert "computed 6 of 12" in out and "6 cells failed" in line and str(folder / "runs" / "fig2" / "failed") in line
    assert command_line.main(["status", "fig2", *places]) == 0
    out = capsys.readouterr().out
    assert "6 of 12 cells, 0 running, 6 failed, 0 left" in out and out.count(": memory\n") == 6
    (folder / "mended").touch()
    assert command_line.main(command) == 0 and command_line.main(["status", "fig2", *places]) == 0
    assert "12 of 12 cells;" in capsys.readouterr().out


def test_status_counts_and_times(folder):
    go(folder, measure, RADII[:3])
    cells = cells_of(FIG2, "digits")
    go(folder, fail, [cells[0], next(cell for cell in cells if cell.d == 64)])
    for cell in cells:
        file = runs.row_file(folder / "runs", FIG2, cell.key)
        if file.exists():
            file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": 90.0}))
    busy = [cell for cell in cells if cell.d == 16][-1]
    with filelock.FileLock(runs.lock_file(folder / "runs", FIG2, busy.key)):
        line, bad = [line for line in runs.status([FIG2], folder / "runs", folder / "results") if "digits" in line]
    assert "1 of 12 cells, 1 running, 1 failed, 9 left" in line and "1.5 min spent" in line
    left = sum(cell.cost for cell in cells[1:]) / cells[0].cost * 90 / 60
    assert f"about {left:.1f} min left" in line
    assert bad.strip().startswith("failed") and bad.endswith("memory")


def test_the_time_left_is_taken_from_the_cells_that_are_most_alike():
    """Of the same C0 and width, else C0, else width: the sums of Figure 3, whose larger balls are left late or never."""
    figure, took = figure_named("fig3"), {10.0: 1.0, 20.0: 100.0}
    narrow, wide = ([cell for cell in cells_of(figure) if cell.m == m and cell.d == 25] for m in (1_000, 10_000))
    rows = {c.key: {"seconds": c.cost * took[c.C0]} for c in narrow if c.C0 in took}
    rows |= {c.key: {"seconds": c.cost * 7} for c in wide if c.C0 == 10}

    def left(C0):
        (cell,) = (cell for cell in wide if cell.C0 == C0)
        return runs._seconds(figure, [cell], rows) / cell.cost

    assert left(10.0) == pytest.approx(7) and left(20.0) == pytest.approx(100) and left(30.0) == pytest.approx(7)


# Disks and folders


@pytest.mark.parametrize("executor", [None, two])
def test_a_disk_that_fills_up_stops_the_run_in_one_sentence_and_loses_nothing(folder, executor, monkeypatch):
    real, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) > 6:  # the code's hashes, then five cells
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ValueError, match=r"folder .*fig2 cannot be written \(No space left on device\): free some space, .*--runs"
    ):
        go(folder, measure, executor=executor, at_once=2)
    assert len(values(folder)) == 5 and not held(folder) and not failures(folder)
    assert not list(folder.rglob("*.part"))
    monkeypatch.setattr(os, "fsync", real)
    assert go(folder, measure) == (24 - 5, ())


@pytest.mark.parametrize("place", ["fig2", "fig2/locks", "fig2/failed"])
def test_a_folder_that_cannot_be_written_is_named(folder, place, capsys, monkeypatch):
    monkeypatch.setitem(FIGURES, "fig2", dataclasses.replace(FIG2, measure=fail))
    file = folder / "runs" / place
    file.parent.mkdir(parents=True)
    file.write_text("")
    command = ["run", "fig2", "--preset", "digits", f"--runs={folder / 'runs'}", f"--results={folder / 'results'}"]
    assert command_line.main(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "lazy_helpers:" in line]
    assert str(file) in line and "--runs" in line and not held(folder)


def refuse(monkeypatch, folder):
    """Nothing can be made, moved or removed in a folder. Its permissions alone would not stop root, as whom tests may run."""

    def guarded(real, writes):
        def call(path, *args, **more):
            if str(path).startswith(str(folder)) and writes(*args):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *args, **more)

        return call

    monkeypatch.setattr("builtins.open", guarded(open, lambda mode="r", *_: mode != "r"))
    monkeypatch.setattr(os, "open", guarded(os.open, lambda flags, *_: flags & os.O_CREAT))
    for name in ("mkdir", "replace", "unlink"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), lambda *_: True))


@pytest.mark.parametrize("place", ["", "fig2", "fig2/code", "fig2/locks", "fig2/failed"])
@pytest.mark.parametrize("there", [False, True], ids=["to be made", "there"])
def test_a_run_that_may_not_write_says_so_in_one_sentence(folder, place, there, capsys, monkeypatch):
    monkeypatch.setitem(FIGURES, "fig2", dataclasses.replace(FIG2, measure=fail))
    place = folder / "runs" / place
    for name in ("code", "locks", "failed") if there else ():
        (folder / "runs" / "fig2" / name).mkdir(parents=True)
    refuse(monkeypatch, place)
    command = ["run", "fig2", "--preset", "digits", f"--runs={folder / 'runs'}", f"--results={folder / 'results'}"]
    assert command_line.main([*command, "--device", "cpu"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "lazy_helpers:" in line]
    assert f"the folder {place}" in line and "(Permission denied): make it writable" in line and "--runs" in line
    assert not held(folder) and not list(folder.rglob("*.part"))


def test_a_failure_that_may_not_be_removed_stops_the_run_and_keeps_the_cell(folder, capsys, monkeypatch):
    cell = next(cell for cell in RADII if cell.d == 64)
    assert go(folder, fail, [cell]).failed == (cell.key,)
    (folder / "mended").touch()
    refuse(monkeypatch, folder / "runs" / "fig2" / "failed")
    with pytest.raises(ValueError, match=r"folder .*failed cannot be written \(Permission denied\): make it writable"):
        go(folder, fail, [cell])
    assert set(values(folder)) == {cell.key} and not held(folder)


@pytest.mark.parametrize("there", [False, True], ids=["to be made", "there"])
def test_a_collect_that_may_not_write_says_so_in_one_sentence(folder, there, capsys, monkeypatch):
    monkeypatch.setitem(FIGURES, "fig2", dataclasses.replace(FIG2, measure=measure))
    cells, results = cells_of(FIG2, "digits"), folder / "results"
    places = [f"--runs={folder / 'runs'}", f"--results={results}"]
    go(folder, measure, cells[:1])
    if there:
        assert command_line.main(["collect", "fig2", "--preset", "digits", *places]) == 0
    before = {path: path.read_bytes() for path in results.glob("*")}
    go(folder, measure, cells[:2])
    capsys.readouterr()
    refuse(monkeypatch, results)
    assert command_line.main(["collect", "fig2", "--preset", "digits", *places]) == 2
    out, err = capsys.readouterr()
    assert f"the folder {results} cannot be written (Permission denied): make it writable" in err and "--results" in err
    assert err.count("\n") == 1 and not out
    assert {path: path.read_bytes() for path in results.glob("*")} == before and len(before) == 2 * there


# Runners that are killed or stopped


def interrupted(folder, how, *more):
    """Starts the command line with two workers and sends it a signal in mid-run; returns it and its workers."""
    process = start(folder, "--workers", "2", *more)
    rows = folder / "runs" / "fig2"
    for _ in range(1200):
        if len(list(rows.glob("*.json"))) >= 2:
            break
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert len(children) >= 2 and not alive  # no worker goes on without its runner
    return process.returncode, err, {file.name: file.stat().st_mtime_ns for file in rows.glob("*.json")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_runner_that_is_killed_or_stopped_goes_on_where_it_was(folder, how):
    cells = cells_of(FIG2, "digits", seeds=8)  # so many that the signal meets it in mid-run on a busy machine, too
    code, err, before = interrupted(folder, how, "--seeds", "8")
    assert 2 <= len(before) < len(cells), "interrupted too early or too late to tell"
    assert not held(folder) and not failures(folder)
    if how == signal.SIGINT:
        assert code == 130 and "kept" in err and "Traceback" not in err
    assert run(FIG2, cells, "cpu", folder / "runs", folder / "results") == (len(cells) - len(before), ())
    after = {file.name: file.stat().st_mtime_ns for file in (folder / "runs" / "fig2").glob("*.json")}
    assert len(after) == len(cells) and before.items() <= after.items()  # no finished cell was written again


def test_only_the_widths_asked_for_are_run(folder, capsys, monkeypatch):
    monkeypatch.setitem(FIGURES, "fig2", dataclasses.replace(FIG2, measure=measure))
    places = [f"--runs={folder / 'runs'}", f"--results={folder / 'results'}"]
    assert command_line.main(["run", "fig2", "--widths", "1000", "10000", "--device", "cpu", *places]) == 0
    assert "computed 180 of 180" in capsys.readouterr().out
    assert {row["m"] for row in values(folder).values()} == {1_000, 10_000}
