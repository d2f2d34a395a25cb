"""What the path of an image works with, shared by all threads of a process."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from moderation.policy import PolicyRevision
from moderation.verdict import Judgement
from worker.climb import Climb
from worker.images.decode import Decoder
from worker.images.fetch import Fetcher
from worker.images.picture import View
from worker.images.settings import DecodeSettings, FetchSettings
from worker.judges.protocol import Judge
from worker.judges.shelf import make_judge
from worker.runtime.judge import RuntimeJudge
from worker.settings import WorkerSettings
from worker.turns import Turns

_START_IN_FLIGHT = 32  # where a runtime does not say how many it works on at once
_LEAST_IN_FLIGHT = 4  # a runtime that cannot do four at once is not slow but broken


@dataclass(frozen=True, slots=True)
class Tools:
    """The fetcher, the decoder and the judge."""

    fetcher: Fetcher
    decoder: Decoder
    judge: Judge
    judge_timeout_s: float
    turns: Turns

    def ask(self, view: View, policy: PolicyRevision) -> Judgement:
        """As Judge.judge, when a turn is free."""
        with self.turns.turn(timeout_s=2 * self.judge_timeout_s):  # whoever has a turn ends by the timeout
            return self.judge.judge(view, policy, timeout_s=self.judge_timeout_s)

    def check(self) -> None:
        """As Judge.check; then as many are asked for at first as the runtime says that it is made for."""
        self.judge.check()
        self.turns.expect(self.judge.runtime().at_once)

    @property
    def runtime(self) -> RuntimeJudge | None:
        """The judge where it keeps a server of its own, which must be started."""
        return self.judge if isinstance(self.judge, RuntimeJudge) else None

    def close(self) -> None:
        self.judge.close()
        self.decoder.close()
        self.fetcher.close()


def make_tools(settings: WorkerSettings) -> Tools:
    """The tools that the settings name. Raises Misuse where a judge's extra is not installed."""
    return Tools(
        fetcher=Fetcher(FetchSettings()),
        decoder=Decoder(DecodeSettings()),
        judge=make_judge(settings),
        judge_timeout_s=settings.judge_timeout_s,
        turns=make_turns(settings),
    )


def make_turns(settings: WorkerSettings, *, now: Callable[[], float] = time.monotonic) -> Turns:
    """As many turns as the settings say; where they say nothing and the judge is a runtime, as many as it can use."""
    threads = settings.threads
    if not settings.finds_in_flight:
        return Turns(Climb(start=threads, least=threads, most=threads), most_in_hand=threads, now=now)
    most = settings.in_flight_most
    start = min((settings.in_flight_start or _START_IN_FLIGHT) * max(1, len(settings.sglang_url)), most)
    return Turns(
        Climb(start=start, least=min(_LEAST_IN_FLIGHT, start), most=most),
        most_in_hand=threads,
        may_expect=settings.in_flight_start is None,
        now=now,
    )
