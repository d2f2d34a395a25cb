"""The language model's layers during a prefill, with less written to GPU memory. Decoding is left as it is.

Three changes, each to the forward of one instance and each with the same numbers as SGLang's own:
- query apart from key and value, so that the query need not be copied to be contiguous;
- the gated product in one kernel;
- the last layer's MLP only for the tokens whose result is read: after its attention, the last of each prompt.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import linear

from worker.runtime.plugin.encoder import upload

log = logging.getLogger(__name__)

KNOWN_VERSIONS = ("0.5.16", "0.5.23")  # whose Qwen2 layers were read and compared
TOLERANCE = 1e-2  # relative, on noise; 0 was measured, a wrong kernel is off by more than 1
LEAST_ROWS = 2048  # below, SGLang's own kernels are as fast, and decoding is captured in CUDA graphs


class PrefillLayers:
    """Holds what the replaced forwards share. `rows` is set for one forward at a time; None leaves all rows."""

    def __init__(self) -> None:
        self.rows: torch.Tensor | None = None

    def split_query(self, attention: Any) -> None:
        whole = attention.forward
        sizes = [attention.q_size, 2 * attention.kv_size]
        query, cached = attention.qkv_proj.weight.detach().split(sizes)
        query_bias, cached_bias = attention.qkv_proj.bias.detach().split(sizes)

        def forward(positions: torch.Tensor, hidden_states: torch.Tensor, forward_batch: Any) -> torch.Tensor:
            if len(hidden_states) < LEAST_ROWS:
                result: torch.Tensor = whole(
                    positions=positions, hidden_states=hidden_states, forward_batch=forward_batch
                )
                return result
            q = linear(hidden_states, query, query_bias)
            k, v = linear(hidden_states, cached, cached_bias).chunk(2, dim=-1)
            q, k = attention.rotary_emb(positions, q, k)
            result, _ = attention.o_proj(attention.attn(q, k, v, forward_batch))
            return result

        attention.forward = forward

    def fuse_gate(self, mlp: Any) -> None:
        from worker.runtime.plugin.gated_product import gated_product  # needs Triton

        whole, weight = mlp.forward, mlp.gate_up_proj.weight.detach()

        def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if len(x) < LEAST_ROWS:
                result: torch.Tensor = whole(x, *args, **kwargs)
                return result
            result, _ = mlp.down_proj(gated_product(x, weight))
            return result

        mlp.forward = forward

    def shorten(self, mlp: Any) -> None:
        whole = mlp.forward

        def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if self.rows is None:
                result: torch.Tensor = whole(x, *args, **kwargs)
                return result
            used = whole(x.index_select(0, self.rows), *args, **kwargs)
            return x.index_copy(0, self.rows, used)  # the other rows are read by nobody, and x's are finite

        mlp.forward = forward


def replace(model: Any, *, fused: bool, short: bool) -> PrefillLayers | None:
    """For a loaded SGLang Qwen2ForCausalLM; None, with a word in the log, where it is not one we know."""
    import sglang

    if sglang.__version__ not in KNOWN_VERSIONS:
        log.warning(
            "Vetline does not know SGLang %s: its language model's layers are left", sglang.__version__
        )
        return None
    layers = model.model.layers
    replaced = PrefillLayers()
    if fused and _on_hopper(model) and all(_is_plain(layer) for layer in layers) and _agrees(layers[0].mlp):
        for layer in layers:
            replaced.split_query(layer.self_attn)
            replaced.fuse_gate(layer.mlp)
    if short:
        replaced.shorten(layers[-1].mlp)
    return replaced


def _on_hopper(model: Any) -> bool:
    on_gpu: bool = next(model.parameters()).is_cuda
    return on_gpu and torch.cuda.get_device_capability()[0] == 9


def _agrees(mlp: Any) -> bool:
    """Whether the fused kernel runs here and gives what SGLang's two steps give, on noise."""
    try:
        from worker.runtime.plugin.gated_product import fits, gated_product

        weight = mlp.gate_up_proj.weight.detach()
        if not fits(len(weight) // 2, weight.shape[1]):
            raise ValueError(f"no tiling for {tuple(weight.shape)}")
        with torch.no_grad():
            x = torch.randn(LEAST_ROWS, weight.shape[1], device=weight.device, dtype=weight.dtype)
            expected = mlp.act_fn(mlp.gate_up_proj(x)[0]).float()
            difference = float((gated_product(x, weight).float() - expected).norm() / expected.norm())
    except Exception as error:  # noqa: BLE001  # whatever a version changed: SGLang's own layers are right, only slower
        log.warning("Vetline's fused layers do not fit here, SGLang's own are used: %r", error)
        return False
    if not difference <= TOLERANCE:
        log.warning("Vetline's fused layers differ by %.1e, SGLang's own are used", difference)
        return False
    log.info("Vetline's fused layers: relative difference from stock %.1e", difference)
    return True


def _is_plain(layer: Any) -> bool:
    """float16 on one GPU, not quantized: the only form that was compared."""
    projections = (layer.self_attn.qkv_proj, layer.mlp.gate_up_proj)
    unquantized = all(type(p.quant_method).__name__ == "UnquantizedLinearMethod" for p in projections)
    named = type(layer.self_attn).__name__, type(layer.mlp).__name__
    return (
        unquantized
        and named == ("Qwen2Attention", "Qwen2MLP")
        and layer.mlp.gate_up_proj.weight.dtype == torch.float16
        and layer.self_attn.qkv_proj.bias is not None
        and getattr(layer.mlp.gate_up_proj, "tp_size", 1) == 1
    )


@contextmanager
def last_tokens_only(layers: PrefillLayers | None, batch: Any, device: torch.device) -> Iterator[None]:
    """While the language model runs: its last layer works on the last tokens only, where that is enough."""
    if layers is None or not _only_last_tokens_are_read(batch):
        yield
        return
    lengths = torch.tensor(batch.extend_seq_lens_cpu, dtype=torch.int64)
    layers.rows = upload([lengths.cumsum(0) - 1], device)
    try:
        yield
    finally:
        layers.rows = None


def _only_last_tokens_are_read(batch: Any) -> bool:
    """Whether this prefill asks for no logprobs of its prompt and for no hidden states."""
    if getattr(batch, "return_hidden_states_before_norm", False):
        return False
    mode = getattr(batch, "capture_hidden_mode", None)
    if mode is not None and mode.need_capture():
        return False
    if not batch.return_logprob:
        return True
    starts = batch.extend_logprob_start_lens_cpu
    return starts is not None and all(
        start >= length for start, length in zip(starts, batch.extend_seq_lens_cpu, strict=True)
    )
