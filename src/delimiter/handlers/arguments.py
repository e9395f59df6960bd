"""A handler's parameters: which of them Delimiter reads, which it fills in, and what callers still see of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from delimiter.errors import InvalidRequest

__all__ = ["Asked", "Handler"]

#: What is worked out from the arguments of a call.
Asked: TypeAlias = Callable[[Mapping[str, Any]], Any]

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Handler:
    """A function of the service's. What is in ``filled`` is handed to it by Delimiter, and not seen by its callers."""

    def __init__(self, function: Callable[..., Any], *, filled: Iterable[str] = ()) -> None:
        if not inspect.isfunction(function) and not inspect.ismethod(function):
            raise InvalidRequest(f"this decorates a function, not {type(function).__name__}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidRequest(
                f"{function.__name__} is a generator: it would run after its transaction; decorate one that returns"
            )
        self._function = function
        self.name = function.__name__
        self.asynchronous = inspect.iscoroutinefunction(function)
        self._signature = inspect.signature(function)
        self._filled: frozenset[str] = frozenset()
        self._filled = frozenset(self._named(name, "it") for name in filled)
        self.callers_signature = self._signature.replace(
            parameters=[p for p in self._signature.parameters.values() if p.name not in self._filled]
        )

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by their parameters' names. ``TypeError`` as for any call that does not fit."""
        bound = self.callers_signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def call(self, arguments: Mapping[str, Any], **filled: Any) -> Any:
        """Call it; of a coroutine function, what is to be awaited."""
        known = {**arguments, **filled}
        in_order = {name: known[name] for name in self._signature.parameters if name in known}
        bound = inspect.BoundArguments(self._signature, in_order)
        return self._function(*bound.args, **bound.kwargs)

    def decorated(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` as it is to stand in the function's place."""
        functools.update_wrapper(call, self._function)
        call.__signature__ = self.callers_signature  # type: ignore[attr-defined]
        return call

    def refuse_mixture(self, *, awaited: bool, plain: str, asynchronous: str) -> None:
        """A coroutine function goes with what is ``awaited``, any other with what is not; the texts say what to use."""
        if awaited and not self.asynchronous:
            raise InvalidRequest(f"{self.name} is no coroutine function: use {plain}, or `async def`")
        if self.asynchronous and not awaited:
            raise InvalidRequest(
                f"{self.name} is a coroutine function and would block its event loop: use {asynchronous}"
            )

    def asked(self, value: Any, what: str) -> Asked:
        """``value`` names a parameter, is a function of some of them, or ``None``."""
        if value is None:
            return lambda _: None
        if isinstance(value, str):
            name = self._named(value, what)
            return lambda arguments: arguments[name]
        if callable(value):
            return self.function_of_arguments(value, what)
        raise InvalidRequest(
            f"{what} is the name of a parameter of {self.name}, or a function of its arguments, not {value!r}"
        )

    def function_of_arguments(self, function: Callable[..., Any], what: str) -> Asked:
        """It is given the arguments that it names, or all of them if it takes ``**arguments``."""
        parameters = _parameters(function)
        if parameters is None or any(p.kind is inspect.Parameter.POSITIONAL_ONLY for p in parameters):
            raise InvalidRequest(
                f"{what}: {function!r} does not name its arguments; write it as `lambda NAME: …`, with names of"
                f" parameters of {self.name}"
            )
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            required = {p.name for p in parameters if p.kind not in _VARIADIC and p.default is p.empty}
            for name in required:
                self._named(name, what)
            return lambda arguments: function(**arguments)
        known = self.callers_signature.parameters
        names = [
            self._named(p.name, what)
            for p in parameters
            if p.kind not in _VARIADIC and (p.default is p.empty or p.name in known)
        ]
        return lambda arguments: function(**{name: arguments[name] for name in names})

    def _named(self, name: str, what: str) -> str:
        """A parameter that can be named; ``filled`` ones cannot be read, they come later."""
        parameter = self._signature.parameters.get(name)
        if parameter is None or parameter.kind in _VARIADIC or name in self._filled:
            there = [
                p.name
                for p in self._signature.parameters.values()
                if p.kind not in _VARIADIC and p.name not in self._filled
            ]
            within = inspect.signature(inspect.unwrap(self._function)).parameters
            advice = (
                "; another decorator fills it in: put that one above"
                if name in within and parameter is None
                else ""
            )
            raise InvalidRequest(
                f"{self.name} has no parameter {name!r} that {what} could be; it has"
                f" {', '.join(there) or 'none'}{advice}"
            )
        return name


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """``None`` if it does not tell: some that are written in C do not."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
