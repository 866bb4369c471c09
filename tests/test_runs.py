"""Grids that run, resume and collect: nothing finished is lost, nothing half-written counts, results bear their hashes."""

import dataclasses
import errno
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lazy_helpers import __main__ as command_line
from lazy_helpers import measurements, output_bias, runner, runs
from lazy_helpers.cells import Cell
from lazy_helpers.experiments import FIGURES, cells_of, figure_named
from lazy_helpers.measurements import measure_flips

FIG2 = figure_named("fig2")
DIGITS = cells_of(FIG2, "digits")


def start(folder, *more):
    """The command line in a process of its own, on the embedded digits."""
    command = [sys.executable, "-m", "lazy_helpers", "run", "fig2", "--preset", "digits", "--device", "cpu"]
    places = ["--runs", str(folder / "runs"), "--results", str(folder / "results")]
    return subprocess.Popen(
        [*command, *places, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # where the tests run in a shell's background, Ctrl-C is ignored, and a child would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finished(folder):
    """The files of the finished cells and when each was written."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / "runs" / "fig2").glob("*.json")}


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    process = start(tmp_path)
    for _ in range(600):
        if len(finished(tmp_path)) >= 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = finished(tmp_path)
    assert 3 <= len(before) < len(DIGITS), "killed too early or too late to tell"

    process = start(tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    after = finished(tmp_path)
    assert {name: after[name] for name in before} == before  # no finished cell was written again
    assert after.keys() == {f"{cell.key}.json" for cell in DIGITS}
    assert f"computed {len(DIGITS) - len(before)} of {len(DIGITS)}" in out


def test_two_processes_share_one_folder(tmp_path):
    pair = [start(tmp_path), start(tmp_path, "--workers", "2")]
    outs = [process.communicate(timeout=180) for process in pair]
    assert all(process.returncode == 0 for process in pair), outs
    computed = [int(out.split("computed ")[1].split(" of")[0]) for out, _ in outs]
    assert sum(computed) == len(DIGITS)  # each cell once
    assert set(runs.finished_rows(FIG2, tmp_path / "runs", tmp_path / "results")) == {cell.key for cell in DIGITS}


def test_a_finished_cell_of_its_kin_is_a_figures_own(tmp_path, monkeypatch):
    """It is neither computed again nor missing in the result, and the manifest says what code it bears."""
    monkeypatch.setitem(FIGURES, "fig2", dataclasses.replace(FIG2, measure=instant, modules=()))
    presets = {"digits": lambda seeds: DIGITS}
    later = dataclasses.replace(FIG2, name="later", presets=presets, kin=("fig2",), measure=lambda *_: 1 / 0)
    runner.run(FIGURES["fig2"], DIGITS[:3], "cpu", tmp_path / "runs", tmp_path / "results")
    done = runner.run(later, DIGITS[:4], "cpu", tmp_path / "runs", tmp_path / "results")
    assert done == (0, (DIGITS[3].key,))
    done = runner.run(later, DIGITS[:3], "cpu", tmp_path / "runs", tmp_path / "results", stale=True)
    assert done == (0, ())  # its kin's code is today's
    for folder in ("runs", "nothing here"):  # as finished cells, then as a collected result alone
        path = runs.collect(later, "digits", None, tmp_path / folder, tmp_path / "results")
        manifest = json.loads(path.with_suffix(".json").read_text())
        assert manifest["cells"] == 3 and DIGITS[3].key in manifest["missing"]
        assert manifest["modules_sha256"] == {runs.code_digest(FIGURES["fig2"]): runs.code_hashes(FIGURES["fig2"])}
        assert runs._verdict(path, later) == "up to date, 9 cells missing"
        path.unlink(), path.with_suffix(".json").unlink()
        runs.collect(FIGURES["fig2"], "digits", None, tmp_path / "runs", tmp_path / "results")


@pytest.mark.parametrize("name", [name for name in FIGURES if FIGURES[name].kin])
def test_kin_have_one_measurement_and_the_same_numbers(name):
    figure, table = FIGURES[name], runs.load_results(name).set_index("key")
    for other in figure.kin:
        assert FIGURES[other].measure is figure.measure
        theirs = runs.load_results(other).set_index("key")
        shared = sorted(set(table.index) & set(theirs.index))
        numbers = table.select_dtypes("number").columns.drop(["seconds"])
        assert len(shared) >= 27
        assert np.allclose(table.loc[shared, numbers], theirs.loc[shared, numbers], rtol=1e-4)


@pytest.mark.parametrize("damage", ["", "{", '{"key": "another", "code": "x"}', "[]"])
def test_a_half_written_cell_is_computed_again(tmp_path, damage):
    cell = DIGITS[0]
    file = tmp_path / "fig2" / f"{cell.key}.json"
    file.parent.mkdir()
    file.write_text(damage)
    (file.parent / f".{cell.key}.json.123.part").write_text('{"key"')
    assert runner.run(FIG2, [cell], "cpu", tmp_path, tmp_path / "results") == (1, ())
    assert json.loads(file.read_text())["key"] == cell.key


def collected(tmp_path, cells=DIGITS[:2]):
    runner.run(FIG2, cells, "cpu", tmp_path / "runs", tmp_path / "results")
    return runs.collect(FIG2, "digits", None, tmp_path / "runs", tmp_path / "results")


def test_a_collected_result_stands_for_its_cells_in_a_fresh_clone(tmp_path):
    path = collected(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    assert runner.run(FIG2, DIGITS[:2], "cpu", elsewhere, tmp_path / "results").computed == 0
    again = runs.collect(FIG2, "digits", None, elsewhere, tmp_path / "results")
    first = path.read_bytes()
    assert again.read_bytes() == first  # numbers come back from the CSV as they went in
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["cells"] == 2 and len(manifest["missing"]) == len(DIGITS) - 2


def instant(cells, device):
    """Stands in for a measurement where the files alone matter."""
    return [{"value": 0.5 + cell.d + cell.seed} for cell in cells]


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """``command("run", ...)`` is the command line on Figure 2's digits: its exit status and what it says, but for the bar."""
    monkeypatch.setitem(FIGURES, "fig2", dataclasses.replace(FIG2, measure=instant, modules=()))
    places = [f"--runs={tmp_path / 'runs'}", f"--results={tmp_path / 'results'}"]

    def act(verb, *more):
        which = [] if verb == "status" else ["fig2", "--preset", "digits"]
        code = command_line.main([verb, *which, *places, *more])
        out, err = capfd.readouterr()
        said = [line for line in err.splitlines() if line.startswith("lazy_helpers: ")]
        assert len(said) == (code in (2, 130)) and "Traceback" not in err
        return code, out + "".join(said)

    return act


DAMAGES = {
    "a number": lambda table, manifest: (table.replace(b"16.5", b"17.5", 1), manifest),
    "in mid-name": lambda table, manifest: (table[: table.rindex(b"theory_") + 9], manifest),
    "no text": lambda table, manifest: (b"\xff\x00,\n\xfe,", manifest),
    "manifest cut": lambda table, manifest: (table, manifest[: len(manifest) // 2]),
    "manifest empty": lambda table, manifest: (table, b"{}"),
    "manifest a list": lambda table, manifest: (table, b"[]"),
    "manifest gone": lambda table, manifest: (table, None),
    "both cut": lambda table, manifest: (b"", b""),
}


@pytest.fixture(params=DAMAGES)
def altered(request, command, tmp_path):
    """Two cells of twelve, collected and altered: the result's two files, and what they held."""
    assert command("run", "--seeds", "1")[0] == 0
    for cell in DIGITS[2:4]:
        runs.row_file(tmp_path / "runs", FIG2, cell.key).unlink()
    assert command("collect")[0] == 0
    pair = [tmp_path / "results" / f"fig2_digits.{part}" for part in ("csv", "json")]
    before = [path.read_bytes() for path in pair]
    for path, raw in zip(pair, DAMAGES[request.param](*before), strict=True):
        path.unlink() if raw is None else path.write_bytes(raw)
    return pair, before, request.param


def test_an_altered_result_is_refused_by_name(altered):
    (path, _), _, damage = altered
    says = r"or its manifest is not in" if damage == "manifest gone" else r"has no manifest, for fig2_digits\.json"
    if not damage.startswith(("manifest", "both")):
        says = "does not bear the SHA-256 in its manifest, so it was altered: restore both with `git checkout`"
    for load in (runs.load_results, runs.load_manifest):
        with pytest.raises(ValueError, match=rf"fig2_digits\.csv {says}"):
            load("fig2_digits", path.parent)
    with pytest.raises(ValueError, match="not in"):
        runs.load_results("fig9", path.parent)


def test_status_says_what_was_altered_and_goes_on(altered, command):
    (path, _), _, damage = altered
    runs.store(path.with_name("another.csv"), [{"x": 1}], {})
    path.with_name("another.json").write_text("{")
    code, out = command("status")
    assert code == 0 and all(name in out for name in FIGURES)
    (line,) = [line for line in out.splitlines() if "fig2_digits.csv" in line]
    which = "manifest is missing or broken" if damage.startswith(("manifest", "both")) else "hash is not the manifest's"
    assert "2 of 12 cells" in line and line.endswith(f"fig2_digits.csv: ALTERED, its {which}")
    assert "another.csv: ALTERED, its manifest is missing or broken" in out.splitlines()
    code, alone = command("status", "certified")
    assert code == 0 and alone.count("ALTERED") == 1 + damage.startswith(("manifest", "both"))  # whose it is, none says


def test_an_altered_result_is_collected_again_from_its_cells(altered, command):
    """All that it held is in the runs folder; where neither file tells what it held, it stays."""
    (path, manifest), before, damage = altered
    if damage == "both cut":
        assert command("run")[0] == command("collect")[0] == 2 and not path.read_bytes()
        return
    code, out = command("collect")
    assert (code, out.strip()) == (0, str(path))
    assert path.read_bytes() == before[0] and json.loads(manifest.read_bytes()) == json.loads(before[1])
    path.write_bytes(b"")
    assert "computed 10 of 12" in command("run")[1]


def test_what_an_altered_result_alone_may_hold_is_not_dropped(altered, command, tmp_path):
    (path, manifest), before, _ = altered
    only = runs.row_file(tmp_path / "runs", FIG2, DIGITS[1].key)
    only.unlink()
    assert "1 of 12 cells" in command("status")[1]
    now = {file: file.read_bytes() for file in path.parent.iterdir()}
    for verb in ("run", "collect"):
        code, said = command(verb)
        assert code == 2 and str(path) in said and "restore both with `git checkout`, or move both away" in said
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == now

    for file in now:  # the one remedy
        file.rename(tmp_path / file.name)
    assert "computed 11 of 12" in command("run")[1] and command("collect")[0] == 0
    path.write_bytes(before[0]), manifest.write_bytes(before[1])  # the other
    only.unlink()
    assert "computed 0 of 12" in command("run")[1] and command("collect")[0] == 0
    assert DIGITS[1].key in set(runs.load_results("fig2_digits", path.parent).key)


@pytest.mark.parametrize("seeds", [1, 3, 4])
def test_a_cut_result_of_as_many_seeds_as_were_asked_for_is_replaced_by_its_cells(seeds, command, tmp_path):
    command("run", "--seeds", str(seeds)), command("collect", "--seeds", str(seeds))
    path = tmp_path / "results" / "fig2_digits.csv"
    whole = path.read_text()
    path.write_text(whole[:30])
    last = sorted((tmp_path / "runs" / "fig2").glob(f"*_s{seeds - 1}.json"))[0].rename(tmp_path / "last.json")
    assert command("collect", "--seeds", str(seeds))[0] == 2 and path.read_text() == whole[:30]
    last.rename(tmp_path / "runs" / "fig2" / f"{json.loads(last.read_text())['key']}.json")
    assert command("collect", "--seeds", str(seeds))[0] == 0 and path.read_text() == whole


@pytest.mark.parametrize("room", [0, 1])
def test_a_disk_that_fills_up_in_mid_collect_leaves_the_old_pair_whole(room, command, tmp_path, monkeypatch):
    command("run", "--seeds", "1"), command("collect")
    pair = [tmp_path / "results" / f"fig2_digits.{part}" for part in ("csv", "json")]
    before = [path.read_bytes() for path in pair]
    command("run")
    real, written = os.fsync, []

    def full(number):
        if len(written) == room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(real(number))

    monkeypatch.setattr(os, "fsync", full)
    code, said = command("collect")
    assert code == 2 and str(pair[0].parent) in said and "free some space" in said and len(written) == room
    assert sorted(pair[0].parent.iterdir()) == pair and [path.read_bytes() for path in pair] == before
    assert len(runs.load_results("fig2_digits", pair[0].parent)) == 4
    monkeypatch.setattr(os, "fsync", real)
    assert command("status")[0] == 0 and command("collect")[0] == 0
    assert len(runs.load_results("fig2_digits", pair[0].parent)) == 12


def test_a_collect_that_is_stopped_between_its_two_files_is_made_good_by_the_next(command, tmp_path, monkeypatch):
    command("run", "--seeds", "1"), command("collect"), command("run")
    real, moved = os.replace, []

    def stopped(part, path):
        if moved:
            raise KeyboardInterrupt
        moved.append(real(part, path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopped)
        assert command("collect")[0] == 130
    with pytest.raises(ValueError, match="altered"):
        runs.load_results("fig2_digits", tmp_path / "results")
    assert "ALTERED" in command("status")[1] and command("collect")[0] == 0
    assert len(runs.load_results("fig2_digits", tmp_path / "results")) == 12


def test_a_finished_cell_that_may_not_be_read_is_named_and_kept(command, tmp_path, monkeypatch):
    """Its permissions alone would not stop root, as whom tests may run."""
    command("run")
    closed = tmp_path / "runs" / "fig2" / f"{DIGITS[0].key}.json"
    before, real = closed.read_text(), Path.read_text

    def refused(path, *how, **more):
        if path == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *how, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refused)
        for verb in ("status", "run", "collect"):
            code, said = command(verb)
            assert code == 2 and f"{closed} cannot be read (Permission denied): make it readable" in said
    assert closed.read_text() == before


@pytest.mark.parametrize("below", ["", "below", "below/it"])
def test_a_file_in_the_place_of_the_results_is_named(below, command, tmp_path):
    command("run", "--seeds", "1")
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "file" / below
    code, said = command("collect", f"--results={place}")
    assert code == 2 and f"folder {place} cannot be written" in said and "--results" in said
    assert "move away the file" in said and (tmp_path / "file").read_text() == "mine"


def test_code_marks_results_stale_and_prose_does_not(tmp_path, monkeypatch):
    plain = 'def f(x):\n    """One."""\n    return x + 1  # why\n'
    assert runs._syntax_hash(plain) == runs._syntax_hash(
        'def f(x):\n\n    """Another."""\n    return (x +\n        1)\n'
    )
    assert runs._syntax_hash(plain) != runs._syntax_hash(plain.replace("+ 1", "+ 2"))

    path = collected(tmp_path, DIGITS[:1])
    assert runs._verdict(path, FIG2).startswith("up to date")
    monkeypatch.setattr(runs, "code_digest", lambda figure: "other")
    monkeypatch.setattr(runner, "code_digest", lambda figure: "other")
    assert "other code" in runs._verdict(path, FIG2)
    assert runner.run(FIG2, DIGITS[:1], "cpu", tmp_path / "runs", tmp_path / "results").computed == 0
    assert runner.run(FIG2, DIGITS[:1], "cpu", tmp_path / "runs", tmp_path / "results", stale=True).computed == 1


def test_a_result_says_what_computed_it_when_the_code_has_changed_since(tmp_path, monkeypatch):
    """The run wrote down what its code was, and neither later code nor an earlier manifest takes its place."""
    path = collected(tmp_path, DIGITS[:1])
    first = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(first | {"modules_sha256": {code: {} for code in first["code"]}}))
    monkeypatch.setattr(runs, "code_hashes", lambda figure: {"network.py": "other"})
    runs.collect(FIG2, "digits", None, tmp_path / "runs", tmp_path / "results")
    assert json.loads(path.with_suffix(".json").read_text())["modules_sha256"] == first["modules_sha256"]


def test_the_paper_grid_is_the_papers():
    cells = cells_of(FIG2, "paper")
    assert {cell.d for cell in cells} == {25, 49, 100, 196, 289, 400, 484, 625, 784}
    assert {cell.variant for cell in cells} == {"published", "theory"}
    assert {cell.C0 for cell in cells} == {10.0}
    seeds = {m: {cell.seed for cell in cells if cell.m == m} for m in (1_000, 10_000, 100_000)}
    assert {m: len(s) for m, s in seeds.items()} == {1_000: 5, 10_000: 5, 100_000: 3}
    assert len(cells) == len({cell.key for cell in cells}) == 2 * 9 * (5 + 5 + 3)
    assert {cell.seed for cell in cells_of(FIG2, "paper", 7)} == set(range(7))


def test_a_cell_does_not_depend_on_the_others(tmp_path):
    """Alone, in any order and after others: the same numbers but for the time."""

    def numbers(cell):
        return measure_flips([cell], torch.device("cpu"))

    first = [numbers(cell) for cell in DIGITS[:3]]
    torch.manual_seed(7)
    assert [numbers(cell) for cell in reversed(DIGITS[:3])] == first[::-1]


# Where any cell of the paper's preset takes ten seconds and more: a stored preset on the digits.
SMALLER = {"fig7": "digits", "fig4_right": "digits", "start": "quick", "patience": "quick"}
CHEAP = {"scales": 4e6, "start": 4e6, "patience": 4e6}  # they count in other units: some seconds


@pytest.mark.parametrize("name", FIGURES)
def test_a_cheap_cell_of_each_stored_figure_is_what_it_was(name, mnist, tmp_path):
    """Recomputed here, a cell of each variant and width, into a copy of the results."""
    figure, preset, cost = figure_named(name), SMALLER.get(name, "paper"), CHEAP.get(name, 3e5)
    for suffix in (".csv", ".json"):
        shutil.copy(runs.RESULTS / (runs.stored_name(figure, preset) + suffix), tmp_path)
    keys = runs.verify(figure, preset, device="cpu", results=tmp_path, cost=cost)
    cells = cells_of(figure, preset)
    assert keys and len(keys) == len({(cell.variant, cell.m) for cell in cells if cell.cost <= cost})


def test_a_quick_preset_is_part_of_the_papers_where_both_are_on_mnist():
    for figure in FIGURES.values():
        quick, paper = set(cells_of(figure, "quick")), set(cells_of(figure))
        assert quick < paper or not any(cell.data == "mnist" for cell in quick)


def test_results_of_other_code_are_vouched_for_only_if_they_agree(tmp_path, monkeypatch):
    path = collected(tmp_path, DIGITS[:2])
    monkeypatch.setattr(runs, "code_digest", lambda figure: "other")
    assert runs._verdict(path, FIG2).startswith("computed by other code")
    assert len(runs.verify(FIG2, "digits", "cpu", tmp_path / "results")) == 2
    assert "the same numbers in 2 cells" in runs._verdict(path, FIG2)

    def louder(cells, device):
        return [{name: 1.02 * value for name, value in row.items()} for row in measure_flips(cells, device)]

    changed = dataclasses.replace(FIG2, measure=louder)
    with pytest.raises(ValueError, match="run fig2 --preset digits --stale`, and collect it"):
        runs.verify(changed, "digits", "cpu", tmp_path / "results")
    for columns in ({}, {"value": 1.0}):
        changed = dataclasses.replace(FIG2, measure=lambda cells, device, columns=columns: [columns for _ in cells])
        with pytest.raises(ValueError, match="other columns"):
            runs.verify(changed, "digits", "cpu", tmp_path / "results")
    with pytest.raises(ValueError, match="allow more"):  # none was tried: nothing is vouched for
        runs.verify(FIG2, "digits", "cpu", tmp_path / "results", cost=1)
    cells = {(cell.variant, cell.d): cell for cell in DIGITS}
    path = collected(tmp_path / "two", [cells["published", 16], cells["theory", 64]])
    small = cells["published", 16].cost
    assert runs.verify(FIG2, "digits", "cpu", path.parent, cost=small) == [cells["published", 16].key]
    assert "in 1 cell; not tried: 1 of 2 variants and widths" in runs._verdict(path, FIG2)


def test_what_older_code_left_in_the_runs_folder_does_not_replace_todays_result(tmp_path, monkeypatch):
    def told(value):
        return lambda cells, device: [{"value": value} for _ in cells]

    places = tmp_path / "runs", tmp_path / "results"
    for value, folder in ((1, places[0]), (2, tmp_path / "elsewhere")):
        figure = dataclasses.replace(FIG2, measure=told(value), modules=())
        monkeypatch.setattr(runs, "code_hashes", lambda figure, value=value: {"told": str(value)})
        runner.run(figure, DIGITS[:2], "cpu", folder, tmp_path / "nowhere")
    path = runs.collect(figure, "digits", None, tmp_path / "elsewhere", places[1])
    assert runner.run(figure, DIGITS[:2], "cpu", *places, stale=True).computed == 0
    runs.collect(figure, "digits", None, *places)
    assert runs._verdict(path, figure).startswith("up to date")
    assert set(runs.load_results("fig2_digits", places[1]).value) == {2}


def test_cells_whose_columns_differ_are_not_collected(tmp_path):
    for cell, columns in zip(DIGITS, ({"value": 1.0}, {"value": 1.0, "new": 2.0}), strict=False):
        figure = dataclasses.replace(FIG2, measure=lambda cells, device, columns=columns: [columns], modules=())
        runner.run(figure, [cell], "cpu", tmp_path / "runs", tmp_path / "results")
    with pytest.raises(ValueError, match="different columns: .* run fig2 --preset digits --stale"):
        runs.collect(figure, "digits", None, tmp_path / "runs", tmp_path / "results")


@pytest.mark.parametrize(
    "figure", {figure.measure: figure for figure in FIGURES.values()}.values(), ids=lambda f: f.name
)
def test_whatever_a_measurement_runs_is_in_its_hash(figure):
    cell = min((cell for preset in figure.presets for cell in cells_of(figure, preset)), key=lambda cell: cell.cost)
    entered = set()

    def watch(frame, event, _):
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("lazy_helpers."):
            entered.add((module.removeprefix("lazy_helpers."), frame.f_code.co_qualname))

    sys.setprofile(watch)
    try:
        figure.measure([cell], torch.device("cpu"))
    finally:
        sys.setprofile(None)
    itself = figure.measure.__module__.removeprefix("lazy_helpers."), figure.measure.__name__
    assert itself in entered
    hashed = {*runs.called(figure.measure, figure.modules), ".".join(itself)}
    for module, function in entered:
        outermost = f"{module}.{function}".split(".<locals>")[0]
        assert module in {*figure.modules, "checks"} or {outermost, outermost.rpartition(".")[0]} & hashed


def test_a_constant_or_a_helper_of_a_measurement_outdates_its_results(monkeypatch):
    digest = runs.code_digest(FIG2)
    with monkeypatch.context() as patch:
        patch.setattr(measurements, "LR", 0.2)
        assert runs.code_digest(FIG2) != digest
    with monkeypatch.context() as patch:
        patch.setattr(measurements, "initial", measurements.drawn)  # called by what the measurement calls
        assert runs.code_digest(FIG2) != digest
    with monkeypatch.context() as patch:
        patch.setattr(measurements, "CHECKED", 7)  # of another measurement
        assert runs.code_digest(FIG2) == digest
    beside = figure_named("output_bias")
    digest = runs.code_digest(beside)
    for name, value in (("EPOCHS", 1), ("SHUFFLES", 1), ("train_beside", measurements.drawn)):
        with monkeypatch.context() as patch:
            patch.setattr(output_bias, name, value)
            assert runs.code_digest(beside) != digest


LIMIT = 3


def helper(x, limit=LIMIT):
    return x


@functools.cache
def remembered(x):
    return helper(x)


class Holder:
    def hold(self, x: Cell) -> Cell:
        return remembered(x)


def test_names_are_followed_through_defaults_classes_and_caches_and_not_through_annotations():
    assert runs._names(Holder) == {"remembered", "x"}
    assert runs._names(remembered) == {"functools", "helper", "x"} and runs._names(helper) == {"LIMIT", "x"}


@pytest.mark.parametrize("name", FIGURES)
def test_stored_results_bear_their_hashes_and_name_what_computed_them(name):
    table = runs.load_results(name)
    manifest = json.loads((runs.RESULTS / f"{name}.json").read_text())
    assert manifest["cells"] == len(table) == table.key.nunique()
    assert manifest["versions"]["torch"] and manifest["devices"] and manifest["wall_seconds"] > 0
    assert set(manifest["modules_sha256"]) == set(table.code)
    for code, hashes in manifest["modules_sha256"].items():
        figure = figure_named(name)
        today = {f"{module}.py" for module in figure.modules} | {"measurement", "variants"}
        today |= set(runs.called(figure.measure, figure.modules))
        core = {"attack.py", "dynamics.py"} & today  # every measurement rests on the one or the other
        assert core and core | {"measurement", "variants"} <= set(hashes) <= today  # older code had fewer modules
        assert runs.digest_of(hashes) == code  # the modules named are those whose digest the cells bear
    assert set(manifest["code"]) == set(table.code)
    if set(table.data) == {"sphere"}:  # drawn points
        assert manifest["data_sha256"] == {}
        return
    assert set(manifest["data_sha256"]["mnist"]) == {
        f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    }
    # A grid that is not whole says what is missing; nothing stands for it.
    cells = {cell.key for cell in cells_of(figure_named(name))}
    assert set(table.key) | set(manifest["missing"]) == cells and not set(table.key) & set(manifest["missing"])
    if name in ("fig2", "differences"):
        assert (table.not_found == 0).all() and table.left.all() and not manifest["missing"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["run", "fig9"], "choose one of fig2"),
        (["run", "fig2", "--preset", "huge"], "choose one of quick"),
        (["run", "fig2", "--seeds", "0"], "--seeds 3"),
        (["run", "fig2", "--device", "tpu"], "device"),
        (["run", "fig2", "--device", "tpu", "--workers", "2"], "device"),
        (["run", "fig2", "--workers", "0"], "workers=1"),
        (["run", "fig2", "--widths", "1000", "77"], "choose widths among 1000, 10000, 100000"),
        (["collect", "fig2", "--preset", "digits"], "run it first"),
    ],
)
def test_a_wrong_command_gets_one_clear_sentence(arguments, says, tmp_path, capsys):
    places = [f"--runs={tmp_path / 'runs'}", f"--results={tmp_path / 'results'}"]
    assert command_line.main([*arguments, *places]) == 2
    out, err = capsys.readouterr()
    assert says in err and err.count("\n") == 1 and not out


def test_a_file_in_the_folders_place_is_named(tmp_path, capsys):
    (tmp_path / "runs").write_text("")
    assert command_line.main(["run", "fig2", "--preset", "digits", f"--runs={tmp_path / 'runs'}"]) == 2
    assert "--runs" in capsys.readouterr().err


def test_the_help_names_the_presets_that_figures_have(capsys):
    with pytest.raises(SystemExit, match="0"):
        command_line.main(["run", "--help"])
    told = re.search(r"--preset PRESET (.*?);", " ".join(capsys.readouterr().out.split()))[1].split(", ")
    assert "whole" in told and len(told) == len(set(told))
    assert set(told) == {preset for figure in FIGURES.values() for preset in figure.presets}


def test_list_and_status_name_every_figure(tmp_path, capsys):
    assert command_line.main(["list"]) == 0 and command_line.main(["status", f"--runs={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert all(out.count(name) >= 2 for name in FIGURES)


def test_status_of_one_figure_leaves_the_others_out(capsys):
    """With every figure's result stored, as in a clone."""
    assert command_line.main(["status", "fig2"]) == 0
    out = capsys.readouterr().out
    assert "fig2.csv" in out and "example.csv" in out and "differences" not in out


def test_the_books_figures_were_drawn_from_the_results_that_are_stored():
    seen = set()
    for notebook in (runs.ROOT / "book").glob("*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        source = "".join(line for cell in cells if cell["cell_type"] == "code" for line in cell["source"])
        assert "read_csv" not in source  # results come through load_results, which checks the hash
        for name in re.findall(r'load_results\("(\w+)"\)', source):
            runs.load_results(name)
        for name, digest in re.findall(r"(\w+)\.csv \(SHA-256 (\w+)\)", notebook.read_text()):
            assert json.loads((runs.RESULTS / f"{name}.json").read_text())["csv_sha256"].startswith(digest), notebook
            seen.add(name)
    assert seen >= set(FIGURES)
