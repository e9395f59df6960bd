"""All mutations, room by room."""

from __future__ import annotations

from typing import Final

from mutations.at_once import ARRIVING
from mutations.claims import CLAIMS
from mutations.clusters import CLUSTERS
from mutations.combining import COMBINING
from mutations.counters import COUNTERS
from mutations.expiry import UPKEEP
from mutations.guards import GUARDS
from mutations.killed import KILLED
from mutations.mutation import Mutation, Room
from mutations.rules import RULES
from mutations.together import TOGETHER
from mutations.transactions import TRANSACTIONS

__all__ = ["MUTATIONS", "ROOMS"]

ROOMS: Final[tuple[Room, ...]] = (
    *COUNTERS,
    *CLAIMS,
    *TOGETHER,
    *ARRIVING,
    *COMBINING,
    *UPKEEP,
    *GUARDS,
    *RULES,
    *TRANSACTIONS,
    *KILLED,
    *CLUSTERS,
)

MUTATIONS: Final[tuple[Mutation, ...]] = tuple(mutation for room in ROOMS for mutation in room.mutations)
