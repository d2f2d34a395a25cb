"""HEIF and the perceptual hash, each from an optional package, in the same sandboxed children."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image

from intake.decode import Decoder
from intake.settings import DecodeSettings
from moderation.errors import BadSetting, Undecodable
from tests.support.pictures import UPRIGHT, corners, encode, near, quarters

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(DecodeSettings(children=1, perceptual_hash=True))
    yield decoder
    decoder.close()


def heif(image: Image.Image) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=90)
    return file.getvalue()


def test_heif_is_decoded(decoder: Decoder) -> None:
    picture = decoder.decode(heif(quarters()), pixels=True)
    (view,) = picture.views
    assert (picture.media_type, view.media_type) == ("image/heif", "image/png")
    assert near(corners(view.width, view.height, view.rgb or b""), UPRIGHT)


def test_damaged_heif_is_undecodable(decoder: Decoder) -> None:
    data = heif(quarters())
    with pytest.raises(Undecodable):
        decoder.decode(data[: len(data) // 2], pixels=False)


def test_without_its_package_heif_is_refused_by_name(tmp_path: Path) -> None:
    """A child that sees Pillow alone, as where the extra is not installed."""
    (tmp_path / "PIL").symlink_to(Path(Image.__file__).parent)
    (tmp_path / "pillow.libs").symlink_to(Path(Image.__file__).parents[1] / "pillow.libs")
    script = f"""
import sys
sys.path[:0] = [{str(SAMPLES.parent)!r}, {str(tmp_path)!r}]
from intake.stills import Limits, NoDecoderError, open_image, prepare
prepare(1000)
try:
    open_image(sys.stdin.buffer.read(), "image/heif", Limits(1000, 1, 1000, 1))
except NoDecoderError as error:
    sys.stdout.write(str(error))
"""
    command = [sys.executable, "-SEsP", "-c", script]
    done = subprocess.run(command, input=heif(quarters()), capture_output=True, timeout=60, check=False)
    assert done.stdout.decode() == "image/heif is not judged here: its decoder is not installed"


def distance(one: str | None, other: str | None) -> int:
    """In bits of 256; 31 and less is called a match."""
    assert one is not None
    assert other is not None
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_pictures_that_look_alike_have_hashes_that_are_near(decoder: Decoder) -> None:
    cat = Image.open(SAMPLES / "cat.jpg").convert("RGB")
    rocket = Image.open(SAMPLES / "rocket.jpg").convert("RGB")
    (first,) = decoder.decode(encode(cat, "PNG"), pixels=False).views
    (smaller,) = decoder.decode(encode(cat.resize((300, 200)), "JPEG", quality=60), pixels=False).views
    (other,) = decoder.decode(encode(rocket, "PNG"), pixels=False).views
    assert first.pdq is not None
    assert len(first.pdq) == 64
    assert first.pdq_quality == 100
    assert distance(first.pdq, smaller.pdq) <= 31
    assert distance(first.pdq, other.pdq) > 80


def test_a_picture_of_nothing_has_a_hash_of_no_quality(decoder: Decoder) -> None:
    (view,) = decoder.decode(encode(Image.new("RGB", (64, 64), "white"), "PNG"), pixels=False).views
    assert view.pdq_quality == 0


def test_no_hash_is_made_unasked() -> None:
    decoder = Decoder(DecodeSettings(children=1))
    assert decoder.decode(encode(quarters(), "PNG"), pixels=False).views[0].pdq is None
    decoder.close()


def test_a_hash_that_cannot_be_made_is_a_bad_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pdqhash", None)
    with pytest.raises(BadSetting, match="hash"):
        Decoder(DecodeSettings(perceptual_hash=True))
