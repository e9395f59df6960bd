"""Runs the migrations on the connection that was handed over, with the prefix and schema of the store."""

from alembic import context

tables = context.config.attributes["tables"]

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    version_table=context.config.attributes["version_table"],
    version_table_schema=tables.schema,
    # The caller holds the lock and the transaction in which everything happens.
    transactional_ddl=False,
)
context.run_migrations()
