"""Listings from a service's own table: one query, whose rows are fetched as they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from delimiter.errors import InvalidRequest
from delimiter.listing.existing import Existing

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

__all__ = ["rows"]

#: Rows fetched at a time.
_FETCHED: Final = 1000


def rows(
    source: sa.Engine | sa.Connection | Session,
    *,
    id: Any,
    resources: Mapping[str, Any],
    project: Any = None,
    user: Any = None,
    created_at: Any = None,
    where: Any = None,
) -> Callable[[], Iterator[Existing]]:
    """A listing of a table's rows, to be handed to ``reconcile_with`` or ``adopt``; asked for anew at each call.

    The arguments are columns or expressions of SQLAlchemy. A row that holds nothing (0 or NULL of each resource) is
    left out. From an engine it is read on a connection of its own. Raises ``InvalidRequest``.

    >>> import sqlalchemy as sa
    >>> volumes = sa.table("volumes", sa.column("id"), sa.column("project"), sa.column("size"))
    >>> service = sa.create_engine("sqlite://")
    >>> with service.begin() as connection:
    ...     made = connection.execute(sa.text("CREATE TABLE volumes AS SELECT 7 id, 'acme' project, 10 size"))
    >>> listing = rows(service, id=volumes.c.id, project=volumes.c.project, resources={"storage.gb": volumes.c.size})
    >>> [(one.external_id, one.project, one.resources) for one in listing()]
    [('7', 'acme', {'storage.gb': 10})]
    """
    import sqlalchemy as sa

    if not resources:
        raise InvalidRequest("name at least one resource and the column of its amount")
    if project is None and user is None:
        raise InvalidRequest("name the column of the project, of the user, or both: whose are they?")
    given = {"project": project, "user": user, "created_at": created_at}
    named = {name: column for name, column in given.items() if column is not None}
    amounts = {f"amount{number}": column for number, column in enumerate(resources.values())}
    columns = [column.label(name) for name, column in {"external_id": id, **named, **amounts}.items()]
    statement = sa.select(*columns)
    if where is not None:
        statement = statement.where(where)
    statement = statement.execution_options(stream_results=True, yield_per=_FETCHED)

    def listing() -> Iterator[Existing]:
        with _connected(source) as connection:
            for row in connection.execute(statement):
                if (existing := _existing(row, tuple(resources))) is not None:
                    yield existing

    return listing


@contextmanager
def _connected(source: Any) -> Iterator[Any]:
    import sqlalchemy as sa

    if isinstance(source, sa.Engine):
        with source.connect() as connection:
            yield connection
    elif isinstance(source, sa.Connection) or hasattr(source, "execute"):
        yield source
    else:
        raise InvalidRequest(
            f"rows are read from an SQLAlchemy Engine, Connection or Session, not {type(source).__name__}"
        )


def _existing(row: Any, names: tuple[str, ...]) -> Existing | None:
    amounts = {name: _whole(getattr(row, f"amount{number}")) for number, name in enumerate(names)}
    held = {name: amount for name, amount in amounts.items() if amount != 0}
    if not held:
        return None
    place = f"row {row.external_id}"
    try:
        return Existing(
            external_id=_text(row.external_id),  # type: ignore[arg-type] # looked through there
            resources=held,
            project=_text(getattr(row, "project", None)),
            user=_text(getattr(row, "user", None)),
            created_at=getattr(row, "created_at", None),
            place=place,
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error}") from error


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _whole(value: Any) -> Any:
    """A sum may come as a decimal number; NULL is nothing."""
    if value is None:
        return 0
    if not isinstance(value, float | Decimal):
        return value
    return int(value) if math.isfinite(value) and value == int(value) else value
