"""Alembic's entry: it runs on the connection that `moderation.ledger.migrate` hands over."""

from alembic import context

from moderation.ledger import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.AssessmentRow.metadata,
    compare_server_default=True,
    transaction_per_migration=False,
)
context.run_migrations()
