"""What runs at the server's address, asked once for each start of it."""

from dataclasses import dataclass
from typing import Any

from moderation.errors import BadSetting, RequestRefused, RuntimeFault, RuntimeUnavailable
from worker.judges.deadline import Deadline
from worker.judges.generation import Generation
from worker.judges.grammar import OPENING
from worker.judges.probability import SAFE_ID, UNSAFE_ID
from worker.judges.prompts import ASSISTANT, IMAGE, IMAGE_TOKEN_ID, SYSTEM
from worker.judges.sglang_client import Request, SglangClient

_PROBE = f"{SYSTEM}<|im_start|>user\nIs an empty page safe?{ASSISTANT}{OPENING}"
_PROBE_TEMPERATURE = 0.5
_LEAST_MARGIN = 0.005  # below it, what the temperature does to a margin drowns in rounding
_TOKENS_EACH = 4_200  # of the cache for one request: a 640x480 image under the default policy and its answer


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """model: the path it loaded. scaled_logprobs: whether its logprobs are those after temperature.

    notes_rating: whether it hands out the rating's logits unasked, as our sampler in it does.
    at_once: requests that it can work on together, by its own account; None where it does not say.
    """

    model: str
    version: str
    scaled_logprobs: bool
    notes_rating: bool = False
    at_once: int | None = None


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
    cold, hot = (_probed(client, t, deadline) for t in (0.0, _PROBE_TEMPERATURE))
    return ServerIdentity(
        model=str(model.get("model_path") or "unknown"),
        version=str(server.get("version") or "unknown"),
        scaled_logprobs=_scales_logprobs(cold, hot),
        notes_rating=cold is not None and cold.rating_logits is not None,
        at_once=at_once(server),
    )


def at_once(server: dict[str, Any]) -> int | None:
    """How many of our requests run together: as many as it was allowed, and as its cache has tokens for.

    server: what /server_info says. Its flag is null where it was not given; then it tells what it chose per scheduler.
    """
    states = server.get("internal_states")
    state = states[0] if isinstance(states, list) and states and isinstance(states[0], dict) else {}
    allowed = (server.get("max_running_requests"), state.get("effective_max_running_requests_per_dp"))
    tokens = server.get("max_total_num_tokens")
    found = [number for number in allowed if isinstance(number, int) and number > 0]
    if isinstance(tokens, int) and tokens > 0:
        found.append(max(1, tokens // _TOKENS_EACH))
    return min(found, default=None)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RuntimeUnavailable("the server's description of itself is no JSON object")
    return value


def _probed(client: SglangClient, temperature: float, deadline: Deadline) -> Generation | None:
    """One token with logprobs; None from a server without logprobs, which gives none to misread either."""
    sampling = {"temperature": temperature, "max_new_tokens": 1}
    asked = Request(_PROBE, sampling, logprob_ids=(SAFE_ID, UNSAFE_ID))
    try:
        return client.generate(asked, deadline=deadline)
    except (RequestRefused, RuntimeFault):
        return None


def _scales_logprobs(cold: Generation | None, hot: Generation | None) -> bool:
    """Whether logprobs are those after temperature, as they are unless SGLANG_RETURN_ORIGINAL_LOGPROB is set.

    Found out by asking: at temperature T a scaled margin between two tokens is 1/T times the one at
    temperature 0.
    """
    at_zero, heated = _margin(cold), _margin(hot)
    if at_zero is None or heated is None or abs(at_zero) < _LEAST_MARGIN:
        return True
    return heated / at_zero > (1 + 1 / _PROBE_TEMPERATURE) / 2


def _margin(probed: Generation | None) -> float | None:
    logprobs = probed.rating_logprobs(0) if probed is not None else None
    if logprobs is None or logprobs.safe is None or logprobs.unsafe is None:
        return None
    return logprobs.unsafe - logprobs.safe
