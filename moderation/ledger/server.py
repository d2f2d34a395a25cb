"""Asks the Postgres server about itself: what it is set to keep, and whether it takes writes."""

from dataclasses import dataclass

from sqlalchemy import Engine, text

from moderation.ledger.engine import autocommit

# reset_val: as a new session of this login has it. A login that may not look at standbys still sees how many there are.
_SERVER = text("""
    SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS is_standby,
        (SELECT count(*) FROM pg_stat_replication) AS standbys,
        coalesce((SELECT reset_val FROM pg_settings WHERE name = 'synchronous_standby_names'), '') <> '' AS waits_for_them,
        ARRAY(
            SELECT name FROM pg_settings
            WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND reset_val = 'off' ORDER BY name
        ) AS off
""")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """off: of the settings that keep what is committed over a crash, those that are off."""

    version: str
    is_standby: bool
    standbys: int
    waits_for_them: bool
    off: tuple[str, ...]


def read_server(engine: Engine) -> PostgresServer:
    """As it is set now."""
    with autocommit(engine) as connection:
        row = connection.execute(_SERVER).one()
    return PostgresServer(row.version, row.is_standby, row.standbys, row.waits_for_them, tuple(row.off))
