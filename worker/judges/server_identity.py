"""What runs at the server's address, asked once for each start of it."""

from dataclasses import dataclass
from typing import Any

from moderation.errors import BadSetting, RequestRefused, RuntimeFault, RuntimeUnavailable
from worker.judges.deadline import Deadline
from worker.judges.grammar import OPENING
from worker.judges.probability import SAFE_ID, UNSAFE_ID
from worker.judges.prompts import ASSISTANT, IMAGE, IMAGE_TOKEN_ID, SYSTEM
from worker.judges.sglang_client import Request, SglangClient

_PROBE = f"{SYSTEM}<|im_start|>user\nIs an empty page safe?{ASSISTANT}{OPENING}"
_PROBE_TEMPERATURE = 0.5
_LEAST_MARGIN = 0.005  # below it, what the temperature does to a margin drowns in rounding


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """model: the path it loaded. scaled_logprobs: whether its logprobs are those after temperature."""

    model: str
    version: str
    scaled_logprobs: bool


def identify(client: SglangClient, *, deadline: Deadline) -> ServerIdentity:
    """Ask the server what it is, and refuse one that would not see the image.

    Without `<image>` in its tokenizer SGLang writes the image over the first prompt token and says nothing.
    Raises BadSetting for such a server; RuntimeUnavailable, JudgeTimeout or RuntimeFault where it does not
    answer.
    """
    model = _mapping(client.get("/model_info", deadline=deadline))
    server = _mapping(client.get("/server_info", deadline=deadline))
    tokens = client.tokenize(IMAGE, deadline=deadline)
    if tokens != [IMAGE_TOKEN_ID]:
        raise BadSetting(
            f"{client.url} reads {IMAGE} as tokens {tokens[:8]}, not {IMAGE_TOKEN_ID}: it would judge "
            "without the image; serve the LlavaGuard OV weights with their own tokenizer"
        )
    return ServerIdentity(
        model=str(model.get("model_path") or "unknown"),
        version=str(server.get("version") or "unknown"),
        scaled_logprobs=_scales_logprobs(client, deadline),
    )


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RuntimeUnavailable("the server's description of itself is no JSON object")
    return value


def _scales_logprobs(client: SglangClient, deadline: Deadline) -> bool:
    """Whether logprobs are those after temperature, as they are unless SGLANG_RETURN_ORIGINAL_LOGPROB is set.

    Found out by asking: at temperature T a scaled margin between two tokens is 1/T times the one at
    temperature 0.
    """
    try:
        cold, hot = (_margin(client, t, deadline) for t in (0.0, _PROBE_TEMPERATURE))
    except (RequestRefused, RuntimeFault):  # a server without logprobs gives none to misread either
        return True
    if cold is None or hot is None or abs(cold) < _LEAST_MARGIN:
        return True
    return hot / cold > (1 + 1 / _PROBE_TEMPERATURE) / 2


def _margin(client: SglangClient, temperature: float, deadline: Deadline) -> float | None:
    sampling = {"temperature": temperature, "max_new_tokens": 1}
    asked = Request(_PROBE, sampling, logprob_ids=(SAFE_ID, UNSAFE_ID))
    logprobs = client.generate(asked, deadline=deadline).rating_logprobs(0)
    if logprobs is None or logprobs.safe is None or logprobs.unsafe is None:
        return None
    return logprobs.unsafe - logprobs.safe
