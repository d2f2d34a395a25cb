"""Alembic's entry: it runs on the connection that `moderation.ledger.migrate` hands over."""

from alembic import context

from moderation.ledger import consumer_tables  # with it come the tables that it refers to

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=consumer_tables.ConsumerRow.metadata,
    compare_server_default=True,
    transaction_per_migration=False,
)
context.run_migrations()
