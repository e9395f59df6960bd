"""Limits and projects from elsewhere: what :class:`delimiter.Delimiter` takes as ``limits=`` and ``projects=``.

:class:`FileSource` reads them from a file that is watched; :func:`cached` bounds how often any source is asked, and how
old an answer may be.
"""

from __future__ import annotations

from delimiter.sources.caching import Cached, CachedState, cached
from delimiter.sources.file import FileSource

__all__ = ["Cached", "CachedState", "FileSource", "cached"]
