"""Tiles: every member meets every point once, memory keeps to its bound, and a tile too large for a GPU is halved."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lazy_helpers as lh
from lazy_helpers import tiles
from lazy_helpers.tiles import in_tiles


def cover(K, m, n, room=None):
    """How often each (member, point) was met, and the tiles; ``room`` is how many numbers fit."""
    met, seen = torch.zeros(K, n), []

    def work(members, points):
        k, p = members.stop - members.start, points.stop - points.start
        if room is not None and k * m * p > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        met[members, points] += 1
        seen.append((k, p))

    in_tiles(work, torch.zeros(K, m), n)
    return met, seen


SIZES = st.sampled_from([1, 3, 16, 17, 200, 1025])


@given(st.integers(1, 9), SIZES, SIZES, st.sampled_from([1, 5000, 10**9]), st.sampled_from([1, 3000, 10**9]))
def test_every_member_meets_every_point_once(K, m, n, large, small):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_BYTES", large)
        patch.setattr(tiles, "SMALL_BYTES", small)
        met, seen = cover(K, m, n)
    assert bool((met == 1).all())
    for k, p in seen:
        assert p <= max(16, large // (4 * m)) and p <= tiles.POINTS
        assert k == 1 or k * m * p * 4 <= small


@given(st.integers(1, 9), SIZES, SIZES, st.integers(1, 40))
def test_a_tile_too_large_is_halved_until_it_fits(K, m, n, times):
    met, seen = cover(K, m, n, room=times * m)
    assert bool((met == 1).all()) and all(k * p <= times for k, p in seen)


def test_what_does_not_fit_at_all_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        cover(2, 10, 5, room=9)


def test_results_survive_a_memory_that_is_too_small(monkeypatch):
    """Every quantity that works in tiles, with a product that fails for more than 40 rows."""
    net = lh.TwoLayerNet.init(3, 20, members=3, bias=True, dtype=torch.float64)
    x, y = lh.unit_sphere(70, 3).double(), torch.ones(70)
    quantities = {
        "value": lambda: net(x),
        "grad": lambda: net.grad(x),
        "flip": lambda: lh.smallest_flip(net, x).eta,
        "pgd": lambda: lh.pgd(net, x, y, 0.3, steps=5),
    }
    whole = {name: quantity() for name, quantity in quantities.items()}
    product = torch.Tensor.__matmul__

    def small(self, other):
        if max(self.shape[-2], other.shape[-1]) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return product(self, other)

    monkeypatch.setattr(torch.Tensor, "__matmul__", small)
    for name, quantity in quantities.items():
        torch.testing.assert_close(quantity(), whole[name], rtol=1e-10, atol=1e-12, equal_nan=True)
