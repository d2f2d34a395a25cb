"""A whole run with Postgres and Redis over TLS, each proved to be who it says, and what a person is told where not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme
from sqlalchemy.engine import make_url

from tests.acceptance.conftest import System
from tests.acceptance.test_flower import body, flower
from tests.support.commands import run
from tests.support.ledger import POLICY
from tests.support.tls import TlsFront, serving


@dataclass
class Ends:
    """Both services behind TLS, and their URLs with whatever parameters a test wants."""

    postgres: TlsFront
    redis: TlsFront
    folder: Path  # of ca.pem, stranger.pem, own.pem and own.key
    plain: dict[str, str]

    def database_url(self, **parameters: str) -> str:
        return self._url("DATABASE_URL", self.postgres, {"sslmode": "verify-full"} | parameters)

    def redis_url(self, **parameters: str) -> str:
        return self._url("REDIS_URL", self.redis, parameters).replace("redis://", "rediss://")

    def env(self) -> dict[str, str]:
        own = {"sslcert": "own.pem", "sslkey": "own.key"}
        return {
            "DATABASE_URL": self.database_url(sslrootcert="ca.pem", **own),
            "REDIS_URL": self.redis_url(ssl_ca_certs="ca.pem", ssl_certfile="own.pem", ssl_keyfile="own.key"),
        }

    def _url(self, name: str, front: TlsFront, parameters: dict[str, str]) -> str:
        bare = make_url(self.plain[name]).set(port=front.port).render_as_string(hide_password=False)
        is_file = lambda value: value.endswith((".pem", ".key"))  # noqa: E731 - read once, below
        told = {k: str(self.folder / v) if is_file(v) else v for k, v in parameters.items()}
        return f"{bare}?{urlencode(told)}" if told else bare


@pytest.fixture
def ends(postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Ends]:
    folder = tmp_path / "s3cret-place"
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    own = authority.issue_cert("worker.example", common_name="vetline-test")
    own.cert_chain_pems[0].write_to_path(folder / "own.pem")
    own.private_key_pem.write_to_path(folder / "own.key")
    (folder / "own.key").chmod(0o600)  # libpq insists
    context = serving(authority, "127.0.0.1", clients=authority)
    ports = {url: make_url(url).port or 0 for url in (postgres_url, redis_url)}
    with (
        TlsFront(ports[postgres_url], context, postgres=True) as postgres,
        TlsFront(ports[redis_url], context) as redis,
    ):
        yield Ends(postgres, redis, folder, {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url})


def test_a_full_run_over_tls_to_both(
    system_of: Callable[[str, str], System], ends: Ends, tmp_path: Path
) -> None:
    env = ends.env()
    system = system_of(env["DATABASE_URL"], env["REDIS_URL"])
    worker = system.worker()
    system.client.submit(system.image("a"), POLICY)
    system.wait_for_counts(done=1)
    with flower(system) as pages:
        assert "vetline.urgent" in body(f"{pages}/broker")
    ran = run(tmp_path, "doctor", "--worker", env=env)
    assert ran.returncode == 0, ran
    assert worker.stop() == 0
    for front in (ends.postgres, ends.redis):
        assert front.versions == {"TLSv1.3"}
        assert "vetline-test" in front.client_names
    passwords = [make_url(url).password for url in env.values()]
    logs = worker.text + (system.folder / "flower.log").read_text()
    assert not [secret for secret in (*passwords, "s3cret-place") if str(secret) in logs]


CASES = {
    "Postgres of another authority": (
        "status", lambda ends: {"DATABASE_URL": ends.database_url(sslrootcert="stranger.pem")},
        75, "certificate verify failed",
    ),
    "Redis without its authority's file": (
        "worker", lambda ends: {"REDIS_URL": ends.redis_url(ssl_ca_certs="none.pem")}, 2, "ssl_ca_certs: No such file",
    ),
    "Redis of another authority": (
        "doctor --worker", lambda ends: {"REDIS_URL": ends.redis_url(ssl_ca_certs="stranger.pem")},
        1, "certificate verify failed",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("line", "wrong", "code", "told"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_said_in_a_line(
    ends: Ends, tmp_path: Path, line: str, wrong: Callable[[Ends], dict[str, str]], code: int, told: str
) -> None:
    ran = run(tmp_path, *line.split(), env=ends.env() | wrong(ends) | {"VETLINE_WORKER_JUDGE": "open-nsfw"})
    assert ran.returncode == code, ran
    (said,) = (found for found in (ran.stdout + ran.stderr).splitlines() if told in found)
    assert said.startswith(("vetline: ", "problem "))
    assert "Traceback" not in ran.stderr
    passwords = [str(make_url(url).password) for url in ends.plain.values()]
    assert not [secret for secret in (*passwords, "s3cret-place") if secret in ran.stdout + ran.stderr]
