"""What the training panel runs in a process of its own: a cell's measurement, watched epoch by epoch; and how it looks.

A process, because it can be ended in mid-step, leaves the notebook its own threads and matplotlib's settings, and gives
a GPU's memory back.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import math
import time

import torch
from matplotlib.lines import Line2D

from .. import plots
from ..attack import pgd
from ..cells import VARIANTS, Cell, RobustCell
from ..checks import device_named
from ..experiments import FIGURES
from ..lazy import LazyBall
from ..measurements import prepared
from ..runs import code_digest, module_hashes
from ..train import logistic_loss
from ..workers import attend, work

# Of the accuracies in the curves: an epoch is not to cost much more for being watched.
TEST_POINTS, ATTACK_STEPS = 200, 20
PAUSE, SHARE = 0.4, 2  # seconds between two pictures at least, and so many times what the last one took
RECORD = ("seconds", "device", "torch", "code")
PAIR = "display:flex;justify-content:space-between;gap:1em;break-inside:avoid"
LIST = "columns:17em auto;column-gap:2.5em;margin:.3em 0 .8em;font-variant-numeric:tabular-nums"


@dataclasses.dataclass(frozen=True)
class State:
    """What the panel shows: of each seed so far its curves, its weights and, once it has ended, its row."""

    device: str = ""
    # seed -> (epoch, loss, C0 used, clean accuracy, attacked accuracy) at the start and after each epoch
    curves: dict[int, list[tuple[float, ...]]] = dataclasses.field(default_factory=dict)
    rows: dict[int, dict] = dataclasses.field(default_factory=dict)  # seed -> what would be stored
    weights: dict[int, tuple] = dataclasses.field(default_factory=dict)  # seed -> (W, a) in numpy
    picture: plots.Picture | None = None
    error: str = ""
    over: bool = False

    @property
    def now(self) -> tuple[float, ...]:
        """The last row of the last seed's curves."""
        return self.curves[max(self.curves)][-1]


def train(mouth, cells: list[Cell], R: float, threads: int) -> None:
    """The process: sends a :class:`State` now and then, and a last one; ends with the pipe."""
    attend(mouth, threads)
    state = State()

    def send(**changes) -> None:
        nonlocal state
        state = dataclasses.replace(state, **changes)
        mouth.send(state)

    try:
        device = device_named("auto")
        send(device="the CPU" if device.type == "cpu" else torch.cuda.get_device_name(device))
        for cell in cells:
            figure = FIGURES["fig4_left" if isinstance(cell, RobustCell) else "fig2"]
            watch = Watch(cell, R, device, state, send)
            measure = functools.partial(figure.measure, on_epoch=watch)
            answer = work(measure, [cell], "", device.type, code_digest(figure), module_hashes(figure.modules))
            if answer.traceback:
                return send(error=answer.traceback.strip().splitlines()[-1].removeprefix("ValueError: "))
            state.rows[cell.seed] = json.loads(answer.rows[0])
            watch.show()
        send(over=True)
    except Exception as error:
        send(error=f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


class Watch:
    """Called after each epoch of a cell's training: measures, and at times sends what there is."""

    def __init__(self, cell: Cell, R: float, device: torch.device, state: State, send):
        self.net, data, test = prepared(cell, VARIANTS[cell.variant], device)
        some = slice(None, None, max(1, len(test.X) // TEST_POINTS))
        self.X, self.y = test.X[some], test.y[some]
        self.cell, self.R, self.state, self.send = cell, R, state, send
        self.ball = LazyBall(self.net.weights, cell.C0)
        self.due = 0.0
        self.rows = state.curves.setdefault(cell.seed, [])
        self.add(0.0, float(logistic_loss(self.net, data.X, data.y)))

    def __call__(self, now) -> None:
        if isinstance(now, dict):
            end = now[self.cell.C0]
            self.net = end.net
            self.add(float(end.epochs), float(end.train_loss))
        else:
            self.net = now.net
            self.rows[0] = (0.0, float(now.history.loss[0]), *self.rows[0][2:])
            self.add(float(now.epochs), float(now.history.loss[-1]))
        if time.monotonic() >= self.due:
            self.show()

    def add(self, epoch: float, loss: float) -> None:
        used = float(self.ball.distance(self.net.weights)) * math.sqrt(self.cell.m)
        delta = pgd(self.net, self.X, self.y, self.R, steps=ATTACK_STEPS)
        clean, robust = (float((self.y * self.net(X) > 0).double().mean()) for X in (self.X, self.X + delta))
        if self.rows and self.rows[-1][0] == epoch:  # it left in the first step after the epoch that was added last
            self.rows.pop()
        self.rows.append((epoch, loss, used, clean, robust))

    def show(self) -> None:
        start = time.monotonic()
        self.state.weights[self.cell.seed] = self.net.W.cpu().numpy(), self.net.a.cpu().numpy()
        self.send(picture=training_curves(self.state.curves, self.cell, self.R))
        self.due = time.monotonic() + max(PAUSE, SHARE * (time.monotonic() - start))


@plots.picture
def training_curves(curves: dict[int, list[tuple[float, ...]]], cell: Cell, R: float):
    """Loss, C0 used and accuracies against epochs; a colour for each seed."""
    attacked = isinstance(cell, RobustCell)
    figure, (losses, used, right) = plots.canvas(3, width=9.6, height=3.2)
    for rows, colour in zip(curves.values(), plots.COLOURS, strict=False):
        epoch, *columns = zip(*rows, strict=True)
        mark = "o" if len(rows) == 1 else ""
        for ax, values, dashes in zip((losses, used, right, right), columns, ((), (), (), (4, 1.5)), strict=True):
            ax.plot(epoch, values, marker=mark, color=colour, dashes=dashes)
    used.axhline(cell.C0, color=plots.INK, linewidth=1.2, dashes=(6, 2, 1, 2))
    losses.set_title("loss, attacked training images" if attacked else "loss, training images")
    used.set_title("$C_0$ used")
    right.set_title("accuracy, test images")
    for ax in (losses, used, right):
        ax.set_xlabel("epoch")
        ax.set_xlim(left=0)
    losses.set_ylim(bottom=0)
    used.set_ylim(0, 1.12 * max(cell.C0, *(row[2] for rows in curves.values() for row in rows)))
    right.set_ylim(-0.02, 1.02)

    def line(label, colour=plots.INK, dashes=()):
        return Line2D([], [], color=colour, dashes=dashes, label=label)

    seeds = [line(f"seed {seed}", colour) for seed, colour in zip(curves, plots.COLOURS, strict=False)]
    rest = [
        line("the ball's edge", dashes=(6, 2, 1, 2)),
        line("clean"),
        line(f"attacked, $R = {R:g}$", dashes=(4, 1.5)),
    ]
    figure.legend(handles=seeds + rest, loc="outside lower center", ncols=len(seeds + rest))
    ends = "; ".join(
        "seed {}, epoch {:.3g}: loss {:.3g}, C0 used {:.3g}, clean accuracy {:.3g}, attacked {:.3g}".format(
            seed, *rows[-1]
        )
        for seed, rows in curves.items()
    )
    return figure, f"Curves of {'adversarial' if attacked else 'plain'} training against epochs. {ends}."


def stored(cell: Cell, row: dict | None, page: bool = False) -> str:
    """HTML of the cell that would be stored: its key, its fields and, once it is measured, its numbers.

    A ``page`` shows what is the same on every machine.
    """
    values = {name: value for name, value in (row or dataclasses.asdict(cell)).items() if name != "key"}
    if page:
        values = {name: value for name, value in values.items() if name not in RECORD}
    digits = 3 if page else 6
    text = {name: f"{value:.{digits}g}" if isinstance(value, float) else f"{value}" for name, value in values.items()}
    pairs = "".join(
        f'<div style="{PAIR}"><span>{name}</span><span>{html.escape(value)}</span></div>'
        for name, value in text.items()
    )
    says = "would be stored with these numbers" if row else "would be stored when its training is over"
    return (
        f'<details style="line-height:1.5"{" open" if row or not cell.seed else ""}>'
        f'<summary><code>{cell.key}</code> {says}</summary><div style="{LIST}">{pairs}</div></details>'
    )
