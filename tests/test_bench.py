"""The benchmark itself, at sizes so small that its numbers mean nothing: that it runs, and what it says of itself."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import bench  # noqa: E402
import house  # noqa: E402
import machine  # noqa: E402
import together  # noqa: E402
import works  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def tiny(monkeypatch, mnist):
    monkeypatch.setattr(works, "SIZES", ((25, 30), (25, 40)))
    monkeypatch.setattr(works, "MEMBERS", {25: (1, 2)})
    monkeypatch.setattr(works, "SQUARES", (25,))
    monkeypatch.setattr(works, "STEPS", 20)
    monkeypatch.setattr(works, "GROWTH", {"m": (10, 20, 40), "members": (1, 2, 3)})


@pytest.mark.parametrize("part", ["flips", "sgd", "steady", "pgd", "cells", "radii", "growth"])
def test_each_part_measures_every_contender_that_is_there(tiny, part):
    rows = pd.DataFrame(getattr(works, part)(CPU))
    assert (rows.seconds > 0).all() and (rows.low <= rows.seconds).all() and (rows.seconds <= rows.high).all()
    if part in ("flips", "sgd", "pgd"):
        assert rows.groupby(["d", "m", "members"]).contender.nunique().min() >= 3
        assert len(rows.groupby(["d", "m", "members"])) == 4
        assert ((rows.of_product > 0) & (rows.of_product < 2)).all()
    if part == "flips":  # those that walk end on the grid, at most a step beyond the exact flip
        walked = rows[rows["agrees"] != ""]
        assert len(walked) >= 4 and (walked["agrees"].astype(float) < 1.1e-3).all()
    if part == "pgd":  # all contenders leave the same points robust
        for _, same in rows.groupby(["d", "m", "members"]):
            robust = same["agrees"].astype(float)
            assert robust.max() - robust.min() < 5e-3


def test_what_is_measured_is_stored_part_by_part(tiny, tmp_path, monkeypatch, capsys):
    """Rows of every part fit one table; the results are there although what comes after them fails."""

    def fail(*inputs):
        raise RuntimeError("no bars today")

    monkeypatch.setattr(bench, "product_rate", lambda device: 1e9)
    monkeypatch.setattr(bench, "bandwidth", lambda device: 1e9)
    monkeypatch.setattr(bench, "panel_rows", lambda: [])
    monkeypatch.setattr(bench, "bars", fail)
    for part in ("flips", "pgd", "cells", "column", "radii"):
        monkeypatch.setattr(works, part, lambda device: [])
    with pytest.raises(RuntimeError, match="no bars today"):
        bench.main(["--results", str(tmp_path)])
    stored = pd.read_csv(tmp_path / "bench_cpu.csv")
    assert {"SGD steps", "PGD against m"} <= set(stored.work)
    assert "of a large product's rate" in capsys.readouterr().out


def test_peak_memory_is_measured():
    if math.isnan(machine.peak_mib(lambda: None, CPU)):
        pytest.skip("this system does not tell a process's peak memory")
    # In a process of its own: here, what earlier tests freed may be there to be used again.
    script = (
        "import torch; from machine import peak_mib; cpu = torch.device('cpu');"
        "print(peak_mib(lambda: torch.zeros(100 * 2**18), cpu), peak_mib(lambda: None, cpu))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(machine.__file__).parent, capture_output=True, text=True, check=True
    )
    much, little = map(float, run.stdout.split())
    assert 90 < much < 140 and little < 20


def test_side_by_side_warms_up_and_takes_turns():
    calls = []
    times = machine.side_by_side({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, CPU)
    assert calls == ["a", "b", *["a", "b"] * 3] and [len(times[name]) for name in "ab"] == [3, 3]


def test_import_is_light():
    """The bar is 0.2 s; what would break it is a heavy module, and that is no matter of the machine."""
    script = (
        "import sys, torch; before = set(sys.modules); import lazy_helpers; print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pandas", "matplotlib", "sklearn", "scipy", "anywidget"} & set(loaded)
    assert 0 < house.import_seconds(1) < 60


def test_a_device_that_is_not_there_is_refused(capsys):
    assert bench.main(["--device", "tpu"]) == 2 and "device must be" in capsys.readouterr().err


TOGETHER = (together.Setting("SGD", 8, 30, 3, 2, "digits"), together.Setting("Algorithm 1", 8, 30, 3, 2, "digits"))


@pytest.mark.parametrize("setting", TOGETHER, ids=["SGD", "Algorithm 1"])
def test_members_of_one_computation_are_those_trained_alone(setting):
    train = together.trainer(setting, CPU)
    all_ = train(slice(0, 3))
    for k in range(3):
        assert torch.allclose(train(slice(k, k + 1)).W[0], all_.W[k], atol=1e-5)
    assert not torch.allclose(all_.W[0], all_.W[1], atol=1e-2)


def test_the_gain_of_training_together_is_stored(tmp_path):
    assert together.main([], TOGETHER, tmp_path) == 0
    table = pd.read_csv(tmp_path / "bench_cpu_together.csv")
    assert table.work.tolist() == ["SGD", "Algorithm 1"] and (table.d == 64).all()
    assert np.allclose(table.gain, table.alone_s / table.together_s, rtol=1e-6)
