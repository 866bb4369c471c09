"""The panels of projected gradient ascent on the inner problem, as Jupyter widgets."""

import traitlets

from .widgets import Among, OneOf, Panel, Within, result

SIGMAS = ("softplus", "tanh", "quadratic", "relu")
RULES = ("current", "first")


class SpherePanel(Panel):
    """PGA on the sphere ||delta|| = eps in d = 2 or 3 dimensions, from three starts that can be moved.

    One network of `draw(d, m, seed)` with `activation`, x = `s` x0 and eps = `rho` `s` (`s`: the scale, the book's beta), target
    `y`; `eta` is the relative step, divided by the "current" or the "first" gradient's norm (`rule`); tol 1e-6, at most 300 steps;
    a ReLU's step t is divided by 1 + t/10.
    Results: for each start its `steps`, its `status` ("local maximum", "saddle", "not converged") and the `value` of L where it
    ends; the number of different `maxima` that they reach; `predicted_steps`; whether a second maximum is `predicted`, and the
    `critical` scale from which one is (None up to 100).
    """

    panel = traitlets.Unicode("sphere", read_only=True).tag(sync=True)
    about = "projected gradient ascent on a circle or a ball"
    INPUTS = ("s", "rho", "m", "eta", "d", "y", "rule", "activation", "seed")
    RESULTS = ("steps", "status", "value", "maxima", "predicted_steps", "predicted", "critical")

    s = Within(0.05, 10.0, 3.2).tag(sync=True)
    rho = Within(0.05, 0.9, 0.7).tag(sync=True)
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


class ScalePanel(Panel):
    """Second maxima as the scale `s` of the inputs (the book's beta) moves: 30 networks, predicted and found.

    The networks are cut from one draw of 30 m neurons; x = `s` x0, eps = `rho` `s`, y = 1. Predicted where `s` rho ||grad f|| > |f - y|; found
    where PGA from +-grad f (eta 1, at most 30 steps, tol 1e-3) ends on both sides of y. `network`, 1 to 30, is the one whose L is
    drawn. Results at this scale: how many are `predicted` and `found`, the share of `agreement`; `critical`, each network's least scale
    with a second maximum predicted, from 0.02 to 20 (None: none there).
    """

    panel = traitlets.Unicode("scales", read_only=True).tag(sync=True)
    about = "the scale from which the inner problem has a second maximum"
    INPUTS = ("s", "rho", "m", "d", "network", "activation", "seed")
    RESULTS = ("predicted", "found", "agreement", "critical")

    s = Within(0.05, 10.0, 2.0).tag(sync=True)
    rho = Within(0.05, 0.9, 0.3).tag(sync=True)
    m = Within(50, 1000, 200).tag(sync=True)
    d = Within(5, 200, 20).tag(sync=True)
    network = Within(1, 30, 1).tag(sync=True)
    activation = OneOf(SIGMAS).tag(sync=True)

    predicted = result(traitlets.Int)
    found = result(traitlets.Int)
    agreement = result(traitlets.Float)
    critical = result(traitlets.List)
