// The panels' random numbers, bit for bit those of weights.py, which says why they are made this way: a hash of
// (seed, stream, counter), and Box-Muller on the operations that IEEE 754 fixes.

export const STREAM = { W0: 1, a: 2, boundary: 3, chi: 4, order: 5 };
export const ROW = 1024; // counters set aside for each neuron

function mix(h) {
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return h ^ (h >>> 16); // signed: unsigned words would leave the fast integers, tenfold slower
}

export const streamKey = (seed, stream) => mix(mix(seed) + STREAM[stream]);

/** Writes n standard normals, those from the even number `counter` of the stream on, to out[start ...]. */
export function normals(out, start, key, counter, n) {
  for (let j = 0; j < n; j += 2) {
    let k = mix(mix(counter + j) ^ key) | 1; // u = k / 2^32 lies in (0, 1)
    const zeros = Math.clz32(k);
    const mantissa = ((k << zeros) >>> 0) * 2 ** -32;
    const q = (mantissa - Math.SQRT1_2) / (mantissa + Math.SQRT1_2); // log mantissa = 2 atanh(q) - log(2) / 2
    let z = q * q;
    let series = (1 / 17) * z + 1 / 15;
    series = series * z + 1 / 13;
    series = series * z + 1 / 11;
    series = series * z + 1 / 9;
    series = series * z + 1 / 7;
    series = series * z + 1 / 5;
    series = series * z + 1 / 3;
    series = series * z + 1;
    const radius = Math.sqrt(2 * ((zeros + 0.5) * Math.LN2 - 2 * q * series));

    k = mix(mix(counter + j + 1) ^ key);
    const quadrant = k >>> 30;
    const angle = ((k & 0x3fffffff) - 0x20000000) * (Math.PI * 2 ** -31); // in [-pi/4, pi/4)
    z = angle * angle;
    let cos = (-1 / 87178291200) * z + 1 / 479001600;
    cos = cos * z - 1 / 3628800;
    cos = cos * z + 1 / 40320;
    cos = cos * z - 1 / 720;
    cos = cos * z + 1 / 24;
    cos = cos * z - 1 / 2;
    cos = radius * (cos * z + 1);
    let sin = (-1 / 1307674368000) * z + 1 / 6227020800;
    sin = sin * z - 1 / 39916800;
    sin = sin * z + 1 / 362880;
    sin = sin * z - 1 / 5040;
    sin = sin * z + 1 / 120;
    sin = sin * z - 1 / 6;
    sin = radius * (angle * (sin * z + 1));

    out[start + j] = quadrant === 0 ? cos : quadrant === 1 ? -sin : quadrant === 2 ? -cos : sin;
    if (j + 1 < n) out[start + j + 1] = quadrant === 0 ? sin : quadrant === 1 ? cos : quadrant === 2 ? -sin : -cos;
  }
}

/** The (m, d) corner of a stream's standard normals, row after row. */
export function normalMatrix(d, m, seed, stream) {
  const out = new Float32Array(m * d);
  const key = streamKey(seed, stream);
  for (let s = 0; s < m; s++) normals(out, s * d, key, s * ROW, d);
  return out;
}

/** The output weights a (m,) in {-1, +1}; those of neurons `first` on. */
export function signs(m, seed, first = 0) {
  const key = streamKey(seed, "a");
  const a = new Float32Array(m);
  for (let s = 0; s < m; s++) a[s] = 1 - 2 * (mix(mix(first + s) ^ key) >>> 31);
  return a;
}

/** The order in which an epoch of training takes its n points, a fresh one for every epoch 0, 1, ... */
export function permutation(n, seed, epoch) {
  const key = streamKey(seed, "order");
  const words = Uint32Array.from({ length: n }, (_, i) => mix(mix(epoch * ROW + i) ^ key));
  return Uint32Array.from(words.keys()).sort((i, j) => words[i] - words[j] || i - j);
}

/** A panel's network and point, as weights.py's: W0 (m, d), a (m,), and x, the first unit vector. */
export function draw(d, m, seed) {
  const x = new Float32Array(d);
  x[0] = 1;
  return { W0: normalMatrix(d, m, seed, "W0"), a: signs(m, seed), x };
}
