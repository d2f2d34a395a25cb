"""What the API listens on, and how much it lets in."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MAX_ITEMS = 1000  # assessments of one request, each image under each policy: one statement


class ServeSettings(BaseSettings):
    """Rates are for each token, in this process: behind a balancer each process counts for itself."""

    model_config = SettingsConfigDict(env_prefix="VETLINE_SERVE_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(8700, ge=0, le=65535)  # 0: any that is free
    # /metrics, on a port of its own: those who submit need not see it. None: it is not served. It asks for no token.
    metrics_port: int | None = Field(None, ge=0, le=65535)  # 0: any that is free
    metrics_address: str = "127.0.0.1"
    tokens: Path | None = None  # the file that `vetline token` writes
    max_body_bytes: int = Field(4_194_304, gt=0)  # 1,000 signed URIs with some metadata have 2 MB
    body_timeout_s: float = Field(20, gt=0)  # a body that takes longer is a slow-loris
    at_once: int = Field(
        64, gt=0
    )  # requests under way; a submission takes milliseconds, so more means that we are stuck
    requests_per_s: float = Field(200, gt=0)
    items_per_s: float = Field(5000, gt=0)  # a quarter of what one process can submit
    burst_s: float = Field(5, gt=0)  # of either rate may come at once
