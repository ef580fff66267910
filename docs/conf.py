"""The documentation, built by Sphinx: `nox -s docs`, or `sphinx-build -W docs docs/_build/html`.

`-D plot_gallery=0` leaves out the gallery's runs, which are most of the time that a build takes.
"""

from __future__ import annotations

import gc
import inspect
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]  # sphinxext, and the conformance suite for its table

import ssm_core  # noqa: E402
from sphinxext import docstrings, generated, reference, signatures  # noqa: E402

project = "ssm_core"
author = copyright = "ssm_core contributors"
version = release = ssm_core.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxext.mathml",
]
exclude_patterns = ["_build", "_templates", "examples", "gallery", "sphinxext"]
nitpicky = False
suppress_warnings = ["config.cache"]

myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_block"]
myst_heading_anchors = 4

autosummary_generate = False  # reference.py writes the pages
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf: dict[str, Any] = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "image_srcset": ["2x"],
    "thumbnail_size": (400, 280),
    "abort_on_example_error": True,
    "reset_modules": ("sphinxext.gallery_style.reset",),
    "min_reported_time": 1e9,
    "write_computation_times": False,  # its page loads scripts of other sites
    "capture_repr": ("_repr_html_",),  # what a last line gives is shown where it is made for pages, such as sounds
    "parallel": True,  # in as many processes as sphinx-build -j says
    "doc_module": ("ssm_core",),
    "backreferences_dir": "api/backreferences",
}

html_theme = "pydata_sphinx_theme"
html_title = "ssm_core"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_js_files = ["access.js"]
html_search_scorer = str(DOCS / "sphinxext" / "scorer.js")
html_copy_source = False
html_show_sourcelink = False
templates_path = ["_templates"]
# In the reference a navigation of our own: the theme writes the whole tree of names into each page, a third of the time
# that pages take.
html_sidebars = {"index": [], "support": [], "api/**": ["sidebar-collapse.html", "reference-nav.html"]}
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 6,
    "show_nav_level": 1,
    "navigation_depth": 3,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if "DOCS_VERSION" in os.environ:  # of a published site, where versions lie side by side: see versions.py
    html_theme_options |= {
        "switcher": {"json_url": "../switcher.json", "version_match": os.environ["DOCS_VERSION"]},
        "check_switcher": False,  # it is written when all versions are there
        "show_version_warning_banner": True,
        "navbar_end": ["version-switcher", "theme-switcher"],
    }

# Where users find them, they are no modules: autodoc imports by this name.
sys.modules |= {name: reference.module_of(name) for name in reference.MODULES if name not in sys.modules}
reference.write(DOCS / "api")
generated.GENERATED["api"] = reference.toctree

# The frameworks hold half a million objects, and a build makes millions that live to its end: the collector looks at
# the first no more, seldom at the others, and at nothing when the build ends, which took seconds.
gc.freeze()
gc.set_threshold(100_000, 20, 50)


def fill_page(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = linked(generated.with_formulas(generated.filled(source[0])))


CLASS = re.compile(r"(?<![\[`])`([A-Z]\w+)`(?!\])")


def linked(text: str) -> str:
    """A page whose mentions of public functions and classes lead to their pages of the reference.

    In text they are written in full, in tables layers and other classes by their names alone.
    """
    names = reference.full_names()
    text = re.sub(r"^\|.*$", lambda row: CLASS.sub(lambda it: role(it[1], names) or it[0], row[0]), text, flags=re.M)
    text = re.sub(r"\[`([^`\]]+)`\]\(api\.md#\w+\)", lambda found: role(found[1], names) or found[1], text)
    return re.sub(r"(?<![\[`])`(ssm_core\.[\w.]+)`(?!\])", lambda found: role(found[1], names) or found[0], text)


def role(written: str, names: dict[str, str]) -> str | None:
    return f"{{py:obj}}`{written} <{names[written]}>`" if written in names else None


def convert_docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    text = "\n".join(lines).expandtabs()
    if "this module" in text:
        text += "\n\n" + (inspect.getdoc(inspect.getmodule(value)) or "")
    module = name.rpartition(".")[0] if what in ("function", "class", "exception") else name.rsplit(".", 2)[0]

    def link(written: str) -> str | None:
        own = f"{module}.{written}"
        full = reference.full_names()
        return next((found for found in (full.get(own), full.get(written)) if found not in (None, name)), None)

    lines[:] = docstrings.restructured(text, link)


def module_with_source(app: Sphinx, module: str, name: str) -> str | None:
    """Where the source of a class and of its members is; of a cached property's own module, functools, it is not."""
    return getattr(getattr(sys.modules[module], name.partition(".")[0], None), "__module__", None)


class English(SearchEnglish):
    """Stems are computed once a word, and not once a page and word."""

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        self.stem = cache(super().stem)


def fill_navigation(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if page.startswith("api/"):
        context["reference"] = reference.navigation(page)


def filled_pages(app: Sphinx, *changes: object) -> list[str]:
    """Pages with what is generated are read in every build: it follows the code, not the page."""
    folder = Path(app.srcdir)
    return [page.stem for page in folder.glob("*.md") if generated.MARKER.search(page.read_text(encoding="utf-8"))]


def keep_what_is_left(app: Sphinx, failure: Exception | None) -> None:
    gc.freeze()


def setup(app: Sphinx) -> None:
    app.connect("source-read", fill_page)
    app.connect("env-get-outdated", filled_pages)
    app.connect("autodoc-process-docstring", convert_docstring)
    app.connect("html-page-context", signatures.in_page)
    app.connect("html-page-context", fill_navigation)
    app.connect("viewcode-follow-imported", module_with_source)
    app.connect("build-finished", keep_what_is_left, priority=1000)
    app.add_search_language(English)
