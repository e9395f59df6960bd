"""``zookeeper://h1:2181,h2:2181/path``: which servers, which path, and as whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from delimiter.errors import InvalidRequest

__all__ = ["Address"]

_SCHEME: Final = "zookeeper://"
_EXAMPLE: Final = "write for example zookeeper://h1:2181,h2:2181,h3:2181/quota"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store lies. The password is not shown."""

    hosts: str
    path: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL; what is wrong with it is ``InvalidRequest``, which never quotes it: it may hold a password."""
        if not url.startswith(_SCHEME):
            raise InvalidRequest(f"this is no store URL for ZooKeeper; {_EXAMPLE}")
        place, slash, path = url.removeprefix(_SCHEME).partition("/")
        if "?" in path or "#" in path:
            raise InvalidRequest(f"a ZooKeeper URL takes no options behind its path; {_EXAMPLE}")
        credentials, at, hosts = place.rpartition("@")
        names = [part.strip() for part in unquote(path).strip("/").split("/")]
        if not hosts or not all(hosts.split(",")):
            raise InvalidRequest(f"a ZooKeeper URL names its servers; {_EXAMPLE}")
        for host in hosts.split(","):
            port = host.rpartition("]")[2].rpartition(":")[2] if ":" in host.rpartition("]")[2] else "2181"
            if not port.isdecimal() or not 0 < int(port) < 2**16:
                raise InvalidRequest(f"a server's port is a number from 1 to 65535; {_EXAMPLE}")
        if not slash or names == [""]:
            raise InvalidRequest(f"a ZooKeeper URL names a path for the store's own nodes; {_EXAMPLE}")
        if names[0] == "zookeeper" or any(part in ("", ".", "..") or "\0" in part for part in names):
            raise InvalidRequest(f"a path has names that ZooKeeper allows, not below /zookeeper; {_EXAMPLE}")
        user, colon, password = credentials.partition(":")
        if at and not (user and colon and password):
            raise InvalidRequest("write user:password@ before the servers, both percent-encoded, or neither")
        return cls(
            hosts, "/" + "/".join(names), unquote(user) if at else None, unquote(password) if at else None
        )
