"""Fetches s3: URIs. Endpoint and credentials are configured; a URI only names an object in an allowed bucket."""

import re
import threading
from dataclasses import dataclass
from typing import Any

from intake.budget import Budget, Pace
from intake.picture import Fetched
from intake.settings import FetchSettings, S3Settings
from intake.slots import Slots
from moderation.errors import (
    BadSetting,
    Forbidden,
    HostRefused,
    HostUnavailable,
    InvalidUri,
    NotFound,
    RateLimited,
    TooLarge,
)

# A plain bucket name. An access point's ARN would choose an endpoint of its own.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_VERSION = re.compile(r"\?versionId=([A-Za-z0-9._\-]{1,1024})$")
_CHUNK_BYTES = 65536

_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "404", "NotFound", "MethodNotAllowed"})
_DENIED = frozenset(
    {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken",
     "InvalidObjectState", "AllAccessDisabled", "401", "Unauthorized", "InvalidToken"}
)  # fmt: skip
_SLOW_DOWN = frozenset({"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "429"})


@dataclass(frozen=True, slots=True)
class S3Uri:
    """key: as stored, not percent-decoded, as in the AWS command line."""

    bucket: str
    key: str
    version: str | None


def parse_s3_uri(uri: str) -> S3Uri:
    """`s3://bucket/key`, or the same with `?versionId=...`. Raises InvalidUri."""
    bucket, _, rest = uri[len("s3://") :].partition("/")
    version = _VERSION.search(rest)
    key = rest[: version.start()] if version else rest
    if not uri.lower().startswith("s3://") or not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise InvalidUri("an s3 URI is s3://bucket/key")
    if not key or len(key.encode(errors="replace")) > 1024 or not key.isprintable():
        raise InvalidUri("an s3 URI is s3://bucket/key, with a key of at most 1,024 printable bytes")
    if {".", ".."} & set(key.split("/")):
        raise InvalidUri("the key holds . or .. as a component")  # an HTTP client would resolve them
    return S3Uri(bucket, key, version[1] if version else None)


class S3Source:
    """Reads objects for many threads with one client, made when the first s3: URI comes."""

    def __init__(self, settings: S3Settings, limits: FetchSettings) -> None:
        """Raises BadSetting where an entry of the allow-list is no bucket or prefix."""
        self._settings = settings
        self._limits = limits
        self._allowed = [_parse_allowed(entry) for entry in settings.buckets]
        self._client: Any = None  # boto3 makes its clients' classes at run time
        self._lock = threading.Lock()
        self._slots = Slots(
            total=limits.max_connections, per_host=limits.max_connections, wait_s=limits.slot_wait_s
        )

    def fetch(self, uri: str) -> Fetched:
        """Raises what `Fetcher.fetch` names."""
        at = parse_s3_uri(uri)
        if not any(
            bucket in ("*", at.bucket) and at.key.startswith(prefix) for bucket, prefix in self._allowed
        ):
            raise Forbidden("not in a bucket that images are read from (VETLINE_S3_BUCKETS)")
        budget = Budget(self._limits.total_timeout_s)
        with self._slots.of("s3", budget):
            return self._get(at, budget)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _get(self, at: S3Uri, budget: Budget) -> Fetched:
        # boto3 takes half a second and 40 MB to import.
        import botocore.exceptions as failures

        try:
            response = self._connected().get_object(**self._question(at))
            with response["Body"] as body:
                data = self._read(response, body, budget)
        except failures.ClientError as error:
            return _refused(error.response)
        except failures.NoCredentialsError:
            raise Forbidden("there are no credentials to read s3 with") from None
        except (failures.BotoCoreError, OSError):
            raise HostUnavailable("the connection to s3 broke off") from None
        return Fetched(
            data=data,
            etag=response.get("ETag"),
            version=response.get("VersionId"),
            declared_type=response.get("ContentType"),
        )

    def _question(self, at: S3Uri) -> dict[str, str]:
        question = {"Bucket": at.bucket, "Key": at.key, "Range": f"bytes=0-{self._limits.max_bytes}"}
        if at.version is not None:
            question["VersionId"] = at.version
        if self._settings.bucket_owner is not None:
            question["ExpectedBucketOwner"] = self._settings.bucket_owner
        return question

    def _read(self, response: dict[str, Any], body: Any, budget: Budget) -> bytes:
        """The range asks for one byte more than the limit, so an object past it is known before its body."""
        limit = self._limits.max_bytes
        if response.get("ContentLength", 0) > limit:
            raise TooLarge(f"larger than {limit} bytes")
        pace = Pace(self._limits.min_rate_bytes_s, self._limits.min_rate_after_s)
        data = bytearray()
        # read would wait for a whole chunk, so that one byte a second would outlast any budget.
        while chunk := body.read1(_CHUNK_BYTES):
            data += chunk
            if len(data) > limit:
                raise TooLarge(f"larger than {limit} bytes")
            budget.left_s(1)
            pace.check(len(data))
        return bytes(data)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _connect(self._settings, self._limits)
            return self._client


def _connect(settings: S3Settings, limits: FetchSettings) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint_url,
        config=Config(
            connect_timeout=limits.connect_timeout_s,
            read_timeout=limits.first_byte_timeout_s,
            retries={"total_max_attempts": 1},  # trying again is the ledger's to decide
            max_pool_connections=limits.max_connections,
        ),
    )


def _refused(response: dict[str, Any]) -> Fetched:
    """Raise what an error answer means; an empty object is one too, since a range cannot be cut from it."""
    error = response.get("Error", {})
    code = str(error.get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "InvalidRange" or status == 416:
        return Fetched(data=b"")
    if code in _SLOW_DOWN or status == 429:
        raise RateLimited("s3 asked to slow down")
    if code in _ABSENT or status == 404:
        raise NotFound("s3 has no such object")
    if code in _DENIED or status in (401, 403):
        raise Forbidden("s3 denied access")
    if status >= 500 or status == 0:
        raise HostUnavailable(f"s3 answered {status}")
    raise HostRefused(f"s3 answered {status}")


def _parse_allowed(entry: str) -> tuple[str, str]:
    if entry == "*":
        return "*", ""
    bucket, _, prefix = entry.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise BadSetting(f"VETLINE_S3_BUCKETS: {entry!r} is neither a bucket nor bucket/prefix")
    return bucket, prefix
