"""How long a reader waits for the live panels: every control, timed in a headless Chromium, from no built book.

Each panel is opened alone in a page that is written here from its stored output and the panels' script and style, as a
page of the book carries them. What the columns of the table mean:

control     what was moved. "open" is the page itself, opened anew: its Worker starts and makes the first draw at that
            size (the browser itself is warm: one opening goes before). "seed" is the button "New draw": new weights
            at that size, every time. The others are warmed up, so that no weights are drawn: "d" and "m" go to the
            next stop and back, "C0", "R" and "gamma" go through their range, "weights" through its options.
d, m        the size of the network; no d where it plays no part.
median_ms   from the input event (for "open", from where the page's panel begins) to the second animation frame after
worst_ms    the page shows the new numbers: the first is the frame that shows them, and by the second it is painted.
            Most of a small number is this waiting: at 60 frames a second a move that takes no time at all needs 10
            to 33 ms, and longer times come in steps of a frame.
blocked_ms  the longest time, over all these moves, for which the page itself did not answer: the longest gap between
            two beats of a timer of 4 ms that runs in the page. About 5 is a page that nothing holds up. Where it is
            far below worst_ms, the wait was the Worker's, and the page could be scrolled and read meanwhile.
moves       how many moves were timed.

In the step panel a size that the weights drawn so far do not cover costs a new draw, as "seed" does: the first way up
of "d" or "m", for instance.
"""

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lazy_helpers.panels import (
    DifferencePanel,
    FlipsPanel,
    GradientPanel,
    SettingPanel,
    StepPanel,
    TheoremPanel,
    ValuePanel,
    bundle,
)

MOVES = 9
WARM_UP = 3  # with MOVES a multiple of the three options for the weights and of gamma's six: every control ends where it began
OPENINGS = 3
FRAME_MS = 1000 / 60
D = (25, float("inf"))
M = (1_000, 10_000, float("inf"))  # these and D: each stands for the slider's nearest stop
PANELS = {  # the step panel also with the weights that cost the most: two draws, and two matrices to multiply with
    "setting": SettingPanel,
    "step": StepPanel,
    "step, random W": partial(StepPanel, weights="random"),
    "value": ValuePanel,
    "gradient": GradientPanel,
    "flips": FlipsPanel,
    "difference": DifferencePanel,
    "theorem, every W": partial(TheoremPanel, lens="ball"),
}
COLUMNS = ("panel", "control", "d", "m", "median_ms", "worst_ms", "blocked_ms", "moves")

# As tests/conftest.py finds and starts it, which imports pytest and so is not imported here.
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)

PROBE = """
const began = performance.now();
const beats = [began];
setInterval(() => beats.push(performance.now()), 4);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const frame = () => new Promise(requestAnimationFrame);

// The panel says itself, in the same task that changes its text, whether what it shows answers its controls.
const answered = () => new Promise((resolve, reject) => {
    const current = () => document.querySelector(".lazy-panel[aria-busy=false] .lp-number[data-value]");
    const observer = new MutationObserver(() => current() && (observer.disconnect(), resolve()));
    observer.observe(document, { subtree: true, attributeFilter: ["aria-busy"] });
    if (current()) observer.disconnect(), resolve();
    setTimeout(() => reject(new Error("The panel has not answered within 30 s.")), 30000);
});

const timed = async (start) => {
    await answered();
    await frame();
    await frame();
    const end = performance.now();
    await pause(6);  // for the beat that ends the last gap
    const gaps = beats.slice(1).map((beat, k) => (beat > start && beats[k] < end ? beat - beats[k] : 0));
    return { ms: end - start, blocked: Math.max(...gaps) };
};

const opened = timed(began);

const act = ({ control, to }) => {
    if (control === null) return document.querySelector(".lp-buttons button").click();  // New draw
    const inputs = document.querySelectorAll(".lp-controls > *")[control].querySelectorAll("input");
    if (inputs.length > 1) return inputs[to].click();  // a choice
    inputs[0].value = to;
    inputs[0].dispatchEvent(new Event("input", { bubbles: true }));
};

const move = async (step) => {
    const words = () => document.querySelector(".lazy-panel").innerText;
    const before = words();
    await pause(step.wait);
    beats.splice(0, beats.length - 1);
    const start = performance.now();
    act(step);
    const timing = await timed(start);
    if (words() === before) throw new Error(`Nothing moved: ${JSON.stringify(step)}`);
    return timing;
};
"""


def rows() -> list[dict]:
    """One row a panel, size and control, with the keys COLUMNS; ValueError where there is no browser."""
    with browser() as chromium, tempfile.TemporaryDirectory() as folder:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        offered = controls(page, Path(folder))
        found = []
        for name, widget in PANELS.items():
            own = offered[name.split(",")[0]]
            for size in sizes(own):
                timings = measure(page, Path(folder), widget(**size), own)
                found += [row(name, control, size.get("d", ""), size["m"], times) for control, times in timings.items()]
        return found


@contextmanager
def browser() -> Iterator:
    """A headless Chromium; what is missing is said in one sentence with its remedy."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise ValueError("The panels are timed in a browser that playwright drives: pip install playwright.") from None
    path = os.environ.get("LAZY_HELPERS_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        raise ValueError(
            "The panels are timed in Chromium, and none was found: install it (Debian: apt-get install chromium) "
            "or set LAZY_HELPERS_CHROMIUM."
        )
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=path, headless=True, args=list(CHROMIUM_ARGS))
        except Error:
            raise ValueError(f"{path} does not start: set LAZY_HELPERS_CHROMIUM to a Chromium that does.") from None
        yield chromium
        chromium.close()


def controls(page, folder: Path) -> dict[str, dict]:
    """What each panel offers, from its own module: a list of stops for a slider, of names for a choice."""
    script = f"{bundle.joined()}\nwindow.panels = PANELS;"
    page.goto(write(folder, f"<script>{script}</script>"))
    offered = page.evaluate(
        "() => Object.fromEntries(Object.entries(panels).map(([name, { controls }]) => [name, controls]))"
    )
    return {
        name: {key: spec.get("values") or list(spec["options"]) for key, spec in own.items()}
        for name, own in offered.items()
    }


def sizes(offered: dict[str, list]) -> list[dict[str, int]]:
    """The sizes d, if the panel has one, and m to measure at: the stops nearest to D and M."""
    widths = [{"m": m} for m in nearest(offered["m"], M)]
    return [{"d": d} | width for d in nearest(offered["d"], D) for width in widths] if "d" in offered else widths


def nearest(stops: list, wanted: tuple) -> list:
    """The stops nearest to those wanted, each once; infinity is the last."""
    return sorted({min(stops, key=lambda stop: abs(stop - min(w, stops[-1]))) for w in wanted})


def measure(page, folder: Path, widget, offered: dict[str, list]) -> dict[str, list[dict]]:
    """Every control's timings at the size of ``widget``, in the page that was opened last; "open" comes first."""
    address = write(folder, panel_page(widget))
    found = {"open": [opened(page, address) for _ in range(1 + OPENINGS)][1:]}
    for position, (key, stops) in enumerate(offered.items()):
        found[key] = moved(page, [(position, place) for place in path(key, stops, widget.state[key])])
    found["seed"] = moved(page, [(None, None)] * (WARM_UP + MOVES))
    return found


def panel_page(widget) -> str:
    """A page with this panel alone, from the widget's stored output: what the book's pages are made of."""
    marker = widget._repr_mimebundle_()[0]["text/html"]
    return (
        f'<!doctype html>\n<meta charset="utf-8">\n<style>{bundle.style()}</style>\n<script>{PROBE}</script>\n'
        f'{marker}\n<script type="module">{bundle.page_script()}</script>\n'
    )


def write(folder: Path, page: str) -> str:
    """The address of a file with this page: a Worker starts from a file, not from a page without an address."""
    file = folder / "panels.html"
    file.write_text(page, encoding="utf-8")
    return file.as_uri()


def opened(page, address: str) -> dict:
    """The timing of a page's first draw."""
    page.goto(address)
    return page.evaluate("() => opened")


def path(key: str, stops: list, start) -> list[int]:
    """The positions among ``stops`` that a control moves to, the warm-up's first, the last one where it started."""
    count, at = WARM_UP + MOVES, stops.index(start)
    if key in ("d", "m"):  # near the size that the row is about, and never to new weights twice
        beside = at + 1 if at + 1 < len(stops) else at - 1
        return [beside, at] * (count // 2)
    if len(stops) < count:  # a choice, or a slider of few stops
        return [(at + k) % len(stops) for k in range(1, count + 1)]
    return [round(k * (len(stops) - 1) / (count - 2)) for k in range(count - 1)] + [at]


def moved(page, moves: list[tuple]) -> list[dict]:
    """The timings of moves (control's position, where to) but the warm-up's, begun at all phases of a frame alike."""
    steps = [
        {"control": control, "to": to, "wait": 4 + FRAME_MS * k / len(moves)} for k, (control, to) in enumerate(moves)
    ]
    return [page.evaluate("move", step) for step in steps][WARM_UP:]


def row(panel: str, control: str, d: int | str, m: int, timings: list[dict]) -> dict:
    times = [timing["ms"] for timing in timings]
    return {
        "panel": panel,
        "control": control,
        "d": d,
        "m": m,
        "median_ms": round(statistics.median(times), 1),
        "worst_ms": round(max(times), 1),
        "blocked_ms": round(max(timing["blocked"] for timing in timings), 1),
        "moves": len(times),
    }


def table(found: list[dict]) -> str:
    """The rows under their names, words to the left and numbers to the right."""
    lines = [COLUMNS, *(tuple(str(r[key]) for key in COLUMNS) for r in found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cell = lambda k, word: word.ljust(widths[k]) if k < 2 else word.rjust(widths[k])  # noqa: E731
    return "\n".join("  ".join(cell(k, word) for k, word in enumerate(line)) for line in lines)


if __name__ == "__main__":
    try:
        print(table(rows()))
    except ValueError as error:
        sys.exit(str(error))
