// Lemma 4.3: how many neurons can change their sign at x inside the ball, over many draws.

import { sign_changes } from "./lazy.mjs";
import { sign_change_bound, sign_change_mean } from "./lemmas.mjs";
import { PANELS } from "./panel.mjs";
import { C0 } from "./setting.mjs";
import { count, drawNetworks, drawsAt, frequency, GAMMA, mean, MILLION, notesOf } from "./draws.mjs";
import { bars, circle, figure, html, line, logScale, numbers, percent, plain, powers, rect, roundRange, scale, strokes, text, ticks, write, xAxis, yAxis } from "./view.mjs";

/** |S_1| of each network. */
function measureFlips({ m, C0, seed }, cache) {
  const { networks, u } = drawNetworks(cache, m, seed);
  const flips = new Int32Array(networks);
  for (let i = 0; i < networks; i++) flips[i] = sign_changes(u.subarray(i * m, (i + 1) * m), C0 / Math.sqrt(m));
  return { flips };
}

const linear = (m, C0) => Math.sqrt(2 / Math.PI) * C0 * Math.sqrt(m);

function buildFlips() {
  const histogram = figure({
    caption: "|S₁| in independent draws of W₀",
    keys: [["area bar", "draws"], ["area bar-hot", "over it"], ["line mean", "mean"], ["line limit", "Lemma 4.3"], ["line limit-near", "√(2/π) C₀√m"], ["area void", "more than m"]],
    height: 290,
  });
  const curves = figure({
    caption: "The share |S₁|/m at every width",
    keys: [["dot point", "drawn"], ["line mean", "mean"], ["line limit", "Lemma 4.3"], ["line limit-near", "√(2/π) C₀/√m"], ["area void", "says nothing"]],
    height: 290,
  });
  const table = numbers(4, {
    flips: "mean |S₁|, drawn",
    flips_expected: "its mean, m erf(V/√2)",
    flips_linear: "√(2/π) C₀√m",
    bound: "Lemma 4.3’s bound",
    share: "share |S₁|/m",
    largest: "largest |S₁|",
    beyond: "share over the bound",
    V: "radius V of the ball",
  });
  const figures = html("div", { class: "lp-pair lp-level" }, histogram.el, curves.el);

  function show({ m, C0, gamma }, { flips }) {
    const draws = flips.length;
    const V = C0 / Math.sqrt(m);
    const bound = sign_change_bound(m, C0, gamma), expected = sign_change_mean(m, C0);
    const over = count(flips, (value) => value > bound);
    const results = { draws, flips: mean(flips), share: mean(flips) / m, largest: Math.max(...flips), bound, beyond: over / draws, vacuous: bound >= m };
    table.show({
      flips: [results.flips, `mean of ${drawsAt(m)}`],
      flips_expected: [expected, `|S₁| / mean = ${text(results.flips / expected)}`],
      flips_linear: [linear(m, C0), `${text(linear(m, C0) / expected, 3)} × the mean`],
      bound: [bound, results.vacuous ? "≥ m: it says nothing" : `${text(bound / expected, 3)} × the mean`],
      share: [results.share, `${percent(results.share)} of m = ${text(m)}`],
      largest: [results.largest, `of ${drawsAt(m)}`],
      beyond: [results.beyond, draws > 1 ? frequency(over, draws, gamma) : `one draw; γ = ${plain(gamma)}`],
      V: [V, `C₀/√m = ${plain(C0)}/√${text(m)}`],
    });
    const measured = `${draws > 1 ? "on average" : "in this draw"} ${text(Math.round(results.flips))} of ${text(m)} neurons (${percent(results.share)}) can change their sign at x inside the ball`;
    const headline = results.vacuous
      ? `The lemma says nothing here: its bound ${text(Math.round(bound))} is at least m = ${text(m)}. In fact, whatever d is, ${measured}${results.share > 0.5 ? ", hardly a lazy regime" : ""}.`
      : `${measured[0].toUpperCase()}${measured.slice(1)}, and the lemma allows ${text(Math.floor(bound))}: both, as shares of m, fall like 1/√m, whatever d is.`;
    histogram.show(
      `Histogram of the number of neurons that can change sign, from ${text(Math.min(...flips))} to ${text(results.largest)} in ${drawsAt(m)}. ${headline}`,
      (frame) => paintFlips(frame, m, C0, bound, expected, flips),
    );
    curves.show(
      `On logarithmic axes the share of such neurons falls with the width m; at m = ${text(m)} it is ${percent(results.share)} and the bound gives ${percent(bound / m)}.`,
      (frame) => paintShares(frame, m, C0, gamma, flips),
    );
    return { headline, results };
  }
  return { nodes: [figures, table.el], show, close: () => [histogram, curves].forEach((part) => part.close()) };
}

function paintFlips({ width, height }, m, C0, bound, expected, flips) {
  const left = 46, right = width - 10, top = 26, bottom = height - 42;
  const least = Math.min(...flips), most = Math.max(...flips);
  const start = Math.min(least, expected), end = Math.max(bound, linear(m, C0), most);
  const room = 0.08 * (end - start);
  const [low, high] = roundRange(Math.max(0, start - room), end + room, 5);
  const bin = Math.max(1, Math.ceil((most - least + 1) / 25), Math.ceil((high - low) / 60)); // whole: |S_1| is
  const counts = new Array(Math.ceil((most - least + 1) / bin)).fill(0);
  for (const value of flips) counts[counts.length - 1 - Math.floor((most - value) / bin)]++;
  const to = most + 0.5, from = to - bin * counts.length;
  const x = scale(low, high, left, right);
  const tallest = roundRange(0, Math.max(...counts), 4)[1];
  const y = scale(0, tallest, bottom, top);
  const upright = (value) => [x(value), top, x(value), bottom];
  return [
    ...(high > m ? [rect("void", x(m), top, right - x(m), bottom - top)] : []),
    ...yAxis(y, left, ticks(0, tallest, 4).filter(Number.isInteger), "draws per bin", right, top),
    bars("bar", counts, x, y, from, to),
    bars("bar-hot", counts, x, y, from, to, Math.max(from, bound), Math.max(to, bound)),
    strokes("limit-near", [upright(linear(m, C0))]),
    strokes("mean", [upright(expected)]),
    strokes("limit", [upright(bound)]),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, ticks(low, high, width < 420 ? 3 : 5), "neurons that can change their sign, |S₁|", (left + right) / 2),
  ];
}

const WIDE = [100, 1e6];
const SHARES = [5e-4, 5];

function paintShares({ width, height }, m, C0, gamma, flips) {
  const left = 56, right = width - 28, top = 26, bottom = height - 42;
  const x = logScale(...WIDE, left, right), y = logScale(...SHARES, bottom, top);
  const widths = Array.from({ length: 41 }, (_, k) => 10 ** (2 + k / 10));
  const curve = (kind, share) => line(kind, widths.map((width) => [x(width), y(share(width))]));
  const shares = [Math.min(...flips), Math.max(...flips)].map((value) => y(Math.max(value / m, SHARES[0])));
  return [
    rect("void", left, top, right - left, y(1) - top),
    write("title", right - 4, y(1) - 6, "end", "says nothing"),
    ...yAxis(y, left, powers(...SHARES), "|S₁|/m", right, top),
    strokes("axis", [[x(m), shares[0], x(m), bottom]]),
    curve("limit-near", (width) => linear(width, C0) / width),
    curve("limit", (width) => sign_change_bound(width, C0, gamma) / width),
    curve("mean", (width) => sign_change_mean(width, C0) / width),
    rect("interval", x(m) - 3, shares[1], 6, shares[0] - shares[1]),
    circle("point", x(m), y(Math.max(mean(flips) / m, SHARES[0])), 5),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, powers(...WIDE).filter((_, k) => width > 340 || k % 2 === 0), "width m", (left + right) / 2),
  ];
}

PANELS.flips = {
  title: "Lemma 4.3: few neurons can change their sign",
  controls: { m: MILLION, C0, gamma: GAMMA },
  notes: notesOf,
  needs: ["m", "C0"],
  measure: measureFlips,
  build: buildFlips,
};
