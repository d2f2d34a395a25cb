"""The plugin's settings, read from SGLang's own environment.

A plain dataclass, not pydantic-settings as elsewhere: this runs inside SGLang's processes, whose environment
has only what SGLang needs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

PREFIX = "VETLINE_PLUGIN_"


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """Each field is read from VETLINE_PLUGIN_<FIELD>. The defaults judge exactly the tiles that stock SGLang does."""

    image_threads: int = 0  # threads that decode and tile; 0: one for every two CPU cores, at least 2
    image_timeout_s: float = 60.0  # from a request's arrival to its tiles, the wait for a thread included
    # Shrink larger images first; 0: never. It changes what the model sees (README.md).
    max_image_side_px: int = 0
    fused_tower: bool = True  # our own SigLIP forward instead of the stock module's, where there is a GPU
    tower_tiles: int = 160  # most tiles in one forward of the tower: 160 need about 2.5 GB of activations
    fused_layers: bool = True  # our own kernels in the language model's prefill, on a Hopper GPU
    short_last_layer: bool = True  # the language model's last MLP only for the tokens whose logits are used
    # Notes the rating's logits at no cost, and draws from few tokens without sorting all.
    own_sampler: bool = True
    feature_cache_mib: int = 256  # GPU memory for encoded images; 3 to 13 MiB each

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Raises ValueError, naming the variable, for a value that cannot be used."""
        values: dict[str, int | float | bool] = {}
        for field in fields(cls):
            name = PREFIX + field.name.upper()
            if name in environment:
                values[field.name] = _parsed(name, environment[name], type(field.default))
        return cls(**values)  # type: ignore[arg-type]  # _parsed returns each field's own type


def _parsed(name: str, text: str, kind: type) -> int | float | bool:
    try:
        if kind is bool:
            return {"1": True, "true": True, "0": False, "false": False}[text.strip().lower()]
        value: int | float = kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"{name}={text!r} is not a {kind.__name__}") from None
    if value < 0:
        raise ValueError(f"{name}={text!r} is negative")
    return value
