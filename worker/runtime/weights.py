"""The weights: found on this machine or fetched to it, looked over before a server starts, and named by their digest."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from moderation.errors import BadSetting
from worker.runtime.settings import HubSettings, RuntimeSettings

Fetch = Callable[
    [str, str], None
]  # repository and revision, into the hub's cache; raises BadSetting or Unavailable


@dataclass(frozen=True, slots=True)
class Weights:
    """name: as it was asked for. folder: where its files are. files: those that hold the weights, in order."""

    name: str
    folder: Path
    files: tuple[Path, ...] = field(default=())

    def stamp(self) -> tuple[tuple[Path, int, int], ...]:
        """Changes when a file does: path, bytes and time of each, without reading them."""
        stats = [(path, path.stat()) for path in self.files]
        return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)

    def digest(self) -> str:
        """Hexadecimal sha256: of the file, as its page on the hub shows it; of several, of `sha256sum`'s lines."""
        digests = {path.name: _sha256(path) for path in self.files}
        if len(digests) == 1:
            return next(iter(digests.values()))
        lines = "".join(f"{value}  {name}\n" for name, value in digests.items())
        return sha256(lines.encode()).hexdigest()


def find(settings: RuntimeSettings, *, hub: HubSettings | None = None, fetch: Fetch | None = None) -> Weights:
    """The model's weights and its vision tower's, both on this machine.

    fetch: brings what is not there; None, or settings.offline: it is an error.
    Raises BadSetting, in one line that says what to do, where they are missing or not what can be served.
    """
    hub = hub or HubSettings()
    fetch = None if settings.offline else fetch
    folder = _folder(settings.model, settings.revision, hub, fetch, what="the model")
    if fetch is not None and not _is_local(settings.model) and any(_absent(folder)):
        fetch(settings.model, settings.revision)  # an earlier download was cut short; it goes on
    config = _examined(settings, folder)
    _folder(_tower(settings, config), "main", hub, fetch, what="its vision tower")
    return Weights(settings.model, folder, tuple(_files(folder)))


def nearest_lack(settings: RuntimeSettings) -> None:
    """As `find`, but for what only a download can tell. Quick: to be asked before anything is started."""
    hub = HubSettings()
    if settings.offline or _is_local(settings.model):
        find(settings, hub=hub)


def _folder(model: str, revision: str, hub: HubSettings, fetch: Fetch | None, *, what: str) -> Path:
    if _is_local(model):
        folder = Path(model).expanduser().resolve()
        if not folder.is_dir():
            raise BadSetting(f"{what}, {model}, is no folder on this machine (VETLINE_RUNTIME_MODEL)")
        return folder
    snapshot = _snapshot(model, revision, hub)
    if snapshot is None and fetch is not None:
        fetch(model, revision)
        snapshot = _snapshot(model, revision, hub)
    if snapshot is None:
        raise BadSetting(
            f"{what}, {model}, is not in {hub.folder}, and nothing may be downloaded here: run "
            f"`hf download {model}` where there is a network, or name a folder in VETLINE_RUNTIME_MODEL"
        )
    return snapshot


def _is_local(model: str) -> bool:
    return model.startswith(("/", "./", "../", "~")) or Path(model).is_dir()


def _snapshot(repository: str, revision: str, hub: HubSettings) -> Path | None:
    """The folder of a repository's revision in the hub's cache, laid out as huggingface_hub does."""
    root = hub.folder / f"models--{repository.replace('/', '--')}"
    reference = root / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = root / "snapshots" / commit
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def _examined(settings: RuntimeSettings, folder: Path) -> dict[str, Any]:
    """The model's configuration. Raises BadSetting for what SGLang could not serve, or would serve wrongly."""
    config = _json(folder / "config.json")
    architectures = config.get("architectures") or ["of no named architecture"]
    if not set(architectures) & set(settings.architectures):
        raise BadSetting(
            f"{settings.model} is {', '.join(map(str, architectures))}, not {' or '.join(settings.architectures)}: "
            "SGLang serves the original LlavaGuard OV weights, not those whose name ends in -HF"
        )
    if not isinstance(config.get("image_grid_pinpoints"), list):
        raise BadSetting(f"{folder}/config.json: image_grid_pinpoints is no list, and every image would fail")
    for name in _absent(folder):
        raise BadSetting(f"{folder} is not complete: {name} is missing; download {settings.model} again")
    return config


def _absent(folder: Path) -> Iterator[str]:
    """Names of files without which it cannot be served."""
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            yield name
    files = _files(folder)
    if not files:
        yield "model.safetensors"
    yield from (path.name for path in files if not path.is_file() or path.stat().st_size == 0)


def _files(folder: Path) -> list[Path]:
    """The files that hold weights, in the order of their names; those that an index names, also where they lack."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(_json(index).get("weight_map", {}).values()))]
    return sorted(folder.glob("*.safetensors"))


def _tower(settings: RuntimeSettings, config: dict[str, Any]) -> str:
    tower = settings.tower or config.get("mm_vision_tower")
    if not isinstance(tower, str) or not tower:
        raise BadSetting(f"{settings.model} names no vision tower; VETLINE_RUNTIME_TOWER may")
    if "siglip" not in tower.lower():
        raise BadSetting(f"the vision tower {tower} is no SigLIP: SGLang would take it for CLIP by its name")
    return tower


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadSetting(f"{path.parent} holds no model: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise BadSetting(f"{path} cannot be read: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise BadSetting(f"{path} is no JSON object")
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
