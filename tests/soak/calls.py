"""One call of the public interface, and its answer as a journal keeps it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from delimiter import Delimiter, DelimiterError, OverLimit, Request, StoreUnavailable
from delimiter.handlers.transacting import as_conflict
from soak.history import Journal
from soak.model import told
from soak.world import ROWS, named

METADATA = sa.MetaData()
#: The service's own rows: what is counted, and what is written in one transaction with a claim.
INSTANCES = sa.Table(
    "soak_instances",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("project_id", sa.String(64), index=True),
    sa.Column("user_id", sa.String(64), index=True),
)
SERVICE_ROWS = sa.Table("soak_rows", METADATA, sa.Column("id", sa.String(64), primary_key=True))


def error_of(error: DelimiterError) -> dict[str, Any]:
    answer: dict[str, Any] = {"error": type(error).__name__, "text": str(error)[:200]}
    if isinstance(error, OverLimit):
        answer["violations"] = violations_of(error.violations)
    if isinstance(error, StoreUnavailable):
        answer["in_doubt"] = error.in_doubt
    return answer


def violations_of(violations: Sequence[Any]) -> list[list[Any]]:
    return [[v.resource, v.scope, v.limit, v.used, v.requested, v.available] for v in violations]


class Calls:
    """The interface with a journal around it. ``engine``: for transactions of the caller's own, where there are any."""

    def __init__(self, quota: Delimiter, journal: Journal, engine: sa.Engine | None) -> None:
        self._quota = quota
        self._journal = journal
        self._engine = engine
        self._committing = threading.local()
        if engine is not None:
            owners = {"project": INSTANCES.c.project_id, "user": INSTANCES.c.user_id}
            quota.count(ROWS, sa.func.count(), **owners)

    def make(self, verb: str, args: dict[str, Any], repeats: str | None = None) -> tuple[str, dict[str, Any]]:
        """The operation's key in the journal, and the answer."""
        key = self._journal.invoke(verb, args, repeats)
        try:
            answer = self._transaction(key, args) if verb == "transaction" else self._own(verb, args)
        except DelimiterError as error:
            answer = error_of(error)
        except Exception as error:  # whatever it is, the checker is told
            answer = {"crash": f"{type(error).__name__}: {error}"[:400]}
        self._journal.answer(key, answer)
        return key, answer

    def _own(self, verb: str, args: Mapping[str, Any]) -> dict[str, Any]:
        match verb:
            case "usage":
                usage = self._quota.usage(**named(args["scope"]))  # type: ignore[arg-type]
                return {"ok": {name: [one.limit, one.used, one.reserved] for name, one in usage.items()}}
            case "check":
                found = self._quota.check(
                    args["resources"], project=args.get("project"), user=args.get("user")
                )
                return {"ok": found.allowed, "violations": violations_of(found.violations)}
            case "expire":
                return {"ok": self._quota.expire_reservations()}
            case "update_limits":
                scope: Any = named(args["scope"])
                over = self._quota.update_limits(args["resource"], max=args["max"], **scope)
                return {"ok": [[one.resource, one.scope, one.limit, one.used] for one in over]}
            case "move_project":
                self._quota.move_project(args["id"], parent=args["parent"])
                return {"ok": []}
            case _:
                return {"ok": self._on_claims(verb, args, None)}

    def _on_claims(self, verb: str, args: Mapping[str, Any], connection: Any) -> Any:
        quota = self._quota
        joined: dict[str, Any] = {} if connection is None else {"connection": connection}
        match verb:
            case "claim" | "reserve":
                request = dict(args["requests"][0])
                make: Any = quota.claim if verb == "claim" else quota.reserve
                return [told(make(request.pop("resources"), **request, **joined))]
            case "claim_all":
                return [
                    told(one)
                    for one in quota.claim_all([Request(**one) for one in args["requests"]], **joined)
                ]
            case "provision":
                return [told(quota.provision(args["id"], external_id=args.get("external_id"), **joined))]
            case "renew":
                return [told(quota.renew(args["id"], expires_in=args["expires_in"], **joined))]
            case "resize":
                return [told(quota.resize(args["id"], args["resources"], **joined))]
            case "transfer":
                owner = {"project": args.get("project"), "user": args.get("user")}
                return [told(quota.transfer(args["id"], **owner, **joined))]
            case "get":
                return [told(quota.get_claim(args["id"]))]
            case "release":
                quota.release(args["id"], **joined)
                return []
            case _:
                raise AssertionError(verb)

    # -- the caller's own transactions ------------------------------------------------------------------------------

    def _transaction(self, key: str, args: Mapping[str, Any]) -> dict[str, Any]:
        assert self._engine is not None
        try:
            connection = self._engine.connect()
        except sa.exc.SQLAlchemyError as error:
            return {"end": "aborted", "text": str(error)[:200]}
        try:
            for step in args["steps"]:
                started = time.monotonic_ns()
                answer = self._step(connection, step)
                self._journal.step(key, started, answer)
                if answer.get("error") in ("Conflict", "StoreUnavailable"):
                    return {"end": "aborted", "text": answer["text"]}
            if args["end"] == "rollback":
                connection.rollback()
                return {"end": "rolled_back"}
            return self._commit(connection)
        except sa.exc.SQLAlchemyError as error:  # in a statement of the service's own: COMMIT was not sent
            return {"end": "aborted", "text": str(error)[:200]}
        finally:
            with suppress(sa.exc.SQLAlchemyError):
                connection.close()

    def _commit(self, connection: sa.Connection) -> dict[str, Any]:
        try:
            connection.commit()
        except sa.exc.SQLAlchemyError as error:
            if as_conflict(error, connection) is not None:
                return {"end": "aborted", "text": str(error)[:200]}
            return {"error": "no answer to COMMIT", "in_doubt": True, "text": str(error)[:200]}
        return {"end": "committed"}

    def _step(self, connection: sa.Connection, step: Mapping[str, Any]) -> dict[str, Any]:
        verb, args = step["verb"], step["args"]
        try:
            match verb:
                case "guard":
                    self._add_row(connection, args)
                    return {"ok": []}
                case "remove_row":
                    gone = connection.execute(sa.delete(INSTANCES).where(INSTANCES.c.id == args["id"]))
                    return {"ok": gone.rowcount}
                case _:
                    claims = self._on_claims(verb, args, connection)
        except DelimiterError as error:
            return error_of(error)
        if verb in ("claim", "reserve", "claim_all"):
            self._write_rows(connection, [one["id"] for one in claims])
        return {"ok": claims}

    def _add_row(self, connection: sa.Connection, args: Mapping[str, Any]) -> None:
        owner = {"project": args.get("project"), "user": args.get("user")}
        guard = self._quota.guard({ROWS: 1}, **owner, connection=connection, optimistic=args["optimistic"])
        row = {"id": args["id"], "project_id": args.get("project"), "user_id": args.get("user")}
        with guard:
            connection.execute(sa.insert(INSTANCES).values(row))

    def _write_rows(self, connection: sa.Connection, ids: Sequence[str]) -> None:
        """They may be there already, when a transaction that was in doubt is made again."""
        for id in ids:
            connection.execute(sa.delete(SERVICE_ROWS).where(SERVICE_ROWS.c.id == id))
            connection.execute(sa.insert(SERVICE_ROWS).values(id=id))
