"""Which frames of an animation are judged."""

from collections.abc import Sequence

_LONG = 2.0  # times the average: a frame that is shown for so much longer is what people look at


def chosen(frames: int, wanted: int, durations_ms: Sequence[float], always: Sequence[int] = ()) -> list[int]:
    """Indices: those of `always`, then evenly spaced ones with the first and the last, and those that are shown longest.

    At most `wanted` evenly spaced ones, and `wanted` more that are shown twice as long as the average.
    """
    spread = set(_evenly(frames, wanted)) | set(_longest(durations_ms, wanted))
    return [*always, *sorted(spread.difference(always))]


def _evenly(frames: int, wanted: int) -> list[int]:
    if frames <= wanted:
        return list(range(frames))
    return sorted({round(step * (frames - 1) / max(wanted - 1, 1)) for step in range(wanted)})


def _longest(durations_ms: Sequence[float], wanted: int) -> list[int]:
    if not durations_ms:
        return []
    bound = _LONG * sum(durations_ms) / len(durations_ms)
    long = [index for index, duration in enumerate(durations_ms) if duration >= bound]
    return sorted(long, key=lambda index: -durations_ms[index])[:wanted]
