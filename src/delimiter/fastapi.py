"""FastAPI: Delimiter's errors as answers, and a dependency that claims for a create endpoint.

It needs the extra ``fastapi``. (The decorators of :mod:`delimiter.handlers` go on endpoints too, and try again
after ``Conflict``, which no dependency can.)
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin

from delimiter import validation
from delimiter.errors import (
    DelimiterError,
    InvalidRequest,
    StoreUnavailable,
    UnknownResource,
    Unsupported,
)
from delimiter.handlers.guarding import awaits, without_zeros
from delimiter.handlers.transacting import as_conflict
from delimiter.problems import problem

try:
    import anyio.to_thread
    from anyio.lowlevel import RunVar
    from fastapi import Depends, FastAPI, Request
    from fastapi.params import Depends as _Depends
    from fastapi.responses import JSONResponse
except (
    ModuleNotFoundError
) as missing:  # pragma: no cover - a process without it: tests/unit/test_bare_install.py
    raise ModuleNotFoundError(
        "delimiter.fastapi needs FastAPI: pip install 'delimiter[fastapi]'", name=missing.name
    ) from missing

if TYPE_CHECKING:
    from datetime import timedelta

    from delimiter.handlers.guarding import Quota

__all__ = ["claimed", "install"]

_LOG: Final = logging.getLogger(__name__)

#: What the answer does not tell, and somebody has to know.
_LOGGED: Final = (InvalidRequest, StoreUnavailable, UnknownResource, Unsupported)

#: Requests that may wait for locks at once where the driver is not asynchronous.
_WAITING: Final = 40
_ENTRIES: Final = RunVar[anyio.CapacityLimiter]("delimiter_entries")


def install(app: FastAPI) -> None:
    """Answer with :func:`delimiter.problems.problem` whatever Delimiter raises in the app's endpoints.

    What the answer leaves out (what was invalid, what is wrong with the store) is logged.

    >>> app = FastAPI()
    >>> install(app)
    """
    app.add_exception_handler(DelimiterError, _answer)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DelimiterError)
    if isinstance(error, _LOGGED):
        _LOG.warning("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    found = problem(error)
    return JSONResponse(found.body(), status_code=found.status, headers=found.headers)


def claimed(
    quota: Quota,
    resources: Mapping[str, Any] | Callable[..., Any],
    *,
    session: Any,
    project: Any = None,
    user: Any = None,
    id: Any = None,
    parent: Any = None,
    external_id: Any = None,
    expires_in: float | timedelta | None = None,
    optimistic: bool = False,
) -> Any:
    """A dependency: around the endpoint a ``quota.guard`` in the session's transaction, which it commits.

    ``session`` is the dependency that the endpoint takes its session from, or the ``Annotated`` alias for it: the very
    same, or rows and claim are in two transactions. ``project``, ``user``, ``id``, ``parent`` and ``external_id`` are
    dependencies, too; so are amounts that are no numbers, or all of ``resources`` if one dependency works them out (0
    is left out). ``quota`` may be a dependency that gives the Delimiter. The endpoint receives the
    :class:`~delimiter.Claim` (``None`` if everything is counted).

    The claim is decided before the endpoint runs. When it has returned, what is counted is counted again, and
    everything is committed **before** the answer is sent: a 2xx is true, and an ``OverLimit`` or an error in COMMIT
    still becomes the answer. An endpoint that raises leaves nothing; one that *returns* an error is committed. A
    ``Conflict`` is not tried again here, since FastAPI calls an endpoint once: the client is asked to (503,
    ``Retry-After``).

    Wrong arguments are ``InvalidRequest`` at once.

    >>> from delimiter import Delimiter
    >>> def current_project() -> str:
    ...     return "acme"
    >>> def get_session():
    ...     ...
    >>> a_claim = claimed(Delimiter("memory://"), {"storage.gb": 1}, project=current_project, session=get_session)
    >>> a_claim.scope
    'function'
    """
    validation.refuse_nobody(project, user)
    if expires_in is not None:
        validation.microseconds(expires_in, "expires_in")
    parameters = _Parameters()
    the_quota = parameters.constant(quota) if hasattr(quota, "guard") else parameters.add(quota, "quota")
    the_session = parameters.add(session, "session")
    wanted = _wanted(parameters, resources)
    named = {"project": project, "user": user, "id": id, "parent": parent, "external_id": external_id}
    options = {name: parameters.add(value, name) for name, value in named.items() if value is not None}

    async def guard_of_endpoint(**solved: Any) -> AsyncIterator[Any]:
        opened, joined = the_quota(solved), the_session(solved)
        runs = _awaited if awaits(opened) else _in_a_thread
        try:
            guard = opened.guard(
                without_zeros(wanted(solved)),
                connection=joined,
                expires_in=expires_in,
                optimistic=optimistic,
                **{name: option(solved) for name, option in options.items()},
            )
            async with guard if awaits(opened) else _entered_in_a_thread(guard) as claim:
                yield claim
            await runs(joined.commit)
        except (Exception, anyio.get_cancelled_exc_class()) as error:
            with anyio.CancelScope(shield=True):
                await runs(joined.rollback)
            conflict = as_conflict(error, joined)
            if conflict is None or conflict is error:
                raise
            raise conflict from error

    guard_of_endpoint.__signature__ = parameters.signature()  # type: ignore[attr-defined]
    return Depends(guard_of_endpoint, scope="function")


class _Parameters:
    """The parameters of a dependency that is put together from others."""

    def __init__(self) -> None:
        self._made: list[inspect.Parameter] = []

    def constant(self, value: Any) -> Callable[[Mapping[str, Any]], Any]:
        return lambda _: value

    def add(self, dependency: Any, what: str) -> Callable[[Mapping[str, Any]], Any]:
        """What FastAPI resolves; a function that finds it among what was resolved."""
        name = f"{what.replace('.', '_')}_{len(self._made)}"
        annotation = _as_dependency(dependency, what)
        parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
        self._made.append(parameter)
        return lambda solved: solved[name]

    def signature(self) -> inspect.Signature:
        return inspect.Signature(self._made)


def _as_dependency(given: Any, what: str) -> Any:
    if get_origin(given) is Annotated and any(isinstance(part, _Depends) for part in get_args(given)[1:]):
        return given
    if isinstance(given, _Depends):
        return Annotated[Any, given]
    if callable(given) and get_origin(given) is not Annotated:
        return Annotated[Any, Depends(given)]
    raise InvalidRequest(
        f"{what} is a dependency: a function that FastAPI may call, Depends(…), or an Annotated alias; not {given!r}"
    )


def _wanted(parameters: _Parameters, resources: Any) -> Callable[[Mapping[str, Any]], Any]:
    if not isinstance(resources, Mapping):
        if not callable(resources) and not isinstance(resources, _Depends):
            validation.amounts(resources)
        return parameters.add(resources, "resources")
    fixed = {name: amount for name, amount in resources.items() if _is_amount(amount)}
    validation.amounts({name: fixed.get(name, 1) for name in resources})
    parts = {
        name: parameters.add(amount, "amount") for name, amount in resources.items() if name not in fixed
    }
    return lambda solved: {name: parts[name](solved) if name in parts else fixed[name] for name in resources}


def _is_amount(amount: object) -> bool:
    return not (callable(amount) or isinstance(amount, _Depends) or get_origin(amount) is Annotated)


# -- where the driver is not asynchronous ---------------------------------------------------------------------------


@asynccontextmanager
async def _entered_in_a_thread(guard: AbstractContextManager[Any]) -> AsyncIterator[Any]:
    """Entering may wait for a lock whose holder needs a thread for its endpoint.

    So those who wait must not take the threads that endpoints run in: forty requests that wait would lock out the one
    that they wait for.
    """
    try:
        entries = _ENTRIES.get()
    except LookupError:
        entries = anyio.CapacityLimiter(_WAITING)
        _ENTRIES.set(entries)
    claim = await anyio.to_thread.run_sync(guard.__enter__, limiter=entries)
    try:
        yield claim
    except (Exception, anyio.get_cancelled_exc_class()) as error:
        told = type(error), error, error.__traceback__
        with anyio.CancelScope(shield=True):
            await _in_a_thread(lambda: guard.__exit__(*told))
        raise
    else:
        await _in_a_thread(lambda: guard.__exit__(None, None, None))


async def _in_a_thread(call: Callable[[], Any]) -> Any:
    """At once: whoever holds locks must not queue behind those who wait for them."""
    return await anyio.to_thread.run_sync(call, limiter=anyio.CapacityLimiter(1))


async def _awaited(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()
