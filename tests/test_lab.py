"""The book in JupyterLab: a notebook runs from top to bottom there, and its panel answers the keyboard."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
NOTEBOOK = "setting.ipynb"

KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
PICTURES = """() => document.querySelector(".lazy-panel[aria-busy=false]") && [
  ...document.querySelectorAll(".lazy-panel .lp-figure > svg")].map(picture => picture.innerHTML).join()"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on a copy of the notebook, with folders of its own: `lab(path)` is an address in it."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(BOOK / NOTEBOOK, work)
    shutil.copytree(BOOK / "results", work / "results")
    folders = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    threads = {"OMP_NUM_THREADS": "1"}  # the kernel shares the cores with a browser and the other tests
    port, token = free_port(), secrets.token_hex()
    options = (
        "--no-browser --allow-root --ip=127.0.0.1 --LabApp.expose_app_in_browser=True "
        f"--port={port} --IdentityProvider.token={token}"
    )
    log = tmp_path / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options.split()],
            cwd=work,
            env=os.environ | folders | threads,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def address(path):
        return f"http://127.0.0.1:{port}/{path}?token={token}"

    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(address("api/status"), timeout=5)
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.2)
        else:
            pytest.fail("JupyterLab did not answer within a minute:\n" + log.read_text())
        yield address
        urllib.request.urlopen(urllib.request.Request(address("api/shutdown"), method="POST"), timeout=5)  # kernels too
        server.wait(timeout=20)
    finally:
        server.kill()
        server.wait()


@pytest.mark.browser
@pytest.mark.slow
def test_notebook_runs_and_its_panel_answers(browser, lab):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(lab(f"lab/tree/{NOTEBOOK}"))
    page.wait_for_function(f"() => {KERNEL}?.status === 'idle'")

    assert page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
    notebook = page.evaluate("() => JSON.stringify(jupyterapp.shell.currentWidget.model.toJSON())")
    cells = [cell for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code" and cell["source"]]
    assert all(cell["execution_count"] for cell in cells)
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]

    slider = page.locator(".lazy-panel input[type=range]").first
    slider.click()  # the panel's cell becomes the active one, so that JupyterLab keeps it in view
    before = page.wait_for_function(PICTURES).json_value()
    slider.press("ArrowRight")
    page.wait_for_function(f"before => {{ const now = ({PICTURES})(); return now && now !== before; }}", arg=before)
    page.context.close()
