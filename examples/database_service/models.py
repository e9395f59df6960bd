"""The service's own tables: clusters of instances, and the volumes of these."""

from __future__ import annotations

import time

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

#: States of an instance that are somebody's work, and where that work leads.
WORK = {"building": "ready", "changing": "ready", "failing": "failed", "deleting": "gone"}


class Base(DeclarativeBase):
    pass


class Cluster(Base):
    """Its id is made of the user's Idempotency-Key, so that the same request twice is one cluster."""

    __tablename__ = "clusters"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(10), default="active")  # or "deleting"
    #: What was asked for, to tell a request that is made again from another one with the same key.
    request: Mapped[str] = mapped_column(Text)
    instances: Mapped[list[Instance]] = relationship(
        back_populates="cluster", cascade="all, delete-orphan", lazy="selectin", order_by="Instance.number"
    )


class Instance(Base):
    """A machine with a database on it. These rows are what the quota of instances is counted from."""

    __tablename__ = "instances"
    __table_args__ = (Index("ix_instances_work", "state", "lease_until"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    cluster_id: Mapped[str] = mapped_column(ForeignKey("clusters.id"), index=True)
    user_id: Mapped[str] = mapped_column(String(64), index=True)  # counted by: so it has an index
    number: Mapped[int]
    memory_gb: Mapped[int]
    state: Mapped[str] = mapped_column(String(10), default="building")  # of WORK, "ready" or "failed"
    reason: Mapped[str | None] = mapped_column(Text)  # why it failed
    external_id: Mapped[str | None] = mapped_column(String(64))  # the hypervisor's
    created_at: Mapped[float] = mapped_column(default=time.time)
    #: Raised by every request for a change: a worker that is done sees whether more was asked for meanwhile.
    revision: Mapped[int] = mapped_column(default=0)
    #: The worker that has it for itself, and until when (seconds since 1970).
    worker: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float] = mapped_column(default=0.0)
    cluster: Mapped[Cluster] = relationship(back_populates="instances")
    volumes: Mapped[list[Volume]] = relationship(
        back_populates="instance", cascade="all, delete-orphan", lazy="selectin"
    )

    def ask(self, state: str) -> None:
        """Somebody wants it otherwise. A worker will see to it."""
        self.state = state
        self.revision += 1


class Volume(Base):
    """A disk. What is held for it is never less than what exists: it grows before, and shrinks after the real one."""

    __tablename__ = "volumes"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id"), index=True)
    held_gb: Mapped[int]  # as in the claim
    wanted_gb: Mapped[int]  # 0: to be deleted
    external_id: Mapped[str | None] = mapped_column(String(64))
    instance: Mapped[Instance] = relationship(back_populates="volumes")
