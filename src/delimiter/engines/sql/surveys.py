"""Reading across many scopes: the whole tree, the largest consumers of a scope, the reservations that run out next."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import sqlalchemy as sa

from delimiter.engines.records import instant
from delimiter.engines.sql.counters import Counters
from delimiter.engines.sql.counts import Counts
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.projects import within
from delimiter.engines.sql.sums import group_key, halves, whole
from delimiter.model import Consumer, Project, ProjectUsage, Running, Scope, Usage, in_order

__all__ = ["Surveys"]


class Surveys:
    """Looks over one store."""

    def __init__(self, ground: Ground, counters: Counters, counts: Counts) -> None:
        tables, clock = ground.tables, ground.clock
        self._tables = ground.tables
        self._counters = counters
        self._counts = counts
        self._definitions = ground.definitions
        self._now = clock.now
        c, a = tables.claims.c, tables.allocations.c
        self._claimed = tables.claims.join(tables.allocations, a.claim == c.id)
        self._everything = self._every_project()

    # -- the tree -----------------------------------------------------------------------------------------------

    def tree(self, connection: sa.Connection) -> list[ProjectUsage]:
        """From one statement: what each holds itself, added up the tree."""
        projects: dict[str, Project] = {}
        limits: defaultdict[str, dict[str, int]] = defaultdict(dict)
        sums: defaultdict[str, dict[str, list[int]]] = defaultdict(dict)
        holding: set[str] = set()
        for row in connection.execute(self._everything):
            projects[row.project] = Project(row.project, row.parent)
            gone = whole(row, "gone")
            held = [(row.own_used or 0) - gone, (row.own_reserved or 0) - gone]
            if row.name is not None:
                limits[row.project][row.name], sums[row.project][row.name] = row.maximum, held
            if row.in_tree or held[0]:
                holding.add(row.project)
        # What was claimed before it was counted no longer says what is used.
        for resource in self._counts.names():
            for of_project in sums.values():
                if resource in of_project:
                    of_project[resource] = [0, 0]
        for project, resource, used in self._counted(connection, projects, limits, sums):
            sums[project][resource] = [used, 0]
            holding.add(project)
        ordered = in_order(projects[name] for name in holding)
        for one in reversed(ordered):  # children before their parents
            for name, held in sums[one.id].items() if one.parent is not None else ():
                above = sums[str(one.parent)][name]
                above[0] += held[0]
                above[1] += held[1]
        return [
            ProjectUsage(
                one.id,
                one.parent,
                {name: Usage(limits[one.id][name], *held) for name, held in sorted(sums[one.id].items())},
            )
            for one in ordered
        ]

    def _counted(
        self,
        connection: sa.Connection,
        projects: dict[str, Project],
        limits: dict[str, dict[str, int]],
        sums: dict[str, dict[str, list[int]]],
    ) -> list[tuple[str, str, int]]:
        """What projects hold of counted resources; those that have rows and were never met before are added."""
        if not self._counts.names():
            return []
        definitions = {d.resource.name: d for d in self._definitions.all(connection)}
        found = [
            (project, resource, used)
            for resource in sorted(self._counts.names() & definitions.keys())
            for project, used in self._counts.by_owner(connection, resource, "project")
        ]
        strangers = sorted({project for project, _, _ in found} - projects.keys())
        starts = [(name, Scope("project", project)) for project in strangers for name in definitions]
        for (name, scope), bounds in self._counters.bounds(connection, definitions, starts).items():
            projects[scope.name] = Project(scope.name, None)
            limits[scope.name][name], sums[scope.name][name] = bounds[0], [0, 0]
        return found

    def _every_project(self) -> sa.Select[Any]:
        """A row for each project and resource: those of the tree, and roots that were never added to it."""
        p, r, l, k = (  # noqa: E741
            self._tables.projects,
            self._tables.resources,
            self._tables.limits,
            self._tables.counters,
        )
        added = sa.select(sa.literal_column("1").label("in_tree"), p.c.project, p.c.parent)
        others = (
            sa.select(sa.literal_column("0"), k.c.scope, p.c.parent)
            .distinct()
            .select_from(k.outerjoin(p, p.c.project == k.c.scope))
            .where(k.c.kind == "project", p.c.project.is_(None))
        )
        every = sa.union_all(added, others).subquery()
        gone = self._gone()

        def here(table: sa.FromClause) -> sa.ColumnElement[bool]:
            return sa.and_(
                table.c.resource_id == r.c.id, table.c.kind == "project", table.c.scope == every.c.project
            )

        joined = (
            every.outerjoin(r, r.c.defined == 1)
            .outerjoin(l, here(l))
            .outerjoin(k, here(k))
            .outerjoin(gone, sa.and_(gone.c.resource_id == r.c.id, gone.c.project_id == every.c.project))
        )
        maximum = sa.func.coalesce(k.c.maximum, l.c.maximum, r.c.project_max).label("maximum")
        columns = [every.c.in_tree, every.c.project, every.c.parent, r.c.name, maximum]
        return sa.select(*columns, *self._own(k, gone)).select_from(joined)

    @staticmethod
    def _own(counters: sa.FromClause, gone: sa.FromClause) -> list[sa.ColumnElement[Any]]:
        k = counters.c
        return [
            (k.used - k.used_below).label("own_used"),
            (k.reserved - k.reserved_below).label("own_reserved"),
            gone.c.gone_high,
            gone.c.gone_low,
        ]

    def _gone(self) -> sa.Subquery:
        """What ran out and is still on counters, by project and resource."""
        c, a = self._tables.claims.c, self._tables.allocations.c
        keys = [group_key(c.project_id, "project_id"), group_key(a.resource_id, "resource_id")]
        return (
            sa.select(*keys, *halves(a.amount, "gone"))
            .select_from(self._claimed)
            .where(c.expires_at <= self._now())
            .group_by(*keys)
            .subquery()
        )

    # -- one scope ----------------------------------------------------------------------------------------------

    def consumers(
        self, connection: sa.Connection, resource: str, scope: Scope, *, size: int
    ) -> list[Consumer]:
        if resource in self._counts:
            return self._counts.consumers(connection, resource, scope, size=size)
        c, a = self._tables.claims.c, self._tables.allocations.c
        high, low = halves(a.amount, "used")
        names = [sa.func.coalesce(c.project_id, ""), sa.func.coalesce(c.user_id, "")]
        statement = (
            sa.select(c.project_id, c.user_id, high, low)
            .select_from(self._claimed)
            .where(self._charged(connection, resource, scope), self._live())
            .group_by(c.project_id, c.user_id)
            .order_by(sa.desc("used_high"), sa.desc("used_low"), *names)
        )
        # The carry from the lower halves may change the order of large sums: exact among a few more.
        rows = connection.execute(statement.limit(size + 100)).all()
        found = [Consumer(row.project_id, row.user_id, whole(row, "used")) for row in rows]
        return sorted(found, key=lambda one: (-one.used, one.project or "", one.user or ""))[:size]

    def running(self, connection: sa.Connection, resource: str, scope: Scope, *, size: int) -> list[Running]:
        c, a = self._tables.claims.c, self._tables.allocations.c
        statement = (
            sa.select(c.claim_id, a.amount, c.expires_at)
            .select_from(self._claimed)
            .where(self._charged(connection, resource, scope))
            .where(c.state == "reserved", c.expires_at > self._now())
            .order_by(c.expires_at, c.claim_id)
            .limit(size)
        )
        return [
            Running(row.claim_id, row.amount, instant(row.expires_at))
            for row in connection.execute(statement)
        ]

    def _live(self) -> sa.ColumnElement[bool]:
        c = self._tables.claims.c
        return sa.or_(c.state == "provisioned", sa.and_(c.state == "reserved", c.expires_at > self._now()))

    def _charged(self, connection: sa.Connection, resource: str, scope: Scope) -> sa.ColumnElement[bool]:
        c, a = self._tables.claims.c, self._tables.allocations.c
        of_resource = a.resource_id == self._definitions.id_of(connection, resource)
        name = sa.literal(scope.name, c.project_id.type)
        match scope.kind:
            case "total":
                return of_resource
            case "project":
                return sa.and_(of_resource, within(self._tables, c.project_id, name))
            case "user":
                return sa.and_(of_resource, c.user_id == name)
