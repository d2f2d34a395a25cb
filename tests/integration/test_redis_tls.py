"""Every client of Redis over TLS: it verifies certificate and name unless told not to, and says what is wrong."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme
from flower.utils.broker import Broker

from moderation.doorbell import Doorbell
from moderation.errors import BadSetting, BrokerUnavailable
from moderation.queue import make_app
from moderation.services.redis import LocalRedis
from tests.support.services import SessionRedis
from tests.support.tls import TlsFront, serving

Url = Callable[..., str]


def by_doorbell(url: str) -> None:
    with closing(Doorbell(url)) as doorbell:
        assert doorbell.depth() == 0


def by_celery(url: str) -> None:
    with make_app(url) as app, app.connection() as connection:
        assert connection.default_channel.client.ping()


def by_flower(url: str) -> None:
    with make_app(url) as app, app.connection() as connection:
        broker = Broker(
            connection.as_uri(include_password=True),
            broker_options=app.conf.broker_transport_options,
            broker_use_ssl=app.conf.broker_use_ssl,
        )
        (queue,) = asyncio.run(broker.queues(["vetline"]))
        assert queue["messages"] == 0


AT_ONCE = (by_doorbell, by_flower)  # say what is wrong without trying it again
CLIENTS = pytest.mark.parametrize("use", [*AT_ONCE, by_celery])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, stranger.pem (another authority's), own.pem and own.key (a client's)."""
    folder = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    own = authority.issue_cert("worker.example")
    own.cert_chain_pems[0].write_to_path(folder / "own.pem")
    own.private_key_pem.write_to_path(folder / "own.key")
    return folder


def url_of(server: LocalRedis, port: int, **parameters: object) -> str:
    plain = server.url.replace(f":{server.port}/", f":{port}/")
    return plain.replace("redis://", "rediss://") + (f"?{urlencode(parameters)}" if parameters else "")


@pytest.fixture(scope="module")
def front(redis_server: SessionRedis, authority: trustme.CA) -> Iterator[TlsFront]:
    assert redis_server.server.port is not None
    with TlsFront(redis_server.server.port, serving(authority, "127.0.0.1")) as front:
        yield front


@pytest.fixture
def url(redis_server: SessionRedis, front: TlsFront) -> Url:
    return lambda **parameters: url_of(redis_server.server, front.port, **parameters)


@CLIENTS
def test_it_is_tls_and_the_certificate_is_verified(
    use: Callable[[str], None], url: Url, front: TlsFront, files: Path
) -> None:
    front.versions.clear()
    use(url(ssl_ca_certs=files / "ca.pem"))
    assert front.versions == {"TLSv1.3"}
    use(url(ssl_ca_certs=files / "ca.pem", ssl_cert_reqs="CERT_REQUIRED"))


@pytest.mark.parametrize(
    ("use", "named"),
    [
        (by_celery, {}),  # kombu tries again for 7 s
        *((use, {}) for use in AT_ONCE),
        *((use, {"ssl_ca_certs": "stranger.pem"}) for use in AT_ONCE),
        *((use, {"ssl_check_hostname": "false"}) for use in AT_ONCE),
    ],
)
def test_a_certificate_of_nobody_one_trusts_is_refused_whatever_is_left_out(
    use: Callable[[str], None], url: Url, files: Path, named: dict[str, str]
) -> None:
    told = {name: files / value if value.endswith(".pem") else value for name, value in named.items()}
    with pytest.raises(Exception, match="certificate verify failed"):
        use(url(**told))


@CLIENTS
def test_the_system_is_trusted_where_nothing_else_is_named(
    use: Callable[[str], None], url: Url, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "SSL_CERT_FILE", str(files / "ca.pem")
    )  # OpenSSL's own way to say what the system trusts
    use(url())


@CLIENTS
def test_a_certificate_of_another_name_is_refused_unless_told(
    use: Callable[[str], None], redis_server: SessionRedis, authority: trustme.CA, files: Path
) -> None:
    server = redis_server.server
    assert server.port is not None
    with TlsFront(server.port, serving(authority, "other.example")) as front:
        trusted = {"ssl_ca_certs": files / "ca.pem"}
        if use in AT_ONCE:
            with pytest.raises(Exception, match=r"IP address mismatch"):
                use(url_of(server, front.port, **trusted))
        use(url_of(server, front.port, **trusted, ssl_check_hostname="false"))
        use(url_of(server, front.port, ssl_cert_reqs="none"))


@CLIENTS
def test_a_client_proves_itself_by_a_certificate(
    use: Callable[[str], None], redis_server: SessionRedis, authority: trustme.CA, files: Path
) -> None:
    server = redis_server.server
    assert server.port is not None
    with TlsFront(server.port, serving(authority, "127.0.0.1", clients=authority)) as front:
        trusted = {"ssl_ca_certs": files / "ca.pem"}
        use(
            url_of(
                server, front.port, **trusted, ssl_certfile=files / "own.pem", ssl_keyfile=files / "own.key"
            )
        )
        if use in AT_ONCE:
            with pytest.raises(Exception, match=r"(?i)certificate.required|closed|reset"):
                use(url_of(server, front.port, **trusted))


def test_plain_text_where_tls_is_spoken_and_the_other_way_round(
    redis_server: SessionRedis, front: TlsFront, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VETLINE_QUEUE_SOCKET_TIMEOUT_S", "0.5")
    server = redis_server.server
    assert server.port is not None
    with pytest.raises(BrokerUnavailable, match="begins with rediss"):
        by_doorbell(server.url.replace(f":{server.port}/", f":{front.port}/"))
    with pytest.raises(BrokerUnavailable, match=r"begins with redis\)"):
        by_doorbell(url_of(server, server.port, ssl_ca_certs=files / "ca.pem"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("rediss://u:s3cret@h?ssl_ca_certs=/s3cret/none.pem", "ssl_ca_certs: No such file or directory"),
        ("rediss://u:s3cret@h?ssl_ca_certs=/etc/hosts", "ssl_ca_certs: not what it should hold"),
        ("rediss://u:s3cret@h?ssl_certfile=/s3cret/none.pem", "ssl_certfile, ssl_keyfile: No such file"),
        ("rediss://u:s3cret@h?ssl_keyfile=/s3cret/none.key", "ssl_keyfile needs ssl_certfile"),
        ("rediss://u:s3cret@h?ssl_cert_reqs=s3cret", "ssl_cert_reqs is required or none"),
        ("rediss://u:s3cret@h?ssl_check_hostname=s3cret", "ssl_check_hostname is true or false"),
        ("rediss://u:s3cret@h?sslmode=verify-full", "sslmode is not a parameter of it"),
        ("redis://u:s3cret@h?ssl_cert_reqs=none", "redis:// is plain text"),
        ("https://u:s3cret@h", "it begins with redis:// or rediss://"),
        ("redis://u:s3cret@h:port", "not a Redis URL"),
    ],
)
@pytest.mark.parametrize("use", [by_doorbell, by_celery])
def test_what_cannot_be_used_is_said_without_passwords_and_files(
    use: Callable[[str], None], url: str, told: str
) -> None:
    with pytest.raises(BadSetting) as refused:
        use(url)
    assert told in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_key_under_a_passphrase_is_refused_and_not_asked_about(tmp_path: Path, files: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key((files / "own.key").read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
    )
    with pytest.raises(BadSetting, match="ssl_keyfile"):
        by_doorbell(f"rediss://h?{urlencode({'ssl_certfile': files / 'own.pem', 'ssl_keyfile': locked})}")
