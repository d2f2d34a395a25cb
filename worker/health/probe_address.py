"""Where a worker can be asked how it is: shared by its probes and `vetline worker-status`."""

import os
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from moderation.services.folder import owned_folder, private_text
from moderation.settings import ServiceSettings

LOOPBACK = "127.0.0.1"


class ProbeSettings(BaseSettings):
    """Where probes are answered. They tell names and counts and no image, and ask for no password."""

    model_config = SettingsConfigDict(env_prefix="VETLINE_PROBE_", frozen=True, extra="ignore")

    address: str = LOOPBACK  # 0.0.0.0 in a container, for Kubernetes and Prometheus
    # None: a free one, which `vetline worker-status` finds; with several GPUs, the first worker's.
    port: int | None = Field(default=None, gt=0, lt=65536)


class ProbeAddress(BaseModel):
    """Where a worker of this folder answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    address: str
    port: int


def write_probe_address(probe: ProbeAddress) -> Path | None:
    """Note it in the data folder; None where nothing can be written there, as in a container that is read only."""
    try:
        folder = owned_folder(_folder())
        path = folder / f"{probe.pid}-{probe.port}.json"
        private_text(path, probe.model_dump_json() + "\n")
    except OSError:
        return None
    return path


def probe_addresses() -> list[ProbeAddress]:
    """Those of workers that run; notes of workers that were killed are taken away."""
    probes = []
    for path in sorted(_folder().glob("*.json")):
        with suppress(OSError, ValidationError):
            probe = ProbeAddress.model_validate_json(path.read_bytes())
            if _runs(probe.pid):
                probes.append(probe)
            else:
                path.unlink()
    return probes


def _folder() -> Path:
    return ServiceSettings().data_dir / "workers"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
