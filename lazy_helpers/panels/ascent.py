"""The panels of projected gradient ascent on the inner problem, as Jupyter widgets."""

import traitlets

from .widgets import Among, OneOf, Panel, Within, result

SIGMAS = ("relu", "tanh", "softplus", "quadratic")
RULES = ("current", "first")


class SpherePanel(Panel):
    """PGA on the sphere ||delta|| = eps in d = 2 or 3 dimensions, from three starts that can be moved.

    One network of `draw(d, m, seed)` with `activation`, x = s x0 and eps = `rho` s, target `y`; `eta` is the relative step, divided by
    the "current" or the "first" gradient's norm (`rule`); tol 1e-6, at most 300 steps; a ReLU's step t is divided by 1 + t/10.
    Results: for each start its `steps`, its `status` ("local maximum", "saddle", "not converged") and the `value` of L where it
    ends; the number of different `maxima` that they reach; `predicted_steps`; whether a second maximum is `predicted`, and the
    `critical` scale from which one is (None up to s = 100).
    """

    panel = traitlets.Unicode("sphere", read_only=True).tag(sync=True)
    about = "projected gradient ascent on a circle or a ball"
    INPUTS = ("s", "rho", "m", "eta", "d", "y", "rule", "activation", "seed")
    RESULTS = ("steps", "status", "value", "maxima", "predicted_steps", "predicted", "critical")

    s = Within(0.05, 10.0, 2.0).tag(sync=True)
    rho = Within(0.05, 0.9, 0.6).tag(sync=True)
    m = Within(10, 3000, 500).tag(sync=True)
    eta = Within(0.05, 10.0, 1.0).tag(sync=True)
    d = Among((2, 3), 3).tag(sync=True)
    y = Among((-1, 1), 1).tag(sync=True)
    rule = OneOf(RULES).tag(sync=True)
    activation = OneOf(SIGMAS).tag(sync=True)

    steps = result(traitlets.List)
    status = result(traitlets.List)
    value = result(traitlets.List)
    maxima = result(traitlets.Int)
    predicted_steps = result(traitlets.Float)
    predicted = result(traitlets.Bool)
    critical = result(traitlets.Float)

    @traitlets.default("activation")
    def _activation(self):
        return "tanh"
