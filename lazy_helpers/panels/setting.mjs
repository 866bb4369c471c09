// The setting: a random network, the ball of lazy training around it, and what can change inside the ball.

import { erf, norm, sign_changes, value_range } from "./lazy.mjs";
import { normals, ROW, signs, streamKey } from "./weights.mjs";
import { PANELS } from "./panel.mjs";
import { bars, circle, figure, html, line, numbers, percent, rect, roundRange, scale, strokes, text, ticks, write, xAxis, yAxis } from "./view.mjs";

export const SIDES = Array.from({ length: 24 }, (_, k) => k + 5); // images of 5 x 5 to 28 x 28 pixels
export const D = { symbol: "d", name: "input dimension", values: SIDES.map((side) => side * side), whole: true };
export const M = {
  symbol: "m",
  name: "width",
  values: Array.from({ length: 41 }, (_, k) => Number((100 * 10 ** (k / 20)).toPrecision(2))),
  whole: true,
};
export const C0 = { symbol: "C₀", name: "size of the lazy ball", values: Array.from({ length: 40 }, (_, k) => k + 1) };

export const lazyNotes = ({ d, m, C0 }) => ({
  d: SIDES.includes(Math.sqrt(d)) ? `${Math.sqrt(d)} × ${Math.sqrt(d)} pixels` : "",
  m: "hidden neurons",
  C0: `V = C₀/√m = ${text(C0 / Math.sqrt(m), 3)}`,
});

const REACH = 4; // the histogram runs over [-4, 4]; what lies beyond is counted in the outermost bins
const BINS = 40;
const SAMPLE = 24; // neurons drawn one by one

// x is the first unit vector, so w . x is one number a neuron and W need not be drawn, but for the sample's lengths.
function measureSetting({ d, m, C0, seed }) {
  const V = C0 / Math.sqrt(m);
  const key = streamKey(seed, "W0");
  const u = new Float32Array(m);
  for (let s = 0; s < m; s++) normals(u, s, key, s * ROW, 1);
  const a = signs(m, seed);

  const counts = new Array(BINS).fill(0);
  for (const value of u) counts[Math.min(BINS - 1, Math.max(0, Math.floor(((value + REACH) / (2 * REACH)) * BINS)))]++;
  const w = new Float32Array(d);
  const sample = Array.from(u.subarray(0, SAMPLE), (value, s) => {
    normals(w, 0, key, s * ROW, d);
    return { u: value, length: norm(w) };
  });
  const [f_min, f_max] = value_range(u, a, V);
  const [f] = value_range(u, a, 0);
  return { V, counts, sample, f, f_min, f_max, flips: sign_changes(u, V) };
}

function buildSetting() {
  const histogram = figure({
    caption: "Every neuron’s pre-activation at x",
    keys: [["area bar-hot", "sign can change"], ["area bar", "cannot"], ["line reference", "N(0, 1)"]],
    height: 250,
  });
  const fan = figure({
    caption: `${SAMPLE} weights with their balls, to scale`,
    keys: [["dot ball-hot", "ball meets w·x = 0"], ["dot ball", "does not"]],
    height: 142,
  });
  const range = figure({
    caption: "How far W moves f(x; W) inside the ball",
    keys: [["dot point", "f(x; W₀)"], ["area interval", "all W"], ["line mean", "f ± C₀/2"]],
    height: 66,
  });
  const table = numbers(4, {
    flips: "|S₁|, sign can change",
    flips_expected: "its mean, m erf(V/√2)",
    flips_linear: "√(2/π) C₀√m",
    V: "radius V of the ball",
    f: "f(x; W₀)",
    f_min: "min f over the ball",
    f_max: "max f over the ball",
    relative: "V/√d",
  });
  const figures = html("div", { class: "lp-pair" }, histogram.el, html("div", {}, fan.el, range.el));

  function show({ d, m, C0 }, data) {
    const { V, flips, f, f_min, f_max, sample } = data;
    const expected = m * erf(V / Math.SQRT2);
    const linear = Math.sqrt(2 / Math.PI) * C0 * Math.sqrt(m);
    const length = sample.reduce((sum, w) => sum + w.length, 0) / SAMPLE;
    const share = percent(flips / m);
    table.show({
      flips: [flips, `${share} of m = ${text(m)}`],
      flips_expected: [expected, `|S₁| / mean = ${text(flips / expected, 3)}`],
      flips_linear: [linear, "for small V"],
      V: [V, `C₀/√m = ${text(C0)}/√${text(m)}`],
      f: [f, "at the initial W₀"],
      f_min: [f_min, `f − C₀/2 = ${text(f - C0 / 2)}`],
      f_max: [f_max, `f + C₀/2 = ${text(f + C0 / 2)}`],
      relative: [V / Math.sqrt(d), `mean ‖w‖ = ${text(length)}`],
    });
    histogram.show(
      `Histogram of ${m} pre-activations, close to the standard normal density. ${flips} lie between minus V and V, V = ${text(V)}.`,
      (frame) => paintHistogram(frame, m, data),
    );
    fan.show(
      `${SAMPLE} weight vectors of mean length ${text(length)}, each with a ball of radius ${text(V)} around its tip: ` +
        `${sign_changes(sample.map((w) => w.u), V)} of the balls meet the plane on which w·x is zero.`,
      (frame) => paintFan(frame, d, data),
    );
    range.show(`Over the ball f(x; W) runs from ${text(f_min)} to ${text(f_max)}; at W0 it is ${text(f)}.`, (frame) => paintRange(frame, C0, data));
    const signs = f_min < 0 && f_max > 0 ? "the ball holds networks of either sign" : "no W in the ball changes the sign of f";
    return {
      headline: `${text(flips)} of ${text(m)} neurons (${share}) can change their sign at x inside the ball; f(x; W) runs from ${text(f_min, 3)} to ${text(f_max, 3)}, so ${signs}.`,
      results: { V, flips, f, f_min, f_max },
    };
  }
  return {
    nodes: [figures, table.el],
    show,
    close: () => [histogram, fan, range].forEach((part) => part.close()),
  };
}

function paintHistogram({ width, height }, m, { V, counts }) {
  const left = 40, right = width - 8, top = 26, bottom = height - 42;
  const normal = (u) => (m * ((2 * REACH) / BINS) * Math.exp((-u * u) / 2)) / Math.sqrt(2 * Math.PI);
  const high = roundRange(0, Math.max(1.05 * normal(0), ...counts), 4)[1];
  const x = scale(-REACH, REACH, left, right);
  const y = scale(0, high, bottom, top);
  const curve = Array.from({ length: 81 }, (_, k) => -REACH + k / 10).map((u) => [x(u), y(normal(u))]);
  const edge = Math.min(V, REACH);
  return [
    rect("band", x(-edge), top, x(edge) - x(-edge), bottom - top),
    ...yAxis(y, left, ticks(0, high, 4), "neurons per bin", right, top),
    bars("bar", counts, x, y, -REACH, REACH),
    bars("bar-hot", counts, x, y, -REACH, REACH, -edge, edge),
    line("reference", curve),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, ticks(-REACH, REACH, 8), "pre-activation w·x", (left + right) / 2),
  ];
}

// The plane through x and w: the height is w . x, the distance from the origin is ||w||.
function paintFan({ width, height }, d, { V, sample }) {
  const left = 12, middle = height / 2 - 14;
  const unit = Math.min((width - left - 8) / (Math.sqrt(d) + 2.5 + V), (middle - 4) / (2.7 + V));
  const tips = sample.map(({ u, length }) => [left + unit * Math.sqrt(length * length - u * u), middle - unit * u, Math.abs(u) <= V]);
  const reach = left + unit * Math.sqrt(d);
  const ball = (kind, hot) => tips.filter((tip) => tip[2] === hot).map(([x, y]) => circle(kind, x, y, Math.max(unit * V, 0.75)));
  return [
    strokes("ray", tips.map(([x, y]) => [left, middle, x, y])),
    strokes("frame", [[left, middle, width - 4, middle]]),
    ...ball("ball", false),
    ...ball("ball-hot", true),
    ...tips.map(([x, y]) => circle("tip", x, y, Math.min(1.2, unit * V / 3))),
    strokes("axis", [[left, height - 26, reach, height - 26], [left, height - 30, left, height - 22], [reach, height - 30, reach, height - 22]]),
    write("title", Math.max((left + reach) / 2, left + 50), height - 7, "middle", `√d = ${text(Math.sqrt(d), 3)}`),
    write("title", width - 4, height - 7, "end", `V = ${text(V, 3)}`),
  ];
}

function paintRange({ width }, C0, { f, f_min, f_max }) {
  const [low, high] = roundRange(Math.min(f_min, -1), Math.max(f_max, 1), 6);
  const x = scale(low, high, 12, width - 12);
  return [
    rect("interval", x(f_min), 10, x(f_max) - x(f_min), 14),
    strokes("frame", [[12, 34, width - 12, 34]]),
    strokes("zero", [[x(0), 3, x(0), 34]]),
    strokes("mean", [f - C0 / 2, f + C0 / 2].map((v) => [x(v), 5, x(v), 29])),
    circle("point", x(f), 17, 5),
    ...xAxis(x, 34, ticks(low, high, 5), "", 0),
  ];
}

PANELS.setting = {
  title: "Inside the lazy ball",
  controls: { d: D, m: M, C0 },
  notes: lazyNotes,
  needs: ["d", "m", "C0"],
  measure: measureSetting,
  build: buildSetting,
};
