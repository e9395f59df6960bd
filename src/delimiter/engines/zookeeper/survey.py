"""What servers a URL names, what they say of themselves, and what is weak about such a set-up."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.hosts import collect_hosts

from delimiter.engines.zookeeper.address import Address
from delimiter.engines.zookeeper.layout import decode
from delimiter.engines.zookeeper.session import Session
from delimiter.errors import StoreUnavailable

__all__ = ["Survey", "survey"]

#: Seconds for one server's word on itself.
_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. ``layout`` is ``None`` where no store has been made yet."""

    product: str
    layout: str | None
    weaknesses: tuple[str, ...]


def survey(url: str, timeout: float) -> Survey:
    """Connect once and look. ``StoreUnavailable`` if nobody answers."""
    address = Address.of(url)
    session = Session(address, timeout)
    try:
        with session.call():
            layout = _layout(session, address)
            members = _members(session)
    finally:
        session.close()
    answers = {place: _srvr(place) for place in collect_hosts(address.hosts)[0]}
    versions = sorted({version for version, _ in answers.values() if version})
    modes = [mode for _, mode in answers.values() if mode]
    size = max(len(members), 1)
    servers = "one server" if size == 1 else f"{size} servers"
    product = f"ZooKeeper {' and '.join(versions)}".strip() + f", {servers}"
    return Survey(product, layout, tuple(_weaknesses(address, answers, modes, size)))


def _layout(session: Session, address: Address) -> str | None:
    root = session.read(address.path)
    if root is None or not root.data:
        return None
    try:
        content = decode(root.data, address.path)
    except StoreUnavailable:
        return None
    return str(content.get("layout")) if content.get("delimiter") == "store" else None


def _members(session: Session) -> list[str]:
    """The servers of the ensemble, as it knows itself; none for one that stands alone, or that does not tell."""
    try:
        data = session.client.get_async("/zookeeper/config").get(timeout=session.left())[0]
    except (KazooException, KazooTimeoutError):
        return []
    return [line for line in data.decode("utf-8", "replace").splitlines() if line.startswith("server.")]


def _srvr(place: tuple[str, int]) -> tuple[str, str]:
    """The version and the role of a server; empty if it does not say."""
    try:
        with socket.create_connection(place, timeout=_PATIENCE) as connection:
            connection.sendall(b"srvr")
            text = b"".join(iter(lambda: connection.recv(65536), b"")).decode("utf-8", "replace")
    except OSError:
        return "", ""
    lines = dict(line.partition(": ")[::2] for line in text.splitlines())
    return lines.get("Zookeeper version", "").partition("-")[0], lines.get("Mode", "")


def _weaknesses(
    address: Address, answers: dict[tuple[str, int], tuple[str, str]], modes: list[str], size: int
) -> list[str]:
    found = []
    if "standalone" in modes or size == 1:
        found.append(
            "One ZooKeeper server stands alone: while it is away nothing is given, and with its disk the store is lost."
            " Three servers survive the loss of one."
        )
    elif size % 2 == 0:
        found.append(
            f"{size} servers survive the loss of no more of them than {size - 1} would: make it an odd number."
        )
    silent = [f"{host}:{port}" for (host, port), answer in answers.items() if not any(answer)]
    if silent:
        found.append(f"Not answering, or not serving: {', '.join(silent)}.")
    if len(answers) < size:
        found.append(
            f"The URL names {len(answers)} of {size} servers: name them all, so that any of them may be away."
        )
    if address.user is None:
        found.append(
            "The store's nodes are open to everybody who reaches the servers. Make it with a password:"
            " zookeeper://user:password@…"
        )
    return found
