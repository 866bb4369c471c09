"""Work on an ensemble and its points, tile by tile, so that memory stays bounded and a processor's cache is used well."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TILE_BYTES = 2**25  # one temporary (members, m, points) on a CPU; of the free memory a GPU takes a sixteenth
POINTS = 1152  # as many points at a time as a product with W, and the calls beside it, need to be fast
ROUND = 64  # a product with an odd number of points can be half as fast
SMALL_BYTES = 2**21  # small members are taken together up to this much: a share of the cache each core has to itself


def in_tiles(work: Callable[[slice, slice], None], a: Tensor, n: int) -> None:
    """Calls ``work(members, points)`` until every member has met each of n points; ``a`` is ``(K, m)``.

    ``work`` writes its results where they belong, and may be called again for a part of a tile: on a GPU whose memory
    is too small for a tile, the tile is halved.
    """
    K, m = a.shape
    size, limit = a.element_size(), _tile_bytes(a.device)
    points = min(n, max(16, limit // (m * size)))
    members = max(1, limit // (m * points * size))
    if a.device.type == "cpu":
        points = min(points // ROUND * ROUND or points, POINTS)
        members = max(1, SMALL_BYTES // (m * points * size))
    todo = [
        (slice(k, min(k + members, K)), slice(i, min(i + points, n)))
        for k in range(0, K, members)
        for i in range(0, n, points)
    ]
    while todo:
        tile = todo.pop()
        try:
            work(*tile)
            continue
        except torch.OutOfMemoryError:
            longest = max((0, 1), key=lambda axis: tile[axis].stop - tile[axis].start)
            first, end = tile[longest].start, tile[longest].stop
            if end - first == 1:
                raise
        torch.cuda.empty_cache()  # out of the handler, which keeps the failed tile's tensors alive
        middle = (first + end) // 2
        for half in (slice(first, middle), slice(middle, end)):
            todo.append((half, tile[1]) if longest == 0 else (tile[0], half))


def pick(x: Tensor, members: slice, points: slice) -> Tensor:
    """A tile's points, from ``(n, d)``, which all members share, or from ``(*members, n, d)``."""
    return x[points] if x.ndim == 2 else x.reshape(-1, *x.shape[-2:])[members, points]


def _tile_bytes(device: torch.device) -> int:
    return TILE_BYTES if device.type == "cpu" else max(TILE_BYTES, torch.cuda.mem_get_info(device)[0] // 16)
