"""The ledger's entries: what one holds, what the manifests say of it, how it is shown."""

from __future__ import annotations

import dataclasses
import html
from pathlib import Path

from .runs import RESULTS, load_manifest
from .verdicts import having


@dataclasses.dataclass(frozen=True)
class Row:
    """What the paper has and what we have; ``where`` names the stored results, the verdict's first, ``sha`` their hashes."""

    item: str
    where: tuple[str, ...]
    theirs: str
    ours: str
    seeds: str
    device: str
    hours: float
    sha: tuple[str, ...]
    verdict: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Discrepancy:
    """What the text says, what the scripts do, and the effect, measured in the stored results ``where`` with hashes ``sha``."""

    number: int
    text: str
    code: str
    effect: str
    where: tuple[str, ...]
    seeds: str
    sha: tuple[str, ...]


def row(item, where, theirs, ours, verdict, reason, results, **only) -> Row:
    """A :class:`Row` with the seeds, devices and time of the cells it uses: those of ``where[0]`` with the fields ``only``."""
    first, used = load_manifest(where[0], results), having(where[0], results, **only)
    if first["missing"]:
        verdict += f"; partly run: {first['cells']} of {first['cells'] + len(first['missing'])} cells"
    device = ", ".join(sorted(set(used.device))).replace("(1 threads)", "(1 thread)") or "none"
    run = seeds_of(where[0], results, **only), device, float(used.seconds.sum()) / 3600
    return Row(item, where, theirs, ours, *run, hashes(where, results), verdict, reason)


def seeds_of(name: str, results: Path = RESULTS, **only) -> str:
    """How many seeds stand behind a result, or behind its cells with these fields; at each width where they differ."""
    table = having(name, results, **only)
    if table.empty:
        return "none yet"
    counts = table.groupby("m").seed.nunique()
    if counts.nunique() == 1:
        return str(counts.iloc[0])
    return ", ".join(f"{count} at m = {width:,}" for width, count in counts.items())


def hashes(where: tuple[str, ...], results: Path = RESULTS) -> tuple[str, ...]:
    """The first digits of the stored results' SHA-256."""
    return tuple(load_manifest(name, results)["csv_sha256"][:12] for name in where)


def table(entries: list[Row] | list[Discrepancy]):
    """Rows of one kind as a pandas DataFrame, a column for each field."""
    import pandas as pd

    return pd.DataFrame([dataclasses.asdict(entry) for entry in entries])


def page(entries: list[Row] | list[Discrepancy]) -> str:
    """Rows of one kind as HTML: what it is, the short fields side by side, the long one, where the numbers come from."""
    return '<table class="ledger" style="text-align: left; width: 100%">' + "\n".join(map(_body, entries)) + "</table>"


def _body(entry: Row | Discrepancy) -> str:
    """One entry as a ``tbody`` of three lines."""
    if isinstance(entry, Row):
        title, long, source = entry.item, entry.reason, f"Seeds: {entry.seeds}; {entry.hours:.1f} h on {entry.device}; "
        cells = {"The paper": entry.theirs, "Ours": entry.ours, "Verdict": entry.verdict}
    else:
        title, long, source = f"Difference {entry.number}", entry.effect, f"Seeds: {entry.seeds}; "
        cells = {"The text": entry.text, "The published scripts": entry.code}
    files = ", ".join(f"{name}.csv {sha}" for name, sha in zip(entry.where, entry.sha, strict=True))
    source = "" if entry.where == ("none",) else f"<br>{_small(source + files)}"
    wide, flat = f'colspan="{len(cells)}"', 'style="border: 0"'
    shown = "".join(
        f'<td style="border: 0; width: {100 // len(cells)}%">{_small(name)}<br>{_escaped(cell).replace("; ", "<br>")}</td>'
        for name, cell in cells.items()
    )
    return (
        f"<tbody><tr><th {wide} {flat}>{_escaped(title)}</th></tr><tr>{shown}</tr>"
        f"<tr><td {wide}>{_escaped(long)}{source}</td></tr></tbody>"
    )


def _small(text: str) -> str:
    return f'<span style="color: var(--pst-color-text-muted, inherit); font-size: 0.85em">{_escaped(text)}</span>'


def _escaped(text: str) -> str:
    """As HTML, with no line break before a per cent sign."""
    return html.escape(text).replace(" %", "\u00a0%")
