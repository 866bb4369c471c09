"""The command line: ``python -m lazy_helpers run | collect | verify | status | list | example``."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from .cells import Cell
from .checks import check_count, device_named
from .example import store_example
from .experiments import FIGURES, Figure, cells_of, figure_named
from .runner import run
from .runs import RESULTS, RUNS, collect, status, verify
from .workers import Workers


def main(arguments: list[str] | None = None) -> int:
    """Parse and act. Exit status 1: a cell failed. 2: a ``ValueError`` or what may not be read, said in one line. 130: Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m lazy_helpers", description="Compute the paper's figures, cell by cell, resumably."
    )
    presets = dict.fromkeys(preset for figure in FIGURES.values() for preset in figure.presets)  # each once, in order
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("run", "compute the cells that are not finished; stop and start it as you like"),
        ("collect", "write the finished cells to a CSV with its manifest"),
        ("verify", "recompute cheap stored cells with today's code, and note in the manifest that they agree"),
        (
            "status",
            "what is done, running, failed and left, with times; whether stored results are up to date with the code",
        ),
        ("list", "the figures and their presets"),
        ("example", "the images of the book's first picture, with their flipping steps"),
    ):
        sub = verbs.add_parser(verb, help=text, description=text)
        if verb in ("run", "collect", "verify"):
            sub.add_argument("figure", help=f"one of {', '.join(FIGURES)}")
            sub.add_argument(
                "--preset", default="paper", help=f"{', '.join(presets)}; not every figure has each (default: paper)"
            )
        if verb in ("run", "collect"):
            sub.add_argument("--seeds", type=int, metavar="N", help="seeds 0 .. N-1 instead of the preset's number")
        if verb == "status":
            sub.add_argument("figure", nargs="?", help="one figure instead of all")
        if verb in ("run", "collect", "status"):
            sub.add_argument("--runs", type=Path, default=RUNS, help="folder of the finished cells (default: runs/)")
        if verb != "list":
            sub.add_argument(
                "--results", type=Path, default=RESULTS, help="folder of the collected results (default: book/results/)"
            )
        if verb in ("run", "verify"):
            sub.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
        if verb == "run":
            sub.add_argument(
                "--workers", type=int, metavar="N", help="N processes, which share the cores (default: this one)"
            )
            sub.add_argument("--widths", type=int, nargs="+", metavar="M", help="only the cells with these m")
            sub.add_argument(
                "--stale", action="store_true", help="also recompute cells that other code than today's has finished"
            )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.verb == "list":
            for figure in FIGURES.values():
                print(f"{figure.name:<14}{figure.title}")
                print(
                    " " * 14
                    + ", ".join(f"{preset} ({len(cells_of(figure, preset))} cells)" for preset in figure.presets)
                )
        elif chosen.verb == "example":
            print(store_example(chosen.results))
        elif chosen.verb == "status":
            figures = [figure_named(chosen.figure)] if chosen.figure else FIGURES.values()
            print("\n".join(status(figures, chosen.runs, chosen.results)))
        elif chosen.verb == "verify":
            keys = verify(figure_named(chosen.figure), chosen.preset, chosen.device, chosen.results)
            print(f"{chosen.figure}: today's code gives the stored numbers in {', '.join(keys)}")
        else:
            figure = figure_named(chosen.figure)
            if chosen.verb == "run":
                return _run(figure, _wide(cells_of(figure, chosen.preset, chosen.seeds), chosen.widths), chosen)
            else:
                print(collect(figure, chosen.preset, chosen.seeds, chosen.runs, chosen.results))
    except ValueError as error:
        print(f"lazy_helpers: {error}", file=sys.stderr)
        return 2
    except PermissionError as error:  # what may not be written is a ValueError already
        print(
            f"lazy_helpers: {error.filename} cannot be read ({error.strerror}): make it readable, or name another folder "
            "with --runs, --results or, for the images, $LAZY_HELPERS_DATA.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(
            "lazy_helpers: stopped; every cell that was finished is kept, and the same command goes on.",
            file=sys.stderr,
        )
        return 130
    return 0


def _run(figure: Figure, cells: list[Cell], chosen: argparse.Namespace) -> int:
    """Computes the cells and says how it went; returns the exit status."""
    executor, count = None, 1
    if chosen.workers is not None:
        count = check_count("workers", chosen.workers)
        executor = functools.partial(Workers, count)
        device_named(chosen.device)
    done = run(figure, cells, chosen.device, chosen.runs, chosen.results, chosen.stale, executor, count)
    print(
        f"{figure.name}: computed {done.computed} of {len(cells)} cells; the others "
        + ("failed, " if done.failed else "")
        + "were finished or are in work elsewhere."
    )
    if done.failed:
        print(
            f"lazy_helpers: {len(done.failed)} cells failed: their tracebacks are in {chosen.runs / figure.name / 'failed'}, "
            "their last lines in `python -m lazy_helpers status`; the same command tries them again.",
            file=sys.stderr,
        )
    return 1 if done.failed else 0


def _wide(cells: list[Cell], widths: list[int] | None) -> list[Cell]:
    """The cells of these widths; all of them where none is named."""
    there = sorted({cell.m for cell in cells})
    strange = sorted(set(widths or ()) - set(there))
    if strange:
        raise ValueError(f"no cell has m = {strange[0]}: choose widths among {', '.join(map(str, there))}.")
    return [cell for cell in cells if cell.m in (widths or there)]


if __name__ == "__main__":
    sys.exit(main())
