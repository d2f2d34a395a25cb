"""Where a busy server's GPU time goes, from the trace that SGLang's own /start_profile writes.

usage: python -m bench.gpu.profile TRACE.json.gz
"""

import gzip
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

# What a kernel belongs to, by its name: the first pattern that is found.
KINDS = [
    ("attention", r"flash|fmha|attention|attn|_fwd_kernel|FlashAttn"),
    ("tower norm", r"_add_norm"),
    ("tower patches", r"_patches"),
    ("matrix product", r"gemm|cutlass|nvjet|sm90_xmma|cublas|splitK"),
    ("SiLU and multiply", r"silu|act_and_mul|activation"),
    ("norm", r"norm"),
    ("rotary and cache", r"rope|rotary|store|kv_|kvcache"),
    ("sampling", r"argmax|softmax|sampl|topk|ArgMax"),
    ("copy", r"Memcpy|memcpy|Memset|copy|cat_|Cat"),
]


def start(url: str, folder: Path, steps: int) -> None:
    """Record this many scheduler steps of the GPU's work into `folder`."""
    body = json.dumps({"output_dir": str(folder), "num_steps": steps, "activities": ["CPU", "GPU"]}).encode()
    request = urllib.request.Request(f"{url}/start_profile", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=60).read()


def summary(trace: Path) -> dict[str, Any]:
    """The share of time with work on the GPU, time by kind of kernel and by kernel, in ms."""
    data = trace.read_bytes()
    events = json.loads(gzip.decompress(data) if trace.suffix == ".gz" else data)["traceEvents"]
    work = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in work)
    busy, end, gaps = 0.0, spans[0][0], []
    for begin, finish in spans:
        if begin > end:
            gaps.append(begin - end)
        busy += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    whole = end - spans[0][0]
    by_kind: dict[str, float] = defaultdict(float)
    by_name: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for event in work:
        by_kind[_kind(event["name"])] += event["dur"] / 1e3
        entry = by_name[event["name"][:110]]
        entry[0] += event["dur"] / 1e3
        entry[1] += 1
    return {
        "wall_ms": whole / 1e3,
        "busy_share": busy / whole,
        "gaps_over_1ms": [round(gap / 1e3, 2) for gap in sorted(gaps, reverse=True) if gap > 1000][:20],
        "kinds_ms": dict(sorted(by_kind.items(), key=lambda pair: -pair[1])),
        "kernels": [
            {"name": name, "ms": round(ms, 2), "calls": int(calls)}
            for name, (ms, calls) in sorted(by_name.items(), key=lambda pair: -pair[1][0])[:30]
        ],
        "waits_ms": _waits(events),
    }


def sampled(processes: dict[str, int], seconds: int = 5) -> dict[str, list[dict[str, Any]]]:
    """Where each process's threads are, by py-spy: the share of samples with a function anywhere on the stack.

    Empty where there is no py-spy.
    """
    if shutil.which("py-spy") is None:
        return {}
    jobs = {}
    for name, pid in processes.items():
        out = Path(tempfile.mkdtemp()) / "stacks"
        command = [
            "py-spy",
            "record",
            "-d",
            str(seconds),
            "-r",
            "200",
            "-t",
            "-f",
            "raw",
            "-o",
            str(out),
            "--pid",
            str(pid),
        ]
        jobs[name] = (subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), out)
    found = {}
    for name, (job, out) in jobs.items():
        job.wait(timeout=seconds + 60)
        found[name] = _shares(out.read_text().splitlines() if out.exists() else [])
    return found


def _shares(stacks: list[str], most: int = 45) -> list[dict[str, Any]]:
    """Of each thread apart, as a share of all samples of the busiest thread."""
    by_thread: dict[str, int] = defaultdict(int)
    by_frame: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        thread, *calls = frames.split(";")
        by_thread[thread] += int(count)
        for frame in set(calls):
            by_frame[thread, frame][0] += int(count)
        if calls:
            by_frame[thread, calls[-1]][1] += int(count)
    whole = max(by_thread.values(), default=1)
    ranked = sorted(by_frame.items(), key=lambda pair: -pair[1][0])[:most]
    return [
        {
            "thread": thread[:40],
            "frame": frame[-90:],
            "inside": round(inside / whole, 3),
            "itself": round(self_ / whole, 3),
        }
        for (thread, frame), (inside, self_) in ranked
    ]


def print_sampled(found: dict[str, list[dict[str, Any]]]) -> None:
    for process, frames in found.items():
        print(f"host, {process}:")
        for entry in frames:
            print(
                f"    {entry['inside']:6.1%} {entry['itself']:6.1%}  {entry['thread'][:24]:24} {entry['frame']}"
            )


def _kind(name: str) -> str:
    return next((kind for kind, pattern in KINDS if re.search(pattern, name)), "other")


def _waits(events: list[dict[str, Any]]) -> dict[str, float]:
    """Host time inside CUDA calls that can wait for the GPU."""
    waits: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "cuda_runtime" and re.search(
            r"Synchronize|Memcpy|HostAlloc|Malloc", event["name"]
        ):
            waits[event["name"]] += event["dur"] / 1e3
    return {name: round(ms, 2) for name, ms in sorted(waits.items(), key=lambda pair: -pair[1])}


def print_summary(found: dict[str, Any]) -> None:
    print(
        f"GPU busy {found['busy_share']:.1%} of {found['wall_ms']:.0f} ms; gaps over 1 ms: {found['gaps_over_1ms']}"
    )
    for kind, ms in found["kinds_ms"].items():
        print(f"  {kind:20} {ms:9.1f} ms")
    for kernel in found["kernels"]:
        print(f"    {kernel['ms']:9.1f} ms {kernel['calls']:6}  {kernel['name']}")
    print(f"  host waits: {found['waits_ms']}")


if __name__ == "__main__":
    print_summary(summary(Path(sys.argv[1])))
