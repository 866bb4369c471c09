"""Sphinx hook: a page of the book asks no network for anything."""


def setup(app):
    # Copies MathJax beside the pages. Its SVG output is used, which needs no font files: some browsers refuse those to
    # a page opened from a folder.
    app.setup_extension("sphinx-mathjax-offline")
    app.config.mathjax_path = "mathjax/tex-svg.js"
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def drop_thebe(app, pagename, templatename, context, doctree):
    """Thebe runs cells on a remote server; Jupyter Book puts its scripts on every page, used or not."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body')}".lower()
    ]
