// Where a panel's numbers come from: a Worker, or the page itself where Workers are forbidden. A panel either measures one
// state after another, or runs from a state until it is stopped, in slices between which it can be heard.

import { button, html } from "./view.mjs";

const WORKER_SLICE = 40; // ms of work between two messages: what the reader does is answered at once
const PAGE_SLICE = 5; // the same in the page: it goes on scrolling
const TOLD = 80; // ms between two answers of a run: a reader sees no more, and the page has time to draw them

/** What answers a panel's messages with `post`: { state } where it measures, those of `runner` where it runs. */
export function desk(panel, post, slice = WORKER_SLICE) {
  if (panel.run) return runner(panel, post, slice);
  const cache = {};
  return ({ state }) => post({ state, data: panel.measure(state, cache) });
}

/**
 * Works at panel.run(state, input), an iterator of null and answers, for about `slice` ms at a time. Its messages are
 * { id, state, input, on }: a new `id` starts over; it works up to the first answer in any case, and on while it is `on`.
 */
function runner(panel, post, slice) {
  let run = null, on = false, timer = null, told = 0;
  const wanted = () => !run.over && (on || !run.begun);
  const tell = () => {
    if (run.latest) post({ id: run.id, state: run.state, data: run.latest });
    run.latest = null;
    told = performance.now();
  };
  const work = () => {
    const end = performance.now() + slice;
    while (wanted() && performance.now() < end) {
      const { value, done } = run.pieces.next();
      if (done) run.over = true;
      if (!value) continue;
      Object.assign(run, { latest: value, begun: true });
      if (performance.now() - told > TOLD) tell();
    }
    if (wanted()) timer = setTimeout(work);
    else tell();
  };
  return ({ id, state, input, on: go }) => {
    if (run?.id !== id) run = { id, state, pieces: panel.run(state, input) };
    on = go;
    clearTimeout(timer);
    timer = setTimeout(work);
  };
}

/** Sends messages to the panel's desk in a Worker; where there is none, or it breaks, the page itself answers. */
function connect(panel, name, source, heard) {
  const local = desk(panel, heard, PAGE_SLICE);
  const here = (message) => setTimeout(() => local(message));
  if (!globalThis.Worker) return { send: here, close() {} };
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url);
  let pending = null;
  const line = {
    send: (message) => worker.postMessage({ name, ...(pending = message) }),
    close: () => (worker.terminate(), URL.revokeObjectURL(url)),
  };
  worker.onmessage = ({ data }) => {
    pending = null;
    heard(data);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    line.send = here;
    if (pending) here(pending);
  };
  return line;
}

/** Asks for one state's numbers at a time; of those that are asked for meanwhile only the latest is kept. */
export function calculator(panel, name, source, answered) {
  let busy = false, next = null;
  const line = connect(panel, name, source, (answer) => {
    busy = false;
    answered(answer);
    if (next) ask(next);
  });
  const ask = (state) => {
    if (busy) return void (next = state);
    busy = true;
    next = null;
    line.send({ state });
  };
  return { ask, nodes: [], close: line.close };
}

/** The same for a panel that runs, with its buttons: another state starts over, and goes on if it was going on. */
export function course(panel, name, source, answered, input) {
  let message = { id: 0, input, on: false }, over = false;
  const line = connect(panel, name, source, ({ id, ...answer }) => {
    if (id !== message.id) return; // of an earlier run
    over = answer.data.over;
    answered(answer);
    label();
  });
  const send = (part) => {
    line.send((message = { ...message, ...part }));
    label();
  };
  const ask = (state, on = message.on && !over) => {
    over = false;
    send({ id: message.id + 1, state, on });
  };
  const main = button("", () => (over ? ask(message.state, true) : send({ on: !message.on })));
  const start = button("Start over", () => ask(message.state, false));
  main.classList.add("lp-main");
  const label = () => (main.textContent = over ? "Train again" : message.on ? "Pause" : "Train");
  label();
  const close = () => {
    line.send({ ...message, on: false }); // the page's own desk would go on
    line.close();
  };
  return { ask, nodes: [html("div", { class: "lp-run" }, main, start)], close };
}
