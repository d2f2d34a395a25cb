"""Messages of plain Celery clients: taken from Redis, made rows, or noted as rejected."""
