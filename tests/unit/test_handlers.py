"""The decorators for handlers: what they refuse when a handler is decorated, and what they hand over to it."""

from __future__ import annotations

import doctest
import importlib
import inspect
import operator
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import delimiter.aio
from delimiter import Conflict, InvalidRequest
from delimiter.handlers import guarded, transactional
from delimiter.handlers.transacting import as_conflict

ONE = {"a.thing": 1}


class Recording:
    """Stands for a quota: remembers what its guard was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    @contextmanager
    def guard(self, resources: Any, **options: Any) -> Any:
        self.asked.append({"resources": resources, **{k: v for k, v in options.items() if v is not None}})
        yield "the claim"


def create(session: Any, project_id: str, size: int = 3, *, claim: Any = None, **more: Any) -> Any:
    return session, project_id, size, claim, more


async def create_async(session: Any, project_id: str) -> None:
    raise AssertionError("never called here")


def generates(session: Any, project_id: str) -> Any:
    yield


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"resources": {}}, "must not be empty"),
        ({"resources": {"a.thing": 0}}, "from 1 to"),
        ({"resources": {"a.thing": "size"}}, "must be a whole number, not 'size'"),
        ({"resources": {1: 1}}, "a resource's name must be a string"),
        ({"resources": ["a.thing"]}, "must be a mapping"),
        (
            {"resources": {"a.thing": lambda sise: sise}},
            "no parameter 'sise' that the amount of a.thing could be",
        ),
        ({"resources": {"a.thing": lambda more: more}}, "no parameter 'more'"),
        ({"resources": {"a.thing": operator.itemgetter("size")}}, "does not name its arguments"),
        ({"resources": lambda flavor: flavor}, "no parameter 'flavor' that resources could be"),
        ({"resources": lambda flavor, **_: flavor}, "no parameter 'flavor' that resources could be"),
        ({"project": None}, "somebody must be charged"),
        (
            {"project": "project"},
            "no parameter 'project' that project could be; it has session, project_id, size",
        ),
        (
            {"project": 7},
            "project is the name of a parameter of create, or a function of its arguments, not 7",
        ),
        ({"user": "more"}, "no parameter 'more' that user could be"),
        ({"id": "uuid"}, "no parameter 'uuid' that id could be"),
        ({"connection": "connection"}, "no parameter 'connection' that connection could be"),
        ({"connection": lambda session: session}, "connection is the name of a parameter of create"),
        ({"claim": "allocation"}, "no parameter 'allocation'"),
        ({"claim": "claim", "id": "claim"}, "no parameter 'claim' that id could be"),
        ({"expires_in": 0}, "expires_in must be above 0"),
        (
            {"quota": "sqlite:///quota.db"},
            "quota is a Delimiter, or a function of the arguments that gives one",
        ),
        ({"quota": lambda self: self.quota}, "no parameter 'self' that quota could be"),
        ({"function": create_async}, "create_async is a coroutine function and would block its event loop"),
        ({"function": generates}, "generates is a generator"),
        ({"function": 7}, "this decorates a function, not int"),
        ({"function": transactional(sa.create_engine("sqlite://"))(create)}, "put that one above"),
    ],
)
def test_what_guarded_refuses_at_once(arguments: dict[str, Any], says: str) -> None:
    function = arguments.pop("function", create)
    told = {"quota": Recording(), "resources": ONE, "project": "project_id", **arguments}
    with pytest.raises(InvalidRequest) as refused:
        guarded(told.pop("quota"), told.pop("resources"), **told)(function)
    assert says in str(refused.value)


def test_an_asynchronous_quota_wants_coroutine_functions() -> None:
    quota = delimiter.aio.Delimiter("memory://")
    with pytest.raises(InvalidRequest, match="create is no coroutine function"):
        guarded(lambda: quota, ONE, project="project_id")(create)(None, "acme")
    assert inspect.iscoroutinefunction(guarded(lambda: quota, ONE, project="project_id")(create_async))


def test_a_function_is_given_the_arguments_that_it_names() -> None:
    quota: Any = Recording()
    handler = guarded(
        quota,
        {"a.thing": 1, "a.gb": lambda size: size, "a.ram": lambda **all: all["size"] * 2, "a.gpu": lambda: 0},
        project=lambda project_id, prefix="p-": prefix + project_id,
        user=lambda more: None if "more" in more else "john",
        claim="claim",
    )
    with pytest.raises(InvalidRequest, match="no parameter 'more'"):
        handler(create)

    def create_more(session: Any, project_id: str, size: int = 3, *, claim: Any) -> Any:
        return session, project_id, size, claim

    handler = guarded(
        quota,
        {"a.thing": 1, "a.gb": lambda size: size, "a.ram": lambda **all: all["size"] * 2, "a.gpu": lambda: 0},
        project=lambda project_id, prefix="p-": prefix + project_id,
        id="project_id",
        claim="claim",
    )(create_more)
    assert handler("s", "acme") == ("s", "acme", 3, "the claim")
    assert handler(session="s", project_id="acme", size=5) == ("s", "acme", 5, "the claim")
    asked = {"project": "p-acme", "id": "acme", "connection": "s", "optimistic": False}
    # What turns out 0 is nothing to claim.
    assert quota.asked == [
        {"resources": {"a.thing": 1, "a.gb": size, "a.ram": 2 * size}, **asked} for size in (3, 5)
    ]


def test_callers_do_not_see_what_is_filled_in() -> None:
    quota: Any = Recording()
    handler = transactional(sa.create_engine("sqlite://"))(
        guarded(quota, lambda size: {"a.thing": size}, project="project_id", claim="claim")(create)
    )
    assert str(inspect.signature(handler)) == "(project_id: 'str', size: 'int' = 3, **more: 'Any') -> 'Any'"
    assert (handler.__name__, handler.__module__) == ("create", __name__)
    session, *rest = handler("acme", 4, colour="red")
    assert isinstance(session, sa.Connection)
    assert rest == ["acme", 4, "the claim", {"colour": "red"}]
    with pytest.raises(TypeError, match="project_id"):
        handler()
    with pytest.raises(TypeError):
        handler("acme", 4, session)
    assert len(quota.asked) == 1


def test_a_method_may_take_both_from_its_object() -> None:
    class Volumes:
        def __init__(self) -> None:
            self.quota = Recording()
            self.sessions = sessionmaker(sa.create_engine("sqlite://"))

        @transactional(lambda self: self.sessions)
        @guarded(lambda self: self.quota, ONE, user="user")
        def create(self, session: Session, user: str) -> Any:
            return session

    volumes = Volumes()
    assert isinstance(volumes.create("john"), Session)
    assert volumes.quota.asked[0]["user"] == "john"


_SYNC, _ASYNC = sa.create_engine("sqlite://"), create_async_engine("sqlite+aiosqlite://")


@pytest.mark.parametrize(
    "function, sessions, options, says",
    [
        (create, Session, {}, "not by Session"),
        (create, Session(_SYNC), {}, "not by a Session"),
        (create, scoped_session(sessionmaker(_SYNC)), {}, "not by a scoped_session"),
        (create, _SYNC.connect(), {}, "not by a Connection"),
        (create, "sqlite://", {}, "not by a str"),
        (create, _ASYNC, {}, "create is no coroutine function: use a sessionmaker"),
        (create, async_sessionmaker(_ASYNC), {}, "create is no coroutine function: use a sessionmaker"),
        (create_async, _SYNC, {}, "would block its event loop: use an async_sessionmaker"),
        (create_async, sessionmaker(_SYNC), {}, "would block its event loop"),
        (create, lambda self: self.sessions, {}, "no parameter 'self' that sessions could be"),
        (create, _SYNC, {"connection": "connection"}, "no parameter 'connection'"),
        (create, _SYNC, {"connection": 7}, "connection is the name of the handler's parameter, not 7"),
        (create, _SYNC, {"timeout": 0}, "timeout must be above 0"),
        (generates, _SYNC, {}, "generates is a generator"),
    ],
)
def test_what_transactional_refuses_at_once(
    function: Callable[..., Any], sessions: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        transactional(sessions, **options)(function)
    assert says in str(refused.value)


def test_what_a_function_gives_is_looked_through_too() -> None:
    with pytest.raises(InvalidRequest, match="must give a sessionmaker or an engine"):
        transactional(lambda: create)(create)("acme")


def test_it_is_tried_for_so_long_and_not_longer() -> None:
    """Guard: the deadline; without it this never ends. A Conflict that is not retryable is not tried again at all."""
    calls = []

    @transactional(_SYNC, timeout=0.05)
    def meets_others(session: Any, *, retryable: bool) -> None:
        calls.append(session)
        conflict = Conflict("somebody else")
        conflict.retryable = retryable
        raise conflict

    with pytest.raises(Conflict, match=r"not decided within 0\.05 s: somebody else"):
        meets_others(retryable=True)
    assert len(set(map(id, calls))) > 1
    calls.clear()
    with pytest.raises(Conflict, match=r"^somebody else$"):
        meets_others(retryable=False)
    assert len(calls) == 1


@pytest.mark.parametrize("invalidated", [False, True])
def test_a_commit_without_an_answer_is_no_conflict(invalidated: bool) -> None:
    """It may have happened, and would be done twice. Guard: ``as_conflict`` looks whether the connection is lost."""
    error = sa.exc.OperationalError("COMMIT", {}, Exception("database is locked"))
    error.connection_invalidated = invalidated
    meant = as_conflict(error, sa.create_engine("sqlite://"))
    assert (meant is None) == invalidated


@pytest.mark.parametrize(
    "module", ["handlers", "handlers.guarding", "handlers.transacting", "problems", "fastapi"]
)
def test_the_examples_in_the_docstrings_are_true(
    module: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(f"delimiter.{module}"))
    assert results.attempted
    assert not results.failed
