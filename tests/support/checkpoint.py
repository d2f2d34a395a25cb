"""A folder that looks like LlavaGuard's weights to whoever looks it over, and holds none."""

import json
from pathlib import Path
from typing import Any


def write_checkpoint(folder: Path, **config: Any) -> Path:
    """config: entries in place of the usual ones in config.json."""
    tower = folder / "siglip"
    tower.mkdir(parents=True)
    usual = {
        "architectures": ["LlavaQwenForCausalLM"],
        "image_grid_pinpoints": [[384, 384], [384, 768]],
        "mm_vision_tower": str(tower),
    }
    (folder / "config.json").write_text(json.dumps(usual | config))
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"no weights")
    return folder
