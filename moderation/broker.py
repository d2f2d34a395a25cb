"""Where Redis is and how it is reached: one reading of REDIS_URL, for redis-py, Celery and Flower.

Each of the three reads TLS parameters in its own way: kombu verifies nothing where there are none and, with a
transport named beside the URL, would not even encrypt; Flower reads none. So they are read here, once, and what
`rediss://` says without any is a verified certificate of that host.

redis-py is loaded with the first connection: it brings asyncio and OpenTelemetry with it, and takes as long to load as
all the rest of a producer.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from moderation.errors import BadSetting, BrokerRefused, BrokerUnavailable

if TYPE_CHECKING:
    import redis

# What Celery calls it is understood too.
_VERIFY = {"required": "required", "none": "none", "cert_required": "required", "cert_none": "none"}
_YES_NO = {"true": True, "false": False}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, slots=True)
class Broker:
    """A Redis as its clients take it."""

    url: str  # without parameters; holds the password
    tls: dict[str, Any] | None  # the arguments of redis.SSLConnection; None: plain text


def read_broker(redis_url: str) -> Broker:
    """Raises BadSetting, in a line without the URL, its password or its files."""
    bare, _, query = redis_url.partition("?")
    try:
        parts = urlsplit(bare)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError as exc:
        raise BadSetting("REDIS_URL is not a Redis URL") from exc
    if parts.scheme not in ("redis", "rediss"):
        raise BadSetting("REDIS_URL is not a Redis URL: it begins with redis:// or rediss://")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(parameters.keys() - {*_FILES, "ssl_cert_reqs", "ssl_check_hostname"}):
        raise BadSetting(f"REDIS_URL: {unknown[0]} is not a parameter of it")
    if parts.scheme == "rediss":
        return Broker(bare, _tls(parameters))
    if parameters:
        raise BadSetting(f"REDIS_URL: {min(parameters)} is for rediss://; redis:// is plain text")
    return Broker(bare, None)


def quiet() -> dict[str, Any]:
    """Options by which redis-py says nothing on connecting but what is needed.

    Each thing more would be a right that all users of Redis must have, under a name that one release or another does
    not know, and then refuses to load the whole ACL.
    """
    from redis.maint_notifications import MaintNotificationsConfig

    return {
        "driver_info": None,  # CLIENT SETINFO
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),  # CLIENT MAINT_NOTIFICATIONS
    }


def connect(broker: Broker, **options: Any) -> "redis.Redis":
    """A client that connects as it is used. options: those of redis-py."""
    import redis

    return redis.Redis.from_url(broker.url, **(broker.tls or {}), **quiet(), **options)


@contextmanager
def reaching_redis(broker: Broker) -> Iterator[None]:
    """Turns Redis being away into BrokerUnavailable, and a command that its ACL keeps from us into BrokerRefused."""
    import redis
    from redis.exceptions import NoPermissionError

    try:
        yield
    except NoPermissionError as exc:
        raise BrokerRefused(f"Redis refuses this user: {exc}") from exc
    except redis.RedisError as exc:
        raise BrokerUnavailable(f"Redis: {exc}{_hint(broker, exc)}") from exc


def _hint(broker: Broker, error: "redis.RedisError") -> str:
    """What such an error is, where one side speaks TLS and the other does not; no URL, which a log would leave out."""
    if broker.tls is None and "Connection closed by server" in str(error):
        return " (for TLS the URL begins with rediss)"
    if broker.tls is not None and "Timeout connecting" in str(error):
        return " (without TLS the URL begins with redis)"
    return ""


def _tls(parameters: dict[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {name: parameters[name] for name in _FILES if name in parameters}
    tls["ssl_cert_reqs"] = _one_of(_VERIFY, parameters, "ssl_cert_reqs", "required")
    # redis-py and Flower take these two by themselves; said outright they do not depend on the defaults of a release.
    tls["ssl_check_hostname"] = _one_of(_YES_NO, parameters, "ssl_check_hostname", "true")
    if tls["ssl_cert_reqs"] == "none":
        tls["ssl_check_hostname"] = False
    _check(tls)
    return tls


def _one_of(values: dict[str, Any], parameters: dict[str, str], name: str, default: str) -> Any:
    value = parameters.get(name, default).lower()
    if value not in values:
        raise BadSetting(f"REDIS_URL: {name} is {' or '.join(list(values)[:2])}")
    return values[value]


def _check(tls: dict[str, Any]) -> None:
    """Files that cannot be used are a setting to mend, not a Redis to wait for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities, own, key = (tls.get(name) for name in _FILES)
    if authorities is not None:
        _use("ssl_ca_certs", lambda: context.load_verify_locations(authorities))
    if own is not None:
        # A key under a passphrase would ask for it at the terminal.
        _use("ssl_certfile, ssl_keyfile", lambda: context.load_cert_chain(own, key, password=lambda: ""))
    elif key is not None:
        raise BadSetting("REDIS_URL: ssl_keyfile needs ssl_certfile")


def _use(names: str, load: Callable[[], None]) -> None:
    try:
        load()
    except OSError as exc:  # ssl.SSLError is one
        reason = "not what it should hold" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise BadSetting(f"REDIS_URL: {names}: {reason}") from exc
