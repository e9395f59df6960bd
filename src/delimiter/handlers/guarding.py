"""A decorator that claims what a handler is about to create, in the handler's own transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from delimiter import validation
from delimiter.errors import InvalidRequest
from delimiter.handlers.arguments import Asked, Handler

if TYPE_CHECKING:
    from datetime import timedelta

    from delimiter.aio import Delimiter as AsyncDelimiter
    from delimiter.quota import Delimiter

    #: One that is open, or a function that gives it.
    Quota: TypeAlias = Delimiter | AsyncDelimiter | Callable[..., Any]

__all__ = ["Amounts", "awaits", "guarded", "without_zeros"]

#: Amounts by resource, each a number or a function that works it out; or one function for all of them.
Amounts: TypeAlias = Mapping[str, Any] | Callable[..., Mapping[str, int]]


def guarded(
    quota: Quota,
    resources: Amounts,
    *,
    project: str | Callable[..., str | None] | None = None,
    user: str | Callable[..., str | None] | None = None,
    connection: str = "session",
    claim: str | None = None,
    id: str | Callable[..., str | None] | None = None,
    parent: str | Callable[..., str | None] | None = None,
    external_id: str | Callable[..., str | None] | None = None,
    expires_in: float | timedelta | None = None,
    optimistic: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Around each call of the handler a ``quota.guard``, in the transaction that the handler is given.

    ``project``, ``user``, ``id``, ``parent``, ``external_id`` and ``connection`` name parameters of the handler; all
    but the last may be functions of its arguments, too. ``resources`` are amounts, or functions of the arguments that
    work them out (an amount that turns out 0 is left out), or one function for all of them. A function is given the
    arguments that it names. ``claim`` names the parameter that receives the :class:`~delimiter.Claim` (``None`` if
    everything is counted); callers do not see it. ``quota`` may be a function of the arguments, too:
    ``lambda self: self.quota``. ``expires_in`` and ``optimistic`` are as in ``guard``.

    What does not fit the handler's signature is ``InvalidRequest`` when it is decorated. Calls raise what ``guard``
    raises: after ``OverLimit`` nothing of it is held. The transaction stays the caller's, to commit or to
    roll back; :func:`transactional` does it for you, and tries again after ``Conflict``.

    >>> from sqlalchemy import create_engine
    >>> from delimiter import Delimiter
    >>> engine = create_engine("sqlite:///handlers-example.db")
    >>> quota = Delimiter(engine)
    >>> quota.define_resource("compute.instances", project_max=1)
    >>> quota.define_resource("compute.ram_mb")
    >>> @guarded(
    ...     quota,
    ...     {"compute.instances": 1, "compute.ram_mb": lambda flavor: flavor["ram"]},
    ...     project="project",
    ...     connection="connection",
    ... )
    ... def create_instance(connection, project, flavor):
    ...     return f"created for {project}"
    >>> with engine.begin() as connection:
    ...     create_instance(connection, "acme", {"ram": 2048})
    'created for acme'
    """
    constant = _looked_through(quota, resources, project, user, expires_in)
    named = {"project": project, "user": user, "id": id, "parent": parent, "external_id": external_id}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        handler = Handler(function, filled=() if claim is None else (claim,))
        if constant is not None:
            _refuse_mixture(handler, constant)
        store = handler.function_of_arguments(quota, "quota") if constant is None else lambda _: constant  # type: ignore[arg-type]
        wanted = _amounts(handler, resources)
        options = {name: handler.asked(value, name) for name, value in named.items()}
        if not isinstance(connection, str):
            raise InvalidRequest(
                f"connection is the name of a parameter of {handler.name}, not {connection!r}"
            )
        joined = handler.asked(connection, "connection")

        def guard(arguments: Mapping[str, Any]) -> Any:
            chosen = store(arguments)
            if constant is None:
                _refuse_mixture(handler, chosen)
            return chosen.guard(
                wanted(arguments),
                connection=joined(arguments),
                expires_in=expires_in,
                optimistic=optimistic,
                **{name: option(arguments) for name, option in options.items()},
            )

        return handler.decorated(
            _async_call(handler, guard, claim) if handler.asynchronous else _call(handler, guard, claim)
        )

    return decorate


def _call(handler: Handler, guard: Asked, claim: str | None) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = handler.bind(args, kwargs)
        with guard(arguments) as made:
            return handler.call(arguments, **_filled(claim, made))

    return call


def _async_call(handler: Handler, guard: Asked, claim: str | None) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        arguments = handler.bind(args, kwargs)
        async with guard(arguments) as made:
            return await handler.call(arguments, **_filled(claim, made))

    return call


def _filled(claim: str | None, made: Any) -> dict[str, Any]:
    return {} if claim is None else {claim: made}


def awaits(quota: object) -> bool:
    """Whether it is the one for asyncio. (That module is not imported here: it needs an extra.)"""
    return hasattr(type(quota), "__aenter__")


def without_zeros(amounts: Any) -> Any:
    """A flavor without GPUs asks for 0 of them, which is nothing to claim."""
    if not isinstance(amounts, Mapping):
        return amounts
    return {name: amount for name, amount in amounts.items() if amount != 0 or isinstance(amount, bool)}


def _looked_through(
    quota: Any, resources: Any, project: Any, user: Any, expires_in: float | timedelta | None
) -> Any:
    """What can be found out before there is a handler. The quota, or ``None`` if each call has its own."""
    validation.refuse_nobody(project, user)
    if expires_in is not None:
        validation.microseconds(expires_in, "expires_in")
    if isinstance(resources, Mapping):
        known = {name: 1 if callable(amount) else amount for name, amount in resources.items()}
        validation.amounts(known)
    elif not callable(resources):
        validation.amounts(resources)
    if hasattr(quota, "guard"):
        return quota
    if not callable(quota):
        raise InvalidRequest(
            f"quota is a Delimiter, or a function of the arguments that gives one, not {type(quota).__name__}"
        )
    return None


def _refuse_mixture(handler: Handler, quota: object) -> None:
    handler.refuse_mixture(
        awaited=awaits(quota), plain="delimiter.Delimiter", asynchronous="delimiter.aio.Delimiter"
    )


def _amounts(handler: Handler, resources: Amounts) -> Asked:
    if callable(resources):
        whole = handler.function_of_arguments(resources, "resources")
        return lambda arguments: without_zeros(whole(arguments))
    parts = {
        name: handler.function_of_arguments(amount, f"the amount of {name}")
        for name, amount in resources.items()
        if callable(amount)
    }
    return lambda arguments: without_zeros(
        {name: parts[name](arguments) if name in parts else amount for name, amount in resources.items()}
    )
