// Lemma 4.4: how far the input gradient turns from x to x + delta, beside a bound for every delta and every W of the ball.

import { MILLION } from "./draws.mjs";
import { along, FAR_D, R, RADII, turning } from "./projections.mjs";
import { PANELS } from "./panel.mjs";
import { C0 } from "./setting.mjs";
import { circle, figure, html, line, logScale, numbers, percent, plain, powers, rect, strokes, text, write, xAxis, yAxis } from "./view.mjs";

export const GAMMA_FIXED = 0.01; // for what the panels cannot measure of a draw

/** sigma_max of an (m, d) standard normal matrix is at most this with probability 1 - gamma (Davidson and Szarek 2001). */
export const singular_bound = (d, m, gamma) => Math.sqrt(m) + Math.sqrt(d) + Math.sqrt(2 * Math.log(1 / gamma));

const PER_UNIT = 2 ** 16, BUCKETS_OF_U = 8 * PER_UNIT; // of |w . x|

/** The neurons drawn, those with the smallest |w_s,0 . x| first, put into buckets and those sorted by insertion. */
function sorted({ m, u, a }) {
  const next = new Uint32Array(BUCKETS_OF_U + 2), index = new Uint32Array(m), values = new Float32Array(m);
  const bucket = (value) => Math.min(Math.abs(value) * PER_UNIT, BUCKETS_OF_U) | 0;
  for (let s = 0; s < m; s++) next[bucket(u[s]) + 1]++;
  for (let k = 0; k <= BUCKETS_OF_U; k++) next[k + 1] += next[k];
  for (let s = 0; s < m; s++) {
    const place = next[bucket(u[s])]++;
    index[place] = s;
    values[place] = Math.abs(u[s]);
  }
  for (let k = 1; k < m; k++) {
    const value = values[k], s = index[k];
    let place = k;
    while (place > 0 && values[place - 1] > value) {
      values[place] = values[place - 1];
      index[place] = index[place - 1];
      place--;
    }
    values[place] = value;
    index[place] = s;
  }
  for (let k = 0; k < m; k++) values[k] *= a[index[k]];
  return { index, values }; // a |w . x|
}

/**
 * The |w_s,0 . x| of the neurons that `a` asks for (+1, -1, or 0 for all) in ascending order, as `values`, and for each k the
 * `sums` and `squares` of the first k of them. The order is found once a draw, whatever m is.
 */
export function nearest(net, a, cache) {
  const { m, drawn } = net, name = `${m},${net.seed}`;
  if (cache.order?.drawn !== drawn) cache.order = { drawn, ...sorted(drawn) };
  if (cache.nearest?.name !== name) cache.nearest = { name };
  if (cache.nearest[a]) return cache.nearest[a];
  const { index, values } = cache.order, all = values.length;
  const room = ((cache.room ??= {})[`nearest ${a}`] ??= { all: 0 });
  if (room.all < all) Object.assign(room, { all, values: new Float32Array(all + 1), sums: new Float64Array(all + 1), squares: new Float64Array(all + 1) });
  const { values: sizes, sums, squares } = room;
  let k = 0, sum = 0, square = 0;
  for (let place = 0; place < all; place++) {
    const value = values[place], size = Math.abs(value);
    const take = Number(index[place] < m) * Number(value * a >= 0); // no branch: which neurons are asked for is random
    sizes[k] = size;
    k += take;
    sums[k] = sum += take * size;
    squares[k] = square += take * size * size;
  }
  return (cache.nearest[a] = { m, values: sizes.subarray(0, k), sums, squares });
}

/** The least k in [low, high] at which `test` holds, given that from there on it holds; high where it never does. */
export function firstWhere(low, high, test) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (test(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * As lemmas.py's, for any sigma >= sigma_max(W0) + C0: no W of the ball and no ||delta|| <= R turns the gradient by more.
 * `switched` bounds the neurons that switch.
 */
export function difference_bound(all, C0, sigma, R) {
  const { m } = all;
  const V = C0 / Math.sqrt(m);
  const free = firstWhere(0, m, (k) => all.values[k] > V);
  const spent = (k) => all.squares[k] - all.squares[free] - 2 * V * (all.sums[k] - all.sums[free]) + (k - free) * V * V;
  const switched = firstWhere(free, m, (k) => spent(k + 1) > (sigma * R) ** 2);
  return { switched, norm: sigma * Math.sqrt(switched / m) };
}

function measureDifference({ d, m, C0, R, delta, seed }, cache) {
  const net = along({ d, m, seed }, delta, cache);
  const turns = turning(net, R, cache);
  const near = nearest(net, 0, cache);
  const sigma = singular_bound(d, m, GAMMA_FIXED) + C0;
  const bounds = [...RADII, R].map((radius) => difference_bound(near, C0, sigma, radius));
  // The angle between x and x + delta, over pi, is the chance that a weight drawn afresh switches.
  const cosine = delta === "gradient" ? Math.abs(net.f) / net.g : 0;
  const expected = [...RADII, R].map((r) => Math.atan2(r * Math.sqrt(1 - cosine ** 2), 1 - r * cosine) / Math.PI);
  const column = (rows, key) => rows.map((row) => row[key]);
  return {
    grad_norm: net.g,
    sigma,
    norm: column(turns, "norm"),
    aside: column(turns, "aside"),
    switched: column(turns, "switched"),
    bound: column(bounds, "norm"),
    bound_switched: column(bounds, "switched"),
    expected,
  };
}

const typicalTurn = (d, R) => Math.sqrt((d * Math.atan(R)) / Math.PI); // lemmas.py's random_difference

function buildDifference() {
  const turn = figure({
    caption: "How far the gradient turns",
    keys: [["line curve", "‖D‖"], ["line aside", "along ∇f(x)"], ["line tangent", "√(d arctan(R)/π)"], ["line limit", "bound, all W and δ"], ["area void", "more than ‖∇f(x)‖"]],
    height: 300,
  });
  const switches = figure({
    caption: "Neurons that switch",
    keys: [["line curve", "switched"], ["line tangent", "angle(x, x + δ)/π"], ["line limit", "bound, all W and δ"]],
    height: 300,
  });
  const table = numbers(4, {
    norm: "the turn, ‖D‖",
    along: "its part along ∇f(x)",
    grad_norm: "‖∇f(x; W₀)‖",
    switches: "neurons that switch",
    predicted: "√(d arctan(R)/π)",
    bound: "bound of ‖D‖, all W and δ",
    bound_switches: "bound of the switches",
    sigma: html("span", {}, "σ", html("sub", {}, "max"), "(W₀) + C₀, at most"),
  });
  const figures = html("div", { class: "lp-pair" }, turn.el, switches.el);

  function show({ d, m, C0, R, delta }, data) {
    const { grad_norm, sigma } = data;
    const here = Object.fromEntries(Object.entries(data).filter(([, part]) => part.length).map(([key, part]) => [key, part.at(-1)]));
    const predicted = typicalTurn(d, R);
    const vacuous = here.bound >= grad_norm;
    const share = (value) => percent(value / grad_norm);
    const ofM = (value) => `${percent(value / m)} of m`;
    table.show({
      norm: [here.norm, `${share(here.norm)} of ‖∇f(x)‖`],
      along: [here.aside, `${share(here.aside)} of ‖∇f(x)‖`],
      grad_norm: [grad_norm, `√(d/2) = ${text(Math.sqrt(d / 2))}`],
      switches: [here.switched, `m angle/π = ${text(m * here.expected)}`],
      predicted: [predicted, `random δ; ‖D‖ is ${text(here.norm / predicted, 3)} times this`],
      bound: [here.bound, vacuous ? "vacuous: ‖∇f(x)‖ is less" : `${share(here.bound)} of ‖∇f(x)‖`],
      bound_switches: [here.bound_switched, ofM(here.bound_switched)],
      sigma: [sigma, `√m + √d + ${text(sigma - Math.sqrt(m) - Math.sqrt(d), 3)}, in 99\u202f% of draws`],
    });
    const where = delta === "gradient" ? "A step of this length along the gradient" : "A random δ of this length";
    const headline =
      `${where} switches ${text(here.switched)} of ${text(m)} neurons and turns the gradient by ${share(here.norm)} of its length; ` +
      `only the part along the gradient, ${share(here.aside)}, enters the theorem. ` +
      (vacuous
        ? `The bound for every W of the ball and every δ is vacuous here: ${text(here.bound, 3)}, and the gradient’s own length is ${text(grad_norm, 3)}.`
        : `With probability 99\u202f% no W of the ball and no δ turns it by more than ${share(here.bound)}.`);
    turn.show(
      `Against R from 0.001 to 0.9, both axes logarithmic: the turn grows as the square root of R, its part along the gradient as R. ${headline}`,
      (frame) => paintTurn(frame, d, R, data),
    );
    switches.show(
      `The share of neurons that switch, against R, both axes logarithmic: ${text(here.switched)} at R = ${plain(R)}, where the angle predicts ${text(m * here.expected)} and the bound allows ${text(here.bound_switched)}.`,
      (frame) => paintSwitches(frame, m, R, data),
    );
    return {
      headline,
      results: { norm: here.norm, along: here.aside, grad_norm, switches: here.switched, predicted, bound: here.bound, bound_switches: here.bound_switched, vacuous },
    };
  }
  return { nodes: [figures, table.el], show, close: () => [turn, switches].forEach((part) => part.close()) };
}

/** A frame with both axes logarithmic, the mark of R, and curves over RADII: { kind, values, here } with values in [low, high]. */
function paintLogLog({ width, height }, [low, high], title, R, curves, under = () => []) {
  const left = 50, right = width - 12, top = 26, bottom = height - 42;
  const x = logScale(RADII[0], 1, left, right), y = logScale(low, high, bottom, top);
  const drawn = (values) => RADII.map((r, k) => [x(r), values[k]]).filter(([, value]) => value >= low && value <= high);
  const marks = powers(low, high);
  return [
    ...under(y, left, right, top),
    ...yAxis(y, left, marks.length > 5 ? marks.filter((_, k) => (marks.length - 1 - k) % 2 === 0) : marks, title, right, top),
    strokes("edge", [[x(R), top, x(R), bottom]]),
    ...curves.map(({ kind, values }) => [kind, drawn(values).map(([at, value]) => [at, y(value)])]).filter(([, points]) => points.length > 1).map(([kind, points]) => line(kind, points)),
    ...curves.filter(({ dot, here }) => dot && here >= low && here <= high).map(({ dot, here }) => circle(dot, x(R), y(here), 4.5)),
    write("mark", x(R) > right - 24 ? x(R) - 5 : x(R) + 5, bottom - 8, x(R) > right - 24 ? "end" : "start", "R"),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, powers(RADII[0], 1), "‖δ‖, where ‖x‖ = 1", (left + right) / 2),
  ];
}

function paintTurn(frame, d, R, { grad_norm, norm, aside, bound }) {
  const shares = (values) => values.map((value) => value / grad_norm);
  const curve = (kind, values, dot) => ({ kind, values: shares(values), dot, here: values.at(-1) / grad_norm });
  const high = 10 ** Math.max(1, Math.ceil(Math.log10(Math.max(...shares(bound)))));
  const curves = [
    curve("tangent", RADII.map((r) => typicalTurn(d, r))),
    curve("limit", bound, "flip"),
    curve("aside", aside, "aside-point"),
    curve("curve", norm, "point"),
  ];
  return paintLogLog(frame, [0.0001, high], "share of ‖∇f(x)‖", R, curves, (y, left, right, top) => [
    rect("void", left, top, right - left, y(1) - top),
    strokes("zero", [[left, y(1), right, y(1)]]),
  ]);
}

function paintSwitches(frame, m, R, { switched, expected, bound_switched }) {
  const curve = (kind, values, dot) => ({ kind, values: values.map((value) => value / m), dot, here: values.at(-1) / m });
  const curves = [
    { kind: "tangent", values: expected },
    curve("limit", bound_switched, "flip"),
    curve("curve", switched, "point"),
  ];
  return paintLogLog(frame, [0.0001, 1], "share of m", R, curves);
}

PANELS.difference = {
  title: "Lemma 4.4: the gradient hardly turns",
  controls: {
    d: FAR_D,
    m: MILLION,
    C0,
    R,
    delta: { name: "δ of length R", options: { gradient: "against the sign of f, along ∇f(x)", random: "random, across x" } },
  },
  notes: ({ d, m, C0, R }) => ({
    d: `√d = ${text(Math.sqrt(d), 3)}`,
    m: "hidden neurons",
    C0: `of the bound; V = C₀/√m = ${text(C0 / Math.sqrt(m), 3)}`,
    R: `R√d = ${text(R * Math.sqrt(d), 3)}; below ‖x‖ = 1`,
  }),
  needs: ["d", "m", "C0", "R", "delta"],
  measure: measureDifference,
  build: buildDifference,
};
