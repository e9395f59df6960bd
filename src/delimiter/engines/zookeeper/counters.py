"""Counters: what one scope uses of one resource, in two parts.

A counter holds its *own* part and what comes from *elsewhere*: for a project, what is claimed below it; for a user,
what they claim inside a project. A project's part from below counts only while the project has a limit: without one,
claims below do not touch it, and its usage is added up from the projects below when somebody asks. The same is true
of the deployment's total, whose own part counts only while it has a limit; what it uses is otherwise what projects
have of their own, and what users claim outside of projects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from delimiter.engines.records import Counter
from delimiter.engines.zookeeper.layout import Layout, damaged, decode, encode
from delimiter.engines.zookeeper.multi import Multi
from delimiter.engines.zookeeper.rulebook import Edition, is_limited
from delimiter.engines.zookeeper.session import Node, Session
from delimiter.model import Scope
from delimiter.refusals import unknown_resource

__all__ = ["Account", "Accounts", "Held", "held"]


@dataclass(frozen=True, slots=True)
class Held:
    """What a counter's node holds."""

    own: tuple[int, int] = (0, 0)
    elsewhere: tuple[int, int] = (0, 0)
    #: The node's version; ``None``: there is none yet.
    version: int | None = None

    @property
    def whole(self) -> tuple[int, int]:
        """What is used, and how much of it is reserved."""
        return self.own[0] + self.elsewhere[0], self.own[1] + self.elsewhere[1]

    def encoded(self, resource: str, scope: Scope) -> bytes:
        return encode(
            {"resource": resource, "scope": list(scope), "own": self.own, "elsewhere": self.elsewhere}
        )

    def write(self, multi: Multi, path: str, resource: str, scope: Scope) -> None:
        """In the place of what was read."""
        data = self.encoded(resource, scope)
        if self.version is None:
            multi.create(path, data)
        else:
            multi.set(path, data, self.version)


def held(node: Node | None, path: str) -> Held:
    return Held() if node is None else read_counter(node, path)[2]


def read_counter(node: Node, path: str) -> tuple[str, Scope, Held]:
    """Which resource and scope a counter is of, and what it holds."""
    content = decode(node.data, path)
    try:
        kind, name = content["scope"]
        own, elsewhere = map(tuple, (content["own"], content["elsewhere"]))
        if len(own) != 2 or len(elsewhere) != 2 or any(type(one) is not int for one in (*own, *elsewhere)):
            raise damaged(path)
        return content["resource"], Scope(kind, name), Held(own, elsewhere, node.version)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path) from error


@dataclass(slots=True, eq=False)
class Account(Counter):
    """A counter as a decision sees it."""

    held: Held = Held()

    def is_from_elsewhere(self, project: str | None) -> bool:
        if self.scope.kind == "user":
            return project is not None
        return self.scope.kind == "project" and self.scope.name != project

    @property
    def after(self) -> Held:
        """What the node shall hold."""
        (used, reserved), (used_below, reserved_below) = self.held.own, self.held.elsewhere
        return Held(
            (
                used + self.used_change - self.used_below_change,
                reserved + self.reserved_change - self.reserved_below_change,
            ),
            (used_below + self.used_below_change, reserved_below + self.reserved_below_change),
            self.held.version,
        )


class Accounts:
    """The counters that one decision rests on, read when they are asked for."""

    def __init__(self, session: Session, layout: Layout, edition: Edition) -> None:
        self._session = session
        self._layout = layout
        self._rules = edition.rules
        self._known: dict[tuple[str, Scope], Account] = {}

    def known(self, resources: Iterable[str]) -> None:
        """``UnknownResource`` for the first of these that is not defined."""
        self._rules.known(resources)

    def fetch(self, charges: Iterable[tuple[str, str | None, str | None]]) -> None:
        """Read the counters of these resources and owners at once."""
        wanted = {
            (resource, scope)
            for resource, project, user in charges
            if resource in self._rules.definitions
            for scope in self._scopes(resource, project, user)
        }
        paths = {key: self._layout.counter(*key) for key in wanted if key not in self._known}
        nodes = self._session.read_all(paths.values())
        for key, path in paths.items():
            self._known[key] = self._account(*key, held(nodes[path], path))

    def path(self, resource: str, project: str | None, user: str | None) -> list[Account]:
        """What a claim of this owner is charged to."""
        if resource not in self._rules.definitions:
            raise unknown_resource(resource)
        self.fetch([(resource, project, user)])
        return [self._known[resource, scope] for scope in self._scopes(resource, project, user)]

    def all(self) -> list[Account]:
        return list(self._known.values())

    def write(self, multi: Multi) -> None:
        for account in self._known.values():
            if account.changed:
                path = self._layout.counter(account.resource, account.scope)
                account.after.write(multi, path, account.resource, account.scope)

    def _scopes(self, resource: str, project: str | None, user: str | None) -> list[Scope]:
        owners = Scope.owned(project, user)
        path = self._rules.tree.path(project, user)
        return [scope for scope in path if scope in owners or is_limited(self._rules, resource, scope)]

    def _account(self, resource: str, scope: Scope, found: Held) -> Account:
        limited = is_limited(self._rules, resource, scope)
        used, reserved = found.whole if limited or scope.kind == "user" else found.own
        key = (resource, scope)
        return Account(
            key=0,
            resource=resource,
            scope=scope,
            limit=self._rules.maximum(key),
            floor=self._rules.minimum(key),
            used=used,
            reserved=reserved,
            level=self._rules.tree.level(scope),
            held=found,
        )
