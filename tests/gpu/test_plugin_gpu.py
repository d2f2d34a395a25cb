"""The plugin's kernels and tower against SGLang's and Transformers' own, on a GPU.

    PYTHONPATH=. python -m pytest --noconftest -m gpu tests/gpu

Tolerances: the fused tower's features differ from the stock module's by a relative 1.3e-3 (measured on an H100), as
two float16 evaluations of 26 layers do; the gated product is equal to the last bit. Whole servers are compared by
`python -m bench.gpu.compare --exact processor,exact,ours`.
"""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # of torch and what it loads
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
HIDDEN, MLP = 896, 4864


@pytest.fixture(scope="module")
def siglip() -> Any:
    """so400m-384 with random weights, as SGLang holds it."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=1152, num_hidden_layers=27, intermediate_size=4304, num_attention_heads=16, image_size=384, patch_size=14
    )  # fmt: skip
    torch.manual_seed(0)
    return SiglipVisionModel(config).half().cuda().eval().requires_grad_(False)


def pixels(tiles: int) -> tuple[Any, Any]:
    table = (torch.arange(256, device="cuda") / 127.5 - 1).half().expand(3, 256).contiguous()
    return torch.randint(0, 256, (tiles, 384, 384, 3), dtype=torch.uint8, device="cuda"), table


@pytest.mark.parametrize("tiles", [1, 2, 5, 37])
def test_the_fused_towers_features_are_stocks_within_3e_3(siglip: Any, tiles: int) -> None:
    from worker.runtime.plugin.tower import FusedTower
    from worker.runtime.plugin.tower_choice import normalised

    given, table = pixels(tiles)
    expected = siglip(normalised(given, table), output_hidden_states=True).hidden_states[-2].float()
    got = FusedTower(siglip, 26)(given, table).float()
    assert float((got - expected).norm() / expected.norm()) < 3e-3


def test_the_fused_tower_gives_a_tile_the_same_features_in_any_company(siglip: Any) -> None:
    from worker.runtime.plugin.tower import FusedTower

    given, table = pixels(37)
    tower = FusedTower(siglip, 26)
    together, alone = tower(given, table)[:5].float(), tower(given[:5].contiguous(), table).float()
    assert float((together - alone).norm() / alone.norm()) < 3e-3


@pytest.mark.parametrize("rows", [2048, 4057, 32376])
def test_the_gated_product_is_that_of_two_steps(rows: int) -> None:
    from worker.runtime.plugin.gated_product import gated_product

    x = torch.randn(rows, HIDDEN, device="cuda").half()
    weight = (torch.randn(2 * MLP, HIDDEN, device="cuda") * 0.02).half()
    gate, up = torch.nn.functional.linear(x, weight).float().chunk(2, dim=-1)
    expected = torch.nn.functional.silu(gate) * up
    got = gated_product(x, weight).float()
    assert float((got - expected).norm() / expected.norm()) < 1e-3


def test_every_tile_is_normalised_to_the_last_bit(siglip: Any) -> None:
    from worker.runtime.plugin.tower_choice import normalised
    from worker.runtime.plugin.transport import SharedTiles

    given, table = pixels(3)
    on_host = SharedTiles(given.cpu().numpy(), b"", table.cpu().numpy()).normalised()
    assert torch.equal(normalised(given, table).cpu(), torch.from_numpy(on_host))


def test_a_module_of_another_activation_is_refused(siglip: Any) -> None:
    from worker.runtime.plugin.tower import FusedTower, Misfit

    siglip.config.hidden_act = "gelu"
    try:
        with pytest.raises(Misfit):
            FusedTower(siglip, 26)
    finally:
        siglip.config.hidden_act = "gelu_pytorch_tanh"
