"""Settings of the documentation; build it as docs/README.md says."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import dap  # noqa: E402 - from the checkout that these pages describe

project = "DAP"
author = "DAP contributors"
copyright = author
version = release = dap.__version__

extensions = [
    "myst_nb",
    "repository_pages",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "README.md"]
html_theme = "furo"
html_title = "DAP"
html_static_path = ["_static"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # tests/test_notebooks.py runs them
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_use_ivar = True
copybutton_exclude = ".linenos, .gp"
