"""Fixtures: one headless Chromium for the whole run, pages that no network reaches, and MNIST.

The machine's own Chromium is used (`LAZY_HELPERS_CHROMIUM`, else the first one on the path). Where there is none, a
user's machine skips and says what to install; under `CI=true` the test fails, so that nothing goes unseen.
"""

import os
import shutil

import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Whatever slips past the page's own blocking finds no host: only this machine is known.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)


def _chromium_path():
    return os.environ.get("LAZY_HELPERS_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def missing(what):
    """Skips the test, or fails it under ``CI=true``."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium (playwright, sync API), shared by the whole session."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed: pip install playwright")
    path = _chromium_path()
    if path is None:
        missing("no Chromium found: install chromium (Debian: apt-get install chromium) or set LAZY_HELPERS_CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, headless=True, args=list(CHROMIUM_ARGS))
        yield chromium
        chromium.close()


@pytest.fixture
def offline_page(browser):
    """A new page in a context of its own that reaches files but no network.

    `page.network` lists every http, https and websocket address that was asked for (each is refused), and
    `page.errors` every console error and uncaught exception.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, service_workers="block")
    network, errors = [], []

    def refuse(route):
        network.append(route.request.url)
        route.abort()

    def refuse_socket(socket):
        network.append(socket.url)
        socket.close()

    context.route(lambda url: url.startswith(("http:", "https:")), refuse)
    context.route_web_socket(lambda url: True, refuse_socket)
    page = context.new_page()
    page.network, page.errors = network, errors
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()


@pytest.fixture
def panel_maths(offline_page, tmp_path):
    """`panel_maths("{ f, g }")` is a function that evaluates JavaScript in which these names of the panels are `lazy.f`, `lazy.g`."""
    from lazy_helpers.panels import bundle

    def evaluate_with(exposed):
        page = tmp_path / "maths.html"
        page.write_text(f"<script>{bundle.joined()}\nwindow.lazy = {exposed};</script>", encoding="utf-8")
        offline_page.goto(page.as_uri())
        return offline_page.evaluate

    return evaluate_with


@pytest.fixture
def opened(offline_page, tmp_path):
    """`opened(*panels, width=1280)` is a page with these widgets' stored outputs, once each has answered."""
    from panel_page import page_with, settle

    def open_page(*panels, width=1280):
        offline_page.set_viewport_size({"width": width, "height": 900})
        page = tmp_path / "page.html"
        page.write_text(page_with(*panels), encoding="utf-8")
        offline_page.goto(page.as_uri())
        settle(offline_page, len(panels))
        return offline_page

    return open_page


@pytest.fixture(scope="session")
def mnist():
    """The folder with MNIST's four files. Without them a user's machine skips; under `CI=true` the test fails."""
    from lazy_helpers.data import mnist_available, mnist_folder

    if not mnist_available():
        missing(
            f"MNIST is not in {mnist_folder()}: put its four .gz files into mnist/ of a folder and name that folder in "
            "LAZY_HELPERS_DATA, or let lazy_helpers.load_binary('mnist') download them"
        )
    return mnist_folder()
