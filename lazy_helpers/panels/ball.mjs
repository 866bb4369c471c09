// The sphere ||delta|| = eps as a picture: pixels coloured by L on a ring (d = 2), a ball or a flat map (d = 3), and the ball turned.
//
// Directions are unit vectors in a frame of their own: the first axis is G0, the gradient of L at delta = 0. An angle is one to G0.

import { html } from "./view.mjs";

export const DEGREE = Math.PI / 180;
const BANDS = 14; // steps of colour: their edges are level lines
const HUES = { less: [30, 130, 200], more: [226, 108, 16] }; // of both themes, laid over the panel's ground by their opacity
const FAINT = 0.07, FULL = 0.88;

const AROUND = 72, ROWS = 37; // of the grid on the ball: 5 degrees
const ROUND = 720; // of that on the circle

/** The directions at which the residual is sampled, in the frame's coordinates. */
export function grid(d) {
  if (d === 2) return Array.from({ length: ROUND }, (_, k) => [Math.cos((2 * Math.PI * k) / ROUND), Math.sin((2 * Math.PI * k) / ROUND)]);
  return Array.from({ length: ROWS * AROUND }, (_, k) => direction((Math.floor(k / AROUND) / (ROWS - 1)) * Math.PI, ((k % AROUND) / AROUND) * 2 * Math.PI));
}

/** The direction at an angle to G0 and a longitude around it. */
export const direction = (angle, around) => [Math.cos(angle), Math.sin(angle) * Math.cos(around), Math.sin(angle) * Math.sin(around)];

const wrap = (k, n) => ((k % n) + n) % n;

/** The sampled residual between the grid's points. */
export function sampled(residual) {
  const between = (row, k) => {
    const low = Math.floor(k), t = k - low;
    return (1 - t) * residual[row * AROUND + wrap(low, AROUND)] + t * residual[row * AROUND + wrap(low + 1, AROUND)];
  };
  return {
    round(angle) {
      const k = (angle / (2 * Math.PI)) * ROUND, low = Math.floor(k), t = k - low;
      return (1 - t) * residual[wrap(low, ROUND)] + t * residual[wrap(low + 1, ROUND)];
    },
    ball(angle, around) {
      const i = (angle / Math.PI) * (ROWS - 1), row = Math.min(Math.floor(i), ROWS - 2), t = i - row, k = (around / (2 * Math.PI)) * AROUND;
      return (1 - t) * between(row, k) + t * between(row + 1, k);
    },
  };
}

/** How many points of the grid have a larger L than all their neighbours, with f `below` y and `above`; a pole of the ball is one point. */
export function gridMaxima(residual, d) {
  const L = residual.map(Math.abs), found = { below: 0, above: 0 };
  const add = (k) => found[residual[k] < 0 ? "below" : "above"]++;
  if (d === 2) {
    for (let k = 0; k < ROUND; k++) if (L[k] > L[wrap(k - 1, ROUND)] && L[k] >= L[wrap(k + 1, ROUND)]) add(k);
    return found;
  }
  for (const [pole, beside] of [[0, 1], [ROWS - 1, ROWS - 2]])
    if (L.subarray(beside * AROUND, (beside + 1) * AROUND).every((value) => L[pole * AROUND] > value)) add(pole * AROUND);
  for (let row = 1; row < ROWS - 1; row++)
    for (let k = 0; k < AROUND; k++) {
      const at = (i, j) => L[(row + i) * AROUND + wrap(k + j, AROUND)], value = at(0, 0);
      const before = [at(-1, -1), at(-1, 0), at(-1, 1), at(0, -1)], after = [at(0, 1), at(1, -1), at(1, 0), at(1, 1)];
      if (before.every((other) => value > other) && after.every((other) => value >= other)) add(row * AROUND + k);
    }
  return found;
}

/** The least and the largest L of the grid. */
export function levels(residual) {
  let low = Infinity, high = 0;
  for (const r of residual) {
    low = Math.min(low, r * r);
    high = Math.max(high, r * r);
  }
  return [low / 2, high / 2];
}

/** Colours the canvas's pixels: `residualAt(x, y)` is f - y where the sphere is seen, else null. Blue for f < y, orange for f > y. */
export function colour(canvas, { width, height }, [low, high], residualAt) {
  const ratio = Math.min(globalThis.devicePixelRatio || 1, 2);
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d"), image = context.createImageData(across, down), { data } = image;
  for (let j = 0, k = 0; j < down; j++)
    for (let i = 0; i < across; i++, k += 4) {
      const r = residualAt((i + 0.5) / ratio, (j + 0.5) / ratio);
      if (r === null) continue;
      const share = high > low ? ((r * r) / 2 - low) / (high - low) : 0;
      const band = Math.min(BANDS - 1, Math.max(0, Math.floor(share * BANDS))) / (BANDS - 1);
      const hue = r < 0 ? HUES.less : HUES.more;
      data[k] = hue[0];
      data[k + 1] = hue[1];
      data[k + 2] = hue[2];
      data[k + 3] = 255 * (FAINT + (FULL - FAINT) * band);
    }
  context.putImageData(image, 0, 0);
}

/** A figure's picture over a canvas, with `above` it what can be taken hold of. */
export function stage(picture, ...above) {
  const canvas = html("canvas", { "aria-hidden": "true" }), drawing = picture.el.lastElementChild;
  picture.el.append(html("div", { class: "lp-stage" }, canvas, drawing, ...above));
  return { canvas, drawing };
}

// ------------------------------------------------------------------------------------------------------------ the ball

/** Where the ball is seen from: `around` is the longitude in front, `tilt` leans G0 towards the reader. */
export const FRONT = { around: -60 * DEGREE, tilt: 8 * DEGREE };
export const turned = ({ around, tilt }, right, down) => ({ around: around - right, tilt: Math.min(1.5, Math.max(-1.5, tilt + down)) });

/** A direction as it is seen: [right, up, towards the reader]. */
export function seen([h, p, q], { around, tilt }) {
  const out = p * Math.cos(around) + q * Math.sin(around), right = q * Math.cos(around) - p * Math.sin(around);
  return [right, h * Math.cos(tilt) - out * Math.sin(tilt), out * Math.cos(tilt) + h * Math.sin(tilt)];
}

/** The direction that is seen there; beyond the rim, the rim's. */
export function unseen(right, up, { around, tilt }) {
  const far = Math.hypot(right, up), shrink = far > 1 ? 1 / far : 1;
  const [x, y] = [right * shrink, up * shrink], out = Math.sqrt(Math.max(0, 1 - x * x - y * y));
  const h = y * Math.cos(tilt) + out * Math.sin(tilt), p = out * Math.cos(tilt) - y * Math.sin(tilt);
  return [h, p * Math.cos(around) - x * Math.sin(around), p * Math.sin(around) + x * Math.cos(around)];
}

/** The pixels of a ball of radius R around (cx, cy). */
export function ballPixels(residual, { cx, cy, R }, { around, tilt }) {
  const { ball } = sampled(residual), [sin, cos] = [Math.sin(tilt), Math.cos(tilt)];
  return (px, py) => {
    const x = (px - cx) / R, y = (cy - py) / R, square = 1 - x * x - y * y;
    if (square < 0) return null;
    const out = Math.sqrt(square);
    return ball(Math.acos(Math.min(1, Math.max(-1, y * cos + out * sin))), Math.atan2(x, out * cos - y * sin) + around);
  };
}

/** Those of a flat map between these sides: longitude across, equal areas down. */
export function mapPixels(residual, { left, right, top, bottom }) {
  const { ball } = sampled(residual);
  return (px, py) => {
    if (px < left || px > right || py < top || py > bottom) return null;
    return ball(Math.acos(1 - (2 * (py - top)) / (bottom - top)), ((px - left) / (right - left) - 0.5) * 2 * Math.PI);
  };
}

/** Those of a ring, G0 upwards, angles to the right. */
export function ringPixels(residual, { cx, cy, R, thick }) {
  const { round } = sampled(residual);
  return (px, py) => {
    const far = Math.hypot(px - cx, py - cy);
    return Math.abs(far - R) > thick / 2 ? null : round(Math.atan2(px - cx, cy - py));
  };
}

/** The points of the shortest way from one direction to another, a few degrees apart; without the first. */
export function geodesic(from, to) {
  const cos = Math.min(1, Math.max(-1, from.reduce((sum, value, j) => sum + value * to[j], 0)));
  const angle = Math.acos(cos), pieces = Math.max(1, Math.ceil(angle / (4 * DEGREE)));
  if (angle < 1e-9 || Math.PI - angle < 1e-9) return [to];
  return Array.from({ length: pieces }, (_, k) => {
    const t = (k + 1) / pieces;
    return to.map((value, j) => (Math.sin((1 - t) * angle) * from[j] + Math.sin(t * angle) * value) / Math.sin(angle));
  });
}
