"""Postgres and Redis for whoever has none: started, shared, stopped with the last command that uses them."""
