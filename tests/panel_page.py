"""What the tests of the live panels do with a page: `opened` and `panel_maths` in conftest.py make one."""

import json

import pytest

from lazy_helpers.panels import bundle


def page_with(*panels):
    """A page with these widgets' stored outputs, as a built page carries them."""
    markers = "\n".join(panel._repr_mimebundle_()[0]["text/html"] for panel in panels)
    return (
        f'<!doctype html><meta charset="utf-8"><style>{bundle.style()}</style>{markers}'
        f'<script type="module">{bundle.page_script()}</script>'
    )


def settle(page, panels):
    """Waits until so many panels show what their controls ask for."""
    page.wait_for_function(f"document.querySelectorAll('.lazy-panel[aria-busy=false]').length === {panels}")


def shown(page, name):
    """The numbers of a panel's table, by key, in full."""
    script = "(all) => Object.fromEntries(all.map((el) => [el.dataset.key, JSON.parse(el.dataset.value)]))"
    return page.locator(f"[data-panel={name}] .lp-number").evaluate_all(script)


def check_numbers(page, name, wanted):
    """A panel's table shows the package's numbers, all of them and no others."""
    found = shown(page, name)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key] == (None if value is None else pytest.approx(float(value), rel=1e-6, abs=1e-6)), key


def headline(page, name):
    return page.locator(f"[data-panel={name}] .lp-headline").text_content()


def overflowing(page):
    """What stands out of its panel, to the left or to the right."""
    return page.evaluate("""() => [...document.querySelectorAll(".lazy-panel")].flatMap((panel) => {
        const { left, right } = panel.getBoundingClientRect();
        const out = (box) => box.width && (box.right > right || box.left < left);
        return [...panel.querySelectorAll("*")].filter((el) => out(el.getBoundingClientRect())).map((el) => el.outerHTML);
    })""")


def least_contrasts(page):
    """{theme: the least contrast (WCAG 2) of a text with its panel's ground and the tints that lie under the pictures' text}."""
    script = """() => {
        const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const over = (top, below, alpha) => below.map((c, k) => alpha * top[k] + (1 - alpha) * c);
        const luminance = (colour) => {
            const linear = (c) => ((c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            const [r, g, b] = colour.map(linear);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        return Math.min(...[...document.querySelectorAll(".lazy-panel")].flatMap((panel) => {
            const ground = channels(getComputedStyle(panel).backgroundColor).slice(0, 3);
            const tints = [...panel.querySelectorAll(".lp-figure > svg :is(.void, .within)")].map((el) => {
                const { fill, fillOpacity } = getComputedStyle(el), colour = channels(fill);
                return over(colour, ground, Number(fillOpacity) * (colour[3] ?? 1));
            });
            const inks = [...panel.querySelectorAll("span, label, div")].map((el) => getComputedStyle(el).color)
                .concat([...panel.querySelectorAll("svg text")].map((el) => getComputedStyle(el).fill));
            const texts = [ground, ...tints].flatMap((below) => inks.map((ink) => ratio(luminance(channels(ink).slice(0, 3)), luminance(below))));
            const buttons = [...panel.querySelectorAll("button")].map((el) => getComputedStyle(el))
                .map(({ color, backgroundColor }) => ratio(luminance(channels(color)), luminance(channels(backgroundColor))));
            return [...texts, ...buttons];
        }));
    }"""
    found = {}
    for theme in ("light", "dark"):
        page.evaluate("(theme) => (document.documentElement.dataset.theme = theme)", theme)
        found[theme] = page.evaluate(script)
    return found


def widget_page(live, begin=""):
    """A page in which a widget's module meets a model of anywidget's kind, `model`; `begin` is run once it is there."""
    traits = {"panel": live.panel, **live.state} | ({"input": live.input} if live.has_trait("input") else {})
    model = """
        const traits = TRAITS;
        window.model = { get: (key) => traits[key], set: (key, value) => (traits[key] = value), on() {}, off() {}, save_changes() {}, traits };
        panel.render({ model, el: document.body });
    """.replace("TRAITS", json.dumps(traits))
    script = bundle.widget_module().replace("export default", "const panel =") + model + begin
    return f'<meta charset="utf-8"><body><script type="module">{script}</script>'


def answer_of(page, live, address):
    """What the panel's JavaScript tells the Python class, which takes it."""
    page.goto(address)
    page.wait_for_function("window.model?.traits._answer !== undefined")
    answer = page.evaluate("model.traits._answer")
    assert sorted(answer["results"]) == sorted(live.RESULTS)
    live.set_state({"_answer": answer})
    return answer["results"]
