"""The fetcher, the decoder, the judge and the limiter, shared by all threads of a process."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from intake.decode import Decoder
from intake.fetch import Fetcher
from intake.picture import View
from intake.settings import DecodeSettings, FetchSettings
from moderation.policy import PolicyRevision
from moderation.verdict import Judgement
from worker.concurrency.adaptive_limit import AdaptiveLimit
from worker.concurrency.limiter import ConcurrencyLimiter
from worker.judges.factory import make_judge
from worker.judges.protocol import Judge
from worker.runtime.judge import RuntimeJudge
from worker.settings import WorkerSettings

_START_IN_FLIGHT = 32  # where a runtime does not say how many it works on at once
_LEAST_IN_FLIGHT = 4  # a runtime that cannot do four at once is not slow but broken


@dataclass(frozen=True, slots=True)
class Components:
    """The fetcher, the decoder and the judge."""

    fetcher: Fetcher
    decoder: Decoder
    judge: Judge
    judge_timeout_s: float
    limiter: ConcurrencyLimiter

    def ask(self, view: View, policy: PolicyRevision) -> Judgement:
        """As Judge.judge, when a slot is free."""
        with self.limiter.slot(timeout_s=2 * self.judge_timeout_s):  # whoever has a slot ends by the timeout
            return self.judge.judge(view, policy, timeout_s=self.judge_timeout_s)

    def check(self) -> None:
        """As Judge.check; then as many are asked for at first as the runtime says that it is made for."""
        self.judge.check()
        self.limiter.expect(self.judge.runtime().at_once)

    @property
    def runtime(self) -> RuntimeJudge | None:
        """The judge where it keeps a server of its own, which must be started."""
        return self.judge if isinstance(self.judge, RuntimeJudge) else None

    def close(self) -> None:
        self.judge.close()
        self.decoder.close()
        self.fetcher.close()


def make_components(settings: WorkerSettings) -> Components:
    """The tools that the settings name. Raises Misuse where a judge's extra is not installed."""
    return Components(
        fetcher=Fetcher(FetchSettings()),
        decoder=Decoder(DecodeSettings()),
        judge=make_judge(settings),
        judge_timeout_s=settings.judge_timeout_s,
        limiter=make_limiter(settings),
    )


def make_limiter(
    settings: WorkerSettings, *, now: Callable[[], float] = time.monotonic
) -> ConcurrencyLimiter:
    """As many slots as the settings say; where they say nothing and the judge is a runtime, as many as it can use."""
    threads = settings.threads
    if not settings.finds_in_flight:
        fixed = AdaptiveLimit(start=threads, least=threads, most=threads)
        return ConcurrencyLimiter(fixed, most_threads=threads, now=now)
    most = settings.in_flight_most
    start = min((settings.in_flight_start or _START_IN_FLIGHT) * max(1, len(settings.sglang_url)), most)
    return ConcurrencyLimiter(
        AdaptiveLimit(start=start, least=min(_LEAST_IN_FLIGHT, start), most=most),
        most_threads=threads,
        may_expect=settings.in_flight_start is None,
        now=now,
    )
