"""file: and data: URIs: nothing but regular files below the roots, and nothing larger than the bound."""

import os
import socket
import threading
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from intake.fetch import Fetcher
from intake.settings import FetchSettings
from moderation.errors import Forbidden, HostUnavailable, InvalidUri, NotFound, TooLarge, VetlineError

SECRET = b"not for strangers"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with pictures, beside a secret that is not below it."""
    (tmp_path / "secret").write_bytes(SECRET)
    root = tmp_path / "pictures"
    (root / "cats").mkdir(parents=True)
    (root / "cats" / "a b.jpg").write_bytes(b"cat")
    (root / "large").write_bytes(bytes(1001))
    return root


@pytest.fixture
def fetcher(root: Path) -> Iterator[Fetcher]:
    fetcher = Fetcher(FetchSettings(file_roots=(root,), max_bytes=1000, data_uri_max_bytes=1000))
    yield fetcher
    fetcher.close()


def refused(fetcher: Fetcher, uri: str) -> type[VetlineError]:
    with pytest.raises(VetlineError) as caught:
        fetcher.fetch(uri)
    return type(caught.value)


def test_a_file_below_a_root_is_read(fetcher: Fetcher, root: Path) -> None:
    assert fetcher.fetch(f"file://{root}/cats/a%20b.jpg").data == b"cat"
    assert fetcher.fetch(f"FILE://{root}//cats/./a b.jpg").data == b"cat"


def test_without_roots_there_are_no_files(root: Path) -> None:
    fetcher = Fetcher(FetchSettings())
    assert refused(fetcher, f"file://{root}/cats/a%20b.jpg") is Forbidden
    fetcher.close()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("{root}/../secret", InvalidUri),
        ("{root}/%2e%2e/secret", InvalidUri),
        ("{root}/cats/..%2f..%2f../secret", InvalidUri),
        ("{root}/%252e%252e/secret", NotFound),  # decoded once only
        ("{beside}/secret", Forbidden),
        ("{root}", Forbidden),
        ("{root}/", Forbidden),
        ("{root}extra/x", Forbidden),
        ("{root}/cats", Forbidden),
        ("{root}/cats/a%20b.jpg%00.png", InvalidUri),
        ("{root}/cats/a%20b.jpg/x", NotFound),
        ("{root}/none.jpg", NotFound),
        ("{root}/large", TooLarge),
        ("{root}/cats/a%20b.jpg?x", InvalidUri),
        ("{root}/cats/a%20b.jpg#x", InvalidUri),
        ("/proc/self/environ", Forbidden),
        ("/dev/zero", Forbidden),
        ("/etc/passwd", Forbidden),
    ],
)
def test_no_path_leads_out_of_the_roots(
    fetcher: Fetcher, root: Path, path: str, error: type[VetlineError]
) -> None:
    uri = "file://" + path.format(root=root, beside=root.parent)
    assert refused(fetcher, uri) is error


@pytest.mark.parametrize(
    "uri",
    ["file:/etc/passwd", "file://localhost/etc/passwd", "file://host/x", "file:etc", "file:////", "file://"],
)
def test_a_file_uri_names_an_absolute_path_and_no_host(fetcher: Fetcher, uri: str) -> None:
    assert refused(fetcher, uri) in (InvalidUri, Forbidden)


def test_links_lead_nowhere(fetcher: Fetcher, root: Path) -> None:
    (root / "link.jpg").symlink_to(root.parent / "secret")
    (root / "up").symlink_to(root.parent)
    (root / "inside.jpg").symlink_to(root / "cats" / "a b.jpg")
    assert refused(fetcher, f"file://{root}/link.jpg") is Forbidden
    assert refused(fetcher, f"file://{root}/up/secret") is Forbidden
    assert refused(fetcher, f"file://{root}/inside.jpg") is Forbidden


def test_a_root_may_itself_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    fetcher = Fetcher(FetchSettings(file_roots=(tmp_path / "alias",)))
    assert fetcher.fetch(f"file://{tmp_path}/alias/cats/a%20b.jpg").data == b"cat"
    assert fetcher.fetch(f"file://{root}/cats/a%20b.jpg").data == b"cat"
    fetcher.close()


def test_only_regular_files_are_read(fetcher: Fetcher, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)  # a socket's path may not be long
        listener.bind("socket")
        assert refused(fetcher, f"file://{root}/pipe") is Forbidden
        with pytest.raises((Forbidden, HostUnavailable)):
            fetcher.fetch(f"file://{root}/socket")


def test_a_directory_swapped_for_a_link_while_it_is_read_never_lets_a_secret_out(
    fetcher: Fetcher, root: Path
) -> None:
    """The race that a check before the opening would lose: thousands of swaps, no secret."""
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "a b.jpg").write_bytes(SECRET)
    stop = threading.Event()

    def swap() -> None:
        real, link, spare = root / "cats", root / "link", root / "spare"
        link.symlink_to(outside)
        while not stop.is_set():
            real.rename(spare)
            link.rename(real)
            real.rename(link)
            spare.rename(real)

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes: set[object] = set()
    for _ in range(3000):
        try:
            outcomes.add(fetcher.fetch(f"file://{root}/cats/a%20b.jpg").data)
        except VetlineError as error:
            outcomes.add(type(error))
    stop.set()
    swapper.join()
    assert SECRET not in outcomes
    assert outcomes <= {b"cat", Forbidden, NotFound}


def test_a_file_that_may_not_be_read_is_forbidden(fetcher: Fetcher, root: Path) -> None:
    (root / "cats" / "a b.jpg").chmod(0)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)  # root may read every file
    try:
        assert refused(fetcher, f"file://{root}/cats/a%20b.jpg") is Forbidden
    finally:
        os.seteuid(was)


@pytest.mark.parametrize(
    ("uri", "data", "kind"),
    [
        ("data:image/png;base64," + b64encode(b"\x89PNG??>").decode(), b"\x89PNG??>", "image/png"),
        (
            "data:image/png;base64," + urlsafe_b64encode(b"\xfb\xff\xfe").decode(),
            b"\xfb\xff\xfe",
            "image/png",
        ),
        ("data:image/png;charset=x;base64,iVBO%52w%3D%3D", b"\x89PNG", "image/png"),
        ("data:image/png;base64,iVBORw", b"\x89PNG", "image/png"),
        ("data:,a%20b%FF", b"a b\xff", None),
        ("DATA:Image/GIF,GIF89a", b"GIF89a", "image/gif"),
    ],
)
def test_a_data_uri_is_decoded(fetcher: Fetcher, uri: str, data: bytes, kind: str | None) -> None:
    fetched = fetcher.fetch(uri)
    assert (fetched.data, fetched.declared_type) == (data, kind)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("data:image/png;base64", InvalidUri),
        ("data:image/png;base64,!!!!", InvalidUri),
        ("data:image/png;base64,A", InvalidUri),
        ("data:," + "x" * 1001, TooLarge),
        ("data:," + "%41" * 1001, TooLarge),
        ("data:;base64," + "A" * 100_000, TooLarge),
    ],
)
def test_a_data_uri_that_is_damaged_or_too_large_is_refused(
    fetcher: Fetcher, uri: str, error: type[VetlineError]
) -> None:
    assert refused(fetcher, uri) is error
