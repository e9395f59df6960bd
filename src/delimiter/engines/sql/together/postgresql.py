"""PostgreSQL: one statement whose parts hand each other what they have written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from delimiter.engines.sql.databases import milliseconds
from delimiter.engines.sql.ground import Ground
from delimiter.engines.sql.together.gathering import Batch
from delimiter.engines.sql.together.writer import AtOnceWriter, Written

__all__ = ["PostgreSQLWriter"]

_CLAIMS: Final = {
    "ids": "text",
    "projects": "text",
    "users": "text",
    "externals": "text",
    "times": "bigint",
    "fingerprints": "text",
}
_CHARGES: Final = ("used", "generation", "reserved", "used_below", "reserved_below")

#: Those of which most batches have none.
_SELDOM: Final = _CHARGES[2:]

#: The only error that carries words without a function of ours in the database: of something that is no number.
_NO_ROOM: Final = "Delimiter decides again: not all have room (no fault)"


class PostgreSQLWriter(AtOnceWriter):
    """The values come as arrays. Nothing of ``locked`` is read before all of ``placed`` is written: it needs the count.

    ``locked`` waits for its rows, and shows each as it is after the wait; ``added`` writes onto that. What is a
    transaction of its own has written everything else before it locks, so that others wait for little more than the
    COMMIT; and it fails where it must not stay, since nothing else would take it back.
    """

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        #: By patience, and whether they are transactions of their own.
        self._statements: dict[tuple[float | None, bool], sa.TextClause] = {}

    def write(
        self, connection: sa.Connection, batch: Batch, *, joined: bool = False, patience: float | None = None
    ) -> Written:
        statement = self._statement(connection, patience, at_once=False)
        admitted, times, placed, now = connection.execute(statement, self._values(batch)).one()
        if admitted:
            return Written(admitted=True, times=_read(times))
        rows = _read(placed)
        return Written(admitted=False, placed=rows, locked=len(rows) == len(batch.claims), now=now)

    def write_at_once(
        self, connection: sa.Connection, batch: Batch, *, patience: float | None = None
    ) -> Written:
        statement = self._statement(connection, patience, at_once=True)
        try:
            _, times = connection.execute(statement, self._values(batch)).one()
        except sa.exc.DBAPIError as error:
            if _NO_ROOM in str(error.orig):
                return Written(admitted=False, locked=True)
            if isinstance(error, sa.exc.IntegrityError):  # an id is known
                return Written(admitted=False)
            raise
        return Written(admitted=True, times=_read(times))

    def _statement(
        self, connection: sa.Connection, patience: float | None, *, at_once: bool
    ) -> sa.TextClause:
        statement = self._statements.get((patience, at_once))
        if statement is None:
            names = {name: text.replace(":", "\\:") for name, text in self._names(connection).items()}
            build = self._at_once if at_once else self._or_left
            statement = self._statements[patience, at_once] = sa.text(build(names, patience))
        return statement

    def _values(self, batch: Batch) -> dict[str, Any]:
        claims, charges = batch.claims, batch.charges.values()
        places = {claim.id: number for number, claim in enumerate(claims, start=1)}
        return {
            "ids": _texts(claim.id for claim in claims),
            "projects": _texts(claim.project for claim in claims),
            "users": _texts(claim.user for claim in claims),
            "externals": _texts(claim.external_id for claim in claims),
            "times": _numbers(claim.expires_in for claim in claims),
            "fingerprints": _texts(claim.fingerprint for claim in claims),
            "claims": len(claims),
            "holders": _numbers(places[id] for id, _, _ in batch.amounts),
            "resources": _numbers(resource for _, resource, _ in batch.amounts),
            "amounts": _numbers(amount for _, _, amount in batch.amounts),
            "keys": _numbers(batch.charges),
            "used": _numbers(charge.used for charge in charges),
            "generation": _numbers(charge.generation for charge in charges),
            **{name: _if_any([getattr(charge, name) for charge in charges]) for name in _SELDOM},
            "counters": len(charges),
            "offset": self._clock.offset,
        }

    def _at_once(self, names: Mapping[str, str], patience: float | None) -> str:
        return f"""
WITH asked AS MATERIALIZED ({self._asked(names)}),
placed AS ({self._insert(names, patience)} RETURNING claim_id, expires_at),
held AS ({_hold(names)} RETURNING claim),
locked AS MATERIALIZED ({self._lock(names, _uncounted)} AND (SELECT count(*) FROM held) > 0 {_IN_ORDER}),
decided AS ({_DECIDE}),
added AS ({_add(names)})
SELECT CAST(CASE WHEN decided.admitted THEN '1' ELSE '{_NO_ROOM}' END AS bigint), {_TIMES} FROM decided
"""  # noqa: S608 - our own names

    def _or_left(self, names: Mapping[str, str], patience: float | None) -> str:
        return f"""
WITH asked AS MATERIALIZED ({self._asked(names)}),
placed AS ({self._insert(names, patience)} ON CONFLICT DO NOTHING RETURNING id, claim_id, expires_at, created_at),
locked AS MATERIALIZED ({self._lock(names, _array)} {_IN_ORDER}),
decided AS ({_DECIDE}),
added AS ({_add(names)}),
held AS ({_hold(names)} JOIN decided ON decided.admitted)
SELECT decided.admitted, {_TIMES},
  CASE WHEN decided.admitted THEN NULL ELSE (SELECT CAST(json_object_agg(claim_id, id) AS text) FROM placed) END,
  CASE WHEN decided.admitted THEN NULL ELSE (SELECT min(created_at) FROM placed) END
FROM decided
"""  # noqa: S608 - our own names

    @staticmethod
    def _asked(names: Mapping[str, str]) -> str:
        table = names["claims"].replace("'", "''")
        return f"""
  SELECT nextval((SELECT CAST(pg_get_serial_sequence('{table}', 'id') AS regclass))) AS id, n.*
  FROM unnest({", ".join(_array(name, of) for name, of in _CLAIMS.items())})
       WITH ORDINALITY AS n({", ".join(_CLAIMS)}, place)"""  # noqa: S608 - our own names

    def _insert(self, names: Mapping[str, str], patience: float | None) -> str:
        now = self._now.replace(":", "\\:")
        # Before anything is locked, and for this transaction: one round trip less than a SET LOCAL.
        wait = "" if patience is None else f", set_config('lock_timeout', '{milliseconds(patience)}', true)"
        return f"""
  INSERT INTO {names["claims"]} (id, claim_id, project_id, user_id, external_id, live_external_id, state, expires_at,
                                 fingerprint, children, version, created_at)
  SELECT n.id, n.ids, n.projects, n.users, n.externals, n.externals,
         CASE WHEN n.times IS NULL THEN 'provisioned' ELSE 'reserved' END, c.now + n.times, n.fingerprints, 0, 0, c.now
  FROM asked n, (SELECT {now} + CAST(:offset AS bigint) AS now{wait}) AS c"""  # noqa: S608 - our own names

    def _lock(self, names: Mapping[str, str], array: Callable[[str, str], str]) -> str:
        return f"""
  SELECT k.id, k.generation = coalesce(n.generation, k.generation) AND k.{self._room("n.used")} AS fits, n.used,
         {", ".join(f"coalesce(n.{name}, 0) AS {name}" for name in _SELDOM)}
  FROM unnest({", ".join(array(name, "bigint") for name in ("keys", *_CHARGES))}) AS n(id, {", ".join(_CHARGES)})
  JOIN {names["counters"]} k ON k.id = n.id
  WHERE (SELECT count(*) FROM placed) = CAST(:claims AS bigint)"""  # noqa: S608 - our own names


_IN_ORDER: Final = "ORDER BY k.id FOR NO KEY UPDATE OF k"
_DECIDE: Final = "SELECT count(*) = CAST(:counters AS bigint) AND bool_and(fits) AS admitted FROM locked"
_TIMES: Final = (
    "(SELECT CAST(json_object_agg(claim_id, expires_at) AS text) FROM placed WHERE expires_at IS NOT NULL)"
)


def _hold(names: Mapping[str, str]) -> str:
    holders, resources, amounts = (_array(name, "bigint") for name in ("holders", "resources", "amounts"))
    return f"""
  INSERT INTO {names["allocations"]} (claim, resource_id, amount)
  SELECT a.id, n.resource, n.amount
  FROM unnest({holders}, {resources}, {amounts}) AS n(place, resource, amount) JOIN asked a ON a.place = n.place"""  # noqa: S608


def _add(names: Mapping[str, str]) -> str:
    return f"""
  UPDATE {names["counters"]} k
  SET used = k.used + l.used, reserved = k.reserved + l.reserved,
      used_below = k.used_below + l.used_below, reserved_below = k.reserved_below + l.reserved_below
  FROM locked l, decided WHERE k.id = l.id AND decided.admitted"""  # noqa: S608 - our own names


def _read(numbers: str | None) -> dict[str, int]:
    """JSON that came as text: what a driver makes of JSON itself differs, and the service may have changed it."""
    return json.loads(numbers) if numbers else {}


def _array(name: str, of: str) -> str:
    """As text first: a driver that looks at the type would ask for a list, which takes longer to write."""
    return f"CAST(CAST(:{name} AS text) AS {of}[])"


def _uncounted(name: str, of: str) -> str:
    """In a query of its own, so that the planner does not count what is in it.

    For many counters it would read all of a table that is not large yet. For few it finds each by its number, and that
    is the right way for many, too.
    """
    return f"(SELECT {_array(name, of)})"


def _if_any(values: Sequence[int]) -> str:
    """Nothing for a column of zeros: it is shorter than the others then, and what it lacks is read as NULL."""
    return _numbers(values) if any(values) else "{}"


def _texts(values: Iterable[str | None]) -> str:
    """An array of PostgreSQL as text. Its quoting is JSON's where there are no control characters; names have none."""
    return "{" + json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))[1:-1] + "}"


def _numbers(values: Iterable[int | None]) -> str:
    """An array of PostgreSQL as text. Python's text of a list is the same but for its ends, and quickly made."""
    return "{" + str(list(values))[1:-1].replace("None", "NULL") + "}"
