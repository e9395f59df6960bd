"""A ZooKeeper store for the tests: opened, and looked at from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kazoo.client import KazooClient
from sqlalchemy import make_url

from delimiter.engine import OpenOptions, open_engine
from delimiter.engines.zookeeper.engine import ZooKeeperEngine


def open_store(url: str, *, timeout: float = 30) -> ZooKeeperEngine:
    engine = open_engine(url, OpenOptions(timeout=timeout))
    assert isinstance(engine, ZooKeeperEngine)
    return engine


def path_of(url: str) -> str:
    return f"/{make_url(url).database}"


@contextmanager
def somebody_else(url: str) -> Iterator[KazooClient]:
    """A client of the same servers that is none of ours."""
    client = KazooClient(f"{make_url(url).host}:{make_url(url).port}")
    client.start()
    yield client
    client.stop()
    client.close()
