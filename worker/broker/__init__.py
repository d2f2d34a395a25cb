"""Celery's side of a worker: the app, its tasks, and what keeps its connection to Redis working."""
