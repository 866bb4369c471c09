"""The README's picture: the book's first page, as Chromium shows it. `make picture` after a change of that page."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def take(page_file: Path, picture: Path) -> None:
    """The top of a built page, from its title to the end of its first panel."""
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        sys.exit("No Chromium on the path: install it (Debian, Ubuntu: apt install chromium).")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1180, "height": 2400}, device_scale_factor=1.25)
        page.goto(page_file.as_uri())
        page.locator(".lazy-panel[aria-busy=false]").first.wait_for()
        page.evaluate("MathJax.startup.promise")
        box = page.locator(".lazy-panel").first.bounding_box()
        clip = {"x": 0, "y": 0, "width": 1180, "height": box["y"] + box["height"] + 20}
        page.screenshot(path=picture, clip=clip)
        browser.close()


if __name__ == "__main__":
    take(ROOT / "_build" / "html" / "book" / "intro.html", ROOT / "book" / "figures" / "overview.png")
