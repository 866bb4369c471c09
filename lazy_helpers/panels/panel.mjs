// The shell of every panel: its state, its controls, its place in the page's address, and the Worker that computes.
//
// A panel is an object { title, controls, notes, needs, measure or run, build }, in PANELS under its name:
//   controls   { key: a slider or a choice }, the state's keys in their order on the page; `seed` is every panel's
//   notes      state -> { key: what stands below that control }
//   needs      the keys of the state, besides the seed, on which `measure` depends
//   measure    (state, cache) -> numbers and arrays; pure but for the draws kept in `cache`; runs in the Worker
//   run        instead, for what goes on until it is stopped: (state, input) -> an iterator whose pieces, some ms of work each,
//              are null or such data, with `over` where it ends; `input` is what the panel's marker carries
//   build      () -> { nodes, show, close } in the page; show(state, data) -> { headline, results }
//
// One that shows stored numbers is made by a function of what its marker carries, in READERS. It has no seed, it computes nothing,
// so `show` has no data, and `build` is given a function that changes the state. Besides:
//   keys       the state's keys, all of them
//   offers     state -> { key: the values that its slider has now }
//   settled    (state, part, before) -> the state after a change by `part`, made one that is offered

import { button, choice, html, slider, uniqueId } from "./view.mjs";
import { calculator, course, desk } from "./worker.mjs";

export const PANELS = {};
export const READERS = {};

const panelNamed = (name, input) => READERS[name]?.(input) ?? PANELS[name];

const MAX_SEED = 2 ** 31 - 1;

/** The Worker's side: it serves one panel. */
export function serve(scope) {
  let answer = null;
  scope.onmessage = ({ data: { name, ...message } }) => {
    answer ??= desk(PANELS[name], (found) => scope.postMessage(found));
    answer(message);
  };
}

/** The part of `given` that the panel understands: known keys, values within the controls' ranges. */
function understood(panel, given) {
  const state = {};
  const take = (key, low, high, whole, only) => {
    const number = Number(given[key] ?? NaN);
    const fits = only ? only.includes(number) : !whole || Number.isInteger(number);
    if (number >= low && number <= high && fits) state[key] = number;
  };
  for (const [key, { values, options, whole, only }] of Object.entries(panel.controls)) {
    if (values) take(key, values[0], values.at(-1), whole, only && values);
    else if (Object.hasOwn(options, given[key])) state[key] = given[key];
  }
  if (!panel.settled) take("seed", 0, MAX_SEED, true);
  return state;
}

const QUIET = 300; // ms without a move before the address is rewritten: browsers limit how often it may be

/** The state in the page's address, as ?setting.d=400&setting.m=2000: a lecturer can link to it. */
function address(prefix) {
  let timer;
  const read = () => {
    const found = [...new URLSearchParams(location.search)].filter(([key]) => key.startsWith(`${prefix}.`));
    return Object.fromEntries(found.map(([key, value]) => [key.slice(prefix.length + 1), value]));
  };
  const write = (state) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const query = new URLSearchParams(location.search);
      for (const key of [...query.keys()]) if (key.startsWith(`${prefix}.`)) query.delete(key);
      for (const [key, value] of Object.entries(state ?? {})) query.set(`${prefix}.${key}`, value);
      const search = query.toString();
      history.replaceState(history.state, "", location.pathname + (search ? `?${search}` : "") + location.hash);
    }, QUIET);
  };
  return { read, write };
}

/**
 * Brings the panel `name` to life inside `root`. `initial` is where "Reset" returns to, `start` where it begins; `input` is for `run`.
 * `moved(state)` is told of every change by the reader, `answered({ state, results })` of every answer.
 * Returns { set(state), close() }.
 */
export function create(root, name, source, { initial, start = {}, input = null, moved = () => {}, answered = () => {} }) {
  const panel = panelNamed(name, input);
  let state = initial;
  let shown = null; // the latest answer: { state, data }
  let asked = null;

  const change = (part) => {
    set(part);
    moved(state);
  };
  const controls = Object.entries(panel.controls).map(([key, spec]) => {
    const make = spec.options ? choice : slider;
    return [key, make(spec, (value) => change({ [key]: value }))];
  });
  const seedText = html("output", { class: "lp-seed" });
  const headline = html("div", { class: "lp-headline" });
  const spoken = html("div", { class: "lp-spoken", "aria-live": "polite" }); // the headline, once a drag has ended
  const body = panel.build(change);
  const calculation = (panel.settled ? atOnce : panel.run ? course : calculator)(panel, name, source, (answer) => {
    shown = answer;
    show();
  }, input);
  const titleId = uniqueId();
  root.replaceChildren(
    html("div", { class: "lp-bar" },
      html("span", { class: "lp-title", id: titleId }, panel.title),
      html("span", { class: "lp-buttons" },
        ...(panel.settled ? [] : [seedText, button("New draw", () => change({ seed: (state.seed + 1) % (MAX_SEED + 1) }))]),
        button("Reset", () => (change(initial), moved(null))))),
    html("div", { class: "lp-controls" }, ...controls.map(([, control]) => control.el)),
    ...calculation.nodes,
    headline,
    spoken,
    ...body.nodes,
  );
  root.setAttribute("role", "group");
  root.setAttribute("aria-labelledby", titleId);
  root.classList.add("lp-live");

  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  let speak;
  const show = () => {
    const current = shown !== null && same(shown.state, asked);
    root.setAttribute("aria-busy", String(!current));
    if (!shown) return;
    const about = { ...state, ...shown.state };
    const { headline: words, results } = body.show(about, shown.data);
    headline.textContent = words;
    clearTimeout(speak);
    if (current) {
      speak = setTimeout(() => (spoken.textContent = words), QUIET);
      answered({ state: about, results });
    }
  };
  const set = (part) => {
    const next = { ...state, ...part };
    state = panel.settled ? panel.settled(next, part, state) : next;
    const notes = panel.notes(state), offers = panel.offers?.(state) ?? {};
    for (const [key, control] of controls) control.show(state[key], notes[key], offers[key]);
    seedText.textContent = `seed ${state.seed}`;
    const needed = panel.settled ? state : Object.fromEntries([...panel.needs, "seed"].map((key) => [key, state[key]]));
    if (!same(needed, asked)) calculation.ask((asked = needed));
    show();
  };
  set(understood(panel, start));
  return { set, close: () => (clearTimeout(speak), calculation.close(), body.close()) };
}

/** In place of a calculation, where there is nothing to compute. */
function atOnce(panel, name, source, answered) {
  return { ask: (state) => answered({ state, data: null }), nodes: [], close() {} };
}

/** Every marker of the page comes to life; the second panel of a kind is `step-2` in the address. */
export function mount(source) {
  const seen = {};
  for (const root of document.querySelectorAll(".lazy-panel[data-panel]")) {
    const name = root.dataset.panel;
    seen[name] = (seen[name] ?? 0) + 1;
    const place = address(seen[name] > 1 ? `${name}-${seen[name]}` : name);
    const initial = JSON.parse(root.dataset.state);
    const input = JSON.parse(root.dataset.input ?? "null");
    create(root, name, source, { initial, input, start: place.read(), moved: place.write });
  }
}

/** The same panel as a Jupyter widget: its state is in the model's traits, its results go into `_answer`. */
export function render(source, { model, el }) {
  const root = html("div", { class: "lazy-panel" });
  el.append(root);
  // JupyterLab takes plain keys typed over a cell for its own, the arrows that move a slider among them.
  root.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
  const name = model.get("panel");
  const panel = panelNamed(name, model.get("input"));
  const keys = panel.keys ?? [...Object.keys(panel.controls), "seed"];
  const read = () => Object.fromEntries(keys.map((key) => [key, model.get(key)]));
  const save = (values) => {
    for (const [key, value] of Object.entries(values)) model.set(key, value);
    model.save_changes();
  };
  const live = create(root, name, source, {
    initial: read(),
    input: model.get("input"),
    moved: (state) => state && save(state),
    answered: (answer) => save({ _answer: answer }),
  });
  const follow = () => live.set(read());
  for (const key of keys) model.on(`change:${key}`, follow);
  return () => {
    for (const key of keys) model.off(`change:${key}`, follow);
    live.close();
  };
}
