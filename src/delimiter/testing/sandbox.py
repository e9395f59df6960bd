"""A store for one test, with all that can be done to it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from delimiter import validation
from delimiter.engine import OpenOptions, open_engine
from delimiter.errors import InvalidRequest
from delimiter.testing.clock import Clock
from delimiter.testing.faults import Faults, FaultyDelimiter

if TYPE_CHECKING:
    from delimiter import aio
    from delimiter.quota import Delimiter
    from delimiter.testing.awaited import FaultyAioDelimiter

__all__ = ["Sandbox"]


class Sandbox:
    """A store with a quota on it, the clock of it, and failures to order.

    ``quota`` is what the service under test is given, ``aio_quota`` the same store for a service on asyncio (it belongs
    to the event loop that uses it first); ``clock`` moves the time of both, ``faults`` orders failures for both.
    ``store`` is ``"memory://"`` (empty, of this sandbox alone), or the URL of a database, or an ``sqlalchemy.Engine``
    of the service (for ``connection=``; it stays open); a driver for asyncio is ``InvalidRequest``. The other
    arguments are those of :class:`~delimiter.Delimiter`.

    >>> sandbox = Sandbox()
    >>> sandbox.quota.define_resource("compute.vcpu", project_max=8)
    >>> sandbox.quota.claim({"compute.vcpu": 8}, project="acme").state
    'provisioned'
    >>> sandbox.close()
    """

    def __init__(
        self,
        store: Any = "memory://",
        *,
        create: bool = True,
        schema: str | None = None,
        table_prefix: str = "delimiter_",
        timeout: float | timedelta = 10.0,
    ) -> None:
        self._timeout = validation.microseconds(timeout, "timeout") / 1_000_000
        options = OpenOptions(create, schema, table_prefix, self._timeout, asynchronous=True)
        engine = open_engine(store, options)
        if engine.asynchronous:
            raise InvalidRequest(
                "a sandbox opens its store with an ordinary driver: hand over the URL of the same database with one"
                " (sqlite:///…, postgresql+psycopg://…); its aio quota joins your AsyncConnection all the same"
            )
        self._engine = engine
        self._aio_quota: FaultyAioDelimiter | None = None
        self.faults = Faults()
        self.quota: Delimiter = FaultyDelimiter(engine, self.faults, timeout=self._timeout)
        self.clock = Clock(self.quota)

    @property
    def aio_quota(self) -> aio.Delimiter:
        """Calls without ``connection=`` run in threads. It needs the extra ``asyncio``."""
        if self._aio_quota is None:
            from delimiter.testing.awaited import FaultyAioDelimiter

            self._aio_quota = FaultyAioDelimiter(self._engine, self.faults, timeout=self._timeout)
        return self._aio_quota

    def close(self) -> None:
        """Give back what was opened here. Again: nothing."""
        if self._aio_quota is not None:
            self._aio_quota.let_threads_go()
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
