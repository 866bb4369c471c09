"""The files of the experiments: finished cells, collected into a CSV beside its manifest; their hashes; their status.

A finished cell is one small JSON file in ``runs/<figure>/``, written to a temporary name and moved, so it is there whole
or not at all (:mod:`lazy_helpers.runner` writes them). A cell that failed has its traceback in ``runs/<figure>/failed/``.
A cell that a collected CSV already holds counts as finished, so a fresh clone goes on where another stopped. A CSV that does
not bear the hash in its manifest counts for nothing.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import dataclasses
import errno
import hashlib
import inspect
import io
import json
import math
import os
import platform
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

import filelock
import numpy as np

from . import data
from .cells import Cell
from .checks import device_named
from .experiments import Figure, cells_of, figure_named

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs"
RESULTS = ROOT / "book" / "results"
# How far a recomputed cell may differ from a stored one, where a share of 0.005 is not the measure.
TOLERANCES = {
    "steps": 2, "epochs": 0.02, "misclassified": 2, "test_accuracy": 1e-3, "robust_error": 1e-3,
    "beyond_search": 1, "relative_perturbation_max": 0.05,
    "change": 0.02, "difference": 0.02, "flip": 0.02, "residual": 0.02,  # best of a search
}  # fmt: skip


def collect(
    figure: Figure, preset: str = "paper", seeds: int | None = None, runs: Path = RUNS, results: Path = RESULTS
) -> Path:
    """Write the finished cells of a preset to ``<results>/<name>.csv`` beside its manifest; returns the CSV's path.

    Where cells are missing the manifest says which. Raises ``ValueError`` where none is finished or their columns differ, and
    as :func:`finished_rows`.
    """
    cells = cells_of(figure, preset, seeds)
    rows = finished_rows(figure, runs, results)
    done = [rows[cell.key] for cell in cells if cell.key in rows]
    if not done:
        raise ValueError(
            f"{figure.name} has no finished cell in {runs / figure.name}: run it first with `python -m lazy_helpers run {figure.name} --preset {preset}`."
        )
    other = next((row["key"] for row in done if row.keys() != done[0].keys()), None)
    if other:
        raise ValueError(
            f"{done[0]['key']} and {other} of {figure.name} were finished by different code and have different columns: "
            f"recompute the older with `python -m lazy_helpers run {figure.name} --preset {preset} --stale`."
        )
    path = results / f"{stored_name(figure, preset)}.csv"
    known = {code_digest(figure): code_hashes(figure)}  # and what runs and an earlier manifest say of other code
    for each in (*map(figure_named, figure.kin), figure):
        files = (runs / each.name / "code").glob("[!.]*.json")
        known |= {file.stem: hashes for file in files if (hashes := _object(file))}
        earlier = _manifest(results / f"{stored_name(each, preset)}.csv").get("modules_sha256", {})
        known |= {code: hashes for code, hashes in earlier.items() if hashes}
    manifest = {
        "figure": figure.name,
        "title": figure.title,
        "preset": preset,
        "cells": len(done),
        "missing": [cell.key for cell in cells if cell.key not in rows],
        "configuration": {
            "axes": {
                axis: sorted({row[axis] for row in done})
                for axis in ("variant", "d", "m", "C0", "data", "eps", "scale", "ratio", "rate")
                if axis in done[0]
            },
            "seeds": {
                str(m): sorted({row["seed"] for row in done if row["m"] == m})
                for m in sorted({row["m"] for row in done})
            },
            "variants": {
                name: dataclasses.asdict(figure.variants[name]) for name in sorted({row["variant"] for row in done})
            },
        },
        "code": sorted({row["code"] for row in done}),
        "modules_sha256": {code: known.get(code, {}) for code in sorted({row["code"] for row in done})},
        "data_sha256": {name: data.fingerprint(name) for name in sorted({row["data"] for row in done} - {"sphere"})},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": sorted({row["torch"] for row in done}),
        },
        "devices": sorted({row["device"] for row in done}),
        "wall_seconds": round(sum(row["seconds"] for row in done)),
    }
    return store(path, done, manifest)


def store(path: Path, rows: list[dict], manifest: dict) -> Path:
    """Write rows as a CSV and beside it the manifest, which bears the CSV's hash."""
    make_folder(path.parent)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: f"{value:.9g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
    )
    table = text.getvalue()
    full = {"csv": path.name, "csv_sha256": _sha256(table.encode()), **manifest}
    write_together({path: table, path.with_suffix(".json"): json.dumps(full, indent=1) + "\n"})
    return path


def describe(name: str, results: Path = RESULTS) -> str:
    """One line on a stored result, for the head of a figure: file, hash, cells, devices, time."""
    manifest = load_manifest(name, results)
    line = f"{manifest['csv']} (SHA-256 {manifest['csv_sha256'][:12]})"
    if "cells" in manifest:
        missing = f", {len(manifest['missing'])} not run" if manifest["missing"] else ""
        hours = manifest["wall_seconds"] / 3600
        devices = ", ".join(sorted({device.split(" (")[0] for device in manifest["devices"]}))  # threads left out
        line += f": {manifest['cells']} cells{missing}, {hours:.1f} h on {devices}"
    return line


def load_manifest(name: str, results: Path = RESULTS) -> dict:
    """The manifest of a stored result, once its CSV is found to bear the hash in it; errors as :func:`load_results`."""
    _verified(results / f"{name}.csv")
    return _manifest(results / f"{name}.csv")


def verify(
    figure: Figure, preset: str = "paper", device: str = "auto", results: Path = RESULTS, cost: float = 1e7
) -> list[str]:
    """Recompute stored cells with today's code and compare: the cheapest of each variant and width up to ``cost``.

    Where all agree, the manifest says so, and the result counts as up to date though other code computed it: a change
    that leaves the numbers alone need not repeat hours of work. Returns the cells' keys. Raises ``ValueError`` for a cell
    that differs, and where every cell costs more. SGD in float32 on another processor rounds differently, hence the
    tolerances.
    """
    again = f"`python -m lazy_helpers run {figure.name} --preset {preset} --stale`, and collect it"
    path = results / f"{stored_name(figure, preset)}.csv"
    stored = {row["key"]: row for row in map(_typed, csv.DictReader(io.StringIO(_verified(path))))}
    held = [cell for cell in cells_of(figure, preset) if cell.key in stored]
    cheapest = {}
    for cell in held:
        if cell.cost <= cost:
            cheapest.setdefault((cell.variant, cell.m), cell)
    if not cheapest:
        raise ValueError(
            f"every stored cell of {figure.name} costs more than {cost:g}: allow more, or recompute with {again}."
        )
    for cell in cheapest.values():
        (new,), old = figure.measure([cell], device_named(device)), stored[cell.key]
        if not set(old) - set(vars(cell)) - {"key", "seconds", "device", "torch", "code"} == set(new):
            raise ValueError(f"{cell.key} has other columns with today's code than are stored: recompute with {again}.")
        for name, value in new.items():
            near = TOLERANCES.get(name, 5e-3 * abs(old[name]))
            same = value == old[name] or (math.isnan(value) and math.isnan(old[name]))  # infinite, or none
            if not (same or abs(value - old[name]) <= near):
                raise ValueError(
                    f"{cell.key} gives {name} = {value:.6g} with today's code and {old[name]:.6g} is stored: "
                    f"recompute with {again}."
                )
    keys = [cell.key for cell in cheapest.values()]
    manifest = _manifest(path)
    manifest["verified"] = {
        "code": code_digest(figure),
        "modules_sha256": code_hashes(figure),
        "cells": keys,
        "untried": len({(cell.variant, cell.m) for cell in held}) - len(cheapest),
    }
    write_whole(path.with_suffix(".json"), json.dumps(manifest, indent=1) + "\n")
    return keys


def status(figures: Iterable[Figure], runs: Path = RUNS, results: Path = RESULTS) -> list[str]:
    """A line for each figure and preset, for each failed cell, and for each stored result that belongs to no figure."""
    lines, shown = [], set()
    for figure in figures:
        rows, failed = finished_rows(figure, runs, results, strict=False), failed_rows(figure, runs)
        for preset in figure.presets:
            cells = cells_of(figure, preset)
            done, todo = ([cell for cell in cells if (cell.key in rows) == whether] for whether in (True, False))
            running = [cell for cell in todo if is_locked(lock_file(runs, figure, cell.key))]
            wrong = [cell for cell in todo if cell.key in failed and cell not in running]
            line = f"{figure.name:<14}{preset:<8}{len(done):>4} of {len(cells)} cells"
            if todo and (done or running or wrong):
                left = len(todo) - len(running) - len(wrong)
                line += f", {len(running)} running, {len(wrong)} failed, {left} left"
            if done:
                line += f"; {_span(sum(rows[cell.key]['seconds'] for cell in done))} spent"
                line += f", about {_span(_seconds(figure, todo, rows))} left" if todo else ""
            path = results / f"{stored_name(figure, preset)}.csv"
            if path.exists():
                line += f"  {path.name}: {_verdict(path, figure)}"
                shown.add(path)
            lines.append(line if done or running or wrong or path.exists() else line + "  not run")
            for cell in wrong:
                last = failed[cell.key]["traceback"].strip().splitlines()[-1]
                lines.append(f"{'':<14}failed  {cell.key} after {_span(failed[cell.key]['seconds'])}: {last}")
    for path in sorted(results.glob("*.csv")):
        if path not in shown and "figure" not in _manifest(path):
            lines.append(f"{path.name}: {_verdict(path)}")
    return lines


def _seconds(figure: Figure, todo: list[Cell], rows: dict[str, dict]) -> float:
    """What cells will take, from what finished ones took per unit of cost: those of the same C0 and width where there are
    any, else of the same C0, for it decides how long training lasts, else of the same width."""
    cells = {cell.key: cell for preset in figure.presets for cell in cells_of(figure, preset)}
    done = [(cells[key], row["seconds"]) for key, row in rows.items() if key in cells]

    def kind(cell: Cell) -> tuple:
        return getattr(cell, "C0", None), cell.m

    def rate(C0: float | None, m: int) -> float:
        likeness = [2 * (kind(cell)[0] == C0) + (cell.m == m) for cell, _ in done]
        alike = [pair for pair, like in zip(done, likeness, strict=True) if like == max(likeness)]
        return sum(seconds for _, seconds in alike) / sum(cell.cost for cell, _ in alike)

    rates = {one: rate(*one) for one in set(map(kind, todo))}
    return sum(cell.cost * rates[kind(cell)] for cell in todo)


def _span(seconds: float) -> str:
    """A time as one reads it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def load_results(name: str, results: Path = RESULTS):
    """A collected result as a pandas DataFrame, once its CSV is found to bear the hash in its manifest.

    Raises ``ValueError`` for a result that is not there or was altered.
    """
    import pandas as pd  # only readers of results need it

    return pd.read_csv(io.StringIO(_verified(results / f"{name}.csv")))


def stored_name(figure: Figure, preset: str) -> str:
    """A collected result's name: the paper preset bears the figure's."""
    return figure.name if preset == "paper" else f"{figure.name}_{preset}"


def code_digest(figure: Figure) -> str:
    """One short hash of all that a cell's numbers depend on."""
    return digest_of(code_hashes(figure))


def todays_codes(figure: Figure) -> set[str]:
    """The digests that today's code gives a figure's cells: its own, and its kin's for those taken from them."""
    return {code_digest(each) for each in (figure, *map(figure_named, figure.kin))}


def digest_of(hashes: dict[str, str]) -> str:
    """The short hash that stands for a set of modules."""
    return _sha256(json.dumps(hashes, sort_keys=True).encode())[:16]


def code_hashes(figure: Figure) -> dict[str, str]:
    """What a cell's numbers depend on: modules, the measurement and what else it calls, the setups of the variants that occur."""
    variants = sorted({cell.variant for preset in figure.presets for cell in cells_of(figure, preset)})
    return (
        module_hashes(figure.modules)
        | {
            "measurement": _code_hash(figure.measure),
            "variants": _sha256(repr([(name, figure.variants[name]) for name in variants]).encode()),
        }
        | called(figure.measure, figure.modules)
    )


def called(measure: Callable, modules: Iterable[str]) -> dict[str, str]:
    """What a measurement takes from this package beyond those modules, by ``module.name``: functions and classes by hash,
    numbers, texts and tuples as they are.

    Names are followed from function to function, so that a step which moves out of a measurement still outdates results.
    Checks of arguments are left out, for they change no number, and tables of variants, which are hashed by themselves.
    """
    package, found, left = f"{__package__}.", {}, [measure]
    inside = {package + name for name in (*modules, "checks")}
    while left:
        code = left.pop()
        if code.__module__ in inside:
            continue
        for name in sorted(_names(code)):
            value = inspect.unwrap(vars(sys.modules[code.__module__]).get(name))
            if isinstance(value, (int, float, str, tuple)):
                found[f"{code.__module__.removeprefix(package)}.{name}"] = repr(value)
            elif (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__.startswith(package):
                where = f"{value.__module__.removeprefix(package)}.{value.__qualname__}"
                if value.__module__ not in inside and value is not measure and where not in found:
                    found[where] = _code_hash(value)
                    left.append(value)
    return found


def modules_behind(figure: Figure) -> list[str]:
    """All modules of this package that a cell's numbers depend on, whole: what two checkouts must share to work together."""
    spoken_of = [figure.measure.__module__.removeprefix(f"{__package__}."), *called(figure.measure, figure.modules)]
    ours = {path.stem for path in Path(__file__).parent.glob("*.py")}
    return sorted({*figure.modules, "cells"} | ours.intersection(name.split(".")[0] for name in spoken_of))


def _names(code: Callable) -> set[str]:
    """The names that a function or class speaks of, but for its annotations."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    for node in ast.walk(tree):
        for field in {"annotation", "returns"} & set(node._fields):
            setattr(node, field, None)
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _code_hash(code: Callable) -> str:
    return _syntax_hash(textwrap.dedent(inspect.getsource(code)))


def module_hashes(modules: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the syntax tree of modules of this package: prose and layout do not outdate a result."""
    folder = Path(__file__).parent
    return {f"{name}.py": _syntax_hash(folder.joinpath(f"{name}.py").read_text()) for name in modules}


def _syntax_hash(source: str) -> str:
    """SHA-256 of the code without comments, docstrings and layout. ``ast.dump`` differs between Python versions."""

    def outline(node):
        if isinstance(node, list):
            return [outline(part) for part in node]
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        fields = {name: outline(value) for name, value in ast.iter_fields(node) if value not in (None, [])}
        return {type(node).__name__: fields}

    return _sha256(json.dumps(outline(ast.parse(source))).encode())


def finished_rows(figure: Figure, runs: Path, results: Path, strict: bool = True) -> dict[str, dict]:
    """Every finished cell of a figure by its key: its kin's, over them its own collected ones, and those in the runs folder.

    A cell in the runs folder gives way to a collected one only where that alone is of today's code.
    An altered CSV is passed over. Raises ``ValueError`` if ``strict`` and cells that it held would be lost with it.
    """
    rows, altered = {}, []
    for name in figure.kin:
        rows |= finished_rows(figure_named(name), runs, results, strict=False)
    for preset in figure.presets:
        path = results / f"{stored_name(figure, preset)}.csv"
        if path.exists():
            raw = path.read_bytes()
            flaw = _flaw(path, raw)
            if flaw:
                altered.append((preset, path, flaw))
            else:
                rows |= {row["key"]: row for row in map(_typed, csv.DictReader(io.StringIO(raw.decode())))}
    today = None
    for file in sorted((runs / figure.name).glob("*.json")):
        row = read_row(file)
        if row is None:
            continue
        stored = rows.get(row["key"], row)
        if stored["code"] != row["code"]:
            today = today or todays_codes(figure)
            if stored["code"] in today and row["code"] not in today:
                continue  # left over from older code than that of the result beside it
        rows[row["key"]] = row
    for preset, path, flaw in altered if strict else ():
        if not _replaceable(figure, preset, path, rows):
            raise ValueError(
                f"{path} {flaw}, and not all its cells are in {runs / figure.name}: restore both with `git checkout`, or "
                "move both away to have these cells computed again."
            )
    return rows


def _replaceable(figure: Figure, preset: str, path: Path, rows: dict[str, dict]) -> bool:
    """Whether every cell that an altered CSV held is among the rows, as far as the keys in it and its manifest tell."""
    manifest = _manifest(path)
    seeds = manifest.get("configuration", {}).get("seeds", {})
    text = path.read_text(encoding="utf-8", errors="replace")
    named = set(re.findall(r"^([^,\s]+_s\d+[^,\s]*),", text, re.MULTILINE))  # a seed is in every key

    def held(count: int | None) -> set[str]:
        """The keys, if ``count`` seeds were asked for."""
        cells = cells_of(figure, preset, count)
        keys = {cell.key for cell in cells if cell.seed in seeds.get(str(cell.m), ())}
        return keys - set(manifest.get("missing", ())) | named

    count = max((1 + seed for some in seeds.values() for seed in some), default=None)
    # fewer than the manifest's cells: the names of some are gone
    return any(manifest.get("cells", 1) <= len(keys) and keys <= rows.keys() for keys in map(held, {None, count}))


def _typed(row: dict[str, str]) -> dict:
    """Numbers as numbers: what ``json`` would have given back."""

    def parse(value: str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                pass
        return {"True": True, "False": False}.get(value, value)

    text = ("key", "variant", "data", "device", "torch", "code")
    return {name: value if name in text else parse(value) for name, value in row.items()}


def _verified(path: Path) -> str:
    """The text of a collected CSV that bears its manifest's hash."""
    if not path.exists() or not path.with_suffix(".json").exists():
        raise ValueError(
            f"{path.name} or its manifest is not in {path.parent}: run the figure and collect it, see `python -m lazy_helpers list`."
        )
    raw = path.read_bytes()
    flaw = _flaw(path, raw)
    if flaw:
        raise ValueError(f"{path} {flaw}: restore both with `git checkout` or collect it again.")
    return raw.decode()


def _flaw(path: Path, raw: bytes) -> str:
    """What is wrong with a collected CSV of these bytes; nothing where it bears its manifest's hash."""
    digest = _manifest(path).get("csv_sha256")
    if digest is None:
        return f"has no manifest, for {path.stem}.json is missing or broken"
    return "" if digest == _sha256(raw) else "does not bear the SHA-256 in its manifest, so it was altered"


def _verdict(path: Path, figure: Figure | None = None) -> str:
    """Whether a stored result is whole, and whether today's code is the one that computed it."""
    manifest = _manifest(path)
    if _flaw(path, path.read_bytes()):
        return "ALTERED, " + ("its hash is not the manifest's" if manifest else "its manifest is missing or broken")
    checked = ""
    if figure:
        fresh, verified = set(manifest["code"]) <= todays_codes(figure), manifest.get("verified", {})
        if not fresh and verified.get("code") == code_digest(figure):
            fresh = True
            tried, untried = len(verified["cells"]), verified["untried"]
            left = f"; not tried: {untried} of {tried + untried} variants and widths" if untried else ""
            checked = f" (today's code gives the same numbers in {tried} cell{'s' * (tried > 1)}{left})"
    elif "modules_sha256" in manifest:
        fresh = manifest["modules_sha256"] == module_hashes(name[:-3] for name in manifest["modules_sha256"])
    else:
        return f"whole; not computed here, from {manifest.get('source', 'a source it does not name')}"
    missing = f", {len(manifest['missing'])} cells missing" if manifest.get("missing") else ""
    return ("up to date" if fresh else "computed by other code than today's") + checked + missing


def row_file(runs: Path, figure: Figure, key: str) -> Path:
    """Where a finished cell lies."""
    return runs / figure.name / f"{key}.json"


def failed_file(runs: Path, figure: Figure, key: str) -> Path:
    """Where a failed cell's traceback lies."""
    return runs / figure.name / "failed" / f"{key}.json"


def lock_file(runs: Path, figure: Figure, key: str) -> Path:
    """What a process holds while it works on a cell."""
    return runs / figure.name / "locks" / f"{key}.lock"


def code_file(runs: Path, figure: Figure, code: str) -> Path:
    """What the digest in a finished cell stands for."""
    return runs / figure.name / "code" / f"{code}.json"


def is_locked(file: Path) -> bool:
    """Whether a process holds the lock now; the system frees the locks of a process that died."""
    if not file.exists():
        return False
    try:
        with filelock.FileLock(file, timeout=0):
            return False
    except filelock.Timeout:
        return True


def failed_rows(figure: Figure, runs: Path) -> dict[str, dict]:
    """The records of a figure's failed cells by key: traceback, time, device."""
    rows = map(read_row, sorted((runs / figure.name / "failed").glob("*.json")))
    return {row["key"]: row for row in rows if row is not None}


def read_row(file: Path) -> dict | None:
    """A finished cell, or ``None`` for one that is missing or not whole."""
    row = _object(file)
    return row if row.get("key") == file.stem and "code" in row else None


def _manifest(path: Path) -> dict:
    """What lies beside a collected CSV."""
    return _object(path.with_suffix(".json"))


def _object(file: Path) -> dict:
    """The object in a JSON file; empty where the file is missing or not whole. One that cannot be read is no missing one."""
    try:
        value = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_whole(path: Path, text: str) -> None:
    """All or nothing: a temporary file in the same folder, flushed to disk, then moved. Raises as :func:`writing`."""
    write_together({path: text})


def write_together(texts: dict[Path, str]) -> None:
    """Files as :func:`write_whole` does it, all of them on disk before the first is moved: one that finds no room stops all."""
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in texts}
    try:
        for path, part in parts.items():
            with writing(path.parent), open(part, "w", encoding="utf-8", newline="\n") as file:
                file.write(texts[path])
                file.flush()
                os.fsync(file.fileno())
        for path, part in parts.items():
            with writing(path.parent):
                os.replace(part, path)
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """The folder and those above it, where they are missing. Raises as :func:`writing`."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writing(folder: Path):
    """Turns the system's refusal to write into a ``ValueError`` that names the folder and the remedy."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOSPC: "free some space",
            errno.EDQUOT: "free some space",
            errno.EEXIST: "move away the file in its place",
            errno.ENOTDIR: "move away the file that bears a folder's name",
        }.get(error.errno, "make it writable")
        raise ValueError(
            f"the folder {folder} cannot be written ({error.strerror}): {remedy}, or choose another with --runs or "
            "--results; every cell that is finished is kept."
        ) from None


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
