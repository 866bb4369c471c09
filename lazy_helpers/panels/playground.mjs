// The playground: a small network trains in the page on the embedded digits, plainly or adversarially, and is attacked.

import { PANELS } from "./panel.mjs";
import { ATTACK_STEPS, MAX_EPOCHS, train, unpackDigits } from "./training.mjs";
import { circle, figure, html, line, numbers, percent, plain, rect, roundRange, scale, strokes, text, ticks, write, xAxis, yAxis } from "./view.mjs";

const PIXELS = [16, 36, 64];
const TEST = 119; // test images

/** The run of a state; `input` is what digits.py packs. */
const run = (state, input) => train(state, unpackDigits(input, state.d));

/** What there is to say of the image that is shown: its pixels, the perturbation, and f during the attack. */
function onImage({ d, image, eps }, { X, y, delta, path }) {
  const i = image - 1, K = ATTACK_STEPS + 1;
  const x = X.slice(i * d, (i + 1) * d), move = delta.slice(i * d, (i + 1) * d), values = path.slice(i * K, (i + 1) * K);
  return { x, move, values, eps, label: y[i], f: values[0], attacked: values.at(-1) };
}

const digit = (sign) => (sign > 0 ? "1" : "0"); // label +1 is the digit 1

function standing({ m, C0, training }, { epochs, steps, left, over, C0_used, at_edge, clean, robust }) {
  const accuracy = `${percent(clean)} of the test images are right, ${percent(robust)} under attack.`;
  if (steps === 0 && !over) return `Before training, ${accuracy} Press Train.`;
  const epoch = `Epoch ${text(Math.round(epochs * 10) / 10)}`;
  const ends = over && !left ? `, where training ends after ${MAX_EPOCHS}` : "";
  if (training === "adversarial") {
    const edge = at_edge ? `${text(at_edge)} of ${text(m)} neurons are at the ball’s edge` : `no neuron is at the ball’s edge yet`;
    return `${epoch}${ends}: ${edge}. ${accuracy}`;
  }
  if (left) return `Left the ball at step ${text(steps + 1)}: training stops at the network before it, the last one inside. ${accuracy}`;
  return `${epoch}${ends}: the farthest neuron has gone ${text(C0_used, 3)} of C₀ = ${plain(C0)}, in units of 1/√m. ${accuracy}`;
}

function buildPlayground() {
  const loss = figure({ caption: "Loss", keys: [["line curve", "on the training images"]], height: 190 });
  const ball = figure({
    caption: "√m · largest deviation",
    keys: [["line edge", "the ball’s edge, C₀"]],
    height: 190,
  });
  const accuracy = figure({
    caption: "Accuracy on test images",
    keys: [["line curve", "clean"], ["line limit", "robust"]],
    height: 190,
  });
  const pictures = figure({
    caption: "One test image under attack",
    keys: [["area ink", "ink"], ["area more", "δ adds"], ["area less", "δ takes, or below 0"]],
    height: 186,
  });
  const attack = figure({
    caption: "f at this image during the attack",
    keys: [["line curve", "f"], ["area band", "wrong sign"]],
    height: 186,
  });
  const table = numbers(4, {
    loss: "loss",
    C0_used: "√m · largest deviation",
    at_edge: "neurons at the edge",
    steps: "SGD steps",
    clean: "clean accuracy",
    robust: "robust accuracy",
    f: "f(x), this image",
    attacked: "f(x + δ)",
  });
  const courses = html("div", { class: "lp-triple lp-level" }, loss.el, ball.el, accuracy.el);
  const images = html("div", { class: "lp-pair" }, pictures.el, attack.el);

  function show(state, data) {
    const { m, C0, eps, training, image } = state;
    const { epochs, steps, C0_used, at_edge, left, clean, robust } = data;
    const seen = onImage(state, data);
    const adversarial = training === "adversarial";
    const says = (f) => `says ${digit(f)}: ${f * seen.label > 0 ? "right" : "wrong"}`;
    table.show({
      loss: [data.loss, adversarial ? "training images, attacked" : "training images"],
      C0_used: [C0_used, `${percent(C0_used / C0)} of C₀ = ${plain(C0)}`],
      at_edge: [at_edge, `of m = ${text(m)}`],
      steps: [steps, left ? "the next leaves the ball" : `epoch ${text(epochs)} of at most ${MAX_EPOCHS}`],
      clean: [clean, `${Math.round(clean * TEST)} of ${TEST} test images`],
      robust: [robust, `${Math.round(robust * TEST)} of ${TEST}, ε = ${plain(eps)}`],
      f: [seen.f, says(seen.f)],
      attacked: [seen.attacked, says(seen.attacked)],
    });
    const words = standing(state, data);
    const span = epochsShown(epochs);
    const { history } = data;
    loss.show(`The training loss by epoch, from ${text(history.loss[0])} to ${text(data.loss)}.`, (frame) =>
      paintCourse(frame, span, [0, roundRange(0, 1.02 * Math.max(...history.loss), 4)[1]], history.epochs, { curve: history.loss }));
    ball.show(
      `The square root of m times the largest deviation by epoch, now ${text(C0_used)}; the ball’s edge is at ${plain(C0)}.`,
      (frame) => paintCourse(frame, span, [0, 1.15 * C0], history.epochs, { curve: history.C0_used }, C0));
    accuracy.show(`Accuracy on the test images by epoch: clean ${percent(clean)}, robust ${percent(robust)}.`, (frame) =>
      paintCourse(frame, span, [0, 1], history.epochs, { limit: history.robust, curve: history.clean }));
    pictures.show(
      `Test image ${image}, a ${digit(seen.label)}; the perturbation of length ${text(norm_of(seen.move), 3)}; and both together. The network says ${digit(seen.f)}, then ${digit(seen.attacked)}.`,
      (frame) => paintImages(frame, seen));
    attack.show(
      `f during the attack on this image, from ${text(seen.f)} to ${text(seen.attacked)}; ${changeWords(seen)}.`,
      (frame) => paintAttack(frame, seen));
    return { headline: words, results: { epochs, steps, loss: data.loss, C0_used, at_edge, clean, robust, left } };
  }
  return { nodes: [courses, images, table.el], show, close: () => [loss, ball, accuracy, pictures, attack].forEach((part) => part.close()) };
}

const norm_of = (v) => Math.sqrt(v.reduce((sum, value) => sum + value * value, 0));

/** The axis of epochs: long enough, and the same for many epochs. */
const epochsShown = (epochs) => [10, 20, 50, 100].find((end) => end >= epochs) ?? MAX_EPOCHS;

/** The first step of the attack after which the answer is wrong; 0 if it was before, -1 if it never is. */
const firstWrong = ({ values, label }) => values.findIndex((f) => !(f * label > 0));

function changeWords(seen) {
  const k = firstWrong(seen);
  if (k < 0) return "its sign stays";
  return k === 0 ? "it is wrong from the start" : `its sign changes at step ${k}`;
}

/** Curves by epoch { class: values }, the edge at a height if there is one, and a dot where each curve is now. */
function paintCourse({ width, height }, far, [low, high], epochs, curves, edge = null) {
  const left = 38, right = width - 10, top = 22, bottom = height - 42;
  const x = scale(0, far, left, right), y = scale(low, high, bottom, top);
  return [
    ...(edge === null ? [] : [rect("within", left, y(edge), right - left, bottom - y(edge))]),
    ...yAxis(y, left, ticks(low, high, 4), "", right, top),
    ...(edge === null ? [] : [strokes("edge", [[left, y(edge), right, y(edge)]]), write("mark", right - 2, y(edge) - 6, "end", "C₀")]),
    ...Object.entries(curves).map(([kind, values]) => line(kind, values.map((value, k) => [x(epochs[k]), y(value)]))),
    ...Object.entries(curves).map(([kind, values]) => circle(kind === "curve" ? "point" : "flip", x(epochs.at(-1)), y(values.at(-1)), 4)),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, ticks(0, far, width < 200 ? 2 : 4), "epoch", (left + right) / 2),
  ];
}

/** x, delta and x + delta as pixels; ink has one scale, delta its own. */
function paintImages({ width, height }, { x, move, label, f, attacked }) {
  const side = Math.sqrt(x.length), gap = Math.min(26, width / 16), room = height - 46; // for names above and words below
  const size = Math.min((width - 2 * gap - 4) / 3, room), top = 20 + (room - size) / 2;
  const both = x.map((value, j) => value + move[j]);
  const ink = Math.max(...x, ...both), most = Math.max(...move.map(Math.abs)) || 1;
  const lead = (width - 3 * size - 2 * gap) / 2;
  const grid = (k, values, full, kinds) => {
    const left = lead + k * (size + gap), pixel = size / side;
    const cells = Array.from(values, (value, j) => {
      const strength = Math.min(Math.abs(value) / full, 1);
      if (strength < 0.02) return null;
      const cell = rect(kinds[value > 0 ? 0 : 1], left + (j % side) * pixel, top + Math.floor(j / side) * pixel, pixel + 0.3, pixel + 0.3);
      cell.setAttribute("fill-opacity", strength.toFixed(2));
      return cell;
    });
    return [rect("field", left, top, size, size), ...cells.filter(Boolean), rect("border", left, top, size, size)];
  };
  const middle = (k) => lead + k * (size + gap) + size / 2;
  const below = top + size + 18;
  const strong = ink / most;
  return [
    ...grid(0, x, ink, ["ink", "less"]),
    ...grid(1, move, most, ["more", "less"]),
    ...grid(2, both, ink, ["ink", "less"]),
    ...["x", "δ", "x + δ"].map((name, k) => write("mark", middle(k), top - 7, "middle", name)),
    write("tick", middle(0), below, "middle", `a ${digit(label)}; f says ${digit(f)}`),
    write("tick", middle(1), below, "middle", strong >= 1.05 ? `${text(strong, 2)} × as strong` : "as strong as x"),
    write("tick", middle(2), below, "middle", `f says ${digit(attacked)}`),
  ];
}

function paintAttack({ width, height }, seen) {
  const { values, label } = seen, last = values.length - 1, change = firstWrong(seen);
  const left = 46, right = width - 12, top = 12, bottom = height - 42;
  const reach = Math.max(0.2, ...values.map(Math.abs));
  const [low, high] = roundRange(Math.min(-0.3 * reach, ...values), Math.max(0.3 * reach, ...values), 4);
  const x = scale(0, last, left, right), y = scale(low, high, bottom, top);
  const wrong = label > 0 ? [y(0), bottom] : [top, y(0)];
  return [
    rect("band", left, wrong[0], right - left, wrong[1] - wrong[0]),
    ...yAxis(y, left, ticks(low, high, 4), "", right, top),
    strokes("zero", [[left, y(0), right, y(0)]]),
    line("curve", Array.from(values, (f, k) => [x(k), y(f)])),
    ...Array.from(values, (f, k) => circle(f * label > 0 ? "point" : "flip", x(k), y(f), k === change && k > 0 ? 5.5 : 3)),
    strokes("frame", [[left, bottom, right, bottom]]),
    ...xAxis(x, bottom, ticks(0, last, 5), "step of the attack", (left + right) / 2),
  ];
}

PANELS.playground = {
  title: "Train a network in this page",
  controls: {
    d: { symbol: "d", name: "input dimension", values: PIXELS, only: true },
    m: { symbol: "m", name: "width", values: [100, 200, 500, 1000, 2000], whole: true },
    C0: { symbol: "C₀", name: "size of the lazy ball", values: Array.from({ length: 20 }, (_, k) => k + 1) },
    eps: { symbol: "ε", name: "budget of the attack", values: Array.from({ length: 50 }, (_, k) => (k + 1) / 100) },
    image: { symbol: "i", name: "test image", values: Array.from({ length: TEST }, (_, k) => k + 1), whole: true },
    training: { name: "Training", options: { plain: "plain, up to the edge", adversarial: "adversarial, Algorithm 1" }, narrow: true },
  },
  notes: ({ d, m, C0 }) => ({
    d: `${Math.sqrt(d)} × ${Math.sqrt(d)} pixels`,
    m: "hidden neurons",
    C0: `V = C₀/√m = ${text(C0 / Math.sqrt(m), 3)}`,
    eps: "‖δ‖ ≤ ε, where ‖x‖ = 1",
    image: `of ${TEST}`,
  }),
  needs: ["d", "m", "C0", "eps", "training"],
  run,
  build: buildPlayground,
};
