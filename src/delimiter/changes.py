"""What may become of claims: the changes that an engine decides, in batches (:meth:`delimiter.engine.Engine.apply`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from delimiter.model import Claim

__all__ = ["Admit", "Change", "Correct", "NewClaim", "Provision", "Release", "Renew", "Resize", "Transfer"]


@dataclass(frozen=True, slots=True)
class NewClaim:
    """A request that has been looked through by the desk: names and amounts are valid, the id is there."""

    id: str
    resources: Mapping[str, int]
    project: str | None = None
    user: str | None = None
    parent: str | None = None
    external_id: str | None = None
    #: Microseconds a reservation lives; ``None`` for a plain claim.
    expires_in: int | None = None

    @property
    def fingerprint(self) -> str:
        """Tells a repeated request from another one under the same id. The time left is not part of it."""
        return _fingerprint(
            tuple(sorted(self.resources.items())),
            self.project,
            self.user,
            self.parent,
            self.external_id,
            self.expires_in is not None,
        )


@lru_cache(maxsize=4096)
def _fingerprint(*contents: Hashable) -> str:
    """Remembered: most of what a service asks for, it asks for again and again."""
    return hashlib.sha256(json.dumps(contents, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Admit:
    """Several new claims, all or none. A parent may be an earlier one of them."""

    claims: tuple[NewClaim, ...]
    #: They stand for what exists already: no upper limit refuses them, and whoever is over quota by them is told of.
    existing: bool = False


@dataclass(frozen=True, slots=True)
class Provision:
    """A reservation becomes an allocation, known by the real thing's own id if one is given."""

    id: str
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """A live reservation lives this many microseconds from now."""

    id: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class Resize:
    """The whole new content of a claim."""

    id: str
    resources: Mapping[str, int]
    force: bool = False


@dataclass(frozen=True, slots=True)
class Transfer:
    """A claim and all below it to exactly this owner."""

    id: str
    project: str | None
    user: str | None


@dataclass(frozen=True, slots=True)
class Release:
    """A claim and all below it are given back."""

    id: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Correct:
    """A claim becomes what really exists, that claim alone; without resources it ends.

    No limit and no floor refuses it.

    Only if it is still exactly as it was ``seen`` and nothing has changed it after ``unchanged_since`` (microseconds
    since 1970, by the store's clock): otherwise ``ClaimConflict``, or ``ClaimReleased`` or ``ClaimExpired``.
    """

    seen: Claim
    unchanged_since: int
    resources: Mapping[str, int]
    project: str | None
    user: str | None

    @property
    def id(self) -> str:
        return self.seen.id


Change: TypeAlias = Admit | Provision | Renew | Resize | Transfer | Release | Correct
