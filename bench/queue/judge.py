"""A worker as it is, but for its judge: one that answers at once, or as a runtime of so many images a second would.

usage: python -m bench.queue.judge NAME THREADS [--images-per-s N] [--bare]

--bare leaves fetching and decoding out too: then what is measured is the queue alone.
"""

import argparse
import threading
import time
from collections.abc import Callable
from hashlib import sha256

import worker.service
from intake.decode import Decoder
from intake.fetch import Fetcher
from intake.picture import Fetched, Picture, View
from intake.settings import DecodeSettings, FetchSettings
from moderation.log import configure_logging
from moderation.policy import PolicyRevision
from moderation.settings import ServiceSettings
from moderation.verdict import Basis, Judgement, Rating, Rung
from worker.broker.factory import make_worker_app
from worker.judges.protocol import Runtime
from worker.processing.components import Components, make_limiter
from worker.settings import WorkerSettings

_ANSWER_S = 1.0  # of a simulated runtime, however many it has in hand up to its rate


class AtOnce:
    """Judges everything as Safe, at once or at a runtime's rate."""

    name = "at-once"
    needs_pixels = False

    def __init__(self, images_per_s: int) -> None:
        self._slots = threading.Semaphore(images_per_s) if images_per_s else None

    def check(self) -> None:
        """Always there."""

    def basis(self) -> Basis | None:
        return None

    def runtime(self) -> Runtime:
        return Runtime("none", "ready")

    def judge(self, view: View, policy: PolicyRevision, *, timeout_s: float) -> Judgement:
        if self._slots is not None:
            with self._slots:
                time.sleep(_ANSWER_S)
        return Judgement(
            rating=Rating.SAFE,
            category="NA: None applying",
            rationale="A plain picture of a cup of coffee on a wooden table beside a window, with nobody in sight.",
            rung=Rung.STRICT,
            raw_output='{"rating": "Safe", "category": "NA: None applying", "rationale": "A plain picture."}',
            judge=self.name,
            model="none",
            runtime="none",
            runtime_version="0",
            prompt_sha256=policy.prompt_sha256,
        )

    def close(self) -> None:
        """Nothing to let go of."""


class NoFetcher:
    def fetch(self, uri: str) -> Fetched:
        return Fetched(uri.encode())

    def close(self) -> None:
        """Nothing to let go of."""


class NoDecoder:
    def decode(self, data: bytes, *, pixels: bool) -> Picture:
        digest = sha256(data).hexdigest()
        view = View("whole", data, "image/png", 640, 480, digest)
        return Picture(digest, len(data), "image/png", 640, 480, 1, (view,))

    def close(self) -> None:
        """Nothing to let go of."""


def make_tools(images_per_s: int, *, bare: bool) -> Callable[[WorkerSettings], Components]:
    def components(settings: WorkerSettings) -> Components:
        return Components(
            fetcher=NoFetcher() if bare else Fetcher(FetchSettings()),  # type: ignore[arg-type]  # as far as it is used
            decoder=NoDecoder() if bare else Decoder(DecodeSettings()),  # type: ignore[arg-type]  # as above
            judge=AtOnce(images_per_s),
            judge_timeout_s=settings.judge_timeout_s,
            limiter=make_limiter(settings),
        )

    return components


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("threads", type=int)
    parser.add_argument("--images-per-s", type=int, default=0)
    parser.add_argument("--bare", action="store_true")
    given = parser.parse_args()
    configure_logging()
    # The worker asks for its tools by this name; all else in it is as it is.
    worker.service.make_components = make_tools(given.images_per_s, bare=given.bare)  # type: ignore[attr-defined, assignment]
    services = ServiceSettings()
    assert services.database_url is not None
    assert services.redis_url is not None
    settings = WorkerSettings(name=given.name, concurrency=given.threads)
    app = make_worker_app(
        services.database_url.get_secret_value(), services.redis_url.get_secret_value(), settings
    )
    app.Worker(
        hostname=settings.node, quiet=True, without_gossip=True, without_mingle=True, loglevel="INFO"
    ).start()


if __name__ == "__main__":
    main()
