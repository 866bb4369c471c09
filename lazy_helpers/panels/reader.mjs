// The reader of a stored figure: choose a cell of its grid; see each seed, their mean and spread, and what was published.

import { paintCurves, paintMap, paintSeeds, SYMBOLS } from "./charts.mjs";
import { READERS } from "./panel.mjs";
import { gridOf, reading, settled } from "./stored.mjs";
import { figure, html, numbers, percent, plain, text } from "./view.mjs";

const VARIANTS = { published: "as published", theory: "as the theory has it" };
const SLIDERS = {
  m: { symbol: "m", name: "width" },
  C0: { symbol: "C₀", name: "size of the lazy ball" },
  d: { symbol: "d", name: "input dimension" },
  eps: { symbol: "ε", name: "budget of the attack" },
};

// -------------------------------------------------------------------------------------------------------------- in words

const shown = (quantity, value) => (quantity.share ? percent(value) : text(value, 3));

/** A spread of two digits, and a difference with its sign: in points for a share. */
const spreadWords = ({ share }, sd) => (share ? `${text(100 * sd, 2)}\u202f%` : text(sd, 2));
const signed = (value, words) => `${value < 0 ? "\u2212" : "+"}${words}`;
const places = (value) => Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value) || 1))); // decimals of four digits
const differenceWords = ({ share }, value) => (share ? `${signed(value, Math.abs(100 * value).toFixed(1))} points` : signed(value, text(Math.abs(value), 2)));
const seedsOf = (count) => (count === 1 ? "1 seed" : `${count} seeds`);

/** The values of a cell's axes, those with one value in the whole figure left out, the procedure last. */
function placeWords({ axes }, place) {
  const numbers = Object.keys(axes).filter((axis) => axis !== "variant" && axes[axis].length > 1);
  const words = numbers.map((axis) => `${SYMBOLS[axis]} = ${plain(place[axis])}`);
  return [...words, ...(axes.variant.length > 1 ? [VARIANTS[place.variant] ?? place.variant] : [])].join(", ");
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
  if (!published) return input.unpublished;
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
  test_accuracy: ["right", (run) => percent(run.test_accuracy)],
  seconds: ["time", (run) => span(run.seconds)],
};

// ------------------------------------------------------------------------------------------------------------- the panel

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
      row("lp-seeds-head", "columnheader", ["seed", "value", ...columns.map((column) => COLUMNS[column][0])]),
      ...rows.map(([kind, words]) => row(kind, "cell", words)),
    );
    el.style.setProperty("--lp-rows", most + 1);
  };
  return { el, show };
}

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
  const svg = picture.el.querySelector("svg[role=img]");
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
    notes: (state) => {
      const { m, C0, d, eps } = state;
      const notes = {
        m: "hidden neurons",
        C0: `V = C₀/√m = ${text(C0 / Math.sqrt(m), 3)}`,
        d: `${Math.sqrt(d)} × ${Math.sqrt(d)} pixels`,
        eps: `‖δ‖ ≤ ε, where ‖x‖ = 1; ε√d = ${text(eps * Math.sqrt(d), 3)}`,
      };
      const only = (axis) => input.axes[axis]?.length > 1 && grid.offered(state, axis).length === 1;
      return Object.fromEntries(Object.entries(notes).map(([axis, note]) => [axis, only(axis) ? "the only one in this part of the grid" : note]));
    },
    offers: (state) => Object.fromEntries(grid.names.map((axis) => [axis, grid.offered(state, axis)])),
    settled: (next, part, before) => settled(grid, next, part, before),
    build: (change) => buildReader(input, grid, change),
  };
};
