"""Column types that several tables share."""

from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

NOW = text("now()")


class Xid8(UserDefinedType[str]):
    """Postgres' 64-bit transaction id: the order of commits that a feed can stand on."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


ischema_names["xid8"] = Xid8  # so that reading a database's tables knows it too


def time_column(*, default: bool = False, nullable: bool = True) -> Any:
    return Column(DateTime(timezone=True), nullable=nullable, server_default=NOW if default else None)


def json_column(*, nullable: bool = True) -> Any:
    return Column(JSONB, nullable=nullable)


def text_column(*, nullable: bool = False, default: Any = None) -> Any:
    return Column(Text, nullable=nullable, server_default=default)


def count_column() -> Any:
    return Column(BigInteger, nullable=False, server_default="0")
