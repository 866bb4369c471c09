"""The book as a reader gets it: a strict build, then every page in Chromium, from its folder, with no network.

Each page is opened in the light and the dark theme: no error on the console, nothing asked of the network, every
formula drawn, every picture there, every text of enough contrast, nothing wider than a phone. Each live panel answers
the keyboard, and shows the numbers that the package computes.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlencode, urlsplit

import panel_numbers
import pytest
import theorem_numbers
import torch
import yaml
from bs4 import BeautifulSoup
from panel_page import shown
from test_playground import assert_same, in_the_panels_order, points, trained  # noqa: F401  (the order is a fixture)

import lazy_helpers as lh
from lazy_helpers.panels import ball_member, draw

ROOT = Path(__file__).resolve().parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
CHAPTERS = [TOC["root"], *(chapter["file"] for chapter in TOC["chapters"])]
PAGES = [*CHAPTERS, "genindex", "search"]
THEMES = ("light", "dark")

FORMULAS = r"""async () => {
  if (window.MathJax) await MathJax.startup.promise;
  const main = document.querySelector("main");
  const undrawn = [...main.querySelectorAll("span.math, div.math")].filter(e => !e.querySelector("mjx-container"));
  const broken = main.querySelectorAll('[data-mml-node="merror"], mjx-container [fill="red"], mjx-merror');
  const texts = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
  const raw = [];
  while (texts.nextNode()) {
    const node = texts.currentNode;
    const tex = /\\\(|\\\[|\$\$|\$[^$]+\$|\\[a-zA-Z]{2,}/.test(node.data);
    if (tex && !node.parentElement.closest("pre, code, script, style")) raw.push(node.data.trim());
  }
  return {
    drawn: main.querySelectorAll("mjx-container").length,
    undrawn: undrawn.map(e => e.textContent), broken: [...broken].map(e => e.outerHTML.slice(0, 200)), raw,
  };
}"""

PICTURES = """() => [...document.images].map(image => ({
  source: image.src.slice(-120), alt: image.alt.trim(), width: image.naturalWidth,
}))"""

# Every text of the main part whose contrast with what lies under it is below WCAG's AA: 4.5, or 3 where it is large.
CONTRAST = """() => {
  const channels = colour => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const over = (top, below) => { const a = top[3] ?? 1; return below.map((c, i) => a * top[i] + (1 - a) * c); };
  const background = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(channels(getComputedStyle(e).backgroundColor));
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255]);
  };
  const luminance = rgb => rgb.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const poor = [];
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, style = getComputedStyle(element);
    if (!texts.currentNode.data.trim() || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })
        || element.closest("svg, mjx-container, script, style, .headerlink, .copybtn, :disabled")) continue;
    const below = background(element), [a, b] = [luminance(over(channels(style.color), below)), luminance(below)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    if (ratio < (large ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)}: ${texts.currentNode.data.trim().slice(0, 60)}`);
  }
  return poor;
}"""


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The folder of the pages, built with warnings as errors."""
    out = tmp_path_factory.mktemp("book")
    build = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", out]
    run = subprocess.run([*build, "--all", "-W", "-n", "--keep-going"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr or run.stdout
    return out / "_build" / "html"


def written(html):
    """Every page, the theme's own templates left out."""
    return [path for path in html.glob("**/*.html") if "_static" not in path.parts]


def open_page(page, html, name, theme="light", query=""):
    page.emulate_media(color_scheme=theme)
    page.goto((html / f"{name}.html").as_uri() + query)
    assert page.evaluate("document.documentElement.dataset.theme") == theme


@pytest.mark.browser
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", PAGES)
def test_page(html, offline_page, name, theme):
    page = offline_page
    open_page(page, html, name, theme)
    formulas = page.evaluate(FORMULAS)
    assert (formulas["undrawn"], formulas["broken"], formulas["raw"]) == ([], [], [])
    source = (html / f"{name}.html").read_text()
    assert bool(formulas["drawn"]) == ('class="math notranslate' in source)

    pictures = page.evaluate(PICTURES)
    assert not [picture for picture in pictures if not picture["width"] or not picture["alt"]]

    page.evaluate("document.querySelectorAll('details').forEach(box => box.open = true)")
    assert not page.evaluate(CONTRAST)

    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    assert page.network == []
    assert page.errors == []


@pytest.mark.browser
def test_theme_button_works_offline(html, offline_page):
    page = offline_page
    open_page(page, html, CHAPTERS[0])
    seen = set()
    for _ in range(3):
        page.locator(".theme-switch-button:visible").click()
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
    assert seen == set(THEMES)


@pytest.mark.browser
def test_search_works_offline(html, offline_page):
    page = offline_page
    page.goto((html / "search.html").as_uri() + "?q=network")
    page.locator("#search-results li a").first.wait_for()
    assert page.network == []
    # A page opened from a folder may not fetch the pages that it found, to excerpt them: the list is there without.
    fetching = ("from origin 'null' has been blocked by CORS", "net::ERR_FAILED", "Failed to fetch")
    assert [error for error in page.errors if not any(known in error for known in fetching)] == []


@pytest.mark.browser
def test_first_page_leads_to_the_book(html, offline_page):
    offline_page.goto((html / "index.html").as_uri())
    offline_page.wait_for_url(f"**/{CHAPTERS[0]}.html")


def test_links_inside_the_book_lead_somewhere(html):
    pages = {path: BeautifulSoup(path.read_text(), "html.parser") for path in written(html)}
    anchors = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in pages.items()}
    dead = []
    for path, soup in pages.items():
        for tag in soup.find_all(href=True):
            link, anchor = urldefrag(tag["href"])
            if urlsplit(link).scheme:
                continue
            target = (path.parent / unquote(urlsplit(link).path)).resolve() if link else path
            if not target.is_file() or anchor and target in anchors and unquote(anchor) not in anchors[target]:
                dead.append(f"{path.name}: {tag['href']}")
    assert not dead


def test_pages_load_nothing_from_elsewhere(html):
    """What the browser cannot show, a script that asks the network only on a click, is looked for in the source."""
    loading = re.compile(
        r"""(?:src|data-src|poster)\s*=\s*["']https?://|<link[^>]+href=["']https?://|unpkg|jsdelivr|cdnjs"""
    )
    found = {path.name: loading.findall(path.read_text()) for path in written(html)}
    assert not {name: hits for name, hits in found.items() if hits}


# What a reader sees of a panel, once it has answered: its sentence and its numbers in full.
READING = """panel => panel.getAttribute("aria-busy") === "false" && JSON.stringify([
  panel.querySelector(".lp-headline").innerText,
  ...[...panel.querySelectorAll("[data-value]")].map(number => number.dataset.value),
])"""

# States of each panel away from where the pages open it.
STATES = {
    "setting": (
        {"d": 100, "m": 1000, "C0": 5, "seed": 1},
        {"d": 784, "m": 4000, "C0": 20, "seed": 2},
    ),
    "step": (
        {"d": 100, "m": 1000, "C0": 5, "R": 0.2, "weights": "random", "seed": 1},
        {"d": 784, "m": 4000, "C0": 10, "R": 0.1, "weights": "margin", "seed": 2},
    ),
    "value": (
        {"m": 500, "C0": 5, "gamma": 0.01, "seed": 1},
        {"m": 100_000, "C0": 20, "gamma": 0.5, "seed": 2},
    ),
    "flips": (
        {"m": 500, "C0": 30, "gamma": 0.01, "seed": 1},
        {"m": 1_000_000, "C0": 5, "gamma": 0.5, "seed": 2},
    ),
    "gradient": (
        {"d": 100, "m": 10_000, "C0": 5, "gamma": 0.01, "seed": 1},
        {"d": 20_000, "m": 1_000_000, "C0": 3, "gamma": 0.5, "seed": 2},
    ),
    "difference": (
        {"d": 100, "m": 1000, "C0": 5, "R": 0.2, "delta": "gradient", "seed": 1},
        {"d": 20_000, "m": 100_000, "C0": 3, "R": 0.03, "delta": "random", "seed": 2},
    ),
    "theorem": (
        {"d": 400, "m": 2000, "C0": 1, "R": 0.2, "lens": "ball", "seed": 1},
        {"d": 20_000, "m": 100_000, "C0": 3, "R": 0.03, "lens": "paper", "seed": 2},
    ),
}


def by_package(panel, state):
    """A panel's numbers, from the package; None where it shows a dash."""
    if panel in ("difference", "theorem"):
        return theorem_numbers.numbers(panel, **state)
    if "gamma" in state:
        return panel_numbers.numbers(panel, **{"d": None} | state)
    return of_drawn_weights(panel, **state)


def of_drawn_weights(panel, d, m, C0, seed, R=None, weights="initial"):
    W0, a, x = draw(d, m, seed)
    W = torch.from_numpy(ball_member(W0, a, x, C0, weights, seed))
    net, x = lh.TwoLayerNet(W, torch.from_numpy(a).double()), torch.from_numpy(x).double()[None]
    V = lh.LazyBall(W, C0).radius
    if panel == "setting":
        highest, lowest = (net.replace(W=W + sign * V * net.a[:, None] * x) for sign in (1, -1))
        flips = int(((W @ x[0]).abs() <= V).sum())
        return {"f": net(x), "f_max": highest(x), "f_min": lowest(x), "flips": flips, "V": V}
    flip = lh.smallest_flip(net, x)
    tangent = flip.value.abs() / flip.grad_norm**2
    numbers = {"f": flip.value, "grad_norm": flip.grad_norm, "eta": flip.eta, "delta_norm": flip.norm}
    return numbers | {"eta_tangent": tangent}


def panels_of(html, name):
    return set(re.findall(r'class="lazy-panel" data-panel="(\w+)"', (html / f"{name}.html").read_text()))


def open_panels(page, html, name, which, theme="light"):
    """A page with its panels in one of their STATES, by the page's address."""
    states = {f"{panel}.{key}": value for panel in STATES for key, value in STATES[panel][which].items()}
    open_page(page, html, name, theme, "?" + urlencode(states))


@pytest.mark.browser
@pytest.mark.parametrize("theme", THEMES)
def test_panels_answer_the_keyboard(html, offline_page, theme):
    page = offline_page
    for name in filter(lambda name: panels_of(html, name), CHAPTERS):
        open_panels(page, html, name, 0, theme)
        for panel in page.locator(".lazy-panel").all():
            if panel.get_attribute("data-panel") not in STATES:
                continue  # the reader and the playground: test_reader_panel.py, test_playground.py
            for control in panel.locator("input[type=range], input:checked").all():
                before = page.wait_for_function(READING, arg=panel.element_handle()).json_value()
                control.press("ArrowRight")
                changed = f"([panel, before]) => {{ const now = ({READING})(panel); return now && now !== before; }}"
                page.wait_for_function(changed, arg=[panel.element_handle(), before], timeout=10_000)
    assert page.network == [] and page.errors == []


@pytest.mark.browser
@pytest.mark.parametrize("which", (0, 1))
def test_panels_show_the_packages_numbers(html, offline_page, which):
    compared = set()
    for name in CHAPTERS:
        for kind in panels_of(html, name) & set(STATES):
            open_panels(offline_page, html, name, which)
            panel = offline_page.locator(f'.lazy-panel[data-panel="{kind}"]').first
            offline_page.wait_for_function(READING, arg=panel.element_handle())
            for key, value in by_package(kind, STATES[kind][which]).items():
                shown = panel.locator(f'[data-key="{key}"]').get_attribute("data-value")
                if value is None:
                    assert shown == "null", (name, kind, key)
                else:
                    assert float(shown) == pytest.approx(float(value), rel=1e-6, abs=1e-6), (name, kind, key)
            compared.add(kind)
    assert compared == set(STATES)


@pytest.mark.browser
def test_the_playground_trains_and_is_attacked_in_the_book(html, offline_page, in_the_panels_order):  # noqa: F811
    """As the page opens it: a press on Train, a whole run, and the attack on the image that is shown."""
    page = offline_page
    open_page(page, html, "book/adversarial")
    assert page.url.startswith("file:///")
    panel = page.locator('.lazy-panel[data-panel="playground"]')
    page.wait_for_function(READING, arg=panel.element_handle())
    before, state = shown(page, "playground"), json.loads(panel.get_attribute("data-state"))
    panel.get_by_role("button", name="Train", exact=True).click()
    panel.get_by_role("button", name="Train again", exact=True).wait_for()
    after = shown(page, "playground")

    net, numbers, delta, _ = trained(state, 200, in_the_panels_order)
    x = points(state["d"], "test")[0][state["image"] - 1]
    f, attacked = net(torch.stack([x, x + delta[state["image"] - 1]])).tolist()
    del numbers["epochs"], numbers["left"]  # which the sentence tells
    assert before["steps"] == 0 and after["steps"] > 8 and after["clean"] > before["clean"]
    assert_same(after, numbers | dict(f=f, attacked=attacked), 1e-6)
    assert panel.locator(".lp-headline").inner_text().startswith(f"Left the ball at step {after['steps'] + 1}: ")

    # The attack is drawn: what it adds and takes, and where the answer becomes wrong.
    assert f * attacked < 0 and panel.locator(".more, .less").count() > 10
    turned = re.compile("^f during the attack on this image.*; its sign changes at step [1-9]")
    assert panel.get_by_label(turned).is_visible()
    assert page.network == [] and page.errors == []
