"""Alembic's entry: it runs on the connection that `moderation.ledger.migrate` hands over."""

from alembic import context
from sqlmodel import SQLModel

# The import of each fills the metadata.
from moderation.ledger import consumer_tables, evaluation_tables, operation_tables, tables  # noqa: F401

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    compare_server_default=True,
    transaction_per_migration=False,
)
context.run_migrations()
