"""Unique JPEG images, as many as a run needs: the prefix cache would flatter any server that saw one twice."""

import io
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

Size = tuple[int, int]  # (width, height) in pixels


def jpegs(count: int, sizes: Sequence[Size], *, first_seed: int = 0) -> list[bytes]:
    """`count` images, the sizes in turn, each drawn from its own seed. About 60 kB at 640x480, as a photo is."""
    jobs = [(sizes[i % len(sizes)], first_seed + i) for i in range(count)]
    if count < 64:
        return [_draw(job) for job in jobs]
    half = max(2, (os.cpu_count() or 2) // 2)  # the servers that start meanwhile need the rest
    with ProcessPoolExecutor(
        half, mp_context=multiprocessing.get_context("spawn")
    ) as pool:  # fork hangs beside threads
        return list(pool.map(_draw, jobs, chunksize=16))


def _draw(job: tuple[Size, int]) -> bytes:
    return jpeg(*job)


def jpeg(size: Size, seed: int) -> bytes:
    """Smooth colour under fine grain: it compresses about as a photo does."""
    import numpy as np
    from PIL import Image

    width, height = size
    noise = np.random.default_rng(seed)
    coarse = noise.integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    grain = noise.integers(-12, 13, (height, width, 1), dtype=np.int16)
    image = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
