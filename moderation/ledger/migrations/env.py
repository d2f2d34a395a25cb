"""Alembic's entry: it runs on the connection that `moderation.ledger.migrate` hands over."""

from alembic import context

from moderation.ledger.tables import SQLModel

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    compare_server_default=True,
    transaction_per_migration=False,
)
context.run_migrations()
