"""What is measured, in order: which set-up, image size, mode and number in flight."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.gpu import load
from bench.gpu.pictures import Size

SIZES: dict[str, tuple[Size, ...]] = {
    "336x336": ((336, 336),),
    "640x480": ((640, 480),),
    "1024x768": ((1024, 768),),
    "1920x1080": ((1920, 1080),),
    "mix": ((336, 336), (640, 480), (640, 480), (1024, 768), (1920, 1080)),
}
# full: a whole answer. rating: the fast mode, one token. With -ids: the prompt sent as token ids, not as text.
MODES: dict[str, dict[str, Any]] = {
    "full": load.full(100),
    "full-ids": load.full(100),
    "rating": load.rating_only(),
    "rating-ids": load.rating_only(),
}
OUTPUT_TOKENS = {"full": 100, "full-ids": 100, "rating": 1, "rating-ids": 1}


@dataclass(frozen=True, slots=True)
class Run:
    set_up: str
    size: str
    mode: str
    in_flight: int
    images: int


def parsed(text: str) -> Run:
    """Of "ours:640x480:full:256:1024". Raises ValueError."""
    set_up, size, mode, in_flight, images = text.split(":")
    if size not in SIZES or mode not in MODES:
        raise ValueError(f"unknown size or mode in {text!r}")
    return Run(set_up, size, mode, int(in_flight), int(images))


def quick(set_ups: Sequence[str]) -> Iterator[Run]:
    """About 5 minutes a set-up on an H100: the headline size at every number in flight, the other sizes once."""
    for name in set_ups:
        if name.startswith("stock"):
            yield Run(name, "640x480", "full", 1, 6)
            yield Run(name, "640x480", "full", 32, 64)
        elif name == "ours":
            for in_flight, images in ((1, 24), (8, 96), (32, 256), (128, 768), (256, 1280), (512, 1792)):
                yield Run(name, "640x480", "full-ids", in_flight, images)
            yield Run(name, "640x480", "full", 256, 1280)
            yield Run(name, "640x480", "rating-ids", 256, 1280)
            for size, images in (("336x336", 1536), ("1024x768", 640), ("1920x1080", 384), ("mix", 768)):
                yield Run(name, size, "full-ids", 256, images)
        elif name == "twice":
            yield Run(name, "640x480", "full-ids", 512, 1792)
        else:
            yield Run(name, "640x480", "full", 256, 640)


def whole(set_ups: Sequence[str]) -> Iterator[Run]:
    """Every number in flight, size and mode; stock with as many images as it can take. Some hours."""
    for name in set_ups:
        for size in SIZES:
            for mode in MODES:
                for in_flight in (1, 8, 32, 128, 256, 512):
                    yield Run(name, size, mode, in_flight, _images(name, size, in_flight))


def _images(name: str, size: str, in_flight: int) -> int:
    if name.startswith("stock"):
        return max(8, min(128, 2 * in_flight))
    return max(32, 5 * in_flight) if size != "1920x1080" else max(16, 2 * in_flight)
