"""The panels' random numbers, bit for bit those of `weights.mjs`, so that Python computes with a panel's own weights.

Number i of a stream is a hash of (seed, stream, i): any corner of W0 can be drawn alone, and the draw is nested (a
smaller d or m is the top left corner of a larger one). Sines and logarithms differ between languages in their last
bit, so Box-Muller stands here on additions, multiplications, divisions and square roots alone, which IEEE 754 fixes.
"""

import math

import numpy as np

STREAM = {"W0": 1, "a": 2, "boundary": 3, "chi": 4, "order": 5}
ROW = 1024  # counters set aside for each neuron; the largest d
BLOCK = 1 << 15  # pairs drawn at a time, so that the work arrays stay in the cache

LOG_SERIES = tuple(1 / n for n in range(17, 0, -2))  # atanh(q) / q in q^2, highest power first
COS_SERIES = tuple((-1) ** n / math.factorial(2 * n) for n in range(7, -1, -1))
SIN_SERIES = tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(7, -1, -1))


def draw(d, m, seed):
    """A panel's network and point: `W0 (m, d)` standard normal and `a (m,)` of +-1 in float32, `x (d,)` of length 1.

    x is the first unit vector: Gaussian weights look the same from every direction, so nothing is lost, and f(x; W0)
    and every pre-activation then need one number a neuron. `d <= 1024`, `0 <= seed < 2^32`.
    """
    if not (1 <= d <= ROW and 1 <= m <= 2**22 and 0 <= seed < 2**32):
        raise ValueError(
            f"draw takes 1 <= d <= {ROW}, 1 <= m <= {2**22} and 0 <= seed < 2^32; got d={d}, m={m}, seed={seed}."
        )
    x = np.zeros(d, dtype=np.float32)
    x[0] = 1
    return normals(d, m, seed, "W0"), signs(m, seed), x


def ball_member(W0, a, x, C0, weights, seed):
    """The W (m, d), float64, of the lazy ball around W0 that a panel calls `weights`: every ||w_s - w_s,0|| is V or 0.

    "initial": W0. "random": each neuron moved by V = C0 / sqrt(m) in a uniformly random direction. "margin": each
    moved by V along +-x so that sign(f) f(x) grows as much as the ball allows.
    """
    W0, x = W0.astype(np.float64), x.astype(np.float64)
    (m, d), V = W0.shape, C0 / math.sqrt(len(W0))
    if weights == "initial":
        return W0
    if weights == "random":
        G = normals(d, m, seed, "boundary").astype(np.float64)
        return W0 + V * G / np.linalg.norm(G, axis=1, keepdims=True)
    if weights == "margin":
        f = a @ np.maximum(W0 @ x, 0)
        return W0 + np.sign(f) * V * np.outer(a, x)
    raise ValueError(f'weights must be "initial", "random" or "margin"; got {weights!r}.')


def normals(d, m, seed, stream):
    """The (m, d) corner of a stream's standard normals, float32."""
    pairs = (d + 1) // 2
    out = np.empty((m, 2 * pairs), dtype=np.float32)
    columns = 2 * np.arange(pairs, dtype=np.uint32)
    rows_at_once = max(1, BLOCK // pairs)
    for s in range(0, m, rows_at_once):
        rows = np.arange(s, min(m, s + rows_at_once), dtype=np.uint32)[:, None] * np.uint32(ROW)
        first, second = _pair(_key(seed, stream), rows + columns)
        out[s : s + len(rows), 0::2] = first
        out[s : s + len(rows), 1::2] = second
    return np.ascontiguousarray(out[:, :d])


def signs(m, seed):
    """The output weights a (m,) in {-1, +1}, float32."""
    words = _word(_key(seed, "a"), np.arange(m, dtype=np.uint32))
    return np.where(words >> 31, -1, 1).astype(np.float32)


def permutation(n, seed, epoch):
    """The order (n,) in which an epoch of training takes its n <= 1024 points, a fresh one for every epoch 0, 1, ..."""
    words = _word(_key(seed, "order"), np.uint32(epoch * ROW) + np.arange(n, dtype=np.uint32))
    return np.argsort(words, kind="stable")


def _mix(h):
    """A bijection of 32-bit words that changes about half the bits for each bit of h (lowbias32, Wellons 2018)."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))


def _key(seed, stream):
    return _mix(_mix(np.array([seed], dtype=np.uint32)) + np.uint32(STREAM[stream]))


def _word(key, counter):
    return _mix(_mix(counter) ^ key)


def _pair(key, counter):
    """Two independent standard normals (float64) from the words at `counter` and `counter + 1`: Box and Muller 1958."""
    k = _word(key, counter) | np.uint32(1)  # u = k / 2^32 lies in (0, 1)
    mantissa, exponent = np.frexp(k.astype(np.float64))  # k = mantissa 2^exponent, 1/2 <= mantissa < 1
    q = (mantissa - math.sqrt(0.5)) / (mantissa + math.sqrt(0.5))  # log mantissa = 2 atanh(q) - log(2) / 2
    radius = np.sqrt(2 * ((32 - exponent + 0.5) * math.log(2) - 2 * q * _horner(LOG_SERIES, q * q)))

    k = _word(key, counter + np.uint32(1))
    quadrant = k >> np.uint32(30)
    angle = ((k & np.uint32(0x3FFFFFFF)).astype(np.float64) - 2**29) * (math.pi * 2**-31)  # in [-pi/4, pi/4)
    cos = radius * _horner(COS_SERIES, angle * angle)
    sin = radius * (angle * _horner(SIN_SERIES, angle * angle))
    return np.choose(quadrant, (cos, -sin, -cos, sin)), np.choose(quadrant, (sin, cos, -sin, -cos))


def _horner(series, z):
    total = series[0]
    for coefficient in series[1:]:
        total = total * z + coefficient
    return total
