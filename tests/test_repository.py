"""What a fresh checkout must hold: exact pins, commands that exist, small files, notebooks that were really run."""

import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
MIB = 2**20


def requirements():
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return [line for line in lines if line]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned_to_one_version():
    loose = [line for line in requirements() if not re.fullmatch(r"[\w.-]+==[\w.]+( *;.+)?", line)]
    assert not loose


def test_every_dependency_of_the_package_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [group for name, group in project["optional-dependencies"].items() if name != "bench"]  # has its own pins
    wanted = {canonical(re.match(r"[\w.-]+", d)[0]) for group in (project["dependencies"], *extras) for d in group}
    assert wanted <= {canonical(line.split("==")[0]) for line in requirements()}


def test_commands_named_in_the_readme_exist():
    named = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text()))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {"book", "test", "lab", "notebooks", "results"} <= named <= targets


def test_files_named_in_the_readme_exist():
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert linked and not [name for name in linked if not (ROOT / name).exists()]


def test_every_module_stands_in_the_readmes_table_and_no_other():
    table = re.findall(r"^\| (`[^|]+) \|", (ROOT / "README.md").read_text(), flags=re.M)
    named = [name.removeprefix("lazy_helpers/") for row in table for name in re.findall(r"`([^`]+\.py)`", row)]
    modules = {path.name for path in (ROOT / "lazy_helpers").glob("*.py")} - {"__init__.py"}
    of_others = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert not [name for name in modules if not any(Path(name).match(pattern) for pattern in named)]
    assert not [pattern for pattern in set(named) - of_others if not any(Path(name).match(pattern) for name in modules)]


def test_the_readmes_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    run = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("tensor(0.2"), run.stdout + run.stderr


def test_code_is_clean():
    run = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "."],
                         cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_code_that_a_page_only_shows_names_nothing_undefined():
    """Hardly any of these snippets is ever executed; a page's cells come before them."""
    fence = re.compile(r"^( *)```python\n(.*?)^\1```", flags=re.M | re.S)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--output-format=concise"]
    seen, undefined = set(), {}
    for path in NOTEBOOKS:
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]
        shown = [textwrap.dedent(code) for kind, text in cells if kind == "markdown" for _, code in fence.findall(text)]
        if shown:
            page = "\n".join([text for kind, text in cells if kind == "code"] + shown)
            select = ["--select=F821", '--config=builtins = ["display"]', "-"]
            run = subprocess.run([*ruff, *select], input=page, capture_output=True, text=True)
            seen.add(path.stem)
            if run.returncode:
                undefined[path.stem] = run.stdout + run.stderr
    assert not undefined and "scale" in seen, undefined


def test_no_large_file_is_tracked():
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("not a git checkout")
    files = (ROOT / name for name in run.stdout.split("\0") if name)
    assert not [str(path) for path in files if path.exists() and path.stat().st_size > MIB]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_holds_the_outputs_of_one_run(path):
    notebook = json.loads(path.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebooks`"
    assert outputs, "a notebook without outputs is a page: make it a .md file"
    assert not [output for output in outputs if output["output_type"] in ("error",) or output.get("name") == "stderr"]
    text = json.dumps(outputs)
    assert not re.findall(r"(?:/home/|/root/|/tmp/|/Users/|[A-Z]:\\\\|\.venv)[\w./-]*", text), "a path of one machine"
    assert "application/vnd.jupyter.widget-view+json" not in text, "run `make notebooks`: it drops dead widget models"
