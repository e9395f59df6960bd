"""A first look at a SQL store, before the library opens it: is it there, what is it, which schema does it have?

The library tries again until its time is up, which is right for a service and tiresome at a prompt. Here one attempt
is made. The version table is documented (the page on the schema), so a door may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from delimiter.cli.failures import NothingThere
from delimiter.engines.sql import nodes
from delimiter.errors import InvalidRequest, StoreUnavailable, Unsupported

__all__ = ["Facts", "engine_for", "is_sql", "is_zookeeper", "outlives", "reach", "secrets_of", "shown"]

_PRODUCTS: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store is. ``schema_version`` is ``None`` where Delimiter has no tables yet."""

    engine: str
    schema_version: str | None
    #: What is unsafe about the set-up, and what to do.
    weaknesses: tuple[str, ...] = ()


def is_zookeeper(store: str) -> bool:
    return store.startswith("zookeeper:")


def outlives(store: str) -> bool:
    """Whether there is something that a misspelt URL could be mistaken for; not so in the memory of this process."""
    return is_sql(store) or is_zookeeper(store)


def is_sql(store: str) -> bool:
    return store.partition(":")[0].partition("+")[0] in _PRODUCTS


def reach(
    store: str, *, timeout: float, table_prefix: str, schema: str | None, may_be_empty: bool = False
) -> Facts:
    """Connect once and look. ``StoreUnavailable`` if it is not there."""
    facts = (
        _survey(store, timeout)
        if is_zookeeper(store)
        else _look(store, timeout, table_prefix + "version", schema, may_be_empty=may_be_empty)
    )
    if facts.schema_version is None and not may_be_empty:
        missing = "is no store of Delimiter" if is_zookeeper(store) else "are no tables of Delimiter"
        raise NothingThere(f"There {missing} in {shown(store)}")
    return facts


def _survey(store: str, timeout: float) -> Facts:
    try:
        from delimiter.engines.zookeeper.survey import survey
    except ImportError as error:
        raise Unsupported(f"the client is not installed ({error}): `pip install kazoo`") from error
    found = survey(store, timeout)
    return Facts(found.product, found.layout, found.weaknesses)


def _look(store: str, timeout: float, version_table: str, schema: str | None, *, may_be_empty: bool) -> Facts:
    engine = engine_for(store, timeout=timeout)
    _need_file(engine.url, may_be_empty=may_be_empty)
    try:
        with engine.connect() as connection:
            return Facts(_product(connection), _version(connection, version_table, schema))
    except DBAPIError as error:
        raise StoreUnavailable(
            f"the store {shown(store)} cannot be reached: {_first_line(error.orig)}"
        ) from error
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"the store {shown(store)} cannot be read: {_first_line(error)}") from error


_WHICH_DRIVER: Final = (
    "Write postgresql+psycopg://… and `pip install 'psycopg[binary]'`,"
    " or mysql+pymysql://… and `pip install PyMySQL`"
)


def engine_for(store: str, *, timeout: float) -> sa.Engine:
    """Connections of our own to the database, beside the library's."""
    url, several = _parsed(store)
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=_connect_args(url, timeout))
        if several:
            nodes.Nodes(several).serve(engine)
    except ModuleNotFoundError as error:
        raise Unsupported(f"the driver is not installed ({error}). {_WHICH_DRIVER}") from error
    except ArgumentError as error:
        raise InvalidRequest(f"this is no store URL: {error}") from error
    if engine.dialect.is_async:
        raise InvalidRequest(
            f"{url.drivername} is an asynchronous driver; the command line needs another one"
        )
    return engine


def _parsed(store: str) -> tuple[sa.URL, tuple[nodes.Node, ...]]:
    try:
        return nodes.parsed(store)
    except (ArgumentError, ValueError) as error:
        raise InvalidRequest(
            "this is no store URL; write for example sqlite:///quota.db or postgresql+psycopg://host/name"
        ) from error


def _need_file(url: sa.URL, *, may_be_empty: bool) -> None:
    """SQLite would make an empty file of a misspelt name, and then find nothing in it."""
    name = url.database or ""
    if url.get_backend_name() != "sqlite" or name.startswith("file:"):
        return
    if name in ("", ":memory:"):
        raise InvalidRequest("a SQLite store needs a file, for example sqlite:///quota.db")
    folder = Path(name).absolute().parent
    if not folder.is_dir():
        raise StoreUnavailable(f"there is no folder {folder} for the store", retryable=False)
    if Path(name).is_dir():
        raise StoreUnavailable(f"{name} is a folder, not a file", retryable=False)
    if not may_be_empty and not Path(name).exists():
        raise NothingThere(f"There is no file {name}, so there is no store yet")


def _connect_args(url: sa.URL, timeout: float) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": timeout}
    return {"connect_timeout": max(2, round(timeout))}


def _product(connection: sa.Connection) -> str:
    name = connection.dialect.name
    product = "MariaDB" if getattr(connection.dialect, "is_mariadb", False) else _PRODUCTS.get(name, name)
    if name == "sqlite":
        version = str(connection.scalar(sa.text("SELECT sqlite_version()")))
    else:
        version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
    return f"{product} {version}".strip()


def _version(connection: sa.Connection, name: str, schema: str | None) -> str | None:
    if not sa.inspect(connection).has_table(name, schema=schema):
        return None
    table = sa.table(name, sa.column("version_num"), schema=schema)
    version = connection.scalar(sa.select(table.c.version_num))
    return None if version is None else str(version)


def _first_line(error: BaseException | None) -> str:
    args = error.args if error is not None else ()
    words = args[1:] if len(args) > 1 and isinstance(args[0], int) else args[:1]
    return " ".join(str(word) for word in words).strip().partition("\n")[0] or type(error).__name__


def shown(store: str) -> str:
    """The URL as it may be shown: without its password."""
    if is_zookeeper(store):
        scheme, place = store.split(":", 1)
        credentials, at, rest = place.removeprefix("//").partition("/")[0].rpartition("@")
        path = place.removeprefix("//")[len(credentials) + len(at) + len(rest) :]
        return f"{scheme}://{credentials.partition(':')[0]}:***@{rest}{path}" if at else store
    try:
        url, several = nodes.parsed(store)
    except (ArgumentError, ValueError):
        return "(unreadable URL)"
    hidden = {key: "***" for key in url.query if key.lower() in _SECRET_QUERIES}
    return nodes.shown(url.update_query_dict(hidden), several)


_SECRET_QUERIES: Final = frozenset({"password", "passwd", "pwd", "sslpassword"})


def secrets_of(store: str) -> list[str]:
    """The passwords in the URL, so that no message repeats them."""
    if is_zookeeper(store):
        credentials = store.partition("//")[2].partition("/")[0].rpartition("@")[0]
        written = credentials.partition(":")[2]
        return [secret for secret in (written, unquote(written)) if secret]
    try:
        url, _ = nodes.parsed(store)
    except (ArgumentError, ValueError):
        return []
    found = [url.password, *(url.query.get(key) for key in url.query if key.lower() in _SECRET_QUERIES)]
    return [secret for secret in found if isinstance(secret, str) and secret]
