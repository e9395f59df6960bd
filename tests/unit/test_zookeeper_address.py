"""URLs of ZooKeeper stores: what each says, and what is wrong with those that are refused."""

from __future__ import annotations

import pytest

from delimiter import Delimiter, InvalidRequest, Unsupported
from delimiter.engine import OpenOptions, open_engine
from delimiter.engines.zookeeper.address import Address


@pytest.mark.parametrize(
    "url, hosts, path, user, password",
    [
        ("zookeeper://h1/quota", "h1", "/quota", None, None),
        ("zookeeper://h1:2181,h2:2182,h3/a/b/", "h1:2181,h2:2182,h3", "/a/b", None, None),
        ("zookeeper://[::1]:2181/quota", "[::1]:2181", "/quota", None, None),
        ("zookeeper://[::1]/quota", "[::1]", "/quota", None, None),
        ("zookeeper://h1/with%20space", "h1", "/with space", None, None),
        ("zookeeper://me:a%2Fb%40c@h1:1/quota", "h1:1", "/quota", "me", "a/b@c"),
    ],
)
def test_what_a_url_says(url: str, hosts: str, path: str, user: str | None, password: str | None) -> None:
    found = Address.of(url)
    assert (found.hosts, found.path, found.user, found.password) == (hosts, path, user, password)
    assert password is None or password not in repr(found)


@pytest.mark.parametrize(
    "url, why",
    [
        ("zookeeper:h1/quota", "no store URL"),
        ("zookeeper:///quota", "names its servers"),
        ("zookeeper://h1,,h2/quota", "names its servers"),
        ("zookeeper://h1", "names a path"),
        ("zookeeper://h1/", "names a path"),
        ("zookeeper://h1:port/quota", "a number from 1"),
        ("zookeeper://h1:0/quota", "a number from 1"),
        ("zookeeper://h1:99999/quota", "a number from 1"),
        ("zookeeper://h1/zookeeper/quota", "not below /zookeeper"),
        ("zookeeper://h1/a//b", "that ZooKeeper allows"),
        ("zookeeper://h1/a/../b", "that ZooKeeper allows"),
        ("zookeeper://h1/a%00b", "that ZooKeeper allows"),
        ("zookeeper://h1/quota?timeout=3", "no options"),
        ("zookeeper://secret@h1/quota", "user:password@"),
        ("zookeeper://:secret@h1/quota", "user:password@"),
        ("zookeeper://secret:@h1/quota", "user:password@"),
    ],
)
def test_what_is_no_url(url: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as raised:
        Delimiter(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("options", [OpenOptions(schema="quota"), OpenOptions(table_prefix="q_")])
def test_what_there_is_not(options: OpenOptions) -> None:
    with pytest.raises(InvalidRequest, match="no schema and no tables"):
        open_engine("zookeeper://h1/quota", options)


@pytest.mark.parametrize(
    "url", ["redis://h1/0", "mongodb://h1/quota", "etcd://h1:2379/quota", "memcached://h1"]
)
def test_a_store_without_transactions_is_refused(url: str) -> None:
    with pytest.raises(Unsupported, match="can only be audited afterwards") as raised:
        Delimiter(url)
    assert "zookeeper" in str(raised.value)
