"""Sphinx configuration: MyST pages; the reference comes from the docstrings of the installed package."""

import sys
from importlib.metadata import version as _version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from capability_table import capability_table

project = "Delimiter"
author = "The Delimiter authors"
copyright = "2026, The Delimiter authors"
version = release = _version("delimiter")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "benchmark-figures.md"]  # that one is included
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline", "substitution"]
myst_substitutions = {"capabilities": capability_table()}
myst_heading_anchors = 3
suppress_warnings = ["myst.strikethrough"]

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autoclass_content = "both"
python_use_unqualified_type_names = True
nitpicky = False

html_theme = "furo"
html_title = f"Delimiter {release}"
html_static_path: list[str] = []
