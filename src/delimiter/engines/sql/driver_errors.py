"""What a driver's errors mean to a caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    ResourceClosedError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from delimiter.engines.sql.databases import Database, Fault
from delimiter.errors import Conflict, DelimiterError, InvalidRequest, StoreUnavailable

__all__ = ["DriverErrors"]


class DriverErrors:
    """Of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def met_another(self, error: SQLAlchemyError) -> bool:
        """Whether a statement of the caller's own failed because of another transaction, and not of its own rows."""
        return not isinstance(error, IntegrityError) and isinstance(self._translated(error), Conflict)

    def waited_in_vain(self, error: Conflict) -> bool:
        """Whether somebody else kept a lock for longer than this waited."""
        cause = error.__cause__
        return isinstance(cause, DBAPIError) and self._fault(cause) is Fault.LOCK_WAIT

    @contextmanager
    def translating(self, *, at_once: bool = False) -> Iterator[None]:
        """No driver's exception leaves this block. ``at_once``: what it sends may be committed without an answer."""
        try:
            yield
        except SQLAlchemyError as error:
            raise self._translated(error, at_once=at_once) from error
        except UnicodeError as error:  # the driver could not encode a name for this connection
            raise InvalidRequest("the connection cannot carry this text; it should use UTF-8") from error

    def _translated(
        self, error: SQLAlchemyError, *, committing: bool = False, at_once: bool = False
    ) -> DelimiterError:
        if isinstance(error, PendingRollbackError):
            return Conflict("the caller's transaction has failed before; roll back and start anew")
        if isinstance(error, ResourceClosedError):
            return InvalidRequest(f"the connection cannot be used: {error}")
        if isinstance(error, PoolTimeout):
            return StoreUnavailable("no connection became free in time; enlarge the pool or ask less at once")
        if not isinstance(error, DBAPIError) or error.orig is None:
            return StoreUnavailable(
                f"the database layer failed: {_first_line(error)}", in_doubt=committing, retryable=False
            )
        text = _first_line(error.orig)
        match self._fault(error):
            case Fault.CONFLICT | Fault.LOCK_WAIT:
                return Conflict(f"another transaction was in the way: {text}")
            case _ if committing:
                return StoreUnavailable(f"no answer to COMMIT: {text}", in_doubt=True)
            case Fault.NO_TABLES:
                return StoreUnavailable(
                    f"Delimiter's tables are not there, or older than this version ({text}); open the store once"
                    " with create=True and the same schema and table_prefix. (A connection that was handed over must"
                    " be to the same database.)",
                    retryable=False,
                )
            case Fault.NO_SCHEMA:
                return StoreUnavailable(f"{text}: create the schema or database first", retryable=False)
            case Fault.FORBIDDEN:
                return StoreUnavailable(
                    f"the database user lacks a right ({text}); it needs SELECT, INSERT, UPDATE and DELETE on"
                    " Delimiter's tables, and more only to make them",
                    retryable=False,
                )
            case Fault.UNENCODABLE:
                return InvalidRequest(f"the database cannot store this text ({text}); it should use UTF-8")
            case None:
                pass
        passing = self.database.remote and (
            error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        )
        return StoreUnavailable(
            f"the store is not available: {text}", in_doubt=at_once and passing, retryable=passing
        )

    def _fault(self, error: DBAPIError) -> Fault | None:
        if error.connection_invalidated or error.orig is None:
            return None
        return self.database.faults.get(self.database.code(error.orig))


def _first_line(error: BaseException) -> str:
    # Only the first line: drivers append the statement, and SQLAlchemy its parameters.
    args = error.args[1:] if len(error.args) > 1 and isinstance(error.args[0], int) else error.args[:1]
    return " ".join(str(arg) for arg in args).strip().partition("\n")[0] or type(error).__name__
