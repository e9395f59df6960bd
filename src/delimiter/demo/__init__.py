"""The demo: the worked example that Delimiter began with, played with the real library on a real store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from delimiter.cli.session import Session

__all__ = ["play"]


def play(session: Session, *, pauses: bool = True) -> None:
    """Play it on the session's store; ``CheckFailed`` if a number is not what the story says."""
    from delimiter.demo.story import tell  # the racing processes import this package too, and need no story

    tell(session, pauses=pauses)
