"""The contract of a source: where limits, or the tree of projects, come from when the store does not keep them.

Hand one to :class:`delimiter.Delimiter` as ``limits=`` or ``projects=``. Any object with the method will do; what it
answers is written into the store by the desk, so that claims are decided on locked rows all the same. It cannot be
exact: it is as old as the last look, which :func:`delimiter.sources.cached` bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from delimiter import validation
from delimiter.errors import InvalidRequest, StoreUnavailable
from delimiter.model import Scope

__all__ = ["CachedSource", "Fetched", "LimitSource", "ProjectSource", "ancestors_in", "maxima_in"]

T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class LimitSource(Protocol):
    """Limits from elsewhere.

    >>> class Contracts:
    ...     def limits(self, scope):
    ...         return {"storage.gb": 500} if str(scope) == "project:acme" else {}
    >>> isinstance(Contracts(), LimitSource)
    True
    """

    def limits(self, scope: Scope) -> Mapping[str, int]:
        """The maxima that this scope has of its own, by resource (-1: unlimited).

        A resource that is not named has the default of its definition. Raise
        :class:`~delimiter.errors.StoreUnavailable` if it cannot be known now: claims are then refused, never guessed.
        """


@runtime_checkable
class ProjectSource(Protocol):
    """A tree of projects from elsewhere."""

    def ancestors(self, project: str) -> Sequence[str]:
        """The ancestors of a project, its parent first, the root last; empty for a root."""


@dataclass(frozen=True, slots=True)
class Fetched(Generic[T_co]):
    """What a source answered. ``as_of`` is the store's clock (microseconds since 1970) just before it was asked."""

    value: T_co
    as_of: int


@runtime_checkable
class CachedSource(Protocol):
    """A source that remembers what it was told, and can say when that was.

    What it remembers has been looked through, with :func:`maxima_in` or :func:`ancestors_in`: nobody does so again.
    """

    def fetched_limits(self, scope: Scope, clock: Callable[[], int]) -> Fetched[Mapping[str, int]]:
        """What is remembered of this scope; asked anew if it is too old, after reading ``clock``.

        The same object as long as it is the same answer.
        """

    def fetched_ancestors(self, project: str, clock: Callable[[], int]) -> Fetched[Sequence[str]]:
        """The same of a project's ancestors."""


# -- answers ------------------------------------------------------------------------------------------------------


def maxima_in(scope: Scope, answer: Any) -> Mapping[str, int]:
    """The limits in a source's answer: a copy that nobody changes. ``StoreUnavailable`` for what are none.

    >>> dict(maxima_in(Scope.total(), {"storage.gb": 500}))
    {'storage.gb': 500}
    """
    try:
        return MappingProxyType(
            {
                validation.name(resource, "a resource's name"): validation.maximum(
                    limit, f"the limit of {resource}"
                )
                for resource, limit in dict(answer).items()
            }
        )
    except (TypeError, ValueError) as error:  # InvalidRequest is a ValueError
        raise StoreUnavailable(
            f"the source gave for {scope} what are no limits: {error}", retryable=False
        ) from error


def ancestors_in(project: str, answer: Any) -> tuple[str, ...]:
    """The ancestors in a source's answer, the parent first. ``StoreUnavailable`` for what are none.

    >>> ancestors_in("front", ["web", "acme"])
    ('web', 'acme')
    """
    try:
        if isinstance(answer, str | bytes):  # a sequence of names as well, of one letter each
            raise InvalidRequest("they are one text")
        ancestors = tuple(validation.name(ancestor, "an ancestor") for ancestor in answer)
        if len({project, *ancestors}) <= len(ancestors):
            raise InvalidRequest(f"{', '.join(ancestors)} is a circle")
    except (TypeError, ValueError) as error:
        raise StoreUnavailable(
            f"the source gave for project {project} what are no ancestors: {error}", retryable=False
        ) from error
    return ancestors
