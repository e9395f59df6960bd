"""The options and arguments that commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

import click

from delimiter import Delimiter, InvalidRequest, UnknownResource
from delimiter.cli import units
from delimiter.cli.session import DEFAULT_TIMEOUT, Session

__all__ = [
    "DURATION",
    "amounts",
    "examples",
    "force",
    "identity",
    "of_group",
    "of_one_scope",
    "of_store",
    "owner",
    "read_amounts",
    "read_floor",
    "read_limit",
    "tried",
]

F = TypeVar("F", bound=Callable[..., Any])


class _Duration(click.ParamType[timedelta]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        return value if isinstance(value, timedelta) else units.duration(value)


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0
        if not 0 < seconds <= _LONGEST_WAIT:
            self.fail(f"{value!r} is no number of seconds above 0", param, ctx)
        return seconds


DURATION = _Duration()
_SECONDS = _Seconds()
_LONGEST_WAIT: Final = 86_400


# --- every command: where, in which form, how long --------------------------------------------------------


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Put the option's value into the session, where it was given; a command's own wins over the group's."""

    def callback(context: click.Context, _: click.Parameter, value: Any) -> Any:
        if value:
            setattr(context.ensure_object(Session), name, value)
        return value

    return callback


def of_store(command: F) -> F:
    """``--store``, ``--json`` and ``--timeout``."""
    for option in (
        click.option(
            "--timeout",
            metavar="SECONDS",
            type=_SECONDS,
            expose_value=False,
            callback=_keep("timeout"),
            help=f"How long to wait for the store.  [default: {DEFAULT_TIMEOUT:g}]",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_keep("as_json"),
            help="Print JSON, for programs.",
        ),
        click.option(
            "--store",
            metavar="URL",
            expose_value=False,
            callback=_keep("named_store"),
            help="Where usage is kept.  [default: $DELIMITER_STORE]",
        ),
    ):
        command = option(command)
    return command


def of_group(command: F) -> F:
    """What is rarely needed, on the group only."""
    for option in (
        click.option(
            "--table-prefix",
            metavar="PREFIX",
            envvar="DELIMITER_TABLE_PREFIX",
            expose_value=False,
            callback=_keep("table_prefix"),
            help="How the tables' names begin.  [default: delimiter_]",
        ),
        click.option(
            "--schema",
            metavar="NAME",
            envvar="DELIMITER_SCHEMA",
            expose_value=False,
            callback=_keep("schema"),
            help="The database schema in which the tables lie.",
        ),
    ):
        command = option(command)
    return of_store(command)


def examples(*commands: str) -> str:
    """The end of a command's help."""
    lines = "\n".join(f"  {command}" for command in commands)
    return f"\b\n{'Example' if len(commands) == 1 else 'Examples'}:\n{lines}"


# --- who and what ----------------------------------------------------------------------------------------


def owner(command: F) -> F:
    """``--project`` and ``--user``: who is charged; both may be named."""
    command = click.option("--user", metavar="NAME", help="The user it is charged to.")(command)
    return click.option("--project", metavar="NAME", help="The project it is charged to.")(command)


def of_one_scope(command: F) -> F:
    """``--project`` or ``--user``: whose limits or usage; the deployment's if neither is named."""
    command = click.option("--user", metavar="NAME", help="Of this user.")(command)
    return click.option("--project", metavar="NAME", help="Of this project.")(command)


def identity(command: F) -> F:
    """``--id``, ``--parent`` and ``--external-id`` of a new claim."""
    for option in (
        click.option(
            "--external-id", metavar="ID", help="The real thing's own id; it names the claim as well."
        ),
        click.option("--parent", metavar="ID", help="The claim that this one hangs on and is released with."),
        click.option(
            "--id", metavar="ID", help="Its id. Repeating the command with the same id claims nothing twice."
        ),
    ):
        command = option(command)
    return command


def force(command: F) -> F:
    return click.option("--force", is_flag=True, help="Even where it leaves less than a minimum.")(command)


def tried(command: F) -> F:
    """``--dry-run`` and ``--if-version`` of a change of limits."""
    command = click.option(
        "--if-version",
        metavar="N",
        type=click.IntRange(min=0),
        help="Only if nothing was changed since `delimiter doctor` or `limits plan` said this version.",
    )(command)
    return click.option("--dry-run", is_flag=True, help="Only say what would be; change nothing.")(command)


def amounts(command: F) -> F:
    """``NAME=AMOUNT …``"""
    return click.argument("amounts", metavar="NAME=AMOUNT...", nargs=-1, required=True)(command)


# --- reading amounts -------------------------------------------------------------------------------------


def read_amounts(quota: Delimiter, given: Sequence[str]) -> dict[str, int]:
    """The amounts in the resources' own units, which are looked up only where an amount carries one."""
    texts: dict[str, str] = {}
    for word in given:
        name, separator, text = word.rpartition("=")
        if not separator or not name:
            raise InvalidRequest(f"{word!r} is not NAME=AMOUNT; write for example database.instances=2")
        if name in texts:
            raise InvalidRequest(f"{name} stands there twice; name each resource once")
        texts[name] = text
    own = (
        _units(quota, texts)
        if any(units.has_unit(text) for text in texts.values())
        else dict.fromkeys(texts, "")
    )
    return {name: units.amount(text, resource=name, unit=own[name]) for name, text in texts.items()}


def read_limit(quota: Delimiter, name: str, text: str) -> int:
    unit = _units(quota, {name: text})[name] if units.has_unit(text) else ""
    return units.limit(text, resource=name, unit=unit)


def read_floor(quota: Delimiter, name: str, text: str) -> int:
    unit = _units(quota, {name: text})[name] if units.has_unit(text) else ""
    return units.amount(text, resource=name, unit=unit)


def _units(quota: Delimiter, texts: Mapping[str, str]) -> dict[str, str]:
    known = {resource.name: resource.unit for resource in quota.resources()}
    for name in texts:
        if name not in known:
            raise UnknownResource(f"no resource {name!r} is defined")
    return known
