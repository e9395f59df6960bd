"""Counted resources at the desk: what is counted from the service's own tables, and the guard around its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from delimiter import validation
from delimiter.changes import NewClaim
from delimiter.counted import Counted, Guard, GuardRequest, MissingIndex
from delimiter.errors import InvalidRequest
from delimiter.ids import new_id
from delimiter.model import Claim, Drift
from delimiter.watching import Watching, owner

if TYPE_CHECKING:
    from delimiter.model import CallersConnection

__all__ = ["Counting"]


class Counting(Watching):
    """Resources whose usage is a sum over rows that really exist, with no number of it stored anywhere."""

    def count(
        self, resource: str, amount: Any, *, project: Any = None, user: Any = None, where: Any = None
    ) -> None:
        """From now on this resource's usage is counted from the service's own table; call it at every start.

        The arguments are SQLAlchemy expressions over columns (of Core tables or mapped classes) in the same
        database: ``amount`` adds up rows, as ``func.count()`` or ``func.sum(Instance.memory_mb)`` do; ``project`` and
        ``user`` are the columns that say whose a row is; ``where`` leaves rows out (``Instance.deleted_at.is_(None)``)
        or joins another table (``Volume.type_id == VolumeType.id``). A row without a project counts in the total alone.
        ``usage``, ``check``, ``limits`` and all others cover it; rows are written inside :meth:`guard`, and deleted
        without asking anybody. Again: the new expressions hold. ``InvalidRequest`` for what cannot be counted by,
        ``Unsupported`` where the store is no SQL database, ``Conflict``, ``StoreUnavailable``.

        (Usage as a sum over what exists, with no second record of it, is how Jay Pipes argued quotas should be kept.)

        >>> import tempfile
        >>> from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, insert
        >>> instances = Table("instances", MetaData(), Column("id", Integer, primary_key=True),
        ...                   Column("project_id", String(255), index=True))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     engine = create_engine(f"sqlite:///{folder}/service.db")
        ...     instances.metadata.create_all(engine)
        ...     quota = Delimiter(engine)
        ...     quota.define_resource("compute.instances", project_max=10)
        ...     quota.count("compute.instances", func.count(), project=instances.c.project_id)
        ...     with engine.begin() as connection:
        ...         with quota.guard({"compute.instances": 2}, project="acme", connection=connection):
        ...             done = connection.execute(insert(instances), [{"project_id": "acme"}, {"project_id": "acme"}])
        ...     print(quota.usage(project="acme")["compute.instances"].used)
        ...     engine.dispose()
        2
        """
        name = validation.name(resource, "the resource's name")
        counted = Counted(amount, project, user, where)
        self._run(lambda: self._engine.count(name, counted))

    def guard(
        self,
        resources: Mapping[str, int],
        *,
        project: str | None = None,
        user: str | None = None,
        connection: CallersConnection,
        optimistic: bool = False,
        id: str | None = None,
        parent: str | None = None,
        external_id: str | None = None,
        expires_in: float | timedelta | None = None,
    ) -> AbstractContextManager[Claim | None]:
        """A context manager around the rows that use what is asked for, in the caller's transaction.

        Entering locks the guards of the project, its ancestors, the user and the deployment, as far as they have
        limits, counts, and raises ``OverLimit`` if there is no room. The caller writes its rows inside. Leaving
        flushes, counts again, and raises ``OverLimit`` if more came in than was asked for, even where the limits have
        room. Whatever is raised, inside or on leaving, takes back what was written inside (a savepoint), and the
        transaction is usable; after ``Conflict`` the caller must roll back and start anew.

        ``optimistic=True`` locks nothing on entering: leaving compares and raises the guards' revisions, and raises
        ``Conflict`` if somebody was there. It suits clusters that take writes on several nodes, and rows that are
        seldom fought over. Tracked resources in the mapping become an ordinary claim, yielded by ``as`` (``None`` if
        there are none); ``id``, ``parent``, ``external_id`` and ``expires_in`` (seconds or ``timedelta``: then it is a
        reservation) are that claim's. Guards do not nest in one transaction. Also raises ``UnknownResource``,
        ``InvalidRequest`` and what ``claim`` raises; for an example see :meth:`count`.
        """
        request = self._guard_request(
            resources,
            project=project,
            user=user,
            optimistic=optimistic,
            id=id,
            parent=parent,
            external_id=external_id,
            expires_in=expires_in,
            connection=connection,
        )
        return self._guarding(request, connection)

    @contextmanager
    def _guarding(self, request: GuardRequest, connection: CallersConnection) -> Iterator[Claim | None]:
        guard = self._enter_guard(request, connection=connection)
        try:
            yield guard.claim
        except BaseException:
            guard.abandon()
            raise
        self._leave_guard(guard, connection=connection)

    def _enter_guard(self, request: GuardRequest, *, connection: CallersConnection) -> Guard:
        self._freshness.freshen(request.scopes, connection)
        claim_id = None if request.claim is None else request.claim.id
        return self._run(
            lambda: self._engine.enter_guard(request, connection=connection),
            connection=connection,
            claim_id=claim_id,
        )

    def _leave_guard(self, guard: Guard, *, connection: CallersConnection) -> None:
        claim_id = None if guard.claim is None else guard.claim.id
        self._run(guard.leave, connection=connection, claim_id=claim_id)

    def _guard_request(
        self,
        resources: Mapping[str, int],
        *,
        project: str | None,
        user: str | None,
        optimistic: bool,
        id: str | None,
        parent: str | None,
        external_id: str | None,
        expires_in: float | timedelta | None,
        connection: CallersConnection | None,
    ) -> GuardRequest:
        asked = validation.amounts(resources)
        owner(project, user)
        if connection is None:
            raise InvalidRequest("guard needs connection=: the transaction in which the rows are written")
        if not isinstance(optimistic, bool):
            raise InvalidRequest(f"optimistic is True or False, not {optimistic!r}")
        id = validation.optional_name(id, "id")
        parent = validation.optional_name(parent, "parent")
        external_id = validation.optional_name(external_id, "external_id")
        time_left = None if expires_in is None else validation.microseconds(expires_in, "expires_in")
        known = self._engine.counted_here()
        tracked = {name: amount for name, amount in asked.items() if name not in known}
        if not tracked and any(given is not None for given in (id, parent, external_id, expires_in)):
            raise InvalidRequest(
                "id, parent, external_id and expires_in are those of the claim on tracked resources, but all that are"
                " named here are counted"
            )
        claim = NewClaim(
            id=new_id() if id is None else id,
            resources=tracked,
            project=project,
            user=user,
            parent=parent,
            external_id=external_id,
            expires_in=time_left,
        )
        return GuardRequest(
            counted={name: amount for name, amount in asked.items() if name in known},
            claim=claim if tracked else None,
            project=project,
            user=user,
            optimistic=optimistic,
        )

    def counted(self) -> dict[str, str]:
        """The counted resources, also those that other processes count, with the table each is counted from.

        >>> Delimiter("memory://").counted()
        {}
        """
        return self._run(self._engine.counted)

    def reconcile_counted(
        self, resource: str, amount: Any, *, project: Any = None, user: Any = None, where: Any = None
    ) -> Iterator[Drift]:
        """Compare a *tracked* resource with what the rows of a table add up to: the arguments of :meth:`count`.

        Yields a ``Drift`` for each project and user whose own claims (without those of projects below) come to another
        sum. A reservation may have its row already or not yet: both agree. Nothing is repaired: a sum does not tell
        which claim is wrong; a listing of what exists does. Raises what :meth:`count` does, ``UnknownResource`` too.

        >>> import tempfile
        >>> from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func
        >>> volumes = Table("volumes", MetaData(), Column("project_id", String(255)), Column("gb", Integer))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     engine = create_engine(f"sqlite:///{folder}/service.db")
        ...     volumes.metadata.create_all(engine)
        ...     quota = Delimiter(engine)
        ...     quota.define_resource("storage.gb")
        ...     claim = quota.claim({"storage.gb": 20}, project="acme")
        ...     gb, project = func.sum(volumes.c.gb), volumes.c.project_id
        ...     for drift in quota.reconcile_counted("storage.gb", gb, project=project):
        ...         print(drift.scope, drift.recorded, drift.actual)
        ...     engine.dispose()
        project:acme 20 0
        """
        name = validation.name(resource, "the resource's name")
        counted = Counted(amount, project, user, where)
        return iter(self._run(lambda: list(self._engine.counted_drifts(name, counted))))

    def missing_indexes(self) -> list[MissingIndex]:
        """The columns that guards look rows up by without an index, each with the DDL that makes one.

        >>> Delimiter("memory://").missing_indexes()
        []
        """
        return self._run(self._engine.missing_indexes)
