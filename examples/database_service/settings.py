"""What may be set from outside: environment variables, and what holds without them."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Each is read from the environment variable of its name, in capitals."""

    database_url: str = "sqlite:///database-service.db"
    #: The hypervisor's own store, a file.
    hypervisor: str = "database-service-hypervisor.db"
    #: How long the hypervisor takes to make one thing, in seconds.
    build_seconds: float = 1.0
    #: How likely it is that a worker dies in one call of the hypervisor: 0 is never.
    crash: float = 0.0
    #: How long a worker has one instance for itself, in seconds: far more than it takes.
    lease_seconds: float = 60.0
    #: How long quota is held for an instance that nobody works on, in seconds: far more than a lease.
    expires_in: float = 3600.0
    #: How often a worker that has nothing to do looks again, in seconds.
    poll_seconds: float = 0.2
    #: How often a worker looks whether records and reality agree, in seconds. A night, where nights matter.
    sweep_seconds: float = 60.0

    @classmethod
    def from_environment(cls) -> Settings:
        given: dict[str, Any] = {}
        for field in fields(cls):
            if (text := os.environ.get(field.name.upper())) is not None:
                given[field.name] = text if isinstance(field.default, str) else float(text)
        return cls(**given)

    def as_environment(self) -> dict[str, str]:
        """For a process that is started with the same settings."""
        return {field.name.upper(): str(getattr(self, field.name)) for field in fields(self)}
