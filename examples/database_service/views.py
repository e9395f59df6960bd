"""What goes over the wire."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class NewCluster(BaseModel):
    """So many instances, each with so much memory and one volume."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    instances: int = Field(ge=1, le=1000)
    memory_gb: int = Field(ge=1, le=1_000_000)
    storage_gb: int = Field(ge=1, le=1_000_000)


class NewSize(BaseModel):
    model_config = ConfigDict(extra="forbid")

    storage_gb: int = Field(ge=1, le=1_000_000)


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class VolumeView(_View):
    id: str
    held_gb: int
    wanted_gb: int


class InstanceView(_View):
    id: str
    number: int
    state: str
    reason: str | None
    memory_gb: int
    volumes: list[VolumeView]


class ClusterView(_View):
    id: str
    name: str
    state: str
    instances: list[InstanceView]


class UsageView(BaseModel):
    limit: int
    used: int
    reserved: int
    available: int | None
