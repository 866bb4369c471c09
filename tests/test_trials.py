"""The attempts to break the bounds: that they try hard, and would notice."""

import pytest
import torch

import lazy_helpers as lh
from lazy_helpers import trials

F64 = torch.float64


def draw(d, m, seed=0):
    net = lh.TwoLayerNet.init(d, m, seed=seed, dtype=F64)
    return net, torch.nn.functional.normalize(lh.unit_sphere(1, d, seed=seed).double(), dim=-1)[0]


@pytest.mark.parametrize("d, m, C0", [(3, 40, 0.5), (20, 200, 2.0), (60, 300, 10.0)])
def test_no_bound_breaks_and_the_attempts_come_close(d, m, C0):
    net, x = draw(d, m)
    out = trials.challenge(net, x, C0, 120)
    assert out["trials"] == 120 and out["optimised"] == 12 and out["violations"] == 0
    assert out["value"] > 0.98 and out["signs"] == 1 and out["change"] > 0.4
    assert out["gradient"] > 0.9 or C0 == 10.0  # where the gradient can vanish, its bound is 0
    assert trials.challenge(net, x, C0, 20, seed=3) == trials.challenge(net, x, C0, 20, seed=3)


@pytest.mark.parametrize(
    "name, broken",
    [
        ("smallest_gradient", lambda bound: bound._replace(lower=1.05 * bound.found)),
        ("largest_gradient_change", lambda bound: 0.5 * bound),
        ("difference_bound", lambda bound: 0.05 * bound),
        ("value_range", lambda bound: bound._replace(high=bound.f + 0.9 * (bound.high - bound.f))),
        ("flip_sides", lambda sides: [side._replace(residual=side.residual - 2.0) for side in sides]),
        ("flip_sides", lambda sides: [side._replace(total=side.total - 2.0) for side in sides]),
    ],
    ids=("gradient", "change", "difference", "value", "residual", "flip"),
)
def test_a_wrong_bound_is_found_out(monkeypatch, name, broken):
    net, x = draw(20, 200)
    right = getattr(trials, name)
    monkeypatch.setattr(trials, name, lambda *inputs: broken(right(*inputs)))
    assert trials.challenge(net, x, 2.0, 100)["violations"] > 0


def test_bad_input_is_refused():
    net, x = draw(3, 10)
    with pytest.raises(ValueError, match="trials must"):
        trials.challenge(net, x, 1.0, 0)
    with pytest.raises(ValueError, match="C0 must"):
        trials.challenge(net, x, -1.0, 10)


def test_a_small_ball_breaks_no_bound():
    """Bounds of the residual may be negative there."""
    net, x = draw(20, 500)
    assert trials.challenge(net, x, 0.02, 20)["violations"] == 0
