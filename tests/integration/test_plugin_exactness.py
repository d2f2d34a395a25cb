"""Our image processor and model class against SGLang's own, on a CPU: the same tiles, the same embeddings, bit for bit.

Both sides run here as SGLang runs them; only the vision tower and the language model are small stand-ins, the same
for both. Needs SGLang's own environment, which has nothing of the project's, so no conftest:

    PYTHONPATH=SHIM:. SGLANG_USE_CPU_ENGINE=1 python -m pytest --noconftest tests/integration/test_plugin_exactness.py
"""

import asyncio
import base64
import io
import json
import random
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="SGLang's environment is needed: torch is not installed")
pytest.importorskip("sglang", reason="SGLang's environment is needed: sglang is not installed")
pytestmark = [
    pytest.mark.filterwarnings("default"),  # SGLang and what it loads warn of much that is not ours
    pytest.mark.timeout(300),  # importing SGLang takes a minute on a busy machine
]

PINPOINTS = [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)]
ASPECT = "anyres_max_9"
SIZES = [
    (1, 1),
    (3, 900),
    (336, 336),
    (384, 384),
    (385, 384),
    (640, 480),
    (480, 640),
    (999, 301),
    (1024, 768),
]
SIZES += [(1920, 1080), (2304, 2304), (2500, 400)]
FORMATS = [
    ("RGB", "JPEG"),
    ("RGB", "PNG"),
    ("L", "JPEG"),
    ("L", "PNG"),
    ("LA", "PNG"),
    ("RGBA", "PNG"),
    ("P", "PNG"),
]
FORMATS += [("CMYK", "JPEG"), ("1", "PNG"), ("I;16", "PNG"), ("RGB", "WEBP"), ("P", "GIF")]
CHANNELS = 8


def encoded(size: tuple[int, int], mode: str = "RGB", format_: str = "PNG", *, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed)
    small = noise.integers(0, 256, (size[1] // 9 + 1, size[0] // 9 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(size)
    if mode == "I;16":
        image = Image.fromarray(noise.integers(0, 65536, size[::-1], dtype=np.uint16))
    elif mode == "P":
        image = image.quantize(32)
    else:
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, format_)
    return out.getvalue()


@pytest.fixture(scope="module")
def image_processor() -> Any:
    from transformers import SiglipImageProcessor

    return SiglipImageProcessor(
        size={"height": 384, "width": 384}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=None
    )


def stock_tiles(data: bytes, image_processor: Any) -> Any:
    """What SGLang's own processor makes of an image, by its own function: renamed between the versions."""
    from sglang.srt.multimodal.processors.llava import LlavaImageProcessor

    processor = SimpleNamespace(image_processor=image_processor)
    if hasattr(LlavaImageProcessor, "_preprocess_image_task"):
        return LlavaImageProcessor._preprocess_image_task(data, 0, ASPECT, PINPOINTS, processor)
    return LlavaImageProcessor._process_single_image_task(data, ASPECT, PINPOINTS, processor)


@pytest.fixture(scope="module")
def tiler(image_processor: Any) -> Any:
    from worker.runtime.plugin.pixel_table import pixel_table
    from worker.runtime.plugin.processors.llava import Tiler
    from worker.runtime.plugin.tiles import Grid
    from worker.runtime.plugin.transport import TileOutbox

    grid = Grid(tuple((w, h) for w, h in PINPOINTS), 384)
    return Tiler(grid, pixel_table(image_processor, 384), TileOutbox(), max_side_px=0)


def assert_same_tiles(data: bytes, tiler: Any, image_processor: Any) -> None:
    expected, _, size = stock_tiles(data, image_processor)
    tiles, our_size = tiler.tile("data:image/any;base64," + base64.b64encode(data).decode())
    ours = tiles.normalised()
    assert our_size == size
    assert ours.dtype == expected.dtype == np.float16
    assert ours.shape == expected.shape
    assert np.array_equal(ours.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_stocks_bit_for_bit_at_every_size(
    size: tuple[int, int], tiler: Any, image_processor: Any
) -> None:
    assert_same_tiles(encoded(size), tiler, image_processor)


@pytest.mark.parametrize(("mode", "format_"), FORMATS)
def test_tiles_are_stocks_bit_for_bit_in_every_mode(
    mode: str, format_: str, tiler: Any, image_processor: Any
) -> None:
    assert_same_tiles(encoded((500, 333), mode, format_), tiler, image_processor)


def test_tiles_are_stocks_bit_for_bit_for_200_random_images(tiler: Any, image_processor: Any) -> None:
    dice = random.Random(7)
    for seed in range(200):
        size = (dice.randint(20, 700), dice.randint(20, 700))
        assert_same_tiles(
            encoded(size, "RGB", dice.choice(["JPEG", "PNG"]), seed=seed), tiler, image_processor
        )


@pytest.mark.parametrize(
    "data", [b"", b"not an image", encoded((64, 64))[:200], encoded((64, 64), "RGB", "JPEG")[:300]]
)
def test_what_is_no_whole_image_is_a_value_error(data: bytes, tiler: Any) -> None:
    with pytest.raises(ValueError, match="Error while processing image"):
        tiler.tile(data)


def test_an_image_processor_that_looks_at_neighbours_is_refused(image_processor: Any) -> None:
    from worker.runtime.plugin.pixel_table import NotPointwise, pixel_table

    class Blurring:
        def preprocess(self, image: Image.Image) -> dict[str, Any]:
            smaller = image.resize((192, 192)).resize((384, 384))
            return dict(image_processor.preprocess(smaller))

    with pytest.raises(NotPointwise):
        pixel_table(Blurring(), 384)


def test_a_smaller_longest_side_shrinks_only_what_is_larger(image_processor: Any, tiler: Any) -> None:
    from worker.runtime.plugin.processors.llava import Tiler
    from worker.runtime.plugin.transport import TileOutbox

    small = Tiler(tiler._grid, tiler._table, TileOutbox(), max_side_px=384)
    tiles, size = small.tile(encoded((1920, 1080)))
    assert (len(tiles), size) == (2, (384, 216))
    same, size = small.tile(encoded((300, 200)))
    plain, _ = tiler.tile(encoded((300, 200)))
    assert size == (300, 200)
    assert np.array_equal(same.pixels, plain.pixels)
    assert same.digest != plain.digest  # features made under another setting are never found


# The model class: SGLang's own forward and ours, over the same prefill batches.


class RecordingLanguageModel(torch.nn.Module):  # type: ignore[misc, unused-ignore]  # torch is not in the project's environment
    """Keeps the embeddings that it is given; that is all that both forwards do before it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Module()
        table = torch.nn.Embedding(2000, CHANNELS)
        table.weight.data = torch.randn(2000, CHANNELS, generator=torch.Generator().manual_seed(1)).half()
        self.model.embed_tokens = table
        self.model.image_newline = torch.nn.Parameter(torch.linspace(-1, 1, CHANNELS).half())
        self.model.layers = []
        self.seen: list[Any] = []

    def forward(self, input_ids: Any, positions: Any, batch: Any, input_embeds: Any = None) -> Any:
        self.seen.append(input_embeds.detach().clone())
        return input_embeds


def encode_images(pixels: Any) -> Any:
    """(tiles, 3, 384, 384) to (tiles, 729, CHANNELS): a tower in small, the same for both classes."""
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(pixels)
    means = torch.nn.functional.avg_pool2d(pixels.float(), 14).flatten(2).transpose(1, 2)
    mixed = means @ torch.randn(3, CHANNELS, generator=torch.Generator().manual_seed(2))
    return torch.tanh(mixed).half()


def built(class_: Any) -> Any:
    """The class without its checkpoint: everything that its forward reads, as load_weights leaves it."""
    model = class_.__new__(class_)
    torch.nn.Module.__init__(model)
    model.config = SimpleNamespace(
        image_aspect_ratio=ASPECT, image_grid_pinpoints=PINPOINTS, image_token_index=7, vocab_size=2000
    )
    model.vision_tower = torch.nn.Linear(1, 1)
    model.vision_tower.config = SimpleNamespace(image_size=384, patch_size=14)
    type(model.vision_tower).device = property(lambda self: torch.device("cpu"))
    model.language_model = RecordingLanguageModel()
    model.image_size, model.patch_size, model.image_feature_len = 384, 14, 729
    model.mm_patch_merge_type, model.image_aspect_ratio = "spatial_unpad", ASPECT
    model.image_grid_pinpoints = PINPOINTS
    model.encode_images = encode_images
    return model


@pytest.fixture(scope="module")
def stock_model() -> Any:
    from sglang.srt.models.llava import LlavaQwenForCausalLM

    return built(LlavaQwenForCausalLM)


@pytest.fixture
def our_model() -> Any:
    from worker.runtime.plugin.models.llava import LlavaQwenForCausalLM
    from worker.runtime.plugin.settings import PluginSettings

    model = built(LlavaQwenForCausalLM)
    model._encoder = model._make_encoder(PluginSettings.read({}))
    return model


class Prompt:
    """One request: three tokens, an image, five tokens; its inputs as SGLang's scheduler would hold them."""

    def __init__(self, data: bytes | None, tiler: Any, model: Any, *, arrays: bool) -> None:
        from sglang.srt.managers.schedule_batch import Modality, MultimodalDataItem, MultimodalInputs

        self.ids = array("q", [11, 12, 13, 7, 14, 15, 16, 17, 18] if data else [21, 22, 23, 24])
        self.inputs = None
        if data is not None:
            tiles, size = tiler.tile(data)
            described = {"image_sizes": [size], "image_aspect_ratio": ASPECT}
            feature = tiles.normalised() if arrays else tiles
            item = MultimodalDataItem(modality=Modality.IMAGE, feature=feature, model_specific_data=described)
            item.hash, item.pad_value = 1, 1_000_001
            self.inputs = MultimodalInputs(mm_items=[item])
            self.ids = array("q", model.pad_input_ids(self.ids, self.inputs))


def batch(parts: list[tuple[Prompt, int, int]]) -> Any:
    """A prefill of tokens [prefix, prefix + length) of each prompt."""
    lengths = [length for _, _, length in parts]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    ids = [token for prompt, prefix, length in parts for token in prompt.ids[prefix : prefix + length]]
    positions = [prefix + i for _, prefix, length in parts for i in range(length)]
    made = SimpleNamespace(
        forward_mode=SimpleNamespace(is_extend=lambda: True, is_decode=lambda: False),
        mm_inputs=[prompt.inputs for prompt, _, _ in parts],
        batch_size=len(parts),
        extend_start_loc=torch.tensor(starts),
        extend_seq_lens=torch.tensor(lengths),
        extend_seq_lens_cpu=lengths,
        extend_prefix_lens_cpu=[prefix for _, prefix, _ in parts],
        return_logprob=False,
    )
    return torch.tensor(ids), torch.tensor(positions), made


def embeddings(
    model: Any, images: list[bytes | None], tiler: Any, cuts: list[list[int]], *, arrays: bool
) -> list[Any]:
    """What the language model is given over several chunks. cuts[i]: where the i-th chunk ends in each prompt."""
    prompts = [Prompt(data, tiler, model, arrays=arrays) for data in images]
    model.language_model.seen.clear()
    done = [0] * len(prompts)
    for ends in [*cuts, [len(prompt.ids) for prompt in prompts]]:
        parts = [(p, at, end - at) for p, at, end in zip(prompts, done, ends, strict=True) if end > at]
        with torch.no_grad():
            model.forward(*batch(parts))
        done = ends
    return list(model.language_model.seen)


CASES: list[tuple[list[tuple[int, int] | None], list[list[int]]]] = [
    ([(640, 480)], []),
    ([(336, 336), (640, 480), None, (999, 301)], []),
    ([(1920, 1080)], []),  # more tokens than anyres_max_9 allows: interpolated
    ([(1920, 1080), (2304, 2304), (640, 480)], []),
    ([(640, 480)], [[500], [2000]]),  # an image over three chunks
    ([(640, 480), (1024, 768)], [[2, 4000], [2, 5000]]),
    ([(640, 480), None], [[3, 2], [2936, 4]]),  # chunks that end where the image begins and ends
]


@pytest.mark.parametrize(("sizes", "cuts"), CASES)
def test_embeddings_are_stocks_bit_for_bit(
    sizes: list[tuple[int, int] | None], cuts: list[list[int]], stock_model: Any, our_model: Any, tiler: Any
) -> None:
    images = [encoded(size, seed=i) if size else None for i, size in enumerate(sizes)]
    expected = embeddings(stock_model, images, tiler, cuts, arrays=True)
    ours = embeddings(our_model, images, tiler, cuts, arrays=False)
    assert len(ours) == len(expected) == len(cuts) + 1
    for ours_given, stocks_given in zip(ours, expected, strict=True):
        assert torch.equal(ours_given.view(torch.int16), stocks_given.view(torch.int16))


def test_what_another_processor_sent_goes_to_the_stock_forward(
    stock_model: Any, our_model: Any, tiler: Any
) -> None:
    images: list[bytes | None] = [encoded((640, 480))]
    expected = embeddings(stock_model, images, tiler, [], arrays=True)
    assert torch.equal(embeddings(our_model, images, tiler, [], arrays=True)[0], expected[0])


def test_an_image_is_encoded_once_over_chunks_and_policies(our_model: Any, tiler: Any) -> None:
    calls: list[int] = []

    def counting(pixels: Any) -> Any:
        calls.append(len(pixels))
        return encode_images(pixels)

    our_model.encode_images = counting
    same = encoded((640, 480))
    embeddings(our_model, [same, same, same], tiler, [[700, 700, 10], [2000, 1500, 20]], arrays=False)
    assert calls == [5]


def test_a_layer_shortened_to_the_rows_that_are_read_gives_them_the_same_numbers() -> None:
    from worker.runtime.plugin.prefill_layers import PrefillLayers, last_tokens_only

    mlp = torch.nn.Linear(16, 16)
    x = torch.randn(12, 16)
    whole = mlp(x)
    layers = PrefillLayers()
    layers.shorten(mlp)
    asked = SimpleNamespace(extend_seq_lens_cpu=[4, 8], return_logprob=False)
    with last_tokens_only(layers, asked, torch.device("cpu")):
        short = mlp(x)
    assert torch.allclose(short[[3, 11]], whole[[3, 11]])
    assert torch.equal(mlp(x), whole)
    with_prompt_logprobs = SimpleNamespace(
        extend_seq_lens_cpu=[4, 8], return_logprob=True, extend_logprob_start_lens_cpu=[0, 8]
    )
    with last_tokens_only(layers, with_prompt_logprobs, torch.device("cpu")):
        assert torch.equal(mlp(x), whole)


def test_the_processor_hands_sglang_what_the_model_that_is_served_can_take(
    image_processor: Any, monkeypatch: pytest.MonkeyPatch, tiler: Any
) -> None:
    """Stock's class gets stock's arrays; only ours gets tiles. No server: only what the two sides exchange."""
    from sglang.srt.models.registry import ModelRegistry

    from worker.runtime.plugin.models.llava import LlavaQwenForCausalLM
    from worker.runtime.plugin.processors.llava import LlavaTileProcessor
    from worker.runtime.plugin.settings import PluginSettings
    from worker.runtime.plugin.transport import SharedTiles

    processor = LlavaTileProcessor.__new__(LlavaTileProcessor)
    processor._tiler, processor._aspect, processor._settings = tiler, ASPECT, PluginSettings.read({})
    processor._threads = None
    request = SimpleNamespace(modalities=None)

    def feature() -> Any:
        job = processor.process_mm_data_async([encoded((640, 480))], "", request)
        item = asyncio.run(job).mm_items[0]
        assert item.model_specific_data == {"image_sizes": [(640, 480)], "image_aspect_ratio": ASPECT}
        assert isinstance(item.hash, int)
        return item.feature

    stocks = feature()
    assert isinstance(stocks, np.ndarray)
    assert (stocks.shape, stocks.dtype) == ((5, 3, 384, 384), np.float16)
    monkeypatch.setitem(ModelRegistry.models, "LlavaQwenForCausalLM", LlavaQwenForCausalLM)
    assert isinstance(feature(), SharedTiles)


def test_the_configuration_of_the_checkpoint_is_the_one_the_fast_path_is_for(tmp_path: Path) -> None:
    from bench.gpu.checkpoint import PREPROCESSOR, TINY, config
    from worker.runtime.plugin.processors.llava import _resolutions

    made = config(TINY, tmp_path)
    assert json.loads(json.dumps(PREPROCESSOR))["size"]["height"] == 384
    assert len(_resolutions(SimpleNamespace(**made))) == 36
    with pytest.raises(TypeError, match="not a list"):
        _resolutions(SimpleNamespace(image_grid_pinpoints="(1x1),...,(6x6)"))
