"""A Sphinx extension: pages with a panel's marker carry the panels' script and style in themselves, others nothing."""

import hashlib

from . import bundle

MARKER = 'class="lazy-panel"'


def inline(app, pagename, templatename, context, doctree):
    """On `html-page-context`: from file://, only what stands in the page itself can be run."""
    body = context.get("body", "")
    if MARKER in body:
        context["body"] = (
            f'<style>\n{bundle.style()}</style>\n{body}\n<script type="module">\n{bundle.page_script()}</script>\n'
        )


def setup(app) -> dict:
    """Sphinx calls this: every page gets the panels' script and style once."""
    source = bundle.page_script() + bundle.style()
    # A value that Sphinx compares with that of the last build: pages are written anew when the panels change.
    app.add_config_value("lazy_panels_digest", hashlib.sha256(source.encode()).hexdigest(), "html", types=(str,))
    app.connect("html-page-context", inline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
