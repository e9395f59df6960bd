"""The ZooKeeper engine: optimistic, in one multi for each decision, for those who run ZooKeeper and no database.

Counters, claims and rules are nodes. Nothing is locked to decide: what was read is checked by the multi that writes the
outcome, and nothing rests on a watch. See :mod:`delimiter.engines.zookeeper.layout` for where things lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from delimiter.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from delimiter.engine import Engine, OpenOptions

__all__ = ["open_zookeeper"]


def open_zookeeper(store: object, options: OpenOptions) -> Engine:
    """The engine for ``zookeeper://h1:2181,h2:2181/path``. It connects at the first call."""
    from delimiter.engines.zookeeper.address import Address

    if not isinstance(store, str):
        raise InvalidRequest("a ZooKeeper store is opened by its URL: zookeeper://h1:2181,h2:2181/path")
    address = Address.of(store)
    if options.schema is not None or options.table_prefix != "delimiter_":
        raise InvalidRequest(
            "ZooKeeper has no schema and no tables to prefix; say in the URL's path where the store lies"
        )
    try:
        from delimiter.engines.zookeeper.engine import ZooKeeperEngine
    except ImportError as error:
        raise Unsupported(
            f"no client for ZooKeeper ({error}); install delimiter with the extra [zookeeper]"
        ) from error
    return ZooKeeperEngine(address, options)
