// The package's mathematics for one network and one point: network.py, lazy.py and attack.py under their own names.
// Weights are float32; every sum is taken in float64.

/**
 * f(x) = (1 / sqrt m) sum_s a_s relu(w_s . x).
 *
 * W is a sum of blocks { B, stride, scale }: row s of the block is scale[s] B[s stride ... s stride + d]. So W0 moved
 * inside the ball never has to be written out or rounded, and a smaller network is a corner of a larger draw.
 */
export class TwoLayerNet {
  constructor(d, a, ...blocks) {
    Object.assign(this, { d, m: a.length, a, blocks });
  }

  /** W v: one number a neuron. Zeros at the end of v are not read: at the first unit vector one column is enough. */
  times(vector) {
    const { m } = this;
    const v = Float64Array.from(vector); // one type of array in the loop below, or it runs at half the speed
    const d = v.findLastIndex((vj) => vj !== 0) + 1;
    const out = new Float64Array(m);
    for (const { B, stride, scale } of this.blocks) {
      for (let s = 0, row = 0; s < m; s++, row += stride) {
        let even = 0, odd = 0;
        for (let j = 0; j + 1 < d; j += 2) {
          even += B[row + j] * v[j];
          odd += B[row + j + 1] * v[j + 1];
        }
        if (d % 2) even += B[row + d - 1] * v[d - 1];
        out[s] += (scale ? scale[s] : 1) * (even + odd);
      }
    }
    return out;
  }

  f(x) {
    const { m, a } = this;
    const u = this.times(x);
    let sum = 0;
    for (let s = 0; s < m; s++) if (u[s] > 0) sum += a[s] * u[s];
    return sum / Math.sqrt(m);
  }

  /** The input gradient (1 / sqrt m) sum_s a_s [w_s . x > 0] w_s. */
  grad(x, u = this.times(x)) {
    const { d, m, a } = this;
    const g = new Float64Array(d);
    for (const { B, stride, scale } of this.blocks) {
      for (let s = 0, row = 0; s < m; s++, row += stride) {
        if (!(u[s] > 0)) continue;
        const c = (a[s] * (scale ? scale[s] : 1)) / Math.sqrt(m);
        for (let j = 0; j < d; j++) g[j] += c * B[row + j];
      }
    }
    return g;
  }
}

export function norm(v) {
  let sum = 0;
  for (let j = 0; j < v.length; j++) sum += v[j] * v[j];
  return Math.sqrt(sum);
}

/** The lengths of the first d entries of m rows. */
export function rowNorms(B, stride, d, m) {
  const out = new Float64Array(m);
  for (let s = 0, row = 0; s < m; s++, row += stride) {
    let even = 0, odd = 0;
    for (let j = row; j + 1 < row + d; j += 2) {
      even += B[j] * B[j];
      odd += B[j + 1] * B[j + 1];
    }
    if (d % 2) even += B[row + d - 1] ** 2;
    out[s] = Math.sqrt(even + odd);
  }
  return out;
}

/**
 * How f runs along the ray x - sign(f) eta grad f, eta >= 0: h(eta) = sign(f) f bends at eta_s = -u_s / v_s, where
 * neuron s switches, and its slope jumps there by sign(f) a_s |v_s| / sqrt m, on -> off and off -> on alike.
 * `bends` is sorted, `values` are h there, `slope` is h's slope at 0 and `end` its slope beyond the last bend.
 */
export function ray(net, x) {
  const { m, a } = net;
  const u = net.times(x);
  const g = net.grad(x, u);
  let value = 0;
  for (let s = 0; s < m; s++) if (u[s] > 0) value += (a[s] * u[s]) / Math.sqrt(m);
  const sign = Math.sign(value);
  const v = net.times(g.map((gj) => -sign * gj));

  let slope = 0, end = 0, bendCount = 0;
  const eta = new Float64Array(m);
  for (let s = 0; s < m; s++) {
    const weight = (sign * a[s]) / Math.sqrt(m);
    if (u[s] > 0) slope += weight * v[s];
    if (v[s] > 0) end += weight * v[s];
    eta[s] = u[s] > 0 !== v[s] > 0 && v[s] !== 0 ? -u[s] / v[s] : Infinity;
    if (eta[s] < Infinity) bendCount++;
  }
  const order = Uint32Array.from(eta.keys()).sort((s, t) => eta[s] - eta[t] || s - t).subarray(0, bendCount);
  const bends = Float64Array.from(order, (s) => eta[s]);
  const values = new Float64Array(bendCount);
  let h = Math.abs(value), fall = slope;
  for (let k = 0; k < bendCount; k++) {
    h += fall * (bends[k] - (k ? bends[k - 1] : 0));
    values[k] = h;
    fall += (sign * a[order[k]] * Math.abs(v[order[k]])) / Math.sqrt(m);
  }
  return { value, sign, grad_norm: norm(g), slope, end, bends, values, scale: [norm(u), norm(v)] };
}

/**
 * The exact smallest eta > 0 at which the sign of f becomes the opposite one along a `ray`, `norm` = ||delta||, and the
 * number of `kinks` before it. Where no step does it, `found` is false and eta and norm are null: reaching zero
 * without crossing it, as when every neuron falls silent, is no flip.
 */
export function smallest_flip({ value, grad_norm, slope, end, bends, values, scale }) {
  const none = { eta: null, norm: null, found: false, kinks: bends.length, value, grad_norm };
  if (value === 0) return none;
  const below = (h, eta) => h < -1e-12 * (scale[0] + eta * scale[1]); // rounding is no crossing
  const k = values.findIndex((h, i) => below(h, bends[i]));
  if (k < 0 && !(end < -1e-12 * scale[1])) return none;

  // The crossing lies on the segment from bend `start` to bend k, or beyond the last bend.
  const kinks = k < 0 ? bends.length : k;
  const from = kinks ? bends[kinks - 1] : 0;
  const h = kinks ? values[kinks - 1] : Math.abs(value);
  const fall = k < 0 ? -end : (h - values[k]) / (bends[k] - from);
  const eta = from + Math.max(h, 0) / fall;
  return { eta, norm: eta * grad_norm, found: true, kinks, value, grad_norm };
}

/** |S_1| of Lemma 4.3 at ||x|| = 1: the neurons whose sign some W of the ball changes, |w_s,0 . x| <= V. */
export function sign_changes(u, V) {
  let count = 0;
  for (let s = 0; s < u.length; s++) if (Math.abs(u[s]) <= V) count++;
  return count;
}

/** [min, max] of f(x; W) over the ball at ||x|| = 1: each pre-activation may move by V, alone, so neurons separate. */
export function value_range(u, a, V) {
  let middle = 0, half = 0;
  for (let s = 0; s < u.length; s++) {
    const up = Math.abs(u[s] + V), down = Math.abs(u[s] - V); // 2 relu(z) = z + |z|, many times faster than a maximum
    middle += a[s] * (2 * u[s] + up + down);
    half += 2 * V + up - down;
  }
  const scale = 4 * Math.sqrt(u.length);
  return [(middle - half) / scale, (middle + half) / scale];
}

/** The Gauss error function, by a series of positive terms: relative error below 1e-12 for 0 <= z <= 4. */
export function erf(z) {
  let term = z, sum = z;
  for (let n = 1; term > 1e-17 * sum; n++) sum += term *= (2 * z * z) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
}
