"""Everything that Delimiter is told about this service."""

from __future__ import annotations

from sqlalchemy import Engine, func

from delimiter import Delimiter

from .models import Instance


def open_quota(engine: Engine) -> Delimiter:
    """On the service's own engine: what is claimed commits together with the service's rows."""
    quota = Delimiter(engine, timeout=30)  # makes its tables beside ours
    # At every start. What an operator has set with update_limits (or `delimiter limit set`) stays as it is.
    quota.define_resource("database.clusters", max=300, user_max=4, unit="clusters")
    quota.define_resource("database.instances", max=2000, user_max=25, unit="instances")
    quota.define_resource("storage.gb", user_max=20_000, unit="GB")
    quota.define_resource("memory.gb", user_max=10, unit="GB")
    # Instances are rows of ours, so nobody needs to keep a second record of them: they are counted. A failed one is
    # shown to its user, but there is nothing of it. Storage and memory lie on the hypervisor: they are tracked, by
    # claims that can be reserved, resized and released.
    quota.count("database.instances", func.count(), user=Instance.user_id, where=Instance.state != "failed")
    return quota


def limit_one_user(quota: Delimiter) -> None:
    """What an operator does, once: this user has a smaller contract."""
    quota.update_limits("database.instances", user="amrith", max=2)
    quota.update_limits("database.clusters", user="amrith", max=1)
