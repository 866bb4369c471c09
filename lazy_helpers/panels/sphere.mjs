// Projected gradient ascent on the sphere ||delta|| = eps: starts that can be moved, their ways up, how stationary and how curved
// each iterate is. The Worker draws the network and samples the sphere; the ascents, a few ms each, are the page's.

import { ballPixels, colour, DEGREE, direction, FRONT, geodesic, grid, gridMaxima, levels, mapPixels, ringPixels, seen, stage, turned, unseen } from "./ball.mjs";
import { critical_scale, dot, inner_problem, MAXIMUM, Network, NOT_CONVERGED, pga, predicted_steps, profile, radial, SADDLE, top_eigenvalue } from "./dynamics.mjs";
import { norm } from "./lazy.mjs";
import { PANELS } from "./panel.mjs";
import { button, circle, figure, html, line, logScale, numbers, plain, rect, roundRange, scale, strokes, text, ticks, write, xAxis, yAxis } from "./view.mjs";
import { normalMatrix, signs } from "./weights.mjs";

export const LOG = (low, high) => {
  const values = Array.from({ length: 200 }, (_, k) => Number((low * 10 ** (k / 20)).toPrecision(2)));
  return [...values.filter((value) => value < high), high];
};
export const S = { symbol: "β", name: "scale of the input", values: LOG(0.05, 10) };
export const RHO = { symbol: "ρ", name: "perturbation ratio", values: Array.from({ length: 18 }, (_, k) => (k + 1) / 20) };
export const WIDTH = (low, high) => ({ symbol: "m", name: "width", values: LOG(low, high), whole: true });
export const SIGMA = { softplus: "softplus", tanh: "tanh", quadratic: "z²/2", relu: "ReLU" };

// A ReLU's ascent settles on its kinks only with steps that shorten.
export const how = (activation) => ({ tol: 1e-6, max_steps: 300, decay: activation === "relu" ? 0.1 : 0 });

const firstAxis = (d) => Float64Array.from({ length: d }, (_, j) => (j ? 0 : 1));

/** The problem of a state, from its network's numbers. */
const problemOf = ({ s, rho, d, y, activation }, { W, a }) => inner_problem(new Network(d, a, W, activation), firstAxis(d), y, s, rho);

/** Orthonormal axes, the first along G at delta = 0, the second in its plane with x. */
function frameOf(problem) {
  const { x, net: { d } } = problem, G = problem.grad(new Float64Array(d));
  const axes = [];
  for (const v of [G, x, ...Array.from({ length: d }, (_, j) => Float64Array.from(x, (_, k) => (j === k ? 1 : 0)))]) {
    const rest = axes.reduce((left, axis) => left.map((vj, j) => vj - dot(v, axis) * axis[j]), Float64Array.from(v));
    if (axes.length < d && norm(rest) > 1e-6 * norm(v)) axes.push(rest.map((vj) => vj / norm(rest)));
  }
  return axes;
}

const outOf = (frame, u) => frame[0].map((_, j) => frame.reduce((sum, axis, k) => sum + u[k] * axis[j], 0));
const into = (frame, v) => frame.map((axis) => dot(axis, v) / norm(v));

function measureSphere(state, cache) {
  const { s, rho, m, d, y, seed } = state;
  const name = [d, m, seed].join();
  if (cache.name !== name) Object.assign(cache, { name, W: normalMatrix(d, m, seed, "W0"), a: signs(m, seed) });
  const problem = problemOf(state, cache), frame = frameOf(problem);
  const { f, g } = problem.net.value_and_grad(problem.x);
  const { net, x, eps } = problem, center = net.times(x), axes = frame.map((axis) => net.times(axis)), z = new Float64Array(m);
  const residual = Float64Array.from(grid(d), ([u0, u1, u2 = 0]) => {
    const [c0, c1, c2 = c1] = axes;
    for (let k = 0; k < m; k++) z[k] = center[k] + eps * (u0 * c0[k] + u1 * c1[k] + u2 * c2[k]);
    return net.value_of(z) - y;
  });
  return {
    W: cache.W,
    a: cache.a,
    frame,
    residual,
    f,
    reach: s * rho * norm(g),
    critical: critical_scale(problem.net, profile(problem.net, firstAxis(d), 0.01, 100, 200), y, rho),
    maxima: gridMaxima(residual, d),
  };
}

/** One start's ascent, its iterates in the frame, and the relative top eigenvalue on its way, of an activation that has one. */
function ascend(problem, frame, u, { eta, rule, activation }) {
  const run = pga(problem, problem.on_sphere(outOf(frame, u)), { ...how(activation), eta, rule, record: true });
  const curved = (delta) => top_eigenvalue(problem, delta) / Math.max(Math.abs(radial(problem, delta)), 1e-300);
  return {
    ...run,
    at: run.path.delta.map((delta) => into(frame, delta)),
    curvature: problem.net.sigma.second ? run.path.delta.map(curved) : null,
  };
}

const STARTS = {
  2: [80, -125, 168].map((angle) => [Math.cos(angle * DEGREE), Math.sin(angle * DEGREE)]),
  3: [[72, -14], [112, -116], [150, -35]].map(([angle, around]) => direction(angle * DEGREE, around * DEGREE)),
};
const STEP = 5 * DEGREE; // of an arrow key

const angleOf = (u) => Math.acos(Math.min(1, Math.max(-1, u[0]))) / DEGREE;
const listed = (words) => `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;

/** How many different maxima the runs have ended at. */
function reached(runs, eps) {
  const ends = [];
  for (const { status, delta } of runs)
    if (status === MAXIMUM && !ends.some((end) => norm(end.map((value, j) => value - delta[j])) < 0.02 * eps)) ends.push(delta);
  return ends.length;
}

function ascentWords(state, { f, reach, maxima }, runs, ends) {
  const at = (kind) => runs.map(({ status }, k) => (status === kind ? k + 1 : 0)).filter(Boolean);
  const [open, saddles] = [at(NOT_CONVERGED), at(SADDLE)];
  const plural = (list, one, many) => (list.length > 1 ? `Starts ${listed(list)} ${many}` : `Start ${list[0]} ${one}`);
  const steps = listed(runs.map(({ steps }) => text(steps)));
  const counted = `in ${steps} steps; a linear L predicts ${text(Math.ceil(predicted_steps(1e-6, state.eta)))}`;
  const same = "All starts reach the same local maximum", apart = `The starts reach ${ends} different local maxima`;
  const how = open.length
    ? `${plural(open, "has", "have")} not converged after ${runs[open[0] - 1].steps} steps.`
    : saddles.length
      ? `${plural(saddles, "ends", "end")} at a saddle.`
      : `${ends === 1 ? same : apart}${state.activation === "relu" ? ", on kinks or between them" : `, ${counted}`}.`;
  const gap = Math.abs(f - state.y), two = reach > gap;
  const why = `β\u00a0ρ\u00a0‖∇f(x)‖ = ${text(reach, 3)} ${two ? "exceeds" : "is below"} |f(x)\u00a0−\u00a0y| = ${text(gap, 3)}`;
  const other = two ? "A second maximum, on the other side of y, is predicted" : "No second maximum on the other side of y is predicted";
  return `${how} ${other}: ${why}. A grid of the sphere has ${sides(maxima)}.`;
}

/** Maxima by the side of y on which f is there. */
const sides = ({ below, above }) => {
  const all = below + above;
  if (!below || !above) return `${text(all)} ${all === 1 ? "maximum" : "maxima"}, ${all === 1 ? "" : "all "}with f ${below ? "<" : ">"} y`;
  return `${text(below)} ${below === 1 ? "maximum" : "maxima"} with f < y and ${text(above)} with f > y`;
};

const ORDER = ["one", "two", "three"];
const ENDS = { [MAXIMUM]: "◆", [SADDLE]: "✕", [NOT_CONVERGED]: "○" };

function buildSphere(change) {
  const keys = [["area less", "f < y"], ["area more", "f > y"]];
  const picture = figure({ caption: "L and the ascents on ‖δ‖ = ε; G₀ = ∇L(0)", keys, height: 330 });
  const chart = figure({ caption: "The same, spread out", keys, height: 330 });
  const still = figure({ caption: "Stationarity κ = ‖PG‖/‖G‖", keys: [["line reference", "(1 + ηᵣₑₗ)⁻ᵗ"], ["line edge", "tolerance"]], height: 230 });
  const bent = figure({ caption: "Top eigenvalue λ, in units of |⟨G, ν⟩|/ε", keys: [["area within", "curved down"], ["line reference", "linear L: −1"]], height: 230 });
  for (const part of [picture, chart])
    part.el.firstElementChild.append(...Object.entries(ENDS).map(([words, mark]) => html("span", { class: "lp-key" }, `${mark} ${words}`)));
  const table = numbers(4, {
    steps: "steps of the slowest start",
    predicted_steps: "steps predicted",
    value: "largest L reached",
    maxima: "maxima reached",
    reach: "β ρ ‖∇f(x)‖",
    gap: "|f(x) − y|",
    critical: "critical scale",
    grid: "maxima on a grid",
  });

  const starts = { 2: [...STARTS[2]], 3: [...STARTS[3]] };
  let view = FRONT, now = null, shownUpTo = Infinity, timer = null;
  const memo = []; // each start's latest ascent, and what it was computed from
  const handles = ORDER.map((kind, k) => html("button", { type: "button", class: `lp-start ${kind}`, role: "slider", "aria-label": `start ${k + 1}`, "aria-valuemin": 0, "aria-valuemax": 180 }, String(k + 1)));
  const { canvas, drawing } = stage(picture, ...handles);
  const flat = stage(chart);

  // ----- what moves: the starts, the view, the iterations that are shown
  const place = (k, u) => {
    starts[now.state.d][k] = u;
    change({});
  };
  const pointed = (event) => {
    const box = drawing.getBoundingClientRect(), { cx, cy, R } = layout(now.frame);
    const [right, up] = [(event.clientX - box.left - cx) / R, (cy - event.clientY + box.top) / R];
    if (now.state.d === 3) return unseen(right, up, view);
    const far = Math.hypot(right, up);
    return far ? [up / far, right / far] : [1, 0];
  };
  const drag = (el, moved) => {
    let held = null;
    el.addEventListener("pointerdown", (event) => {
      if (!now || event.button) return;
      held = event;
      el.setPointerCapture(event.pointerId);
    });
    el.addEventListener("pointermove", (event) => {
      if (held) moved(event, held);
      if (held) held = event;
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) el.addEventListener(end, () => (held = null));
  };
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const onArrows = (el, moved) =>
    el.addEventListener("keydown", (event) => {
      if (!now || !ARROWS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      moved(...ARROWS[event.key].map((way) => way * STEP * (event.shiftKey ? 0.2 : 1)));
    });
  handles.forEach((handle, k) => {
    drag(handle, (event) => place(k, pointed(event)));
    onArrows(handle, (right, up) => {
      const u = starts[now.state.d][k];
      if (now.state.d === 2) return place(k, direction(Math.atan2(u[1], u[0]) + (right || up), 0).slice(0, 2));
      if (seen(u, view)[2] < 0) view = { ...view, around: Math.atan2(u[2], u[1]) }; // to where it can be seen
      const [x, y] = seen(u, view), far = Math.hypot(x + right, y + up);
      if (far >= 1) view = turned(view, -2 * right, 2 * up); // over the rim: the ball turns along
      place(k, unseen(x + right, y + up, view));
    });
  });
  const turn = (right, down) => {
    if (now.state.d !== 3) return;
    view = turned(view, right, down);
    draw();
  };
  drag(drawing, (event, before) => turn((event.clientX - before.clientX) / layout(now.frame).R, (event.clientY - before.clientY) / layout(now.frame).R));
  onArrows(drawing, (right, up) => turn(right, -up));

  const last = () => Math.max(...now.runs.map(({ steps }) => steps));
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  const upTo = (t) => {
    shownUpTo = t >= last() ? Infinity : t;
    if (shownUpTo === Infinity) stop();
    draw();
  };
  const next = () => upTo((shownUpTo === Infinity ? 0 : shownUpTo) + 1);
  const play = button("Play", () => {
    if (timer) return stop();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return upTo(Infinity);
    if (shownUpTo === Infinity) upTo(0);
    play.textContent = "Pause";
    timer = setInterval(next, Math.min(250, Math.max(25, 4000 / last())));
  });
  play.classList.add("lp-main");
  const said = html("span", { class: "lp-seed" });
  const run = html("div", { class: "lp-run" },
    play,
    button("Step", () => (stop(), next())),
    button("Starts back", () => {
      Object.assign(starts, { 2: [...STARTS[2]], 3: [...STARTS[3]] });
      [view, shownUpTo] = [FRONT, Infinity];
      stop();
      change({});
    }),
    said);

  // ----- what is shown
  function draw() {
    const { state, data, runs, range } = now;
    const t = shownUpTo === Infinity ? last() : shownUpTo;
    said.textContent = `step ${text(t)} of ${text(last())}`;
    const told = runs.map(({ status, at }, k) => `start ${k + 1}, ${text(angleOf(at[0]), 3)} degrees from G0: ${status} at ${text(angleOf(at.at(-1)), 3)} degrees`).join("; ");
    const about = `L from ${text(range[0], 3)} to ${text(range[1], 3)} on the sphere. ${told}.`;
    drawing.setAttribute("tabindex", state.d === 3 ? 0 : -1);
    drawing.classList.toggle("lp-turns", state.d === 3);
    const painters = state.d === 3 ? [paintBall, paintSpread] : [paintRing, paintAround];
    picture.show(state.d === 3 ? `${about} Arrow keys turn the ball.` : about, (frame) => {
      now.frame = frame;
      return painters[0](frame, now, shownUpTo, canvas, view, handles);
    });
    chart.el.querySelector(".lp-caption-title").textContent = state.d === 3 ? "The whole ball, flat" : "L against the angle";
    chart.show(about, (frame) => painters[1](frame, now, shownUpTo, flat.canvas));
    still.show(
      `Stationarity against the step on a logarithmic scale, beside the prediction for a linear L. At the ends ${listed(runs.map(({ path }) => small(path.stationarity.at(-1))))}.`,
      (frame) => paintStationarity(frame, now, shownUpTo));
    bent.show(
      runs[0].curvature
        ? `The top eigenvalue of the Riemannian Hessian against the step; at the ends ${listed(runs.map(({ curvature }) => text(curvature.at(-1), 3)))}. Below 0 the sphere curves down.`
        : "ReLU has no second derivative; its ends are judged by its kinks.",
      (frame) => paintCurvature(frame, now, shownUpTo));
    handles.forEach((handle, k) => {
      const u = starts[state.d][k];
      handle.setAttribute("aria-valuenow", angleOf(u).toFixed(0));
      handle.setAttribute("aria-valuetext", `${angleOf(u).toFixed(0)} degrees from G0, ${runs[k].status} after ${runs[k].steps} steps`);
    });
  }

  function show(state, data) {
    const { d, y, eta, rule, s, rho } = state, eps = s * rho;
    const problem = problemOf(state, data);
    const runs = starts[d].map((u, k) => {
      const same = memo[k]?.data === data && memo[k].u === u && memo[k].eta === eta && memo[k].rule === rule;
      if (!same) memo[k] = { data, u, eta, rule, run: ascend(problem, data.frame, u, state) };
      return memo[k].run;
    });
    if (now?.data !== data || now.runs.some((one, k) => one !== runs[k])) {
      if (timer) stop();
      shownUpTo = Infinity;
    }
    now = { state, data, runs, range: levels(data.residual), frame: now?.frame };
    const ends = reached(runs, eps), gap = Math.abs(data.f - y), most = Math.max(...runs.map(({ steps }) => steps));
    const predicted = predicted_steps(1e-6, eta);
    table.show({
      steps: [most, `starts 1, 2, 3: ${runs.map(({ steps }) => text(steps)).join(", ")}`],
      predicted_steps: [predicted, "ln 10⁶ / ln(1 + ηᵣₑₗ)"],
      value: [Math.max(...runs.map(({ value }) => value)), `on the grid ${text(now.range[1])}`],
      maxima: [ends, `by ${runs.filter(({ status }) => status === MAXIMUM).length} of 3 starts`],
      reach: [data.reach, "how far f can move, to first order"],
      gap: [gap, `f(x) = ${text(data.f)}, y = ${text(y)}`],
      critical: [data.critical, data.critical === null ? "none up to β = 100" : "least β with a second one predicted"],
      grid: [data.maxima.below + data.maxima.above, `f > y at ${text(data.maxima.above)}; ${d === 2 ? "720 angles" : "37 × 72 directions"}`],
    });
    draw();
    const results = {
      steps: runs.map(({ steps }) => steps),
      status: runs.map(({ status }) => status),
      value: runs.map(({ value }) => value),
      maxima: ends,
      predicted_steps: predicted,
      predicted: data.reach > gap,
      critical: data.critical,
    };
    return { headline: ascentWords(state, data, runs, ends), results };
  }
  const pictures = html("div", { class: "lp-pair lp-level" }, picture.el, chart.el);
  const courses = html("div", { class: "lp-pair lp-level" }, still.el, bent.el);
  return { nodes: [pictures, run, courses, table.el], show, close: () => (stop(), [picture, chart, still, bent].forEach((part) => part.close())) };
}

const small = (value) => (value < 1e-3 ? value.toExponential(0).replace("-", "\u2212") : text(value, 2));

// ------------------------------------------------------------------------------------------------------------ pictures

/** Where the ring or the ball stands. */
const layout = ({ width, height }) => ({ cx: width / 2, cy: height / 2, R: Math.min(width, height) / 2 - 26, thick: 18 });

const revealed = (run, upTo) => run.at.slice(0, Math.min(run.at.length, upTo + 1));

/** An end's mark, once the whole way is shown. */
function endMark(run, kind, upTo, x, y) {
  if (upTo < run.steps) return [circle(`way-point ${kind}`, x, y, 4)];
  if (run.status === NOT_CONVERGED) return [circle(`end-halo ${kind}`, x, y, 6), circle(`end-open ${kind}`, x, y, 6)];
  const r = run.status === MAXIMUM ? 8 : 6;
  if (run.status === MAXIMUM) return [line(`end-full ${kind}`, [[x, y - r], [x + r, y], [x, y + r], [x - r, y], [x, y - r]])];
  const cross = [[x - r, y - r, x + r, y + r], [x - r, y + r, x + r, y - r]];
  return [strokes(`end-halo ${kind}`, cross), strokes(`end-open ${kind}`, cross)];
}

function paintRing(frame, { data, runs, range }, upTo, canvas, view, handles) {
  const place = layout(frame), { cx, cy, R, thick } = place;
  colour(canvas, frame, range, ringPixels(data.residual, place));
  const at = ([h, p], far = R) => [cx + far * p, cy - far * h];
  const inner = (k) => R - thick / 2 - 16 - 15 * k;
  handles.forEach((handle, k) => hold(handle, ...at(runs[k].at[0]), true));
  return [
    circle("rim", cx, cy, R - thick / 2),
    circle("rim", cx, cy, R + thick / 2),
    strokes("axis", [[cx, cy, cx, cy - 34], [cx - 4, cy - 28, cx, cy - 35], [cx + 4, cy - 28, cx, cy - 35]]),
    write("term", cx, cy + 16, "middle", "G₀"),
    ...runs.flatMap((run, k) => {
      const way = revealed(run, upTo), path = way.flatMap((u, t) => (t ? geodesic(way[t - 1], u) : [u]));
      const points = path.map((u) => at(u, inner(k)));
      return [
        strokes("link", [[...at(way[0], R - thick / 2), ...at(way[0], inner(k))]]),
        line(`way ${ORDER[k]}`, points),
        ...way.map((u) => circle(`iterate ${ORDER[k]}`, ...at(u, inner(k)), 2.2)),
        ...endMark(run, ORDER[k], upTo, ...points.at(-1)),
      ];
    }),
  ];
}

/** Puts a start's handle where it is seen. */
function hold(handle, x, y, front) {
  Object.assign(handle.style, { left: `${x.toFixed(1)}px`, top: `${y.toFixed(1)}px` });
  handle.classList.toggle("lp-behind", !front);
}

/** The parts of a broken line that satisfy a test, and those that do not: [points, yes]. */
function parted(points, test) {
  const parts = [];
  points.forEach((point, k) => {
    const yes = test(point);
    if (k === 0 || yes !== parts.at(-1)[1]) parts.push([k ? [points[k - 1], point] : [point], yes]);
    else parts.at(-1)[0].push(point);
  });
  return parts;
}

const PARALLELS = [30, 60, 90, 120, 150];
const circled = (points) => Array.from({ length: 121 }, (_, k) => points(k * 3 * DEGREE));

function paintBall(frame, { data, runs, range }, upTo, canvas, view, handles) {
  const place = layout(frame), { cx, cy, R } = place;
  colour(canvas, frame, range, ballPixels(data.residual, place, view));
  const at = (u) => {
    const [x, y, out] = seen(u, view);
    return [cx + R * x, cy - R * y, out];
  };
  handles.forEach((handle, k) => {
    const [x, y, out] = at(runs[k].at[0]);
    hold(handle, x, y, out >= 0);
  });
  const rings = [
    ...PARALLELS.map((angle) => circled((t) => direction(angle * DEGREE, t))),
    ...[0, 60, 120].map((around) => circled((t) => direction(t, around * DEGREE))),
  ];
  const drawn = (kind, points) => parted(points, (point) => point[2] >= 0).map(([part, front]) => line(`${kind}${front ? "" : " behind"}`, part));
  const pole = (sign, label) => {
    const [x, y, out] = at([sign, 0, 0]);
    return out > 0.02 ? [circle("tip", x, y, 2.5), write("term", x, y - 8, "middle", label)] : [];
  };
  return [
    ...rings.flatMap((ring) => parted(ring.map(at), (point) => point[2] >= 0).filter(([, front]) => front).map(([part]) => line("net", part))),
    circle("rim", cx, cy, R),
    ...pole(1, "G₀"),
    ...pole(-1, "−G₀"),
    ...runs.flatMap((run, k) => {
      const way = revealed(run, upTo), path = way.flatMap((u, t) => (t ? geodesic(way[t - 1], u) : [u])).map(at);
      const [x, y, out] = path.at(-1);
      return [
        ...drawn(`way ${ORDER[k]}`, path),
        ...way.map(at).map(([px, py, front]) => circle(`iterate ${ORDER[k]}${front < 0 ? " behind" : ""}`, px, py, 2.2)),
        ...endMark(run, `${ORDER[k]}${out < 0 ? " behind" : ""}`, upTo, x, y),
      ];
    }),
  ];
}

const turns = (angle) => angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI)); // into [-pi, pi]

function paintSpread(frame, { data, runs, range }, upTo, canvas) {
  const left = 46, right = frame.width - 12, top = 26, bottom = frame.height - 42;
  colour(canvas, frame, range, mapPixels(data.residual, { left, right, top, bottom }));
  const x = scale(-180, 180, left, right), area = scale(1, -1, top, bottom), y = (angle) => area(Math.cos(angle * DEGREE));
  const at = (u) => [x(turns(Math.atan2(u[2], u[1])) / DEGREE), y(angleOf(u))];
  const near = (points) => {
    const parts = [];
    points.forEach((point, k) => (k && Math.abs(point[0] - points[k - 1][0]) < (right - left) / 2 ? parts.at(-1).push(point) : parts.push([point])));
    return parts;
  };
  return [
    strokes("net", PARALLELS.map((angle) => [left, y(angle), right, y(angle)])),
    ...runs.flatMap((run, k) => {
      const way = revealed(run, upTo), path = way.flatMap((u, t) => (t ? geodesic(way[t - 1], u) : [u])).map(at);
      return [
        ...near(path).map((part) => line(`way ${ORDER[k]}`, part)),
        ...way.map((u) => circle(`iterate ${ORDER[k]}`, ...at(u), 2.2)),
        ...startMark(k, ...at(way[0])),
        ...endMark(run, ORDER[k], upTo, ...path.at(-1)),
      ];
    }),
    strokes("frame", [[left, top, right, top], [left, bottom, right, bottom], [left, top, left, bottom], [right, top, right, bottom]]),
    ...[0, 60, 90, 120, 180].map((angle) => write("tick", left - 7, y(angle) + 4, "end", plain(angle))),
    write("title", left - 34, top - 10, "start", "angle to G₀, equal areas"),
    ...xAxis(x, bottom, [-180, -90, 0, 90, 180], "angle around G₀", (left + right) / 2),
  ];
}

const startMark = (k, x, y) => [circle(`way-point ${ORDER[k]}`, x, y, 5.5), write(`start-name ${ORDER[k]}`, x, y - 9, "middle", String(k + 1))];

function paintAround(frame, { data, runs, range }, upTo, canvas) {
  canvas.width = 0;
  const left = 46, right = frame.width - 12, top = 26, bottom = frame.height - 42;
  const room = 0.06 * (range[1] - range[0]);
  const [low, high] = roundRange(Math.max(0, range[0] - room), range[1] + room, 5);
  const x = scale(-180, 180, left, right), y = scale(low, high, bottom, top);
  const n = data.residual.length, half = n / 2;
  const curve = Array.from({ length: n + 1 }, (_, k) => {
    const r = data.residual[(k + half) % n];
    return [x(((k - half) / n) * 360), y((r * r) / 2), r];
  });
  const at = (run, t) => [x(Math.atan2(run.at[t][1], run.at[t][0]) / DEGREE), y(run.path.value[t])];
  return [
    ...yAxis(y, left, ticks(low, high, 5), "L", right, top),
    ...parted(curve, (point) => point[2] >= 0).map(([part, above]) => line(above ? "limit" : "curve", part)),
    ...runs.flatMap((run, k) => {
      const way = revealed(run, upTo);
      return [
        ...way.map((_, t) => circle(`iterate ${ORDER[k]}`, ...at(run, t), 3)),
        ...startMark(k, ...at(run, 0)),
        ...endMark(run, ORDER[k], upTo, ...at(run, way.length - 1)),
      ];
    }),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, [-180, -90, 0, 90, 180], "angle to G₀", (left + right) / 2),
  ];
}

const FLOOR = 1e-7;

/** The steps' axis, long enough for every way. */
const stepsShown = (runs) => roundRange(0, Math.max(10, ...runs.map(({ steps }) => steps)), 5)[1];

function paintStationarity({ width, height }, { state, runs }, upTo) {
  const left = 50, right = width - 14, top = 26, bottom = height - 42;
  const far = stepsShown(runs);
  const x = scale(0, far, left, right), y = logScale(FLOOR, 2, bottom, top);
  const reach = Math.min(far, Math.log(1 / FLOOR) / Math.log1p(state.eta));
  return [
    ...logAxis(y, left, right, top),
    strokes("edge", [[left, y(1e-6), right, y(1e-6)]]),
    line("reference", [[x(0), y(1)], [x(reach), y((1 + state.eta) ** -reach)]]),
    ...climbs(runs.map(({ path }) => path.stationarity.map((value, t) => [x(t), y(Math.max(value, FLOOR))])), upTo, right),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, ticks(0, far, width < 300 ? 3 : 5), "step", (left + right) / 2),
  ];
}

/** Powers of ten in words that stay short. */
function logAxis(y, left, right, top) {
  const marks = [0, -2, -4, -6], power = { 0: "1", "-2": "10⁻²", "-4": "10⁻⁴", "-6": "10⁻⁶" };
  return [
    strokes("grid", marks.map((mark) => [left, y(10 ** mark), right, y(10 ** mark)])),
    ...marks.map((mark) => write("tick", left - 7, y(10 ** mark) + 4, "end", power[mark])),
    write("title", left - 38, top - 10, "start", "κ"),
  ];
}

/** The courses up to the step shown, each with its number at the end; where `inside` says no a course is dots alone. */
function climbs(courses, upTo, right, inside = () => true) {
  const taken = [];
  return courses.flatMap((points, k) => {
    const part = points.slice(0, Math.min(points.length, upTo + 1)), [x, y] = part.at(-1);
    const lines = parted(part, inside).filter(([piece, yes]) => yes && piece.length > 1).map(([piece]) => piece);
    const beside = 11 * taken.filter(([px, py]) => Math.hypot(px - x, py - y) < 12).length;
    taken.push([x, y]);
    return [
      ...lines.flatMap((piece) => [line("course-halo", piece), line(`course ${ORDER[k]}`, piece)]),
      ...(lines.length > 1 || !lines.length ? part.map((point) => circle(`iterate ${ORDER[k]}`, ...point, 1.6)) : []),
      circle(`way-point ${ORDER[k]}`, x, y, 3.5),
      write(`start-name ${ORDER[k]}`, x + (x > right - 34 ? -5 - beside : 5 + beside), y - 6, x > right - 34 ? "end" : "start", String(k + 1)),
    ];
  });
}

const CURVED = [-2, 2];

function paintCurvature({ width, height }, { runs }, upTo) {
  const left = 50, right = width - 14, top = 26, bottom = height - 42, far = stepsShown(runs);
  const x = scale(0, far, left, right), y = scale(...CURVED, bottom, top);
  const held = (value) => Math.min(CURVED[1], Math.max(CURVED[0], value));
  return [
    rect("within", left, y(0), right - left, bottom - y(0)),
    ...yAxis(y, left, ticks(...CURVED, 4), "λ; beyond ±2 at the edge", right, top),
    strokes("zero", [[left, y(0), right, y(0)]]),
    strokes("reference", [[left, y(-1), right, y(-1)]]),
    ...(runs[0].curvature
      ? climbs(runs.map(({ curvature }) => curvature.map((value, t) => [x(t), y(held(value))])), upTo, right, ([, at]) => at > y(CURVED[1]) + 0.5 && at < y(CURVED[0]) - 0.5)
      : [write("mark", (left + right) / 2, y(0.5), "middle", "ReLU has no second derivative")]),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, ticks(0, far, width < 300 ? 3 : 5), "step", (left + right) / 2),
  ];
}

PANELS.sphere = {
  title: "Projected gradient ascent on the sphere",
  controls: {
    s: S,
    rho: RHO,
    m: WIDTH(10, 3000),
    eta: { symbol: "ηᵣₑₗ", name: "relative step", values: LOG(0.05, 10) },
    d: { symbol: "d", name: "input dimension", values: [2, 3], only: true },
    y: { symbol: "y", name: "target", values: [-1, 1], only: true },
    rule: { name: "Step scaled by", options: { current: "the current ‖G‖", first: "the first ‖G‖" }, narrow: true },
    activation: { name: "Activation φ", options: SIGMA },
  },
  notes: ({ s, rho, m, eta, d, activation }) => ({
    s: "x = β x₀, where ‖x₀‖ = 1",
    rho: `ε = ρβ = ${text(s * rho, 3)}`,
    m: "hidden neurons",
    eta: activation === "relu" ? "step t divided by 1 + t/10" : `predicts a factor ${text(1 / (1 + eta), 3)} a step`,
    d: d === 2 ? "a circle" : "a ball: drag it to turn it",
    y: "L = (f − y)²/2",
  }),
  needs: ["s", "rho", "m", "d", "y", "activation"],
  measure: measureSphere,
  build: buildSphere,
};
