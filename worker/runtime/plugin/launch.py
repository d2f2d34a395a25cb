"""How to start SGLang so that the plugin is in it and the GPU is full: flags and environment, as data.

For the supervisor and for bench/gpu. Each value that is not SGLang's default says why; bench/gpu/NOTES.md has
the measurements. Imports nothing of SGLang.
"""

PROCESSORS = "worker.runtime.plugin.processors"
MODELS = "worker.runtime.plugin.models"

# The folder that holds the package `worker` must be on PYTHONPATH too.
ENVIRONMENT = {
    "SGLANG_EXTERNAL_MM_PROCESSOR_PACKAGE": PROCESSORS,
    "SGLANG_EXTERNAL_MODEL_PACKAGE": MODELS,
    "OMP_NUM_THREADS": "1",  # tiling runs in threads of its own
    "TOKENIZERS_PARALLELISM": "false",  # one prompt at a time: handing it to other threads costs more than it saves
    "HF_HUB_OFFLINE": "1",  # a lookup of a newer revision at each start would be a wait and a way to fail
    "SGLANG_TIMEOUT_KEEP_ALIVE": "60",  # seconds; at the default 5 pooled connections break under our feet
}

# POST these, in order, once the server has answered its first images. 0.5.16 never takes the modules and tables
# that it loaded out of the garbage collector's sight: a quarter of the scheduler's time went there. 0.5.23 does.
AFTER_START = ("/freeze_gc",)

RUNNING = 256  # requests decoding together: decoding reads the weights once a step, however many they serve
PREFILL_TOKENS = 32768  # eight 640x480 images: the matrix products are large enough to be at full rate
CONTEXT_TOKENS = 10240  # the longest prompt is 8,500 tokens, the answer 500


def flags(*, running: int = RUNNING, graph_flag: str = "--cuda-graph-bs-decode") -> tuple[str, ...]:
    """For `python -m sglang.launch_server`, beside --model-path, --host and --port. In 0.5.16 and 0.5.23."""
    graphs = [size for size in (1, 2, 4, 8, 16, 24, *range(32, running + 1, 32)) if size <= running]
    return (
        "--sampling-backend", "pytorch",
        "--context-length", str(CONTEXT_TOKENS),
        "--chunked-prefill-size", "-1",  # no prompt is split, so no image is met twice
        "--max-prefill-tokens", str(PREFILL_TOKENS),
        "--max-running-requests", str(running),
        "--schedule-policy", "fcfs",  # lpm matches every waiting prompt's 4,000 tokens at every step
        graph_flag, *map(str, graphs),
    )  # fmt: skip
