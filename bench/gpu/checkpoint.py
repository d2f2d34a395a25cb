"""Writes a checkpoint of the LlavaGuard-v1.2-0.5B-OV architecture with random weights, in LLaVA-NeXT's format.

Everything but the values is as SGLang loads it: LlavaQwenForCausalLM, a Qwen2 text model, a SigLIP so400m-384
tower, anyres_max_9 with 36 grid pinpoints, spatial_unpad. Answers are noise; speed, memory and protocol are real.
The tower lies in OUT/siglip and config.json names it by absolute path, so build it where it is served.

usage: python -m bench.gpu.checkpoint OUT TOKENIZER_DIR [--tiny] [--speaks]
    --tiny: 10 M parameters, for a CPU. Needs torch and safetensors.
    --speaks: it answers every image with the same valid verdict of 100 tokens; see spoken.py. Needs tokenizers.
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu import spoken

VOCABULARY = 151_936
IMAGE_TOKEN = 151_646


@dataclass(frozen=True, slots=True)
class Size:
    hidden: int
    layers: int
    mlp: int
    heads: int
    kv_heads: int
    tower_hidden: int
    tower_layers: int
    tower_mlp: int
    tower_heads: int


FULL = Size(896, 24, 4864, 14, 2, 1152, 27, 4304, 16)
TINY = Size(64, 2, 128, 4, 2, 72, 3, 144, 4)
PREPROCESSOR = {
    "image_processor_type": "SiglipImageProcessor",
    "processor_class": "LlavaProcessor",
    "do_resize": True,
    "size": {"height": 384, "width": 384},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--speaks", action="store_true")
    args = parser.parse_args()
    write(args.out, args.tokenizer, TINY if args.tiny else FULL, speaks=args.speaks)


def write(out: Path, tokenizer: Path, size: Size = FULL, *, speaks: bool = False) -> None:
    import torch
    from safetensors.torch import save_file  # type: ignore[import-not-found, unused-ignore]  # SGLang brings it

    torch.manual_seed(0)
    shutil.copytree(tokenizer, out, dirs_exist_ok=True)
    tower = out.resolve() / "siglip"
    tower.mkdir(exist_ok=True)
    (tower / "config.json").write_text(json.dumps(tower_config(size), indent=1))
    for folder in (out, tower):
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=1))
    (out / "config.json").write_text(
        json.dumps({**config(size, tower), "tie_word_embeddings": not speaks}, indent=1)
    )
    generation = {"bos_token_id": 151643, "eos_token_id": [151645, 151643], "pad_token_id": 151643}
    (out / "generation_config.json").write_text(json.dumps(generation))
    save_file(tower_weights(size), tower / "model.safetensors", metadata={"format": "pt"})
    made = weights(size)
    if speaks:
        made |= _speaking(made, spoken.chain(tokenizer))
    save_file(made, out / "model.safetensors", metadata={"format": "pt"})


def config(size: Size, tower: Path) -> dict[str, Any]:
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": 32768,
        "max_window_layers": size.layers,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": None,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY,
        "image_aspect_ratio": "anyres_max_9",
        "image_crop_resolution": None,
        "image_split_resolution": None,
        "image_grid_pinpoints": [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)],
        "image_token_index": IMAGE_TOKEN,
        "mm_hidden_size": size.tower_hidden,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "projector_hidden_act": "gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": str(tower),
        "use_mm_proj": True,
    }


def _speaking(made: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """Embeddings and output matrix of a checkpoint that says these tokens one after the other."""
    embeddings = noise(*made["model.embed_tokens.weight"].shape, scale=spoken.EMBEDDING)
    matrix = spoken.output_matrix(embeddings, ids, noise(*embeddings.shape))
    return {"model.embed_tokens.weight": embeddings, "lm_head.weight": matrix}


def noise(*shape: int, scale: float = 0.02) -> Any:
    """Normally distributed bfloat16, drawn on the GPU where there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (torch.randn(*shape, device=device) * scale).to(torch.bfloat16).cpu()


def tower_config(size: Size) -> dict[str, Any]:
    return {
        "architectures": ["SiglipVisionModel"],
        "model_type": "siglip_vision_model",
        "hidden_size": size.tower_hidden,
        "intermediate_size": size.tower_mlp,
        "num_hidden_layers": size.tower_layers,
        "num_attention_heads": size.tower_heads,
        "num_channels": 3,
        "image_size": 384,
        "patch_size": 14,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "attention_dropout": 0.0,
    }


def tower_weights(size: Size) -> dict[str, Any]:
    """With the spread that SigLIP starts from: each matrix keeps the scale of what it is given."""
    import torch

    width, inner = size.tower_hidden, size.tower_mlp

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return noise(rows, columns, scale=(2 / (rows + columns)) ** 0.5)

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=torch.bfloat16)

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.ones(width, dtype=torch.bfloat16), f"{name}.bias": zeros(width)}

    def linear(name: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": matrix(rows, columns), f"{name}.bias": noise(rows, scale=1e-3)}

    made = {
        "embeddings.patch_embedding.weight": noise(width, 3, 14, 14, scale=(1 / 588) ** 0.5),
        "embeddings.patch_embedding.bias": zeros(width),
        "embeddings.position_embedding.weight": noise((384 // 14) ** 2, width, scale=width**-0.5),
        "head.probe": noise(1, 1, width),
        "head.attention.in_proj_weight": matrix(3 * width, width),
        "head.attention.in_proj_bias": zeros(3 * width),
        **norm("post_layernorm"),
        **norm("head.layernorm"),
        **linear("head.attention.out_proj", width, width),
        **linear("head.mlp.fc1", inner, width),
        **linear("head.mlp.fc2", width, inner),
    }
    for i in range(size.tower_layers):
        block = f"encoder.layers.{i}."
        made |= norm(f"{block}layer_norm1") | norm(f"{block}layer_norm2")
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made |= linear(f"{block}self_attn.{name}", width, width)
        made |= linear(f"{block}mlp.fc1", inner, width) | linear(f"{block}mlp.fc2", width, inner)
    return {f"vision_model.{name}": tensor for name, tensor in made.items()}


def weights(size: Size) -> dict[str, Any]:
    import torch

    hidden, kv = size.hidden, size.kv_heads * size.hidden // size.heads
    made = {
        "model.embed_tokens.weight": noise(VOCABULARY, hidden),
        "model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16),
        "model.image_newline": noise(hidden),
        "model.mm_projector.0.weight": noise(hidden, size.tower_hidden),
        "model.mm_projector.0.bias": noise(hidden),
        "model.mm_projector.2.weight": noise(hidden, hidden),
        "model.mm_projector.2.bias": noise(hidden),
    }
    for i in range(size.layers):
        block = f"model.layers.{i}."
        for name, width in (("q", hidden), ("k", kv), ("v", kv)):
            made[f"{block}self_attn.{name}_proj.weight"] = noise(width, hidden)
            made[f"{block}self_attn.{name}_proj.bias"] = noise(width)
        made[f"{block}self_attn.o_proj.weight"] = noise(hidden, hidden)
        made[f"{block}mlp.gate_proj.weight"] = noise(size.mlp, hidden)
        made[f"{block}mlp.up_proj.weight"] = noise(size.mlp, hidden)
        made[f"{block}mlp.down_proj.weight"] = noise(hidden, size.mlp)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            made[f"{block}{norm}.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    return made


if __name__ == "__main__":
    main()
