"""Alembic's entry: it runs on the connection that `moderation.ledger.migrate` hands over."""

from alembic import context

from moderation.ledger import (  # with them come the tables that they refer to
    consumer_tables,
    evaluation_tables,  # noqa: F401
)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=consumer_tables.ConsumerRow.metadata,
    compare_server_default=True,
    transaction_per_migration=False,
)
context.run_migrations()
