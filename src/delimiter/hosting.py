"""What a service that embeds Delimiter in its own database puts into its own set-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

__all__ = ["leave_out"]

#: The part of the tables' names after the prefix, and the names of everything else that could be reflected.
_TABLES: Final = (
    *("resources", "limits", "counters", "claims", "allocations", "version"),
    *("projects", "ancestors", "tree", "events", "numbering", "adoptions", "upgrading"),
)

_IncludeName: TypeAlias = Callable[[str | None, str, Mapping[str, Any]], bool]


def leave_out(*, table_prefix: str = "delimiter_", also: _IncludeName | None = None) -> _IncludeName:
    """An ``include_name`` for the service's Alembic ``env.py``: autogenerate leaves Delimiter's tables alone.

    Without it ``alembic revision --autogenerate`` finds tables that the service's models do not know, and proposes to
    drop them. ``also`` is the service's own ``include_name``, asked about everything else.

    >>> include_name = leave_out()
    >>> include_name("delimiter_claims", "table", {}), include_name("instances", "table", {})
    (False, True)

    In ``env.py``: ``context.configure(…, include_name=leave_out())``.
    """
    ours = {table_prefix + name for name in _TABLES}

    def include_name(name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        if kind == "table" and name in ours:
            return False
        return True if also is None else also(name, kind, parents)

    return include_name
