// A stored figure as the page has it: the cells of its grid, and a cell's numbers. Mirrors stored.py, which packs it.

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
export function settled(grid, next, part, before) {
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
