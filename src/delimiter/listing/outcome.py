"""What comes of a listing: mismatches, and how many were adopted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from delimiter.model import Overage

__all__ = ["Adopted", "Mismatch", "Progress"]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A claim that disagrees with what really exists.

    ``kind``: ``"missing"`` (it exists, and nothing is claimed for it), ``"orphaned"`` (it is claimed, and does not
    exist), ``"amount"`` or ``"owner"``. ``recorded`` is what the claim says, ``actual`` what the listing says: amounts
    by resource, or ``project`` and ``user``. ``claim_id`` is ``None`` of what is missing, unless it was ``repaired``.
    ``note`` says why it could not be.
    """

    kind: Literal["missing", "orphaned", "amount", "owner"]
    claim_id: str | None
    external_id: str | None
    project: str | None
    user: str | None
    recorded: Mapping[str, int | str | None]
    actual: Mapping[str, int | str | None]
    repaired: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a comparison or an adoption has come. ``total`` is ``None`` while nobody knows it.

    ``stage``: reading the ``"claims"``, the ``"listing"``, ``"comparing"`` what differs at first sight, ``"adopting"``.
    ``mismatch`` is what was found with this step.
    """

    stage: Literal["claims", "listing", "comparing", "adopting"]
    done: int
    total: int | None = None
    mismatch: Mismatch | None = None


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of a listing: how many were ``claimed`` now, were ``known`` before, or are too ``young`` yet.

    ``refused`` tells, by external id, why one could not be claimed: of the first thousand; ``refusals`` counts all.
    ``over_quota`` tells who holds more than a limit now: the deployment, projects, and users charged by this call.
    """

    claimed: int
    known: int
    refused: Mapping[str, str]
    over_quota: tuple[Overage, ...]
    young: int = 0
    refusals: int = 0
