"""Running a grid cell by cell so that nothing finished is lost, and collecting it into a CSV beside its manifest.

A finished cell is one small JSON file in ``runs/<figure>/``, written to a temporary name and moved, so it is there whole
or not at all. A process that works on a cell holds a lock on it, which the system frees when the process dies; others
pass it by. A cell that a collected CSV already holds counts as finished, so a fresh clone goes on where another stopped.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import hashlib
import inspect
import io
import json
import math
import os
import platform
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path

import filelock
import numpy as np
import torch
from tqdm.auto import tqdm

from . import data
from .checks import check_device
from .experiments import VARIANTS, Cell, Figure, cells_of

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs"
RESULTS = ROOT / "book" / "results"
# How far a recomputed cell may differ from a stored one, where a share of 0.005 is not the measure.
TOLERANCES = {
    "steps": 2, "epochs": 0.02, "misclassified": 2, "test_accuracy": 1e-3, "robust_error": 1e-3,
    "beyond_search": 1, "relative_perturbation_max": 0.05,
    "change": 0.02, "difference": 0.02, "flip": 0.02, "residual": 0.02,  # best of a search
}  # fmt: skip


def run(
    figure: Figure,
    cells: Iterable[Cell],
    device: str = "auto",
    runs: Path = RUNS,
    results: Path = RESULTS,
    stale: bool = False,
) -> int:
    """Compute the cells that are not finished; returns how many were computed here.

    A cell finished by other code than today's counts as finished unless ``stale`` is set.
    """
    chosen = _chosen(device)
    folder = runs / figure.name
    _make(folder / "locks")
    code = code_digest(figure)
    finished = {key for key, row in _rows(figure, runs, results).items() if not stale or row["code"] == code}
    todo = [cell for cell in cells if cell.key not in finished]
    computed = 0
    bar = tqdm(
        total=sum(cell.cost for cell in todo),
        desc=figure.name,
        bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} < {remaining} {postfix}",
    )
    with bar:
        for cell in todo:
            bar.set_postfix_str(cell.key)
            try:
                with filelock.FileLock(folder / "locks" / f"{cell.key}.lock", timeout=0):
                    earlier = _read(_file(runs, figure, cell.key))  # another process may have finished it meanwhile
                    if earlier is None or (stale and earlier["code"] != code):
                        _write(
                            _file(runs, figure, cell.key), json.dumps(_compute(figure, cell, chosen, code), indent=1)
                        )
                        computed += 1
            except filelock.Timeout:
                pass  # another process is at it
            bar.update(cell.cost)
    return computed


def _chosen(device: str) -> torch.device:
    return check_device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def _compute(figure: Figure, cell: Cell, device: torch.device, code: str) -> dict:
    start = time.perf_counter()
    values = figure.measure(cell, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
    record = {
        "seconds": round(time.perf_counter() - start, 2),
        "device": name,
        "torch": torch.__version__,
        "code": code,
    }
    return {"key": cell.key, **dataclasses.asdict(cell), **values, **record}


def collect(
    figure: Figure, preset: str = "paper", seeds: int | None = None, runs: Path = RUNS, results: Path = RESULTS
) -> Path:
    """Write the finished cells of a preset to ``<results>/<name>.csv`` beside its manifest; returns the CSV's path.

    Where cells are missing the manifest says which. Raises ``ValueError`` where none is finished.
    """
    cells = cells_of(figure, preset, seeds)
    rows = _rows(figure, runs, results)
    done = [rows[cell.key] for cell in cells if cell.key in rows]
    if not done:
        raise ValueError(
            f"{figure.name} has no finished cell in {runs / figure.name}: run it first with `python -m lazy_helpers run {figure.name} --preset {preset}`."
        )
    path = results / f"{stored_name(figure, preset)}.csv"
    known = {code_digest(figure): code_hashes(figure)}  # and what an earlier manifest says of other code
    if path.with_suffix(".json").exists():
        known |= json.loads(path.with_suffix(".json").read_text())["modules_sha256"]
    manifest = {
        "figure": figure.name,
        "title": figure.title,
        "preset": preset,
        "cells": len(done),
        "missing": [cell.key for cell in cells if cell.key not in rows],
        "configuration": {
            "axes": {axis: sorted({row[axis] for row in done}) for axis in ("variant", "d", "m", "C0", "data")},
            "seeds": {
                str(m): sorted({row["seed"] for row in done if row["m"] == m})
                for m in sorted({row["m"] for row in done})
            },
            "variants": {name: dataclasses.asdict(VARIANTS[name]) for name in sorted({row["variant"] for row in done})},
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
    _make(path.parent)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: f"{value:.9g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
    )
    _write(path, text.getvalue())
    full = {"csv": path.name, "csv_sha256": _sha256(path.read_bytes()), **manifest}
    _write(path.with_suffix(".json"), json.dumps(full, indent=1) + "\n")
    return path


def describe(name: str, results: Path = RESULTS) -> str:
    """One line on a stored result, for the head of a figure: file, hash, cells, devices, time."""
    manifest = load_manifest(name, results)
    line = f"{manifest['csv']} (SHA-256 {manifest['csv_sha256'][:12]})"
    if "cells" in manifest:
        missing = f", {len(manifest['missing'])} not run" if manifest["missing"] else ""
        hours = manifest["wall_seconds"] / 3600
        line += f": {manifest['cells']} cells{missing}, {hours:.1f} h on {', '.join(manifest['devices'])}"
    return line


def load_manifest(name: str, results: Path = RESULTS) -> dict:
    """The manifest of a stored result, once its CSV is found to bear the hash in it; errors as :func:`load_results`."""
    _verified(results / f"{name}.csv")
    return json.loads((results / f"{name}.json").read_text())


def verify(
    figure: Figure, preset: str = "paper", device: str = "auto", results: Path = RESULTS, cost: float = 1e7
) -> list[str]:
    """Recompute stored cells with today's code and compare: the cheapest of each variant and width up to ``cost``.

    Where all agree, the manifest says so, and the result counts as up to date though other code computed it: a change
    that leaves the numbers alone need not repeat hours of work. Returns the cells' keys. Raises ``ValueError`` for a cell
    that differs. SGD in float32 on another processor rounds differently, hence the tolerances.
    """
    path = results / f"{stored_name(figure, preset)}.csv"
    stored = {row["key"]: row for row in map(_typed, csv.DictReader(io.StringIO(_verified(path))))}
    cheapest = {}
    for cell in cells_of(figure, preset):
        if cell.key in stored and cell.cost <= cost:
            cheapest.setdefault((cell.variant, cell.m), cell)
    for cell in cheapest.values():
        new, old = figure.measure(cell, _chosen(device)), stored[cell.key]
        for name, value in new.items():
            near = TOLERANCES.get(name, 5e-3 * abs(old[name]))
            same = value == old[name] or (math.isnan(value) and math.isnan(old[name]))  # infinite, or none
            if not (same or abs(value - old[name]) <= near):
                raise ValueError(
                    f"{cell.key} gives {name} = {value:.6g} with today's code and {old[name]:.6g} is stored: "
                    f"recompute it with `python -m lazy_helpers run {figure.name} --stale`."
                )
    keys = [cell.key for cell in cheapest.values()]
    manifest = json.loads(path.with_suffix(".json").read_text())
    manifest["verified"] = {"code": code_digest(figure), "modules_sha256": code_hashes(figure), "cells": keys}
    _write(path.with_suffix(".json"), json.dumps(manifest, indent=1) + "\n")
    return keys


def status(figures: Iterable[Figure], runs: Path = RUNS, results: Path = RESULTS) -> list[str]:
    """A line for each figure and preset, and for each stored result that belongs to no figure."""
    lines = []
    for figure in figures:
        rows = _rows(figure, runs, results)
        for preset in figure.presets:
            cells = cells_of(figure, preset)
            path = results / f"{stored_name(figure, preset)}.csv"
            done = [rows[cell.key] for cell in cells if cell.key in rows]
            line = f"{figure.name:<14}{preset:<8}{len(done):>4} of {len(cells)} cells"
            if path.exists():
                line += f"  {path.name}: {_verdict(path, figure)}"
            lines.append(line if done or path.exists() else line + "  not run")
    for path in sorted(results.glob("*.csv")):
        manifest = path.with_suffix(".json")
        if not manifest.exists() or "figure" not in json.loads(manifest.read_text()):
            lines.append(f"{path.name}: {_verdict(path)}")
    return lines


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


def digest_of(hashes: dict[str, str]) -> str:
    """The short hash that stands for a set of modules."""
    return _sha256(json.dumps(hashes, sort_keys=True).encode())[:16]


def code_hashes(figure: Figure) -> dict[str, str]:
    """What a cell's numbers depend on: the modules, the measurement, the setups of the variants that occur."""
    variants = sorted({cell.variant for preset in figure.presets for cell in cells_of(figure, preset)})
    return module_hashes(figure.modules) | {
        "measurement": _syntax_hash(textwrap.dedent(inspect.getsource(figure.measure))),
        "variants": _sha256(repr([(name, VARIANTS[name]) for name in variants]).encode()),
    }


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


def _rows(figure: Figure, runs: Path, results: Path) -> dict[str, dict]:
    """Every finished cell of a figure by its key: collected ones, and over them those in the runs folder."""
    rows = {}
    for preset in figure.presets:
        path = results / f"{stored_name(figure, preset)}.csv"
        if path.exists():
            rows |= {row["key"]: row for row in map(_typed, csv.DictReader(io.StringIO(_verified(path))))}
    for file in sorted((runs / figure.name).glob("*.json")):
        row = _read(file)
        if row is not None:
            rows[row["key"]] = row
    return rows


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
    manifest = path.with_suffix(".json")
    if not path.exists() or not manifest.exists():
        raise ValueError(
            f"{path.name} or its manifest is not in {path.parent}: run the figure and collect it, see `python -m lazy_helpers list`."
        )
    raw = path.read_bytes()
    if _sha256(raw) != json.loads(manifest.read_text())["csv_sha256"]:
        raise ValueError(
            f"{path} does not bear the SHA-256 in its manifest, so it was altered: restore it with `git checkout` or collect it again."
        )
    return raw.decode()


def _verdict(path: Path, figure: Figure | None = None) -> str:
    """Whether a stored result is whole, and whether today's code is the one that computed it."""
    try:
        _verified(path)
    except ValueError:
        return "ALTERED, its hash is not the manifest's"
    manifest = json.loads(path.with_suffix(".json").read_text())
    checked = ""
    if figure:
        fresh = manifest["code"] == [code_digest(figure)]
        if not fresh and manifest.get("verified", {}).get("code") == code_digest(figure):
            fresh, checked = (
                True,
                f" (today's code gives the same numbers in {len(manifest['verified']['cells'])} cells)",
            )
    elif "modules_sha256" in manifest:
        fresh = manifest["modules_sha256"] == module_hashes(name[:-3] for name in manifest["modules_sha256"])
    else:
        return f"whole; not computed here, from {manifest['source']}"
    missing = f", {len(manifest['missing'])} cells missing" if manifest.get("missing") else ""
    return ("up to date" if fresh else "computed by other code than today's") + checked + missing


def _file(runs: Path, figure: Figure, key: str) -> Path:
    return runs / figure.name / f"{key}.json"


def _read(file: Path) -> dict | None:
    """A finished cell, or ``None`` for one that is missing or not whole."""
    try:
        row = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) and row.get("key") == file.stem and "code" in row else None


def _write(path: Path, text: str) -> None:
    """All or nothing: a temporary file in the same folder, flushed to disk, then moved."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(part, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"the folder {folder} cannot be made ({error.strerror}): choose another with --runs or --results."
        ) from None


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
