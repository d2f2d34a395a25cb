"""Fetches 1,000 URIs that each hold a secret, from a host that answers in every way, and logs all that happens.

Run as a process of its own, so that whatever it writes anywhere can be read. usage: python -m ... PREFIX
"""

import itertools
import sys
import traceback
from collections import Counter
from collections.abc import Iterator

import structlog

from intake.fetch import Fetcher
from intake.settings import FetchSettings, S3Settings
from moderation.errors import VetlineError
from moderation.log import configure_logging
from moderation.redaction import redact_uri
from moderation.settings import LogSettings
from tests.support.image_host import ImageHost, Trick, Visit
from tests.support.secrets_in_uris import hidden

URIS = 1000


def main(prefix: str) -> None:
    configure_logging(LogSettings.model_construct(level="debug", style="json"))
    log = structlog.get_logger()
    ends: Counter[str] = Counter()
    with ImageHost(b"picture") as host:
        host.fallback = answers(prefix)
        settings = FetchSettings(allow_hosts=("127.0.0.1",), total_timeout_s=2)
        s3 = S3Settings(buckets=("other",))
        fetcher = Fetcher(settings, s3=s3, resolve=lambda name, port, timeout_s: ["127.0.0.1"])
        for uri in itertools.islice(uris(prefix, host.port), URIS):
            try:
                fetched = fetcher.fetch(uri)
                log.info("fetched", uri=redact_uri(uri), etag=fetched.etag, declared=fetched.declared_type)
                ends["fetched"] += 1
            except VetlineError as error:
                log.warning(
                    "fetch_failed", uri=redact_uri(uri), code=error.code, error=str(error), exc_info=True
                )
                sys.stdout.writelines([repr(error), *traceback.format_exception(error)])
                ends[error.code] += 1
        fetcher.close()
        reached = len(host.seen)
    sys.stdout.write(f"ENDS {ends.total()} REACHED {reached} {dict(ends)}\n")


def uris(prefix: str, port: int) -> Iterator[str]:
    """Half of them to the host that answers, half to where nothing does."""
    for number in itertools.count():
        secret = f"{prefix}{number:06d}Zz9"
        yield from hidden(secret)
        yield from (uri.replace("https:", "http:", 1) for uri in hidden(secret, f"images.example:{port}"))


def answers(prefix: str) -> Trick:
    """Every kind of answer in turn; redirects lead to secrets of their own."""
    to = (f"https://u:{prefix}@x.example/?sig={prefix}", f"/again?token={prefix}", f"file:///{prefix}")
    turn = itertools.cycle(
        [
            lambda visit: visit.answer(200, b"picture", ETag='"1"'),
            *(
                lambda visit, status=status: visit.answer(status)
                for status in (400, 401, 403, 404, 429, 500, 503)
            ),
            *(lambda visit, target=target: visit.answer(302, Location=target) for target in to),
            lambda visit: visit.reset(),
            lambda visit: visit.say("HTTP/1.1 200 OK", "Content-Encoding: gzip"),
            lambda visit: visit.say("nonsense"),
        ]
    )

    def answer(visit: Visit) -> None:
        next(turn)(visit)

    return answer


if __name__ == "__main__":
    main(sys.argv[1])
