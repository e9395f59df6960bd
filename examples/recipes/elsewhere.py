"""What the recipes need of the system in which the things really are: a cloud, a hypervisor, a storage array."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Thing:
    id: str  # given by that system, another one for each thing that was ever made
    name: str  # given by us; there is at most one thing of a name at a time
    project: str
    size: int  # both sizes while two of them are alive: the larger one


class Refused(Exception):
    """It said no, for good: the thing is not there, and will not be."""


class Elsewhere(Protocol):
    """Every call may be made again: it is the same as once."""

    def create(self, name: str, *, project: str, size: int) -> Thing:
        """The thing of this name; it is made if it is not there. May raise ``Refused``."""

    def find(self, name: str) -> Thing | None:
        """The thing of this name, if there is one."""

    def delete(self, id: str) -> None:
        """Afterwards that very thing is not there; another one of its name stays."""

    def things(self) -> Iterable[Thing]:
        """The listing."""


class Resizable(Elsewhere, Protocol):
    def begin_resize(self, name: str, size: int) -> None:
        """Afterwards the old one and the new one are alive (if it has another size)."""

    def confirm_resize(self, name: str) -> int:
        """Of two sizes only the new one stays. The size it has now."""

    def revert_resize(self, name: str) -> int:
        """Of two sizes only the old one stays. The size it has now."""
