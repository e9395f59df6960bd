"""Hosts for the nodes of a cluster: network namespaces of this machine, whose wires can be cut one by one.

Each host has two addresses: ``address``, where clients and the tests reach it, and ``inner``, where nodes talk to each
other. So a node can be cut off from the others while clients still reach it, which is the case that a cluster gets
wrong. It takes root (``CAP_NET_ADMIN``) and the package iproute2.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from server_process import ServerNotAvailable, binary

_PREFIX = "dlm"
_NETWORKS = itertools.count(0)


@dataclass(frozen=True)
class Host:
    """One machine of the network."""

    name: str
    address: str
    inner: str

    @property
    def prefix(self) -> list[str]:
        """What to put before a command that is to run there; the process keeps its number."""
        return [_ip(), "netns", "exec", self.name]


class Network:
    """Some hosts that reach each other and are reached by the tests, until they are cut off."""

    def __init__(self, size: int) -> None:
        if os.geteuid() != 0:
            raise ServerNotAvailable("a network of several hosts needs root, for network namespaces")
        remove_left_behind()
        self._owner = os.getpid()
        self._name = f"{_PREFIX}{self._owner}-{next(_NETWORKS)}"
        self._bridges: list[str] = []
        self.hosts: list[Host] = []
        atexit.register(self.close)
        try:
            client, inner = (self._make_bridge(side) for side in "ci")
            self._make_hosts(size, client, inner)
        except BaseException:
            self.close()
            raise

    def cut(self, host: Host) -> None:
        """The other hosts and this one no longer reach each other; clients reach all of them."""
        self._set(host, "i", "down")

    def isolate(self, host: Host) -> None:
        """Nobody reaches this host."""
        self._set(host, "i", "down")
        self._set(host, "c", "down")

    def heal(self, host: Host) -> None:
        """As before it was cut off."""
        self._set(host, "i", "up")
        self._set(host, "c", "up")

    def close(self) -> None:
        """Give everything back; whatever still runs there loses its network."""
        if os.getpid() != self._owner:
            return
        for host in self.hosts:
            _run_anyway("netns", "del", host.name)
        for bridge in self._bridges:
            _run_anyway("link", "del", bridge)
        self.hosts, self._bridges = [], []

    def _set(self, host: Host, side: str, state: str) -> None:
        _run("link", "set", self._wire(self.hosts.index(host), side), state)

    def _make_bridge(self, side: str) -> str:
        """A switch with a network of its own that nothing else on this machine uses."""
        bridge = f"{self._name}{side}"
        _run("link", "add", bridge, "type", "bridge")
        self._bridges.append(bridge)
        used = _done("-o", "-4", "addr", "show").stdout
        start = os.getpid() + len(self._bridges)
        numbers = [(start + step * 2) % 250 + 1 for step in range(250)]
        network = next(f"10.{214 + '_ci'.index(side)}.{number}" for number in numbers
                       if f" 10.{214 + '_ci'.index(side)}.{number}." not in used)  # fmt: skip
        _run("addr", "add", f"{network}.254/24", "dev", bridge)
        _run("link", "set", bridge, "up")
        return network

    def _make_hosts(self, size: int, client: str, inner: str) -> None:
        for number in range(size):
            host = Host(f"{self._name}n{number + 1}", f"{client}.{number + 1}", f"{inner}.{number + 1}")
            _run("netns", "add", host.name)
            self.hosts.append(host)
            _run("-n", host.name, "link", "set", "lo", "up")
            for side, address in (("c", host.address), ("i", host.inner)):
                wire = self._wire(number, side)
                _run("link", "add", wire, "type", "veth", "peer", "name", f"eth-{side}", "netns", host.name)
                _run("link", "set", wire, "master", f"{self._name}{side}", "up")
                _run("-n", host.name, "addr", "add", f"{address}/24", "dev", f"eth-{side}")
                _run("-n", host.name, "link", "set", f"eth-{side}", "up")

    def _wire(self, number: int, side: str) -> str:
        return f"{self._name}{side}{number + 1}"


def remove_left_behind() -> None:
    """Removes the networks of test runs that were killed before they could do it."""
    for kind in (("netns", "del"), ("link", "del")):
        listing = ("netns", "list") if kind[0] == "netns" else ("-o", "link", "show", "type", "bridge")
        for line in _done(*listing).stdout.splitlines():
            words = line.replace(":", " ").split()
            name = words[0] if kind[0] == "netns" else words[1]
            owner = name.removeprefix(_PREFIX).partition("-")[0]
            if name.startswith(_PREFIX) and owner.isdecimal() and not Path("/proc", owner).exists():
                _run_anyway(*kind, name)


def _ip() -> str:
    return binary("ip", "/usr/sbin", "iproute2")


def _done(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([_ip(), *arguments], capture_output=True, text=True, check=False)


def _run(*arguments: str) -> None:
    done = _done(*arguments)
    if done.returncode:
        raise ServerNotAvailable(
            f"no network of several hosts: `ip {' '.join(arguments)}` failed: {done.stderr.strip()}"
        )


def _run_anyway(*arguments: str) -> None:
    with contextlib.suppress(ServerNotAvailable):
        _run(*arguments)
