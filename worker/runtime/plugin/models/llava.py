"""The model class that stands in for SGLang's own: the same weights and layers, prefilled without waiting.

Stock's forward reads three small tensors back from the GPU, concatenates the pixels twice and copies them from
pageable memory: each stops the scheduler's only thread until the GPU has done all that is queued. Here
nothing does, so that SGLang prepares the next batch while the GPU works on this one.
"""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from sglang.srt.models import llava as stock

from worker.runtime.plugin.encoder import Encoder
from worker.runtime.plugin.feature_cache import FeatureCache
from worker.runtime.plugin.image_rows import ImageRows, NotOurs, image_rows
from worker.runtime.plugin.layout import Merge
from worker.runtime.plugin.prefill_layers import PrefillLayers, last_tokens_only, replace
from worker.runtime.plugin.settings import PluginSettings
from worker.runtime.plugin.tower_choice import choose_encode
from worker.runtime.plugin.transport import SharedTiles

log = logging.getLogger(__name__)


class LlavaQwenForCausalLM(stock.LlavaQwenForCausalLM):  # type: ignore[misc]  # SGLang ships no types
    """Registered by its name, so that a checkpoint's `architectures` finds it in place of the stock class."""

    _encoder: Encoder | None = None
    _layers: PrefillLayers | None = None

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """SGLang's interface: at start, and again if the weights are changed under a running server."""
        super().load_weights(weights)
        settings = PluginSettings.read()
        self._encoder = self._make_encoder(settings)
        if self._layers is None:
            self._layers = replace(
                self.language_model, fused=settings.fused_layers, short=settings.short_last_layer
            )

    def _make_encoder(self, settings: PluginSettings) -> Encoder | None:
        aspect = str(getattr(self.config, "image_aspect_ratio", ""))
        if not aspect.startswith("anyres") or self.mm_patch_merge_type != "spatial_unpad":
            log.warning("Vetline's model class does not fit %s, %s: stock", aspect, self.mm_patch_merge_type)
            return None
        return Encoder(
            choose_encode(self, fused=settings.fused_tower),
            Merge.of(aspect, self.config.image_grid_pinpoints, self.image_size, self.num_patches_per_side),
            self.language_model.model.image_newline.detach(),
            FeatureCache(settings.feature_cache_mib << 20),
            most_tiles=settings.tower_tiles,
        )

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor, forward_batch: Any) -> Any:
        """SGLang's interface."""
        with torch.no_grad():
            return self._forward(input_ids, positions, forward_batch)

    def _forward(self, input_ids: torch.Tensor, positions: torch.Tensor, forward_batch: Any) -> Any:
        if self._encoder is None or not forward_batch.forward_mode.is_extend():
            return super().forward(input_ids, positions, forward_batch)
        try:
            covered = image_rows(forward_batch)
        except NotOurs:
            _give_arrays(forward_batch)
            return super().forward(input_ids, positions, forward_batch)
        input_ids.clamp_(min=0, max=self.config.vocab_size - 1)  # an image's places hold a hash
        embeds = self.language_model.model.embed_tokens(input_ids)
        self._place(embeds, covered, self._encoder)
        with last_tokens_only(self._layers, forward_batch, embeds.device):
            return self.language_model(input_ids, positions, forward_batch, input_embeds=embeds)

    def _place(self, embeds: torch.Tensor, covered: list[ImageRows], encoder: Encoder) -> None:
        features = encoder.features([(span.tiles, span.size) for span in covered])
        for span in covered:
            rows = features[span.tiles.digest]
            if len(rows) != span.tokens:
                raise RuntimeError(f"{len(rows)} features for {span.tokens} tokens of a {span.size} image")
            embeds[span.row : span.row + span.length] = rows[span.first : span.first + span.length]


def _give_arrays(batch: Any) -> None:
    """Turn our tiles into what the stock forward takes."""
    for inputs in batch.mm_inputs or []:
        for item in inputs.mm_items if inputs is not None else []:
            if isinstance(item.feature, SharedTiles):
                item.feature = item.feature.normalised()


EntryClass = LlavaQwenForCausalLM
