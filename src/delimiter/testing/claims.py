"""What is held before a test acts, and what it must not leave behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from delimiter import validation
from delimiter.errors import InvalidRequest
from delimiter.model import Claim
from delimiter.quota import Delimiter

__all__ = ["assert_claims_unchanged", "assert_no_claims", "fill"]

#: Claims that a failure's message lists.
_SHOWN: Final = 10


def fill(
    quota: Delimiter, resource: str, *, project: str | None = None, user: str | None = None, leave: int = 0
) -> Claim | None:
    """Claim what there is room for, so that only ``leave`` more would fit; ``None`` if that is so already.

    The room is that of the whole path: the tightest limit of the owner, of the projects above and of the deployment.
    Release the claim to make room again. Raises ``InvalidRequest`` where nothing is limited, or where less than
    ``leave`` is left; ``UnknownResource``.

    >>> quota = Delimiter("memory://")
    >>> quota.define_resource("compute.vcpu", project_max=8)
    >>> fill(quota, "compute.vcpu", project="acme", leave=1).resources
    {'compute.vcpu': 7}
    >>> quota.usage(project="acme")["compute.vcpu"].available
    1
    """
    _sync(quota)
    validation.floor(leave, "leave")
    room = quota.check({resource: 1}, project=project, user=user).available[resource]
    if room is None:
        raise InvalidRequest(
            f"{resource} has no limit here, so it cannot be filled; set one with update_limits"
        )
    if room < leave:
        raise InvalidRequest(f"only {room} of {resource} are left; release some to leave {leave}")
    return quota.claim({resource: room - leave}, project=project, user=user) if room > leave else None


def assert_no_claims(quota: Delimiter, *, project: str | None = None, user: str | None = None) -> None:
    """``AssertionError`` that names what is still held: by this owner, or by anybody.

    >>> assert_no_claims(Delimiter("memory://"))
    """
    __tracebackhide__ = True
    live = _live(quota, project=project, user=user)
    if live:
        raise AssertionError(f"{len(live)} claims are still held:" + _lines("", live))


@contextmanager
def assert_claims_unchanged(quota: Delimiter) -> Iterator[None]:
    """``AssertionError`` if after the block other claims are held than before it: what failed must leave nothing.

    >>> quota = Delimiter("memory://")
    >>> quota.define_resource("compute.vcpu", project_max=8)
    >>> with assert_claims_unchanged(quota):
    ...     claim = quota.claim({"compute.vcpu": 4}, project="acme", id="vm-1")
    Traceback (most recent call last):
      ...
    AssertionError: the claims are not what they were:
      new: vm-1 (provisioned) of project acme: {'compute.vcpu': 4}
    """
    __tracebackhide__ = True
    before = _live(quota)
    yield
    after = _live(quota)
    new = {id: claim for id, claim in after.items() if id not in before}
    gone = {id: claim for id, claim in before.items() if id not in after}
    changed = {id: claim for id, claim in after.items() if id in before and claim != before[id]}
    if new or gone or changed:
        raise AssertionError(
            "the claims are not what they were:"
            + _lines("new: ", new)
            + _lines("gone: ", gone)
            + _lines("changed: ", changed)
        )


def _live(quota: Delimiter, **owner: Any) -> Mapping[str, Claim]:
    return {claim.id: claim for claim in _sync(quota).claims(**owner)}


def _sync(quota: Delimiter) -> Delimiter:
    if not isinstance(quota, Delimiter):
        raise InvalidRequest(
            f"this takes a delimiter.Delimiter, not {type(quota).__module__}.{type(quota).__name__}; a sandbox has"
            " one on the same store: sandbox.quota, delimiter_quota"
        )
    return quota


def _lines(title: str, claims: Mapping[str, Claim]) -> str:
    shown = [f"\n  {title}{_told(claim)}" for claim in list(claims.values())[:_SHOWN]]
    more = len(claims) - len(shown)
    return "".join(shown) + (f"\n  {title}and {more} more" if more else "")


def _told(claim: Claim) -> str:
    names = {"project": claim.project, "user": claim.user}
    owner = ", ".join(f"{kind} {name}" for kind, name in names.items() if name is not None)
    known = f" = {claim.external_id}" if claim.external_id is not None else ""
    return f"{claim.id}{known} ({claim.state}) of {owner}: {dict(claim.resources)}"
