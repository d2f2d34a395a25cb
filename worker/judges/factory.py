"""Makes judges by name. A judge's libraries are loaded only when it is chosen."""

from worker.judges.protocol import Judge
from worker.settings import WorkerSettings, split_names


def make_judge(settings: WorkerSettings) -> Judge:
    """The judge that the settings name. Raises Misuse where its extra is not installed or its own settings are off."""
    if settings.judge == "open-nsfw":
        from worker.judges.open_nsfw import OpenNsfwJudge

        return OpenNsfwJudge()
    from worker.judges.settings import settings_from_environment
    from worker.judges.sglang import SglangJudge

    own = settings_from_environment()
    if keeps_runtime(settings):
        from worker.runtime.judge import RuntimeJudge
        from worker.runtime.settings import runtime_settings

        return RuntimeJudge(runtime_settings(), own)
    urls = settings.sglang_url or split_names(own.url)
    judges = [SglangJudge(own.model_copy(update={"url": url})) for url in dict.fromkeys(urls)]
    if len(judges) == 1:
        return judges[0]
    from worker.judges.load_balanced import LoadBalancedJudge

    return LoadBalancedJudge(judges)


def keeps_runtime(settings: WorkerSettings) -> bool:
    """Whether a worker of these settings starts an SGLang server of its own: where none is named that runs already."""
    if settings.judge != "sglang" or settings.sglang_url:
        return False
    from worker.judges.settings import settings_from_environment

    return "url" not in settings_from_environment().model_fields_set
