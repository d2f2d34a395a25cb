"""Keeps the encoded images last used, so that an image is encoded once.

It is needed where a prompt is split over prefill chunks, where several policies ask about one image at the same
time, and after the prefix cache has dropped an image.
"""

from collections import OrderedDict

import torch


class FeatureCache:
    """Features by the image's digest, the least recently used dropped first. For one thread."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._features: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self.hits = 0

    def get(self, digest: bytes) -> torch.Tensor | None:
        features = self._features.get(digest)
        if features is not None:
            self._features.move_to_end(digest)
            self.hits += 1
        return features

    def put(self, digest: bytes, features: torch.Tensor) -> None:
        """Keep a copy: `features` is mostly a view of a whole batch's, which it would hold in memory."""
        if features.nbytes > self._limit_bytes or digest in self._features:
            return
        self._features[digest] = features.clone()
        self._held_bytes += features.nbytes
        while self._held_bytes > self._limit_bytes:
            _, oldest = self._features.popitem(last=False)
            self._held_bytes -= oldest.nbytes
