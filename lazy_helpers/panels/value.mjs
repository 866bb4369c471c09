// Lemma 4.1: how large f can be, over many draws and over every W of the ball of each.

import { value_range } from "./lazy.mjs";
import { value_bound } from "./lemmas.mjs";
import { PANELS } from "./panel.mjs";
import { C0 } from "./setting.mjs";
import { count, drawNetworks, drawsAt, drawsShown, frequency, GAMMA, mean, MILLION, notesOf, shownOf } from "./draws.mjs";
import { circle, figure, line, numbers, plain, rect, roundRange, scale, strokes, text, ticks, write, yAxis } from "./view.mjs";

/** Of each network f(x; W0), and the least and the largest f(x; W) over its ball. */
function measureValue({ m, C0, seed }, cache) {
  const { networks, u, a } = drawNetworks(cache, m, seed);
  const V = C0 / Math.sqrt(m);
  const f = new Float64Array(networks), low = new Float64Array(networks), high = new Float64Array(networks);
  for (let i = 0; i < networks; i++) {
    const ui = u.subarray(i * m, (i + 1) * m), ai = a.subarray(i * m, (i + 1) * m);
    [f[i]] = value_range(ui, ai, 0);
    [low[i], high[i]] = value_range(ui, ai, V);
  }
  return { f, low, high };
}

function buildValue() {
  const picture = figure({
    caption: "f at x in independent draws of W₀ and a, from the smallest to the largest",
    keys: [
      ["dot point", "f(x; W₀)"],
      ["area interval", "all W in the ball"],
      ["line mean", "f(x; W₀) ± C₀/2"],
      ["line limit", "Lemma 4.1, all W"],
      ["line limit-near", "bound at W₀"],
    ],
    height: 330,
  });
  const table = numbers(4, {
    f_rms: "rms of f(x; W₀)",
    largest: "largest |f(x; W₀)|",
    bound_initial: "its bound",
    beyond: "share beyond it",
    rise: "mean rise in the ball",
    largest_in_ball: "largest |f(x; W)|, all W",
    bound: "Lemma 4.1’s bound",
    beyond_in_ball: "share beyond it",
  });

  function show({ m, C0, gamma }, data) {
    const { f, low, high } = data;
    const draws = f.length;
    const bound = value_bound(m, C0, gamma), bound_initial = value_bound(m, 0, gamma);
    const size = f.map(Math.abs), reach = f.map((_, i) => Math.max(high[i], -low[i]));
    const over = (values, limit) => count(values, (value) => value > limit);
    const many = `of ${drawsAt(m)}`;
    const often = (hits) => (draws > 1 ? frequency(hits, draws, gamma) : `one draw; γ = ${plain(gamma)}`);
    const results = {
      draws,
      f_rms: Math.sqrt(mean(f.map((value) => value * value))),
      largest: Math.max(...size),
      bound_initial,
      beyond: over(size, bound_initial) / draws,
      rise: mean(f.map((_, i) => (high[i] - low[i]) / 2)),
      largest_in_ball: Math.max(...reach),
      bound,
      beyond_in_ball: over(reach, bound) / draws,
    };
    table.show({
      f_rms: [results.f_rms, `1/√2 = ${text(Math.SQRT1_2)}`],
      largest: [results.largest, many],
      bound_initial: [bound_initial, "Lemma 4.1 with C₀ = 0"],
      beyond: [results.beyond, often(over(size, bound_initial))],
      rise: [results.rise, `C₀/2 = ${plain(C0 / 2)}`],
      largest_in_ball: [results.largest_in_ball, many],
      bound: [bound, `C₀ = ${plain(C0)} more`],
      beyond_in_ball: [results.beyond_in_ball, often(over(reach, bound))],
    });
    const broken = over(reach, bound);
    const headline = broken
      ? `In ${text(broken)} ${many} some W in the ball exceeds the lemma’s bound ${text(bound, 3)}; with γ = ${plain(gamma)} it may fail in ${plain(100 * gamma)}\u202f% of all draws, whatever d is.`
      : `In ${draws > 1 ? `all ${drawsAt(m)}` : "this draw"} |f(x; W)| stays below ${text(results.largest_in_ball, 3)} for every W in the ball, whatever d is. ` +
        `The lemma allows ${text(bound, 3)}: it grants W a move of f by C₀, and W can move it by ${text(results.rise, 3)}, about C₀/2.`;
    picture.show(
      `${headline} At W0 the values of f have root mean square ${text(results.f_rms)}.`,
      (frame) => paintValue(frame, m, C0, results, data),
    );
    return { headline, results };
  }
  return { nodes: [picture.el, table.el], show, close: picture.close };
}

function paintValue({ width, height }, m, C0, { bound, bound_initial }, { f, low, high }) {
  const left = 46, right = width - 10, top = 26, bottom = height - 30;
  const shown = drawsShown(width, m);
  const order = Array.from(f.subarray(0, shown).keys()).sort((i, j) => f[i] - f[j]);
  const far = Math.max(1.12 * bound, ...high.subarray(0, shown), ...low.subarray(0, shown).map((value) => -value));
  const [from, to] = roundRange(-far, far, 6);
  const y = scale(from, to, bottom, top);
  const step = (right - left) / shown;
  const x = (k) => left + (k + 0.5) * step;
  const bar = Math.max(1, Math.min(0.55 * step, 18));
  const across = (value) => [left, y(value), right, y(value)];
  const halves = [-C0 / 2, C0 / 2].map((half) =>
    shown === 1 ? [[left, y(f[0] + half)], [right, y(f[0] + half)]] : order.map((i, k) => [x(k), y(f[i] + half)]),
  );
  return [
    ...yAxis(y, left, ticks(from, to, 6), "f(x; W)", right, top),
    ...order.map((i, k) => rect("interval", x(k) - bar / 2, y(high[i]), bar, y(low[i]) - y(high[i]))),
    strokes("zero", [across(0)]),
    ...halves.map((points) => line("mean", points)),
    strokes("limit-near", [across(bound_initial), across(-bound_initial)]),
    strokes("limit", [across(bound), across(-bound)]),
    ...order.map((i, k) => circle("point", x(k), y(f[i]), Math.max(1.8, Math.min(0.45 * step, 5)))),
    write("mark", left + 6, y(bound) - 6, "start", `+${text(bound, 3)}`),
    write("mark", right - 6, y(-bound) + 15, "end", text(-bound, 3)),
    write("title", (left + right) / 2, height - 8, "middle", shownOf(shown, m)),
  ];
}

PANELS.value = {
  title: "Lemma 4.1: f stays of constant size",
  controls: { m: MILLION, C0, gamma: GAMMA },
  notes: notesOf,
  needs: ["m", "C0"],
  measure: measureValue,
  build: buildValue,
};
