"""From the tree of a file's values to what it says, with everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from delimiter import validation
from delimiter.errors import InvalidRequest
from delimiter.limits_file.document import Document
from delimiter.limits_file.nodes import (
    Mapping,
    Node,
    Odd,
    Problems,
    read_nodes,
    shown,
    shown_name,
    suggestion,
)
from delimiter.model import (
    SCOPE_KINDS,
    UNLIMITED,
    Overbooking,
    OwnLimit,
    Project,
    Resource,
    Scope,
    service_of,
)

__all__ = ["LIMIT_KEYS", "OVERBOOKING", "RESOURCE_KEYS", "SCOPE_KEYS", "SECTIONS", "parse", "service_of"]

T = TypeVar("T")
_Whole: TypeAlias = Literal["max", "min"]

SECTIONS: Final = ("overbooking", "resources", "projects", "limits")
OVERBOOKING: Final[tuple[Overbooking, ...]] = get_args(Overbooking)
RESOURCE_KEYS: Final = tuple(one.name for one in fields(Resource) if one.name != "name")
SCOPE_KEYS: Final = ("total", "projects", "users")
LIMIT_KEYS: Final[tuple[_Whole, ...]] = ("max", "min")

_TEXTS: Final = ("service", "unit", "description")


def parse(text: str, *, name: str = "limits.yaml") -> Document:
    r"""What a limits file says: TOML if its name ends so, YAML otherwise.

    ``InvalidRequest`` if there is anything wrong with it, with all that is wrong, one a line, each beginning with the
    file's ``name`` and the line (in TOML: the path of the value).

    >>> document = parse("limits: {projects: {acme: {storage.gb: 500}}}")
    >>> document.own_limits
    (OwnLimit(resource='storage.gb', scope=Scope(kind='project', name='acme'), max=500, min=None),)
    >>> parse("limits:\n  project: {acme: {storage.gb: 500}}")
    Traceback (most recent call last):
      ...
    delimiter.errors.InvalidRequest: limits.yaml:2: unknown key project (did you mean projects?)
    """
    problems = Problems()
    root = read_nodes(text, name, problems)
    document = _Reader(problems).document(root)
    problems.refuse()
    return document


class _Reader:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def document(self, root: Node) -> Document:
        sections = self._mapping(root, "the file", keys=SECTIONS)
        for section, node in sections.items():
            if node.value is None:
                self._problems.add(
                    node.where, f"{section} is empty: leave it out, or write {{}} if there are to be none"
                )
        present = {section: node for section, node in sections.items() if node.value is not None}
        places: dict[tuple[Scope, str], str] = {}
        return Document.of(
            resources=self._section(present, "resources", self._resources),
            projects=self._section(present, "projects", self._projects),
            own_limits=self._section(present, "limits", lambda node: self._limits(node, places)),
            overbooking=self._section(present, "overbooking", self._overbooking),
            places=places,
        )

    def _section(self, sections: Mapping, name: str, read: Callable[[Node], T | None]) -> T | None:
        return read(sections[name]) if name in sections else None

    # -- sections -----------------------------------------------------------------------------------------------

    def _overbooking(self, node: Node) -> Overbooking | None:
        if not isinstance(node.value, str) or node.value not in OVERBOOKING:
            self._problems.add(node.where, f"overbooking is allowed or forbidden, not {_said(node.value)}")
            return None
        return node.value

    def _resources(self, section: Node) -> list[Resource]:
        return [
            self._resource(name, node)
            for name, node in self._mapping(section, "resources").items()
            if self._name(name, node, "a resource's name")
        ]

    def _resource(self, name: str, node: Node) -> Resource:
        said: dict[str, Any] = {"service": service_of(name)}
        for key, value in self._mapping(node, name, keys=RESOURCE_KEYS, of_a_resource=True).items():
            read = self._text if key in _TEXTS else self._number
            if (answer := read(value, key)) is not None:
                said[key] = answer
        resource = Resource(name=name, **said)
        for kind in SCOPE_KINDS:
            maximum, minimum = resource.default(kind)
            self._not_crossed(node, maximum, minimum, "" if kind == "total" else f"{kind}_")
        return resource

    def _projects(self, section: Node) -> list[Project]:
        found: dict[str, Node] = {}
        tree: list[Project] = []
        waiting: list[tuple[Node, str | None]] = [(section, None)]
        while waiting:
            above, parent = waiting.pop()
            for name, node in self._mapping(above, "projects" if parent is None else parent).items():
                if not self._name(name, node, "a project's id"):
                    continue
                if name in found:
                    self._problems.add(
                        node.where, f"project {shown(name)} is in the tree twice, also in {found[name].where}"
                    )
                    continue
                found[name] = node
                tree.append(Project(name, parent))
                waiting.append((node, name))
        return tree

    def _limits(self, section: Node, places: dict[tuple[Scope, str], str]) -> list[OwnLimit]:
        found: list[OwnLimit] = []
        for key, node in self._mapping(section, "limits", keys=SCOPE_KEYS).items():
            if key == "total":
                found += self._limits_of(Scope.total(), node, places)
                continue
            kind: Literal["project", "user"] = "project" if key == "projects" else "user"
            for name, limits in self._mapping(node, key).items():
                if self._name(name, limits, f"a {kind}"):
                    found += self._limits_of(Scope(kind, name), limits, places)
        return found

    def _limits_of(self, scope: Scope, node: Node, places: dict[tuple[Scope, str], str]) -> list[OwnLimit]:
        found: list[OwnLimit] = []
        for resource, limit in self._mapping(node, f"the limits of {scope}").items():
            if self._name(resource, limit, "a resource's name"):
                found.append(self._limit(resource, scope, limit))
                places[scope, resource] = limit.where
        return found

    def _limit(self, resource: str, scope: Scope, node: Node) -> OwnLimit:
        if not isinstance(node.value, dict):
            return OwnLimit(resource, scope, self._number(node, "max", called=resource), None)
        if not node.value:
            self._problems.add(node.where, f"{resource} has neither max nor min")
        both = self._mapping(node, resource, keys=LIMIT_KEYS, of_a_resource=True)
        maximum = self._number(both["max"], "max") if "max" in both else None
        minimum = self._number(both["min"], "min") if "min" in both else None
        if maximum is not None and minimum is not None:
            self._not_crossed(node, maximum, minimum, "")
        return OwnLimit(resource, scope, maximum, minimum)

    # -- values -------------------------------------------------------------------------------------------------

    def _mapping(
        self, node: Node, what: str, *, keys: tuple[str, ...] | None = None, of_a_resource: bool = False
    ) -> Mapping:
        """The entries of a mapping; of one with fixed ``keys`` those that are known. Nothing at all is an empty one."""
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            self._problems.add(node.where, f"{shown_name(what)} must be a mapping, not {_said(node.value)}")
            return {}
        if keys is None:
            return node.value
        for key, below in node.value.items():
            if key not in keys and self._problems.many:
                self._problems.add(below.where, "unknown key")
            elif key not in keys:
                advice = suggestion(key, keys) or f"; known are {', '.join(keys)}"
                if of_a_resource and advice[0] == ";" and "." not in what:
                    # In TOML (and in many a head) storage.gb is a gb in something called storage.
                    advice += f"; a name with a dot is one key: {shown_name(f'{what}.{key}')!r}"
                self._problems.add(below.where, f"unknown key {shown_name(key)}{advice}")
        return {key: below for key, below in node.value.items() if key in keys}

    def _name(self, name: str, node: Node, what: str) -> bool:
        return self._looked_through(node, lambda: validation.name(name, what)) is not None

    def _text(self, node: Node, key: str) -> str | None:
        if not isinstance(node.value, str):
            quotes = " (write it in quotes)" if isinstance(node.value, int | Odd) else ""
            self._problems.add(node.where, f"{key} must be text, not {_said(node.value)}{quotes}")
            return None
        text = node.value
        check = validation.name if key == "service" else validation.text
        return self._looked_through(node, lambda: check(text, key))

    def _number(self, node: Node, key: str, *, called: str | None = None) -> int | None:
        """A limit: a whole number, or for a maximum the word ``unlimited``."""
        called = called or key
        value, is_maximum = node.value, key.endswith("max")
        if value == "unlimited" and is_maximum:
            return UNLIMITED
        if isinstance(value, bool) or not isinstance(value, int):
            word = " or unlimited" if is_maximum else ""
            self._problems.add(node.where, f"{called} must be a whole number{word}, not {_said(value)}")
            return None
        check = validation.maximum if is_maximum else validation.floor
        return self._looked_through(node, lambda: check(value, called))

    def _looked_through(self, node: Node, check: Callable[[], T]) -> T | None:
        try:
            return check()
        except InvalidRequest as error:
            self._problems.add(node.where, str(error))
            return None

    def _not_crossed(self, node: Node, maximum: int, minimum: int, prefix: str) -> None:
        if maximum != UNLIMITED and minimum > maximum:
            self._problems.add(
                node.where,
                f"{prefix}min {minimum} is above {prefix}max {maximum}: nothing could satisfy both",
            )


def _said(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return value.words if isinstance(value, Odd) else shown(value)
