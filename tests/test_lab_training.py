"""The training panel: driven by its widgets in this process, and by a mouse in JupyterLab; its numbers against the package's own."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_lab import KERNEL, lab  # noqa: F401  (a fixture)

import lazy_helpers as lh
from lazy_helpers.cells import BATCH, LR, Cell, RobustCell
from lazy_helpers.measurements import drawn, measure_flips, measure_robust
from lazy_helpers.panels import TrainingPanel
from lazy_helpers.panels.watch import ATTACK_STEPS, RECORD

CPU = torch.device("cpu")


@pytest.fixture
def panel():
    """`panel(**choices)` is a panel; what trains at the test's end is ended."""
    with contextlib.ExitStack() as stack:

        def make(**choices):
            one = TrainingPanel(**choices)
            stack.callback(one.stop)
            return one

        yield make


def until(panel, reached, seconds=120):
    end = time.monotonic() + seconds
    while not reached():
        assert panel.training, panel.status.value
        assert time.monotonic() < end, panel.status.value
        time.sleep(0.02)


def watched(net, start, C0, R):
    """What a curve's row says of a network: C0 used, clean and attacked accuracy on the test digits (fewer than 200)."""
    test = lh.load_binary("digits", math.isqrt(net.d), normalize=True, split="test")
    delta = lh.pgd(net, test.X, test.y, R, steps=ATTACK_STEPS)
    used = float(lh.LazyBall(start.W, C0).distance(net.W)) * math.sqrt(net.m)
    return used, *(float((test.y * net(X) > 0).double().mean()) for X in (test.X, test.X + delta))


def same_row(row, cell, measured):
    assert row["key"] == cell.key and {name: row[name] for name in vars(cell)} == vars(cell)
    assert set(row) == {"key", *vars(cell), *measured, *RECORD}
    assert {name: row[name] for name in measured} == pytest.approx(measured, rel=1e-4)


# --- choices ---


def test_choices_name_the_cells_that_the_experiments_would_store(panel):
    one = panel(d=16, m=300, C0=7.0, R=0.3, seeds=2)
    cells = [Cell(300, seed, 16, "theory", 7.0, "digits") for seed in (0, 1)]
    assert one.cells == cells and all(cell.key in one.table.value for cell in cells)
    one.choices["training"].value = "adversarial"
    robust = [RobustCell(300, seed, 16, "theory", 7.0, "digits", 0.3) for seed in (0, 1)]
    assert one.cells == robust and all(cell.key in one.table.value for cell in robust)
    one.choices["R"].value = 0.1 + 0.2  # 0.30000000000000004
    assert [cell.key for cell in one.cells] == [cell.key for cell in robust]
    one.choices["data"].value = "mnist"
    one.choices["seeds"].value = 1
    assert one.cells == [RobustCell(300, 0, 784, "theory", 7.0, "mnist", 0.3)] and robust[0].key not in one.table.value
    assert one.choices["d"].options[0] == 25 and "0.3" in one.table.value


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"data": "cifar"}, "data must be one of"),
        ({"training": "free"}, "training must be one of"),
        ({"d": 784}, "d must be one of"),
        ({"data": "mnist", "d": 64}, "d must be one of"),
        ({"m": 1234}, "m must be one of"),
        ({"C0": 0.0}, "C0 must be a finite number above 0"),
        ({"C0": 41.0}, "C0 must be from 1 to 40"),
        ({"R": float("nan")}, "R must be a finite number above 0"),
        ({"R": 2.0}, "R must be from 0.05 to 1"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1"),
        ({"seeds": 6}, "seeds must be at most 5"),
    ],
)
def test_a_choice_that_is_not_offered_is_a_sentence(choice, says):
    with pytest.raises(ValueError, match=says):
        TrainingPanel(**choice)


def test_without_a_kernel_there_is_a_note_and_no_dead_control(panel):
    page = panel(d=16, m=300)._repr_mimebundle_()["text/html"]
    assert "In JupyterLab" in page and "Not trained yet" in page and "theory_digits_d16_m300_C10_s0" in page
    assert "<input" not in page and "<button" not in page and "lazy-panel" not in page


def test_the_package_does_not_wait_for_the_panel():
    code = "import sys, lazy_helpers, lazy_helpers.panels; print('lazy_helpers.panels.lab' in sys.modules, 'matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["False", "False"], run.stderr


# --- training ---


@pytest.mark.slow
def test_plain_training_is_the_packages_own(panel):
    one = panel(d=16, m=300, C0=5.0, R=0.3, seeds=2)
    pictures = []
    one.figure.observe(lambda change: pictures.append(change["new"]), "value")
    one.start_button.click()
    assert one.training and one.start_button.disabled and not one.stop_button.disabled and one.choices["d"].disabled
    one.wait()
    assert not one.training and not one.start_button.disabled and one.stop_button.disabled
    assert "Done: seeds 0 to 1." in one.status.value and one.progress.value == 1
    assert len(pictures) >= 2 and all("<svg" in picture for picture in pictures)

    train = lh.load_binary("digits", 4, normalize=True)
    for seed, cell in enumerate(one.cells):
        start = lh.TwoLayerNet.init(16, 300, seed=seed)
        end = lh.train_sgd(start, train.X, train.y, 5.0, LR, BATCH, seed=seed, progress=False)[5.0]
        same_row(one.rows[seed], cell, measure_flips([cell], CPU)[0])
        torch.testing.assert_close(one.nets[seed].W, end.net.W)
        first, last = one.curves[seed][0], one.curves[seed][-1]
        assert first == pytest.approx(
            (0, float(lh.logistic_loss(start, train.X, train.y)), *watched(start, start, 5.0, 0.3))
        )
        assert last == pytest.approx(
            (float(end.epochs), float(end.train_loss), *watched(end.net, start, 5.0, 0.3)), rel=1e-4
        )
        epochs = [row[0] for row in one.curves[seed]]
        assert epochs[:-1] == list(range(len(epochs) - 1)) and epochs[-2] < epochs[-1] <= epochs[-2] + 1
        assert float(end.epochs) > 3 and max(row[2] for row in one.curves[seed]) <= 5.0 + 1e-4
        assert one.rows[seed]["key"] in one.table.value
    page = one._repr_mimebundle_()["text/html"]
    assert "<svg" in page and "relative_perturbation" in page and "seconds" not in page  # the same on every machine


@pytest.mark.slow
def test_adversarial_training_stops_keeps_what_there_is_and_starts_again(panel):
    one = panel(training="adversarial", m=300, C0=10.0, R=0.2)
    pictures = []
    one.figure.observe(lambda change: pictures.append((len(one.curves[0]), one.progress.value)), "value")
    one.start_button.click()
    until(one, lambda: len(pictures) >= 3)
    process, begun = one._process, time.monotonic()
    one.stop_button.click()
    assert time.monotonic() - begun < 2 and not one.training and not process.is_alive()
    assert "Stopped in epoch" in one.status.value and not one.start_button.disabled and one.rows == {}
    assert pictures == sorted(set(pictures)) and "<svg" in one._repr_mimebundle_()["text/html"]

    epochs = len(one.curves[0]) - 1
    train, start = lh.load_binary("digits", normalize=True), lh.TwoLayerNet.init(64, 300)
    some = drawn(len(train.y), 4000, 0)
    how = dict(attack_steps=5, warm_start=True, max_epochs=epochs, progress=False)
    out = lh.train_adversarial(start, train.X[some], train.y[some], 0.2, 10.0, **how)
    assert [row[1] for row in one.curves[0]] == pytest.approx(out.history.loss.tolist(), rel=1e-3)
    assert [row[2] for row in one.curves[0]] == pytest.approx(out.history.C0_used.tolist(), rel=1e-3, abs=1e-6)
    torch.testing.assert_close(one.nets[0].W, out.net.W, rtol=1e-3, atol=1e-3)

    kept = dict(one.curves)
    one.choices["d"].value, one.choices["m"].value, one.choices["C0"].value = 16, 100, 2.0
    assert one.curves == kept
    one.start_button.click()
    one.wait()
    (cell,) = one.cells
    same_row(one.rows[0], cell, measure_robust([cell], CPU)[0])
    assert one.rows[0]["stopped"] and "Done: seed 0." in one.status.value


@pytest.mark.slow
def test_stop_does_not_wait_for_an_epochs_end_and_another_panel_ends_the_first(panel):
    one = panel(training="adversarial", m=100_000)
    one.start()
    until(one, lambda: one._state.device)
    begun = time.monotonic()
    panel(d=16, m=100)  # a kernel has one training at a time
    assert time.monotonic() - begun < 2 and not one.training
    assert "Stopped before the first epoch" in one.status.value and one.curves == {} and one.nets == {}


@pytest.mark.slow
def test_missing_data_and_a_process_that_dies_are_sentences(panel, monkeypatch, tmp_path):
    monkeypatch.delenv("LAZY_HELPERS_DATA", raising=False)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    one = panel(data="mnist", m=100)
    one.start_button.click()
    one.wait()
    assert "This training did not run: train-images" in one.status.value and "LAZY_HELPERS_DATA" in one.status.value
    assert "Traceback" not in one.status.value and not one.start_button.disabled and one.curves == {}

    one.choices["data"].value = "digits"
    one.start_button.click()
    until(one, lambda: one.curves)
    os.kill(one._process.pid, signal.SIGKILL)
    one.wait()
    assert "ended by itself (exit code -9)" in one.status.value and "smaller m" in one.status.value


# --- JupyterLab ---

SAYS = "[...document.querySelectorAll('.jp-OutputArea [role=status]')].map(e => e.textContent).join()"
CURVES = "document.querySelector('.jp-OutputArea figure.lazy-picture')?.ariaLabel"


@pytest.mark.browser
@pytest.mark.slow
def test_in_jupyterlab_curves_grow_and_stop_stops(browser, lab, tmp_path):  # noqa: F811
    source = 'from lazy_helpers.panels import TrainingPanel\n\nTrainingPanel("adversarial", m=300)'
    cell = {
        "cell_type": "code",
        "id": "panel",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "work" / "training.ipynb").write_text(json.dumps(notebook))

    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(lab("lab/tree/training.ipynb"))
    page.wait_for_function(f"() => {KERNEL}?.status === 'idle'")
    assert page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
    page.locator("button.jupyter-button", has_text="Start").click()
    first = page.wait_for_function(f"() => {CURVES}").json_value()
    later = page.wait_for_function(f"first => {CURVES} !== first && {CURVES}", arg=first).json_value()
    assert later.startswith("Curves of adversarial training") and later.split("epoch ")[1] != first.split("epoch ")[1]

    page.evaluate(f"() => {{ {KERNEL}.requestExecute({{ code: 'import time; time.sleep(5)' }}); }}")  # another cell
    page.locator("button.jupyter-button", has_text="Stop").click()
    page.wait_for_function(f"() => {SAYS}.startsWith('Stopped in epoch')", timeout=4_000)
    kept = page.evaluate(CURVES)
    page.wait_for_timeout(1_500)
    assert page.evaluate(CURVES) == kept and page.evaluate(SAYS).startswith("Stopped")
    page.context.close()
