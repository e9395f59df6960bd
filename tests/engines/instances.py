"""A service whose rows are what it uses: a table of instances, counted by Delimiter, in the database of the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from delimiter import Delimiter
from engines.service import Place

#: What is counted: rows, and what they add up to.
ROWS, SIZE = "compute.instances", "compute.ram_mb"


class Instances:
    """The table, on an engine of the service's own, at an isolation level of its own."""

    def __init__(self, place: Place, url: str, **engine: Any) -> None:
        self.url = url
        self.engine = place.engine(url, **{"pool_size": 40, **engine})
        self.table = sa.Table(
            "instances",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("project_id", sa.String(255), index=True),
            sa.Column("user_id", sa.String(255), index=True),
            sa.Column("size", sa.Integer, nullable=False),
        )
        self._settings = sa.Table(
            "service_settings", self.table.metadata, sa.Column("id", sa.Integer, primary_key=True)
        )

    @contextmanager
    def created(self) -> Iterator[Instances]:
        """The table is there, and empty; afterwards it is gone."""
        self.table.metadata.drop_all(self.engine)
        self.table.metadata.create_all(self.engine)
        try:
            yield self
        finally:
            self.table.metadata.drop_all(self.engine)
            self.engine.dispose()

    def counted_by(self, quota: Delimiter) -> None:
        columns = self.table.c
        owners = {"project": columns.project_id, "user": columns.user_id}
        quota.count(ROWS, sa.func.count(), **owners)
        quota.count(SIZE, sa.func.sum(columns.size), **owners)

    def look(self, connection: Any) -> None:
        """A transaction above READ COMMITTED has its snapshot from here on."""
        connection.execute(sa.select(self._settings.c.id)).all()

    def add(self, connection: Any, project: str | None, user: str | None = None, *, size: int = 1) -> None:
        connection.execute(sa.insert(self.table).values(project_id=project, user_id=user, size=size))

    def add_past_guards(self, project: str | None, user: str | None = None, *, rows: int = 1) -> None:
        with self.engine.begin() as connection:
            for _ in range(rows):
                self.add(connection, project, user)

    def delete(self, project: str, *, rows: int = 1) -> None:
        c = self.table.c
        with self.engine.begin() as connection:
            ids = list(connection.scalars(sa.select(c.id).where(c.project_id == project).limit(rows)))
            connection.execute(sa.delete(self.table).where(c.id.in_(ids)))

    def sum_of(self, **owner: str) -> int:
        """As the table itself says, asked on a connection of its own."""
        statement = sa.select(sa.func.coalesce(sa.func.sum(self.table.c.size), 0))
        for kind, name in owner.items():
            statement = statement.where(self.table.c[f"{kind}_id"] == name)
        with self.engine.connect() as connection:
            return int(connection.scalar(statement) or 0)

    def rows(self) -> list[tuple[str | None, str | None, int]]:
        c = self.table.c
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(c.project_id, c.user_id, c.size).order_by(c.id))
            return [(row.project_id, row.user_id, row.size) for row in found]


class Base(DeclarativeBase):
    pass


class Volume(Base):
    """Mapped, in one table with its snapshots."""

    __tablename__ = "volumes"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    project_id: Mapped[str | None] = mapped_column(sa.String(255), index=True)
    kind: Mapped[str] = mapped_column(sa.String(20), default="volume")
    type_id: Mapped[int] = mapped_column(default=1)
    deleted: Mapped[bool] = mapped_column(default=False)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "volume"}  # noqa: RUF012 - as SQLAlchemy has it


class Snapshot(Volume):
    __mapper_args__ = {"polymorphic_identity": "snapshot"}  # noqa: RUF012


class VolumeType(Base):
    __tablename__ = "volume_types"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20))
