"""A claim costs the same with 200 and with 200,000 claims in the store: as many statements, and none that scans."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import CacheStats

from delimiter import Delimiter, OverLimit, Request

_MANY: Final = 200_000
_NUMBERS: Final = {
    "sqlite": "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count})"
    " SELECT n FROM s) AS s",
    "postgresql": "(SELECT generate_series(1, {count}) AS n) AS s",
    "mariadb": "(SELECT seq AS n FROM seq_1_to_{count}) AS s",
}
#: Every fourth claim is the busy project's, every tenth a reservation that lives long, every seventh has ended.
_CLAIMS: Final = """
INSERT INTO delimiter_claims (claim_id, project_id, user_id, parent_id, external_id, live_external_id, state,
  expires_at, ended_at, created_at, fingerprint, children, version)
SELECT CONCAT('bulk-', n), CASE WHEN n % 4 = 0 THEN 'busy' ELSE CONCAT('p', n % 1000) END,
  CASE WHEN n % 4 = 0 THEN 'busy' ELSE CONCAT('u', n % 1000) END,
  CASE WHEN n % 3 = 0 THEN CONCAT('bulk-', n - 1) END, CONCAT('vm-', n),
  CASE WHEN n % 7 <> 0 THEN CONCAT('vm-', n) END,
  CASE WHEN n % 7 = 0 THEN 'released' WHEN n % 10 = 0 THEN 'reserved' ELSE 'provisioned' END,
  CASE WHEN n % 7 <> 0 AND n % 10 = 0 THEN 9000000000000000 END, CASE WHEN n % 7 = 0 THEN 1 END, 1, 'none', 0, 0
FROM {numbers}
"""
_ALLOCATIONS: Final = """
INSERT INTO delimiter_allocations (claim, resource_id, amount)
SELECT c.id, r.id, 1 FROM delimiter_claims c, delimiter_resources r
WHERE c.claim_id LIKE 'bulk-%' AND r.name = 'cores'
"""
_COUNTERS: Final = """
INSERT INTO delimiter_counters (resource_id, kind, scope, used, reserved, maximum, minimum, generation)
SELECT r.id, '{kind}', c.{kind}_id, COUNT(*), SUM(CASE WHEN c.state = 'reserved' THEN 1 ELSE 0 END),
  1000000, 0, 0
FROM delimiter_claims c, delimiter_resources r
WHERE c.claim_id LIKE 'bulk-%' AND c.state <> 'released' AND r.name = 'cores'
GROUP BY r.id, c.{kind}_id
"""
_TOTAL: Final = """
UPDATE delimiter_counters SET
  used = used + (SELECT COUNT(*) FROM delimiter_claims c WHERE c.claim_id LIKE 'bulk-%' AND c.state <> 'released'),
  reserved = reserved +
    (SELECT COUNT(*) FROM delimiter_claims c WHERE c.claim_id LIKE 'bulk-%' AND c.state = 'reserved')
WHERE kind = 'total'
"""
_ANALYZE: Final = {
    "sqlite": "ANALYZE",
    "postgresql": "ANALYZE",
    "mariadb": "ANALYZE TABLE delimiter_claims, delimiter_allocations, delimiter_counters",
}
_BIG: Final = ("delimiter_claims", "delimiter_allocations", "delimiter_counters")


def _fill(engine: sa.Engine, store: str) -> None:
    """200,000 claims, written by the database itself."""
    numbers = _NUMBERS[store].format(count=_MANY)
    with engine.begin() as connection:
        if store == "sqlite":
            raw: Any = connection.connection.driver_connection
            raw.create_function("CONCAT", 2, lambda a, b: f"{a}{b}")
        statements = [_CLAIMS.format(numbers=numbers), _ALLOCATIONS]
        statements += [_COUNTERS.format(kind=kind) for kind in ("project", "user")]
        for statement in [*statements, _TOTAL]:
            connection.exec_driver_sql(statement.replace("%", "%%") if store != "sqlite" else statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(_ANALYZE[store])


class _Recorder:
    """What is sent to the database, statement by statement."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[tuple[str, Any]]]:
        self.sent = []
        sa.event.listen(sa.Engine, "before_cursor_execute", self._statement)
        sa.event.listen(sa.Engine, "commit", self._commit)
        try:
            yield self.sent
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", self._statement)
            sa.event.remove(sa.Engine, "commit", self._commit)

    def _statement(
        self, _c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, _many: bool
    ) -> None:
        first = parameters[0] if isinstance(parameters, list) and parameters else parameters
        self.sent.append((statement, first))

    def _commit(self, _connection: Any) -> None:
        self.sent.append(("COMMIT", None))


def _verbs(quota: Delimiter, tag: str) -> dict[str, Callable[[], object]]:
    owner: dict[str, Any] = {"project": "acme", "user": "john"}

    def refused() -> None:
        with pytest.raises(OverLimit):
            quota.claim({"cores": 10**9, "ram": 1}, project="busy", user="busy")

    return {
        "claim": lambda: quota.claim({"cores": 1, "ram": 1}, **owner, id=f"{tag}1", external_id=f"{tag}x"),
        "claim of the busy": lambda: quota.claim({"cores": 1}, project="busy", user="busy", id=f"{tag}b"),
        "replay": lambda: quota.claim({"cores": 1, "ram": 1}, **owner, id=f"{tag}1", external_id=f"{tag}x"),
        "child": lambda: quota.claim({"cores": 1}, **owner, id=f"{tag}2", parent=f"{tag}1"),
        "list": lambda: quota.claim_all(
            [Request({"cores": 1}, **owner, id=f"{tag}3{n}", parent=f"{tag}1") for n in range(5)]
        ),
        "refused": refused,
        "reserve": lambda: quota.reserve({"cores": 1}, **owner, id=f"{tag}r", expires_in=600),
        "renew": lambda: quota.renew(f"{tag}r", expires_in=900),
        "provision": lambda: quota.provision(f"{tag}r", external_id=f"{tag}y"),
        "resize": lambda: quota.resize(f"{tag}x", {"cores": 2}),
        "transfer": lambda: quota.transfer(f"{tag}1", project="zeta", user="mary"),
        "check": lambda: quota.check({"cores": 1}, project="busy", user="busy"),
        "usage": lambda: quota.usage(project="busy"),
        "get": lambda: quota.get_claim(f"{tag}y"),
        "sweep": quota.expire_reservations,
        "release": lambda: quota.release(f"{tag}1"),
        "release by name": lambda: quota.release(f"{tag}y"),
    }


def _measure(quota: Delimiter, tag: str) -> dict[str, list[tuple[str, Any]]]:
    for verb in _verbs(quota, f"{tag}-warm").values():  # counters are made once, and ways remembered
        verb()
    found = {}
    for name, verb in _verbs(quota, tag).items():
        with _Recorder().recording() as sent:
            verb()
        found[name] = list(sent)
    return found


def _scans(connection: sa.Connection, store: str, statement: str, parameters: Any) -> list[str]:
    """Lines of the plan that read a large table from one end to the other."""
    if not statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
        return []
    prefix = "EXPLAIN QUERY PLAN " if store == "sqlite" else "EXPLAIN "
    rows = connection.exec_driver_sql(prefix + statement, parameters).all()
    if store == "mariadb":
        large = [row for row in rows if str(row.rows or "").isdecimal() and int(row.rows) > 1000]
        return [str(row) for row in large if row.type in ("ALL", "index")]
    lines = [str(row[-1]) for row in rows]
    if store == "postgresql":
        return [line for line in lines if "Seq Scan" in line and any(name in line for name in _BIG)]
    return [line for line in lines if line.startswith("SCAN") and any(name in line for name in _BIG)]


@pytest.mark.slow
def test_the_cost_does_not_grow(store_url: str, store_name: str) -> None:
    """Guards: the indexes of claims, and counters in place of sums; a verb that summed or searched would scan."""
    engine = sa.create_engine(store_url, poolclass=sa.NullPool)
    with Delimiter(store_url) as quota:
        quota.define_resource("cores", max=10_000_000, project_max=1_000_000, user_max=1_000_000)
        quota.define_resource("ram", project_max=1_000_000)
        for number in range(20):
            quota.claim_all(
                [Request({"cores": 1, "ram": 1}, project=f"q{number}", user="john") for _ in range(10)]
            )
        quota.reserve({"cores": 1}, project="busy", user="busy", expires_in=6000)
        few = _measure(quota, "few")
        for claim in list(quota.claims(project="busy")):
            quota.release(claim.id)
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM delimiter_counters WHERE scope = 'busy'")
        _fill(engine, store_name)
        assert quota.usage(project="busy")["cores"].used > _MANY // 5
        many = _measure(quota, "many")
        counts = {name: len(sent) for name, sent in few.items()}
        assert {name: len(sent) for name, sent in many.items()} == counts
        assert counts["claim"] <= 7, counts
        scanned: list[str] = []
        for name in ("check", "usage"):  # for what ran out PostgreSQL may read all allocations
            del many[name]
        with engine.connect() as connection:
            for name, sent in many.items():
                for statement, parameters in sent:
                    lines = _scans(connection, store_name, statement, parameters)
                    scanned += [f"{name}: {line.strip()}: {statement[:60]}" for line in lines]
        assert scanned == [], "\n".join(dict.fromkeys(scanned))


def test_a_store_that_is_opened_again_on_the_same_engine_compiles_nothing(store_url: str) -> None:
    """A service may open one for every request. Guard: ``tables_of``; without it each has tables of its own."""
    engine = sa.create_engine(store_url)
    compiled: list[str] = []

    @sa.event.listens_for(engine, "after_cursor_execute")
    def look(_c: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        if context.cache_hit is CacheStats.CACHE_MISS:
            compiled.append(statement)

    for _ in range(3):  # the second time more is there already, and other statements are enough
        compiled.clear()
        with Delimiter(engine) as quota:
            quota.define_resource("cores", user_max=9)
            quota.release(quota.claim({"cores": 1}, user="john").id)
    assert compiled == []
    engine.dispose()
