"""The list of claims as rows that are printed as they come: widths are settled before the first row is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.padding import Padding

from delimiter.cli import show
from delimiter.cli.safe_text import Text
from delimiter.model import Claim

__all__ = ["ClaimRows"]

_UUID: Final = 36
_STATE: Final = len("provisioned")


class ClaimRows:
    """Prints claims one below the other: who and whose on a line, what it is on the next."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.printed = 0

    def print(self, claim: Claim) -> None:
        if not self.printed:
            self._console.print(Text(f"{'claim':<{_UUID}}  {'state':<{_STATE}}  owner", style="heading"))
        owner = show.owner_of(claim)
        line = Text.assemble(claim.id.ljust(_UUID), "  ", show.state_of(claim))
        line.append(" " * (_STATE - len(claim.state)) + f"  {owner}")
        self._console.print(line, overflow="fold")
        self._console.print(
            Padding(
                Text(" · ".join(_details(claim)), style="quiet", overflow="fold"), (0, 0, 0, 2), expand=False
            )
        )
        self.printed += 1


def _details(claim: Claim) -> Iterator[str]:
    yield ", ".join(f"{used:,} {name}" for name, used in claim.resources.items())
    if claim.external_id is not None:
        yield f"known as {claim.external_id}"
    if claim.parent is not None:
        yield f"under {claim.parent}"
    if claim.expires_at is not None:
        yield show.runs_out(claim).removeprefix(", ")
