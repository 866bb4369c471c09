// The parts every panel is made of: controls, numbers in text, and figures. No part knows a panel's meaning.
// They are plain boxes with roles: themes and JupyterLab dress figures, lists and paragraphs in their own way.

const SVG = "http://www.w3.org/2000/svg";
// Random, not counted: in JupyterLab each widget loads a module of its own, and all share one document.
export const uniqueId = () => `lazy-panel-${Math.random().toString(36).slice(2)}`;

/** An HTML element; null attributes are left out. */
export function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A number as a reader expects it: four significant digits, a thin space between thousands, a true minus. */
export function text(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const places = size === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  const [whole, part] = (Number.isInteger(value) ? String(size) : size.toFixed(Math.min(places, 8))).split(".");
  const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") : whole;
  return (value < 0 ? "\u2212" : "") + grouped + (part ? "." + part : "");
}

/** A number that was chosen rather than computed: no more digits than it has. */
export const plain = (value) => text(value, 6).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");

export const percent = (share) => `${text(100 * share, 3)}\u202f%`;

// ---------------------------------------------------------------------------------------------------------- controls

/**
 * A native range input over a table of `values`. Python may set a value between two of them: it is shown as it is, at the
 * nearest position. `show(value, note, table)` sets it without calling `changed`, from then on over another table if one is given.
 */
export function slider({ symbol, name, values }, changed) {
  const id = uniqueId();
  const input = html("input", { type: "range", id, min: 0, max: values.length - 1, step: 1 });
  const value = html("span", { class: "lp-value" });
  const note = html("span", { class: "lp-note" });
  const label = html("label", { for: id }, html("span", { class: "lp-symbol" }, symbol), " ", name);
  const el = html("div", { class: "lp-control" }, html("div", { class: "lp-control-head" }, label, value), input, note);
  input.addEventListener("input", () => changed(values[input.valueAsNumber]));
  const show = (current, remark = "", table = values) => {
    values = table;
    input.max = values.length - 1;
    input.disabled = values.length < 2;
    const nearest = values.reduce((best, v, k) => (Math.abs(v - current) < Math.abs(values[best] - current) ? k : best), 0);
    if (input.valueAsNumber !== nearest) input.value = nearest;
    value.textContent = plain(current);
    note.textContent = remark;
    input.setAttribute("aria-valuetext", remark ? `${plain(current)}, ${remark}` : plain(current));
  };
  return { el, show };
}

/** Native radio buttons, side by side; as wide as one slider or as all. `options` maps a value to its label. */
export function choice({ name, options, narrow = false, wide = false }, changed) {
  const group = uniqueId();
  const inputs = Object.keys(options).map((value) => html("input", { type: "radio", name: group, value, id: `${group}-${value}` }));
  const rows = inputs.map((input) => html("span", {}, input, html("label", { for: input.id }, options[input.value])));
  const title = html("div", { id: group }, name);
  const el = html("div", { class: `lp-choice${narrow ? " lp-narrow" : wide ? " lp-wide" : ""}`, role: "radiogroup", "aria-labelledby": group }, title, html("div", { class: "lp-options" }, ...rows));
  for (const input of inputs) input.addEventListener("change", () => changed(input.value));
  const show = (current) => inputs.forEach((input) => (input.checked = input.value === current));
  return { el, show };
}

export function button(label, pressed) {
  const el = html("button", { type: "button" }, label);
  el.addEventListener("click", pressed);
  return el;
}

// ---------------------------------------------------------------------------------------------------------- numbers

/** A grid of named numbers, `columns` of them in a row where there is room. `show` takes { key: [value, note, words] }; data-value keeps the number in full. */
export function numbers(columns, labels) {
  const cells = Object.entries(labels).map(([key, label]) => {
    const value = html("div", { class: "lp-number", "data-key": key });
    const note = html("div", { class: "lp-note" });
    return [key, { value, note, el: html("div", { role: "listitem" }, html("div", { class: "lp-name" }, label), value, note) }];
  });
  const el = html("div", { class: "lp-numbers", role: "list", style: `--lp-columns: ${columns}` }, ...cells.map(([, cell]) => cell.el));
  const show = (values) => {
    for (const [key, { value, note }] of cells) {
      const [number, remark, words = text(number)] = values[key];
      value.textContent = words;
      value.setAttribute("data-value", String(number));
      note.textContent = remark;
    }
  };
  return { el, show };
}

// ---------------------------------------------------------------------------------------------------------- figures

/**
 * A figure of fixed height that is drawn anew, never scaled, when its width changes, so that its type keeps its size.
 * `keys` are [class, label] pairs of the legend. `show(describe, paint)`: `describe` is what a screen reader is told, and
 * `paint(frame)` returns SVG nodes for the frame { width, height } of the moment.
 */
export function figure({ caption, keys = [], height }) {
  const canvas = svg("svg", { role: "img", height, width: "100%" });
  const legend = keys.map(([kind, label]) => html("span", { class: "lp-key" }, swatch(kind), label));
  const above = html("div", { class: "lp-caption" }, html("div", { class: "lp-caption-title" }, caption), ...legend);
  const el = html("div", { class: "lp-figure" }, above, canvas);
  let paint = null;
  const draw = () => {
    const width = canvas.clientWidth;
    if (paint && width) canvas.replaceChildren(...paint({ width, height }));
  };
  const observer = new ResizeObserver(draw);
  observer.observe(canvas);
  const show = (description, painter) => {
    canvas.setAttribute("aria-label", description);
    paint = painter;
    draw();
  };
  return { el, show, close: () => observer.disconnect() };
}

const swatch = (kind) => svg("svg", { class: "lp-swatch", width: 18, height: 12, "aria-hidden": "true" }, ...SWATCHES[kind.split(" ")[0]](kind));
const SWATCHES = {
  line: (kind) => [svg("path", { class: kind, d: "M0 6H18" })],
  area: (kind) => [svg("rect", { class: kind, y: 1, width: 18, height: 10 })],
  dot: (kind) => [svg("circle", { class: kind, cx: 9, cy: 6, r: 4.5 })],
  ticks: (kind) => [svg("path", { class: kind, d: "M2 2V10M7 2V10M9 2V10M15 2V10" })],
};

/** Round numbers that cover [low, high], about `count` of them. */
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((c) => c * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(12)));
}

/** [low, high] widened to round numbers, so that an axis holds still while its curve moves a little. */
export function roundRange(low, high, count) {
  const marks = ticks(low, high, count);
  const step = marks.length > 1 ? marks[1] - marks[0] : high - low;
  return [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
}

/** A linear map of [from, to] onto pixels [start, end]. */
export const scale = (from, to, start, end) => (value) => start + ((value - from) / (to - from)) * (end - start);

/** The same on a logarithmic axis, and the powers of ten on it. */
export const logScale = (from, to, start, end) => {
  const place = scale(Math.log(from), Math.log(to), start, end);
  return (value) => place(Math.log(value));
};

export function powers(low, high) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, k) => Number(`1e${first + k}`));
}

const at = (number) => number.toFixed(2);

export const line = (kind, points) => svg("path", { class: kind, d: points.map(([x, y], k) => `${k ? "L" : "M"}${at(x)} ${at(y)}`).join("") });

export const strokes = (kind, segments) =>
  svg("path", { class: kind, d: segments.map(([x1, y1, x2, y2]) => `M${at(x1)} ${at(y1)}L${at(x2)} ${at(y2)}`).join("") });

export const rect = (kind, x, y, width, height) =>
  svg("rect", { class: kind, x: at(x), y: at(y), width: at(Math.max(width, 0)), height: at(Math.max(height, 0)) });

export const circle = (kind, cx, cy, r) => svg("circle", { class: kind, cx: at(cx), cy: at(cy), r: at(r) });

export const write = (kind, x, y, anchor, content) => svg("text", { class: kind, x: at(x), y: at(y), "text-anchor": anchor }, content);

/** Bars that touch, from the counts of equal bins over [low, high], as one outline between `bottom` and y(count). */
export function bars(kind, counts, x, y, low, high, from = low, to = high) {
  const bin = (high - low) / counts.length;
  const pieces = [];
  counts.forEach((count, k) => {
    const left = Math.max(low + k * bin, from), right = Math.min(low + (k + 1) * bin, to);
    if (right > left && count) pieces.push(`M${at(x(left))} ${at(y(0))}V${at(y(count))}H${at(x(right))}V${at(y(0))}Z`);
  });
  return svg("path", { class: kind, d: pieces.join("") });
}

/** A horizontal axis at height `y`, numbers and title on `side` (+1 below, -1 above). */
export function xAxis(x, y, marks, title, middle, side = 1) {
  const row = side > 0 ? 18 : -9;
  return [
    strokes("axis", marks.map((mark) => [x(mark), y, x(mark), y + 5 * side])),
    ...marks.map((mark) => write("tick", x(mark), y + row, "middle", plain(mark))),
    write("title", middle, y + (side > 0 ? 36 : -26), "middle", title),
  ];
}

/** A vertical axis at `x`, its title above it, with hairlines across to `right`. */
export function yAxis(y, x, marks, title, right, top) {
  return [
    strokes("grid", marks.map((mark) => [x, y(mark), right, y(mark)])),
    ...marks.map((mark) => write("tick", x - 7, y(mark) + 4, "end", plain(mark))),
    write("title", x - 34, top - 10, "start", title),
  ];
}
