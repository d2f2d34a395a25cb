"""Which judges there are, by name. A judge's libraries are loaded only when it is chosen."""

from worker.judges.protocol import Judge
from worker.settings import WorkerSettings


def make_judge(settings: WorkerSettings) -> Judge:
    """The judge that the settings name. Raises Misuse where its extra is not installed or its own settings are off."""
    if settings.judge == "open-nsfw":
        from worker.judges.open_nsfw import OpenNsfwJudge

        return OpenNsfwJudge()
    from worker.judges.settings import settings_from_environment
    from worker.judges.sglang import SglangJudge

    own = settings_from_environment()
    return SglangJudge(own.model_copy(update={"url": settings.sglang_url}) if settings.sglang_url else own)
