"""The store that operations meet in: a small tree, tight limits, claims of every kind; put back in a moment.

Two of most operations never fit together: project acme has room for one more claim, and the counted resource for one
more row. What is believed of a store is what the memory engine says of the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from pymysql.constants import CLIENT

from delimiter import Delimiter
from delimiter.engines.sql.schema import Tables
from delimiter.model import ClaimState
from interleavings.purging import Purge

__all__ = ["COUNTED", "DUE", "Sight", "Store", "believed_store", "build", "sight"]

#: What somebody who looks at a store can see of it.
Sight = Any

#: The resource that is counted from the service's rows.
COUNTED: Final = "rows"

#: Seconds after which one of the reservations runs out, and by how much time has passed when operations begin.
DUE, _PASSED = 60, 120

_FAR: Final = 1_000_000
_PROJECTS: Final = ("org", "acme", "zeta", "fresh", "globex")
_USERS: Final = ("john", "mary", "newbie")
_STATES: Final[Sequence[ClaimState | None]] = (None, "released", "expired")
_METADATA = sa.MetaData()
ROWS: Final = sa.Table(
    "service_rows",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("project_id", sa.String(50), index=True),
    sa.Column("name", sa.String(50)),
)


def build(quota: Delimiter) -> None:
    """``cpu`` has limits only where they are set, ``disk`` everywhere, the rows of one project have one."""
    quota.define_resource("cpu", user_max=12)
    quota.define_resource("disk", max=30, project_max=12)
    quota.define_resource(COUNTED)
    for name, parent in (("org", None), ("acme", "org"), ("zeta", "org"), ("fresh", "org"), ("globex", None)):
        quota.add_project(name, parent=parent)
    quota.update_limits("cpu", project="acme", max=10)
    quota.update_limits("cpu", project="globex", max=4)
    quota.update_limits(COUNTED, project="acme", max=3)
    quota.claim({"cpu": 3, "disk": 1}, project="acme", user="john", id="root")
    quota.claim({"cpu": 2}, project="zeta", user="john", parent="root", id="child")
    quota.claim({"cpu": 1, "disk": 2}, project="zeta", user="mary", id="spare", external_id="vol-spare")
    quota.claim({"cpu": 1}, project="globex", user="mary", id="far")
    quota.reserve({"cpu": 2}, project="acme", user="mary", id="held", expires_in=_FAR)
    quota.reserve({"cpu": 2}, project="acme", user="mary", id="due", expires_in=DUE)


def believed_store() -> Delimiter:
    """The same, of this process alone; what is counted elsewhere is claimed there."""
    quota = Delimiter("memory://")
    build(quota)
    for number in (1, 2):
        quota.claim({COUNTED: 1}, project="acme", id=f"row-{number}")
    quota._engine.clock_offset = _PASSED * 1_000_000
    return quota


def sight(quota: Delimiter) -> Sight:
    """Claims, usage and limits, the tree; without times, which differ from run to run."""
    claims = sorted(
        (one.id, sorted(one.resources.items()), one.project, one.user, one.parent, one.state, one.external_id)
        for state in _STATES
        for one in quota.claims(state=state)
        if COUNTED not in one.resources
    )
    scopes: list[dict[str, Any]] = [{}]
    scopes += [{"project": name} for name in _PROJECTS]
    scopes += [{"user": name} for name in _USERS]
    usage = [
        (str(scope), name, one.limit, one.used, one.reserved)
        for scope in scopes
        for name, one in sorted(quota.usage(**scope).items())
        if "user" not in scope or name != COUNTED  # rows have no user
    ]
    return claims, usage, sorted((one.id, one.parent or "") for one in quota.projects())


class Store:
    """The tables of one database, with the service's rows among them."""

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self._tables = Tables()
        self._postgresql = url.get_backend_name() == "postgresql"
        arguments = {} if self._postgresql else {"client_flag": CLIENT.MULTI_STATEMENTS}
        self.engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", connect_args=arguments)
        self.judge = Delimiter(url.render_as_string(hide_password=False), timeout=30)
        self._purge = None if self._postgresql else Purge(url)
        self._resets = 0

    def make(self) -> None:
        _METADATA.create_all(self.engine)
        self.count_rows(self.judge)
        build(self.judge)
        self.count_rows(self.judge)
        service = self.engine.execution_options(isolation_level="READ COMMITTED")
        with service.begin() as connection:
            for number in (1, 2):
                connection.execute(sa.insert(ROWS).values(project_id="acme", name=f"row-{number}"))
            with self.judge.guard({COUNTED: 1}, project="acme", connection=connection):
                pass  # its counters are made
        self._save()
        self.raw: Any = self.engine.raw_connection()
        self.pass_time(self.judge)

    def count_rows(self, quota: Delimiter) -> None:
        quota.count(COUNTED, sa.func.count(), project=ROWS.c.project_id)

    @staticmethod
    def pass_time(*quotas: Delimiter, seconds: int = _PASSED) -> None:
        for quota in quotas:
            quota._engine.clock_offset = seconds * 1_000_000

    def _names(self) -> list[str]:
        return [*(table.name for table in self._tables.metadata.sorted_tables), ROWS.name]

    def _save(self) -> None:
        with self.engine.begin() as connection:
            for name in self._names():
                connection.exec_driver_sql(f"CREATE TABLE saved_{name} AS SELECT * FROM {name}")
                if self._postgresql:  # what is deleted is cleared away when nobody is on the stage
                    connection.exec_driver_sql(f"ALTER TABLE {name} SET (autovacuum_enabled = off)")
        parts = [
            f"DELETE FROM {name}; INSERT INTO {name} SELECT * FROM saved_{name}" for name in self._names()
        ]
        self._reset = "; ".join(["BEGIN", *parts, "COMMIT"])

    def reset(self) -> None:
        """As it was built."""
        self._send(self._reset)
        self._resets += 1
        if self._postgresql and self._resets % 200 == 0:
            for name in self._names():
                self._send(f"VACUUM {name}")

        if self._purge is not None:
            self._purge.run()

    def _send(self, text: str) -> None:
        cursor = self.raw.cursor()
        cursor.execute(text)
        while cursor.nextset():
            pass
        cursor.close()

    def digest(self) -> Sight:
        """All that is in the tables but numbers and times, so that what was judged once need not be judged again."""
        found = []
        for statement in _DIGEST:
            cursor = self.raw.cursor()
            cursor.execute(statement)
            found.append(tuple(sorted(repr(tuple(row)) for row in cursor.fetchall())))
            cursor.close()
        return tuple(found)

    def close(self) -> None:
        self.judge.close()
        if self._purge is not None:
            self._purge.close()
        if hasattr(self, "raw"):
            self.raw.close()
        self.engine.dispose()


_DIGEST: Final[Iterable[str]] = (
    """SELECT r.name, c.kind, c.scope, c.used, c.reserved, c.used_below, c.reserved_below, c.maximum, c.minimum,
    c.over_quota FROM delimiter_counters c JOIN delimiter_resources r ON r.id = c.resource_id""",
    """SELECT claim_id, project_id, user_id, parent_id, external_id, live_external_id, state, expires_at IS NULL,
    children, a.resource_id, a.amount FROM delimiter_claims c LEFT JOIN delimiter_allocations a ON a.claim = c.id""",
    "SELECT resource_id, kind, scope, maximum, minimum FROM delimiter_limits",
    """SELECT p.project, p.parent, a.ancestor, a.distance FROM delimiter_projects p
    LEFT JOIN delimiter_ancestors a ON a.project = p.project""",
    "SELECT project_id, name FROM service_rows",
    """SELECT count(*) FROM delimiter_allocations a LEFT JOIN delimiter_claims c ON c.id = a.claim
    WHERE c.id IS NULL""",
)
