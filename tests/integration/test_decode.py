"""What a person would see is what a judge gets, from every format."""

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image, ImageCms

from intake.decode import Decoder
from intake.picture import Picture, View
from intake.settings import DecodeSettings
from moderation.errors import TooManyPixels, Undecodable, UnsupportedType
from tests.support.pictures import (
    BLUE,
    UPRIGHT,
    animation,
    chunk,
    chunks,
    corners,
    encode,
    gif_of_many_frames,
    near,
    png,
    quarters,
    turned,
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(DecodeSettings(children=2))
    yield decoder
    decoder.close()


def colours(view: View) -> list[tuple[int, ...]]:
    assert view.rgb is not None
    return corners(view.width, view.height, view.rgb)


def only_view(picture: Picture) -> View:
    assert [view.name for view in picture.views] == ["whole"]
    return picture.views[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_every_orientation_is_shown_upright(decoder: Decoder, format_: str, orientation: int) -> None:
    data = turned(orientation, format_)
    picture = decoder.decode(data, pixels=True)
    view = only_view(picture)
    assert (picture.width, picture.height) == (view.width, view.height) == (96, 64)
    assert near(colours(view), UPRIGHT)
    passed_on = format_ in ("JPEG", "PNG", "WEBP") and orientation == 1
    assert (view.data == data) is passed_on


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_each_format_is_decoded_to_what_it_shows(decoder: Decoder, format_: str) -> None:
    data = encode(quarters(), format_)
    picture = decoder.decode(data, pixels=True)
    view = only_view(picture)
    assert near(colours(view), UPRIGHT)
    assert picture.media_type == f"image/{format_.lower()}"
    assert picture.bytes_sha256 == hashlib.sha256(data).hexdigest()
    assert (picture.byte_count, picture.frames) == (len(data), 1)
    assert view.rgb is not None
    assert view.pixels_sha256 == hashlib.sha256(view.rgb).hexdigest()
    assert len(view.rgb) == 96 * 64 * 3


def test_pixels_are_handed_over_only_where_asked_for(decoder: Decoder) -> None:
    data = encode(quarters(), "JPEG")
    with_pixels, without = decoder.decode(data, pixels=True), decoder.decode(data, pixels=False)
    assert without.views[0].rgb is None
    assert without.views[0].pixels_sha256 == with_pixels.views[0].pixels_sha256


def test_the_digest_of_a_large_picture_is_that_of_its_rows(decoder: Decoder) -> None:
    """It is made in strips, so more than one is needed here."""
    noise = Image.effect_noise((1500, 1700), 90).convert("RGB")
    view = only_view(decoder.decode(encode(noise, "PNG", compress_level=1), pixels=True))
    assert view.rgb == noise.tobytes()
    assert view.pixels_sha256 == hashlib.sha256(noise.tobytes()).hexdigest()


JPEG_WITHOUT_TRANSFORM = encode(quarters(), "JPEG", keep_rgb=True)


@pytest.mark.parametrize(
    ("data", "passed_on"),
    [
        (encode(quarters(), "JPEG"), True),
        (encode(quarters(), "JPEG", progressive=True, subsampling=0), True),
        (encode(quarters(), "PNG"), True),
        (encode(quarters(), "WEBP"), True),
        (encode(quarters(), "WEBP", lossless=True), True),
        (encode(quarters().convert("L"), "JPEG"), False),
        (encode(quarters().convert("CMYK"), "JPEG"), False),
        (JPEG_WITHOUT_TRANSFORM, False),
        (encode(quarters().convert("L"), "PNG"), False),
        (encode(quarters().convert("P"), "PNG"), False),
        (encode(quarters().convert("RGBA"), "PNG"), False),
        (encode(quarters(), "PNG", transparency=BLUE), False),
        (png(8, 8, bits=16, colour=2), False),
        (encode(quarters().convert("RGBA"), "WEBP"), True),  # WebP drops an alpha channel that hides nothing
        (animation(3, "WEBP"), False),
        (animation(3, "PNG"), False),
    ],
)
def test_bytes_are_passed_on_only_where_every_decoder_agrees_on_them(
    decoder: Decoder, data: bytes, passed_on: bool
) -> None:
    for view in decoder.decode(data, pixels=False).views:
        assert (view.data is data) is passed_on
        assert view.media_type in ("image/jpeg", "image/png", "image/webp")


@pytest.mark.parametrize(
    "data",
    [
        encode(quarters().convert("P"), "GIF", transparency=0),
        encode(
            quarters(), "TIFF", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        ),
        encode(quarters(), "PNG", transparency=BLUE),
        turned(6, "JPEG"),
        encode(quarters().convert("L"), "JPEG", comment=b"hello", dpi=(300, 300)),
    ],
)
def test_what_is_encoded_anew_holds_the_same_pixels_and_nothing_else(decoder: Decoder, data: bytes) -> None:
    for view in decoder.decode(data, pixels=True).views:
        assert view.media_type == "image/png"
        assert set(chunks(view.data)) == {b"IHDR", b"IDAT", b"IEND"}
        assert Image.open(io.BytesIO(view.data)).tobytes() == view.rgb


def test_a_picture_that_shows_through_is_judged_on_white_and_on_black(decoder: Decoder) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))  # black writing on nothing: unseen on black
    image.paste((0, 0, 0, 255), (8, 8, 56, 24))
    white, black = decoder.decode(encode(image, "PNG"), pixels=True).views
    assert (white.name, black.name) == ("on white", "on black")
    assert set(Image.frombytes("RGB", (64, 64), white.rgb or b"").getcolors() or []) == {
        (48 * 16, (0, 0, 0)),
        (64 * 64 - 48 * 16, (255, 255, 255)),
    }
    assert black.rgb == bytes(64 * 64 * 3)


HOLED = quarters().convert("RGBA")
HOLED.paste((0, 0, 0, 0), (0, 0, 48, 32))


@pytest.mark.parametrize(
    "data",
    [
        *(encode(HOLED, format_) for format_ in ("PNG", "WEBP", "TIFF", "GIF", "AVIF")),
        encode(HOLED.convert("LA"), "PNG"),
        encode(HOLED.convert("LA"), "TIFF"),
        encode(HOLED.quantize(16), "PNG"),  # a palette of colours with alpha
        encode(quarters(), "PNG", transparency=BLUE),  # a colour key
        encode(quarters().convert("L"), "PNG", transparency=quarters().convert("L").getpixel((0, 0))),
        encode(quarters().convert("P"), "GIF", transparency=quarters().convert("P").getpixel((0, 0))),
    ],
)
def test_transparency_of_any_kind_is_seen(decoder: Decoder, data: bytes) -> None:
    names = [view.name for view in decoder.decode(data, pixels=False).views]
    assert names == ["on white", "on black"]


@pytest.mark.parametrize("alpha", [255, 254, 230])
def test_a_nearly_opaque_picture_is_judged_once(decoder: Decoder, alpha: int) -> None:
    image = quarters().convert("RGBA")
    image.putalpha(alpha)
    assert near(colours(only_view(decoder.decode(encode(image, "PNG"), pixels=True))), UPRIGHT, within=60)


def sixteen_bits(levels: list[int]) -> Image.Image:
    image = Image.new("I;16", (len(levels) * 8, 8))
    for number, level in enumerate(levels):
        image.paste(level, (number * 8, 0, number * 8 + 8, 8))
    return image


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut_off(decoder: Decoder, format_: str) -> None:
    image = sixteen_bits([0, 257 * 64, 257 * 128, 65535])
    view = only_view(decoder.decode(encode(image, format_), pixels=True))
    assert list((view.rgb or b"")[12 : 3 * view.width : 24]) == [0, 64, 128, 255]


def test_floats_are_stretched_over_their_range(decoder: Decoder) -> None:
    image = Image.new("F", (16, 8), -2.0)
    image.paste(6.0, (8, 0, 16, 8))
    view = only_view(decoder.decode(encode(image, "TIFF"), pixels=True))
    assert list((view.rgb or b"")[0 : 3 * 16 : 24]) == [0, 255]


def test_floats_that_are_no_numbers_are_undecodable(decoder: Decoder) -> None:
    with pytest.raises(Undecodable):
        decoder.decode(encode(Image.new("F", (8, 8), float("nan")), "TIFF"), pixels=False)


def test_ink_and_lab_look_like_what_they_print(decoder: Decoder) -> None:
    for image in (quarters().convert("CMYK"), quarters().convert("YCbCr")):
        assert near(
            colours(only_view(decoder.decode(encode(image, "TIFF"), pixels=True))), UPRIGHT, within=40
        )
    jpeg = encode(quarters().convert("CMYK"), "JPEG", quality=95)  # Adobe stores it inverted
    assert near(colours(only_view(decoder.decode(jpeg, pixels=True))), UPRIGHT, within=40)
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(quarters(), *profiles, outputMode="LAB")
    assert lab is not None
    assert near(colours(only_view(decoder.decode(encode(lab, "TIFF"), pixels=True))), UPRIGHT, within=40)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours_are_right(decoder: Decoder, mode: str) -> None:
    image = quarters().convert(mode, dither=Image.Dither.NONE)
    view = only_view(decoder.decode(encode(image, "PNG"), pixels=True))
    assert view.rgb == image.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("format_", "frames", "names"),
    [
        ("GIF", 2, ["frame 0", "frame 1"]),
        ("GIF", 3, ["frame 0", "frame 1", "frame 2"]),
        ("GIF", 101, ["frame 0", "frame 50", "frame 100"]),
        ("WEBP", 40, ["frame 0", "frame 20", "frame 39"]),
        ("PNG", 11, ["frame 0", "frame 5", "frame 10"]),
        ("TIFF", 5, ["frame 0", "frame 2", "frame 4"]),
        ("AVIF", 4, ["frame 0", "frame 2", "frame 3"]),
    ],
)
def test_an_animation_is_judged_by_its_first_middle_and_last_frame(
    decoder: Decoder, format_: str, frames: int, names: list[str]
) -> None:
    picture = decoder.decode(animation(frames, format_), pixels=True)
    assert picture.frames == frames
    assert [view.name for view in picture.views] == names
    for view in picture.views:
        level = int(view.name.removeprefix("frame ")) * 255 // (frames - 1)
        assert (view.rgb or b"")[0] == pytest.approx(level, abs=6)


def test_frames_that_look_the_same_are_judged_once(decoder: Decoder) -> None:
    picture = decoder.decode(gif_of_many_frames(50, (32, 32)), pixels=False)
    assert (picture.frames, [view.name for view in picture.views]) == (50, ["frame 0"])


def test_a_gamma_that_hides_a_picture_is_judged_with_and_without(decoder: Decoder) -> None:
    gamma = chunk(b"gAMA", (2_000).to_bytes(4, "big"))  # 0.02: nearly all goes dark where it is honoured
    plain = encode(Image.new("RGB", (16, 16), (200, 200, 200)), "PNG")
    data = plain[:33] + gamma + plain[33:]
    stored, shown = decoder.decode(data, pixels=True).views
    assert (stored.name, shown.name) == ("whole", "with gamma")
    assert ((stored.rgb or b"")[0], (shown.rgb or b"")[0]) == (200, 1)
    usual = plain[:33] + chunk(b"gAMA", (45_455).to_bytes(4, "big")) + plain[33:]
    assert only_view(decoder.decode(usual, pixels=False)).data is usual


def test_a_colour_profile_that_changes_the_picture_is_judged_with_and_without(decoder: Decoder) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = (
        srgb.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")
    )  # red is blue
    data = encode(quarters(), "PNG", icc_profile=swapped)
    stored, shown = decoder.decode(data, pixels=True).views
    assert (stored.name, shown.name) == ("whole", "with profile")
    assert near(colours(stored), UPRIGHT)
    assert near(colours(shown), [UPRIGHT[2], UPRIGHT[1], UPRIGHT[0], (20, 220, 230)], within=60)
    usual = encode(quarters(), "JPEG", icc_profile=srgb)
    assert only_view(decoder.decode(usual, pixels=False)).data is usual


@pytest.mark.parametrize(
    ("settings", "data"),
    [
        ({"max_pixels": 6_143}, encode(quarters(), "PNG")),
        ({"max_frames": 9}, animation(10, "GIF")),
        ({"max_total_pixels": 10_000}, animation(10, "WEBP")),
        ({"max_pixels": 6_143}, encode(quarters(), "AVIF")),
    ],
)
def test_pixels_and_frames_are_bounded(settings: dict[str, Any], data: bytes) -> None:
    decoder = Decoder(DecodeSettings(children=1, **settings))
    with pytest.raises(TooManyPixels):
        decoder.decode(data, pixels=False)
    decoder.close()


def test_what_is_no_image_starts_no_child() -> None:
    decoder = Decoder(DecodeSettings(children=1))
    for data in (b"", b"<!doctype html>", b"%PDF-1.7", b"GIF87"):
        with pytest.raises(UnsupportedType):
            decoder.decode(data, pixels=False)
    assert decoder.pids == []
    decoder.close()


@pytest.mark.parametrize(
    "data",
    [encode(quarters(), "JPEG")[:-200], encode(quarters(), "PNG")[:60], b"GIF89a", b"\xff\xd8\xff", b"II*\0"],
)
def test_a_cut_file_is_undecodable(decoder: Decoder, data: bytes) -> None:
    with pytest.raises(Undecodable) as caught:
        decoder.decode(data, pixels=False)
    assert str(caught.value).isprintable()
