"""Stored figures as a page carries them: the grid, each seed's numbers, what was not run, and the published values."""

from __future__ import annotations

import dataclasses
import math
import re

from ..experiments import FIGURES
from ..fit import crossing
from ..runs import RESULTS, load_manifest, load_results

AXES = ("variant", "m", "C0", "d", "eps")  # each offers the values that the grid has beside those before it
DETAILS = ("epochs", "steps", "deviation_C0", "test_accuracy", "seconds")  # of a seed, besides the quantities
DIGITS = 4  # significant, of every number that is carried
KEY = re.compile(
    r"(?P<variant>.+)_[a-z]+_d(?P<d>\d+)_m(?P<m>\d+)_C(?P<C0>[\d.e+]+)_s(?P<seed>\d+)(?:_e(?P<eps>[\d.e-]+))?"
)  # as cells.Cell.key writes them


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A column to read: its symbol, what it is, and the column that repeats the published averages if there is one."""

    column: str
    symbol: str
    name: str
    published: str | None = None  # taken for the variant "published"
    share: bool = False  # of the test images: from 0 to 1, on a linear axis


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a figure is read: curves against d, one for each value of ``beside``; or a map over two axes."""

    quantities: tuple[Quantity, ...]
    beside: str = "C0"
    map: tuple[str, str] | None = None  # x and y
    published: str | None = None  # the stored result with the points that were read off the paper
    unpublished: str = "no values could be read off the paper"  # said where there is none


PERTURBATION = Quantity(
    "relative_perturbation", "‖δ‖ / ‖x‖", "relative perturbation", "relative_perturbation_published"
)
GRADIENT = Quantity("grad_norm", "‖∇f(x)‖", "gradient norm")
STEP = Quantity("step_size", "(‖δ‖/‖x‖) / ‖∇f‖", "step size", "step_size_published")
ROBUST = Quantity("robust_accuracy", "robust accuracy", "robust accuracy", "robust_accuracy_before", share=True)
MINIMAL = (
    Quantity("one_step", "one step", "median ‖δ‖ of one step"),
    Quantity("strongest", "strongest", "median ‖δ‖ of the strongest attack"),
    Quantity("certified", "certified", "median certified radius"),
    Quantity("gap", "gap", "median gap between the two"),
)
READINGS = {
    "fig2": Reading((PERTURBATION, GRADIENT, STEP), beside="m", published="published_fig2"),
    "fig2_mirrored": Reading((PERTURBATION, GRADIENT, STEP), unpublished="beyond the paper"),
    "differences": Reading(
        (PERTURBATION, GRADIENT, STEP), beside="variant", unpublished="a procedure that was not published"
    ),
    "fig3": Reading((PERTURBATION, GRADIENT, STEP), published="published_fig2"),
    "fig6": Reading((PERTURBATION, GRADIENT, STEP)),
    "fig4_left": Reading((ROBUST,), map=("d", "eps"), published="published_fig4_left"),
    "fig4_mirrored": Reading((ROBUST,), map=("d", "eps"), unpublished="beyond the paper"),
    "fig4_right": Reading((ROBUST,), map=("m", "C0")),
    "minimal": Reading(MINIMAL, unpublished="beyond the paper"),
}


def reading_of(name: str) -> Reading:
    """How a stored result is read; one of another preset than the paper's is ``<figure>_<preset>``."""
    for figure, reading in READINGS.items():
        if name == figure or name in {f"{figure}_{preset}" for preset in FIGURES[figure].presets}:
            return reading
    raise ValueError(f"figure {name!r} cannot be read in a panel: choose one of {', '.join(READINGS)}.")


def pack(name: str, results=RESULTS) -> dict:
    """What the panel carries of a stored result; ``results`` is its folder.

    Cells are positions in the grid, run or not, as indices into the values of their axes; rows are seeds of cells; missing rows
    are those that the manifest lists. A number that is not finite is None. Raises as :func:`reading_of` and ``load_results``.
    """
    reading = reading_of(name)
    table, manifest = load_results(name, results), load_manifest(name, results)
    axes = [axis for axis in AXES if axis in table]
    done = [row | {"C0": _short(row["C0"])} for row in table.to_dict("records")]
    missing = [_parsed(key) for key in manifest["missing"]]
    values = {axis: sorted({row[axis] for row in missing + done}) for axis in axes}

    def place(row):
        return tuple(values[axis].index(row[axis]) for axis in axes)

    cells = sorted({place(row) for row in done + missing})
    at = {cell: k for k, cell in enumerate(cells)}
    devices = sorted(set(table.device))
    rows = {"cell": [at[place(row)] for row in done], "seed": [row["seed"] for row in done]}
    for quantity in reading.quantities:
        rows[quantity.column] = [_short(row[_column(quantity, row)]) for row in done]
    for column in DETAILS:
        if column in table and column not in rows:
            rows[column] = [_short(value) for value in table[column]]
    rows["device"] = [devices.index(device) for device in table.device]
    ended = next((column for column in ("left", "stopped") if column in table), None)
    if ended:  # False: training went on to the last epoch allowed
        rows["ended"] = [int(value) for value in table[ended]]
    return {
        "figure": name,
        "title": manifest["title"],
        "file": f"{manifest['csv']}, SHA-256 {manifest['csv_sha256'][:12]}",
        "quantities": [
            {"key": q.column, "symbol": q.symbol, "name": q.name, "share": q.share} for q in reading.quantities
        ],
        "map": list(reading.map) if reading.map else None,
        "beside": reading.beside,
        "unpublished": reading.unpublished,
        "axes": values,
        "cells": {axis: [cell[k] for cell in cells] for k, axis in enumerate(axes)},
        "rows": rows,
        "missing": {"cell": [at[place(row)] for row in missing], "seed": [row["seed"] for row in missing]},
        "devices": devices,
        "published": _published(reading, cells, values),
    }


def _column(quantity: Quantity, row: dict) -> str:
    return quantity.published if quantity.published and row["variant"] == "published" else quantity.column


def _published(reading: Reading, cells: list[tuple], values: dict) -> dict | None:
    """The published values at the grid's cells, each with its quantity; for a map also where they cross one half."""
    if reading.published is None:
        return None
    table, manifest = load_results(reading.published), load_manifest(reading.published)
    if reading.map is None:
        known = {
            (row.quantity, "published", int(float(row.curve[2:])), 10.0, row.d): row.value for row in table.itertuples()
        }  # Figure 2's: C0 = 10
    else:
        known = {
            ("robust_accuracy", "published", 1000, 10.0, row.d, row.eps): row.robust_accuracy
            for row in table.itertuples()
        }
    found = {"quantity": [], "cell": [], "value": []}
    for k, quantity in enumerate(reading.quantities):
        for number, cell in enumerate(cells):
            where = tuple(values[axis][index] for axis, index in zip(values, cell, strict=True))
            if (quantity.column, *where) in known:
                found["quantity"].append(k)
                found["cell"].append(number)
                found["value"].append(_short(known[(quantity.column, *where)]))
    errors = [manifest["reading_error"][quantity.column] for quantity in reading.quantities]
    floor = manifest.get("floor", {}).get("robust_accuracy")
    halves = _crossings(table) if reading.map else None
    return {**found, "errors": errors, "floor": floor, "crossing": halves, "from": manifest["title"].split("off ")[1]}


def _crossings(table) -> list[list[float]]:
    """[d, eps] at which the published robust accuracy meets one half, on the straight line between two cells."""
    columns = table.sort_values("eps").groupby("d")
    halves = {d: crossing(column.eps, column.robust_accuracy, 0.5) for d, column in columns if len(column) > 1}
    return [[int(d), _short(half)] for d, half in halves.items() if math.isfinite(half)]


def choices(packed: dict) -> dict[str, list[str]]:
    """What is chosen besides the cell: the quantity, and for a map over C0 whether it is drawn over C0 or V."""
    radius = {"radius": ["C0", "V"]} if packed["map"] and "C0" in packed["map"] else {}
    return {"quantity": [quantity["key"] for quantity in packed["quantities"]], **radius}


def offered(packed: dict, state: dict, axis: str) -> list:
    """The values of an axis that the grid has beside the values that ``state`` gives to the axes before it."""
    names = list(packed["axes"])
    before = {name: packed["axes"][name].index(state[name]) for name in names[: names.index(axis)]}
    cells = packed["cells"]
    kept = (k for k in range(len(cells[axis])) if all(cells[name][k] == index for name, index in before.items()))
    return [packed["axes"][axis][index] for index in sorted({cells[axis][k] for k in kept})]


def settled(packed: dict, state: dict) -> dict:
    """The state in which a value that is not offered gives way to the one nearest in ratio, and None to the middle one."""
    state = {key: values[0] for key, values in choices(packed).items()} | state
    for axis in packed["axes"]:
        values, value = offered(packed, state, axis), state.get(axis)
        if axis == "variant":
            state[axis] = value or ("published" if "published" in values else values[-1])
        elif value is None:
            state[axis] = values[len(values) // 2]
        elif value not in values:
            state[axis] = min(values, key=lambda other: abs(math.log(other / value)))
    return state


def _parsed(key: str) -> dict:
    """A cell's axes and seed from its key."""
    found = {name: value for name, value in KEY.fullmatch(key).groupdict().items() if value is not None}
    kinds = {"variant": lambda name: name.replace("-", " "), "C0": lambda C0: _short(float(C0)), "eps": float}
    return {name: kinds.get(name, int)(value) for name, value in found.items()}


def _short(value) -> float | int | None:
    """A number to DIGITS significant digits; None for one that is not finite."""
    if not math.isfinite(value):
        return None
    rounded = float(f"{float(value):.{DIGITS}g}")
    if rounded == int(rounded):
        return int(value) if value == int(value) else int(rounded)
    return rounded
