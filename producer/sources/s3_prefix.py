"""Lists all objects below an s3:// prefix, a page at a time. Needs boto3, the extra `s3`.

Credentials, region and endpoint are those of the AWS command line: AWS_*, profiles, instance roles. A listing is in
the order of keys, so it resumes behind any key.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moderation.errors import BadSetting, BadSource, SourceUnavailable
from producer.sources.folder import is_meant
from producer.sources.item import Cursor, Item, SourceStep

_REFUSED = frozenset({
    "NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "403", "404",
})  # fmt: skip
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and AWS_REGION where it is asked for"
)


@dataclass(frozen=True, slots=True)
class S3Prefix:
    name: str
    patterns: Sequence[str] = ()

    @property
    def identity(self) -> str:
        return self.name

    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        bucket, _, prefix = self.name[len("s3://") :].partition("/")
        question: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        if isinstance(after, str):
            question["StartAfter"] = after
        has_images = after is not None
        for entry in self._listed(question):
            place = entry["Key"][len(prefix) :]
            if not place.endswith("/") and place and is_meant(place, self.patterns):
                has_images = True
                yield SourceStep(_item(bucket, entry), cursor=entry["Key"])
        if not has_images:
            raise BadSource(f"no images below {self.name}")

    def _listed(self, question: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._reaching_s3():
            pages = _client().get_paginator("list_objects_v2").paginate(**question)
            for page in pages:
                yield from page.get("Contents", ())

    @contextmanager
    def _reaching_s3(self) -> Iterator[None]:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            NoRegionError,
            PartialCredentialsError,
            ProfileNotFound,
        )

        try:
            yield
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", ""))
            if code in _REFUSED:
                raise BadSource(f"{self.name} cannot be listed: {code}") from exc
            raise SourceUnavailable(f"{self.name}: {code}") from exc
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound, NoRegionError) as exc:
            raise BadSetting(f"{self.name}: {exc}; set {_CREDENTIALS}") from exc
        except BotoCoreError as exc:  # no connection
            raise SourceUnavailable(f"{self.name}: {exc}") from exc


def _client() -> Any:
    import boto3
    from botocore.config import Config

    # Six tries over some 20 s: a listing of hours meets a few 503s.
    return boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": 6}))


def check_boto3() -> None:
    """Raises BadSetting where it is not installed."""
    try:
        import boto3  # noqa: F401 - asked whether it is there, before anything is submitted
    except ImportError:
        raise BadSetting("listing s3:// needs boto3: pip install 'vetline[s3]'") from None


def _item(bucket: str, entry: dict[str, Any]) -> Item:
    """An object is known by its key and ETag: one that was written again is a new image."""
    mark = f"{bucket}\0{entry['Key']}\0{entry.get('ETag')}\0{entry.get('Size')}"
    return Item(f"s3://{bucket}/{entry['Key']}", "s3:" + hashlib.sha256(mark.encode()).hexdigest())
