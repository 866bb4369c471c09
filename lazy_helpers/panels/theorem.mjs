// Theorem 3.1: the three-term inequality, for this network, for every W of the ball, and by the paper's own route.

import { MILLION } from "./draws.mjs";
import { difference_bound, firstWhere, GAMMA_FIXED, nearest, singular_bound } from "./difference.mjs";
import { least_gradient } from "./gradient.mjs";
import { value_range } from "./lazy.mjs";
import { gradient_bound, value_bound } from "./lemmas.mjs";
import { along, FAR_D, firstFlip, R, RADII, turning, valueAt, valuesTo } from "./projections.mjs";
import { PANELS } from "./panel.mjs";
import { C0 } from "./setting.mjs";
import { circle, figure, html, line, numbers, percent, plain, rect, roundRange, scale, strokes, text, ticks, write, xAxis, yAxis } from "./view.mjs";

/**
 * As theorem.py's, by the length of delta: what switching neurons add to f(x + delta), for T >= ||W delta||. Only those of
 * one output sign add, `part` of the `nearest`: k of them at most T sqrt k less their own |w_s,0 . x| - V.
 */
export function residual_bound(part, m, C0, T) {
  const V = C0 / Math.sqrt(m), n = part.values.length;
  const free = firstWhere(0, n, (k) => part.values[k] > V);
  const best = firstWhere(free, n, (k) => T * (Math.sqrt(k + 1) - Math.sqrt(k)) < part.values[k] - V);
  const spent = part.sums[best] - part.sums[free] - (best - free) * V;
  return (T * Math.sqrt(best) - spent) / Math.sqrt(m);
}

/** R -> { margin, gradient, turning, bound }: sign(f) f(x + delta) <= bound = margin - R (gradient - turning). */
function inequality({ d, m, C0, lens }, net, cache) {
  const name = `${net.name},${C0},${lens}`;
  if (cache.inequality?.name !== name) cache.inequality = { name, at: LENSES[lens]({ d, m, C0 }, net, cache) };
  return cache.inequality.at;
}

const terms = (R, margin, gradient, turning) => ({ margin, gradient, turning, bound: margin - R * (gradient - turning) });

const LENSES = {
  network(_, net) {
    const margin = Math.abs(net.f);
    return (R) => terms(R, margin, net.g, net.g - (margin - net.sign * valueAt(net, R)) / R);
  },

  /** What holds for every W of this draw's ball, but for sigma_max(W0). */
  ball({ d, m, C0 }, net, cache) {
    const V = C0 / Math.sqrt(m), sigma = singular_bound(d, m, GAMMA_FIXED) + C0;
    const [f_min, f_max] = value_range(net.u, net.a, V);
    const { lower } = least_gradient(net.u, net.z, net.a, V, net.length);
    const sides = [[f_max, nearest(net, 1, cache)], [-f_min, nearest(net, -1, cache)]].filter(([margin]) => margin > 0);
    return (R) => {
      const either = sides.map(([margin, part]) => terms(R, margin, lower, residual_bound(part, m, C0, sigma * R) / R));
      return either.reduce((worse, one) => (one.bound > worse.bound ? one : worse));
    };
  },

  /** The published lemmas, with probability 1 - gamma; the last one's count of neurons is the draw's own. */
  paper({ d, m, C0 }, net, cache) {
    const near = nearest(net, 0, cache);
    const part = GAMMA_FIXED / 3; // each of the three may fail
    const margin = value_bound(m, C0, part), gradient = gradient_bound(d, m, C0, part);
    const sigma = singular_bound(d, m, part) + C0;
    return (R) => terms(R, margin, gradient, difference_bound(near, C0, sigma, R).norm);
  },
};

const POINTS = 160; // of a curve

function measureTheorem({ d, m, C0, R, lens, seed }, cache) {
  const net = along({ d, m, seed }, "gradient", cache);
  const { f, g, sign } = net;
  if (cache.flip?.name !== net.name) cache.flip = { name: net.name, norm: firstFlip(net) };
  const flip = cache.flip.norm;
  const at = inequality({ d, m, C0, lens }, net, cache);
  const certified = lens === "network" ? [] : RADII.filter((radius) => at(radius).bound < 0);
  const from = certified.length ? certified[0] : 0;
  const far = Math.min(1, roundRange(0, 1.15 * Math.max(R, flip ?? (2 * Math.abs(f)) / g, from), 4)[1]);
  const radii = Array.from({ length: POINTS + 1 }, (_, k) => (far * k) / POINTS);
  return {
    f,
    grad_norm: g,
    flip,
    turn: turning(net, R, cache).at(-1),
    ...at(R),
    certified: certified.length ? [certified[0], certified.at(-1)] : null,
    far,
    values: valuesTo(net, far, POINTS).map((value) => sign * value),
    bounds: lens === "network" ? null : radii.map((radius) => at(radius || 1e-9).bound),
  };
}

/** Which of the three terms keeps the sign from changing; null where it changes. */
function failing(R, { margin, gradient, turning, bound }) {
  if (bound < 0) return null;
  if (gradient <= 0) return "gradient";
  if (turning >= gradient) return "turning";
  return R * gradient <= margin ? "margin" : "turning";
}

/** Theorem 3.1's condition on the width, with constants 1. */
export const widths = (d) => [d ** 2.4, Math.exp(d ** 0.24)];

function windowWords(d, m) {
  const [least, most] = widths(d);
  const met = least <= m && m <= most;
  const words = met ? "met" : least > most ? "empty at this d" : "not met";
  return `The theorem’s width window, d^2.4 = ${brief(least)} ≤ m ≤ exp(d^0.24) = ${brief(most)} with constants 1: ${words}.`;
}

const brief = (value) => {
  if (value < 1e5) return text(value, 3);
  const power = Math.floor(Math.log10(value));
  return `${(value / 10 ** power).toFixed(1)}·10${[...String(power)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`;
};

const LENS = {
  network: { margin: "|f(x)|", gradient: "‖∇f(x)‖", who: "this network" },
  ball: { margin: "sup |f(x; W)|", gradient: "least ‖∇f(x; W)‖", who: "every W of the ball" },
  paper: { margin: "Lemma 4.1", gradient: "Lemma 4.2", who: "every W of the ball" },
};

function verdict({ R, lens, C0, d }, data) {
  const { margin, gradient, turning, bound } = data;
  const short = (value) => text(value, 3);
  const budget = R * gradient, rest = R * (gradient - turning);
  const all = lens !== "network";
  const fails = failing(R, data);
  if (fails === null) {
    const sure = all ? "with probability 99\u202f% every W of the ball changes its sign" : "the sign of f changes";
    return `Flip: R·(2) = ${short(budget)} pays the margin (1) = ${short(margin)}, though (3) takes ${short(R * turning)} back: ${sure}.`;
  }
  const none = all ? "Nothing is certified" : "No flip";
  if (fails === "gradient") {
    const whose = lens === "paper" ? "Lemma 4.2’s bound is not above 0" : "the ball may hold a network without any gradient along ∇f(x; W₀)";
    return `${none}: term (2) fails, the gradient is too short for C₀ = ${plain(C0)} at d = ${text(d)}: ${whose}.`;
  }
  if (fails === "margin") return `${none}: term (1) fails, the margin ${short(margin)} is too large for R = ${plain(R)}: R·(2) pays only ${short(budget)}.`;
  const turns = all ? "term (3) fails, the gradient may turn too much" : "term (3) fails, the gradient turns too much";
  return rest <= 0
    ? `${none}: ${turns}: (3) = ${short(turning)} against a gradient of (2) = ${short(gradient)}.`
    : `${none}: ${turns}: of R·(2) = ${short(budget)} it leaves ${short(rest)}, and the margin (1) is ${short(margin)}.`;
}

function buildTheorem() {
  const terms = figure({
    caption: "(1) − R ((2) − (3)): below 0, a flip",
    keys: [["area margin", "(1) margin"], ["area budget", "R·(2) gradient"], ["area eaten", "R·(3) turning"]],
    height: 292,
  });
  const ray = figure({
    caption: "f along its gradient, in its own sign",
    keys: [["line curve", "f at W₀"], ["dot flip", "first flip"], ["line limit", "bound, all W"], ["line tangent", "(1) − R·(2)"], ["area within", "‖δ‖ ≤ R"]],
    height: 292,
  });
  const table = numbers(3, {
    margin: "(1) margin",
    gradient: "(2) gradient",
    turning: "(3) turning",
    bound: "(1) − R ((2) − (3))",
    delta_norm: "first flip of W₀, ‖δ‖",
    certified_from: "all W flip from ‖δ‖ =",
  });
  const figures = html("div", { class: "lp-pair" }, terms.el, ray.el);

  function show(state, data) {
    const { d, m, R, lens } = state;
    const { f, grad_norm, flip, turn, margin, gradient, turning, bound, certified } = data;
    const all = lens !== "network";
    ray.el.querySelectorAll(".lp-key")[2].style.display = all ? "" : "none"; // the bound's
    const measured = `‖D‖ = ${text(turn.norm)}, along ∇f(x) ${text(turn.aside)}`;
    table.show({
      margin: [margin, all ? `${LENS[lens].margin}; |f(x; W₀)| = ${text(Math.abs(f))}` : `|f(x; W₀)|; typical size 1/√2`],
      gradient: [gradient, all ? `${LENS[lens].gradient}; at W₀ ${text(grad_norm)}` : `‖∇f(x; W₀)‖; √(d/2) = ${text(Math.sqrt(d / 2))}`],
      turning: [turning, all ? `at W₀: ${measured}` : `mean on the way; at its end ${measured}`],
      bound: [bound, bound < 0 ? "below 0: the sign changes" : all ? "not below 0: no conclusion" : "not below 0: the sign stays"],
      delta_norm: [flip, flip === null ? "none up to ‖δ‖ = 1" : `‖δ‖√d = ${text(flip * Math.sqrt(d))}, C₁ = |η| d = ${text((flip * d) / grad_norm)}`],
      certified_from: [certified ? certified[0] : null, !all ? "asks for a bound over all W" : certified ? `to ‖δ‖ = ${plain(certified[1])}` : "at no R of the slider"],
    });
    const words = verdict(state, data);
    terms.show(
      `The three terms at R = ${plain(R)} for ${LENS[lens].who}: the margin ${text(margin)}, less R times the gradient, ${text(R * gradient)}, plus R times the turning, ${text(R * turning)}, gives ${text(bound)}.`,
      (frame) => paintTerms(frame, R, lens, data),
    );
    ray.show(
      `f along its gradient in its own sign, from ${text(Math.abs(f))} at x; ${flip === null ? "it does not change its sign up to a distance of 1" : `it changes its sign at a distance of ${text(flip)}`}. ${words}`,
      (frame) => paintInequality(frame, R, data),
    );
    const results = { margin, gradient, turning, bound, flips: bound < 0, fails: failing(R, data), delta_norm: flip, certified_from: certified ? certified[0] : null };
    return { headline: `${words} ${windowWords(d, m)}`, results };
  }
  return { nodes: [figures, table.el], show, close: () => [terms, ray].forEach((part) => part.close()) };
}

function paintTerms({ width, height }, R, lens, { margin, gradient, turning, bound }) {
  const left = 10, right = width - 10, top = 4, bottom = height - 40;
  const afterBudget = margin - R * gradient;
  const corners = [0, margin, afterBudget, bound];
  const [low, high] = [Math.min(...corners), Math.max(...corners)];
  const room = 0.06 * (high - low);
  const x = scale(low - (low < 0 ? room : 0), high + room, left, right);
  const row = (bottom - top) / 4, bar = Math.min(18, row - 26);
  const y = (k) => top + row * k + 20;
  const all = lens !== "network";
  const words = [
    `(1)  ${LENS[lens].margin}${lens === "paper" ? ": |f| ≤ " : " = "}${text(margin, 3)}`,
    `R·(2)  ${lens === "paper" ? "Lemma 4.2: ‖∇f‖ ≥ " : `${LENS[lens].gradient} = `}${text(gradient, 3)}, times R: ${text(R * gradient, 3)}`,
    `R·(3)  ${all ? "turning at most" : "turning"} ${text(turning, 3)}, times R: ${text(R * turning, 3)}`,
    `${all ? "f(x + δ) at most" : "f(x + δ) ="} ${text(bound, 3)} in the sign of f`,
  ];
  const span = (kind, k, from, to) => rect(kind, x(Math.min(from, to)), y(k), Math.max(Math.abs(x(to) - x(from)), 1), bar);
  const down = (k, value) => [x(value), y(k) + bar, x(value), y(k + 1)];
  return [
    ...(low < 0 ? [rect("within", left, top, x(0) - left, bottom - top)] : []),
    strokes("zero", [[x(0), top, x(0), bottom]]),
    strokes("link", [down(0, margin), down(1, afterBudget), down(2, bound)]),
    span("margin", 0, 0, margin),
    span("budget", 1, margin, afterBudget),
    span("eaten", 2, afterBudget, bound),
    circle(bound < 0 ? "changed" : "kept", Math.max(x(bound), left), y(3) + bar / 2, 6),
    ...words.map((label, k) => write("term", left + 4, y(k) - 6, "start", label)),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, ticks(low - (low < 0 ? room : 0), high + room, width < 300 ? 3 : 5), "f in its own sign", (left + right) / 2),
  ];
}

/** The parts of a broken line between two heights. */
function between(points, low, high) {
  const parts = [];
  let part = null;
  for (let k = 1; k < points.length; k++) {
    const [[x0, y0], [x1, y1]] = [points[k - 1], points[k]];
    const cuts = y0 === y1 ? [] : [low, high].map((edge) => (edge - y0) / (y1 - y0)).filter((t) => t > 0 && t < 1);
    const marks = [0, ...cuts.sort((s, t) => s - t), 1].map((t) => [x0 + t * (x1 - x0), y0 + t * (y1 - y0)]);
    for (let i = 1; i < marks.length; i++) {
      const middle = (marks[i - 1][1] + marks[i][1]) / 2;
      if (middle < low || middle > high) part = null;
      else if (part) part.push(marks[i]);
      else parts.push((part = [marks[i - 1], marks[i]]));
    }
  }
  return parts;
}

function paintInequality({ width, height }, R, { far, values, bounds, flip, margin, gradient, bound }) {
  const left = 46, right = width - 14, top = 26, bottom = height - 42;
  const first = Math.max(margin, Math.abs(values[0]));
  const [low, high] = roundRange(Math.min(-0.25 * first, 1.08 * bound), Math.max(1.15 * first, Math.min(1.1 * bound, 3 * first)), 6);
  const x = scale(0, far, left, right), y = scale(low, high, bottom, top);
  const at = (k) => (far * k) / POINTS;
  const drawn = (kind, points) => between(points, low, high).map((part) => line(kind, part.map(([r, value]) => [x(r), y(value)])));
  return [
    rect("within", left, top, x(R) - left, bottom - top),
    ...yAxis(y, left, ticks(low, high, 6), "f in its own sign", right, top),
    strokes("zero", [[left, y(0), right, y(0)]]),
    strokes("edge", [[x(R), top, x(R), bottom]]),
    ...drawn("tangent", [[0, margin], [far, margin - far * gradient]]),
    ...(bounds ? drawn("limit", bounds.map((value, k) => [at(k), value])) : []),
    ...drawn("curve", values.map((value, k) => [at(k), value])),
    ...(flip !== null && flip <= far ? [circle("flip", x(flip), y(0), 5.5)] : []),
    ...(bound >= low && bound <= high ? [circle(bound < 0 ? "changed" : "kept", x(R), y(bound), 5)] : []),
    write("mark", x(R) > right - 24 ? x(R) - 5 : x(R) + 5, bottom - 8, x(R) > right - 24 ? "end" : "start", "R"),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, ticks(0, far, width < 300 ? 3 : 5), "‖δ‖", (left + right) / 2),
  ];
}

PANELS.theorem = {
  title: "Theorem 3.1: one step flips the sign",
  controls: {
    d: FAR_D,
    m: MILLION,
    C0,
    R,
    lens: { name: "The three terms of", options: { network: "this network, W₀", ball: "every W of the ball", paper: "every W, the paper’s route" } },
  },
  notes: ({ d, m, C0, R, lens }) => ({
    d: `√d = ${text(Math.sqrt(d), 3)}`,
    m: "hidden neurons",
    C0: lens === "network" ? "plays no part at W₀" : `V = C₀/√m = ${text(C0 / Math.sqrt(m), 3)}`,
    R: `R√d = ${text(R * Math.sqrt(d), 3)}, C₁ ≈ ${text(R * Math.sqrt(2 * d), 3)}`,
  }),
  needs: ["d", "m", "C0", "R", "lens"],
  measure: measureTheorem,
  build: buildTheorem,
};
