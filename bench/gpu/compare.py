"""Stock SGLang and ours, side by side on one GPU: builds a random checkpoint, starts each, loads it, prints a table.

usage: python -m bench.gpu.compare --tokenizer DIR [--quick] [--set-ups stock,processor,ours] [--together] ...

Needs an NVIDIA GPU, SGLang, and the tokenizer of a LLaVA-OneVision checkpoint with "<image>" at id 151646 (or
--checkpoint with real weights). Writes bench/results/gpu-<date>.json after every step, and a plot at the end.
No image is sent twice to one server.
"""

import argparse
import concurrent.futures
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.gpu import exactness, load, plan, profile, set_ups
from bench.gpu.ceiling import H100_DENSE_TFLOPS, cost
from bench.gpu.gpu_use import watched
from bench.gpu.pictures import Size, jpegs
from bench.gpu.servers import Fleet
from bench.machine import RUNTIME_PACKAGES, describe_machine

RESULTS = Path(__file__).parents[1] / "results"
START_S = 600.0  # a first start compiles kernels
WARM_IMAGES = 24


def main() -> None:
    args = _arguments()
    bench = Bench(args)
    try:
        for group in [args.set_ups] if args.together else [[name] for name in args.set_ups]:
            bench.start(group)
            bench.ask_for_exactness(group)
            bench.compare_ids(group)
            bench.measure(group)
            if args.profile in bench.serving():
                bench.profile(args.profile)
            bench.stop()
        bench.compare_answers()
    finally:
        bench.stop()
        bench.save()
    print_table(bench.results["runs"])
    try:
        from bench.gpu.plot import draw

        draw([bench.results], args.out.with_suffix(".png"))
    except ImportError as error:
        print(f"no plot: {error}")


def _arguments() -> argparse.Namespace:
    names = ",".join(set_ups.ALL)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json")
    parser.add_argument("--checkpoint", type=Path, help="an existing checkpoint instead of a random one")
    parser.add_argument("--set-ups", type=_names, default=["stock", "processor", "ours"], help=f"of {names}")
    parser.add_argument(
        "--together",
        action="store_true",
        help="start all at once, where the GPU's memory is shared out by --flag",
    )
    parser.add_argument("--exact", type=_names, default=[], help="two set-ups or more, the reference first")
    parser.add_argument("--exact-images", type=int, default=200)
    parser.add_argument("--exact-tokens", type=int, default=100)
    parser.add_argument(
        "--budget-s", type=float, default=float("inf"), help="start no further run after this"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a checkpoint of 10 M parameters, to try this on a CPU"
    )
    parser.add_argument(
        "--ids",
        type=int,
        default=0,
        metavar="IMAGES",
        help="ask so many with the prompt as text and as token ids",
    )
    parser.add_argument("--profile", help="a set-up whose GPU time is broken down under load")
    parser.add_argument(
        "--quick", action="store_true", help="5 minutes of runs for a set-up instead of hours"
    )
    parser.add_argument(
        "--run", type=plan.parsed, action="append", default=[], metavar="SET-UP:SIZE:MODE:IN-FLIGHT:IMAGES",
        help="measure this instead of the plan; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--flag", action="append", default=[], metavar="[SET-UP:]--FLAG[=VALUE]",
        help="a server flag for one set-up or for all, such as --attention-backend=fa3",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/vetline-bench"), help="for checkpoint and logs"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / f"gpu-{time.strftime('%Y-%m-%d-%H%M')}.json")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = set(names) - set(set_ups.ALL)
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown set-up {', '.join(sorted(unknown))}; there are {', '.join(set_ups.ALL)}"
        )
    return names


class Pictures:
    """Hands out images that no server has seen, drawn ahead by size."""

    def __init__(self) -> None:
        self._stock: dict[tuple[str, str], Iterator[bytes]] = {}
        self._drawn: dict[str, list[bytes]] = {}
        self.for_exactness: list[bytes] = []
        self.for_profile: list[bytes] = []

    def draw(self, runs: Iterable[plan.Run], for_exactness: int) -> None:
        """Enough of each size for the set-up that needs most."""
        self.for_exactness = jpegs(for_exactness, plan.SIZES["mix"], first_seed=5_000_000)
        self.for_profile = jpegs(768, plan.SIZES["640x480"], first_seed=9_000_000)
        needed: dict[str, dict[str, int]] = {}
        for run in runs:
            of_size = needed.setdefault(run.size, {})
            of_size[run.set_up] = of_size.get(run.set_up, 0) + run.images
        for place, (size, by_set_up) in enumerate(sorted(needed.items())):
            self._drawn[size] = jpegs(
                max(by_set_up.values()), plan.SIZES[size], first_seed=1_000_000 * (place + 1)
            )

    def take(self, run: plan.Run) -> list[bytes]:
        source = self._stock.setdefault((run.set_up, run.size), iter(self._drawn[run.size]))
        return [next(source) for _ in range(run.images)]


class Bench:
    """The running servers and what was found so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._began = time.monotonic()
        self._folder = args.folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._fleets: dict[str, Fleet] = {}
        self._answers: dict[str, dict[int, Any]] = {}
        self._pictures = Pictures()
        self._drawing = concurrent.futures.ThreadPoolExecutor(1)
        everything = self._runs(args.set_ups)
        self._drawn = self._drawing.submit(
            self._pictures.draw, everything, args.exact_images if args.exact else 0
        )
        self.results: dict[str, Any] = {
            "machine": describe_machine(RUNTIME_PACKAGES), "start_s": {}, "failed_to_start": {}, "runs": [], "skipped": [],
            "exactness": {},
        }  # fmt: skip
        self._checkpoint = args.checkpoint or self._random_checkpoint()
        self.say(f"the checkpoint is {self._checkpoint}")

    def _runs(self, names: Sequence[str]) -> list[plan.Run]:
        if self._args.run:
            return [run for run in self._args.run if run.set_up in names]
        return list((plan.quick if self._args.quick else plan.whole)(names))

    def _random_checkpoint(self) -> Path:
        out: Path = self._folder / "checkpoint"
        if not (out / "model.safetensors").exists():
            if self._args.tokenizer is None:
                raise SystemExit("--tokenizer or --checkpoint is needed")
            size = ["--tiny"] if self._args.tiny else []
            command = [
                sys.executable,
                "-m",
                "bench.gpu.checkpoint",
                str(out),
                str(self._args.tokenizer),
                *size,
            ]
            subprocess.run(
                command, check=True
            )  # a process of its own, so that torch is not loaded beside the load
        return out

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", flush=True)

    def start(self, names: Sequence[str]) -> None:
        """All that are named at once: an idle server does no work on the GPU, and most of a start is the CPU's."""
        for name in names:
            common = _flags(self._args.flag, name)
            self._fleets[name] = Fleet(set_ups.ALL[name], self._checkpoint, self._folder, common=common)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            jobs = {name: pool.submit(self._fleets[name].wait, START_S) for name in names}
        for name, job in jobs.items():
            if (error := job.exception()) is None:
                self.results["start_s"][name] = round(job.result(), 1)
            else:
                self.results["failed_to_start"][name] = str(error)[-2000:]
                self._fleets.pop(name).stop()
                print(error)
        self.say(f"serving after: {self.results['start_s']}")
        for name in set(names) & set(self._fleets):
            count = 8 if name.startswith("stock") else 24
            warm = jpegs(count * len(self._fleets[name].servers), plan.SIZES["640x480"], first_seed=7)
            load.drive(self._fleets[name].urls, warm, load.full(4), in_flight=8)
            self._fleets[name].settle()
        self._drawn.result()
        self.say("warm, and all images are drawn")

    def ask_for_exactness(self, names: Sequence[str]) -> None:
        """One image at a time to each server, all servers at once: what the others do changes times, not numbers.

        Stock gets 20 images, as it takes two seconds for each.
        """
        body = exactness.body(self._args.exact_tokens)
        images = self._pictures.for_exactness
        asked = {}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for name in set(names) & set(self._args.exact) & set(self._fleets):
                some = images[:20] if name.startswith("stock") else images
                asked[name] = pool.submit(
                    load.drive, self._fleets[name].urls, some, body, in_flight=1, keep=True
                )
        self._answers |= {name: job.result().answers for name, job in asked.items()}

    def compare_ids(self, names: Sequence[str]) -> None:
        """Whether a prompt as token ids is answered as the same prompt as text; no image is in the cache."""
        body = exactness.body(self._args.exact_tokens)
        images = jpegs(self._args.ids, plan.SIZES["mix"], first_seed=8_000_000)
        for name in (name for name in names if images and name in self._fleets):
            urls = self._fleets[name].urls
            as_text, as_ids = (
                self._answers_of(urls, images, each) for each in (body, load.as_ids(urls[0], body))
            )
            found = exactness.as_json(exactness.agreement(as_text, as_ids))
            self.results["exactness"][f"{name}: ids against text"] = found
            self.say(f"{name}, ids against text: {found}")

    def _answers_of(self, urls: Sequence[str], images: list[bytes], body: dict[str, Any]) -> dict[int, Any]:
        """One image at a time, with nothing in the cache."""
        load.flush(urls)
        return load.drive(urls, images, body, in_flight=1, keep=True).answers

    def compare_answers(self) -> None:
        """Of each set-up that was asked against the first."""
        reference, *others = [name for name in self._args.exact if name in self._answers] or [""]
        for name in others:
            found = exactness.as_json(exactness.agreement(self._answers[reference], self._answers[name]))
            self.results["exactness"][f"{name} against {reference}"] = found
            self.say(f"{name} against {reference}: {found}")

    def measure(self, names: Sequence[str]) -> None:
        for run in self._runs([name for name in names if name in self._fleets]):
            if time.monotonic() - self._began > self._args.budget_s:
                self.results["skipped"].append(asdict(run))
                continue
            self.results["runs"].append(self._measured(run))
            self.say(line(self.results["runs"][-1]))
            self.save()

    def _measured(self, run: plan.Run) -> dict[str, Any]:
        fleet, images = self._fleets[run.set_up], self._pictures.take(run)
        body = plan.MODES[run.mode]
        if run.mode.endswith("-ids"):
            body = load.as_ids(fleet.urls[0], body)
        before = fleet.cpu_s()
        with watched() as use:
            seen = load.drive(fleet.urls, images, body, in_flight=run.in_flight)
        used = {role: after - before.get(role, 0.0) for role, after in fleet.cpu_s().items()}
        tera = _mean_tera(plan.SIZES[run.size], plan.OUTPUT_TOKENS[run.mode])
        images_done = max(1, seen.images)
        return {
            **asdict(run),
            "done": seen.images,
            "failures": len(seen.failures),
            "first_failure": seen.failures[0] if seen.failures else None,
            "images_per_s": seen.rate,
            "p50_s": seen.percentile(0.5) if seen.images else None,
            "p95_s": seen.percentile(0.95) if seen.images else None,
            "prompt_tokens": seen.prompt_tokens / images_done,
            "output_tokens": seen.output_tokens / images_done,
            "tera_per_image": tera,
            "tflops": seen.rate * tera,
            "share_of_ceiling": seen.rate * tera / H100_DENSE_TFLOPS,
            "gpu_busy_percent": use.busy_percent,
            "power_w": use.power_w,
            "clock_mhz": use.clock_mhz,
            "cpu_s_per_image": {role: round(seconds / images_done, 4) for role, seconds in used.items()},
        }

    def serving(self) -> list[str]:
        return list(self._fleets)

    def profile(self, name: str) -> None:
        """Under full load: what the host does, and the kernels of 40 steps."""
        fleet, folder = self._fleets[name], self._folder / "trace"
        images = self._pictures.for_profile
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(load.drive, fleet.urls, images, load.full(), in_flight=512)
            time.sleep(4)
            server = fleet.servers[0]
            self.results["host_profile"] = profile.sampled(
                {"scheduler": server.scheduler(), "http": server.root()}
            )
            profile.start(server.url, folder, 40)
            running.result()
        deadline = time.monotonic() + 60
        while not (traces := sorted(folder.glob("**/*.gz"))) and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(2)  # the file is there before it is whole
        self.results["profile"] = profile.summary(traces[-1]) if traces else None
        if traces:
            profile.print_summary(self.results["profile"])
        profile.print_sampled(self.results["host_profile"])

    def stop(self) -> None:
        for fleet in self._fleets.values():
            fleet.stop()
        self._fleets.clear()

    def save(self) -> None:
        self._args.out.parent.mkdir(parents=True, exist_ok=True)
        self._args.out.write_text(json.dumps(self.results, indent=1))


def _flags(given: Sequence[str], name: str) -> list[str]:
    """Those for all set-ups and for this one, each as its own arguments."""
    parts: list[str] = []
    for flag in given:
        owner, colon, rest = flag.partition(":")
        if owner.startswith("--") or not colon:
            parts += flag.split("=", 1)
        elif owner == name:
            parts += rest.split("=", 1)
    return parts


def _mean_tera(sizes: Sequence[Size], output_tokens: int) -> float:
    return sum(cost(*size, output_tokens=output_tokens).tera for size in sizes) / len(sizes)


def line(run: dict[str, Any]) -> str:
    name = f"{run['set_up']} {run['size']} {run['mode']} {run['in_flight']} in flight"
    cpu = sum(run["cpu_s_per_image"].values())
    known = {
        key: f"{run[key]:.0f}" if run[key] is not None else "?"
        for key in ("gpu_busy_percent", "power_w", "clock_mhz")
    }
    latency = f"p50 {run['p50_s']:.2f} s p95 {run['p95_s']:.2f} s" if run["done"] else "no answers"
    return (
        f"{name}: {run['images_per_s']:.2f}/s, {latency}, "
        f"{run['tflops']:.0f} TFLOP/s ({run['share_of_ceiling']:.0%}), GPU {known['gpu_busy_percent']} % "
        f"{known['power_w']} W {known['clock_mhz']} MHz, CPU {cpu * 1e3:.0f} ms/image, failures {run['failures']}"
    )


def print_table(runs: Sequence[dict[str, Any]]) -> None:
    print(
        "| set-up | size | mode | in flight | images/s | p50 s | p95 s | GPU % | TFLOP/s | of ceiling | CPU ms/image |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for run in runs:
        cpu = sum(run["cpu_s_per_image"].values()) * 1e3
        times = [f"{run[key]:.2f}" if run[key] is not None else "" for key in ("p50_s", "p95_s")]
        print(
            f"| {run['set_up']} | {run['size']} | {run['mode']} | {run['in_flight']} | {run['images_per_s']:.2f} "
            f"| {times[0]} | {times[1]} | {run['gpu_busy_percent'] or 0:.0f} | {run['tflops']:.0f} "
            f"| {run['share_of_ceiling']:.0%} | {cpu:.0f} |"
        )


if __name__ == "__main__":
    main()
