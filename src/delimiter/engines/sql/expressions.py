"""How one resource is counted: SQLAlchemy's expressions that a service handed over, looked through."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement

from delimiter.counted import Counted
from delimiter.errors import InvalidRequest
from delimiter.model import CEILING

__all__ = ["CountExpressions", "whole_number"]


class CountExpressions:
    """One counted resource: its expressions, looked through."""

    def __init__(self, resource: str, counted: Counted) -> None:
        self._amount = _expression(counted.amount, "amount")
        if not any(isinstance(part, FunctionElement) for part in visitors.iterate(self._amount)):
            raise InvalidRequest(
                f"the amount of {resource} must add up rows, such as func.count() or func.sum({self._amount})"
            )
        self._owners: dict[str, sa.ColumnElement[Any] | None] = {
            kind: None if given is None else _expression(given, kind)
            for kind, given in (("project", counted.project), ("user", counted.user))
        }
        self._where = None if counted.where is None else _expression(counted.where, "where")
        parts = [self._amount, *(owner for owner in self._owners.values() if owner is not None)]
        # Of a mapped class the class itself: what it adds to its queries (its kind, with inheritance) is kept.
        entities = [
            given.parent.entity
            for given in (counted.project, counted.user)
            if isinstance(given, InstrumentedAttribute)
        ]
        probe = sa.select(*parts) if self._where is None else sa.select(*parts).where(self._where)
        self._froms: Sequence[Any] = entities or probe.get_final_froms()
        if not self._froms:
            raise InvalidRequest(
                f"from which table {resource} is counted cannot be told: name the column of the project or the user"
            )
        self._tables = [table for table in probe.get_final_froms() if isinstance(table, sa.Table)]

    def owner(self, kind: str) -> sa.ColumnElement[Any] | None:
        return self._owners.get(kind)

    def select(self, owned: sa.ColumnElement[bool] | None) -> sa.Select[Any]:
        statement = sa.select(sa.func.coalesce(self._amount, 0).label("amount")).select_from(*self._froms)
        for condition in (self._where, owned):
            if condition is not None:
                statement = statement.where(condition)
        return statement

    def is_text(self, kind: str) -> bool:
        owner = self._owners[kind]
        return owner is not None and isinstance(owner.type, sa.String)

    def convert(self, kind: str, names: Iterable[str]) -> list[Any]:
        """Names as values of the service's column; one that cannot be in it has no rows there."""
        owner = self._owners[kind]
        assert owner is not None
        convert = _converter(owner.type)
        values = []
        for name in names:
            with suppress(ValueError):
                value = convert(name)
                if str(value) == name:  # `` 7`` and ``007`` are other projects than ``7``
                    values.append(value)
        return values

    def description(self) -> str:
        """Where it is counted from, as JSON; for operators, and to look for an index."""
        owners = [owner for owner in self._owners.values() if isinstance(owner, sa.Column)]
        tables = {table for table in self._tables for owner in owners if _is_of(owner, table)}
        if len(tables) != 1:
            return json.dumps({"table": None, "owners": [], "columns": []})
        (table,) = tables
        names = {owner.name for owner in owners}
        others = {
            part.name
            for expression in (self._amount, self._where)
            if expression is not None
            for part in visitors.iterate(expression)
            if isinstance(part, sa.Column) and _is_of(part, table) and part.name not in names
        }
        told = {
            "table": table.name,
            "schema": table.schema,
            "owners": [owner.name for owner in owners],
            "columns": sorted(others),
        }
        return json.dumps(told, sort_keys=True)


def _is_of(column: sa.Column[Any], table: sa.Table) -> bool:
    """By name: what comes from a mapped class is a column of a copy of the table."""
    return getattr(column.table, "key", None) == table.key


def _expression(given: Any, what: str) -> sa.ColumnElement[Any]:
    if hasattr(given, "__clause_element__"):
        given = given.__clause_element__()
    if not isinstance(given, sa.ColumnElement):
        raise InvalidRequest(
            f"{what} must be an SQLAlchemy expression such as a column, not a value of type {type(given).__name__}"
        )
    return given


def _converter(type_: sa.types.TypeEngine[Any]) -> Callable[[str], Any]:
    if isinstance(type_, sa.Integer):
        return _integer
    if isinstance(type_, sa.Uuid):
        return uuid.UUID if type_.as_uuid else lambda name: str(uuid.UUID(name))
    return str


def _integer(name: str) -> int:
    value = int(name)
    if abs(value) > CEILING:
        raise ValueError("no database has a column for it")
    return value


def whole_number(amount: Any) -> int:
    return math.ceil(amount or 0)
