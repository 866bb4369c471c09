// Training in the page: train.py's SGD and adversarial.py's Algorithm 1 for one network, under their own names.
// All numbers are float64, so that a whole run agrees with the package's in float64 to rounding.
//
// A network is { d, m, a, W0, move, W }: W0, move and W = W0 + move are (m, d) row by row. Points are { X, y, n }, X (n, d).

import { normalMatrix, permutation, signs } from "./weights.mjs";

export const LR = 0.2;
export const BATCH = 32;
export const ATTACK_STEPS = 10; // of size 2.5 eps / 10, as pgd's default
export const MAX_EPOCHS = 200;
const GROUP = 4; // points that share one reading of W: a piece of work between two looks at the clock

/** The network that weights.py's `draw(d, m, seed)` gives, at its start. */
export function initialNet(d, m, seed) {
  const W0 = Float64Array.from(normalMatrix(d, m, seed, "W0"));
  return { d, m, a: Float64Array.from(signs(m, seed)), W0, move: new Float64Array(m * d), W: W0.slice() };
}

/** The digits { train, test } of `d` pixels and length 1, from what digits.py packs: whole numbers of one or two bytes. */
export function unpackDigits({ labels, train, pixels }, d) {
  const bytes = Uint8Array.from(atob(pixels[d]), (letter) => letter.charCodeAt(0));
  const count = labels.length, wide = bytes.length > count * d;
  const X = Float64Array.from({ length: count * d }, (_, i) => (wide ? bytes[2 * i] + 256 * bytes[2 * i + 1] : bytes[i]));
  for (let i = 0; i < count; i++) {
    const row = X.subarray(i * d, (i + 1) * d), length = Math.sqrt(sumOfSquares(row, 0, d));
    for (let j = 0; j < d; j++) row[j] /= length;
  }
  const y = Float64Array.from(labels, (label) => (label === "1" ? 1 : -1));
  const part = (from, to) => ({ n: to - from, X: X.slice(from * d, to * d), y: y.slice(from, to) });
  return { train: part(0, train), test: part(train, count) };
}

function sumOfSquares(v, from, to) {
  let sum = 0;
  for (let j = from; j < to; j++) sum += v[j] * v[j];
  return sum;
}

/** w_s . x for `count` points from X[first * d] on: z[p * m + s]. Two neurons and four points share what is read of each. */
export function preactivations({ d, m, W }, X, first, count, z) {
  let p = 0;
  for (; p + 3 < count; p += 4) {
    const x0 = (first + p) * d, x1 = x0 + d, x2 = x1 + d, x3 = x2 + d;
    for (let s = 0; s < m; s += 2) {
      const row = s * d, at = p * m + s;
      const one = s + 1 < m ? 1 : 0; // of an odd number of neurons the last one stands for two
      const next = row + one * d;
      let u0 = 0, u1 = 0, u2 = 0, u3 = 0, v0 = 0, v1 = 0, v2 = 0, v3 = 0;
      for (let j = 0; j < d; j++) {
        const u = W[row + j], v = W[next + j], a = X[x0 + j], b = X[x1 + j], c = X[x2 + j], e = X[x3 + j];
        u0 += u * a;
        u1 += u * b;
        u2 += u * c;
        u3 += u * e;
        v0 += v * a;
        v1 += v * b;
        v2 += v * c;
        v3 += v * e;
      }
      z[at] = u0;
      z[at + m] = u1;
      z[at + 2 * m] = u2;
      z[at + 3 * m] = u3;
      z[at + one] = v0;
      z[at + m + one] = v1;
      z[at + 2 * m + one] = v2;
      z[at + 3 * m + one] = v3;
    }
  }
  for (; p < count; p++) {
    const x0 = (first + p) * d;
    for (let s = 0, row = 0; s < m; s++, row += d) {
      let sum = 0;
      for (let j = 0; j < d; j++) sum += W[row + j] * X[x0 + j];
      z[p * m + s] = sum;
    }
  }
}

/** f = (1 / sqrt m) sum_s a_s relu(z_s) of the p-th point. */
function value_at({ m, a }, z, p) {
  let sum = 0;
  for (let s = 0, at = p * m; s < m; s++, at++) if (z[at] > 0) sum += a[s] * z[at];
  return sum / Math.sqrt(m);
}

/** f at the points `first` ... `first + count - 1`. */
export function valuesAt(net, X, first, count) {
  const z = new Float64Array(count * net.m);
  preactivations(net, X, first, count, z);
  return Float64Array.from({ length: count }, (_, p) => value_at(net, z, p));
}

/**
 * attack.py's pgd from 0 at the points `first` ... `first + count - 1`: fills their rows of `delta` (n, d), and of `path`
 * (n, steps + 1) with f at x and after each step. From step to step few neurons switch, so the gradient
 * sum_s a_s [z_s > 0] w_s is kept and changed by those alone; f is its product with the point.
 */
export function pgd(net, { X, y }, eps, steps, first, count, delta, path) {
  const { d, m, a, W } = net, alpha = (2.5 * eps) / steps;
  const moved = X.slice(first * d, (first + count) * d);
  const z = new Float64Array(count * m), on = new Uint8Array(count * m), g = new Float64Array(count * d);
  delta.fill(0, first * d, (first + count) * d);
  for (let k = 0; k <= steps; k++) {
    preactivations(net, moved, 0, count, z);
    for (let p = 0; p < count; p++) {
      const here = p * d, there = (first + p) * d;
      for (let s = 0, at = p * m; s < m; s++, at++) {
        const now = z[at] > 0 ? 1 : 0;
        if (now === on[at]) continue;
        const c = now ? a[s] : -a[s];
        on[at] = now;
        for (let j = 0, row = s * d; j < d; j++) g[here + j] += c * W[row + j];
      }
      let f = 0;
      for (let j = 0; j < d; j++) f += g[here + j] * moved[here + j];
      path[(first + p) * (steps + 1) + k] = f / Math.sqrt(m);
      const length = Math.sqrt(sumOfSquares(g, here, here + d));
      if (k === steps || length === 0) continue; // without a gradient delta stays
      const step = (-y[first + p] * alpha) / length;
      for (let j = 0; j < d; j++) delta[there + j] += step * g[here + j];
      const pull = eps / Math.max(eps, Math.sqrt(sumOfSquares(delta, there, there + d)));
      for (let j = 0; j < d; j++) {
        delta[there + j] *= pull;
        moved[here + j] = X[there + j] + delta[there + j];
      }
    }
  }
}

/**
 * One SGD step on the logistic loss at the points `batch` (indices) of X: w_s += lr / (B sqrt m) a_s sum_b g_b [w_s . x_b > 0] x_b,
 * g_b = y_b / (1 + exp(y_b f(x_b))). With `project` each neuron is then pulled back into the ball of radius V; without, a step
 * that would lead out of it is not taken. Returns whether it was taken.
 */
export function sgdStep(net, { X, y }, batch, lr, V, project) {
  const { d, m, a, W0, move, W } = net, B = batch.length, room = Math.ceil(B / GROUP) * GROUP;
  const x = new Float64Array(room * d), z = new Float64Array(room * m), push = new Float64Array(room);
  batch.forEach((i, b) => x.set(X.subarray(i * d, (i + 1) * d), b * d));
  preactivations(net, x, 0, B, z);
  batch.forEach((i, b) => (push[b] = (lr * y[i]) / (B * Math.sqrt(m) * (1 + Math.exp(y[i] * value_at(net, z, b))))));

  const next = project ? move : move.slice();
  for (let s = 0, row = 0; s < m; s++, row += d) {
    for (let b = 0; b < room; b += GROUP) {
      const at = b * m + s;
      const c0 = z[at] > 0 ? a[s] * push[b] : 0;
      const c1 = z[at + m] > 0 ? a[s] * push[b + 1] : 0;
      const c2 = z[at + 2 * m] > 0 ? a[s] * push[b + 2] : 0;
      const c3 = z[at + 3 * m] > 0 ? a[s] * push[b + 3] : 0;
      if (c0 === 0 && c1 === 0 && c2 === 0 && c3 === 0) continue;
      const x0 = b * d, x1 = x0 + d, x2 = x1 + d, x3 = x2 + d;
      for (let j = 0; j < d; j++) next[row + j] += c0 * x[x0 + j] + c1 * x[x1 + j] + c2 * x[x2 + j] + c3 * x[x3 + j];
    }
    const length = Math.sqrt(sumOfSquares(next, row, row + d));
    if (length > V) {
      if (!project) return false;
      for (let j = row; j < row + d; j++) next[j] *= V / length;
    }
  }
  move.set(next);
  for (let i = 0; i < m * d; i++) W[i] = W0[i] + move[i];
  return true;
}

/** { C0_used, at_edge }: sqrt(m) times the largest deviation, and how many neurons are V from where they began. */
export function deviation({ d, m, move }, V) {
  let largest = 0, at_edge = 0;
  for (let row = 0; row < m * d; row += d) {
    const length = Math.sqrt(sumOfSquares(move, row, row + d));
    largest = Math.max(largest, length);
    if (length >= V * (1 - 1e-9)) at_edge++;
  }
  return { C0_used: Math.sqrt(m) * largest, at_edge };
}

const logisticLoss = (margin) => Math.max(-margin, 0) + Math.log1p(Math.exp(-Math.abs(margin)));

/**
 * Trains, piece by piece: yields null when a piece of work is done, some milliseconds each, and what was measured before
 * training and after every epoch. `training` is "plain", train_sgd's with exit="step", which ends where the next step would
 * leave the ball; or "adversarial", train_adversarial's with project="step". Both end after MAX_EPOCHS.
 */
export function* train({ d, m, C0, eps, training, seed }, { train: points, test }, { lr = LR, batch = BATCH, steps: ascents = ATTACK_STEPS, epochs: most = MAX_EPOCHS } = {}) {
  const net = initialNet(d, m, seed), V = C0 / Math.sqrt(m), adversarial = training === "adversarial";
  const attacked = { ...points, X: points.X.slice() }; // what SGD sees
  const room = (part) => ({ delta: new Float64Array(part.n * d), path: new Float64Array(part.n * (ascents + 1)) });
  const onTrain = room(points), onTest = room(test);
  const history = { epochs: [], loss: [], C0_used: [], clean: [], robust: [] };
  const perEpoch = Math.ceil(points.n / batch);
  let steps = 0, left = false;

  function* attack(part, { delta, path }) {
    for (let first = 0; first < part.n; first += GROUP) {
      pgd(net, part, eps, ascents, first, Math.min(GROUP, part.n - first), delta, path);
      yield null;
    }
  }

  function* measure() {
    let loss = 0;
    if (adversarial) {
      yield* attack(points, onTrain);
      for (let i = 0; i < attacked.X.length; i++) attacked.X[i] = points.X[i] + onTrain.delta[i];
      for (let i = 0; i < points.n; i++) loss += logisticLoss(points.y[i] * onTrain.path[(i + 1) * (ascents + 1) - 1]);
    } else {
      for (let first = 0; first < points.n; first += 8 * GROUP) {
        valuesAt(net, points.X, first, Math.min(8 * GROUP, points.n - first)).forEach((f, p) => (loss += logisticLoss(points.y[first + p] * f)));
        yield null;
      }
    }
    yield* attack(test, onTest);
    const share = (k) => test.y.reduce((sum, label, i) => sum + (label * onTest.path[i * (ascents + 1) + k] > 0), 0) / test.n;
    const found = { epochs: steps / perEpoch, loss: loss / points.n, ...deviation(net, V), clean: share(0), robust: share(ascents) };
    for (const key of Object.keys(history)) history[key].push(found[key]);
    const over = left || steps >= most * perEpoch;
    yield { ...found, steps, left, over, history: structuredClone(history), X: test.X, y: test.y, delta: onTest.delta.slice(), path: onTest.path.slice() };
  }

  yield* measure();
  for (let epoch = 0; epoch < most && !left; epoch++) {
    const order = permutation(points.n, seed, epoch);
    for (let first = 0; first < points.n && !left; first += batch) {
      left = !sgdStep(net, attacked, order.subarray(first, first + batch), lr, V, adversarial);
      if (!left) steps++;
      yield null;
    }
    yield* measure();
  }
}
