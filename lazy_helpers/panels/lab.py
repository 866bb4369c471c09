"""The training panel: the package's own training in JupyterLab, with curves that grow and a button that stops it."""

from __future__ import annotations

import contextlib
import html
import multiprocessing
import threading

import ipywidgets as widgets
import torch

from ..cells import EPOCHS, Cell, RobustCell
from ..checks import check_choice, check_count, check_positive
from ..experiments import SQUARES
from ..network import TwoLayerNet
from .watch import State, stored, train

TRAINING = {"plain": "SGD until the weights leave the ball", "adversarial": "Algorithm 1, attacked with budget R"}
DATA = {"digits": "the embedded 8 x 8 digits", "mnist": "MNIST 0 and 1"}
SIZES = {"digits": (16, 25, 36, 49, 64), "mnist": SQUARES}  # d
WIDTHS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
RANGES = {"C0": (1.0, 40.0, 1.0), "R": (0.05, 1.0, 0.05)}  # from, to, step
SEEDS = 5  # at most: each has a colour
VARIANT = "theory"
NOTE = (
    "In JupyterLab this cell is a panel: choose data, d, m, C0, R and seeds, start the training, watch its curves grow "
    "and stop it. Without a kernel it shows its last state."
)


class TrainingPanel(widgets.VBox):
    """Trains networks with the package's core, on the GPU where there is one, in a process that Stop ends at once.

    ``training`` is "plain" (SGD up to the ball's edge) or "adversarial" (Algorithm 1 with budget R), ``data`` "digits" or
    "mnist"; R is also the budget of the attack in the curves. Seeds 0, 1, ... train one after the other. After an end or a
    stop there are ``curves`` (seed -> a row for each epoch: epoch, loss, C0 used, clean and attacked accuracy), ``nets`` (seed
    -> network, as last shown) and ``rows`` (seed -> what would be stored, of seeds that were not stopped). A kernel has one
    training at a time: a new panel ends the one before. Raises ``ValueError`` for a choice that is not offered.
    """

    _running: TrainingPanel | None = None

    def __init__(
        self,
        training: str = "plain",
        data: str = "digits",
        d: int | None = None,
        m: int = 1_000,
        C0: float = 10.0,
        R: float = 0.2,
        seeds: int = 1,
    ):
        check_choice("training", training, TRAINING), check_choice("data", data, DATA)
        d = SIZES[data][-1] if d is None else d
        for name, value, offered in (("d", d, SIZES[data]), ("m", m, WIDTHS)):
            if value not in offered:
                raise ValueError(f"{name} must be one of {offered}, got {value!r}: pass {name}={offered[2]}.")
        for name, value in (("C0", C0), ("R", R)):
            low, high, _ = RANGES[name]
            if not low <= check_positive(name, value) <= high:
                raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value!r}: pass {name}={high:g}.")
        if check_count("seeds", seeds) > SEEDS:
            raise ValueError(f"seeds must be at most {SEEDS}, got {seeds}: pass seeds={SEEDS}.")

        look = {"layout": widgets.Layout(width="auto"), "style": {"description_width": "4.5em"}}

        def slider(name: str, value: float, text: str) -> widgets.FloatSlider:
            low, high, step = RANGES[name]
            return widgets.FloatSlider(
                value, min=low, max=high, step=step, readout_format=text, description=name, **look
            )

        self.choices = {
            "training": widgets.Dropdown(options=tuple(TRAINING), value=training, description="training", **look),
            "data": widgets.Dropdown(options=tuple(DATA), value=data, description="data", **look),
            "d": widgets.Dropdown(options=SIZES[data], value=d, description="d", **look),
            "m": widgets.Dropdown(options=WIDTHS, value=m, description="m", **look),
            "C0": slider("C0", C0, ".0f"),
            "R": slider("R", R, ".2f"),
            "seeds": widgets.IntSlider(seeds, min=1, max=SEEDS, description="seeds", **look),
        }
        self.start_button = widgets.Button(description="Start", button_style="primary", icon="play")
        self.stop_button = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.progress = widgets.FloatProgress(0.0, min=0.0, max=1.0, layout=widgets.Layout(flex="1 1 auto"))
        self.status, self.figure, self.table = widgets.HTML("Not trained yet."), widgets.HTML(), widgets.HTML()
        self.choices["data"].observe(self._offer_sizes, "value")
        for choice in self.choices.values():
            choice.observe(lambda change: self._draw_table(), "value")
        self.start_button.on_click(lambda button: self.start())
        self.stop_button.on_click(lambda button: self.stop())
        columns = widgets.Layout(grid_template_columns="repeat(auto-fit, minmax(16em, 1fr))", grid_gap="2px 20px")
        buttons = widgets.HBox([self.start_button, self.stop_button, self.progress])
        grid = widgets.GridBox(list(self.choices.values()), layout=columns)
        super().__init__([grid, buttons, self.status, self.figure, self.table])

        self._asked, self._state = self.cells, State()
        self._process, self._thread, self._stopped = None, None, False
        self._end_other()
        self._draw_table()

    @property
    def cells(self) -> list[Cell]:
        """The cells that the choices name, one for each seed."""
        training, data, d, m, C0, R, seeds = (choice.value for choice in self.choices.values())
        kind, more = (RobustCell, {"eps": round(R, 2)}) if training == "adversarial" else (Cell, {})
        return [kind(m, seed, d, VARIANT, C0, data, **more) for seed in range(seeds)]

    @property
    def training(self) -> bool:
        """Whether a training runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def curves(self) -> dict[int, list[tuple[float, ...]]]:
        """What is drawn, by seed: an entry for each epoch that was shown."""
        return self._state.curves

    @property
    def rows(self) -> dict[int, dict]:
        """The cell that an experiment would store, by seed, of the runs that have ended."""
        return self._state.rows

    @property
    def nets(self) -> dict[int, TwoLayerNet]:
        """The trained networks by seed."""
        return {seed: TwoLayerNet(*map(torch.from_numpy, parts)) for seed, parts in self._state.weights.items()}

    def start(self) -> None:
        """Starts the training that is chosen, and returns."""
        self._end_other()
        self.stop()
        TrainingPanel._running = self
        self._asked, self._state, self._stopped = self.cells, State(), False
        self._lock(True)
        self.progress.value, self.progress.bar_style = 0.0, ""
        self._say("Starting a process ...")
        context = multiprocessing.get_context("spawn")
        ear, mouth = context.Pipe()
        job = (mouth, self._asked, self.choices["R"].value, torch.get_num_threads())
        self._process = context.Process(target=train, args=job, daemon=True)
        self._process.start()
        mouth.close()  # the process has its own end: when that closes, it is over
        self._thread = threading.Thread(target=self._listen, args=(ear,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the training at once, in mid-step; what was shown is kept."""
        if self.training:
            self._stopped = True
            self._process.kill()
            self._thread.join()

    def wait(self, timeout: float | None = None) -> None:
        """Returns when the training is over, or after ``timeout`` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _listen(self, ear) -> None:
        """The thread that shows what the process sends."""
        with contextlib.suppress(EOFError, OSError), ear:
            while True:
                self._state = ear.recv()
                self._draw()
        self._process.join()
        self._say(self._verdict())
        self.progress.bar_style = "success" if self._state.over else "warning"
        self._lock(False)

    def _end_other(self) -> None:
        if TrainingPanel._running not in (None, self):
            TrainingPanel._running.stop()

    def _verdict(self) -> str:
        state = self._state
        if state.over:
            return f"Done: {'seed 0' if len(state.rows) == 1 else f'seeds 0 to {max(state.rows)}'}."
        if state.error:
            return f"This training did not run: {state.error}"
        if not self._stopped:
            code = self._process.exitcode
            return f"The process ended by itself (exit code {code}), often for want of memory: choose a smaller m or d."
        at = (
            f"in epoch {state.now[0] + 1:.0f} of seed {max(state.curves)}" if state.curves else "before the first epoch"
        )
        return f"Stopped {at}: what is shown is kept; of a seed that is stopped nothing would be stored."

    def _draw(self) -> None:
        state = self._state
        if state.picture is not None:
            self.figure.value = state.picture._repr_mimebundle_()["text/html"]
        if state.curves:
            seed, cell = max(state.curves), self._asked[0]
            epoch, loss, used, clean, robust = state.now
            share = 1.0 if seed in state.rows else epoch / EPOCHS
            if not isinstance(cell, RobustCell):  # it ends at the ball's edge, or at the last epoch
                share = max(share, min(1.0, used / cell.C0))
            self.progress.value = (seed + share) / len(self._asked)
            self._say(
                f"Seed {seed}, epoch {epoch:.4g} of at most {EPOCHS}: loss {loss:.3g}, C0 used {used:.3g} of {cell.C0:g}, "
                f"accuracy {clean:.1%} clean and {robust:.1%} attacked. On {state.device}."
            )
        self._draw_table()

    def _draw_table(self) -> None:
        self.table.value = "".join(stored(cell, row) for cell, row in self._stored())

    def _stored(self) -> list[tuple[Cell, dict | None]]:
        """The cells, each with its row where it is measured."""
        known = {row["key"]: row for row in self._state.rows.values()}
        return [(cell, known.get(cell.key)) for cell in (self._asked if self.training else self.cells)]

    def _say(self, sentence: str) -> None:
        self.status.value = f'<div role="status" style="line-height:1.5">{html.escape(sentence)}</div>'

    def _lock(self, running: bool) -> None:
        for control in (*self.choices.values(), self.start_button):
            control.disabled = running
        self.stop_button.disabled = not running

    def _offer_sizes(self, change) -> None:
        sizes = SIZES[change["new"]]
        self.choices["d"].options = sizes
        self.choices["d"].value = sizes[-1]

    def __repr__(self) -> str:
        return f"TrainingPanel({', '.join(f'{name}={choice.value!r}' for name, choice in self.choices.items())})"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        """The widget, and for a page without a kernel its last state."""
        table = "".join(stored(cell, row, page=True) for cell, row in self._stored())
        page = f'<div class="lazy-training" style="font-size:.9em"><p><em>{NOTE}</em></p>{self.status.value}{self.figure.value}{table}</div>'
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": repr(self), "text/html": page}
