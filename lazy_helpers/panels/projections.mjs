// The exact law of what a network does along one direction from x, at any d and m: two normals a neuron, and a chi variable
// for all coordinates that play no part.
//
// x is the first unit vector. The part of grad f(x; W0) across x is c = (a_s [w_s . x > 0] / sqrt m) times Gaussian rows that are
// independent of c: its length is ||c|| times a chi variable of d - 1 degrees of freedom. Rows turned so that it lies
// along a coordinate axis keep their law, but for their component along c. So each weight is (w_s . x, w_s . e) and a
// rest in d - 2 coordinates, of which only lengths and angles are asked: those of Gaussian vectors, by Bartlett 1933.

import { chi } from "./draws.mjs";
import { normals, ROW, signs, streamKey } from "./weights.mjs";

export const FAR_D = {
  symbol: "d",
  name: "input dimension",
  values: Array.from({ length: 93 }, (_, k) => Number((25 * 10 ** (k / 20)).toPrecision(2))),
  whole: true,
};
export const RADII = [...Array.from({ length: 59 }, (_, k) => Number((0.001 * 10 ** (k / 20)).toPrecision(2))), 0.9];
export const R = { symbol: "R", name: "perturbation radius", values: RADII };

/** The first two coordinates of the weights, u and z, and a, of m neurons or more: what was drawn is kept and added to. */
function neurons(m, seed, cache) {
  const kept = cache.neurons?.seed === seed ? cache.neurons : { seed, m: 0, u: [], z: [], a: [] };
  if (kept.m >= m) return (cache.neurons = kept);
  const u = new Float32Array(m), z = new Float32Array(m), pair = new Float32Array(2);
  u.set(kept.u);
  z.set(kept.z);
  const key = streamKey(seed, "W0");
  for (let s = kept.m; s < m; s++) {
    normals(pair, 0, key, s * ROW, 2);
    u[s] = pair[0];
    z[s] = pair[1];
  }
  return (cache.neurons = { seed, m, u, z, a: signs(m, seed) });
}

/**
 * The network of the state around x, as it is along `way`: "gradient" (delta = -R sign(f) grad f / ||grad f||) or "random"
 * (delta of length R, uniformly random across x). Besides f, g = ||grad f|| and each neuron's u = w . x: for the `count`
 * neurons that switch up to ||delta|| = 1 where they do, `turns`; whether they switch `off`; and what the switch adds to
 * sqrt(m) f at x, `height`, and to its slope in ||delta||, `slope`. The second axis e is the rest of delta's plane with x.
 */
export function along({ d, m, seed }, way, cache) {
  const name = [d, m, seed, way].join();
  if (cache.along?.name === name) return cache.along;
  const drawn = neurons(m, seed, cache);
  const [u, z, a] = [drawn.u, drawn.z, drawn.a].map((all) => all.subarray(0, m));
  const forwards = way === "gradient";
  let active = 0, value = 0, common = 0;
  for (let s = 0; s < m; s++) {
    if (!(u[s] > 0)) continue;
    active++;
    value += a[s] * u[s];
    common += forwards ? z[s] : a[s] * z[s];
  }
  common /= Math.sqrt(active); // the component of z along c, or of a z on the gradient's own way
  const f = value / Math.sqrt(m), sign = f < 0 ? -1 : 1;
  const key = streamKey(seed, "chi");
  const share = Math.sqrt(active / m); // ||c||
  const length = chi(d - 1, key, 0), across = share * length; // of grad f across x
  const g = Math.hypot(f, across);
  const away = forwards ? 0 : chi(d - 2, key, 1);
  const aside = across * (forwards ? 1 : common / Math.hypot(common, away)); // its component along e
  const rest = forwards ? null : across * (away / Math.hypot(common, away)); // and the length that is left
  const shift = (aside / share - common) / Math.sqrt(active);
  const [dx, de] = forwards ? [(-sign * f) / g, (-sign * across) / g] : [0, 1]; // the direction of delta

  const room = ((cache.room ??= {}).along ??= { size: 0 });
  if (room.size < m) Object.assign(room, { size: m, turns: new Float64Array(m), height: new Float64Array(m), slope: new Float64Array(m), off: new Uint8Array(m) });
  const { turns, height, slope, off } = room;
  let count = 0, start = 0;
  for (let s = 0; s < m; s++) {
    const us = u[s], as = a[s], on = us > 0;
    const e = on ? (forwards ? as * (z[s] + shift) : z[s] + as * shift) : z[s];
    const v = us * dx + e * de;
    if (on) start += as * v;
    if (us * v < 0 && Math.abs(us) <= Math.abs(v)) {
      const gain = on ? -as : as;
      turns[count] = -us / v;
      height[count] = gain * us;
      slope[count] = gain * v;
      off[count++] = on;
    }
  }
  return (cache.along = { name, d, m, seed, drawn, u, z, a, length, count, turns, height, slope, off, start, dx, de, active, f, g, sign, aside, rest });
}

/** f at x + delta, ||delta|| = R. */
export function valueAt({ m, f, start, count, turns, height, slope }, R) {
  let h = 0, b = start;
  for (let k = 0; k < count; k++) {
    if (turns[k] > R) continue;
    h += height[k];
    b += slope[k];
  }
  return f + (h + R * b) / Math.sqrt(m);
}

/** f at `steps` + 1 equal distances from x to x + delta, ||delta|| = far, exactly: between two switches f is linear. */
export function valuesTo({ m, f, start, count, turns, height, slope }, far, steps) {
  const heights = new Float64Array(steps + 1), slopes = new Float64Array(steps + 1);
  for (let k = 0; k < count; k++) {
    if (turns[k] > far) continue;
    const step = Math.ceil((turns[k] / far) * steps);
    heights[step] += height[k];
    slopes[step] += slope[k];
  }
  let h = 0, b = start;
  return Array.from({ length: steps + 1 }, (_, k) => {
    h += heights[k];
    b += slopes[k];
    return f + (h + ((far * k) / steps) * b) / Math.sqrt(m);
  });
}

const BUCKETS = 4096;

/**
 * The smallest ||delta|| <= 1 at which f changes its sign, exactly, or null: the bends up to there in their order, sorted
 * one bucket at a time, as f seldom needs many of them.
 */
export function firstFlip(net) {
  const near = (4 * Math.abs(net.f)) / net.g;
  return (near < 1 ? flipUpTo(net, near) : null) ?? flipUpTo(net, 1);
}

function flipUpTo({ m, f, g, sign, count, turns, slope, start }, far) {
  const first = new Uint32Array(BUCKETS + 1);
  const bucket = (turn) => Math.floor((turn / far) * (BUCKETS - 1));
  for (let k = 0; k < count; k++) if (turns[k] <= far) first[bucket(turns[k]) + 1]++;
  for (let b = 0; b < BUCKETS; b++) first[b + 1] += first[b];
  const order = new Uint32Array(first[BUCKETS]), next = first.slice();
  for (let k = 0; k < count; k++) if (turns[k] <= far) order[next[bucket(turns[k])]++] = k;

  const root = Math.sqrt(m);
  let h = Math.abs(f), b = (sign * start) / root, at = 0;
  const crossing = (to) => {
    const there = h + b * (to - at);
    if (there < -1e-12 * (1 + g)) return at - h / b; // rounding is no crossing
    h = Math.max(there, 0);
    at = to;
    return null;
  };
  for (let k = 0; k < BUCKETS; k++) {
    const near = order.subarray(first[k], first[k + 1]);
    if (near.length > 1) near.sort((s, t) => turns[s] - turns[t]);
    for (const s of near) {
      const found = crossing(turns[s]);
      if (found !== null) return found;
      b += (sign * slope[s]) / root;
    }
  }
  return crossing(far);
}

/**
 * How the gradient turns from x to x + delta: for each ||delta|| of the slider and last for R, the `switched` neurons, the
 * `norm` of D = grad f(x) - grad f(x + delta), and its component `aside` along grad f(x).
 */
export function turning(net, R, cache) {
  const { name, d, m, seed, f, g, aside, rest, active } = net;
  if (cache.turned?.name !== name) cache.turned = { name, rows: switchedAt(net, RADII) };
  const known = RADII.indexOf(R);
  const rows = [...cache.turned.rows, known < 0 ? switchedAt(net, [R])[0] : cache.turned.rows[known]];

  // In the d - 2 coordinates D is t = a ([w . x > 0] - [w . (x + delta) > 0]) / sqrt m times Gaussian rows; on the gradient's
  // way without their component along c, else beside c, so that D's product with grad f is known too.
  const alone = rest === null;
  const size = rows.map(({ off, on }) => (off + on) / m), shared = rows.map(({ off }) => off / m);
  const c = active / m;
  const dots = rows.map((_, j) => rows.map((_, k) => Math.min(size[j], size[k]) - (alone ? (shared[j] * shared[k]) / c : 0)));
  const gram = alone ? dots : [[c, ...shared], ...dots.map((row, k) => [shared[k], ...row])];
  const X = gaussians(gram, d - 2, streamKey(seed, "chi"), rest).slice(alone ? 0 : 1);
  return rows.map(({ off, on, x, e }, k) => ({
    switched: off + on,
    norm: Math.hypot(x, e, ...X[k]),
    aside: (x * f + e * aside + (alone ? 0 : X[k][0] * rest)) / g,
  }));
}

/** The neurons that switch off and on up to each radius (ascending), and the components of D along x and e. */
function switchedAt({ m, count, turns, height, slope, off, dx, de }, radii) {
  const last = radii.length - 1, stops = Float64Array.from(radii), perStep = 20 / Math.LN10;
  const offs = new Float64Array(last + 1), ons = offs.slice(), xs = offs.slice(), vs = offs.slice();
  for (let s = 0; s < count; s++) {
    const turn = turns[s];
    if (turn > stops[last]) continue;
    let k = turn > stops[0] ? Math.min(Math.ceil(perStep * Math.log(turn / stops[0])), last) : 0; // but for the radii's rounding
    while (k > 0 && stops[k - 1] >= turn) k--;
    while (stops[k] < turn) k++;
    offs[k] += off[s];
    ons[k] += 1 - off[s];
    xs[k] -= height[s];
    vs[k] -= slope[s];
  }
  let [offSum, onSum, x, v] = [0, 0, 0, 0];
  return radii.map((_, k) => {
    [offSum, onSum, x, v] = [offSum + offs[k], onSum + ons[k], x + xs[k], v + vs[k]];
    return { off: offSum, on: onSum, x: x / Math.sqrt(m), e: (v - dx * x) / de / Math.sqrt(m) };
  });
}

/**
 * Combinations of n-dimensional Gaussian vectors, up to a rotation, from the scalar products of their coefficients: L B with
 * L L^T = gram and a triangle B of normals, chi variables on its diagonal. The first one's length may be known.
 */
function gaussians(gram, n, key, known) {
  const L = cholesky(gram);
  const B = gram.map((_, i) => {
    const row = new Float32Array(gram.length + 1);
    if (i) normals(row, 0, key, (i + 2) * ROW + ROW / 2, i);
    row.fill(0, Math.min(i, n));
    if (i < n) row[i] = chi(n - i, key, i + 2);
    return row;
  });
  if (known !== null) B[0][0] = known / L[0][0];
  return L.map((row, k) => row.map((_, j) => row.slice(j, k + 1).reduce((sum, value, i) => sum + value * B[j + i][j], 0)));
}

/** The lower triangle L with L L^T = gram; a row that depends on those before it has none of its own. */
function cholesky(gram) {
  const L = gram.map((row) => row.map(() => 0));
  for (let i = 0; i < gram.length; i++) {
    for (let j = 0; j <= i; j++) {
      let left = gram[i][j];
      for (let k = 0; k < j; k++) left -= L[i][k] * L[j][k];
      if (i === j) L[i][i] = left > 1e-12 * gram[i][i] ? Math.sqrt(left) : 0;
      else L[i][j] = L[j][j] ? left / L[j][j] : 0;
    }
  }
  return L;
}
