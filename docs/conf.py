"""Sphinx configuration: MyST pages; the reference comes from the docstrings of the installed package."""

from importlib.metadata import version as _version

project = "Delimiter"
author = "The Delimiter authors"
copyright = "2026, The Delimiter authors"
version = release = _version("delimiter")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["myst.strikethrough"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autoclass_content = "both"
python_use_unqualified_type_names = True
nitpicky = False

html_theme = "furo"
html_title = f"Delimiter {release}"
html_static_path: list[str] = []
