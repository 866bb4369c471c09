"""Execute notebooks from top to bottom and store their outputs: `python book/execute.py book/setting.ipynb ...`.

What differs from one run to the next without meaning anything is left out (times, widget models, the interpreter's
version), so that a diff shows what really changed.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"  # names a model of this run's kernel; the page shows text/html


def execute(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(WIDGET, None)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # the order of a sum, hence its last digit, is then the same on every machine
    for argument in sys.argv[1:]:
        execute(Path(argument))
