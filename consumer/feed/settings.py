"""Settings of whoever reads the feed."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class FeedSettings(BaseSettings):
    """How a feed waits, and for how long a consumer's name is held."""

    model_config = SettingsConfigDict(env_prefix="VETLINE_FEED_", frozen=True, extra="ignore")

    batch_size: int = Field(500, gt=0, le=10_000)  # some 1 MB; what comes again after a kill is at most this
    poll_s: float = Field(1, gt=0)  # behind the notification, which may be lost
    settle_s: float = Field(0.05, gt=0)  # verdicts are committed, and an older transaction is about to end
    # From a process that died to the next that reads under its name; a batch must be dealt with in this time.
    lease_s: float = Field(15, gt=0)
