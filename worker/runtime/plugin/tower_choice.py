"""Which way the tiles are encoded: our fused tower where it is known to agree with the stock one, else the stock one."""

import logging
from typing import Any

import torch

from worker.runtime.plugin.encoder import Encode

log = logging.getLogger(__name__)

# Relative difference of features, fused against stock, on noise. Two float16 evaluations of 26 layers in
# different orders differ by 2e-3; a wrong layer, norm or activation by more than 1e-1.
TOLERANCE = 2e-2


def choose_encode(model: Any, *, fused: bool) -> Encode:
    """For a loaded SGLang LlavaQwenForCausalLM. Compares both ways once, on noise."""
    stock = _stock(model)
    if not fused or not next(model.vision_tower.parameters()).is_cuda:
        return stock
    try:
        ours = _fused(model)
        difference = _difference(ours, stock, model)
    except Exception as error:  # noqa: BLE001  # whatever a version changed: the stock way is right, only slower
        log.warning("Vetline's fused tower does not fit here, the stock one is used: %r", error)
        return stock
    if not difference <= TOLERANCE:
        log.warning("Vetline's fused tower differs by %.1e, the stock one is used", difference)
        return stock
    log.info("Vetline's fused tower: relative difference from stock %.1e", difference)
    return ours


def _stock(model: Any) -> Encode:
    def encode(tiles: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model.encode_images(normalised(tiles, table))
        return features

    return encode


def _fused(model: Any) -> Encode:
    from worker.runtime.plugin.tower import FusedTower, Misfit  # needs Triton

    last = range(model.vision_tower.config.num_hidden_layers + 1)[model.vision_feature_layer]
    if model.vision_feature_select_strategy != "full":
        raise Misfit(f"select strategy {model.vision_feature_select_strategy}")
    tower = FusedTower(model.vision_tower, last)

    def encode(tiles: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model.multi_modal_projector(tower(tiles, table))
        return features

    return encode


def _difference(ours: Encode, stock: Encode, model: Any) -> float:
    side = model.image_size
    device = next(model.vision_tower.parameters()).device
    noise = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8, generator=noise).to(device)
    table = ((torch.arange(256) / 127.5 - 1).half()).expand(3, 256).contiguous().to(device)
    with torch.no_grad():
        expected = stock(tiles, table).float()
        return float((ours(tiles, table).float() - expected).norm() / expected.norm())


def normalised(tiles: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """(tiles, 3, side, side) float16 on the device: the stock processor's numbers, bit for bit."""
    planes = tiles.permute(3, 0, 1, 2)
    numbers = [table[channel][planes[channel].to(torch.int32)] for channel in range(3)]
    return torch.stack(numbers, dim=1)
