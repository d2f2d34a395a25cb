"""What `vetline doctor` says of the model: whether its weights are here, and whether there is room for them."""

import shutil
from collections.abc import Iterator

from moderation.errors import BadSetting
from worker.doctor.check import Check, CheckState
from worker.runtime import weights
from worker.runtime.settings import HubSettings, RuntimeSettings

# LlavaGuard 0.5B is 1.8 GB, its tower 3.5 GB, and each is written before it is moved.
_TO_DOWNLOAD = 8_000_000_000


def model(runtime: RuntimeSettings) -> Iterator[Check]:
    """Of weights in a folder, whether they are whole; of those in Hugging Face's cache, its disk too."""
    try:
        installed = weights.find(runtime, hub=HubSettings(), fetch=_refuse)
    except _NotHere as lack:
        says = f"{lack} is not in {HubSettings().folder}: the first start downloads it"
        advice = "LlavaGuard's page on Hugging Face asks for consent: set HF_TOKEN"
        yield Check("weights", CheckState.NOTE, says, advice)
        yield _cache()
    except BadSetting as exc:
        yield Check("weights", CheckState.PROBLEM, str(exc))
    else:
        yield Check("weights", CheckState.OK, f"{installed.name} and its vision tower, in {installed.folder}")


def _cache() -> Check:
    folder = HubSettings().folder
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    says = f"{free / 1e9:.1f} GB free for {folder}"
    if free < _TO_DOWNLOAD:
        advice = f"{_TO_DOWNLOAD / 1e9:.0f} GB, or HF_HOME on another disk"
        return Check("model cache", CheckState.PROBLEM, f"{says}: the download will not fit", advice)
    return Check("model cache", CheckState.OK, says)


class _NotHere(Exception):
    """This repository would be downloaded."""


def _refuse(repository: str, revision: str) -> None:
    raise _NotHere(repository)
