"""Each kind of picture that people see otherwise than a decoder would: the picture they see is among the views."""

import struct
import zlib
from collections.abc import Iterator
from random import Random

import pytest
from PIL import Image, ImageCms

from bench.pictures import mean_difference
from intake.decode import Decoder
from intake.picture import Picture
from intake.settings import DecodeSettings
from moderation.errors import DamagedButShown, Undecodable
from tests.support import profiles, viewed_files, viewed_pngs
from tests.support.apertures import with_aperture, with_code_points
from tests.support.pictures import chunk, encode
from tests.support.viewed_content import CONTENT, DECOY, grey

SIZE = CONTENT.size


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(DecodeSettings(children=1, wall_s=60))
    yield decoder
    decoder.close()


def nearest(picture: Picture, wanted: Image.Image) -> float:
    """The mean difference of a picture and the view that is nearest to it, in levels."""
    views = [
        Image.frombytes("RGB", (view.width, view.height), view.rgb or b"")
        for view in picture.views
        if (view.width, view.height) == wanted.size
    ]
    return min((mean_difference(view, wanted) for view in views), default=255.0)


def names(picture: Picture) -> list[str]:
    return [view.name for view in picture.views]


def with_chunks(image: Image.Image, *before: bytes, after: bytes = b"") -> bytes:
    head, *rest = viewed_pngs.parts(encode(image, "PNG"))
    return viewed_pngs.file(head, *before, *rest, after)


DARK = 2_000  # a gamma of 0.02, under which a picture is nearly black
DARKENING, HONEST = (chunk(b"gAMA", struct.pack("!I", gamma)) for gamma in (DARK, 45_455))
SRGB = chunk(b"sRGB", b"\0")


@pytest.mark.parametrize(
    ("before", "after", "darkens"),
    [
        ((DARKENING,), b"", True),
        ((DARKENING, HONEST), b"", True),
        ((HONEST, DARKENING), b"", False),
        ((DARKENING,), HONEST, True),
        ((HONEST,), DARKENING, False),
        ((DARKENING,), SRGB, True),
        ((DARKENING, SRGB), b"", False),
        ((viewed_pngs.spoilt(SRGB), DARKENING), b"", True),
        ((chunk(b"sRGB", b"\x09"), DARKENING), b"", True),
        ((chunk(b"iCCP", b"broken"), DARKENING), b"", True),
        ((chunk(b"gAMA", bytes(4)), DARKENING), b"", True),
    ],
)
def test_the_first_valid_chunk_before_the_pixels_counts(
    decoder: Decoder, before: tuple[bytes, ...], after: bytes, darkens: bool
) -> None:
    picture = decoder.decode(with_chunks(CONTENT, *before, after=after), pixels=True)
    assert names(picture) == (["whole", "with gamma"] if darkens else ["whole"])
    assert (picture.views_differ is not None) is darkens


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_key_of_any_depth_makes_holes(decoder: Decoder, bits: int) -> None:
    top = 2**bits - 1
    samples = [top if level > 127 else 0 for level in grey(CONTENT).tobytes()]
    width = SIZE[0]
    rows = [viewed_pngs._row(samples[at : at + width], bits, 1) for at in range(0, len(samples), width)]
    key = chunk(b"tRNS", struct.pack("!H", top))
    data = viewed_pngs.file(
        viewed_pngs.header(SIZE, bits, viewed_pngs.GREY), key, viewed_pngs.pixels(rows), key
    )
    picture = decoder.decode(data, pixels=True)
    assert names(picture) == ["on white", "on black"]
    holes = grey(CONTENT).point(lambda level: 0 if level > 127 else 255)
    on_white = Image.new("RGB", SIZE, "white")
    on_white.paste((0, 0, 0), mask=holes)
    assert nearest(picture, on_white) == 0


def test_a_key_that_differs_in_its_low_byte_makes_none(decoder: Decoder) -> None:
    rows = [struct.pack("!H", 0x1234) * SIZE[0]] * SIZE[1]
    key = chunk(b"tRNS", struct.pack("!H", 0x1235))
    data = viewed_pngs.file(viewed_pngs.header(SIZE, 16, viewed_pngs.GREY), key, viewed_pngs.pixels(rows))
    assert names(decoder.decode(data, pixels=True)) == ["whole"]


def test_a_curve_that_is_usual_at_some_levels_only_is_seen_through(decoder: Decoder) -> None:
    curve = profiles.sampled_curve([(n / 255) ** 2.2 if n % 51 == 0 else 0.0 for n in range(256)])
    data = encode(CONTENT, "PNG", icc_profile=_rgb_profile(curve))
    picture = decoder.decode(data, pixels=True)
    assert names(picture) == ["whole", "with profile"]
    dark = CONTENT.point([n if n % 51 == 0 else 0 for n in range(256)] * 3)
    assert nearest(picture, dark) < 4


def _rgb_profile(curve: bytes, **options: bytes) -> bytes:
    columns = zip((b"rXYZ", b"gXYZ", b"bXYZ"), profiles._SRGB, strict=True)
    tags = [(name, profiles._xyz(column)) for name, column in columns]
    return profiles.assemble(tags + [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")], **options)


DARK_PROFILE = _rgb_profile(profiles.gamma_curve(60))
ODD_PROFILES = {
    "class": _rgb_profile(profiles.gamma_curve(60), kind=b"abst"),
    "no white point": DARK_PROFILE,
    "tag twice": profiles.assemble(
        [*((name, profiles._xyz((0.3, 0.3, 0.3))) for name in (b"rXYZ", b"gXYZ", b"bXYZ"))]
        + [(name, profiles.gamma_curve(60)) for name in (b"rTRC", b"gTRC", b"bTRC")]
        + [(b"rTRC", profiles.gamma_curve(1))]
    ),
}


@pytest.mark.parametrize("profile", ODD_PROFILES.values(), ids=ODD_PROFILES)
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_a_profile_that_browsers_take_is_honoured_however_odd(
    decoder: Decoder, format_: str, profile: bytes
) -> None:
    assert names(decoder.decode(encode(CONTENT, format_, icc_profile=profile), pixels=True))[1:] == [
        "with profile"
    ]


def test_a_grey_profile_is_honoured_on_greys_and_ignored_on_colours(decoder: Decoder) -> None:
    dark = profiles.assemble([(b"kTRC", profiles.gamma_curve(60))], space=b"GRAY")
    on_grey = decoder.decode(encode(grey(CONTENT), "PNG", icc_profile=dark), pixels=True)
    assert names(on_grey) == ["whole", "with profile"]
    assert names(decoder.decode(encode(CONTENT, "PNG", icc_profile=dark), pixels=True)) == ["whole"]


def test_a_profile_over_the_size_is_judged_without_and_marked(decoder: Decoder) -> None:
    padded = DARK_PROFILE + bytes(17_000_000)
    assert decoder.decode(encode(CONTENT, "WEBP", icc_profile=padded), pixels=True).marks == (
        "profile_too_large",
    )


def test_usual_profiles_add_no_view(decoder: Decoder) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encode(CONTENT, "JPEG", icc_profile=srgb)
    picture = decoder.decode(data, pixels=False)
    assert (names(picture), picture.views[0].data, picture.views_differ) == (["whole"], data, None)


def test_the_second_of_two_animation_controls_is_ignored(decoder: Decoder) -> None:
    control = struct.pack("!IIIIIHHBB", 0, *SIZE, 0, 0, 100, 100, 0, 0)
    frame = chunk(b"fdAT", struct.pack("!I", 1) + zlib.compress(viewed_pngs._rows(CONTENT)))
    actl = chunk(b"acTL", struct.pack("!II", 1, 0))
    head, *pixels = viewed_pngs.parts(encode(DECOY, "PNG"))
    data = viewed_pngs.file(head, actl, actl, *pixels, chunk(b"fcTL", control), frame)
    picture = decoder.decode(data, pixels=True)
    assert nearest(picture, CONTENT) == 0
    assert nearest(picture, DECOY) == 0, "who knows no animations sees the default picture"


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_a_frame_that_is_shown_for_long_is_judged(decoder: Decoder, format_: str) -> None:
    frames = [DECOY.rotate(number) for number in range(9)]
    frames[5] = CONTENT
    durations = [1] * 5 + [60_000] + [1] * 3
    data = encode(frames[0], format_, save_all=True, append_images=frames[1:], duration=durations)
    picture = decoder.decode(data, pixels=True)
    assert names(picture) == ["frame 0", "frame 4", "frame 5", "frame 8"]
    assert nearest(picture, CONTENT) < 12  # a GIF has 256 colours
    assert picture.views_differ is None, "frames of an animation are expected to differ"


@pytest.mark.parametrize("primary", range(4))
def test_the_primary_picture_of_a_heic_comes_first(decoder: Decoder, primary: int) -> None:
    picture = decoder.decode(viewed_files.heic(primary), pixels=True)
    assert picture.views[0].name == f"frame {primary}"
    assert nearest(picture, CONTENT) < 8


def test_an_aperture_and_all_of_it_are_both_views(decoder: Decoder) -> None:
    box = (10, 20, 60, 80)
    data = with_aperture(encode(CONTENT, "AVIF", quality=95), box, SIZE)
    picture = decoder.decode(data, pixels=True)
    assert names(picture) == ["whole", "without aperture"]
    assert nearest(picture, CONTENT.crop(box)) < 6
    assert nearest(picture, CONTENT) < 6


def test_linear_code_points_are_a_view(decoder: Decoder) -> None:
    data = with_code_points(encode(CONTENT, "AVIF", quality=95), 1, 8)
    assert names(decoder.decode(data, pixels=True)) == ["whole", "with code points"]


def test_a_gain_map_and_its_base_are_both_views(decoder: Decoder) -> None:
    picture = decoder.decode(viewed_files.gain_mapped(Random(3)), pixels=True)
    assert names(picture) == ["whole", "with gain map"]
    assert picture.views_differ is not None


def test_what_runs_of_a_bmp_skip_is_see_through(decoder: Decoder) -> None:
    assert names(decoder.decode(viewed_files.bmp_runs(Random(1)), pixels=True)) == ["on white", "on black"]


@pytest.mark.parametrize(("low", "through"), [(254, False), (250, False), (225, True), (0, True)])
def test_a_picture_in_the_alpha_channel_is_seen_once_people_can(
    decoder: Decoder, low: int, through: bool
) -> None:
    image = Image.new("RGB", SIZE, "white")
    image.putalpha(grey(CONTENT).point(lambda level: low + level * (255 - low) // 255))
    found = names(decoder.decode(encode(image, "PNG"), pixels=True))
    assert found == (["on white", "on black"] if through else ["whole"])


def test_a_small_hole_in_a_large_picture_is_seen(decoder: Decoder) -> None:
    image = Image.new("RGBA", (1000, 1000), "white")
    image.paste((255, 255, 255, 0), (500, 500, 510, 510))  # a ten-thousandth of it
    assert names(decoder.decode(encode(image, "PNG"), pixels=True)) == ["on white", "on black"]


def test_a_small_part_of_a_long_picture_has_a_tile(decoder: Decoder) -> None:
    image = Image.effect_noise((300, 30_000), 5).convert("RGB")
    image.paste(CONTENT, (100, 17_000))
    picture = decoder.decode(encode(image, "PNG"), pixels=True)
    assert names(picture) == ["whole", *(f"tile {number} of 8" for number in range(1, 9))]
    assert all(view.height <= 30_000 / 8 * 1.2 + 1 for view in picture.views[1:])
    tile = picture.views[5]  # the fifth, from a tenth of its length before 15,000
    pixels = Image.frombytes("RGB", (tile.width, tile.height), tile.rgb or b"")
    top = 17_000 - (15_000 - 375)
    assert mean_difference(pixels.crop((100, top, 196, top + 96)), CONTENT) == 0


def test_tiles_are_switched_off_by_a_setting() -> None:
    decoder = Decoder(DecodeSettings(children=1, wall_s=60, tiles=0))
    assert names(decoder.decode(encode(Image.new("RGB", (300, 3000)), "PNG"), pixels=True)) == ["whole"]
    decoder.close()


def test_a_colour_map_of_eight_bits_is_not_divided_again(decoder: Decoder) -> None:
    image = CONTENT.quantize(64)
    data = bytearray(encode(image, "TIFF"))
    at = data.index(struct.pack("<HHI", 320, 3, 768)) + 8
    (where,) = struct.unpack_from("<I", data, at)
    levels = struct.unpack_from("<768H", data, where)
    struct.pack_into("<768H", data, where, *(level >> 8 for level in levels))
    assert nearest(decoder.decode(bytes(data), pixels=True), image.convert("RGB")) == 0


@pytest.mark.parametrize("compressed", [False, True])
def test_sixteen_bits_in_planes_are_read(decoder: Decoder, compressed: bool) -> None:
    assert nearest(decoder.decode(_planar_tiff(CONTENT, compressed=compressed), pixels=True), CONTENT) < 1


def _planar_tiff(image: Image.Image, *, compressed: bool) -> bytes:
    planes = [b"".join(struct.pack("<H", level * 257) for level in band.tobytes()) for band in image.split()]
    strips = [zlib.compress(plane) if compressed else plane for plane in planes]
    starts = [8 + sum(map(len, strips[:number])) for number in range(3)]
    end = 8 + sum(map(len, strips))
    longs = (
        struct.pack("<3I", *starts) + struct.pack("<3I", *map(len, strips)) + struct.pack("<3H", 16, 16, 16)
    )
    tags = [
        (256, 4, 1, image.width),
        (257, 4, 1, image.height),
        (258, 3, 3, end + 24),
        (259, 3, 1, 8 if compressed else 1),
        (262, 3, 1, 2),
        (273, 4, 3, end),
        (277, 3, 1, 3),
        (278, 4, 1, image.height),
        (279, 4, 3, end + 12),
        (284, 3, 1, 2),
    ]
    at = end + len(longs)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", at) + b"".join(strips) + longs + directory


def test_a_bad_checksum_hides_nothing(decoder: Decoder) -> None:
    data = with_chunks(CONTENT, viewed_pngs.spoilt(chunk(b"tEXt", b"a\0b")))
    assert nearest(decoder.decode(data, pixels=True), CONTENT) == 0
    head, *rest = viewed_pngs.parts(encode(CONTENT, "PNG"))
    spoilt = viewed_pngs.file(head, *(viewed_pngs.spoilt(part) for part in rest))
    picture = decoder.decode(spoilt, pixels=False)
    assert picture.views[0].media_type == "image/png"
    assert picture.views[0].data != spoilt, "other decoders refuse its bytes"


def test_a_jpeg_without_its_end_is_judged_and_half_of_one_refused_by_name(decoder: Decoder) -> None:
    data = encode(CONTENT.resize((192, 192)), "JPEG", quality=95)
    assert names(decoder.decode(data[:-2], pixels=True)) == ["whole"]
    with pytest.raises(DamagedButShown):
        decoder.decode(data[: len(data) // 2], pixels=True)
    with pytest.raises(Undecodable) as caught:
        decoder.decode(data[:100], pixels=True)
    assert caught.value.code == "undecodable"


def test_an_avif_of_another_major_brand_is_one(decoder: Decoder) -> None:
    data = encode(CONTENT, "AVIF", quality=95)
    other = data[:8] + b"miaf" + data[12:]
    assert nearest(decoder.decode(other, pixels=True), CONTENT) < 6


def test_as_many_frames_as_may_be_judged_are_sent(decoder: Decoder) -> None:
    """Each with two pages and its profile: the most views that a child ever sends."""
    many = Decoder(DecodeSettings(children=1, wall_s=60, frames_judged=32))
    frames = [Image.new("RGBA", (16, 16), (200, 150 + number, 10, 100)) for number in range(64)]
    data = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    head, *rest = viewed_pngs.parts(data)
    picture = many.decode(
        viewed_pngs.file(head, chunk(b"gAMA", struct.pack("!I", 20_000)), *rest), pixels=True
    )
    assert len(picture.views) > 64
    many.close()
