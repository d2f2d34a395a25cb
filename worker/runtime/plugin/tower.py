"""SigLIP's vision tower up to the layer that LLaVA reads, as few and large GPU operations.

Against the stock module: the last layer and pooling head, whose output nobody reads, are left out; no hidden
states are kept; query, key and value are one matrix product; bias and GELU are done by the matrix product
itself; residual and norm are one kernel; attention is FlashAttention-3 where SGLang has it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from worker.runtime.plugin.tower_kernels import PATCH_COLUMNS, add_norm, patches

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Layer:
    norm1: tuple[torch.Tensor, torch.Tensor, float]
    qkv: tuple[torch.Tensor, torch.Tensor]
    out: tuple[torch.Tensor, torch.Tensor]
    norm2: tuple[torch.Tensor, torch.Tensor, float]
    up: tuple[torch.Tensor, torch.Tensor]
    down: tuple[torch.Tensor, torch.Tensor]


class FusedTower:
    """The layers 0 to `layers` - 1 of a transformers SiglipVisionModel. Raises Misfit for any other module.

    The weights are float16, on the GPU, and shared with the module: query, key and value become views of one
    matrix, so that nothing is held twice.
    """

    def __init__(self, module: Any, layers: int, attention: Attention | None = None) -> None:
        model = getattr(module, "vision_model", module)  # transformers before 5.6 wrapped it once more
        self.config = module.config
        self._check(model)
        embedding = model.embeddings.patch_embedding
        flat = embedding.weight.detach().flatten(1)
        self._patch_weight = flat.new_zeros(len(flat), PATCH_COLUMNS)
        self._patch_weight[:, : flat.shape[1]] = flat
        self._patch_bias = embedding.bias.detach()
        self._positions = model.embeddings.position_embedding.weight.detach()
        self._layers = [_fuse(layer) for layer in model.encoder.layers[:layers]]
        self._attention = attention or best_attention()

    def _check(self, model: Any) -> None:
        config = self.config
        weight = model.embeddings.patch_embedding.weight
        if config.hidden_act != "gelu_pytorch_tanh":
            raise Misfit(f"activation {config.hidden_act}")
        if weight.dtype != torch.float16 or not weight.is_cuda:
            raise Misfit(f"weights are {weight.dtype} on {weight.device}")
        if 3 * config.patch_size**2 > PATCH_COLUMNS:
            raise Misfit(f"patches of {config.patch_size} pixels")

    def __call__(self, tiles: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """(tiles, patches, hidden) float16 from (tiles, side, side, 3) uint8. table: (3, 256) float16."""
        count, heads = len(tiles), self.config.num_attention_heads
        scale = (self.config.hidden_size // heads) ** -0.5
        x = linear(patches(tiles, table, self.config.patch_size), self._patch_weight, self._patch_bias)
        x = (x.view(count, *self._positions.shape) + self._positions).view(-1, x.shape[-1])
        delta: torch.Tensor | None = None
        for layer in self._layers:
            normed = add_norm(x, delta, *layer.norm1)
            q, k, v = linear(normed, *layer.qkv).view(count, -1, 3, heads, x.shape[-1] // heads).unbind(2)
            mixed = self._attention(q, k, v, scale).reshape(x.shape)
            normed = add_norm(x, linear(mixed, *layer.out), *layer.norm2)
            weight, bias = layer.up
            raised = torch._addmm_activation(
                bias, normed, weight.t(), use_gelu=True
            )  # GELU by tanh, as SigLIP's
            delta = linear(raised, *layer.down)
        if delta is not None:
            x += delta
        return x.view(count, -1, x.shape[-1])


class Misfit(Exception):
    """This module or version is not one that the plugin knows; the stock path is right."""


def _fuse(layer: Any) -> _Layer:
    attention = layer.self_attn
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([part.weight.detach() for part in parts])
    bias = torch.cat([part.bias.detach() for part in parts])
    for part, view in zip(parts, weight.chunk(3), strict=True):
        part.weight.data = view
    return _Layer(
        norm1=_norm(layer.layer_norm1),
        qkv=(weight, bias),
        out=_matrix(attention.out_proj),
        norm2=_norm(layer.layer_norm2),
        up=_matrix(layer.mlp.fc1),
        down=_matrix(layer.mlp.fc2),
    )


def _matrix(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return module.weight.detach(), module.bias.detach()


def _norm(module: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    return module.weight.detach(), module.bias.detach(), module.eps


def best_attention() -> Attention:
    """FlashAttention-3 from SGLang's own kernels on a Hopper GPU, else PyTorch's."""
    try:
        from sgl_kernel.flash_attn import flash_attn_with_kvcache, is_fa3_supported

        if torch.cuda.get_device_capability()[0] == 9 and is_fa3_supported():
            # One split: the work is even, and the result then does not depend on how many tiles there are.
            return lambda q, k, v, scale: flash_attn_with_kvcache(q, k, v, softmax_scale=scale, num_splits=1)
    except (ImportError, RuntimeError):  # the kernels are left out of some builds
        pass
    return pytorch_attention


def pytorch_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """(tiles, patches, heads, width) each, and returned."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
