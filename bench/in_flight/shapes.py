"""The shapes of runtimes against which the limiter is measured."""

from tests.support.sglang_curve import Curve

MOST = 256
# One H100 (bench/gpu/NOTES.md).
H100 = ((1, 3.54), (8, 21.4), (32, 43.3), (128, 53.9), (256, 56.5))

SHAPES = {
    "plateau": Curve(points=H100),
    "early plateau": Curve(points=((60, 54.0), (256, 54.0))),  # a small card: 60 is all that it can use
    "cliff": Curve(
        points=(*H100[:4], (150, 54.6), (190, 33.0), (256, 30.0))
    ),  # the cache is full, requests are retracted
    "noisy batches": Curve(points=H100, noise=0.15, batch_s=1.0),
}
