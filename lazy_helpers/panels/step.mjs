// One gradient step: f along the ray x + eta grad f, for a W of the ball, and the exact first flip.

import { normalMatrix, signs } from "./weights.mjs";
import { ray, rowNorms, smallest_flip, TwoLayerNet } from "./lazy.mjs";
import { PANELS } from "./panel.mjs";
import { C0, D, lazyNotes, M } from "./setting.mjs";
import { circle, figure, line, numbers, percent, plain, rect, roundRange, scale, strokes, text, ticks, write, xAxis, yAxis } from "./view.mjs";

/** The draw of a stream, kept while it covers what is asked: a smaller d or m is a corner of it. */
function corner(cache, stream, d, m, seed) {
  const kept = cache[stream];
  if (kept && kept.seed === seed && kept.stride >= d && kept.m >= m) return kept;
  delete cache[stream]; // the old draw is let go before the new one is made
  return (cache[stream] = { seed, m, stride: d, B: normalMatrix(d, m, seed, stream) });
}

/** The network of `weights` in the ball around W0, as weights.py's ball_member: W0 and what is added to it. */
export function ballMember({ d, m, C0, weights, seed }, cache) {
  const V = C0 / Math.sqrt(m);
  const a = signs(m, seed);
  const W0 = corner(cache, "W0", d, m, seed);
  if (weights === "initial") return new TwoLayerNet(d, a, W0);
  if (weights === "random") {
    const G = corner(cache, "boundary", d, m, seed);
    if (G.d !== d) Object.assign(G, { d, norms: rowNorms(G.B, G.stride, d, G.m) });
    return new TwoLayerNet(d, a, W0, { ...G, scale: G.norms.map((length) => V / length) });
  }
  const towards = V * Math.sign(initialValue(a, W0));
  return new TwoLayerNet(d, a, W0, { B: unit(d), stride: 0, scale: Float64Array.from(a, (as) => towards * as) });
}

// f(x; W0): at the first unit vector, the first column of W0 is all of it.
const initialValue = (a, W0) => new TwoLayerNet(1, a, W0).f([1]);

function unit(d) {
  const x = new Float32Array(d);
  x[0] = 1;
  return x;
}

function measureStep(state, cache) {
  const net = ballMember(state, cache);
  const along = ray(net, unit(state.d));
  return { f0: initialValue(net.a, net.blocks[0]), ...along, ...smallest_flip(along) };
}

function buildStep() {
  const picture = figure({
    caption: "f along the ray x + η∇f(x)",
    keys: [["line curve", "f"], ["line tangent", "its tangent at x"], ["ticks kink", "bends"], ["dot flip", "first flip"], ["area within", "‖δ‖ ≤ R"]],
    height: 350,
  });
  const table = numbers(3, {
    f: "f(x)",
    grad_norm: "gradient, ‖∇f(x)‖",
    kinks: "bends before the flip",
    delta_norm: "smallest flip, ‖δ‖",
    eta: "its step, |η|",
    eta_tangent: "the tangent’s, |f|/‖∇f‖²",
  });

  function show({ d, m, R }, data) {
    const { f0, value, grad_norm, found, eta, norm: delta_norm, kinks } = data;
    const within = found && delta_norm <= R;
    const eta_tangent = Math.abs(value) / grad_norm ** 2;
    table.show({
      f: [value, `f(x; W₀) = ${text(f0)}`],
      grad_norm: [grad_norm, `√(d/2) = ${text(Math.sqrt(d / 2))}`],
      kinks: [kinks, found ? `${percent(kinks / m)} of m = ${text(m)}` : "on the whole ray"],
      delta_norm: [delta_norm, found ? `‖δ‖√d = ${text(delta_norm * Math.sqrt(d))}` : "no step flips the sign"],
      eta: [eta, found ? `|η| d = ${text(eta * d)}` : "no step flips the sign"],
      eta_tangent: [eta_tangent, found ? `exact / tangent = ${text(eta / eta_tangent)}` : "predicts a flip all the same"],
    });
    const headline = !found
      ? "No step along the gradient, of any length, flips the sign of f."
      : within
        ? `Within R: one gradient step of length ‖δ‖ = ${text(delta_norm, 3)} flips the sign of f, and R = ${plain(R)} allows it.`
        : `Not within R: it takes a gradient step of length ‖δ‖ = ${text(delta_norm, 3)} to flip the sign of f, and R = ${plain(R)}.`;
    picture.show(
      `f along the gradient, from ${text(value)} at x. ${headline}`,
      (frame) => paintRay(frame, R, data),
    );
    return { headline, results: { f: value, grad_norm, found, eta, delta_norm, within_R: within, kinks, eta_tangent } };
  }
  return { nodes: [picture.el, table.el], show, close: picture.close };
}

function paintRay({ width, height }, R, { value, sign, grad_norm, slope, end, bends, values, found, norm: delta_norm }) {
  const left = 46, right = width - 16, top = 62, bottom = height - 46;
  const tangent = Math.abs(value) / grad_norm;
  const far = roundRange(0, 1.15 * Math.max(R, found ? delta_norm : 2 * tangent, tangent), 4)[1];

  // f is linear between its bends, so the bends up to `far` and one end are all of it.
  const count = bends.findIndex((eta) => eta * grad_norm > far);
  const near = count < 0 ? bends.length : count;
  const points = [[0, value]];
  for (let k = 0; k < near; k++) points.push([bends[k] * grad_norm, sign * values[k]]);
  const [lastX, lastY] = points.at(-1);
  const [nextX, nextY] =
    near < bends.length
      ? [bends[near] * grad_norm, sign * values[near]]
      : [far, lastY + (sign * (near ? end : slope) * (far - lastX)) / grad_norm];
  if (nextX > lastX) points.push([far, lastY + ((far - lastX) / (nextX - lastX)) * (nextY - lastY)]);

  const heights = points.map((point) => point[1]);
  const [low, high] = roundRange(Math.min(0, ...heights) - 0.05 * Math.abs(value), Math.max(0, ...heights) + 0.05 * Math.abs(value), 5);
  const x = scale(0, far, left, right);
  const y = scale(low, high, bottom, top);
  const steps = scale(0, far / grad_norm, left, right);
  const edge = sign > 0 ? low : high; // the tangent is cut where it leaves the frame
  const exit = Math.min(far, tangent * (1 - edge / value));
  const marks = width < 420 ? 4 : 8;
  return [
    rect("within", left, top, x(R) - left, bottom - top),
    ...yAxis(y, left, ticks(low, high, 6), "f", right, top),
    strokes("zero", [[left, y(0), right, y(0)]]),
    strokes("kink", points.slice(1, near + 1).map(([p]) => [x(p), bottom, x(p), bottom - 8])),
    strokes("edge", [[x(R), top, x(R), bottom]]),
    line("tangent", [[x(0), y(value)], [x(exit), y(value * (1 - exit / tangent))]]),
    line("curve", points.map(([p, f]) => [x(p), y(f)])),
    write("mark", Math.min(x(R), right - 14) + 5, top + 14, "start", "R"),
    ...(found ? [circle("flip", x(delta_norm), y(0), 5.5)] : []),
    strokes("frame", [[left, bottom, right, bottom], [left, top, right, top]]),
    ...xAxis(x, bottom, ticks(0, far, marks), "distance from x, ‖δ‖ = |η| ‖∇f‖", (left + right) / 2),
    ...xAxis(steps, top, ticks(0, far / grad_norm, marks), "step |η|", (left + right) / 2, -1),
  ];
}

PANELS.step = {
  title: "One gradient step",
  controls: {
    d: D,
    m: M,
    C0,
    R: { symbol: "R", name: "perturbation radius", values: Array.from({ length: 41 }, (_, k) => Number((0.01 * 10 ** (k / 20)).toPrecision(2))) },
    weights: { name: "weights W of the ball", options: { initial: "W₀", random: "random, on the boundary", margin: "largest margin at x" } },
  },
  notes: (state) => ({ ...lazyNotes(state), R: "‖δ‖ ≤ R, where ‖x‖ = 1" }),
  needs: ["d", "m", "C0", "weights"],
  measure: measureStep,
  build: buildStep,
};
