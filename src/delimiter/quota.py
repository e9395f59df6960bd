"""The desk: who is charged, against which limits, and what the caller is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar, get_args

from delimiter import validation
from delimiter.changes import Admit, Change, NewClaim, Provision, Release, Renew, Resize, Transfer
from delimiter.engine import Answer, ClaimQuery
from delimiter.errors import DelimiterError, InvalidRequest, UnknownClaim
from delimiter.ids import new_id
from delimiter.model import Claim, ClaimState, Request, Scope
from delimiter.reconciling import Reconciling
from delimiter.watching import owner

if TYPE_CHECKING:
    from delimiter.model import CallersConnection

__all__ = ["Delimiter", "claims_of"]

T = TypeVar("T")


class Delimiter(Reconciling):
    """Keeps projects and users inside their quotas.

    ``url_or_engine`` is a URL (``sqlite:///quota.db``, ``postgresql+psycopg://…``, ``mysql+pymysql://…``,
    ``zookeeper://h1:2181,h2:2181/path``, ``memory://``) or an ``sqlalchemy.Engine`` the service already has. Opening
    does no I/O. ``create=True`` makes or upgrades the tables at the first call, safely when many processes start at
    once; ``create=False`` never issues DDL. ``schema`` and ``table_prefix`` say where the tables lie. ``timeout``
    (seconds) bounds one call in a transaction of its own: waiting for locks, and trying again. (A server that stops in
    the middle of an answer is for TCP to notice.)
    ``limits`` and ``projects`` are sources of limits and of the tree outside the store (:mod:`delimiter.sources`, or
    any object with the method of :class:`~delimiter.source.LimitSource`, :class:`~delimiter.source.ProjectSource`).

    Where ``connection=`` is given (a ``Connection`` or ``Session`` in a transaction), the change commits or rolls back
    with the caller's own rows: after ``OverLimit`` the transaction is usable, after ``Conflict`` the caller must roll
    back and start anew. Safe to share between threads.

    The verbs are those proposed for Delimiter on the OpenStack developers' list in April 2016.

    >>> quota = Delimiter("memory://")
    >>> quota.define_resource("database.instances", max=2000, user_max=25)
    >>> claim = quota.claim({"database.instances": 1}, project="acme", user="john")
    >>> quota.usage(user="john")["database.instances"].used
    1
    >>> quota.release(claim.id)
    """

    def claim(
        self,
        resources: Mapping[str, int],
        *,
        project: str | None = None,
        user: str | None = None,
        id: str | None = None,
        parent: str | None = None,
        external_id: str | None = None,
        connection: CallersConnection | None = None,
    ) -> Claim:
        """Consume all of it now, or raise and consume nothing.

        Charged to the user, the project, every ancestor of the project, and the deployment; each that has a limit must
        have room, else ``OverLimit``.
        ``id`` is the caller's idempotency key: the same request again returns the claim and consumes nothing, another
        request under it is ``ClaimConflict``. ``parent`` is the claim this one hangs on and is released with. Also
        raises ``UnknownResource``, ``UnknownClaim`` (the parent), ``ClaimExpired``, ``ClaimReleased``,
        ``InvalidRequest``, ``Conflict``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=20)
        >>> quota.claim({"storage.gb": 15}, project="acme", id="volume-1").state
        'provisioned'
        """
        claim = _new_claim(resources, project, user, id, parent, external_id, None)
        return self._admit((claim,), connection, _only)

    def reserve(
        self,
        resources: Mapping[str, int],
        *,
        expires_in: float | timedelta,
        project: str | None = None,
        user: str | None = None,
        id: str | None = None,
        parent: str | None = None,
        external_id: str | None = None,
        connection: CallersConnection | None = None,
    ) -> Claim:
        """The same as ``claim``, for something still being made: gone by itself unless provisioned in time.

        ``expires_in`` is in seconds, or a ``timedelta``. No transaction is open meanwhile. (Two phases,
        as in a ledger's pending transfers.)

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("database.instances", user_max=25)
        >>> held = quota.reserve({"database.instances": 1}, user="john", expires_in=600)
        >>> quota.provision(held.id, external_id="i-4711").state
        'provisioned'
        """
        time_left = validation.microseconds(expires_in, "expires_in")
        claim = _new_claim(resources, project, user, id, parent, external_id, time_left)
        return self._admit((claim,), connection, _only)

    def claim_all(
        self, requests: Iterable[Request], *, connection: CallersConnection | None = None
    ) -> list[Claim]:
        """Several claims and reservations, all or nothing, in one atomic step and one lock order.

        A ``parent`` may name the id of an earlier one. In a refusal ``requested`` is the sum over the list.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("database.clusters", user_max=4)
        >>> quota.define_resource("database.instances", user_max=25)
        >>> cluster = Request({"database.clusters": 1}, user="john", id="c1", expires_in=600)
        >>> nodes = [Request({"database.instances": 1}, user="john", parent="c1", expires_in=600) for _ in range(4)]
        >>> len(quota.claim_all([cluster, *nodes]))
        5
        """
        claims = tuple(_requested(request) for request in requests)
        if not claims:
            raise InvalidRequest("an empty list claims nothing: hand over at least one Request")
        if len({claim.id for claim in claims}) < len(claims):
            raise InvalidRequest("one id stands twice in the list: each claim needs an id of its own")
        return self._admit(claims, connection, list)

    def provision(
        self, id: str, *, external_id: str | None = None, connection: CallersConnection | None = None
    ) -> Claim:
        """The reserved thing exists now: it counts until released, known by its own id too.

        This claim alone. Again: harmless. ``ClaimExpired`` if the reservation ran out: nothing is consumed, so give
        the thing back or claim anew. ``ClaimConflict`` if the external id belongs to another live claim.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("database.instances", user_max=25)
        >>> held = quota.reserve({"database.instances": 1}, user="john", expires_in=600)
        >>> quota.provision(held.id, external_id="i-4711").external_id
        'i-4711'
        """
        external_id = validation.optional_name(external_id, "external_id")
        return self._change(Provision(validation.name(id, "id"), external_id), connection)

    def renew(
        self, id: str, *, expires_in: float | timedelta, connection: CallersConnection | None = None
    ) -> Claim:
        """A live reservation lives ``expires_in`` (seconds or ``timedelta``) from now.

        Of a provisioned claim ``InvalidRequest``: it does not run out. Also raises ``UnknownClaim``, ``ClaimExpired``,
        ``ClaimReleased``, ``Conflict``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("database.instances", user_max=25)
        >>> held = quota.reserve({"database.instances": 1}, user="john", expires_in=60)
        >>> quota.renew(held.id, expires_in=3600).expires_at > held.expires_at
        True
        """
        time_left = validation.microseconds(expires_in, "expires_in")
        return self._change(Renew(validation.name(id, "id"), time_left), connection)

    def resize(
        self,
        id: str,
        resources: Mapping[str, int],
        *,
        force: bool = False,
        connection: CallersConnection | None = None,
    ) -> Claim:
        """Give a claim its whole new content: a name left out is freed, a new one is claimed.

        Only differences are checked; what shrinks is never refused by an upper limit, even over quota. A shrink below
        a floor is ``BelowMinimum`` unless ``force``, a growth without room ``OverLimit``. Also raises
        ``UnknownResource``, ``UnknownClaim``, ``ClaimExpired``, ``ClaimReleased``, ``InvalidRequest``, ``Conflict``,
        ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=20)
        >>> volume = quota.claim({"storage.gb": 15}, project="acme")
        >>> dict(quota.resize(volume.id, {"storage.gb": 20}).resources)
        {'storage.gb': 20}
        """
        if self._freshness.needed:
            with suppress(UnknownClaim):  # the change itself will say so
                claim = self.get_claim(id)
                self._freshness.freshen(Scope.owned(claim.project, claim.user), connection)
        return self._change(
            Resize(validation.name(id, "id"), validation.amounts(resources), bool(force)), connection
        )

    def transfer(
        self,
        id: str,
        *,
        project: str | None = None,
        user: str | None = None,
        connection: CallersConnection | None = None,
    ) -> Claim:
        """To another owner, with everything below it; the owner becomes exactly what is named.

        Checked against the new owner's limits; only the net difference of each scope counts. Raises ``OverLimit``,
        ``UnknownClaim``, ``ClaimExpired``, ``ClaimReleased``, ``InvalidRequest``, ``Conflict``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=20)
        >>> volume = quota.claim({"storage.gb": 15}, project="acme")
        >>> quota.transfer(volume.id, project="globex").project
        'globex'
        """
        self._freshness.freshen(owner(project, user), connection)
        return self._change(Transfer(validation.name(id, "id"), project, user), connection)

    def release(self, id: str, *, force: bool = False, connection: CallersConnection | None = None) -> None:
        """Give back a claim and everything below it, in one atomic step.

        By its id or its external id. Of an ended claim: harmless. ``UnknownClaim`` if it was never known,
        ``BelowMinimum`` if a floor would be broken (unless ``force``).

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb", project_max=20)
        >>> volume = quota.claim({"storage.gb": 15}, project="acme", external_id="vol-1")
        >>> quota.release("vol-1")
        >>> quota.get_claim(volume.id).state
        'released'
        """
        change = Release(validation.name(id, "id"), bool(force))
        return self._apply(change, connection, claim_id=change.id, told=_nothing)

    def get_claim(self, id: str) -> Claim:
        """One claim with the state it has (``expired`` even if not swept), by id or external id.

        Raises ``UnknownClaim``, ``InvalidRequest``, ``StoreUnavailable``.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb")
        >>> volume = quota.claim({"storage.gb": 15}, project="acme", external_id="vol-1")
        >>> quota.get_claim("vol-1") == volume
        True
        """
        id = validation.name(id, "id")
        return self._run(lambda: self._engine.get_claim(id))

    def claims(
        self,
        *,
        project: str | None = None,
        user: str | None = None,
        resource: str | None = None,
        state: ClaimState | None = None,
        subtree: bool = False,
    ) -> Iterator[Claim]:
        """The claims of an owner, in the order they were made; live ones, unless ``state`` asks for others.

        An iterator that holds one page at a time, however many claims there are.

        >>> quota = Delimiter("memory://")
        >>> quota.define_resource("storage.gb")
        >>> for number in (1, 2):
        ...     made = quota.claim({"storage.gb": number}, project="acme", id=f"volume-{number}")
        >>> [claim.id for claim in quota.claims(project="acme")]
        ['volume-1', 'volume-2']
        """
        if state is not None and state not in get_args(ClaimState):
            raise InvalidRequest(f"state must be one of {', '.join(get_args(ClaimState))}, not {state!r}")
        query = ClaimQuery(
            project=validation.optional_name(project, "project"),
            user=validation.optional_name(user, "user"),
            resource=validation.optional_name(resource, "resource"),
            state=state,
            subtree=bool(subtree),
        )
        return self._pages(query)

    def _admit(
        self,
        claims: tuple[NewClaim, ...],
        connection: CallersConnection | None,
        told: Callable[[tuple[Claim, ...]], T],
    ) -> T:
        if self._freshness.needed:
            charged = (scope for claim in claims for scope in Scope.owned(claim.project, claim.user))
            self._freshness.freshen(list(dict.fromkeys(charged)), connection)
        return self._apply(Admit(claims), connection, claim_id=claims[0].id, told=told)

    def _change(
        self, change: Provision | Renew | Resize | Transfer, connection: CallersConnection | None
    ) -> Claim:
        return self._apply(change, connection, claim_id=change.id, told=_only)

    def _apply(
        self,
        change: Change,
        connection: CallersConnection | None,
        *,
        claim_id: str,
        told: Callable[[tuple[Claim, ...]], T],
    ) -> T:
        """Decide it, and return what is ``told`` of the claims it made or changed."""
        if connection is None:
            deadline = time.monotonic() + self._timeout
            call = self._combiner.caller(change, deadline)
            answer = self._run(call, claim_id=claim_id, deadline=deadline)
        else:  # their transaction, in which nobody else's change has a place
            apply = partial(self._engine.apply, [change], connection=connection)
            answer = self._run(lambda: apply()[0], connection=connection, claim_id=claim_id)
        return told(claims_of(answer))


def claims_of(answer: Answer) -> tuple[Claim, ...]:
    """The claims that were made or changed; a refusal is raised."""
    if isinstance(answer, DelimiterError):
        raise answer
    return answer


def _only(claims: tuple[Claim, ...]) -> Claim:
    return claims[0]


def _nothing(_: tuple[Claim, ...]) -> None:
    return None


def _requested(request: Request) -> NewClaim:
    if not isinstance(request, Request):
        raise InvalidRequest(f"claim_all takes delimiter.Request objects, not {type(request).__name__}")
    time_left = (
        None if request.expires_in is None else validation.microseconds(request.expires_in, "expires_in")
    )
    return _new_claim(
        request.resources,
        request.project,
        request.user,
        request.id,
        request.parent,
        request.external_id,
        time_left,
    )


def _new_claim(
    resources: Mapping[str, int],
    project: str | None,
    user: str | None,
    id: str | None,
    parent: str | None,
    external_id: str | None,
    expires_in: int | None,
) -> NewClaim:
    """Looked through; ``expires_in`` has been already, and is in microseconds."""
    validation.refuse_nobody(project, user)
    return NewClaim(
        project=validation.optional_name(project, "project"),
        user=validation.optional_name(user, "user"),
        id=new_id() if id is None else validation.name(id, "id"),
        resources=validation.amounts(resources),
        parent=validation.optional_name(parent, "parent"),
        external_id=validation.optional_name(external_id, "external_id"),
        expires_in=expires_in,
    )
