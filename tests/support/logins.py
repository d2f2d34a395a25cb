"""Logins to Postgres in the project's group roles."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text


@contextmanager
def login_url(owner: Engine, role: str) -> Iterator[str]:
    """The database's URL under a new login in this role; dropped at the end."""
    name = f"login_{role}_{owner.url.database}"  # roles are the cluster's
    run(owner, f"CREATE ROLE {name} LOGIN PASSWORD 'test' IN ROLE {role}")
    try:
        yield owner.url.set(username=name, password="test").render_as_string(hide_password=False)
    finally:
        run(owner, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def run(engine: Engine, *statements: str) -> None:
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
