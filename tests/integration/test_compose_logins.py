"""infra/postgres/logins.sql, as docker-compose.yml has psql run it: also a second time, with other passwords."""

import subprocess
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from moderation.ledger.engine import open_ledger
from moderation.ledger.migrate import upgrade
from moderation.services.postgres import LocalPostgres, _binaries

SQL = Path(__file__).parents[2] / "infra" / "postgres" / "logins.sql"
GROUPS = {"worker": "vetline_worker", "flower": "vetline_watcher", "watcher": "vetline_watcher"}


def make_logins(server: LocalPostgres, password: str) -> None:
    url = make_url(server.url)
    names = {"PGHOST": url.host, "PGPORT": str(url.port), "PGUSER": url.username, "PGPASSWORD": url.password}
    passwords = {f"POSTGRES_{login.upper()}_PASSWORD": f"{password}-{login}" for login in GROUPS}
    options = ["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", str(SQL)]
    env = {name: str(value) for name, value in names.items()} | passwords | {"PGDATABASE": str(url.database)}
    subprocess.run([str(_binaries() / "psql"), *options], env=env, check=True, capture_output=True)


def groups_of(server: LocalPostgres, login: str, password: str) -> list[str]:
    """The group roles that it is in, asked under the login itself."""
    url = make_url(server.url)
    with psycopg.connect(
        host=url.host, port=url.port, dbname=url.database, user=login, password=f"{password}-{login}"
    ) as connection:
        found = connection.execute(
            "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = current_user::regrole"
        )
        return [name for (name,) in found]


def test_each_login_is_in_its_group_and_takes_a_new_password(own_postgres: LocalPostgres) -> None:
    engine = open_ledger(own_postgres.url)
    upgrade(engine)
    engine.dispose()
    for password in ("first", 'it\'s "second"'):
        make_logins(own_postgres, password)
        for login, group in GROUPS.items():
            assert groups_of(own_postgres, login, password) == [group]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        groups_of(own_postgres, "worker", "first")
