"""Limits as a file: definitions, the tree of projects and limits as YAML (or TOML) that is reviewed and versioned.

:func:`parse` reads such a file, :func:`render` writes one, :func:`difference` says what separates it from a store, and
:func:`edits` are what brings the store there.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from delimiter.limits_file.comparing import Difference, difference, edits
from delimiter.limits_file.document import Document
from delimiter.limits_file.reading import parse
from delimiter.limits_file.writing import render
from delimiter.model import Overbooking

__all__ = ["Difference", "Document", "Overbooking", "difference", "edits", "parse", "render", "schema"]


def schema() -> dict[str, Any]:
    """The file's JSON schema (draft 2020-12), for editors that complete and check while one writes.

    >>> schema()["$schema"]
    'https://json-schema.org/draft/2020-12/schema'
    """
    text = (files("delimiter.limits_file") / "schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
