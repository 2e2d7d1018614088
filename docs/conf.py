"""How the pages of this folder become a site: `make docs`."""

import re

from sphinx.application import Sphinx

import rebind

project = "rebind"
author = copyright = "The rebind developers"  # noqa: A001 - the name that Sphinx asks for
release = rebind.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
templates_path: list[str] = []

# Links to a page's headings are those that GitHub makes.
myst_heading_anchors = 3
myst_fence_as_directive: set[str] = set()

# A block that names no language is a picture or what was printed.
highlight_language = "text"

# Docstrings are Google's, and put names into single backticks: a link where the name is on a page.
default_role = "py:obj"
add_module_names = False
autoclass_content = "class"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "rebind"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"source_repository": ""}
html_static_path = ["style.css"]
html_css_files = ["style.css"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def add_contents(_app: Sphinx, page: str, text: list[str]) -> None:
    """Make the list of pages for the side of the site from the tables of `README.md`."""
    if page != root_doc:
        return
    for section in text[0].split("\n## ")[1:]:
        pages = re.findall(r"^\| \[[^]]*\]\(([\w/-]+)\.md\)", section, re.MULTILINE)
        title = section.partition("\n")[0]
        text[0] += "\n".join(["\n\n```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```"])


def setup(app: Sphinx) -> None:
    """Enter what is ours."""
    app.connect("source-read", add_contents)
