// Lemma 4.2: how short the input gradient can be, over many draws and over every W of the ball of each, at any d.
//
// No W is drawn: the part of grad f(x; W0) along x is f, and the rest is sqrt(N / m) times a chi variable of d - 1
// degrees of freedom, N the active neurons, in a uniformly random direction e. So two coordinates of each weight, along x and
// along e, say how far the ball lets the gradient shrink along itself; the coordinates left are again one chi variable.

import { gradient_bound, gradient_bound_from } from "./lemmas.mjs";
import { PANELS } from "./panel.mjs";
import { C0, SIDES } from "./setting.mjs";
import { chi, count, drawNetworks, drawsAt, drawsShown, GAMMA, mean, MILLION, notesOf, shownOf } from "./draws.mjs";
import { streamKey } from "./weights.mjs";
import { circle, figure, html, line, logScale, numbers, plain, powers, rect, roundRange, scale, strokes, text, ticks, write, xAxis, yAxis } from "./view.mjs";

const DIMENSIONS = Array.from({ length: 73 }, (_, k) => Number((25 * 10 ** (k / 20)).toPrecision(2)));
const SHARP = 0.5 + 1 / Math.PI; // by how much of C0 the gradient can shrink, m >> d (our derivation)

/** Of the active neurons: how many there are, and the sums of a_s u_s and of z_s. */
export function activeSums(u, z, a) {
  let active = 0, along = 0, beside = 0;
  for (let s = 0; s < u.length; s++) {
    if (!(u[s] > 0)) continue;
    active++;
    along += a[s] * u[s];
    beside += z[s];
  }
  return { active, along, beside };
}

/**
 * One network and its ball, from u = W0 x and p = W0 e, where e is the direction of P grad f(x; W0). Where u_s <= 0 p_s is z_s.
 * Of the active neurons only the sum of a_s p_s is not normal: it is sqrt N times `length`, and a_s p_s is z_s but for its mean.
 *
 * In the direction y opposite to the gradient each neuron moves as extremes.py's `respond` has it. `norm` = ||grad f(x; W0)||;
 * `lower` is the least component along it that a W of the ball has, below which no ||grad f(x; W)|| falls. A W with the gates
 * of that one: without the moves of the neurons that never switch its gradient has length `plane` in the plane of x and e,
 * and across it is the sum of `turned` standard normal vectors over sqrt m; those neurons' moves take `room` off.
 */
export function least_gradient(u, z, a, V, length, { active, along, beside } = activeSums(u, z, a)) {
  const m = u.length, root = Math.sqrt(m);
  const across = Math.sqrt(active) * length; // the sum of a_s p_s
  const shift = (across - beside) / active;
  const norm = Math.hypot(along, across) / root;
  const yx = -along / root / norm, ye = -across / root / norm, side = Math.abs(ye);

  // The sums over the neurons that are active in all of the ball: over all active ones, but for those near the plane.
  let gx = along, ge = across, free = active;
  let lowest = 0, nearX = 0, nearE = 0, off = 0, on = 0;
  for (let s = 0; s < m; s++) {
    const us = u[s];
    if (Math.abs(us) > V) continue;
    const as = a[s];
    const ps = us > 0 ? as * (z[s] + shift) : z[s];
    if (us > 0) {
      gx -= as * us;
      ge -= as * ps;
      free--;
    }
    const far = us + as * V * yx >= 0; // the ball's far end in the direction a y is active; else along the plane w . x = 0
    const half = Math.sqrt(V * V - us * us);
    const gain = far ? as * (us * yx + ps * ye) + V : as * ps * ye + half * side;
    if (gain > 0) {
      lowest -= gain;
      nearX += far ? as * us + V * yx : 0;
      nearE += far ? as * ps + V * ye : as * ps + (half * ye) / side;
      if (us <= 0) on++;
    } else if (us > 0) off++;
  }
  lowest -= gx * yx + ge * ye + free * V;
  return {
    norm,
    lower: Math.max(0, lowest / root),
    plane: Math.hypot(gx + nearX, ge + nearE) / root,
    turned: off * (1 - off / active) + on, // the active neurons' rest sums to zero
    room: (V * free) / root,
  };
}

function measureGradient({ d, m, C0, seed }, cache) {
  const { networks, u, z, a } = drawNetworks(cache, m, seed, true);
  const slice = (array, i) => array.subarray(i * m, (i + 1) * m);
  if (cache.sums?.m !== m || cache.sums.seed !== seed) {
    const of = Array.from({ length: networks }, (_, i) => activeSums(slice(u, i), slice(z, i), slice(a, i)));
    cache.sums = { m, seed, of };
  }
  const V = C0 / Math.sqrt(m);
  const key = streamKey(seed, "chi");
  const norm = new Float64Array(networks), lower = new Float64Array(networks), found = new Float64Array(networks);
  for (let i = 0; i < networks; i++) {
    const least = least_gradient(slice(u, i), slice(z, i), slice(a, i), V, chi(d - 1, key, 2 * i), cache.sums.of[i]);
    norm[i] = least.norm;
    lower[i] = least.lower;
    const switched = Math.hypot(least.plane, Math.sqrt(least.turned / m) * chi(d - 2, key, 2 * i + 1));
    found[i] = Math.max(0, Math.min(switched, least.norm) - least.room);
  }
  return { norm, lower, found };
}

function buildGradient() {
  const curves = figure({
    caption: "‖∇f(x; W)‖ in units of √d, against d",
    keys: [["dot point", "W₀"], ["area least", "least over the ball"], ["line mean", "√(d/2)"], ["line sharp", "least, formula (d ≤ m)"], ["line limit", "Lemma 4.2"], ["area void", "says nothing"]],
    height: 300,
  });
  const draws = figure({
    caption: "At this d, in independent draws",
    keys: [["dot point", "W₀"], ["line mean", "√(d/2)"], ["area least", "least over the ball"], ["line sharp", "least, formula"], ["line limit", "Lemma 4.2"]],
    height: 300,
  });
  const table = numbers(4, {
    grad_norm: "‖∇f(x; W₀)‖, mean",
    found: "shortest found, mean",
    lower: "certified, mean",
    sharp: "√(d/2) − (½+1/π) C₀",
    bound: "Lemma 4.2’s bound",
    bound_from: "it speaks from d =",
    smallest: "certified, least",
    sharp_from: "formula: from d =",
  });
  const figures = html("div", { class: "lp-pair lp-level" }, curves.el, draws.el);

  function show({ d, m, C0, gamma }, data) {
    const bound = gradient_bound(d, m, C0, gamma), bound_from = gradient_bound_from(m, C0, gamma);
    const sharp = Math.sqrt(d / 2) - SHARP * C0;
    const says = bound > 0;
    const broken = count(data.found, (value) => value < bound);
    const results = {
      draws: data.norm.length,
      grad_norm: mean(data.norm),
      found: mean(data.found),
      lower: mean(data.lower),
      smallest: Math.min(...data.lower),
      beyond: broken / data.norm.length,
      sharp,
      bound,
      bound_from,
      vacuous: !says,
    };
    const share = (value) => `${text(value / Math.sqrt(d), 3)} √d`;
    table.show({
      grad_norm: [results.grad_norm, `√(d/2) = ${text(Math.sqrt(d / 2))}`],
      found: [results.found, share(results.found)],
      lower: [results.lower, share(results.lower)],
      sharp: [sharp, d > m ? "not meant for d > m" : "the least for m ≫ d"],
      bound: [bound, says ? `${share(bound)}; broken in ${text(broken)} of ${drawsAt(m)}` : "≤ 0: it says nothing"],
      bound_from: [bound_from, bound_from === null ? "none: too many flips" : `at m = ${text(m)}, γ = ${plain(gamma)}`],
      smallest: [results.smallest, `the least of ${drawsAt(m)}`],
      sharp_from: [Math.ceil(2 * SHARP ** 2 * C0 ** 2), "limit m → ∞, no γ"],
    });
    const everyDraw = results.draws > 1 ? `in all ${drawsAt(m)}` : "in this draw";
    const truth = results.smallest > 0
      ? `${everyDraw} every W in the ball has ‖∇f(x; W)‖ ≥ ${text(results.smallest, 3)} = ${share(results.smallest)}`
      : `at W₀ the mean length is ${text(results.grad_norm, 3)}, but no positive length is certified for all W in the balls of all draws`;
    const from = bound_from === null ? "at this m at no d, as too many neurons can change their sign" : `only from d = ${text(bound_from)} on`;
    const headline = says
      ? `Lemma 4.2 gives ‖∇f(x; W)‖ ≥ ${text(bound, 3)} for every W in the ball. Measured: ${truth}.`
      : `Lemma 4.2 says nothing at d = ${text(d)}, ${from}. Measured: ${truth}.`;
    curves.show(
      `Against d, in units of the square root of d: at W0 the gradient stays near 0.707; ${bound_from === null ? "the lemma's bound is nowhere positive" : `the lemma's bound is positive from d = ${bound_from} on`}. ${headline}`,
      (frame) => paintDimensions(frame, { d, m, C0, gamma, bound_from }, data),
    );
    draws.show(
      `In each draw the gradient at W0, of mean length ${text(results.grad_norm)}, and an interval that holds the least over the ball, from ${text(results.lower)} to ${text(results.found)} on average.`,
      (frame) => paintGradients(frame, d, m, sharp, bound, data),
    );
    return { headline, results };
  }
  return { nodes: [figures, table.el], show, close: () => [curves, draws].forEach((part) => part.close()) };
}

const TOP_SHARE = 1;

/** The interval from `low` down to `high` in pixels, never too thin to be seen. */
function leastMark(x, high, low, width) {
  const tall = Math.max(low - high, 4);
  return rect("least", x - width / 2, (high + low - tall) / 2, width, tall);
}

function paintDimensions({ width, height }, { d, m, C0, gamma, bound_from }, { norm, lower, found }) {
  const left = 46, right = width - 22, top = 26, bottom = height - 42;
  const [low, high] = [DIMENSIONS[0], DIMENSIONS.at(-1)];
  const x = logScale(low, high, left, right), y = scale(0, TOP_SHARE, bottom, top);
  const dimensions = Array.from({ length: 145 }, (_, k) => low * (high / low) ** (k / 144));
  const curve = (kind, length, to = high) => {
    const points = dimensions.filter((d) => d <= to).map((d) => [d, length(d) / Math.sqrt(d)]).filter(([, share]) => share > 0);
    return points.length ? [line(kind, points.map(([d, share]) => [x(d), y(Math.min(share, TOP_SHARE))]))] : [];
  };
  const share = (length) => y(Math.min(length / Math.sqrt(d), TOP_SHARE));
  const silent = Math.min(bound_from ?? Infinity, high);
  const words = silent === high ? "the lemma says nothing at these d" : "the lemma says nothing";
  return [
    ...(silent > low ? [rect("void", left, top, x(silent) - left, bottom - top)] : []),
    ...(x(silent) - left > 140 ? [write("title", left + 8, top + 16, "start", words)] : []),
    ...yAxis(y, left, ticks(0, TOP_SHARE, 5), "‖∇f‖/√d", right, top),
    strokes("axis", [[x(d), share(mean(norm)), x(d), bottom]]),
    ...curve("mean", (d) => Math.sqrt(d / 2)),
    ...curve("sharp", (d) => Math.sqrt(d / 2) - SHARP * C0, m),
    ...curve("limit", (d) => gradient_bound(d, m, C0, gamma)),
    leastMark(x(d), share(mean(found)), share(mean(lower)), 12),
    circle("point", x(d), share(mean(norm)), 5),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, powers(low, high), "input dimension d", (left + right) / 2),
  ];
}

function paintGradients({ width, height }, d, m, sharp, bound, { norm, lower, found }) {
  const left = 46, right = width - 10, top = 26, bottom = height - 30;
  const shown = drawsShown(width, m);
  const order = Array.from(norm.subarray(0, shown).keys()).sort((i, j) => norm[i] - norm[j]);
  const [, high] = roundRange(0, 1.05 * Math.max(...norm.subarray(0, shown)), 5);
  const y = scale(0, high, bottom, top);
  const step = (right - left) / shown;
  const x = (k) => left + (k + 0.5) * step;
  const bar = Math.max(1, Math.min(0.7 * step, 18));
  const across = (value) => [[left, y(value), right, y(value)]];
  return [
    ...yAxis(y, left, ticks(0, high, 5), "‖∇f(x; W)‖", right, top),
    strokes("mean", across(Math.sqrt(d / 2))),
    ...order.map((i, k) => leastMark(x(k), y(found[i]), y(lower[i]), bar)),
    ...order.map((i, k) => circle("point", x(k), y(norm[i]), Math.max(1.8, Math.min(0.45 * step, 5)))),
    ...(sharp > 0 && d <= m ? [strokes("sharp", across(sharp))] : []),
    ...(bound > 0 ? [strokes("limit", across(bound))] : [write("title", right - 4, bottom - 8, "end", "Lemma 4.2’s bound is below 0")]),
    strokes("frame", [[left, bottom, right, bottom]]),
    write("title", (left + right) / 2, height - 8, "middle", shownOf(shown, m)),
  ];
}

PANELS.gradient = {
  title: "Lemma 4.2: the gradient is of length √d",
  controls: { d: { symbol: "d", name: "input dimension", values: DIMENSIONS, whole: true }, m: MILLION, C0, gamma: GAMMA },
  notes: ({ d, ...rest }) => ({
    d: SIDES.includes(Math.sqrt(d)) ? `${Math.sqrt(d)} × ${Math.sqrt(d)} pixels` : `√d = ${text(Math.sqrt(d), 3)}`,
    ...notesOf(rest),
  }),
  needs: ["d", "m", "C0"],
  measure: measureGradient,
  build: buildGradient,
};
