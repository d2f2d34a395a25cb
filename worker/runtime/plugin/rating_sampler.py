"""SGLang's sampler, which also notes the logits of the two rating tokens at each step. What it draws is unchanged.

SGLang's own logprobs take a log-softmax over 152,000 logits for every running request at every step, and copy each
request's row to the host apart: a quarter of the throughput (bench/gpu/NOTES.md). P(unsafe) needs the difference of two
logits at one position of an answer. Here a step costs one gather and one copy of 12 bytes a request.
"""

import logging
from typing import Any

import torch

from worker.runtime.plugin.rating import KEY, SAFE_ID, UNSAFE_ID, RatingLogits

log = logging.getLogger(__name__)

BACKEND = "pytorch"  # the value of --sampling-backend in whose place ours stands


def install() -> None:
    """Have SGLang make our sampler for the backend that launch.py asks for. Where that cannot be, a warning: the judge
    then asks for logprobs as before."""
    try:
        from sglang.srt.layers.sampler import Sampler, register_sampler_backend
    except ImportError as error:
        log.warning("Vetline's sampler does not fit here, SGLang's own is used: %r", error)
        return
    register_sampler_backend(BACKEND, lambda: _made(Sampler))


def _made(base: type[Any]) -> Any:
    class RatingSampler(base):  # type: ignore[misc]  # SGLang ships no types
        """See the module."""

        def forward(self, logits_output: Any, *args: Any, **kwargs: Any) -> Any:
            noted = _rating_logits(
                logits_output.next_token_logits
            )  # before the temperature divides them in place
            tokens = super().forward(logits_output, *args, **kwargs)
            if noted is not None:
                rows = torch.cat((tokens.view(-1, 1).to(noted.dtype), noted), dim=1)
                info = logits_output.customized_info or {}
                logits_output.customized_info = {**info, KEY: RatingLogits(_on_its_way_to_the_host(rows))}
            return tokens

    return RatingSampler()


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
