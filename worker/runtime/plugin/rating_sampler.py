"""SGLang's sampler, which also notes the logits of the two rating tokens at each step, and draws from few tokens faster.

SGLang's own logprobs take a log-softmax over 152,000 logits for every running request at every step, and copy each
request's row to the host apart: a quarter of the throughput (bench/gpu/NOTES.md). P(unsafe) needs the difference of two
logits at one position of an answer. Here a step costs one gather and one copy of 12 bytes a request.
"""

import logging
from typing import Any

import torch

from worker.runtime.plugin.few_tokens import Largest, drawn
from worker.runtime.plugin.rating import KEY, SAFE_ID, UNSAFE_ID, RatingLogits
from worker.runtime.plugin.settings import PluginSettings

log = logging.getLogger(__name__)

# Releases whose sampler was read and compared, and whether its draw comes with what a sampling mask needs.
_RETURNS_PAIRS = {"0.5.16": False, "0.5.23": True}
BACKEND = "pytorch"  # the value of --sampling-backend in whose place ours stands


def install(settings: PluginSettings) -> None:
    """Have SGLang make our sampler for the backend that launch.py asks for. Where that cannot be, a warning: the judge
    then asks for logprobs as before."""
    if not settings.own_sampler:
        return
    try:
        from sglang import __version__ as version
        from sglang.srt.layers.sampler import Sampler, register_sampler_backend
    except ImportError as error:
        log.warning("Vetline's sampler does not fit here, SGLang's own is used: %r", error)
        return
    register_sampler_backend(BACKEND, lambda: _made(Sampler, version))


def _made(base: type[Any], version: str) -> Any:
    is_known = version in _RETURNS_PAIRS

    class RatingSampler(base):  # type: ignore[misc]  # SGLang ships no types
        """See the module."""

        def __init__(self) -> None:
            super().__init__()
            self._largest = Largest()

        def forward(self, logits_output: Any, *args: Any, **kwargs: Any) -> Any:
            # Before the temperature divides them in place.
            noted = _rating_logits(logits_output.next_token_logits)
            tokens = super().forward(logits_output, *args, **kwargs)
            if noted is not None:
                rows = torch.cat((tokens.view(-1, 1).to(noted.dtype), noted), dim=1)
                info = logits_output.customized_info or {}
                logits_output.customized_info = {**info, KEY: RatingLogits(_on_its_way_to_the_host(rows))}
            return tokens

        def _sample_from_probs(
            self, probs: Any, sampling_info: Any, positions: Any, simple_sampling_case: bool
        ) -> Any:
            """As SGLang's: temperature, top-k and top-p of each request, where the whole row need not be sorted."""
            plain = is_known and not simple_sampling_case and not _asks_for_more(sampling_info)
            if plain and self._largest.is_few(sampling_info.top_ks):
                tokens = drawn(probs, sampling_info.top_ks, sampling_info.top_ps)
                return (tokens, None) if _RETURNS_PAIRS[version] else tokens
            return super()._sample_from_probs(probs, sampling_info, positions, simple_sampling_case)

    return RatingSampler()


def _asks_for_more(sampling_info: Any) -> bool:
    """Whether a request wants more than temperature, top-k and top-p: its own seed, min-p, or the mask of what was left."""
    masks = any(getattr(sampling_info, "return_sampling_masks", None) or [])
    captured = getattr(sampling_info, "sampling_mask_batch_indices", None) is not None
    return sampling_info.need_min_p_sampling or sampling_info.sampling_seed is not None or masks or captured


def _rating_logits(logits: torch.Tensor | None) -> torch.Tensor | None:
    """(requests, 2) float32, a copy; a token that a grammar forbids has the least float32, as in SGLang's logprobs."""
    if logits is None:
        return None
    pair = torch.stack((logits[:, SAFE_ID], logits[:, UNSAFE_ID]), dim=1).float()
    return pair.clamp(min=torch.finfo(torch.float32).min)


def _on_its_way_to_the_host(rows: torch.Tensor) -> torch.Tensor:
    """Enqueued before SGLang's own copy of the tokens, for whose arrival it waits before it looks at a step's results."""
    if not rows.is_cuda:
        return rows
    host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    return host.copy_(rows, non_blocking=True)
