"""What a user would try first: Transformers' own LLaVA-OneVision, the same architecture with random weights.

Everything that `generate` needs is in the time: JPEG decoding, its image processor, 100 tokens for each image.

usage: python -m bench.gpu.transformers_baseline --tokenizer DIR [--batches 1,8,32] [--out FILE.json]
"""

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

from bench.gpu import load
from bench.gpu.ceiling import H100_DENSE_TFLOPS, cost
from bench.gpu.checkpoint import FULL, IMAGE_TOKEN, TINY, VOCABULARY, Size
from bench.gpu.pictures import jpegs
from bench.machine import describe_machine

PINPOINTS = [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument(
        "--batches", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32]
    )
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model, processor = loaded(args.tokenizer, TINY if args.tiny else FULL)
    found = []
    for batch in args.batches:
        found.append(measured(model, processor, batch, args.tokens))
        print(found[-1], flush=True)
        if args.out:
            machine = describe_machine(("torch", "transformers", "pillow"))
            args.out.write_text(json.dumps({"machine": machine, "runs": found}, indent=1) + "\n")


def loaded(tokenizer: Path, size: Size) -> tuple[Any, Any]:
    import torch
    from transformers import (
        AutoTokenizer,
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )

    vision = SiglipVisionConfig(
        hidden_size=size.tower_hidden, num_hidden_layers=size.tower_layers - 1, intermediate_size=size.tower_mlp,
        num_attention_heads=size.tower_heads, image_size=384, patch_size=14, vision_use_head=False,
    )  # fmt: skip
    text = Qwen2Config(
        hidden_size=size.hidden, num_hidden_layers=size.layers, intermediate_size=size.mlp, vocab_size=VOCABULARY,
        num_attention_heads=size.heads, num_key_value_heads=size.kv_heads, max_position_embeddings=32768,
        tie_word_embeddings=True,
    )  # fmt: skip
    config = LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, vision_feature_layer=-1,
        vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_9", image_grid_pinpoints=PINPOINTS,
        tie_word_embeddings=True,
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(torch.float16)
    with torch.device(device):
        model = LlavaOnevisionForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    tokens = AutoTokenizer.from_pretrained(tokenizer, padding_side="left")
    side = {"height": 384, "width": 384}
    half = [0.5] * 3
    pictures = LlavaOnevisionImageProcessor(
        size=side, image_grid_pinpoints=PINPOINTS, image_mean=half, image_std=half
    )
    processor = LlavaOnevisionProcessor(
        image_processor=pictures, tokenizer=tokens, video_processor=LlavaOnevisionVideoProcessor(), num_image_tokens=729,
        vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_9",
    )  # fmt: skip
    return model, processor


def measured(model: Any, processor: Any, batch: int, tokens: int) -> dict[str, Any]:
    """The better of two batches after one to warm up, each of images not seen before."""
    times = [
        _timed(model, processor, jpegs(batch, [(640, 480)], first_seed=100 * batch + 7 * i), tokens)
        for i in range(3)
    ]
    rate = batch / min(times[1:])
    tera = cost(640, 480, output_tokens=tokens).tera
    return {
        "set_up": f"Transformers generate, batch {batch}", "size": "640x480", "batch": batch, "images_per_s": rate,
        "batch_s": min(times[1:]), "tflops": rate * tera, "share_of_ceiling": rate * tera / H100_DENSE_TFLOPS,
    }  # fmt: skip


def _timed(model: Any, processor: Any, images: list[bytes], tokens: int) -> float:
    import torch
    from PIL import Image

    start = time.perf_counter()
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in images]
    inputs = processor(images=pictures, text=[load.prompt()] * len(images), return_tensors="pt", padding=True)
    inputs = inputs.to(model.device, torch.float16)
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    assert out.shape[1] >= tokens, out.shape
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
