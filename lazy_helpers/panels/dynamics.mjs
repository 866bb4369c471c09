// Projected gradient ascent on the inner problem: the package's activations.py, landscape.py, curvature.py and dynamics.py under
// their own names, for one network at one input, with the quadratic loss. Weights are float32; every sum is taken in float64.

import { norm } from "./lazy.mjs";

/** sigma, and its derivatives from z and v = sigma(z); `second` is null where sigma has a kink. */
export const ACTIVATIONS = {
  relu: { value: (z) => (z > 0 ? z : 0), first: (z) => (z > 0 ? 1 : 0), second: null },
  tanh: { value: Math.tanh, first: (z, v) => 1 - v * v, second: (z, v) => -2 * v * (1 - v * v) },
  softplus: {
    value: (z) => (z > 0 ? z + Math.log(1 + Math.exp(-z)) : Math.log(1 + Math.exp(z))), // to 1e-16, faster than log1p
    first: (z) => 1 / (1 + Math.exp(-z)),
    second: (z) => 1 / (1 + Math.exp(-z)) / (1 + Math.exp(z)),
  },
  quadratic: { value: (z) => (z * z) / 2, first: (z) => z, second: () => 1 },
};

export const dot = (v, w) => {
  let sum = 0;
  for (let j = 0; j < v.length; j++) sum += v[j] * w[j];
  return sum;
};

/** The two-layer network of any activation: W is (m, d) row after row, a is (m,), both parts of longer arrays if need be. */
export class Network {
  constructor(d, a, W, activation) {
    Object.assign(this, { d, m: a.length, a, W, activation, sigma: ACTIVATIONS[activation] });
  }

  /** W v: one number a neuron. */
  times(v) {
    const { d, m, W } = this;
    const out = new Float64Array(m);
    for (let s = 0, row = 0; s < m; s++, row += d) {
      let even = 0, odd = 0;
      for (let j = 0; j + 1 < d; j += 2) {
        even += W[row + j] * v[j];
        odd += W[row + j + 1] * v[j + 1];
      }
      if (d % 2) even += W[row + d - 1] * v[d - 1];
      out[s] = even + odd;
    }
    return out;
  }

  /** W^T c. */
  transposed(c) {
    const { d, m, W } = this;
    const out = new Float64Array(d);
    for (let s = 0, row = 0; s < m; s++, row += d) {
      const cs = c[s];
      for (let j = 0; j < d; j++) out[j] += cs * W[row + j];
    }
    return out;
  }

  /** f at pre-activations z (m,), each times `scale`. */
  value_of(z, scale = 1) {
    const { m, a, sigma: { value } } = this;
    let f = 0;
    for (let s = 0; s < m; s++) f += a[s] * value(scale * z[s]);
    return f / Math.sqrt(m);
  }

  /** f and its input gradient there. */
  value_and_grad_of(z, scale = 1) {
    const { m, a, sigma: { value, first } } = this;
    const root = Math.sqrt(m), c = new Float64Array(m);
    let f = 0;
    for (let s = 0; s < m; s++) {
      const zs = scale * z[s], v = value(zs);
      f += a[s] * v;
      c[s] = (a[s] * first(zs, v)) / root;
    }
    return { f: f / root, g: this.transposed(c) };
  }

  value(x) {
    return this.value_of(this.times(x));
  }

  value_and_grad(x) {
    return this.value_and_grad_of(this.times(x));
  }

  /** v -> Hessian of f at x, times v. */
  hvp(x) {
    const { m, a, sigma: { value, second } } = this;
    const root = Math.sqrt(m);
    const bends = this.times(x).map((z, s) => (a[s] * second(z, value(z))) / root);
    return (v) => this.transposed(this.times(v).map((zs, s) => bends[s] * zs));
  }
}

/** The inner problem: maximise L(delta) = (f(x + delta) - y)^2 / 2 over ||delta|| = eps, where x = s x0 and eps = rho ||x||. */
export class Inner {
  constructor(net, x, y, eps) {
    Object.assign(this, { net, x, y, eps });
  }

  at(delta) {
    return this.x.map((xj, j) => xj + delta[j]);
  }

  residual(delta) {
    return this.net.value(this.at(delta)) - this.y;
  }

  value(delta) {
    return this.residual(delta) ** 2 / 2;
  }

  /** What a step needs at once: the residual r = f - y, the gradient G = r grad f, and L. */
  look(delta) {
    const { f, g } = this.net.value_and_grad(this.at(delta));
    const r = f - this.y;
    return { r, g, G: g.map((gj) => r * gj), L: (r * r) / 2 };
  }

  grad(delta) {
    return this.look(delta).G;
  }

  /** v -> H v, H = grad f grad f^T + r Hessian of f. */
  hvp(delta) {
    const { r, g } = this.look(delta), bent = this.net.hvp(this.at(delta));
    return (v) => {
      const along = dot(g, v);
      return bent(v).map((bj, j) => along * g[j] + r * bj);
    };
  }

  /** A direction at length eps. */
  on_sphere(direction) {
    const length = norm(direction);
    return Float64Array.from(direction, (vj) => (this.eps * vj) / length);
  }
}

/** The problem at s x0 with ratio rho; x0 of length 1. */
export const inner_problem = (net, x0, y, s, rho) => new Inner(net, Float64Array.from(x0, (xj) => s * xj), y, rho * s);

/** Up or down the network's slope at the input; along x where that is 0. */
export function gradient_start(problem, sign = 1) {
  const { g } = problem.net.value_and_grad(problem.x);
  return problem.on_sphere((g.some((gj) => gj !== 0) ? g : problem.x).map((gj) => sign * gj));
}

// --------------------------------------------------------------------------------------------------------- curvature

/** v less its part along the unit vector n. */
function tangent(v, n) {
  const along = dot(v, n);
  return v.map((vj, j) => vj - along * n[j]);
}

/** kappa = ||P G|| / ||G||, 0 where G is. */
export function stationarity(problem, delta, G = problem.grad(delta)) {
  const size = norm(G);
  return size ? norm(tangent(G, delta.map((dj) => dj / problem.eps))) / size : 0;
}

/** <G, n> / eps, the sphere's own share of the curvature. */
export const radial = (problem, delta, G = problem.grad(delta)) => dot(G, delta) / problem.eps ** 2;

const LANCZOS = 80; // steps at most: the top of the spectrum has settled long before

/** The largest eigenvalue of the Riemannian Hessian P H P - <G, n>/eps P on the tangent space, d >= 2: Lanczos' method, exact for small d. */
export function top_eigenvalue(problem, delta) {
  const n = delta.map((dj) => dj / problem.eps), product = problem.hvp(delta), { d } = problem.net;
  const size = Math.min(d - 1, LANCZOS);
  let q = tangent(Float64Array.from(n, (nj, j) => (nj < 0 ? -1 : 1) / (j + 1.5)), n), length = norm(q); // any vector that is not n
  if (length < 1e-6) q = tangent(Float64Array.from(n, (_, j) => (j ? 0 : 1)), n), (length = norm(q));
  q = q.map((qj) => qj / length);
  const basis = [q], diagonal = [], beside = [];
  let most = 0;
  while (true) {
    let v = tangent(product(q), n);
    diagonal.push(dot(v, q));
    for (let twice = 0; twice < 2; twice++)
      for (const b of basis) {
        const along = dot(v, b);
        v = v.map((vj, j) => vj - along * b[j]);
      }
    const beta = norm(v);
    most = Math.max(most, Math.abs(diagonal.at(-1)), beta);
    if (basis.length === size || beta <= 1e-12 * most) break;
    beside.push(beta);
    basis.push((q = v.map((vj) => vj / beta)));
  }
  return largest(diagonal, beside) - radial(problem, delta);
}

/** The largest eigenvalue of a symmetric tridiagonal matrix, by bisection on Sturm's count. */
function largest(diagonal, beside) {
  const reach = diagonal.map((value, k) => Math.abs(beside[k - 1] ?? 0) + Math.abs(beside[k] ?? 0));
  let low = Math.max(...diagonal), high = Math.max(...diagonal.map((value, k) => value + reach[k]));
  const above = (t) => {
    let pivot = 1;
    return diagonal.some((value, k) => {
      pivot = value - t - (k ? beside[k - 1] ** 2 / pivot : 0);
      return pivot >= 0; // some eigenvalue is at least t
    });
  };
  for (let k = 0; k < 60 && high - low > 1e-14 * (Math.abs(high) + Math.abs(low)); k++) {
    const middle = (low + high) / 2;
    if (above(middle)) low = middle;
    else high = middle;
  }
  return high;
}

const SWEEPS = 3000, HELD = 1e-6;

/**
 * The smallest tangential element of a ReLU's generalised gradient: the `active` neurons, whose kink lies within `reach` eps of the
 * point, take any gate in [0, 1]; by coordinate descent from the gates as they are. `ridges` of them hold the point, of which
 * `upward` bend L up. Gates that balance one another are not unique: those that bend L down move first, so the others only where
 * they must.
 */
export function smallest_element(problem, delta, reach = 1e-2, tol = 1e-6) {
  const { net, eps } = problem, { d, m, a, W } = net;
  const n = delta.map((dj) => dj / eps);
  const z = net.times(problem.at(delta));
  const r = net.value_of(z) - problem.y, slope = r / Math.sqrt(m);
  const G = new Float64Array(d), near = [];
  for (let s = 0, row = 0; s < m; s++, row += d) {
    let square = 0;
    for (let j = row; j < row + d; j++) square += W[j] * W[j];
    if (Math.abs(z[s]) <= reach * eps * Math.sqrt(square)) {
      const whole = Float64Array.from({ length: d }, (_, j) => slope * a[s] * W[row + j]), part = tangent(whole, n);
      near.push({ whole, part, size: dot(part, part), upward: r * a[s] > 0, gate: z[s] > 0 ? 1 : 0 });
    } else if (z[s] > 0) for (let j = 0; j < d; j++) G[j] += slope * a[s] * W[row + j];
  }
  const left = tangent(G, n);
  for (const { part, gate } of near) for (let j = 0; j < d; j++) left[j] += gate * part[j];
  const descend = (kinks) => {
    for (let sweep = 0, moved = 1; sweep < SWEEPS && moved > 1e-13; sweep++) {
      moved = 0;
      for (const kink of kinks) {
        const gate = Math.min(1, Math.max(0, kink.gate - dot(left, kink.part) / kink.size));
        for (let j = 0; j < d; j++) left[j] += (gate - kink.gate) * kink.part[j];
        moved = Math.max(moved, Math.abs(gate - kink.gate));
        kink.gate = gate;
      }
    }
  };
  const size = () => norm(G.map((Gj, j) => near.reduce((sum, { whole, gate }) => sum + gate * whole[j], Gj)));
  descend(near.filter(({ upward }) => !upward));
  if (norm(left) > tol * size()) descend(near);
  const held = near.filter(({ gate }) => gate > HELD && gate < 1 - HELD);
  return {
    stationarity: norm(left) / Math.max(size(), 1e-300),
    active: near.length,
    ridges: held.length,
    upward: held.filter(({ upward }) => upward).length,
  };
}

// ----------------------------------------------------------------------------------------------------------- the ascent

export const MAXIMUM = "local maximum", SADDLE = "saddle", NOT_CONVERGED = "not converged";

/**
 * Ascends from `start` until kappa <= tol. `rule`: the step eta eps / ||G|| takes ||G|| of the "first" or of the "current" gradient;
 * `decay` > 0 divides step t by 1 + decay t. With `record` the iterates are in `path`: { delta, value, stationarity }, row t after t steps.
 */
export function ascent(problem, start, { eta = 1, tol = 1e-6, max_steps = 5000, rule = "current", decay = 0, record = false } = {}) {
  const { eps } = problem;
  const path = record ? { delta: [], value: [], stationarity: [] } : null;
  for (let delta = Float64Array.from(start), first = null, steps = 0; ; steps++) {
    const { r, G, L } = problem.look(delta);
    const kappa = stationarity(problem, delta, G);
    first ??= norm(G);
    if (path) {
      path.delta.push(delta);
      path.value.push(L);
      path.stationarity.push(kappa);
    }
    if (!(kappa > tol) || steps === max_steps) return { delta, residual: r, value: L, stationarity: kappa, steps, path };
    const length = ((eta / (1 + decay * steps)) * eps) / Math.max(rule === "first" ? first : norm(G), 1e-300);
    delta = problem.on_sphere(delta.map((dj, j) => dj + length * G[j]));
  }
}

/** The same, and what its end is. */
export function pga(problem, start, how = {}) {
  const end = ascent(problem, start, how);
  return { ...end, ...judged(problem, end.delta, end.stationarity, how.tol ?? 1e-6) };
}

/** Of an end its stationarity, whether it is stationary, its top eigenvalue in units of |<G, n>| / eps, and its status. */
function judged(problem, delta, kappa, tol) {
  const c = radial(problem, delta);
  let top;
  if (problem.net.sigma.second) top = top_eigenvalue(problem, delta) / Math.max(Math.abs(c), 1e-300);
  else {
    const kinks = smallest_element(problem, delta, 1e-2, tol);
    kappa = kinks.stationarity;
    top = kinks.upward ? Infinity : -Math.sign(c);
  }
  const converged = kappa <= tol;
  return { stationarity: kappa, converged, top, status: converged ? (top < 0 ? MAXIMUM : SADDLE) : NOT_CONVERGED };
}

/** Steps until kappa <= tol where L is linear: the error shrinks by 1/(1 + eta) a step. */
export const predicted_steps = (tol, eta) => Math.log(1 / tol) / Math.log1p(eta);

/**
 * Two maxima, one on either side of y: `predicted` to first order, and `found` where the ends of the ascents from +-grad f lie on
 * either side, which proves the pair.
 */
export function second_maximum(problem, how = {}) {
  const { f, g } = problem.net.value_and_grad(problem.x);
  const [up, down] = [1, -1].map((sign) => ascent(problem, gradient_start(problem, sign), how));
  return { predicted: problem.eps * norm(g) > Math.abs(f - problem.y), found: up.residual * down.residual < 0, up, down };
}

/** f and ||grad f|| at s x0 for `points` scales in [low, high] a factor apart. */
export function profile(net, x0, low = 1e-3, high = 1e3, points = 400) {
  const z = net.times(x0);
  const s = Float64Array.from({ length: points }, (_, k) => low * (high / low) ** (k / (points - 1)));
  const f = new Float64Array(points), g = new Float64Array(points);
  for (let k = 0; k < points; k++) {
    const found = net.value_and_grad_of(z, s[k]);
    f[k] = found.f;
    g[k] = norm(found.g);
  }
  return { z, s, f, g };
}

/** The least s of a network's profile from which s rho ||grad f(s x0)|| > |f(s x0) - y|; null where there is none. */
export function critical_scale(net, { z, s, f, g }, y, rho) {
  const first = s.findIndex((scale, k) => scale * rho * g[k] > Math.abs(f[k] - y));
  if (first < 0) return null;
  let left = s[Math.max(first - 1, 0)], right = s[first];
  for (let k = 0; k < 50 && right / left > 1 + 1e-13; k++) {
    const middle = Math.sqrt(left * right), there = net.value_and_grad_of(z, middle);
    if (middle * rho * norm(there.g) > Math.abs(there.f - y)) right = middle;
    else left = middle;
  }
  return right;
}
