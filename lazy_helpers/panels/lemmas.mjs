// The bounds of Lemmas 4.1 to 4.3 as lemmas.py has them, under its names: functions of (d, m, C0, gamma) at ||x|| = 1.

import { erf } from "./lazy.mjs";

/** Lemma 4.1: |f(x; W)| for all W of the ball; C0 = 0 bounds |f(x; W0)|. */
export function value_bound(m, C0, gamma) {
  const log = Math.log(2 / gamma);
  return C0 + Math.sqrt(log) + log / Math.sqrt(m);
}

/** Lemma 4.2: a lower bound of ||grad f(x; W)|| for all W of the ball; at or below 0 it says nothing. */
export function gradient_bound(d, m, C0, gamma) {
  const log = Math.log(4 / gamma);
  const active = Math.max(0, 0.5 - Math.sqrt(log / (2 * m)));
  const start = Math.sqrt(active) * (Math.sqrt(d - 2) - Math.sqrt(2 * log));
  if (!C0) return start;
  const turned = Math.min(m, sign_change_bound(m, C0, gamma / 4));
  return start - C0 - Math.sqrt(turned / m) * (Math.sqrt(d - 1) + Math.sqrt(turned) + Math.sqrt(2 * log));
}

const FARTHEST = 2 ** 50; // dimensions are looked for up to here: beyond, whole numbers are not exact

/** The smallest d at which `gradient_bound` is above 0; null where it never is: too many neurons can change their sign. */
export function gradient_bound_from(m, C0, gamma) {
  // From its first positive value on the bound grows with d, and before it there is none.
  const says = (d) => gradient_bound(d, m, C0, gamma) > 0;
  if (!says(FARTHEST)) return null;
  let low = 1, high = FARTHEST; // nothing said at low, something at high
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (says(middle)) high = middle;
    else low = middle;
  }
  return high;
}

/** The mean of |S_1|, m erf(V / sqrt 2). */
export const sign_change_mean = (m, C0) => m * erf(C0 / Math.sqrt(2 * m));

/** Lemma 4.3: |S_1|, by Hoeffding's inequality; from m on it says nothing. */
export const sign_change_bound = (m, C0, gamma) =>
  Math.sqrt(2 / Math.PI) * C0 * Math.sqrt(m) + Math.sqrt((m * Math.log(1 / gamma)) / 2);
