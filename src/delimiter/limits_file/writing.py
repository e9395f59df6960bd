"""A document as YAML, laid out for people and for ``diff``: sorted, one value a line, no defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final

import yaml
from yaml.resolver import Resolver

from delimiter.limits_file.document import Document
from delimiter.limits_file.reading import RESOURCE_KEYS
from delimiter.model import UNLIMITED, OwnLimit, Project, Resource, service_of

__all__ = ["render"]

_STEP: Final = "  "

#: What may stand without quotes, if YAML does not take it for something else (``no``, ``null``, ``1e3``).
_PLAIN: Final = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_./@+ ,()-]*[A-Za-z0-9_.)])?")
#: Words that some reader of YAML, old or new, takes for something else than text.
_NOT_PLAIN: Final = re.compile(r"(?i:y|n|yes|no|on|off|true|false|null)")
#: What YAML would take for something else, and what would turn the rest of a line round on a screen.
_ESCAPED: Final = re.compile(
    '[\\\\"\n\x7f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]'
)
#: YAML reads a longer key only behind a question mark.
_LONGEST_SIMPLE_KEY: Final = 1000

_RESOLVER: Final[Any] = Resolver()


def render(document: Document) -> str:
    """The document as a YAML file. ``parse`` of it is the same document again; equal documents are equal text.

    >>> print(render(Document.of(projects=[Project("acme", None), Project("web", "acme")], overbooking="forbidden")))
    overbooking: forbidden
    <BLANKLINE>
    projects:
      acme:
        web:
    <BLANKLINE>
    """
    sections: list[str] = []
    if document.overbooking is not None:
        sections.append(f"overbooking: {document.overbooking}")
    for name, lines in (
        ("resources", None if document.resources is None else _resources(document.resources)),
        ("projects", None if document.projects is None else _projects(document.projects)),
        ("limits", None if document.own_limits is None else _limits(document.own_limits)),
    ):
        if lines is not None:
            body = list(lines)
            sections.append("\n".join([f"{name}:", *body]) if body else f"{name}: {{}}")
    return "\n\n".join(sections or ["{}"]) + "\n"


def _resources(resources: Iterable[Resource]) -> Iterator[str]:
    for resource in resources:
        plain = Resource(name=resource.name, service=service_of(resource.name))
        yield from _key(_STEP, resource.name)
        for key in RESOURCE_KEYS:
            value = getattr(resource, key)
            if value != getattr(plain, key):
                yield f"{_STEP * 2}{key}: {_value(value)}"


def _projects(projects: Iterable[Project]) -> Iterator[str]:
    depth: dict[str | None, int] = {None: 0}
    for project in projects:  # each is followed by those below it
        depth[project.id] = depth[project.parent] + 1
        yield from _key(_STEP * depth[project.id], project.id)


def _limits(own_limits: Iterable[OwnLimit]) -> Iterator[str]:
    sections = {"total": "total", "project": "projects", "user": "users"}
    for kind, of_kind in groupby(own_limits, key=lambda own: own.scope.kind):
        yield f"{_STEP}{sections[kind]}:"
        for scope, of_scope in groupby(of_kind, key=lambda own: own.scope):
            indent = _STEP * (2 if kind == "total" else 3)
            if kind != "total":
                yield from _key(_STEP * 2, scope.name)
            for own in of_scope:
                yield from _key(indent, own.resource, _limit(own))


def _limit(own: OwnLimit) -> str:
    if own.min is None:
        return _value(own.max)
    maximum = "" if own.max is None else f"max: {_value(own.max)}, "
    return f"{{{maximum}min: {own.min}}}"


def _key(indent: str, name: str, value: str = "") -> Iterator[str]:
    key = _text(name)
    rest = f": {value}" if value else ":"
    if len(key) <= _LONGEST_SIMPLE_KEY:
        yield f"{indent}{key}{rest}"
    else:
        yield f"{indent}? {key}"
        yield f"{indent}{rest}"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    return "unlimited" if value == UNLIMITED else str(value)


def _text(text: str) -> str:
    kind = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if _PLAIN.fullmatch(text) and not _NOT_PLAIN.fullmatch(text) and kind == "tag:yaml.org,2002:str":
        return text
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    return {"\\": "\\\\", '"': '\\"', "\n": "\\n"}.get(character) or f"\\u{ord(character):04x}"
