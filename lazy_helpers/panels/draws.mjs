// Many independent networks at one point: what the panels of Lemmas 4.1 to 4.3 count and average.
//
// x is the first unit vector, so a network is m Gaussians u_s = w_s . x and m signs, whatever d is. One long draw is cut
// into networks of m neurons each, so that another m or C0 needs no new one.

import { plain, text } from "./view.mjs";
import { normalMatrix, normals, ROW, signs } from "./weights.mjs";

const SIDE = 1000; // the corner of a stream that is read as one long row
const NEURONS = SIDE * SIDE; // drawn once a seed: 10 000 networks at m = 100, one at m = 10^6

export const MILLION = {
  symbol: "m",
  name: "width",
  values: Array.from({ length: 81 }, (_, k) => Number((100 * 10 ** (k / 20)).toPrecision(2))),
  whole: true,
};
export const GAMMA = { symbol: "γ", name: "probability of failure", values: [0.001, 0.01, 0.05, 0.1, 0.2, 0.5] };

const networksAt = (m) => Math.max(1, Math.floor(NEURONS / m));

/** "10 000 draws", for a sentence. */
export const drawsAt = (m) => `${text(networksAt(m))} draw${networksAt(m) > 1 ? "s" : ""}`;

/** What stands below the sliders that the panels of Lemmas 4.1 to 4.3 share. */
export const notesOf = ({ m, C0, gamma }) => ({
  m: `neurons; ${drawsAt(m)}`,
  C0: `V = C₀/√m = ${text(C0 / Math.sqrt(m), 3)}`,
  gamma: `may fail in ${plain(100 * gamma)}\u202f% of draws`,
});

/**
 * How many networks there are at width m, and the neurons of them all, kept in `cache`: u = w . x and a, and with `two`
 * also a second coordinate z of each weight.
 */
export function drawNetworks(cache, m, seed, two = false) {
  if (cache.seed !== seed) {
    const normal = (stream) => normalMatrix(SIDE, SIDE, seed, stream);
    Object.assign(cache, { seed, u: normal("W0"), z: two && normal("boundary"), a: signs(NEURONS, seed) });
  }
  return { ...cache, networks: networksAt(m) };
}

/**
 * The length of a vector of n >= 2 standard normals, the row-th of its stream, from a few numbers whatever n is: Marsaglia
 * and Tsang 2000 draw a gamma variable of n/2 as c v, v = (1 + z / (3 sqrt c))^3, from a normal z, and keep it if an
 * exponential variable exceeds -(z^2 / 2 + c - c v + c log v).
 */
export function chi(n, key, row) {
  const c = n / 2 - 1 / 3;
  const z = new Float32Array(4); // the last two make the exponential variable
  for (let counter = row * ROW; ; counter += 4) {
    normals(z, 0, key, counter, 4);
    const v = (1 + z[0] / (3 * Math.sqrt(c))) ** 3;
    const exponential = (z[2] * z[2] + z[3] * z[3]) / 2;
    if (v > 0 && -exponential < (z[0] * z[0]) / 2 + c - c * v + c * Math.log(v)) return Math.sqrt(2 * c * v);
  }
}

export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

export const count = (values, test) => values.reduce((sum, value) => sum + test(value), 0);

/** "0.012 to 0.085": Wilson's 95 % confidence interval of a probability, from `hits` in n draws. */
export function interval(hits, n) {
  const z = 1.96, middle = hits + (z * z) / 2;
  const half = z * Math.sqrt((hits * (n - hits)) / n + (z * z) / 4);
  const round = (value) => plain(Number(Math.min(1, Math.max(0, value / (n + z * z))).toPrecision(2)));
  return `${round(middle - half)} to ${round(middle + half)}`;
}

/** How many of the draws a picture of this width shows one by one, and the words for that. */
export const drawsShown = (width, m) => Math.min(networksAt(m), width < 420 ? 50 : 100);
export const shownOf = (shown, m) => `${shown < networksAt(m) ? `the first ${shown} of ` : ""}${drawsAt(m)}`;

/** How often a bound failed, beside how often it may. */
export const frequency = (hits, n, gamma) => `${text(hits)} of ${text(n)}, 95\u202f% interval ${interval(hits, n)}; γ\u00a0=\u00a0${plain(gamma)}`;
