"""Settings of webhooks: what an endpoint may cost us, and for how long it is tried."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from intake.settings import FetchSettings, Names


class WebhookSettings(BaseSettings):
    """How endpoints are asked, and asked again."""

    model_config = SettingsConfigDict(env_prefix="VETLINE_WEBHOOK_", frozen=True, extra="ignore")

    # Hosts and networks that may be private, and answer on any port: name, name:port, address or CIDR.
    allow_hosts: Names = ()
    allow_http: bool = False  # signed, but for anybody on the way to read
    ca_file: Path | None = None
    total_timeout_s: float = Field(15, gt=0)  # the wall clock of one delivery; the scheme asks for 15 to 30
    connect_timeout_s: float = Field(3, gt=0)
    silence_s: float = Field(10, gt=0)
    max_response_bytes: int = Field(16_384, gt=0)  # nothing in it is of use; past it the connection is closed
    retry_base_s: float = Field(5, gt=0)  # doubled with each failure in a row, and drawn from its upper half
    retry_cap_s: float = Field(3600, gt=0)
    give_up_s: float = Field(
        86_400, gt=0
    )  # of failures in a row; then the verdict is set aside and the next is tried
    senders: int = Field(32, gt=0)  # threads of a worker; each waits for one endpoint
    turn_s: float = Field(20, gt=0)  # of one endpoint, if there is so much to send; then others have theirs
    lease_s: float = Field(60, gt=0)  # outlasts the longest delivery; from a sender that died to the next
    look_s: float = Field(1, gt=0)  # how often due endpoints are looked for
    ring_again_s: float = Field(8, gt=0)  # a message not answered in this time is taken for lost

    @property
    def network(self) -> FetchSettings:
        """As the checked network of the intake takes them."""
        return FetchSettings(
            allow_hosts=self.allow_hosts,
            ca_file=self.ca_file,
            total_timeout_s=self.total_timeout_s,
            connect_timeout_s=self.connect_timeout_s,
            first_byte_timeout_s=self.silence_s,
            max_connections=self.senders,
        )
