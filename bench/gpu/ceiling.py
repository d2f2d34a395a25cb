"""How much arithmetic an image costs, from its size alone, and how that compares with what the chip can do."""

from dataclasses import dataclass

H100_DENSE_TFLOPS = 989.0  # fp16 and bf16, the vendor's datasheet
TILE, PATCHES, MAX_TILES = 384, 27, 9
RESOLUTIONS = [(TILE * i, TILE * j) for i in range(1, 7) for j in range(1, 7)]
POLICY_TOKENS = 1128  # the training template with the default policy, without the image
TOWER_TERA = 0.642  # a tile through the 26 layers that are read
HIDDEN, LAYERS = 896, 24
LAYER_WEIGHTS = HIDDEN * (HIDDEN + 2 * 128) + HIDDEN * HIDDEN + 3 * HIDDEN * 4864
VOCABULARY = 151_936


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one image of one size. tera: 10^12 floating-point operations."""

    tiles: int
    prompt_tokens: int
    vision_tera: float
    prefill_tera: float
    decode_tera: float

    @property
    def tera(self) -> float:
        return self.vision_tera + self.prefill_tera + self.decode_tera


def cost(width: int, height: int, *, output_tokens: int) -> Cost:
    columns, rows = _grid(width, height)
    tiles = 1 + columns * rows
    tokens = POLICY_TOKENS + PATCHES**2 + _grid_tokens(width, height, columns, rows)
    prefill = LAYERS * (
        2 * LAYER_WEIGHTS * tokens + 2 * tokens**2 * HIDDEN
    )  # half of the attention is masked
    per_token = LAYERS * (2 * LAYER_WEIGHTS + 4 * tokens * HIDDEN) + 2 * HIDDEN * VOCABULARY
    return Cost(tiles, tokens, tiles * TOWER_TERA, prefill / 1e12, output_tokens * per_token / 1e12)


def _grid(width: int, height: int) -> tuple[int, int]:
    """The tiling that keeps most pixels and, of those, wastes least: LLaVA's select_best_resolution."""

    def score(resolution: tuple[int, int]) -> tuple[int, int]:
        w, h = resolution
        scale = min(w / width, h / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, -(w * h - kept)

    best = max(RESOLUTIONS, key=score)
    return best[0] // TILE, best[1] // TILE


def _grid_tokens(width: int, height: int, columns: int, rows: int) -> int:
    across, down = columns * PATCHES, rows * PATCHES
    if width / height > across / down:
        down -= 2 * ((down - int(height * across / width)) // 2)
    else:
        across -= 2 * ((across - int(width * down / height)) // 2)
    times = (across * down / (MAX_TILES * PATCHES**2)) ** 0.5
    if times > 1.1:
        across, down = int(across // times), int(down // times)
    return down * (across + 1)
