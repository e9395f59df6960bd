"""A resize that keeps two sizes alive until somebody confirms it; the difference is held meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine

from delimiter import ClaimExpired, Delimiter, OverLimit

from .elsewhere import Resizable
from .reserve_first import VCPU

UNDECIDED = timedelta(hours=24)  # so long may the user take to confirm


@dataclass(frozen=True)
class Resize:
    """What the service writes down before it begins."""

    id: str
    name: str
    claim_id: str
    project: str
    old: int
    new: int

    @property
    def hold(self) -> str:
        return f"{self.claim_id}.resize.{self.id}"


def begin(quota: Delimiter, engine: Engine, cloud: Resizable, job: Resize) -> None:
    if job.new > job.old:
        more = {VCPU: job.new - job.old}
        try:
            quota.reserve(more, project=job.project, id=job.hold, parent=job.claim_id, expires_in=UNDECIDED)
        except ClaimExpired:  # a run before this one came so far, and nobody came back in time
            revert(quota, engine, cloud, job)
            raise
    cloud.begin_resize(job.name, job.new)


def confirm(quota: Delimiter, engine: Engine, cloud: Resizable, job: Resize) -> None:
    _settle(quota, engine, cloud, job, size=cloud.confirm_resize(job.name))


def revert(quota: Delimiter, engine: Engine, cloud: Resizable, job: Resize) -> None:
    _settle(quota, engine, cloud, job, size=cloud.revert_resize(job.name))


def _settle(quota: Delimiter, engine: Engine, cloud: Resizable, job: Resize, *, size: int) -> None:
    """The claim becomes what is there, in one step, so that nobody takes the room in between."""
    try:
        with engine.begin() as connection:
            if job.new > job.old:
                quota.release(job.hold, connection=connection)
            quota.resize(job.claim_id, {VCPU: size}, connection=connection)
    except OverLimit:  # the reservation had run out, and others took the room
        cloud.begin_resize(job.name, job.old)
        cloud.confirm_resize(job.name)
        raise
