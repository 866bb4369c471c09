"""One script out of the panels' JavaScript modules, without Node: a page read from a file:// address imports nothing.

The modules share one function's scope, so their imports and exports fall away. The same function's source is what
a panel's Worker runs (a module Worker, too, is out of reach from a file).
"""

import re
from collections import Counter
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
MODULES = (
    "weights",
    "lazy",
    "view",
    "worker",
    "panel",
    "setting",
    "step",
    "lemmas",
    "draws",
    "value",
    "gradient",
    "flips",
    "projections",
    "difference",
    "theorem",
    "dynamics",
    "ball",
    "sphere",
    "scales",
    "training",
    "playground",
    "stored",
    "charts",
    "reader",
)  # each after those it imports

IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.mjs";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class)\b)", re.MULTILINE)
DECLARED = re.compile(r"^(?:function|const|let|class) (\w+)", re.MULTILINE)


def joined(modules=MODULES):
    """The modules' source with imports and exports taken out; a name declared twice is an error, as scopes merge."""
    source = "\n".join((FOLDER / f"{name}.mjs").read_text(encoding="utf-8") for name in modules)
    source = EXPORT.sub("", IMPORT.sub("", source))
    left = re.findall(r"^(?:import|export)\b.*", source, re.MULTILINE)
    twice = [name for name, count in Counter(DECLARED.findall(source)).items() if count > 1]
    if left or twice or "</script" in source:
        raise ValueError(f"The panels' modules cannot be joined: not understood {left}, declared twice {twice}.")
    return source


@cache
def _panels():
    return (
        f'function lazyPanels() {{\n"use strict";\n{joined()}\nreturn {{ serve, mount, render }};\n}}\n'
        "const source = `(${lazyPanels})().serve(self)`;\n"
    )


def page_script():
    """What a rendered page carries: it brings every marker of the page to life."""
    return _panels() + "lazyPanels().mount(source);\n"


def widget_module():
    """What a Jupyter widget carries, in the form that anywidget asks for."""
    return _panels() + "export default { render: (context) => lazyPanels().render(source, context) };\n"


def style() -> str:
    """The panels' style sheet."""
    return (FOLDER / "panel.css").read_text(encoding="utf-8")
