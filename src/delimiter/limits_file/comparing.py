"""What separates a document from the state of a store, for people to read and for the store to carry out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from delimiter.edits import (
    AddProject,
    Define,
    Edit,
    LimitChange,
    MoveProject,
    RemoveProject,
    SetLimit,
    SetOverbooking,
)
from delimiter.limits_file.document import Document
from delimiter.limits_file.nodes import Problems, shown_name, suggestion
from delimiter.limits_file.reading import RESOURCE_KEYS, service_of
from delimiter.model import UNLIMITED, OwnLimit, Resource, Scope

__all__ = ["Difference", "difference", "edits"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that would change: in which section, what it is, its value now, and the one to come.

    ``None`` as ``before``: it is not there yet; as ``after``: it goes. A limit of -1 is unlimited.

    >>> print(Difference("limits", "max of storage.gb for project acme", 500, -1))
    ~ max of storage.gb for project acme: 500 → unlimited
    """

    section: Literal["overbooking", "resources", "projects", "limits"]
    what: str
    before: int | str | None
    after: int | str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.what}: {_written(self.after)}"
        if self.after is None:
            return f"- {self.what} (was {_written(self.before)})"
        return f"~ {self.what}: {_written(self.before)} → {_written(self.after)}"


class _Change(NamedTuple):
    """What is told of a change and what is done about it; some have only one of the two."""

    differences: tuple[Difference, ...]
    edits: tuple[Edit, ...]


def difference(document: Document, present: Document) -> list[Difference]:
    r"""What :func:`edits` would change, section by section; empty if the store is as the file says.

    >>> from delimiter.limits_file import parse
    >>> present = parse("limits: {users: {john: {storage.gb: 5}}}\nresources: {storage.gb: }")
    >>> for line in difference(parse("limits: {users: {mary: {storage.gb: 7}}}"), present):
    ...     print(line)
    - max of storage.gb for user john (was 5)
    + max of storage.gb for user mary: 7
    """
    changes = _changes(document, present)
    return [one for section in changes for change in section for one in change.differences]


def edits(document: Document, present: Document) -> list[Edit]:
    r"""The edits that make a store what the document says, to be made in one step; none if it is so already.

    ``present`` is the store's whole state (:meth:`Document.of`). A section that the document does not have is left
    alone. Of one that it has: resources are defined or redefined, and never undefined, for claims may hang on them;
    projects are added, moved, and removed if they are not named (with limits of their own); limits are set, and
    removed if they are not named. ``InvalidRequest`` for a limit of a resource that neither of the two defines.

    Moves are decided by the new limits, never by the old ones, and the order of several never makes one impossible. A
    store that forbids overbooking looks at the outcome of a list, so the order of limits does not matter.

    >>> from delimiter.limits_file import parse
    >>> present = parse("resources: {storage.gb: }\nlimits: {}")
    >>> edits(parse("limits: {total: {storage.gb: 500}}"), present)
    [SetLimit(resource='storage.gb', scope=Scope(kind='total', name=''), change=LimitChange(max=500, min=None))]
    >>> edits(present, present)
    []
    """
    changes = _changes(document, present)
    return [edit for section in changes for change in section for edit in change.edits]


def _changes(document: Document, present: Document) -> tuple[list[_Change], ...]:
    """All changes: definitions, limits, projects, limits of projects that go, policy; in the order to make them."""
    _refuse_undefined(document, present)
    gone = _gone(document, present)
    limits, again = _limits(document, present, gone)
    return (
        list(_definitions(document, present)),
        limits,
        list(_projects(document, present, gone)),
        again,
        list(_policy(document, present)),
    )


def _policy(document: Document, present: Document) -> Iterator[_Change]:
    if document.overbooking not in (None, present.overbooking):
        told = Difference("overbooking", "overbooking", present.overbooking, document.overbooking)
        yield _Change((told,), (SetOverbooking(document.overbooking == "allowed"),))


# -- definitions --------------------------------------------------------------------------------------------------


def _definitions(document: Document, present: Document) -> Iterator[_Change]:
    known = {resource.name: resource for resource in present.resources or ()}
    for resource in document.resources or ():
        before = known.get(resource.name)
        if before is None:
            plain = Resource(name=resource.name, service=service_of(resource.name))
            said = [
                f"{key} {_written(getattr(resource, key))}"
                for key in RESOURCE_KEYS
                if getattr(resource, key) != getattr(plain, key)
            ]
            told = Difference("resources", resource.name, None, ", ".join(said) or "without default limits")
            yield _Change((told,), (Define(resource),))
        elif before != resource:
            changed = tuple(
                Difference(
                    "resources", f"{key} of {resource.name}", getattr(before, key), getattr(resource, key)
                )
                for key in RESOURCE_KEYS
                if getattr(before, key) != getattr(resource, key)
            )
            yield _Change(changed, (Define(resource),))


def _refuse_undefined(document: Document, present: Document) -> None:
    known = {resource.name for resource in (*(document.resources or ()), *(present.resources or ()))}
    problems = Problems()
    for own in document.own_limits or ():
        if own.resource not in known:
            where = document.places.get((own.scope, own.resource), "limits")
            advice = "" if problems.many else suggestion(own.resource, known)
            sentence = f"{shown_name(own.resource)} is defined neither in the file nor in the store{advice}"
            problems.add(where, sentence)
    problems.refuse()


# -- limits -------------------------------------------------------------------------------------------------------


def _limits(document: Document, present: Document, gone: list[str]) -> tuple[list[_Change], list[_Change]]:
    """Changes of limits, and those to be made once the projects that go are gone: their own limits go with them."""
    before = {(own.scope, own.resource): own for own in present.own_limits or ()}
    wanted = (
        before
        if document.own_limits is None
        else {(own.scope, own.resource): own for own in document.own_limits}
    )
    lost = {Scope("project", project) for project in gone}
    if document.own_limits is None:
        wanted = {key: own for key, own in before.items() if key[0] not in lost}
    limits: list[_Change] = []
    again: list[_Change] = []
    for key in dict.fromkeys([*before, *wanted]):
        scope, resource = key
        old, new = before.get(key), wanted.get(key)
        told = tuple(_told(old, new))
        change = LimitChange(max=None, min=None) if new is None else LimitChange(max=new.max, min=new.min)
        if scope in lost:
            again.append(_Change(told, () if new is None else (SetLimit(resource, scope, change),)))
        elif told:
            limits.append(_Change(told, (SetLimit(resource, scope, change),)))
    return limits, again


def _told(old: OwnLimit | None, new: OwnLimit | None) -> Iterator[Difference]:
    own = new or old
    if own is None:
        return
    whose = f"{own.resource} {_for(own.scope)}"
    before = (None, None) if old is None else (old.max, old.min)
    after = (None, None) if new is None else (new.max, new.min)
    for key, was, will in zip(("max", "min"), before, after, strict=True):
        if was != will:
            yield Difference("limits", f"{key} of {whose}", was, will)


def _for(scope: Scope) -> str:
    return "in total" if scope.kind == "total" else f"for {scope.kind} {shown_name(scope.name)}"


# -- projects -----------------------------------------------------------------------------------------------------


def _gone(document: Document, present: Document) -> list[str]:
    """The projects that the document does not name any more, children first."""
    if document.projects is None:
        return []
    kept = {project.id for project in document.projects}
    return [project.id for project in reversed(present.projects or ()) if project.id not in kept]


def _projects(document: Document, present: Document, gone: list[str]) -> Iterator[_Change]:
    """Parents come before their children, so a project's new ancestors have their own place when it comes to theirs.

    Nothing can turn into a circle that way. Removing comes last, when nothing is below what goes.
    """
    if document.projects is None:
        return
    before, after = dict(present.projects or ()), dict(document.projects)
    moved = {name for name, parent in after.items() if name in before and before[name] != parent}
    arriving = [
        name for name, parent in after.items() if parent is not None and (name in moved or name not in before)
    ]
    place = dict(before)
    if len(arriving) > 1:
        # Two projects that change places may each fit only where the other has left: first everything leaves, though
        # no further up than it must, so that nothing is admitted anew where it was all the time.
        for name in sorted(moved):
            place[name] = _lowest_common(_path(before, name), _path(after, name))
            if place[name] != before[name]:
                yield _Change((), (MoveProject(name, place[name]),))
    for name, parent in after.items():
        if name not in before:
            told = Difference("projects", f"project {shown_name(name)}", None, _place(parent))
            yield _Change((told,), (AddProject(name, parent),))
        elif name in moved:
            told = Difference("projects", f"project {shown_name(name)}", _place(before[name]), _place(parent))
            yield _Change((told,), () if place[name] == parent else (MoveProject(name, parent),))
    for name in gone:
        told = Difference("projects", f"project {shown_name(name)}", _place(before[name]), None)
        yield _Change((told,), (RemoveProject(name),))


def _path(parents: dict[str, str | None], project: str) -> list[str]:
    """The ancestors of a project from the root down."""
    found: list[str] = []
    above = parents[project]
    while above is not None:
        found.append(above)
        above = parents[above]
    return found[::-1]


def _lowest_common(old: Iterable[str], new: Iterable[str]) -> str | None:
    """The lowest ancestor that keeps its own place and stays above the project."""
    lowest = None
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        lowest = one
    return lowest


def _place(parent: str | None) -> str:
    return "a root" if parent is None else f"below {shown_name(parent)}"


def _written(value: int | str | None) -> str:
    if value == UNLIMITED:
        return "unlimited"
    return str(value) if value != "" else '""'
