"""What all parts of the suite stand on: the fixtures, the hooks, and how a store is looked at from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

import pytest

from delimiter import Claim, Delimiter, Violation
from delimiter.engine import Capability, Engine
from delimiter.model import ClaimState

if TYPE_CHECKING:
    import sqlalchemy

__all__ = [
    "FOREST",
    "OWNERS",
    "STATES",
    "Contract",
    "Whom",
    "all_claims",
    "move_time",
    "plant",
    "sight",
    "used",
    "violation",
]

#: ``project=…``, ``user=…`` or nothing (the deployment), as keyword arguments.
Whom: TypeAlias = dict[str, Any]
#: The three kinds of scope; claims of "acme" and "john" are charged to all of them.
OWNERS: Final[list[Whom]] = [{}, {"project": "acme"}, {"user": "john"}]

#: Two trees, as tests use them: ``shop`` lies below ``web``, that and ``dev`` below ``acme``; ``lab`` below ``zeta``.
FOREST: Final[dict[str, str | None]] = {
    "acme": None,
    "dev": "acme",
    "web": "acme",
    "shop": "web",
    "zeta": None,
    "lab": "zeta",
}

STATES: Final[tuple[ClaimState, ...]] = get_args(ClaimState)


class Contract:
    """Fixtures and hooks. Tests are methods of the classes that inherit from this one."""

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        """An open engine on an empty store; the one thing that has to be overridden."""
        raise NotImplementedError(
            "override the fixture `engine`: it returns an open Engine on an empty store"
        )

    def open_another(self, engine: Engine) -> Engine:
        """A second handle on the same store, as another process would have one; the suite closes it."""
        if Capability.SHARED in engine.capabilities:
            raise NotImplementedError("an engine that declares SHARED overrides `open_another`")
        return engine

    def store_url(self, engine: Engine) -> str | None:
        """The URL under which another process opens the same store."""
        if Capability.SHARED in engine.capabilities:
            raise NotImplementedError("an engine that declares SHARED overrides `store_url`")
        return None

    def database(self, engine: Engine) -> sqlalchemy.Engine:
        """An SQLAlchemy engine on the same store; the suite disposes of it."""
        raise NotImplementedError("an engine that declares CALLERS_TRANSACTION overrides `database`")

    def trace(self, engine: Engine) -> object:
        """What differs after any change of the store, where that is known without looking at all of it; else ``None``.

        The suite looks after each of hundreds of bad requests; while this stays the same, nothing can have changed.
        """
        return None

    @pytest.fixture
    def quota(self, engine: Engine) -> Delimiter:
        return Delimiter(engine, timeout=60)

    @pytest.fixture
    def handles(self, engine: Engine) -> Iterator[list[Delimiter]]:
        """Two Delimiters on one store; neither may trust what it remembers of it."""
        other = self.open_another(engine)
        with contextlib.ExitStack() as stack:
            if other is not engine:
                stack.callback(other.close)
            yield [Delimiter(engine, timeout=60), Delimiter(other, timeout=60)]


def plant(quota: Delimiter, parents: Mapping[str, str | None] = FOREST) -> None:
    """Add these projects, parents first."""
    for project, parent in parents.items():
        quota.add_project(project, parent=parent)


def move_time(engine: Engine, seconds: float) -> None:
    """Time goes on without anybody sleeping."""
    engine.clock_offset += int(seconds * 1_000_000)


def violation(resource: str, scope: str, *, limit: int, used: int, requested: int) -> Violation:
    """The violation of an upper limit; what would have fitted follows from the rest."""
    return Violation(resource, scope, limit, used, requested, max(0, limit - used))


def used(quota: Delimiter, resource: str, *projects: str) -> list[int]:
    """What each of these projects uses, with all below it."""
    return [quota.usage(project=project)[resource].used for project in projects]


def all_claims(quota: Delimiter) -> list[Claim]:
    """Every claim that is known, in whichever state."""
    return [claim for state in STATES for claim in quota.claims(state=state)]


def sight(
    quota: Delimiter,
    *,
    projects: tuple[str, ...] = ("acme", "zeta"),
    users: tuple[str, ...] = ("john", "mary"),
) -> dict[str, Any]:
    """All that can be seen of a store. Two equal sights: nothing was changed."""
    seen: dict[str, Any] = {
        "resources": quota.resources(),
        "claims": all_claims(quota),
        "tree": quota.tree(),
        "projects": quota.projects(),
        "own limits": quota.own_limits(),
        "overbooking": quota.overbooking(),
    }
    scopes: list[Whom] = [
        {},
        *({"project": one} for one in projects),
        *({"user": one} for one in users),
    ]
    for scope in scopes:
        seen[f"usage {scope}"] = quota.usage(**scope)
        seen[f"limits {scope}"] = quota.limits(**scope)
    return seen
