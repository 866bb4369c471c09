// The pictures of a stored figure: curves against d, a map of cells, and one cell's seeds. `spots.find` says which cell is where.

import { reading } from "./stored.mjs";
import { circle, line, logScale, percent, rect, roundRange, scale, strokes, ticks, write, xAxis, yAxis } from "./view.mjs";

export const SYMBOLS = { m: "m", C0: "C₀", V: "V = C₀/√m", d: "d", eps: "ε" };

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
export function paintSeeds({ width, height }, quantity, found, range) {
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
export function paintCurves({ width, height }, input, grid, quantity, state, spots) {
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
  return [place[across], up === "C0" && state.radius === "V" ? place.C0 / Math.sqrt(place.m) : place[up]];
}

/** The map's colours, those of the book's pictures (cividis, eleven of its steps): from 0 to 1, told apart by every kind of sight. */
export const COLOURS = "00224e 083370 35456c 4f576c 666970 7d7c78 948e77 aea371 c8b866 e5cf52 fee838".split(" ");

/** The colour of a share, between two steps of the table. */
export function colourOf(share) {
  const at = share * (COLOURS.length - 1), k = Math.min(Math.floor(at), COLOURS.length - 2);
  const channel = (colour, c) => parseInt(COLOURS[colour].slice(2 * c, 2 * c + 2), 16);
  return `rgb(${[0, 1, 2].map((c) => Math.round(channel(k, c) + (at - k) * (channel(k + 1, c) - channel(k, c)))).join(" ")})`;
}

function tile(share, ...box) {
  const cell = rect("tile", ...box);
  cell.setAttribute("fill", colourOf(share));
  return cell;
}

/** A tile for each cell of the slice on logarithmic axes; those not run are empty frames. */
export function paintMap({ width, height }, input, grid, quantity, state, spots) {
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
    ...["half-halo", "half"].map((kind) => strokes(kind, crossing.map(({ left: from, edge }) => [from - 2, edge, from + wide + 2, edge]))),
    ...(published.length ? ["half-halo", "half-published"].map((kind) => line(kind, published.map(([d, eps]) => [x(d), y(eps)]))) : []),
    frame("halo", 1.5),
    frame("chosen", 1.5),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, columns, { d: "input dimension d", m: "width m" }[across], (left + right) / 2),
  ];
}
