"""silu(x @ gate) * (x @ up) in one GPU kernel. Written in Triton.

As two steps the 9,728 columns of both products are written and read again: at 32,000 tokens 1.9 GB a layer,
more than a quarter of the time of this part of the language model.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@dataclass(frozen=True, slots=True)
class KernelTiling:
    """What one program computes: `rows` by `columns` of the output, in steps of `inner`."""

    rows: int = 128
    columns: int = 128
    inner: int = 64
    group: int = 16  # programs that run next to each other share this many rows of tiles, and so the cache
    warps: int = 8
    stages: int = 3


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton's decorator has no types
def _gated(  # type: ignore[no-untyped-def]
    x, weight, out, rows, width: tl.constexpr, depth: tl.constexpr,
    bm: tl.constexpr, bn: tl.constexpr, bk: tl.constexpr, group: tl.constexpr,
):  # fmt: skip
    across: tl.constexpr = width // bn
    down = tl.cdiv(rows, bm)
    at = tl.program_id(0)
    first = at // (group * across) * group
    size = min(down - first, group)
    m = (first + at % (group * across) % size) * bm
    n = at % (group * across) // size * bn
    gate = tl.zeros((bm, bn), dtype=tl.float32)
    up = tl.zeros((bm, bn), dtype=tl.float32)
    for k in range(0, depth, bk):
        tile = x.load([m, k])
        gate = tl.dot(tile, weight.load([n, k]).T, gate)
        up = tl.dot(tile, weight.load([width + n, k]).T, up)
    g = gate.to(tl.float16).to(tl.float32)  # rounded where the two-step way rounds
    u = up.to(tl.float16).to(tl.float32)
    out.store([m, n], (g / (1.0 + tl.exp(-g)) * u).to(tl.float16))


def gated_product(
    x: torch.Tensor, weight: torch.Tensor, tiling: KernelTiling = KernelTiling()
) -> torch.Tensor:  # frozen
    """(rows, width) float16 from x (rows, depth) and weight (2 * width, depth), the gate's rows first."""
    rows, depth = x.shape
    width = len(weight) // 2
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    described = [
        TensorDescriptor.from_tensor(x, [tiling.rows, tiling.inner]),
        TensorDescriptor.from_tensor(weight, [tiling.columns, tiling.inner]),
        TensorDescriptor.from_tensor(out, [tiling.rows, tiling.columns]),
    ]
    programs = triton.cdiv(rows, tiling.rows) * (width // tiling.columns)
    _gated[(programs,)](
        *described, rows, width=width, depth=depth, bm=tiling.rows, bn=tiling.columns, bk=tiling.inner,
        group=tiling.group, num_warps=tiling.warps, num_stages=tiling.stages,
    )  # fmt: skip
    return out


def fits(width: int, depth: int, tiling: KernelTiling = KernelTiling()) -> bool:  # frozen
    return width % tiling.columns == 0 and depth % tiling.inner == 0
