"""The ways of serving that are compared."""

from bench.gpu.servers import SetUp
from worker.runtime.plugin.launch import AFTER_START, ENVIRONMENT, MODELS, PROCESSORS, flags

_SHARED = {name: value for name, value in ENVIRONMENT.items() if value not in (PROCESSORS, MODELS)}
_PROCESSOR = {**_SHARED, "SGLANG_EXTERNAL_MM_PROCESSOR_PACKAGE": PROCESSORS}
_PLAIN = {"VETLINE_PLUGIN_FUSED_LAYERS": "0", "VETLINE_PLUGIN_SHORT_LAST_LAYER": "0"}

# REQUEST_TIMEOUT: at its default of 10 s stock answers HTTP 500 as soon as its image pool is the queue.
STOCK = SetUp("stock", environment={"HF_HUB_OFFLINE": "1", "REQUEST_TIMEOUT": "300"})
STOCK_TUNED = SetUp("stock, our flags", flags(), {**_SHARED, "REQUEST_TIMEOUT": "300"})
PROCESSOR = SetUp("our processor, stock model", flags(), _PROCESSOR)
OURS = SetUp("ours", flags(), dict(ENVIRONMENT), after_start=AFTER_START)
OURS_EXACT = SetUp(
    "ours, stock tower and layers", flags(), {**ENVIRONMENT, **_PLAIN, "VETLINE_PLUGIN_FUSED_TOWER": "0"}
)
OURS_TOWER = SetUp("ours, stock layers", flags(), {**ENVIRONMENT, **_PLAIN})
OURS_TWICE = SetUp(
    "ours, two servers under MPS",
    flags(running=128),
    dict(ENVIRONMENT),
    copies=2,
    mps=True,
    after_start=AFTER_START,
)
OURS_WIDE = SetUp("ours, 512 running", flags(running=512), dict(ENVIRONMENT), after_start=AFTER_START)
MIXED = SetUp(
    "ours, mixed chunks",
    (*flags(), "--chunked-prefill-size", "8192", "--enable-mixed-chunk"),
    dict(ENVIRONMENT),
)
NO_CACHE = SetUp("ours, no prefix cache", (*flags(), "--disable-radix-cache"), dict(ENVIRONMENT))
ALL = {
    "stock": STOCK,
    "stock-tuned": STOCK_TUNED,
    "processor": PROCESSOR,
    "ours": OURS,
    "exact": OURS_EXACT,
    "tower": OURS_TOWER,
    "mixed": MIXED,
    "no-cache": NO_CACHE,
    "twice": OURS_TWICE,
    "wide": OURS_WIDE,
}
