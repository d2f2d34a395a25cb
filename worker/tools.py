"""What the path of an image works with, shared by all threads of a process."""

from dataclasses import dataclass

from worker.images.decode import Decoder
from worker.images.fetch import Fetcher
from worker.images.settings import DecodeSettings, FetchSettings
from worker.judges.protocol import Judge
from worker.judges.shelf import make_judge
from worker.runtime.judge import RuntimeJudge
from worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Tools:
    """The fetcher, the decoder and the judge."""

    fetcher: Fetcher
    decoder: Decoder
    judge: Judge
    judge_timeout_s: float

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
    )
