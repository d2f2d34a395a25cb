"""Settings of fetching, S3 and decoding: every limit on what a stranger's URI or bytes may cost."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _split(value: object) -> object:
    """`a, b` -> ("a", "b"): lists in the environment are written with commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _cores() -> int:
    """Cores that this process may use, where the system can say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]


class FetchSettings(BaseSettings):
    """How the bytes behind a URI are read: http, https, file and data."""

    model_config = SettingsConfigDict(env_prefix="VETLINE_FETCH_", frozen=True, extra="ignore")

    total_timeout_s: float = Field(15, gt=0)  # wall clock for one URI: names, redirects, body and all
    connect_timeout_s: float = Field(3, gt=0)  # also for the TLS handshake
    first_byte_timeout_s: float = Field(5, gt=0)  # and for every later silence
    min_rate_bytes_s: float = Field(10_000, ge=0)  # averaged, once a body is older than min_rate_after_s
    min_rate_after_s: float = Field(5, ge=0)
    max_bytes: int = Field(20_000_000, gt=0)
    max_redirects: int = Field(3, ge=0)
    max_connections: int = Field(128, gt=0)
    max_connections_per_host: int = Field(32, gt=0)  # 70 images/s at 400 ms each need 28
    slot_wait_s: float = Field(10, gt=0)  # for a connection of ours; past it the item is tried again later
    # Hosts and networks that may be private, and answer on any port: name, name:port, address or CIDR.
    allow_hosts: Names = ()
    ca_file: Path | None = None  # further certificate authorities, for a private host
    user_agent: str = "Vetline"
    file_roots: Paths = ()  # none: file: is off
    data_uri_max_bytes: int = Field(1_000_000, gt=0)


class S3Settings(BaseSettings):
    """What may be read from S3. Credentials, region and endpoint are the usual AWS_* variables.

    buckets: `bucket` or `bucket/prefix`; `*` is all that the credentials may read. With none, s3: is off: a
    URI comes from a stranger, and a judge that describes any object we can read to him would be his deputy.
    """

    model_config = SettingsConfigDict(env_prefix="VETLINE_S3_", frozen=True, extra="ignore")

    buckets: Names = ()
    endpoint_url: str | None = None  # over AWS_ENDPOINT_URL_S3, for this alone
    bucket_owner: str | None = None  # account id that every bucket must belong to


class DecodeSettings(BaseSettings):
    """What a decoder child may take for one image."""

    model_config = SettingsConfigDict(env_prefix="VETLINE_DECODE_", frozen=True, extra="ignore")

    children: int = Field(default_factory=_cores, gt=0)
    max_pixels: int = Field(50_000_000, gt=0)  # of one frame; phones stop at 50 megapixels by default
    max_frames: int = Field(1_000, gt=0)
    max_total_pixels: int = Field(500_000_000, gt=0)  # all frames: the last one needs those before it
    frames_judged: int = Field(3, gt=0)  # evenly from the first to the last
    perceptual_hash: bool = False  # PDQ; needs the extra `hash`, and doubles the CPU of a photograph
    wall_s: float = Field(10, gt=0)
    cpu_s: int = Field(8, gt=0)
    memory_bytes: int = Field(1_000_000_000, gt=0)  # address space: 50 megapixels take 200 MB a copy
    decodes_per_child: int = Field(2_000, gt=0)  # then a fresh one, so that nothing lasts
    wait_s: float = Field(120, gt=0)  # for a free child
