"""What goes wrong, as the command line tells it: one sentence, what to do next, and an exit status."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from delimiter import errors
from delimiter.cli.safe_text import harmless
from delimiter.model import Violation

__all__ = [
    "DONE",
    "REFUSED",
    "UNREACHABLE",
    "WRONG",
    "CheckFailed",
    "Failure",
    "NothingThere",
    "advice_over_limit",
    "failure_of",
    "masked",
    "of_place",
    "quoted",
]

#: The exit statuses.
DONE: Final = 0
REFUSED: Final = 1
WRONG: Final = 2
UNREACHABLE: Final = 3

# A store that did not decide in time is not a refusal: a script must not tell its user "no quota" for it.
_STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (errors.StoreUnavailable, UNREACHABLE),
    (errors.Conflict, UNREACHABLE),
    (errors.OverLimit, REFUSED),
    (errors.BelowMinimum, REFUSED),
    (errors.ClaimExpired, REFUSED),
    (errors.ClaimReleased, REFUSED),
    (errors.ClaimConflict, REFUSED),
)

_ADVICE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (
        errors.UnknownResource,
        "`delimiter resource list` shows what is defined, `delimiter resource define` defines more.",
    ),
    (errors.UnknownProject, "`delimiter project tree` shows the tree, `delimiter project add` adds to it."),
    (
        errors.UnknownClaim,
        "`delimiter claims` lists what is live, `delimiter claims --state released` what was.",
    ),
    (errors.ClaimExpired, "`delimiter claim` or `delimiter reserve` with another --id."),
    (errors.ClaimReleased, "`delimiter claim` or `delimiter reserve` with another --id."),
    (errors.ClaimConflict, "`delimiter claims` shows who holds it; take another id."),
    (errors.Conflict, "Others keep the store busy: try again, or wait longer with `--timeout`."),
)

#: The sums that are too large are in the error itself.
_OVERBOOKED: Final = "overbooking is forbidden"

#: What is said of a store that is there and cannot be used, most of it by SQLite, and what helps; no waiting does.
_STORE_ADVICE: Final[tuple[tuple[str, str], ...]] = (
    (
        "tables are not there",
        "Older than this Delimiter? `limits apply --create` upgrades them. Elsewhere? `--schema` and `--table-prefix`.",
    ),
    (
        "readonly database",
        "Whoever runs this must be allowed to write the file and its folder (SQLite keeps a journal beside it).",
    ),
    (
        "unable to open database",
        "Look at the path: the folder must be there, and whoever runs this must be allowed to read and write in it.",
    ),
    ("not a database", "This file is something else. Check `--store`; nothing was changed in it."),
    ("is a folder", "Name a file in it: `--store sqlite:///folder/quota.db`"),
    ("no folder", "Check `--store`, or make the folder first."),
    ("disk is full", "Make room on the disk; nothing was lost."),
    ("disk image is malformed", "The file is damaged: keep a copy, and restore the last backup."),
)


class CheckFailed(Exception):
    """Something that was to be shown is not so."""


class NothingThere(errors.StoreUnavailable):
    """The database can be reached, or its file made, but nobody has made a store of it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, ready to be shown."""

    kind: str
    message: str
    status: int
    advice: str = ""
    violations: tuple[Violation, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """``violations`` are there for the errors that have some."""
        error: dict[str, Any] = {"kind": self.kind, "message": self.message}
        if self.violations:
            error["violations"] = list(self.violations)
        if self.advice:
            error["advice"] = self.advice
        return {"error": error}


def failure_of(error: Exception, *, secrets: Iterable[str] = ()) -> Failure:
    """The failure that stands for an exception. Whatever it says, no password is in it."""
    status = _status(error)
    message = masked(_sentence(error), secrets=secrets)
    violations = getattr(error, "violations", ())
    if isinstance(error, CheckFailed):
        return Failure("CheckFailed", message, REFUSED)
    return Failure(_kind(error), message, status, _advice(error), tuple(violations))


def _status(error: Exception) -> int:
    if _edited_meanwhile(error):
        return REFUSED
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), WRONG)


def _edited_meanwhile(error: Exception) -> bool:
    """An edit refused for another one: the store has decided, and trying again would be no use."""
    return isinstance(error, errors.Conflict) and not error.retryable


def _kind(error: Exception) -> str:
    """The name that the interface knows it by."""
    return next(
        (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__), "InternalError"
    )


def _sentence(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text[0].upper() + text[1:] if text.split(" ", 1)[0].isalpha() else text


def _advice(error: Exception) -> str:
    """What to do next: what the command noted on its way out, or what is right for this kind of error."""
    if notes := getattr(error, "__notes__", None):
        return str(notes[0])
    if isinstance(error, errors.OverLimit) and error.violations:
        return advice_over_limit(error.violations)
    if isinstance(error, errors.InvalidRequest) and _OVERBOOKED in str(error):
        return (
            "Nothing was changed. `delimiter project overbooking allowed` would allow it, for all projects."
        )
    if _edited_meanwhile(error):
        return "Nothing was changed. Look again at what is there now, then decide again."
    if isinstance(error, errors.BelowMinimum):
        return "`--force` does it all the same."
    if isinstance(error, errors.StoreUnavailable):
        return _advice_unreachable(error)
    return next((advice for kind, advice in _ADVICE if isinstance(error, kind)), "")


def advice_over_limit(violations: Sequence[Violation]) -> str:
    return f"Nothing was changed. Ask for no more than fits, {_making_room(violations)}"


@contextmanager
def of_place() -> Iterator[None]:
    """Around what puts something in another place: whoever is refused there did not ask for too much."""
    try:
        yield
    except errors.OverLimit as error:
        error.add_note(f"Nothing was changed. There must be room first: {_making_room(error.violations)}")
        raise


def _making_room(violations: Sequence[Violation]) -> str:
    """For the level that is named first; the others are short too, and would refuse next."""
    violation, *others = violations
    kind, _, name = violation.scope.partition(":")
    owner = f" --{kind} {quoted(name)}" if name else ""
    subtree = " --subtree" if kind == "project" else ""
    advice = (
        f"release something (`delimiter claims{owner}{subtree}`), or raise the"
        f" limit (`delimiter limit set {quoted(violation.resource)}{owner} --max N`)."
    )
    if others:
        named = ", ".join(
            dict.fromkeys(f"{other.resource} of {other.scope.replace(':', ' ')}" for other in others)
        )
        advice += f" The same for what else is short: {harmless(named)}."
    return advice


def _advice_unreachable(error: errors.StoreUnavailable) -> str:
    if error.in_doubt and error.claim_id is not None:
        return (
            f"Run the same command again with `--id {quoted(error.claim_id)}` to learn whether it happened."
        )
    if isinstance(error, NothingThere):
        return (
            "Check `--store`, or make the store by defining a first resource:"
            " `delimiter resource define NAME --max N`"
        )
    text = str(error).casefold()
    for sign, advice in _STORE_ADVICE:
        if sign in text:
            return advice
    return "`delimiter doctor` looks at the store; `--timeout` waits longer."


def quoted(word: str) -> str:
    """A word as it must be typed in a shell."""
    return word if re.fullmatch(r"[\w.:@%+/-]+", word) else "'" + word.replace("'", "'\\''") + "'"


_IN_URL: Final = re.compile(r"(?P<before>[\w+.-]+://[^/?#\s:@]*:)(?P<password>[^\s]*)(?=@)")
_IN_QUERY: Final = re.compile(
    r"(?P<before>[?&](?:password|passwd|pwd|sslpassword)=)[^&\s'\"]+", re.IGNORECASE
)


def masked(text: str, *, secrets: Iterable[str] = ()) -> str:
    """The text without passwords: those of any URL in it, and the ones that are known.

    >>> masked("no answer from postgresql://bob:s3cret@db/quota")
    'no answer from postgresql://bob:***@db/quota'
    """
    text = _IN_URL.sub(r"\g<before>***", text)
    text = _IN_QUERY.sub(r"\g<before>***", text)
    for secret in secrets:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text
