"""Decode every picture of a folder, and compare what is judged with what Chromium shows people.

usage: python -m bench.pictures FOLDER [--no-browser] [--over 8] [--json FILE]

Prints how many files were decoded, refused (by code), or killed a decoder; the slowest and the largest; and the
files whose picture in Chromium is not among the views. Distances are mean absolute differences in levels, 0 to
255, between what Chromium shows and the nearest view; the worse of a white and a black page counts. For files
with several frames Chromium's screen is taken a second after loading.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

from bench.browser import Browser, Shown, browser, find_chromium
from intake.decode import Decoder
from intake.formats import sniff
from intake.picture import Picture, View
from intake.settings import DecodeSettings
from moderation.errors import VetlineError
from moderation.log import configure_logging

_ANIMATION_MS = 1000
_SAME_SHAPE = 0.02  # of a side: what scaling rounds
_OTHER_SHAPE = 255.0
_DEATH = "death"


@dataclass(frozen=True)
class Row:
    """What came of one file. distance: None where it was refused here, or Chromium shows nothing."""

    name: str
    outcome: str  # "decoded", a refusal's code, or "death" of the decoder
    views: tuple[str, ...]
    shown: bool | None  # by Chromium; None where it was not asked
    distance: float | None
    decode_ms: float
    pixels: int
    views_differ: float | None = None
    marks: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether people see what is neither judged nor refused."""
        return self.distance is not None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-browser", action="store_true", help="decode only")
    parser.add_argument("--over", type=float, default=8.0, help="list differences above this many levels")
    parser.add_argument("--all", action="store_true", help="list every file")
    parser.add_argument("--json", type=Path, help="write one JSON object a file here")
    options = parser.parse_args(arguments)
    configure_logging()
    path = None if options.no_browser else find_chromium()
    decoder = Decoder(DecodeSettings(wall_s=60))
    started = time.perf_counter()
    with browser(path) if path else nullcontext() as chromium:
        rows = [compare(name, data, decoder, chromium) for name, data in files(options.folder)]
        version = chromium.version if chromium else "none"
    decoder.close()
    if options.json:
        options.json.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    report(rows, version, time.perf_counter() - started, over=-1.0 if options.all else options.over)


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder that is a picture by its bytes, by name."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        try:
            sniff(data)
        except VetlineError:
            continue
        yield str(path.relative_to(folder)), data


def compare(name: str, data: bytes, decoder: Decoder, chromium: Browser | None) -> Row:
    """Decode one file, and look at it in Chromium where there is one."""
    started = time.perf_counter()
    picture, outcome = None, "decoded"
    try:
        picture = decoder.decode(data, pixels=True)
    except VetlineError as refusal:
        outcome = _DEATH if str(refusal).startswith("the decoder ended") else refusal.code
    decode_ms = 1000 * (time.perf_counter() - started)
    shown = None
    if chromium is not None:
        moving = picture is not None and picture.frames > 1
        shown = chromium.shows(data, sniff(data), after_ms=_ANIMATION_MS if moving else 0)
        shown = None if shown is not None and shown.is_empty else shown
    return Row(
        name=name,
        outcome=outcome,
        views=tuple(view.name for view in picture.views) if picture else (),
        shown=None if chromium is None else shown is not None,
        distance=round(distance(picture, shown), 1) if picture and shown else None,
        decode_ms=round(decode_ms, 1),
        pixels=picture.width * picture.height if picture else 0,
        views_differ=getattr(picture, "views_differ", None),
        marks=getattr(picture, "marks", ()),
    )


def distance(picture: Picture, shown: Shown) -> float:
    """From what people see, on the worse of two pages, to the nearest view; 255 where no view has its shape."""
    views = [pixels for view in picture.views if (pixels := _as_shown(view, shown)) is not None]
    pages = (shown.on_white, shown.on_black)
    return max(min((mean_difference(page, view) for view in views), default=_OTHER_SHAPE) for page in pages)


def _as_shown(view: View, shown: Shown) -> Image.Image | None:
    """A view in the size of Chromium's picture; None where its shape is another."""
    width, height = shown.size
    if abs(view.width / view.height / (width / height) - 1) > _SAME_SHAPE and (view.width, view.height) != (
        width,
        height,
    ):
        return None
    assert view.rgb is not None
    pixels = Image.frombytes("RGB", (view.width, view.height), view.rgb)
    if pixels.size != shown.on_white.size:
        pixels = pixels.resize(shown.on_white.size, Image.Resampling.BOX)
    return pixels


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two RGB pictures of one size, in levels."""
    means = ImageStat.Stat(ImageChops.difference(one, other)).mean
    return sum(means) / len(means)


def report(rows: Sequence[Row], version: str, elapsed_s: float, *, over: float) -> None:
    print(f"{len(rows)} files in {elapsed_s:.0f} s; Chromium {version}")
    for outcome, count in Counter(row.outcome for row in rows).most_common():
        print(f"  {outcome}: {count}")
    print(f"  deaths: {sum(row.outcome == _DEATH for row in rows)}")
    print(f"  refused though Chromium shows it: {sum(bool(row.shown and not row.views) for row in rows)}")
    compared = [row.distance for row in rows if row.distance is not None]
    for bound in (0.0, 2.0, 8.0):
        print(
            f"  within {bound:g} levels of Chromium: {sum(d <= bound for d in compared)} of {len(compared)}"
        )
    for title, key in (("slowest", "decode_ms"), ("largest", "pixels")):
        worst = sorted(rows, key=lambda row: getattr(row, key), reverse=True)[:3]
        print(f"  {title}: " + ", ".join(f"{row.name} {getattr(row, key):,}" for row in worst))
    for row in rows:
        if over < 0 or (row.distance or 0) > over or (row.shown and not row.views):
            print(
                f"{row.name:40} {row.outcome:18} {row.distance!s:>6} {row.views_differ or '':>6} "
                f"{','.join(row.views)[:70]} {','.join(row.marks)}"
            )


if __name__ == "__main__":
    main()
