// Second maxima of the inner problem as the scale s moves: the share of random networks that have one, predicted and found, and L
// along a great circle of one of them, where the second basin appears.

import { critical_scale, dot, inner_problem, Network, profile, second_maximum } from "./dynamics.mjs";
import { norm } from "./lazy.mjs";
import { PANELS } from "./panel.mjs";
import { how, RHO, S, SIGMA, WIDTH } from "./sphere.mjs";
import { circle, figure, html, line, logScale, numbers, percent, roundRange, scale, strokes, text, ticks, write, xAxis, yAxis } from "./view.mjs";
import { normalMatrix, normals, ROW, signs, streamKey } from "./weights.mjs";

export const NETWORKS = 30;
const TARGET = 1; // y; by symmetry of the signs -1 is no other case
const SOUGHT = [0.02, 20]; // the scales in which a critical one is looked for
const PROFILE = 121;
const AROUND_G = Array.from({ length: 361 }, (_, k) => k - 90); // degrees from G0 along the great circle

// Which side of y an end lies on is settled long before the ascent is.
export const brisk = (activation) => ({ ...how(activation), tol: 1e-3, max_steps: 30 });

/** The scales at which second maxima are looked for: fewer where that takes longer. */
const scalesFor = (m, d) => S.values.filter((_, k) => k % (m * d > 100_000 ? 8 : m * d > 30_000 ? 4 : 2) === 0);

/** One long draw, cut into networks of m neurons each. */
function networksOf({ d, m, activation, seed }, cache) {
  const drawn = [d, m, seed].join(), name = `${drawn},${activation}`;
  if (cache.drawn !== drawn) Object.assign(cache, { drawn, W: normalMatrix(d, NETWORKS * m, seed, "W0"), a: signs(NETWORKS * m, seed) });
  if (cache.name !== name) {
    const { W, a } = cache, x0 = new Float64Array(d);
    x0[0] = 1;
    const nets = Array.from({ length: NETWORKS }, (_, k) => new Network(d, a.subarray(k * m, (k + 1) * m), W.subarray(k * m * d, (k + 1) * m * d), activation));
    Object.assign(cache, { name, x0, nets, profiles: nets.map((net) => profile(net, x0, ...SOUGHT, PROFILE)) });
  }
  return cache;
}

/** L's residual along the great circle through G0 and a random direction of the network's own. */
function greatCircle({ seed, network }, problem) {
  const { d } = problem.net;
  const G = problem.grad(new Float64Array(d)), u = G.map((Gj) => Gj / norm(G));
  const drawn = new Float32Array(d);
  normals(drawn, 0, streamKey(seed, "boundary"), (network - 1) * ROW, d);
  const along = dot(drawn, u), v = u.map((uj, j) => drawn[j] - along * uj), length = norm(v);
  const [at, up, aside] = [problem.x, u, v.map((vj) => vj / length)].map((w) => problem.net.times(w));
  return AROUND_G.map((degrees) => {
    const [cos, sin] = [Math.cos, Math.sin].map((part) => problem.eps * part((degrees * Math.PI) / 180));
    return problem.net.value_of(at.map((z, k) => z + cos * up[k] + sin * aside[k])) - problem.y;
  });
}

function measureScales(state, cache) {
  const { s, rho, m, d, activation, network } = state;
  const { nets, profiles, x0, name } = networksOf(state, cache);
  if (cache.searched !== `${name},${rho}`) {
    const critical = nets.map((net, k) => critical_scale(net, profiles[k], TARGET, rho));
    Object.assign(cache, { searched: `${name},${rho}`, critical, at: new Map() });
  }
  const look = (scale) => {
    if (!cache.at.has(scale)) cache.at.set(scale, nets.map((net) => second_maximum(inner_problem(net, x0, TARGET, scale, rho), brisk(activation))).map(({ predicted, found }) => ({ predicted, found })));
    return cache.at.get(scale);
  };
  const count = (all) => all.filter(Boolean).length;
  const here = look(s), problem = inner_problem(nets[network - 1], x0, TARGET, s, rho);
  const { f, g } = problem.net.value_and_grad(problem.x);
  return {
    here,
    found: scalesFor(m, d).map((scale) => [scale, count(look(scale).map(({ found }) => found))]),
    predicted: Array.from(profiles[0].s, (scale, k) => [scale, count(profiles.map(({ f, g }) => scale * rho * g[k] > Math.abs(f[k] - TARGET)))]),
    critical: cache.critical,
    around: greatCircle(state, problem),
    f,
    reach: s * rho * norm(g),
  };
}

const middle = (values) => {
  const sorted = values.map((value) => value ?? Infinity).sort((one, other) => one - other), half = sorted.length / 2;
  const value = (sorted[Math.ceil(half) - 1] + sorted[Math.floor(half)]) / 2;
  return value < Infinity ? value : null;
};

/** The highest point of the great circle on the side of y where G0 does not lead; null where the circle does not get there. */
function secondTop(around) {
  const side = Math.sign(around[90]) || 1; // at G0
  const other = Math.max(...around.map((r) => -side * r));
  if (other <= 0) return null;
  const k = around.findIndex((r) => -side * r === other);
  return { degrees: AROUND_G[k], L: other ** 2 / 2 };
}

function buildScales() {
  const shares = figure({
    caption: `Networks with a second maximum, of ${NETWORKS}`,
    keys: [["line curve", "predicted"], ["dot flip", "found"], ["ticks kink", "critical scales"], ["line edge-chosen", "β"]],
    height: 300,
  });
  const basin = figure({
    caption: "L of network i on a great circle through G₀ = ∇L(0)",
    keys: [["line curve", "f < y"], ["line limit", "f > y"], ["dot point", "±∇f(x)"], ["dot flip", "second top"]],
    height: 300,
  });
  const table = numbers(4, {
    predicted: "predicted at this β",
    found: "found at this β",
    agreement: "agreement",
    critical_median: "median critical scale",
    critical_one: "this network’s critical scale",
    reach: "its β ρ ‖∇f(x)‖",
    gap: "its |f(x) − y|",
    second: "its second top, L",
  });
  const figures = html("div", { class: "lp-pair lp-level" }, shares.el, basin.el);

  function show(state, data) {
    const { s, network, activation } = state;
    const { here, critical, around, f, reach } = data;
    const predicted = here.filter((one) => one.predicted).length, found = here.filter((one) => one.found).length;
    const agreement = here.filter((one) => one.predicted === one.found).length / NETWORKS;
    const own = critical[network - 1], top = secondTop(around), gap = Math.abs(f - TARGET);
    const half = middle(critical), none = `none from ${SOUGHT[0]} to ${SOUGHT[1]}`;
    table.show({
      predicted: [predicted, `${percent(predicted / NETWORKS)} of ${NETWORKS} networks`],
      found: [found, `${percent(found / NETWORKS)}, by PGA from ±∇f(x)`],
      agreement: [agreement, `${Math.round(agreement * NETWORKS)} of ${NETWORKS} networks`, percent(agreement)],
      critical_median: [half, half === null ? none : `of ${NETWORKS} networks`],
      critical_one: [own, own === null ? none : activation === "relu" ? "1/(ρ‖∇f(x₀)‖ + f(x₀))" : `network ${network}`],
      reach: [reach, "how far f can move, to first order"],
      gap: [gap, `f(x) = ${text(f)}, y = 1`],
      second: [top?.L ?? null, top ? `at ${text(top.degrees)}° from G₀` : "none on this circle"],
    });
    const of = (n) => `${text(n)} of ${NETWORKS}`;
    const { predicted: says, found: has } = here[network - 1];
    const one = says ? (has ? "predicted and found" : "predicted, but not found") : has ? "found, though not predicted" : "neither predicted nor found";
    const from = own === null ? `there is no critical scale up to ${SOUGHT[1]}` : `its critical scale is ${text(own, 3)}`;
    const headline = `At β = ${text(s)} a second maximum is predicted for ${of(predicted)} networks and found for ${of(found)}. In network ${network} it is ${one}; ${from}.`;
    shares.show(
      `The number of networks with a second maximum against the scale β, predicted as a line and found as dots. ${headline}`,
      (frame) => paintShare(frame, state, data, found),
    );
    basin.show(
      `L along a great circle of network ${network}, by the angle to G0. ${top ? `A second top of ${text(top.L, 3)} lies at ${top.degrees} degrees.` : "There is no second top."}`,
      (frame) => paintBasin(frame, around, top),
    );
    return { headline, results: { predicted, found, agreement, critical } };
  }
  return { nodes: [figures, table.el], show, close: () => [shares, basin].forEach((part) => part.close()) };
}

const MARKS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];

function paintShare({ width, height }, { s, network }, { predicted, found, critical }, now) {
  const left = 40, right = width - 14, top = 26, bottom = height - 54;
  const x = logScale(S.values[0], S.values.at(-1), left, right), y = scale(0, NETWORKS, bottom, top);
  const inside = (value) => value !== null && value >= S.values[0] && value <= S.values.at(-1);
  const rug = bottom + 10; // the critical scales stand between the picture and its axis
  return [
    ...yAxis(y, left, [0, 10, 20, 30], "networks", right, top),
    strokes("edge-chosen", [[x(s), top, x(s), rug]]),
    line("curve", predicted.filter(([scale]) => inside(scale)).map(([scale, count]) => [x(scale), y(count)])),
    ...found.map(([scale, count]) => circle("flip", x(scale), y(count), 4)),
    circle("chosen-dot", x(s), y(now), 6),
    strokes("zero", [[left, bottom, right, bottom]]),
    strokes("kink", critical.filter(inside).map((value) => [x(value), bottom + 1, x(value), rug])),
    ...(inside(critical[network - 1]) ? [strokes("chosen", [[x(critical[network - 1]), bottom - 3, x(critical[network - 1]), rug]])] : []),
    strokes("frame", [[left, rug, right, rug]]),
    ...xAxis(x, rug, MARKS.filter((_, k) => width > 340 || k % 2), "scale β", (left + right) / 2),
  ];
}

function paintBasin({ width, height }, around, second) {
  const left = 46, right = width - 14, top = 26, bottom = height - 42;
  const L = around.map((r) => (r * r) / 2);
  const high = roundRange(0, 1.08 * Math.max(...L), 4)[1];
  const x = scale(AROUND_G[0], AROUND_G.at(-1), left, right), y = scale(0, high, bottom, top);
  const parts = [];
  around.forEach((r, k) => {
    const point = [x(AROUND_G[k]), y(L[k])], kind = r < 0 ? "curve" : "limit";
    if (parts.at(-1)?.kind !== kind) parts.push({ kind, points: parts.length ? [parts.at(-1).points.at(-1)] : [] });
    parts.at(-1).points.push(point);
  });
  return [
    ...yAxis(y, left, ticks(0, high, 4), "L", right, top),
    strokes("edge-chosen", [0, 180].map((degrees) => [x(degrees), top, x(degrees), bottom])),
    ...parts.map(({ kind, points }) => line(kind, points)),
    ...[0, 180].map((degrees) => circle("point", x(degrees), y(L[degrees + 90]), 5)),
    ...(second ? [circle("flip", x(second.degrees), y(second.L), 5.5)] : []),
    write("term", x(0) + 6, top + 12, "start", "G₀"),
    write("term", x(180) + 6, top + 12, "start", "−G₀"),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, [-90, 0, 90, 180, 270], "angle to G₀, degrees", (left + right) / 2),
  ];
}

PANELS.scales = {
  title: "A second maximum appears with the scale",
  controls: {
    s: S,
    rho: RHO,
    m: WIDTH(50, 1000),
    d: { symbol: "d", name: "input dimension", values: [5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200], whole: true },
    network: { symbol: "i", name: "network shown", values: Array.from({ length: NETWORKS }, (_, k) => k + 1), whole: true },
    activation: { name: "Activation φ", options: SIGMA, wide: true },
  },
  notes: ({ s, rho, m, d }) => ({
    s: "x = β x₀, where ‖x₀‖ = 1",
    rho: `ε = ρβ = ${text(s * rho, 3)}`,
    m: "hidden neurons",
    d: `√d = ${text(Math.sqrt(d), 3)}`,
    network: `of ${NETWORKS}, the one whose L is drawn`,
  }),
  needs: ["s", "rho", "m", "d", "network", "activation"],
  measure: measureScales,
  build: buildScales,
};
