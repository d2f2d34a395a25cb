"""Colour spaces that a file names by numbers: code points (H.273), primaries and a gamma. Made into profiles."""

from collections.abc import Callable
from itertools import pairwise
from math import exp

from intake.icc import IccProfile, Matrix, ProfileError, write

Point = tuple[float, float]  # x and y of CIE 1931
Curve = Callable[[float], float]  # a sample, 0 to 1, to linear light

_D65: Point = (0.3127, 0.3290)
_C: Point = (0.310, 0.316)
_DCI: Point = (0.314, 0.351)

# H.273, table 2: red, green, blue and white of each number.
_PRIMARIES: dict[int, tuple[Point, Point, Point, Point]] = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
SRGB_PRIMARIES = _PRIMARIES[1]

_STEPS = 4 * 255 + 1  # of a curve, so that each of 256 levels has a step of its own

# Bradford's cone responses, by which white points are adapted.
_BRADFORD: Matrix = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_D50_XYZ = (0.96422, 1.0, 0.82521)

_WHITE_NITS, _SCREEN_NITS, _PQ_PEAK_NITS = 203.0, 1000.0, 10_000.0  # ITU-R BT.2408: the white of a page
# Light, and the logarithm to base 2 of what it is multiplied by: to the white at half, and to 1,000 nits at the whole.
_TONES = ((1.0, -1.0), (2.232, -1.527), (3.337, -1.9), (_SCREEN_NITS / _WHITE_NITS, -2.3005))


def srgb_to_linear(level: float) -> float:
    return level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4


def linear_to_srgb(level: float) -> float:
    return 12.92 * level if level <= 0.0031308 else 1.055 * level ** (1 / 2.4) - 0.055


def of_code_points(primaries: int, transfer: int) -> IccProfile:
    """The space of two numbers of H.273. Raises ProfileError for numbers that browsers do not know."""
    curve = _CURVES.get(transfer)
    if curve is None or primaries not in _PRIMARIES:
        raise ProfileError(f"unknown code points {primaries}, {transfer}")
    return of_curve(_PRIMARIES[primaries], curve)


def of_curve(primaries: tuple[Point, Point, Point, Point], curve: Curve) -> IccProfile:
    """The space of primaries and one curve. Raises ProfileError where the primaries span no colours."""
    steps = [curve(step / (_STEPS - 1)) for step in range(_STEPS)]
    return write(_to_xyz(primaries), steps)


def power(exponent: float) -> Curve:
    """The curve of a gamma; of any, however far from a screen's."""
    return lambda level: 0.0 if level == 0 else float(level**exponent)


def _smpte240(level: float) -> float:
    return level / 4 if level < 0.0912 else float(((level + 0.1115) / 1.1115) ** (1 / 0.45))


def _cinema(level: float) -> float:
    """SMPTE ST 428-1: 48 of 52.37 candelas are the white of a page."""
    return float(52.37 / 48 * level**2.6)


def _pq(level: float) -> float:
    """SMPTE ST 2084, where 1 is the white of a page."""
    powered = level ** (32 / 2523)
    nits = (max(powered - 3424 / 4096, 0.0) / (2413 / 128 - 2392 / 128 * powered)) ** (8192 / 1305)
    return _tone_mapped(nits * _PQ_PEAK_NITS / _WHITE_NITS)


def _hlg(level: float) -> float:
    """ARIB STD-B67, on a screen of 1,000 nits, where 1 is the white of a page."""
    scene = level**2 / 3 if level <= 0.5 else (exp((level - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return _tone_mapped(scene**1.2 * _SCREEN_NITS / _WHITE_NITS)


def _tone_mapped(light: float) -> float:
    """What an ordinary screen shows of light beyond its white: as Chromium 156 maps greys, between measured points."""
    for (below, gain_below), (above, gain_above) in pairwise(_TONES):
        if light <= above:
            part = max(light - below, 0.0) / (above - below)
            return float(light * 2 ** (gain_below + part * (gain_above - gain_below)))
    return 1.0


_VIDEO = power(2.4)  # what screens make of video, as ITU-R BT.1886 has it

_CURVES: dict[int, Curve] = {
    1: _VIDEO,
    4: power(2.2),
    5: power(2.8),
    6: _VIDEO,
    7: _smpte240,
    8: power(1.0),
    13: srgb_to_linear,
    11: _VIDEO,
    14: _VIDEO,
    15: _VIDEO,
    16: _pq,
    17: _cinema,
    18: _hlg,
}


def _to_xyz(primaries: tuple[Point, Point, Point, Point]) -> Matrix:
    """Linear RGB to XYZ, adapted from its own white to D50."""
    red, green, blue, white = (_xyz(point) for point in primaries)
    columns = _transposed((red, green, blue))
    scales = _times(_inverse(columns), white)
    return _product(
        _adaptation(white), tuple(tuple(v * s for v, s in zip(row, scales, strict=True)) for row in columns)
    )


def _adaptation(white: tuple[float, ...]) -> Matrix:
    """Bradford's, from a white to D50."""
    cones, wanted = _times(_BRADFORD, white), _times(_BRADFORD, _D50_XYZ)
    if 0.0 in cones:
        raise ProfileError("a white that is none")
    scaled = tuple(tuple(v * w / c for v in row) for row, w, c in zip(_BRADFORD, wanted, cones, strict=True))
    return _product(_inverse(_BRADFORD), scaled)


def _xyz(point: Point) -> tuple[float, ...]:
    x, y = point
    if y <= 0:
        raise ProfileError("primaries that span no colours")
    return (x / y, 1.0, (1 - x - y) / y)


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _times(matrix: Matrix, vector: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _product(one: Matrix, other: Matrix) -> Matrix:
    columns = _transposed(other)
    return tuple(
        tuple(sum(a * b for a, b in zip(row, column, strict=True)) for column in columns) for row in one
    )


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < 1e-9:
        raise ProfileError("primaries that span no colours")
    adjugate = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    return tuple(tuple(value / determinant for value in row) for row in adjugate)
