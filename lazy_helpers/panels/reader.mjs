// The reader of a stored figure: choose a cell of its grid; see each seed, their mean and spread, and what was published.

import { READERS } from "./panel.mjs";
import { circle, figure, html, line, logScale, numbers, percent, plain, rect, roundRange, scale, strokes, text, ticks, write, xAxis, yAxis } from "./view.mjs";

const VARIANTS = { published: "as published", theory: "as the theory has it" };
const SLIDERS = {
  m: { symbol: "m", name: "width" },
  C0: { symbol: "C₀", name: "size of the lazy ball" },
  d: { symbol: "d", name: "input dimension" },
  eps: { symbol: "ε", name: "budget of the attack" },
};
const SYMBOLS = { m: "m", C0: "C₀", V: "V = C₀/√m", d: "d", eps: "ε" };
const radiusOf = ({ C0, m }) => C0 / Math.sqrt(m);

// -------------------------------------------------------------------------------------------------------------- the grid

/** Mean and standard deviation (n - 1) of numbers; null where there are too few, or one is null. */
export function spread(values) {
  const n = values.length;
  if (n === 0 || values.includes(null)) return { mean: null, sd: null };
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, sd: n > 1 ? Math.sqrt(squares / (n - 1)) : null };
}

/** What stored.py packs, as cells: { place: { variant, m, ... }, runs: one for each seed, missing: seeds }. */
export function gridOf(input) {
  const { axes, rows, missing, published, quantities } = input, names = Object.keys(axes);
  const cells = input.cells[names[0]].map((_, k) => ({
    place: Object.fromEntries(names.map((name) => [name, axes[name][input.cells[name][k]]])),
    runs: [],
    missing: [],
    published: {},
  }));
  rows.cell.forEach((cell, k) => {
    const run = Object.fromEntries(Object.keys(rows).map((column) => [column, rows[column][k]]));
    cells[cell].runs.push({ ...run, device: input.devices[run.device] });
  });
  for (const cell of cells) cell.runs.sort((one, other) => one.seed - other.seed);
  missing.cell.forEach((cell, k) => cells[cell].missing.push(missing.seed[k]));
  published?.cell.forEach((cell, k) => (cells[cell].published[quantities[published.quantity[k]].key] = published.value[k]));
  const matching = (state, keys) => cells.filter(({ place }) => keys.every((key) => place[key] === state[key]));
  const without = (...left) => names.filter((name) => !left.includes(name));
  return {
    names,
    cells,
    at: (state) => matching(state, names)[0],
    slice: (state, ...free) => matching(state, without(...free)),
    /** The values of an axis beside those of the axes before it. */
    offered: (state, axis) => {
      const here = new Set(matching(state, names.slice(0, names.indexOf(axis))).map(({ place }) => place[axis]));
      return axes[axis].filter((value) => here.has(value));
    },
  };
}

/** A cell's numbers for one quantity. */
export function reading({ runs, published }, key) {
  const values = runs.map((run) => run[key]);
  const { mean, sd } = spread(values);
  const theirs = published[key] ?? null;
  return { values, mean, sd, published: theirs, difference: mean === null || theirs === null ? null : mean - theirs };
}

/** The state after a change by `part`: an axis whose choice is new, or is not there, keeps its place in the row of values. */
function settled(grid, next, part, before) {
  const state = { ...next };
  for (const axis of grid.names) {
    const values = grid.offered(state, axis), old = grid.offered(before, axis);
    const unchanged = JSON.stringify(values) === JSON.stringify(old);
    if (values.includes(state[axis]) && (axis in part || unchanged)) continue;
    const place = old.indexOf(before[axis]);
    if (values.length === old.length && place >= 0) state[axis] = values[place];
    else if (!values.includes(state[axis])) {
      const far = (value) => Math.abs(Math.log(value / state[axis]));
      state[axis] = values.reduce((best, value) => (far(value) < far(best) ? value : best));
    }
  }
  return state;
}

// -------------------------------------------------------------------------------------------------------------- in words

const shown = (quantity, value) => (quantity.share ? percent(value) : text(value, 3));

/** A spread of two digits, and a difference with its sign: in points for a share. */
const spreadWords = ({ share }, sd) => (share ? `${text(100 * sd, 2)}\u202f%` : text(sd, 2));
const signed = (value, words) => `${value < 0 ? "\u2212" : "+"}${words}`;
const places = (value) => Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value) || 1))); // decimals of four digits
const differenceWords = ({ share }, value) => (share ? `${signed(value, Math.abs(100 * value).toFixed(1))} points` : signed(value, text(Math.abs(value), 2)));
const seedsOf = (count) => (count === 1 ? "1 seed" : `${count} seeds`);

/** The names and values of a cell's axes, those with one value in the whole figure left out. */
function placeWords(input, place) {
  const many = Object.keys(input.axes).filter((axis) => input.axes[axis].length > 1);
  const words = many.map((axis) => (axis === "variant" ? VARIANTS[place.variant] ?? place.variant : `${SYMBOLS[axis]} = ${plain(place[axis])}`));
  return words.sort((one, other) => one.includes("=") < other.includes("=") ? 1 : -1).join(", ");
}

function headlineOf(input, quantity, cell) {
  const { mean, sd, published, difference } = reading(cell, quantity.key);
  const where = placeWords(input, cell.place), count = cell.runs.length, whole = count + cell.missing.length;
  if (count === 0) return `${where}: not run. The cell belongs to the grid, and none of its ${seedsOf(whole)} has been computed.`;
  const some = cell.missing.length ? `${count} of ${seedsOf(whole)}, the others not run` : seedsOf(count);
  if (mean === null) return `${where}: ${quantity.name} is infinite for at least one seed (${some}).`;
  const ours = `${quantity.name} ${shown(quantity, mean)}${sd === null ? "" : ` ± ${spreadWords(quantity, sd)}`}, ${some}`;
  if (published === null) return `${where}: ${ours}.`;
  return `${where}: ${ours}; published ${shown(quantity, published)}, a difference of ${differenceWords(quantity, difference)}.`;
}

function publishedNote(input, quantity, cell) {
  const { published } = input, found = cell.published[quantity.key];
  if (!published) return "not published: no values could be read";
  if (found === undefined) return "no published value for this cell";
  if (published.floor !== null && found <= published.floor) return "the colour bar’s floor: as low, or lower";
  const index = input.quantities.indexOf(quantity);
  return `read off ${published.from}, to about ${plain(published.errors[index])}`;
}

const span = (seconds) =>
  seconds < 60 ? `${text(seconds, 2)} s` : seconds < 3600 ? `${text(seconds / 60, 2)} min` : `${text(seconds / 3600, 2)} h`;

const COLUMNS = {
  epochs: ["epochs", (run) => text(run.epochs, 3) + (run.ended === 0 ? " (cap)" : "")],
  steps: ["steps", (run) => text(run.steps)],
  deviation_C0: ["C₀ used", (run) => text(run.deviation_C0, 3)],
  test_accuracy: ["test acc.", (run) => percent(run.test_accuracy)],
  seconds: ["time", (run) => span(run.seconds)],
};

// ------------------------------------------------------------------------------------------------------------ the figures

/** The seeds' table: plain boxes with roles, a row for each seed, run or not. */
function seedTable(input) {
  const columns = Object.keys(COLUMNS).filter((column) => column in input.rows);
  const el = html("div", { class: "lp-seeds", role: "table", "aria-label": "the seeds of this cell", style: `--lp-columns: ${columns.length + 2}` });
  const row = (kind, role, words) => html("div", { class: `lp-seeds-row ${kind}`, role: "row" }, ...words.map((word) => html("div", { role }, word)));
  const show = (quantity, cell, most) => {
    const runs = cell.runs.map((run) => ["", [String(run.seed), text(run[quantity.key]), ...columns.map((column) => COLUMNS[column][1](run))], run.seed]);
    const lost = cell.missing.map((seed) => ["lp-lost", [String(seed), "not run"], seed]);
    const rows = [...runs, ...lost].sort((one, other) => one[2] - other[2]);
    el.replaceChildren(
      row("lp-seeds-head", "columnheader", ["seed", quantity.symbol.length < 10 ? quantity.symbol : "value", ...columns.map((column) => COLUMNS[column][0])]),
      ...rows.map(([kind, words]) => row(kind, "cell", words)),
    );
    el.style.setProperty("--lp-rows", most + 1);
  };
  return { el, show };
}

/** 1, 2 and 5 times the powers of ten in [low, high]. */
function decades(low, high) {
  const marks = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
    for (const factor of [1, 2, 5]) marks.push(Number(`${factor}e${power}`));
  return marks.filter((mark) => mark >= low * (1 - 1e-9) && mark <= high * (1 + 1e-9));
}

/** As many of the marks as stand `gap` pixels apart, from the last one back. */
function spaced(marks, place, gap) {
  const kept = [];
  for (const mark of [...marks].reverse()) if (!kept.length || Math.abs(place(kept.at(-1)) - place(mark)) >= gap) kept.push(mark);
  return kept.reverse();
}

/** The seeds of one cell on a line: each value, the mean in a band of one standard deviation, the published value. */
function paintSeeds({ width, height }, quantity, found, range) {
  const left = 12, right = width - 12, bottom = height - 42, middle = (bottom + 8) / 2;
  const inside = [...found.values, found.published].filter((value) => value !== null);
  if (!inside.length) return [write("tick", width / 2, middle, "middle", found.values.length ? "infinite" : "not run")];
  const low = Math.min(...inside), high = Math.max(...inside), room = Math.max(0.35 * (high - low), 0.04 * (range[1] - range[0]));
  const [from, to] = roundRange(Math.max(low - room, Math.min(range[0], low)), high + room, 4);
  const x = scale(from, to, left, right), { mean, sd } = found;
  const band = sd === null ? [] : [rect("interval", Math.max(x(mean - sd), left), middle - 15, Math.min(x(mean + sd), right) - Math.max(x(mean - sd), left), 30)];
  return [
    strokes("grid", [[left, middle, right, middle]]),
    ...band,
    ...(mean === null ? [] : [strokes("mean", [[x(mean), middle - 20, x(mean), middle + 20]])]),
    ...found.values.filter((value) => value !== null).map((value) => circle("point", x(value), middle, 5.5)),
    ...(found.published === null ? [] : [circle("theirs", x(found.published), middle, 8)]),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, ticks(from, to, width < 260 ? 3 : 5), quantity.symbol, (left + right) / 2),
  ];
}

const RANGE_ROOM = 1.12;

/** Curves against d: the chosen one with its seeds and band, its neighbours thin; cells not run are gaps. */
function paintCurves({ width, height }, input, grid, quantity, state, spots) {
  const left = 56, right = width - 16, top = 28, bottom = height - 42, { key } = quantity;
  const beside = grid.slice(state, "d", input.beside), own = grid.slice(state, "d");
  const finite = grid.slice(state, "d", "m", "C0", "variant").flatMap((cell) => [...cell.runs.map((run) => run[key]), cell.published[key]]).filter((value) => value > 0);
  const ds = input.axes.d;
  const [least, most] = finite.length ? [Math.min(...finite) / RANGE_ROOM, Math.max(...finite) * RANGE_ROOM] : [0.1, 1];
  const x = logScale(ds[0] / 1.12, ds.at(-1) * 1.12, left, right), y = logScale(least, most, bottom, top);
  const segments = (cells, of) => {
    const parts = [[]];
    for (const cell of [...cells].sort((one, other) => one.place.d - other.place.d)) {
      const value = of(cell);
      if (value === null || !(value > 0)) parts.push([]);
      else parts.at(-1).push([x(cell.place.d), y(value)]);
    }
    return parts.filter((part) => part.length);
  };
  const mean = (cell) => reading(cell, key).mean;
  const others = new Set(beside.map(({ place }) => place[input.beside]).filter((value) => value !== state[input.beside]));
  const chosen = grid.at(state);
  const bands = segments(own, mean).map((part) => {
    const cells = part.map(([at]) => own.find(({ place }) => x(place.d) === at));
    const edge = (side) => cells.map((cell) => {
      const { mean, sd } = reading(cell, key);
      return [x(cell.place.d), Math.min(y(Math.max(mean + side * (sd ?? 0), least)), bottom)];
    });
    return line("band-own", [...edge(1), ...edge(-1).reverse()]);
  });
  spots.find = (at) => {
    const d = ds.reduce((best, value) => (Math.abs(x(value) - at.x) < Math.abs(x(best) - at.x) ? value : best));
    return { d };
  };
  const lost = own.filter(({ runs }) => !runs.length);
  return [
    ...yAxis(y, left, decades(least, most), quantity.symbol, right, top),
    strokes("edge-chosen", [[x(state.d), top, x(state.d), bottom]]),
    ...bands,
    ...[...others].flatMap((value) => segments(beside.filter(({ place }) => place[input.beside] === value), mean)).map((part) => line("aside-curve", part)),
    ...segments(own, mean).map((part) => line("curve", part)),
    ...own.flatMap(({ place, runs }) => runs.filter((run) => run[key] > 0).map((run) => circle("seed", x(place.d), y(run[key]), 2.5))),
    ...own.filter(({ published }) => published[key] > 0).map(({ place, published }) => circle("theirs", x(place.d), y(published[key]), 6)),
    ...(mean(chosen) > 0 ? [circle("point", x(state.d), y(mean(chosen)), 6)] : []),
    ...lost.map(({ place }) => circle("lost", x(place.d), bottom - 8, 4.5)),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, spaced(ds, x, 30), "input dimension d", (left + right) / 2),
  ];
}

/** Where a cell stands in the map: [x, y]; over V where that is asked for. */
function spotOf(input, state, place) {
  const [across, up] = input.map;
  return [place[across], up === "C0" && state.radius === "V" ? radiusOf(place) : place[up]];
}

/** From the colour of 0 through the panel's ground at one half to that of 1. */
function tile(value, ...box) {
  const cell = rect(value < 0.5 ? "low" : "high", ...box);
  cell.setAttribute("fill-opacity", (0.08 + 0.82 * Math.abs(2 * value - 1)).toFixed(3));
  return cell;
}

/** A tile for each cell of the slice on logarithmic axes; those not run are empty frames. */
function paintMap({ width, height }, input, grid, quantity, state, spots) {
  const left = 56, right = width - 10, top = 46, bottom = height - 42, { key } = quantity, [across, up] = input.map;
  const slice = grid.slice(state, across, up).map((cell) => ({ cell, spot: spotOf(input, state, cell.place), mean: reading(cell, key).mean }));
  const columns = [...new Set(slice.map(({ spot }) => spot[0]))].sort((one, other) => one - other);
  const heights = grid.cells.map(({ place }) => spotOf(input, state, place)[1]);
  const least = Math.min(...heights), most = Math.max(...heights), margin = (columns.at(-1) / columns[0]) ** 0.06;
  const x = logScale(columns[0] / margin, columns.at(-1) * margin, left, right);
  const y = logScale(least / 1.1, most * 1.1, bottom, top);
  const gaps = columns.slice(1).map((value, k) => x(value) - x(columns[k]));
  const wide = Math.min(52, ...gaps, 2 * (x(columns[0]) - left)) - 2;
  const boxes = columns.flatMap((column) => {
    const cells = slice.filter(({ spot }) => spot[0] === column).sort((one, other) => one.spot[1] - other.spot[1]);
    const centres = cells.map(({ spot }) => y(spot[1]));
    const inner = centres.slice(1).map((centre, k) => (centre + centres[k]) / 2);
    const half = inner.length ? [centres[0] - inner[0], inner.at(-1) - centres.at(-1)] : [10, 10];
    const edges = [Math.min(centres[0] + half[0], bottom), ...inner, Math.max(centres.at(-1) - half[1], top)];
    return cells.map((one, k) => ({ ...one, left: x(column) - wide / 2, top: edges[k + 1] + 0.75, height: edges[k] - edges[k + 1] - 1.5, next: cells[k + 1], edge: edges[k + 1] }));
  });
  spots.find = (at) => {
    const far = (box) => Math.max(box.left - at.x, at.x - box.left - wide, 0) + Math.max(box.top - at.y, at.y - box.top - box.height, 0);
    const nearest = boxes.reduce((best, box) => (far(box) < far(best) ? box : best));
    return far(nearest) < 12 ? { [across]: nearest.cell.place[across], [up]: nearest.cell.place[up] } : null;
  };
  const crossing = boxes.filter(({ mean, next }) => next && mean !== null && next.mean !== null && (mean - 0.5) * (next.mean - 0.5) <= 0);
  const chosen = boxes.find(({ cell }) => cell === grid.at(state));
  const published = up === "eps" ? (input.published?.crossing ?? []) : [];
  const frame = (kind, grow) => rect(kind, chosen.left - grow, chosen.top - grow, wide + 2 * grow, chosen.height + 2 * grow);
  const bar = Math.min(150, (right - left) / 2), part = bar / 20;
  return [
    ...Array.from({ length: 20 }, (_, k) => tile((k + 0.5) / 20, right - bar + k * part, 14, part, 9)),
    ...[0, 0.5, 1].map((share) => write("tick", right - bar + share * bar, 10, ["start", "middle", "end"][2 * share], percent(share))),
    ...yAxis(y, left, decades(least / 1.1, most * 1.1), SYMBOLS[up === "C0" ? state.radius : up], right, top - 6),
    ...boxes.map(({ left: from, top: above, height: tall, mean }) => (mean === null ? rect("lost", from + 1, above + 1, wide - 2, tall - 2) : tile(mean, from, above, wide, tall))),
    ...crossing.map(({ left: from, edge }) => strokes("half", [[from - 1, edge, from + wide + 1, edge]])),
    ...(published.length ? [line("half-published", published.map(([d, eps]) => [x(d), y(eps)]))] : []),
    frame("halo", 1.5),
    frame("chosen", 1.5),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, columns, { d: "input dimension d", m: "width m" }[across], (left + right) / 2),
  ];
}

// -------------------------------------------------------------------------------------------------------------- the panel

function controlsOf(input) {
  const controls = {};
  const many = (values) => values.length > 1;
  if (many(input.quantities))
    controls.quantity = { name: "Quantity", options: Object.fromEntries(input.quantities.map(({ key, name }) => [key, name])), wide: true };
  if (input.map?.[1] === "C0") controls.radius = { name: "The map over", options: { C0: "C₀", V: "V = C₀/√m" }, narrow: true };
  for (const [axis, values] of Object.entries(input.axes)) {
    if (!many(values)) continue;
    if (axis === "variant") controls.variant = { name: "Procedure", options: Object.fromEntries(values.map((name) => [name, VARIANTS[name] ?? name])), narrow: values.length < 3, wide: values.length > 2 };
    else controls[axis] = { ...SLIDERS[axis], values, only: true };
  }
  return controls;
}

const besideWords = { m: "other widths", C0: "other C₀", variant: "other variants" };

function buildReader(input, grid, change) {
  const map = input.map !== null, spots = { find: () => null };
  const many = input.axes[input.beside].length > 1;
  const title = input.title.replace(/\beps\b/g, "ε").replace(/\bC0\b/g, "C₀");
  const lost = (kind) => (input.missing.cell.length ? [[kind, "not run"]] : []);
  const picture = figure({
    caption: title,
    keys: map
      ? [...lost("area lost"), ["line half", "50\u202f%, ours"], ...(input.published?.crossing ? [["line half-published", "50\u202f%, published"]] : [])]
      : [["line curve", "mean"], ["area band-own", "± 1 sd over seeds"], ...(many ? [["line aside-curve", besideWords[input.beside]]] : []), ...(input.published ? [["dot theirs", "published"]] : []), ...lost("dot lost")],
    height: 350,
  });
  const strip = figure({
    caption: "The chosen cell",
    keys: [["dot point", "a seed"], ["area interval", "mean ± 1 sd"], ...(input.published ? [["dot theirs", "published"]] : [])],
    height: 104,
  });
  const seeds = seedTable(input);
  const device = html("div", { class: "lp-note lp-device" });
  const table = numbers(4, { mean: "mean over seeds", sd: "standard deviation", published: "published", difference: "ours − published" });
  const body = html("div", { class: "lp-pair lp-reader" }, picture.el, html("div", { class: "lp-cell" }, strip.el, seeds.el, device));
  const svg = picture.el.querySelector("svg");
  svg.classList.add("lp-pick");
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    const part = spots.find({ x: event.clientX - box.left, y: event.clientY - box.top });
    if (part) change(part);
  });
  const most = Math.max(...grid.cells.map(({ runs, missing }) => runs.length + missing.length));

  function show(state) {
    const quantity = input.quantities.find(({ key }) => key === state.quantity);
    const cell = grid.at(state), found = reading(cell, quantity.key);
    const { values, mean, sd, published, difference } = found;
    const words = headlineOf(input, quantity, cell);
    const none = values.length ? "infinite for at least one seed" : "not run";
    table.show({
      mean: [mean, mean === null ? none : `of ${seedsOf(values.length)}${cell.missing.length ? `, ${cell.missing.length} not run` : ""}`],
      sd: [sd, mean === null ? none : sd === null ? "asks for two seeds" : "over seeds, n − 1"],
      published: [published, publishedNote(input, quantity, cell)],
      difference: [difference, difference === null ? "nothing to compare" : sd ? `${text(Math.abs(difference) / sd, 2)} standard deviations` : "", difference === null ? "–" : signed(difference, Math.abs(difference).toFixed(places(mean)))],
    });
    seeds.show(quantity, cell, most);
    const devices = [...new Set(cell.runs.map((run) => run.device))].join(", ");
    device.textContent = `${devices ? `Computed on: ${devices}. ` : ""}Stored in ${input.file}.`;
    const paint = map ? paintMap : paintCurves;
    picture.show(`${title}. The chosen cell: ${words}`, (frame) => paint(frame, input, grid, quantity, state, spots));
    strip.show(`The seeds of the chosen cell: ${values.map((value) => text(value)).join(", ") || "not run"}.`, (frame) =>
      paintSeeds(frame, quantity, found, map ? [0, 1] : [0, mean ?? 1]));
    return { headline: words, results: { values, mean, sd, published, difference } };
  }
  return { nodes: [body, table.el], show, close: () => [picture, strip].forEach((part) => part.close()) };
}

READERS.reader = (input) => {
  const grid = gridOf(input);
  const controls = controlsOf(input);
  return {
    title: "Read the stored figure",
    controls,
    keys: ["quantity", ...(controls.radius ? ["radius"] : []), ...grid.names],
    notes: ({ m, C0, d, eps }) => ({
      m: "hidden neurons",
      C0: `V = C₀/√m = ${text(C0 / Math.sqrt(m), 3)}`,
      d: `${Math.sqrt(d)} × ${Math.sqrt(d)} pixels`,
      eps: `‖δ‖ ≤ ε, where ‖x‖ = 1; ε√d = ${text(eps * Math.sqrt(d), 3)}`,
    }),
    offers: (state) => Object.fromEntries(grid.names.map((axis) => [axis, grid.offered(state, axis)])),
    settled: (next, part, before) => settled(grid, next, part, before),
    build: (change) => buildReader(input, grid, change),
  };
};
