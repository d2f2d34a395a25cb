"""What the path of an image works with, shared by all threads of a process."""

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


def make_limiter(settings: WorkerSettings) -> ConcurrencyLimiter:
    """As many slots as the settings say; where they say nothing and the judge is a runtime, as many as it can use."""
    threads = settings.threads
    if not settings.finds_in_flight:
        return ConcurrencyLimiter(
            AdaptiveLimit(start=threads, least=threads, most=threads), most_threads=threads
        )
    most = settings.in_flight_most
    start = min(settings.in_flight_start * max(1, len(settings.sglang_url)), most)
    return ConcurrencyLimiter(
        AdaptiveLimit(start=start, least=min(_LEAST_IN_FLIGHT, start), most=most),
        most_threads=threads,
    )
