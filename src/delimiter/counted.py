"""Counted resources: how the service's own table says what is used, and what a guard asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from delimiter.model import Scope

if TYPE_CHECKING:
    from delimiter.changes import NewClaim
    from delimiter.model import Claim

__all__ = ["Counted", "Guard", "GuardRequest", "MissingIndex"]


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """How a resource is counted: SQLAlchemy expressions over the service's own table.

    ``amount`` adds up rows (``func.count()``, ``func.sum(…)``); ``project`` and ``user`` say whose a row is; ``where``
    leaves rows out, or joins another table.
    """

    amount: Any
    project: Any = None
    user: Any = None
    where: Any = None


@dataclass(frozen=True, slots=True)
class GuardRequest:
    """What the caller is about to write rows for. Looked through by the desk: names and amounts are valid."""

    #: What is counted, and how much of it may come in.
    counted: Mapping[str, int]
    #: What is tracked, as an ordinary claim in the same transaction.
    claim: NewClaim | None
    project: str | None
    user: str | None
    optimistic: bool = False

    @property
    def scopes(self) -> list[Scope]:
        return Scope.owned(self.project, self.user)


class Guard(ABC):
    """An open guard. Whoever entered it leaves or abandons it, on the same connection."""

    #: The claim on what is tracked, if anything is.
    claim: Claim | None = None

    @abstractmethod
    def leave(self) -> None:
        """Flush, count again, and let the rows stand; ``OverLimit`` or ``Conflict`` take everything back."""

    @abstractmethod
    def abandon(self) -> None:
        """Take back the rows that were written inside, and the claim. Raises nothing."""


@dataclass(frozen=True, slots=True)
class MissingIndex:
    """A column that guards look rows up by, without an index that begins with it, and the DDL that makes one."""

    resource: str
    table: str
    column: str
    ddl: str
