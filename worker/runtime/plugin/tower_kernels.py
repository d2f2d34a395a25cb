"""The two GPU kernels of the fused tower that PyTorch has no single call for. Written in Triton."""

import torch
import triton
import triton.language as tl

# 3 * 14 * 14 = 588 numbers of a patch, padded so that the matrix product's rows are aligned.
PATCH_COLUMNS = 640


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton's decorator has no types
def _patches(tiles, table, out, side, grid, patch: tl.constexpr, columns: tl.constexpr):  # type: ignore[no-untyped-def]
    """One program for each patch: look its bytes up in the table, channel by channel, and pad with zeros."""
    row = tl.program_id(0)
    tile = row // (grid * grid)
    cell = row % (grid * grid)
    k = tl.arange(0, 1024)
    channel = k // (patch * patch)
    within = k % (patch * patch)
    y = (cell // grid) * patch + within // patch
    x = (cell % grid) * patch + within % patch
    inside = channel < 3
    at = tile.to(tl.int64) * side * side * 3 + (y * side + x) * 3 + channel
    value = tl.load(tiles + at, mask=inside, other=0).to(tl.int32)
    number = tl.load(table + channel * 256 + value, mask=inside, other=0.0)
    tl.store(out + row.to(tl.int64) * columns + k, number, mask=k < columns)


def patches(tiles: torch.Tensor, table: torch.Tensor, patch: int) -> torch.Tensor:
    """(tiles * patches, 640) float16 from (tiles, side, side, 3) uint8: each row one patch as a convolution reads it.

    table: (3, 256) float16. Pixels beyond the last whole patch are left out, as a convolution leaves them out.
    """
    side = tiles.shape[1]
    grid = side // patch
    rows = len(tiles) * grid * grid
    out = torch.empty(rows, PATCH_COLUMNS, dtype=torch.float16, device=tiles.device)
    _patches[(rows,)](tiles, table, out, side, grid, patch=patch, columns=PATCH_COLUMNS)
    return out


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton's decorator has no types
def _add_norm(x, delta, weight, bias, out, width, eps, block: tl.constexpr, add: tl.constexpr):  # type: ignore[no-untyped-def]
    """One program for each row. The sum is rounded to float16 before it is normalised, as two modules would."""
    start = tl.program_id(0).to(tl.int64) * width
    k = tl.arange(0, block)
    inside = k < width
    row = tl.load(x + start + k, mask=inside, other=0.0)
    if add:
        row = row + tl.load(delta + start + k, mask=inside, other=0.0)
        tl.store(x + start + k, row, mask=inside)
    values = row.to(tl.float32)
    mean = tl.sum(values, axis=0) / width
    centred = tl.where(inside, values - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=0) / width + eps)
    w = tl.load(weight + k, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + k, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + start + k, (centred * scale * w + b).to(tl.float16), mask=inside)


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """Add delta to x in place, where there is one, and return the layer norm of the sum. All float16, (rows, width)."""
    rows, width = x.shape
    out = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    other = x if delta is None else delta
    _add_norm[(rows,)](
        x, other, weight, bias, out, width, eps, block=block, add=delta is not None, num_warps=4
    )
    return out
