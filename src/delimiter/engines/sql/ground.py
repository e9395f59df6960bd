"""What every room of this package stands on."""

from __future__ import annotations

from dataclasses import dataclass

from delimiter.engines.sql.databases import Clock, Database
from delimiter.engines.sql.definitions import Definitions
from delimiter.engines.sql.events import EventLog
from delimiter.engines.sql.galera import Galera
from delimiter.engines.sql.projects import Projects
from delimiter.engines.sql.schema import Tables

__all__ = ["Ground"]


@dataclass(frozen=True, slots=True)
class Ground:
    """The tables of one store, its database's ways, and what is remembered or locked together by all."""

    tables: Tables
    database: Database
    clock: Clock
    definitions: Definitions
    projects: Projects
    events: EventLog
    galera: Galera
