"""The service over HTTP. Whose request it is stands in the header X-User: to prove it is another story."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import select

import delimiter.fastapi

from .clusters import Clusters, Refused
from .models import Cluster
from .service import Service
from .settings import Settings
from .views import ClusterView, NewCluster, NewSize, UsageView

User = Annotated[str, Header(alias="X-User", pattern="^[a-z0-9-]{1,64}$")]
Key = Annotated[str, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


def app_from_environment() -> FastAPI:
    return create_app(Service.open(Settings.from_environment()))


def create_app(service: Service) -> FastAPI:
    @asynccontextmanager
    async def closing(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="Databases", lifespan=closing)
    # Whatever Delimiter raises is answered in one way: 403 for OverLimit, with the numbers the user may know.
    delimiter.fastapi.install(app)
    app.add_exception_handler(Refused, _refused)
    clusters, quota = Clusters(service), service.quota

    @app.post("/clusters", status_code=202)
    def create_cluster(wanted: NewCluster, user: User, key: Key, response: Response) -> ClusterView:
        cluster, new = clusters.create(user, key, wanted)
        response.status_code = 202 if new else 200
        return cluster  # type: ignore[no-any-return]

    @app.get("/clusters")
    def list_clusters(user: User) -> list[ClusterView]:
        with service.reading() as session:
            found = session.scalars(select(Cluster).where(Cluster.user_id == user).order_by(Cluster.name))
            return [ClusterView.model_validate(cluster) for cluster in found]

    @app.get("/clusters/{cluster_id}")
    def show_cluster(cluster_id: str, user: User) -> ClusterView:
        with service.reading() as session:
            cluster = session.get(Cluster, cluster_id)
            if cluster is None or cluster.user_id != user:
                raise Refused(404, "There is no such cluster of yours.")
            return ClusterView.model_validate(cluster)

    @app.patch("/volumes/{volume_id}", status_code=202)
    def resize_volume(volume_id: str, size: NewSize, user: User) -> ClusterView:
        return clusters.resize_volume(user, volume_id, size.storage_gb)  # type: ignore[no-any-return]

    @app.delete("/volumes/{volume_id}", status_code=202)
    def delete_volume(volume_id: str, user: User) -> None:
        clusters.delete_volume(user, volume_id)

    @app.delete("/instances/{instance_id}", status_code=202)
    def delete_instance(instance_id: str, user: User) -> None:
        clusters.delete_instance(user, instance_id)

    @app.delete("/clusters/{cluster_id}", status_code=202)
    def delete_cluster(cluster_id: str, user: User) -> None:
        clusters.delete_cluster(user, cluster_id)

    @app.get("/usage")
    def usage(user: User) -> dict[str, UsageView]:
        return {
            name: UsageView(limit=one.limit, used=one.used, reserved=one.reserved, available=one.available)
            for name, one in quota.usage(user=user).items()
        }

    @app.get("/limits")
    def limits(user: User) -> dict[str, int]:
        return quota.limits(user=user)

    return app


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    body = {"type": "about:blank", "title": str(error), "status": error.status}
    return JSONResponse(body, status_code=error.status, media_type="application/problem+json")
