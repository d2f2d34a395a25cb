"""Why a server did not start, or a download failed: one line for a person, and whether another try could help."""

import re
from collections.abc import Sequence

from moderation.errors import BadSetting, RuntimeUnavailable, VetlineError

# What is said, in the order of looking; and what to do about it. Another start would say the same.
_HOPELESS = (
    (r"No module named '?sglang|No module named sglang", "sglang is not installed: pip install 'vetline[gpu]'"),
    (r"unrecognized arguments?: (?P<what>.+)", "this sglang does not know {what} (VETLINE_RUNTIME_FLAGS?)"),
    (r"No CUDA GPUs are available|Found no NVIDIA driver|CUDA driver version is insufficient",
     "no usable GPU: look at nvidia-smi, the driver (580 or newer) and CUDA_VISIBLE_DEVICES"),
    (r"Model architectures? .{0,200}(?:are not supported|is not supported)",
     "this sglang cannot serve the model: is VETLINE_RUNTIME_MODEL the original LlavaGuard OV weights?"),
    (r"GatedRepoError|is a gated repo|Access to model .{0,200} is restricted",
     "{model} is gated: accept its licence at https://huggingface.co/{model}, then set HF_TOKEN"),
    (r"Invalid (?:user )?token|Invalid username or password|401 Client Error",
     "Hugging Face does not accept HF_TOKEN for {model}: make a token that may read it"),
    (r"RepositoryNotFoundError", "{model} is no repository on Hugging Face, or HF_TOKEN may not see it"),
    (r"RevisionNotFoundError", "{model} has no such revision (VETLINE_RUNTIME_REVISION)"),
    (r"No module named '?huggingface_hub", "nothing here can download weights: pip install 'vetline[gpu]'"),
    (r"No space left on device", "no space is left for the weights (HF_HOME says where they are kept)"),
    (r"SafetensorError|MetadataIncompleteBuffer|HeaderTooLarge", "the weights of {model} are damaged: download them again"),
    (r"\bninja\b.{0,60}(?:not found|No such file)|nvcc.{0,60}(?:not found|No such file)",
     "SGLang compiles kernels at its start and needs nvcc and ninja here"),
)  # fmt: skip
# Worth a further start, and worth a better word than the last line.
_PASSING = (
    (r"(?:CUDA|GPU).{0,20}out of memory|Not enough memory", "the GPU's memory is not free: what else runs on it?"),
    (r"[Aa]ddress already in use", "its port was taken meanwhile"),
    (r"ConnectionError|Max retries exceeded|LocalEntryNotFoundError|offline mode|timed? ?out", "it could not be reached"),
)  # fmt: skip

# A pool of image workers that lost one: 0.5.16 never mends it, and every image is HTTP 500 from then on.
BROKEN_POOL = re.compile(r"BrokenProcessPool|A process in the process pool was terminated")


def cause(lines: Sequence[str], *, model: str, what: str) -> VetlineError:
    """BadSetting where only a person can help; else RuntimeUnavailable. what: such as "SGLang did not start"."""
    text = "\n".join(lines)
    for pattern, advice in _HOPELESS:
        if match := re.search(pattern, text):
            return BadSetting(f"{what}: {advice.format(model=model, **match.groupdict())}")
    for pattern, advice in _PASSING:
        if re.search(pattern, text):
            return RuntimeUnavailable(f"{what}: {advice}")
    return RuntimeUnavailable(f"{what}: {telling_line(lines)}")


def telling_line(lines: Sequence[str]) -> str:
    """The last line that tells of an error, or the last one."""
    errors = [line for line in lines if re.search(r"[Ee]rror|[Ee]xception|FATAL|Killed", line)]
    return (errors or [*lines] or ["it said nothing"])[-1].strip()[:300]
