"""Time, moved instead of waited for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from delimiter import validation
from delimiter.errors import InvalidRequest

if TYPE_CHECKING:
    from delimiter import aio
    from delimiter.quota import Delimiter

__all__ = ["Clock"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """Moves the time of the store, as the Delimiters that are named see it.

    Time is the store's own clock and what was added here; it is not frozen. Nothing else notices: neither Python's
    clock, nor another Delimiter on the same store that was not named, nor another process. Raises ``InvalidRequest``.

    >>> from delimiter import Delimiter
    >>> quota = Delimiter("memory://")
    >>> quota.define_resource("compute.vcpu", project_max=8)
    >>> held = quota.reserve({"compute.vcpu": 4}, project="acme", expires_in=60)
    >>> Clock(quota).advance(60)
    >>> quota.get_claim(held.id).state
    'expired'
    """

    def __init__(self, *quotas: Delimiter | aio.Delimiter) -> None:
        try:
            # Time is moved where the store is read; the public interface of a quota has no business with it.
            engines = {id(quota._engine): quota._engine for quota in quotas}  # noqa: SLF001
        except AttributeError:
            raise InvalidRequest("a clock is moved for Delimiters: Clock(quota)") from None
        if not engines:
            raise InvalidRequest("name the Delimiter whose time is to move: Clock(quota)")
        self._engines = list(engines.values())

    def advance(self, time: float | timedelta) -> None:
        """Let this much time pass at once: seconds, or a ``timedelta``; above 0, since time goes forward only."""
        passed = validation.microseconds(time, "time")
        for engine in self._engines:
            engine.clock_offset += passed

    def now(self) -> datetime:
        """The store's time as it was moved, in UTC; to be compared with a claim's ``expires_at``.

        >>> from delimiter import Delimiter
        >>> clock = Clock(Delimiter("memory://"))
        >>> before = clock.now()
        >>> clock.advance(timedelta(days=1))
        >>> (clock.now() - before).days
        1
        """
        engine = self._engines[0]
        if engine.asynchronous:
            raise InvalidRequest(
                "this store is read on an event loop, so its time cannot be read here; compare expires_at instead"
            )
        return _EPOCH + timedelta(microseconds=engine.now())
