"""Postgres over TLS, by libpq's own parameters in DATABASE_URL."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme
from sqlalchemy.engine import make_url

from moderation.errors import BadSetting, LedgerUnavailable
from moderation.ledger.engine import open_ledger, ping
from tests.support.tls import TlsFront, serving


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "stranger.pem")
    own = authority.issue_cert("worker.example", common_name="gpu_worker")
    own.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    own.private_key_pem.write_to_path(tmp_path / "own.key")
    (tmp_path / "own.key").chmod(0o600)
    return tmp_path


@pytest.fixture
def front(postgres_url: str, authority: trustme.CA) -> Iterator[TlsFront]:
    with TlsFront(make_url(postgres_url).port or 0, serving(authority, "127.0.0.1"), postgres=True) as front:
        yield front


def reach(postgres_url: str, front: TlsFront, **parameters: object) -> None:
    url = make_url(postgres_url).set(port=front.port).render_as_string(hide_password=False)
    engine = open_ledger(f"{url}?{urlencode(parameters)}")
    try:
        ping(engine)
    finally:
        engine.dispose()


def test_it_is_tls_and_the_certificate_is_verified(postgres_url: str, front: TlsFront, folder: Path) -> None:
    reach(postgres_url, front, sslmode="verify-full", sslrootcert=folder / "ca.pem")
    assert front.versions == {"TLSv1.3"}


def test_another_authority_another_name_and_plain_text_are_refused(
    postgres_url: str, front: TlsFront, authority: trustme.CA, folder: Path
) -> None:
    with pytest.raises(LedgerUnavailable, match="certificate verify failed"):
        reach(postgres_url, front, sslmode="verify-full", sslrootcert=folder / "stranger.pem")
    with pytest.raises(LedgerUnavailable, match="closed the connection"):
        reach(postgres_url, front, sslmode="disable")
    port = make_url(postgres_url).port or 0
    with (
        TlsFront(port, serving(authority, "db.example"), postgres=True) as named,
        pytest.raises(LedgerUnavailable, match="does not match host name"),
    ):
        reach(postgres_url, named, sslmode="verify-full", sslrootcert=folder / "ca.pem")


def test_a_client_proves_itself_by_a_certificate(
    postgres_url: str, authority: trustme.CA, folder: Path
) -> None:
    context = serving(authority, "127.0.0.1", clients=authority)
    trusted = {"sslmode": "verify-full", "sslrootcert": folder / "ca.pem"}
    with TlsFront(make_url(postgres_url).port or 0, context, postgres=True) as front:
        reach(postgres_url, front, **trusted, sslcert=folder / "own.pem", sslkey=folder / "own.key")
        assert "gpu_worker" in front.client_names
        with pytest.raises(LedgerUnavailable, match="SSL error"):
            reach(postgres_url, front, **trusted)


def test_errors_name_no_file(postgres_url: str, front: TlsFront, folder: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="root certificate file … does not exist") as refused:
        reach(postgres_url, front, sslmode="verify-full", sslrootcert=folder / "none.pem")
    assert str(folder) not in str(refused.value)


@pytest.mark.parametrize(
    ("query", "told"),
    [("sslmode=verify", "sslmode is one of disable"), ("ssl_ca_certs=/x", "ssl_ca_certs is not a parameter")],
)
def test_a_parameter_that_libpq_does_not_know_is_a_mistake_to_mend(query: str, told: str) -> None:
    with pytest.raises(BadSetting, match=told):
        open_ledger(f"postgresql://u:p@h/d?{query}")
