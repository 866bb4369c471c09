"""The panels as Jupyter widgets, whose outputs also carry the marker by which a built page brings them to life."""

import html
import json
import math
import numbers

import anywidget
import traitlets

from . import bundle, digits, stored

WEIGHTS = ("initial", "random", "margin")
DELTAS = ("gradient", "random")
LENSES = ("network", "ball", "paper")
TRAININGS = ("plain", "adversarial")


class Within(traitlets.TraitType):
    """A number in [low, high], whole if `low` is an int; an error names the trait, what it got and a value to use."""

    def __init__(self, low, high, default):
        super().__init__(default_value=default)
        self.low, self.high = low, high

    def validate(self, obj, value):
        whole = isinstance(self.low, int)
        kind = numbers.Integral if whole else numbers.Real
        # `<=` is False for NaN; a slider in a page may send a whole number for a real one, never the reverse.
        if isinstance(value, kind) and not isinstance(value, bool) and self.low <= value <= self.high:
            return int(value) if whole else float(value)
        wanted = "a whole number" if whole else "a number"
        raise traitlets.TraitError(
            f"{self.name} must be {wanted} from {self.low} to {self.high}, got {value!r}: "
            f"for example {self.name}={self.default_value}."
        )


class Among(Within):
    """One of a few whole numbers."""

    def __init__(self, values, default):
        super().__init__(values[0], values[-1], default)
        self.values = values

    def validate(self, obj, value):
        if isinstance(value, numbers.Integral) and not isinstance(value, bool) and value in self.values:
            return int(value)
        wanted = ", ".join(map(str, self.values))
        raise traitlets.TraitError(
            f"{self.name} must be one of {wanted}, got {value!r}: try {self.name}={self.default_value}."
        )


class OneOf(traitlets.TraitType):
    """One of a few words."""

    def __init__(self, words):
        super().__init__(default_value=words[0])
        self.words = words

    def validate(self, obj, value):
        if value in self.words:
            return value
        wanted = ", ".join(map(repr, self.words))
        raise traitlets.TraitError(f"{self.name} must be one of {wanted}, got {value!r}.")


def result(kind):
    """A trait to read: None until a panel on screen has answered, and again from every change until it has answered."""
    return kind(default_value=None, allow_none=True, read_only=True)


class Live(anywidget.AnyWidget):
    """What the panels share: the inputs, what answers them, and the two faces of the output."""

    _esm = bundle.widget_module()
    _css = bundle.style()
    INPUTS = ()
    RESULTS = ()

    _answer = traitlets.Dict().tag(sync=True)  # the panel's latest: {"state": the inputs it used, "results": ...}

    def __init__(self, **state):
        unknown = sorted(set(state) - set(self.INPUTS))
        if unknown:
            raise ValueError(f"{type(self).__name__} has no {', '.join(unknown)}: it takes {', '.join(self.INPUTS)}.")
        super().__init__(**state)
        self.observe(self._take_answer, (*self.INPUTS, "_answer"))

    @property
    def state(self):
        """The inputs as a dict."""
        return {key: getattr(self, key) for key in self.INPUTS}

    def _take_answer(self, change):
        """Messages cross on their way: a result never stands beside inputs that it was not computed from."""
        results = self._answer["results"] if self._answer.get("state") == self.state else {}
        for key in self.RESULTS:
            self.set_trait(key, results.get(key))

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.state.items())})"

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        settings = ", ".join(f"{key} = {value}" for key, value in self.state.items())
        marker = html.escape(json.dumps(self.state))
        carried = f' data-input="{html.escape(json.dumps(self.input))}"' if self.has_trait("input") else ""
        data["text/plain"] = repr(self)
        data["text/html"] = (
            f'<div class="lazy-panel" data-panel="{self.panel}" data-state="{marker}"{carried}>'
            f"<p><em>A live panel, {self.about} ({settings}): it moves in the built book, "
            "and here once this cell has been run.</em></p></div>"
        )
        return data, metadata


class Panel(Live):
    """A panel of one network: its traits."""

    INPUTS = ("d", "m", "C0", "seed")

    d = Within(25, 784, 400).tag(sync=True)
    m = Within(100, 10_000, 2000).tag(sync=True)
    C0 = Within(1.0, 40.0, 10.0).tag(sync=True)
    seed = Within(0, 2**31 - 1, 0).tag(sync=True)

    @property
    def V(self):
        """The lazy radius C0 / sqrt(m)."""
        return self.C0 / math.sqrt(self.m)


class SettingPanel(Panel):
    """The setting: the pre-activations, the lazy ball, which signs can change inside it and how far f can move.

    Results: `flips` = |S_1| (Lemma 4.3), `f` = f(x; W0), `f_min` and `f_max` over the ball.
    """

    panel = traitlets.Unicode("setting", read_only=True).tag(sync=True)
    about = "the network, its lazy ball and what can change inside it"
    RESULTS = ("flips", "f", "f_min", "f_max")

    flips = result(traitlets.Int)
    f = result(traitlets.Float)
    f_min = result(traitlets.Float)
    f_max = result(traitlets.Float)


class StepPanel(Panel):
    """One gradient step: f along x + eta grad f for a W of the ball, and the exact first flip (Theorem 3.1).

    `weights` chooses W: "initial", "random" (on the ball's boundary) or "margin" (the largest sign(f) f(x)); `R` is the
    perturbation radius. Results: `f`, `grad_norm`, `found`, `eta` = |eta|, `delta_norm`, `within_R`, `kinks` before
    the flip and `eta_tangent` = |f| / ||grad f||^2; without a flip, `found` is False and eta and delta_norm are None.
    """

    panel = traitlets.Unicode("step", read_only=True).tag(sync=True)
    about = "one gradient step and the first change of sign"
    INPUTS = ("d", "m", "C0", "R", "weights", "seed")
    RESULTS = ("f", "grad_norm", "found", "eta", "delta_norm", "within_R", "kinks", "eta_tangent")

    R = Within(0.01, 1.0, 0.1).tag(sync=True)
    weights = OneOf(WEIGHTS).tag(sync=True)

    f = result(traitlets.Float)
    grad_norm = result(traitlets.Float)
    found = result(traitlets.Bool)
    eta = result(traitlets.Float)
    delta_norm = result(traitlets.Float)
    within_R = result(traitlets.Bool)
    kinks = result(traitlets.Int)
    eta_tangent = result(traitlets.Float)


class ValuePanel(Panel):
    """Lemma 4.1: f(x; W) over many draws of (W0, a) and all W of each ball, beside the bound; d plays no part.

    10^6 // m draws. Results: `draws`; at W0 `f_rms` (root mean square), `largest` |f|, `bound_initial` and the share `beyond`
    it; over the ball the mean `rise` of f, `largest_in_ball`, Lemma 4.1's `bound` and the share `beyond_in_ball`.
    """

    panel = traitlets.Unicode("value", read_only=True).tag(sync=True)
    about = "how large f can be inside the lazy ball"
    INPUTS = ("m", "C0", "gamma", "seed")
    RESULTS = (
        *("draws", "f_rms", "largest", "bound_initial", "beyond"),
        *("rise", "largest_in_ball", "bound", "beyond_in_ball"),
    )

    m = Within(100, 1_000_000, 10_000).tag(sync=True)
    gamma = Within(0.001, 0.5, 0.1).tag(sync=True)

    draws = result(traitlets.Int)
    f_rms = result(traitlets.Float)
    largest = result(traitlets.Float)
    bound_initial = result(traitlets.Float)
    beyond = result(traitlets.Float)
    rise = result(traitlets.Float)
    largest_in_ball = result(traitlets.Float)
    bound = result(traitlets.Float)
    beyond_in_ball = result(traitlets.Float)


class GradientPanel(Panel):
    """Lemma 4.2: ||grad f(x; W)|| over many draws and all W of each ball, at any d, beside the bound.

    10^6 // m draws, exact in law without W. Results, means over the draws: `grad_norm` at W0; `lower`, below which no W of
    the ball falls, and `found`, which one attains; `smallest`, the least `lower`; Lemma 4.2's `bound`, `vacuous` where it is
    not above 0, `bound_from`, the d from which it is (None: never), and the share `beyond` of draws that break it; `sharp` =
    sqrt(d/2) - (1/2 + 1/pi) C0.
    """

    panel = traitlets.Unicode("gradient", read_only=True).tag(sync=True)
    about = "how short the input gradient can be inside the lazy ball"
    INPUTS = ("d", "m", "C0", "gamma", "seed")
    RESULTS = (
        *("draws", "grad_norm", "found", "lower", "smallest", "beyond"),
        *("sharp", "bound", "bound_from", "vacuous"),
    )

    d = Within(25, 100_000, 400).tag(sync=True)
    m = Within(100, 1_000_000, 10_000).tag(sync=True)
    gamma = Within(0.001, 0.5, 0.1).tag(sync=True)

    draws = result(traitlets.Int)
    grad_norm = result(traitlets.Float)
    found = result(traitlets.Float)
    lower = result(traitlets.Float)
    smallest = result(traitlets.Float)
    beyond = result(traitlets.Float)
    sharp = result(traitlets.Float)
    bound = result(traitlets.Float)
    bound_from = result(traitlets.Int)
    vacuous = result(traitlets.Bool)


class FlipsPanel(Panel):
    """Lemma 4.3: |S_1|, how many neurons can change their sign at x, over many draws of W0, beside the bound.

    10^6 // m draws; d plays no part. Results: `draws`, the means `flips` and `share` = flips / m, the `largest` |S_1|, Lemma 4.3's
    `bound`, `vacuous` where it is m or more, and the share `beyond` of draws that break it.
    """

    panel = traitlets.Unicode("flips", read_only=True).tag(sync=True)
    about = "how many neurons can change their sign inside the lazy ball"
    INPUTS = ("m", "C0", "gamma", "seed")
    RESULTS = ("draws", "flips", "share", "largest", "bound", "vacuous", "beyond")

    m = Within(100, 1_000_000, 10_000).tag(sync=True)
    gamma = Within(0.001, 0.5, 0.1).tag(sync=True)

    draws = result(traitlets.Int)
    flips = result(traitlets.Float)
    share = result(traitlets.Float)
    largest = result(traitlets.Int)
    bound = result(traitlets.Float)
    vacuous = result(traitlets.Bool)
    beyond = result(traitlets.Float)


class DifferencePanel(Panel):
    """Lemma 4.4: how far grad f(x; W0) turns from x to x + delta, beside a bound for all W of the ball and ||delta|| <= R.

    `delta` is "gradient" (along grad f, against the sign of f) or "random" (across x), of length `R` < ||x|| = 1. Exact in law
    without W, so d and m reach 10^6. With D = grad f(x) - grad f(x + delta), results: its `norm`, its component `along` grad f(x),
    which alone enters the theorem, `grad_norm`, the number of `switches`, `predicted` = sqrt(d arctan(R) / pi); the `bound` of
    ||D|| and `bound_switches`, which hold with probability 99 %, and `vacuous` where the bound is no less than grad_norm.
    """

    panel = traitlets.Unicode("difference", read_only=True).tag(sync=True)
    about = "how far the input gradient turns, and how far it can turn at most"
    INPUTS = ("d", "m", "C0", "R", "delta", "seed")
    RESULTS = ("norm", "along", "grad_norm", "switches", "predicted", "bound", "bound_switches", "vacuous")

    d = Within(25, 1_000_000, 400).tag(sync=True)
    m = Within(100, 1_000_000, 10_000).tag(sync=True)
    R = Within(0.001, 0.9, 0.1).tag(sync=True)
    delta = OneOf(DELTAS).tag(sync=True)

    norm = result(traitlets.Float)
    along = result(traitlets.Float)
    grad_norm = result(traitlets.Float)
    switches = result(traitlets.Int)
    predicted = result(traitlets.Float)
    bound = result(traitlets.Float)
    bound_switches = result(traitlets.Int)
    vacuous = result(traitlets.Bool)


class TheoremPanel(Panel):
    """Theorem 3.1: sign(f) f(x + delta) <= (1) - R ((2) - (3)) at ||delta|| = R along grad f, and which term fails.

    `lens` says whose terms: "network", W0 as drawn, where the two sides are equal; "ball", certified for every W of this
    draw's ball, but for sigma_max(W0), bounded with probability 99 %; "paper", Lemmas 4.1, 4.2 and 4.4, with probability 99 %.
    Exact in law without W, so d and m reach 10^6. Results: `margin` (1), `gradient` (2), `turning` (3), `bound` (the right side),
    `flips` where it is below 0, else `fails`: "margin", "gradient" or "turning"; `delta_norm`, the first flip of W0 with ||delta|| <= 1,
    and `certified_from`, the least R of the slider at which every W flips; None where there is none.
    """

    panel = traitlets.Unicode("theorem", read_only=True).tag(sync=True)
    about = "the three terms that decide whether one step changes the sign of f"
    INPUTS = ("d", "m", "C0", "R", "lens", "seed")
    RESULTS = ("margin", "gradient", "turning", "bound", "flips", "fails", "delta_norm", "certified_from")

    d = Within(25, 1_000_000, 400).tag(sync=True)
    m = Within(100, 1_000_000, 10_000).tag(sync=True)
    R = Within(0.001, 0.9, 0.1).tag(sync=True)
    lens = OneOf(LENSES).tag(sync=True)

    margin = result(traitlets.Float)
    gradient = result(traitlets.Float)
    turning = result(traitlets.Float)
    bound = result(traitlets.Float)
    flips = result(traitlets.Bool)
    fails = result(traitlets.Unicode)
    delta_norm = result(traitlets.Float)
    certified_from = result(traitlets.Float)


class PlaygroundPanel(Panel):
    """A network that trains in the page on the embedded digits of d = 16, 36 or 64 pixels, ||x|| = 1, and is attacked.

    `training` is "plain" (train_sgd with exit="step": it stops where the next step would leave the ball) or "adversarial"
    (train_adversarial with project="step"): lr=0.2, batch_size=32, at most 200 epochs, attacks of 10 steps with ||delta|| <= `eps`;
    `image` is the test image that is shown, 1 to 119. The network is that of `draw(d, m, seed)`, epoch t's order
    `permutation(241, seed, t)`. Results, as the reader's training goes on: `epochs` (in passes over the data) and `steps` taken, the
    training `loss`, at the attacked images if adversarial; `C0_used`, sqrt(m) times the largest deviation, and `at_edge`, how many
    neurons are V from where they began; `clean` and `robust` accuracy on the test images; `left`, whether the next step leaves the ball.
    """

    panel = traitlets.Unicode("playground", read_only=True).tag(sync=True)
    about = "a small network that trains and is attacked"
    INPUTS = ("d", "m", "C0", "eps", "image", "training", "seed")
    RESULTS = ("epochs", "steps", "loss", "C0_used", "at_edge", "clean", "robust", "left")

    input = traitlets.Dict(read_only=True).tag(sync=True)  # the digits
    d = Among((16, 36, 64), 64).tag(sync=True)
    m = Within(100, 2000, 1000).tag(sync=True)
    C0 = Within(1.0, 20.0, 10.0).tag(sync=True)
    eps = Within(0.01, 0.5, 0.2).tag(sync=True)
    training = OneOf(TRAININGS).tag(sync=True)
    image = Within(1, 119, 1).tag(sync=True)

    epochs = result(traitlets.Float)
    steps = result(traitlets.Int)
    loss = result(traitlets.Float)
    C0_used = result(traitlets.Float)
    at_edge = result(traitlets.Int)
    clean = result(traitlets.Float)
    robust = result(traitlets.Float)
    left = result(traitlets.Bool)

    @traitlets.default("input")
    def _digits(self):
        return digits.packed()


class Chosen(traitlets.TraitType):
    """A value among those that a stored figure has; None where the figure has no such axis."""

    def __init__(self):
        super().__init__(default_value=None, allow_none=True)

    def validate(self, obj, value):
        values = obj.values_of(self.name)
        if value in values and not isinstance(value, bool):
            return values[values.index(value)]
        few = len(values) < 12
        wanted = ", ".join(map(repr, values)) if few else f"{len(values)} values from {values[0]} to {values[-1]}"
        raise traitlets.TraitError(f"{self.name} must be one of {wanted}, got {value!r}.")


class ReaderPanel(Live):
    """A reader of a stored figure: choose a cell; see each seed, their mean and spread, and what was published.

    `figure` names a stored result ("fig2", "fig2_mirrored", "differences", "fig3", "fig6", "fig4_left", "fig4_mirrored",
    "fig4_right", "minimal", or one of another preset, "fig2_quick"); `folder` is where it lies. `quantity` chooses the column; `variant`, `m`, `C0`, `d`, `eps` the cell, as
    far as the figure has such axes; `radius`, for a map over C0, whether it is drawn over "C0" or "V". An axis takes the values
    that the grid has beside those of the axes before it, in this order. Results: `values`, one a seed in the order of the seeds;
    their `mean` and `sd` (over seeds, n - 1); `published`, where it was read off the paper, and `difference` = mean - published.
    Raises ValueError for a figure that cannot be read, is not there or was altered.
    """

    panel = traitlets.Unicode("reader", read_only=True).tag(sync=True)
    RESULTS = ("values", "mean", "sd", "published", "difference")

    input = traitlets.Dict(read_only=True).tag(sync=True)  # what stored.py packs
    quantity = Chosen().tag(sync=True)
    radius = Chosen().tag(sync=True)
    variant = Chosen().tag(sync=True)
    m = Chosen().tag(sync=True)
    C0 = Chosen().tag(sync=True)
    d = Chosen().tag(sync=True)
    eps = Chosen().tag(sync=True)

    values = result(traitlets.List)
    mean = result(traitlets.Float)
    sd = result(traitlets.Float)
    published = result(traitlets.Float)
    difference = result(traitlets.Float)

    def __init__(self, figure, folder=stored.RESULTS, **state):
        self._packed = stored.pack(figure, folder)
        self.figure, self.about = figure, f"the reader of {self._packed['title']}"
        self.INPUTS = (*stored.choices(self._packed), *self._packed["axes"])
        known = {key: state[key] for key in self.INPUTS if key in state}
        for key, value in known.items():
            self.class_traits()[key].validate(self, value)
        super().__init__(**state | stored.settled(self._packed, known))
        for key, value in known.items():
            setattr(self, key, value)  # one that is not offered is refused, in the axes' order
        self.observe(self._settle, self.INPUTS)

    @traitlets.default("input")
    def _input(self):
        return self._packed

    def values_of(self, key):
        """Every value that the figure has of an input."""
        return stored.choices(self._packed).get(key) or self._packed["axes"].get(key, [])

    @traitlets.validate("m", "C0", "d", "eps")
    def _beside(self, proposal):
        """A value is offered beside the others; on a change of several at once this is asked of the last state."""
        key, value = proposal["trait"].name, proposal["value"]
        offered = stored.offered(self._packed, self.state, key)
        if value in offered:
            return value
        wanted = ", ".join(map(repr, offered))
        raise traitlets.TraitError(f"{key} must be one of {wanted} in this part of the grid, got {value!r}.")

    def _settle(self, change):
        """The axes after the one that changed follow it."""
        for key, value in stored.settled(self._packed, self.state).items():
            if getattr(self, key) != value:
                setattr(self, key, value)

    def __repr__(self):
        return super().__repr__().replace("(", f"({self.figure!r}, ", 1)
