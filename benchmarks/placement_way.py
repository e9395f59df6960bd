"""Placement, OpenStack's service for inventories and allocations, as a way to claim: on MariaDB, if it is installed.

A project is a resource provider with an inventory of each resource, a claim one PUT of an allocation. It is called in
the callers' own processes, without HTTP between, which is faster than any deployment of it. What was refused because
somebody else was there (409 ``placement.concurrent_update``) is asked again, as its clients do.

    uv pip install openstack-placement   # then benchmarks/databases.py finds it
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import threading
import uuid
from typing import Any

import sqlalchemy as sa

from delimiter.bench.scenario import CONTESTED, LIMIT, Scenario, project_of, user_of
from delimiter.bench.way import Counted, Stopped, ThreadedWay

__all__ = ["Placement"]

#: Placement's own names of three resource classes.
CLASSES = ("VCPU", "MEMORY_MB", "DISK_GB")
_VERSION = "placement 1.38"


class Placement(ThreadedWay):
    name = "placement"
    title = "Placement"
    summary = "PUT /allocations/{id}, called in the process; asked again after a concurrent update"
    nested = False
    exact = False  # with its own retries it has been seen to pass an inventory
    databases = frozenset({"mysql", "mariadb"})

    @classmethod
    def missing(cls, url: str) -> str | None:
        if importlib.util.find_spec("placement") is None:
            return "it is not installed (`uv pip install openstack-placement`)"
        return super().missing(url)

    @classmethod
    def fits(cls, scenario: Scenario) -> bool:
        return super().fits(scenario) and not scenario.claims

    def drop(self) -> None:
        self._execute(sa.make_url(self.place.url), f"DROP DATABASE IF EXISTS `{self._url.database}`")

    @property
    def _url(self) -> sa.URL:
        """A database of its own: its tables have names of their own."""
        return sa.make_url(self.place.url).set(database=f"{self.place.prefix}placement")

    def _start(self, connections: int, *, create: bool = False) -> None:
        from oslo_config import cfg
        from oslo_db.sqlalchemy import enginefacade
        from placement import conf, db_api, deploy
        from placement.objects import resource_class, trait

        config = cfg.ConfigOpts()
        conf.register_opts(config)
        os.environ["OS_PLACEMENT_DATABASE__CONNECTION"] = self._url.render_as_string(hide_password=False)
        config([], project="placement", default_config_files=[], default_config_dirs=[])
        config.set_override("auth_strategy", "noauth2", group="api")
        of_database = {
            "max_pool_size": connections,
            "max_overflow": 0,
            "pool_timeout": 600,
            "sync_on_startup": create,
        }
        for name, value in of_database.items():
            config.set_override(name, value, group="placement_database")
        # A process of Placement has one database for its life, one of ours has one after the other.
        self._database = enginefacade.transaction_context()
        settings = dict(config.placement_database.items())
        del settings["sync_on_startup"]
        self._database.configure(**settings)
        db_api.placement_context_manager.patch_factory(self._database)
        trait._TRAITS_SYNCED = resource_class._RESOURCE_CLASSES_SYNCED = False  # noqa: SLF001
        self._application = deploy.loadapp(config)

    def _provider(self, number: int) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, project_of(number)))

    def create(self) -> None:
        self._execute(sa.make_url(self.place.url), f"CREATE DATABASE `{self._url.database}`")
        self._start(2, create=True)
        for number in [*range(self.scenario.projects), CONTESTED]:
            provider = self._provider(number)
            self._asked(
                "POST", "/resource_providers", {"name": project_of(number), "uuid": provider}, allowed={200}
            )
            total = self.scenario.contested_limit if number == CONTESTED else LIMIT
            inventories = {name: {"total": total} for name in self._classes}
            body = {"inventories": inventories, "resource_provider_generation": 0}
            self._asked("PUT", f"/resource_providers/{provider}/inventories", body, allowed={200})
        self.close()

    @property
    def _classes(self) -> tuple[str, ...]:
        return CLASSES[: self.scenario.resources]

    def _execute(self, url: sa.URL, statement: str) -> list[Any]:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            found = connection.exec_driver_sql(statement)
            return list(found) if found.returns_rows else []

    def count(self) -> Counted:
        rows = self._execute(
            self._url,
            "SELECT p.name, count(DISTINCT a.consumer_id) FROM allocations a"
            " JOIN resource_providers p ON p.id = a.resource_provider_id GROUP BY p.name",
        )
        found = {name: int(claims) for name, claims in rows}
        contested = found.pop(project_of(CONTESTED), 0)
        return Counted(sum(found.values()), contested)

    def open(self, connections: int) -> None:
        # A request may hold two connections; as many are served at once as surely get both.
        self._workers = threading.Semaphore(max(1, connections // 2))
        self._start(max(2, connections))

    def claim(self, number: int) -> bool:
        held = {"resources": dict.fromkeys(self._classes, 1)}
        body = {
            "allocations": {self._provider(number): held},
            "project_id": project_of(number),
            "user_id": user_of(number),
            "consumer_generation": None,
            "consumer_type": "INSTANCE",
        }
        while True:
            with self._workers:
                status, answer = self._ask("PUT", f"/allocations/{uuid.uuid4()}", body)
            if status == 204:
                return True
            if status != 409:
                raise RuntimeError(f"Placement answered {status}: {answer[:500]!r}")
            if b"placement.concurrent_update" not in answer:
                return False
            if self.stopping():
                raise Stopped

    def _asked(self, method: str, path: str, body: Any, *, allowed: set[int]) -> None:
        status, answer = self._ask(method, path, body)
        if status not in allowed:
            raise RuntimeError(f"Placement answered {method} {path} with {status}: {answer[:500]!r}")

    def _ask(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """One request, as a server of WSGI would make it."""
        data = json.dumps(body).encode()
        environment = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(data)),
            "HTTP_X_AUTH_TOKEN": "admin",
            "HTTP_OPENSTACK_API_VERSION": _VERSION,
            "HTTP_ACCEPT": "application/json",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(data),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        statuses: list[str] = []
        parts = self._application(environment, lambda status, _headers, _info=None: statuses.append(status))
        answer = b"".join(parts)
        return int(statuses[0].split()[0]), answer

    def close(self) -> None:
        self._database.writer.get_engine().dispose()
