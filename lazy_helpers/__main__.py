"""The command line: ``python -m lazy_helpers run | collect | verify | status | list | example``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .example import store_example
from .experiments import FIGURES, cells_of, figure_named
from .runs import RESULTS, RUNS, collect, run, status, verify


def main(arguments: list[str] | None = None) -> int:
    """Parse, act, and turn a ``ValueError`` into one line on standard error and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m lazy_helpers", description="Compute the paper's figures, cell by cell, resumably."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("run", "compute the cells that are not finished; stop and start it as you like"),
        ("collect", "write the finished cells to a CSV with its manifest"),
        ("verify", "recompute cheap stored cells with today's code, and note in the manifest that they agree"),
        ("status", "what is finished, and whether stored results are up to date with the code"),
        ("list", "the figures and their presets"),
        ("example", "the images of the book's first picture, with their flipping steps"),
    ):
        sub = verbs.add_parser(verb, help=text, description=text)
        if verb in ("run", "collect", "verify"):
            sub.add_argument("figure", help=f"one of {', '.join(FIGURES)}")
            sub.add_argument("--preset", default="paper", help="quick, paper or digits (default: paper)")
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
            cells = cells_of(figure, chosen.preset, chosen.seeds)
            if chosen.verb == "run":
                computed = run(figure, cells, chosen.device, chosen.runs, chosen.results, chosen.stale)
                print(
                    f"{figure.name}: computed {computed} of {len(cells)} cells; the others were finished or are in work elsewhere."
                )
            else:
                print(collect(figure, chosen.preset, chosen.seeds, chosen.runs, chosen.results))
    except ValueError as error:
        print(f"lazy_helpers: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
