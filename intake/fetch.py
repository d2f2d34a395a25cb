"""The bytes behind a URI, whatever its scheme, within limits that a stranger cannot move."""

from typing import Protocol

from intake.data_uri import DataSource
from intake.file_uri import FileSource
from intake.http import HttpSource
from intake.picture import Fetched
from intake.resolver import Resolve, Resolver
from intake.s3 import S3Source
from intake.settings import FetchSettings, S3Settings
from moderation.errors import InvalidUri


class UriSource(Protocol):
    """What fetches the URIs of one scheme."""

    def fetch(self, uri: str) -> Fetched: ...


class Fetcher:
    """Fetches by scheme. Shared by all threads of a worker."""

    def __init__(
        self,
        settings: FetchSettings | None = None,
        *,
        s3: S3Settings | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        """resolve: another way from names to addresses than the system's.

        Raises BadSetting where a list of hosts or buckets cannot be read.
        """
        settings = settings or FetchSettings()
        self._resolver = Resolver()
        self._http = HttpSource(settings, resolve or self._resolver.resolve)
        self._s3 = S3Source(s3 or S3Settings(), settings)
        self._sources: dict[str, UriSource] = {
            "http": self._http,
            "https": self._http,
            "s3": self._s3,
            "file": FileSource(settings.file_roots, settings.max_bytes),
            "data": DataSource(settings.data_uri_max_bytes),
        }

    def fetch(self, uri: str) -> Fetched:
        """Fetch once. The texts of errors name hosts at most, never the URI.

        Raises NotFound, Forbidden, BlockedAddress, UntrustedHost, HostRefused, InvalidUri, TooLarge, TooSlow
        (permanent); HostUnavailable, RateLimited (transient, with retry_after_s where the host named it).
        """
        scheme = uri.partition(":")[0].lower()
        source = self._sources.get(scheme)
        if source is None or ":" not in uri:
            raise InvalidUri("not an https, http, s3, file or data URI")
        return source.fetch(uri)

    def close(self) -> None:
        self._http.close()
        self._s3.close()
        self._resolver.close()
