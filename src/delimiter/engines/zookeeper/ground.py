"""What every part of the engine stands on."""

from __future__ import annotations

from dataclasses import dataclass, field

from delimiter.engines.zookeeper.layout import Layout
from delimiter.engines.zookeeper.rulebook import Rulebook
from delimiter.engines.zookeeper.session import Session

__all__ = ["Ground", "Offset"]


@dataclass(slots=True)
class Offset:
    """Microseconds that tests add to the store's clock."""

    microseconds: int = 0


@dataclass(slots=True)
class Ground:
    """One store."""

    session: Session
    layout: Layout
    rulebook: Rulebook
    offset: Offset = field(default_factory=Offset)

    def meet(self) -> int:
        """The store's clock now; what is read afterwards is not older."""
        return self.session.meet(self.layout.clock) + self.offset.microseconds

    def reckoned(self) -> int:
        """The store's clock, near enough to date something by."""
        return self.session.reckoned(self.layout.clock) + self.offset.microseconds
