"""Delimiter keeps the tenants of a service inside their quotas: strictly, in the service's own transaction.

>>> from delimiter import Delimiter
>>> quota = Delimiter("memory://")
>>> quota.define_resource("database.instances", max=2000, user_max=25)
>>> claim = quota.claim({"database.instances": 1}, project="acme", user="john")
>>> quota.release(claim.id)
"""

from importlib.metadata import version

from delimiter.errors import (
    BelowMinimum,
    ClaimConflict,
    ClaimExpired,
    ClaimReleased,
    Conflict,
    DelimiterError,
    InvalidRequest,
    OverLimit,
    StoreUnavailable,
    UnknownClaim,
    UnknownProject,
    UnknownResource,
    Unsupported,
)
from delimiter.listing import Adopted, Existing, Mismatch, Progress
from delimiter.model import (
    Claim,
    Consumer,
    Decision,
    Drift,
    Event,
    Explanation,
    Level,
    Overage,
    Overbooking,
    OwnLimit,
    Project,
    ProjectUsage,
    Request,
    Resource,
    Scope,
    Usage,
    Violation,
)
from delimiter.quota import Delimiter

__version__ = version("delimiter")

__all__ = [
    "Adopted",
    "BelowMinimum",
    "Claim",
    "ClaimConflict",
    "ClaimExpired",
    "ClaimReleased",
    "Conflict",
    "Consumer",
    "Decision",
    "Delimiter",
    "DelimiterError",
    "Drift",
    "Event",
    "Existing",
    "Explanation",
    "InvalidRequest",
    "Level",
    "Mismatch",
    "OverLimit",
    "Overage",
    "Overbooking",
    "OwnLimit",
    "Progress",
    "Project",
    "ProjectUsage",
    "Request",
    "Resource",
    "Scope",
    "StoreUnavailable",
    "UnknownClaim",
    "UnknownProject",
    "UnknownResource",
    "Unsupported",
    "Usage",
    "Violation",
]
