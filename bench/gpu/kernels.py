"""Times each stage of one prefill alone, on the GPU, against the arithmetic it does.

Without a server: the vision tower in several forms, and the matrix products, attention and element-wise kernels of
the language model at the sizes of a 32,768-token batch. It says where a server's time must go, and what is left.

usage: python -m bench.gpu.kernels [--tiles 40] [--out FILE.json]
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import gelu, linear, scaled_dot_product_attention, silu

from bench.machine import RUNTIME_PACKAGES, describe_machine

HIDDEN, MLP, HEADS, KV_HEADS, WIDTH, LAYERS = 896, 4864, 14, 2, 64, 24
V_HIDDEN, V_MLP, V_HEADS, V_LAYERS, PATCHES = 1152, 4304, 16, 26, 729
PROMPT = 4047  # tokens of a 640x480 image with the default policy
IMAGES = 8  # to a batch of 32,768 tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=40)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    results: dict[str, Any] = {}
    for group in (ceilings, vision_parts, vision_whole, language_parts):
        for name, run, tera in group(args.tiles):
            results[name] = measured(name, run, tera)
    if args.out:
        args.out.write_text(
            json.dumps({"machine": describe_machine(RUNTIME_PACKAGES), "kernels": results}, indent=1)
        )


Case = tuple[str, Callable[[], Any], float]  # name, what to run, 10^12 operations (0: count bytes by hand)


def measured(name: str, run: Callable[[], Any], tera: float) -> dict[str, float | str]:
    try:
        ms = median_ms(run)
    except Exception as error:  # noqa: BLE001  # a kernel that this build lacks is a result
        print(f"{name:46} failed: {type(error).__name__}: {str(error)[:120]}", flush=True)
        return {"error": str(error)[:300]}
    rate = tera / ms * 1e3
    print(f"{name:46} {ms:8.3f} ms  {rate:7.0f} T/s  per image {ms / IMAGES:6.3f} ms", flush=True)
    return {"ms": ms, "rate": rate}


def median_ms(run: Callable[[], Any], repeats: int = 15) -> float:
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    marks = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)
    ]
    for start, end in marks:
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    times: list[float] = sorted(start.elapsed_time(end) for start, end in marks)
    return times[repeats // 2]


def half(*shape: int) -> torch.Tensor:
    return (torch.randn(*shape, device="cuda") * 0.05).half()


def product(rows: int, inner: int, columns: int) -> tuple[Callable[[], Any], float]:
    x, weight, bias = half(rows, inner), half(columns, inner), half(columns)
    return (lambda: linear(x, weight, bias)), 2e-12 * rows * inner * columns


def ceilings(_: int) -> list[Case]:
    big = product(8192, 8192, 8192)
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return [
        ("matrix product 8192^3", *big),
        ("copy 1 GiB, bytes", lambda: target.copy_(source), 2 * (1 << 30) / 1e12),
    ]


def vision_parts(tiles: int) -> list[Case]:
    from worker.runtime.plugin import tower
    from worker.runtime.plugin.tower_kernels import add_norm, patches

    rows = tiles * PATCHES
    x, up, bias = half(rows, V_HIDDEN), half(V_MLP, V_HIDDEN), half(V_MLP)
    wide = half(rows, V_MLP)
    weight, shift = half(V_HIDDEN), half(V_HIDDEN)
    qkv = half(rows, 3 * V_HIDDEN).view(tiles, PATCHES, 3, V_HEADS, V_HIDDEN // V_HEADS)
    q, k, v = qkv.unbind(2)
    attention = 4e-12 * tiles * PATCHES**2 * V_HIDDEN
    pixels = torch.randint(0, 256, (tiles, 384, 384, 3), dtype=torch.uint8, device="cuda")
    table = half(3, 256)
    up_ops = 2e-12 * rows * V_HIDDEN * V_MLP
    scale = (V_HIDDEN // V_HEADS) ** -0.5
    cases: list[Case] = [
        ("tower qkv", *product(rows, V_HIDDEN, 3 * V_HIDDEN)),
        ("tower out", *product(rows, V_HIDDEN, V_HIDDEN)),
        (
            "tower up, GELU in the product",
            lambda: torch._addmm_activation(bias, x, up.t(), use_gelu=True),
            up_ops,
        ),
        ("tower up, GELU apart", lambda: gelu(linear(x, up, bias), approximate="tanh"), up_ops),
        ("tower up, no GELU", lambda: linear(x, up, bias), up_ops),
        ("tower down", *product(rows, V_MLP, V_HIDDEN)),
        ("tower add and norm, bytes", lambda: add_norm(x, x, weight, shift, 1e-6), 4 * x.nbytes / 1e12),
        ("tower patches from bytes", lambda: patches(pixels, table, 14), 0),
        ("tower GELU alone, bytes", lambda: gelu(wide, approximate="tanh"), 2 * wide.nbytes / 1e12),
    ]
    best = tower.best_attention()
    backends = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")
    cases += [(f"tower attention, {name}", sdpa(q, k, v, name, causal=False), attention) for name in backends]
    return [*cases, ("tower attention, best", lambda: best(q, k, v, scale), attention)]


def sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backend: str, *, causal: bool
) -> Callable[[], Any]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q, k, v = (part.transpose(1, 2) for part in (q, k, v))

    def run() -> Any:
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return scaled_dot_product_attention(
                q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
            )

    return run


def vision_whole(tiles: int) -> list[Case]:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from worker.runtime.plugin import tower

    config = SiglipVisionConfig(
        hidden_size=V_HIDDEN, num_hidden_layers=27, intermediate_size=V_MLP, num_attention_heads=V_HEADS,
        image_size=384, patch_size=14,
    )  # fmt: skip
    model = SiglipVisionModel(config).half().cuda().eval().requires_grad_(False)
    pixels = torch.randint(0, 256, (tiles, 384, 384, 3), dtype=torch.uint8, device="cuda")
    table = (torch.arange(256, device="cuda") / 127.5 - 1).half().expand(3, 256).contiguous()
    from worker.runtime.plugin.tower_choice import normalised

    images = normalised(pixels, table)
    tera = 0.642 * tiles
    cases: list[Case] = [
        ("tower whole, stock module", lambda: model(images, output_hidden_states=True), tera)
    ]
    expected = model(images, output_hidden_states=True).hidden_states[-2].float()
    ways = {"best": tower.best_attention(), "PyTorch attention": tower.pytorch_attention}
    for name, attention in ways.items():
        fused = tower.FusedTower(model, 26, attention)
        got = fused(pixels, table).float()
        error = float((got - expected).norm() / expected.norm())
        print(
            f"tower fused, {name}: relative difference {error:.2e}, most {float((got - expected).abs().max()):.2e}"
        )
        cases.append((f"tower whole, fused, {name}", partial(fused, pixels, table), tera))
    return cases


def language_parts(_: int) -> list[Case]:
    rows = IMAGES * PROMPT
    q, k, v = (
        half(IMAGES, PROMPT, HEADS, WIDTH),
        half(IMAGES, PROMPT, KV_HEADS, WIDTH),
        half(IMAGES, PROMPT, KV_HEADS, WIDTH),
    )
    attention = 2e-12 * IMAGES * PROMPT**2 * HIDDEN
    gate_up = half(rows, 2 * MLP)
    out = torch.empty(rows, MLP, dtype=torch.float16, device="cuda")
    x, residual, weight = half(rows, HIDDEN), half(rows, HIDDEN), half(HIDDEN)
    cases: list[Case] = [
        ("language qkv", *product(rows, HIDDEN, HIDDEN + 2 * KV_HEADS * WIDTH)),
        ("language out", *product(rows, HIDDEN, HIDDEN)),
        ("language gate and up", *product(rows, HIDDEN, 2 * MLP)),
        ("language down", *product(rows, MLP, HIDDEN)),
    ]
    try:
        from sgl_kernel import fused_add_rmsnorm
        from sglang.jit_kernel.activation import silu_and_mul

        cases += [
            ("language SiLU and multiply, bytes", lambda: silu_and_mul(gate_up, out), 3 * out.nbytes / 1e12),
            (
                "language add and norm, bytes",
                lambda: fused_add_rmsnorm(x, residual, weight),
                4 * x.nbytes / 1e12,
            ),
        ]
    except ImportError as error:
        print(f"no SGLang kernels here: {error}")
    for backend in ("FLASH_ATTENTION", "CUDNN_ATTENTION"):
        cases.append((f"language attention, {backend}", sdpa(q, k, v, backend, causal=True), attention))
    return [*cases, *gated_cases(x), *paged_cases(q, k, v, attention)]


def gated_cases(x: torch.Tensor) -> list[Case]:
    """The gated product in one kernel, in several tilings, against two steps."""
    from worker.runtime.plugin.gated_product import KernelTiling, gated_product

    weight = half(2 * MLP, HIDDEN)
    expected = two_steps(x[:4096], weight).float()
    tera = 4e-12 * len(x) * HIDDEN * MLP
    cases: list[Case] = [("language gated product, two steps", lambda: two_steps(x, weight), tera)]
    for tiling in (
        KernelTiling(), KernelTiling(stages=4), KernelTiling(group=16), KernelTiling(columns=64, warps=4, stages=3),
        KernelTiling(columns=64, warps=4, stages=4), KernelTiling(rows=256, columns=64), KernelTiling(rows=64, warps=4),
        KernelTiling(inner=128, stages=2),
    ):  # fmt: skip
        try:
            got = gated_product(x[:4096], weight, tiling).float()
        except Exception as error:  # noqa: BLE001  # a tiling that does not fit the chip is a result
            print(f"{tiling}: {type(error).__name__} {str(error)[:100]}")
            continue
        print(f"{tiling}: relative difference {float((got - expected).norm() / expected.norm()):.1e}")
        name = f"gated {tiling.rows}x{tiling.columns}x{tiling.inner} g{tiling.group} w{tiling.warps} s{tiling.stages}"
        cases.append((name, partial(gated_product, x, weight, tiling), tera))
    return cases


def two_steps(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    gate_up = linear(x, weight)
    try:
        from sglang.jit_kernel.activation import silu_and_mul
    except ImportError:
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate.float()).mul(up.float()).half()
    return silu_and_mul(gate_up, torch.empty(len(x), MLP, dtype=x.dtype, device=x.device))


def paged_cases(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tera: float) -> list[Case]:
    """FlashAttention-3 over a paged cache as SGLang calls it, with pages of 1 and of 128 tokens; and one decode step."""
    try:
        from sgl_kernel.flash_attn import flash_attn_varlen_func
    except ImportError as error:
        print(f"no FlashAttention-3 here: {error}")
        return []
    lengths = torch.full((IMAGES,), PROMPT, dtype=torch.int32, device="cuda")
    starts = torch.arange(IMAGES + 1, dtype=torch.int32, device="cuda") * PROMPT
    flat = [part.flatten(0, 1) for part in (q, k, v)]
    cases: list[Case] = [
        (
            "language attention, FA3 contiguous",
            lambda: flash_attn_varlen_func(*flat, starts, starts, PROMPT, PROMPT, causal=True),
            tera,
        )
    ]
    for page in (1, 128):
        per_image = -(-PROMPT // page)
        caches = [half(128 * per_image, page, KV_HEADS, WIDTH) for _ in range(2)]
        tables = torch.arange(128 * per_image, dtype=torch.int32, device="cuda").view(128, per_image)
        cases.append(
            (f"language attention, FA3 pages of {page}", _prefill(q, caches, tables, lengths, starts), tera)
        )
        many = torch.full((128,), PROMPT, dtype=torch.int32, device="cuda")
        one = half(128, HEADS, WIDTH)
        step = torch.arange(129, dtype=torch.int32, device="cuda")
        moved = 128 * PROMPT * 2 * KV_HEADS * WIDTH * 2 / 1e12
        cases.append(
            (
                f"decode attention, 128 requests, pages of {page}, bytes",
                _decode(one, caches, tables, many, step),
                moved,
            )
        )
    return cases


def _prefill(
    q: torch.Tensor,
    caches: list[torch.Tensor],
    tables: torch.Tensor,
    lengths: torch.Tensor,
    starts: torch.Tensor,
) -> Callable[[], Any]:
    from sgl_kernel.flash_attn import flash_attn_with_kvcache

    return lambda: flash_attn_with_kvcache(
        q.flatten(0, 1), *caches, page_table=tables[:IMAGES], cache_seqlens=lengths, cu_seqlens_q=starts,
        cu_seqlens_k_new=starts, max_seqlen_q=PROMPT, causal=True,
    )  # fmt: skip


def _decode(
    q: torch.Tensor,
    caches: list[torch.Tensor],
    tables: torch.Tensor,
    lengths: torch.Tensor,
    starts: torch.Tensor,
) -> Callable[[], Any]:
    from sgl_kernel.flash_attn import flash_attn_with_kvcache

    return lambda: flash_attn_with_kvcache(
        q, *caches, page_table=tables, cache_seqlens=lengths, cu_seqlens_q=starts, max_seqlen_q=1, causal=True
    )


if __name__ == "__main__":
    main()
