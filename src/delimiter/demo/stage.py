"""The stage: scenes, sentences and tables for people; the facts that were checked for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from delimiter import Delimiter, InvalidRequest, Resource
from delimiter.cli import show
from delimiter.cli.failures import CheckFailed
from delimiter.cli.session import Session

__all__ = ["RESOURCES", "Fact", "Stage", "clear"]

E = TypeVar("E", bound=Exception)

_WIDEST: Final = 96
#: Time to read a scene before the next one begins; nobody reads a pipe.
_PAUSE: Final = 1.2

#: What the service defines. Their descriptions tell a demo's store from any other.
RESOURCES: Final = tuple(
    Resource(name, "database", max=total, user_max=each, unit=unit, description=f"{what} (Delimiter's demo)")
    for name, total, each, unit, what in (
        ("database.clusters", 300, 4, "clusters", "Database clusters"),
        ("database.instances", 2000, 25, "instances", "Database instances"),
        ("memory.gb", -1, 10, "GB", "Memory of instances"),
        ("storage.gb", -1, 20_000, "GB", "Volumes"),
    )
)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something the demo claims, and what was found."""

    what: str
    expected: Any
    actual: Any


class Stage:
    """Where the story is told. With ``--json`` nobody watches, and only the facts are kept."""

    def __init__(self, session: Session, *, pauses: bool) -> None:
        self.out: Console = session.out
        self.out.width = min(self.out.width, _WIDEST)
        self.out.quiet = session.as_json
        self.facts: list[Fact] = []
        self._pause = _PAUSE if pauses and self.out.is_terminal and not session.as_json else 0.0
        self._scenes = 0
        self._after_table = False

    def scene(self, title: str, text: str) -> None:
        """A new scene: its title, and what happens."""
        if self._scenes:
            time.sleep(self._pause)
        self._scenes += 1
        self.out.print()
        line = "─" if self.out.encoding.startswith("utf") else "-"
        self.out.print(
            Rule(
                Text(f"{self._scenes}  {title}", style="heading"),
                align="left",
                style="quiet",
                characters=line,
            )
        )
        self.out.print(Text(text))

    def show(self, what: RenderableType) -> None:
        self.out.print()
        self.out.print(Padding(what, (0, 0, 0, 2), expand=False))
        self._after_table = True

    def expect(self, what: str, actual: Any, expected: Any, *, aloud: bool = True) -> None:
        """Go on only if it is so."""
        self.facts.append(Fact(what, expected, actual))
        if actual != expected:
            raise CheckFailed(
                f"The demo says: {what}. It is not so: {actual!r} where {expected!r} was expected."
            )
        if aloud:
            if self._after_table:
                self.out.print()
            self._after_table = False
            self.out.print(Padding(show.done(self.out, what), (0, 0, 0, 2), expand=False))

    def expect_refusal(self, kind: type[E], call: Callable[[], Any]) -> E:
        """The refusal; that there is one is a fact too."""
        try:
            call()
        except kind as refusal:
            return refusal
        raise CheckFailed("The demo says that this is refused, and it was admitted.")


def clear(quota: Delimiter) -> None:
    """Begin anew on what an earlier demo left. Anybody else's store is left alone."""
    found = quota.resources()
    foreign = [resource.name for resource in found if resource not in RESOURCES]
    if foreign:
        raise InvalidRequest(
            f"the store has resources that are not the demo's ({', '.join(foreign[:3])}), and is left alone. Name"
            " another store, which may be new: --store sqlite:///another.db"
        )
    if not found:
        return
    for claim in list(quota.claims()):
        quota.release(claim.id, force=True)
    quota.expire_reservations()
    quota.prune(older_than=0)
    for resource in found:
        quota.undefine_resource(resource.name)
