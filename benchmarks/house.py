"""What a reader and a developer wait for: the import, the strict build, the notebooks' longest cell."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
IMPORT = "import time, torch; start = time.perf_counter(); import lazy_helpers; print(time.perf_counter() - start)"


def import_seconds(repeats: int = 7) -> float:
    """Import of the package beyond torch's own, each time in a new process: the median."""
    runs = [subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True) for _ in range(repeats)]  # fmt: skip
    return statistics.median(float(run.stdout) for run in runs)


def build_seconds() -> float:
    """The strict build of the whole book from the stored outputs."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tool = Path(sys.executable).with_name("jupyter-book")
        command = [tool, "build", ".", "--path-output", folder, "--all", "-W", "-n", "--keep-going"]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        return time.perf_counter() - start


def longest_cell() -> tuple[float, str]:
    """Seconds of the slowest cell of all notebooks, imports included, and the notebook's name."""
    slowest = (0.0, "")
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        started = {}
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(path.parent)}},
            on_cell_execute=lambda cell, cell_index: started.update({cell_index: time.perf_counter()}),  # noqa: B023
            on_cell_executed=lambda cell, cell_index, execute_reply: started.update({cell_index: time.perf_counter() - started[cell_index]}),  # noqa: B023
        )  # fmt: skip
        client.execute()
        slowest = max([slowest, *((taken, path.stem) for taken in started.values())])
    return slowest
