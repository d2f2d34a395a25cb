"""The ladder over many items: malformed first answers, and where each item ends.

A scripted SGLang on a core of its own answers 2,000 items from 64 threads. 30 % of first answers are malformed, in
22 ways; of those, some go on being malformed for one, two or all later asks. Every item must end as a verdict or as
malformed_answer, and none may be Safe without a rating that was read: each item's own truth is in the script, so a
wrong verdict is seen as wrong. Prints the counts by rung; --out writes them as JSON.

    python -m bench.ladder --items 2000 --malformed 0.3 --out bench/results/ladder.json
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from intake.picture import View
from moderation.errors import MalformedAnswer, VetlineError
from moderation.policy import builtin_policies
from moderation.verdict import Ask, Judgement
from tests.support.sglang_answers import MALFORMED
from worker.judges.settings import SglangSettings
from worker.judges.sglang import SglangJudge

POLICY = builtin_policies()[0]
WAYS = (*sorted(MALFORMED), "cut early", "cut late")
# Of the items with a malformed first answer, the share that is malformed for so many asks in a row.
STUBBORN = {1: 0.70, 2: 0.15, 3: 0.10, 4: 0.05}


@dataclass(frozen=True, slots=True)
class Item:
    """One image and what the model is to say of it: the truth, and for how many asks it says it badly."""

    data: bytes
    rating: str
    category: str
    way: str
    malformed: int  # asks in a row; 0: it answers well at once

    @property
    def sha256(self) -> str:
        return sha256(self.data).hexdigest()


def share(name: str, salt: str) -> float:
    """A stable number in [0, 1) for an item."""
    return int.from_bytes(sha256(f"{salt} {name}".encode()).digest()[:8], "big") / 2**64


def make_items(count: int, malformed: float) -> list[Item]:
    return [make_item(n, malformed) for n in range(count)]


def make_item(n: int, malformed: float) -> Item:
    name = f"item {n}"
    unsafe = share(name, "unsafe") < 0.4
    category = (
        POLICY.category_names[int(share(name, "category") * 9)] if unsafe else POLICY.category_names[-1]
    )
    asks = stubbornness(share(name, "stubborn")) if share(name, "malformed") < malformed else 0
    way = WAYS[int(share(name, "way") * len(WAYS))]
    return Item(name.encode(), "Unsafe" if unsafe else "Safe", category, way, asks)


def stubbornness(drawn: float) -> int:
    """How many asks in a row an item is malformed for; drawn: in [0, 1)."""
    for asks, part in STUBBORN.items():
        drawn -= part
        if drawn < 0:
            return asks
    return max(STUBBORN)


def rules_of(item: Item) -> list[dict[str, Any]]:
    said = {
        "rating": item.rating,
        "category": item.category,
        "p_unsafe": 0.9 if item.rating == "Unsafe" else 0.1,
    }
    rules: list[dict[str, Any]] = [{"when": {"image": item.sha256}, "do": {"kind": "verdict", **said}}]
    if item.malformed:
        asks = list(range(1, item.malformed + 1))
        rules.insert(0, {"when": {"image": item.sha256, "ask": asks}, "do": {**_spoiled(item.way), **said}})
    return rules


def _spoiled(way: str) -> dict[str, Any]:
    if way == "cut early":
        return {"kind": "cut", "tokens": 9}
    if way == "cut late":
        return {"kind": "cut", "tokens": 28}
    return {"kind": "malformed", "how": way}


@contextmanager
def scripted_server(rules: list[dict[str, Any]]) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.support.sglang_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            post(f"{url}/_script", {"rules": rules})
            yield url
        finally:
            server.terminate()


def post(url: str, value: Any) -> None:
    request = urllib.request.Request(url, json.dumps(value).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


@dataclass(frozen=True, slots=True)
class End:
    item: Item
    judgement: Judgement | None
    error: VetlineError | None

    @property
    def asks(self) -> tuple[Ask, ...]:
        if self.judgement is not None:
            return self.judgement.asks
        return self.error.asks if self.error is not None else ()

    @property
    def name(self) -> str:
        if self.judgement is not None:
            return self.judgement.rung.value
        return self.error.code if self.error is not None else "lost"


def judge_all(url: str, items: list[Item], threads: int) -> list[End]:
    judge = SglangJudge(SglangSettings(url=url))
    judge.check()

    def one(item: Item) -> End:
        view = View("whole", item.data, "image/jpeg", 1, 1, item.sha256)
        try:
            return End(item, judge.judge(view, POLICY, timeout_s=120), None)
        except VetlineError as error:
            return End(item, None, error)

    with ThreadPoolExecutor(threads) as pool:
        ends = list(pool.map(one, items))
    judge.close()
    return ends


def faults(ends: list[End]) -> list[str]:
    """What must not be: an end that is neither, a verdict against the truth, Safe without a rating read."""
    found = []
    for end in ends:
        judgement = end.judgement
        if judgement is None and not isinstance(end.error, MalformedAnswer):
            found.append(f"{end.item.data!r} ended as {end.error!r}")
        if judgement is not None and (judgement.rating, judgement.category) != (
            end.item.rating,
            end.item.category,
        ):
            found.append(f"{end.item.data!r} is {end.item.rating} and was judged {judgement.rating.value}")
        if judgement is not None and f'"rating": "{judgement.rating.value}"' not in (
            judgement.raw_output or ""
        ):
            found.append(f"{end.item.data!r} has a rating that does not stand in its answer")
    return found


def commit() -> str:
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return run.stdout.strip() if run.returncode == 0 else "none"


def measure(count: int, malformed: float, threads: int) -> dict[str, Any]:
    items = make_items(count, malformed)
    with scripted_server([rule for item in items for rule in rules_of(item)]) as url:
        start = time.perf_counter()
        ends = judge_all(url, items, threads)
        elapsed_s = time.perf_counter() - start
    by_way: dict[str, Counter[str]] = {}
    for end in ends:
        if end.item.malformed:
            by_way.setdefault(end.item.way, Counter())[end.name] += 1
    wrong = faults(ends)
    return {
        "what": "ladder",
        "items": count,
        "malformed_first_answers": sum(item.malformed > 0 for item in items),
        "ends": dict(Counter(end.name for end in ends).most_common()),
        "ends_of_malformed_by_way": {way: dict(counts) for way, counts in sorted(by_way.items())},
        "asks": sum(len(end.asks) for end in ends),
        "safe": sum(end.judgement is not None and end.judgement.rating == "Safe" for end in ends),
        "faults": wrong,
        "threads": threads,
        "elapsed_s": round(elapsed_s, 3),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "python": platform.python_version(),
        },
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="The ladder over many items with malformed first answers.")
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--malformed", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result = measure(given.items, given.malformed, given.threads)
    for name, count in result["ends"].items():
        print(f"{name:18} {count:6}")
    print(f"{'asks':18} {result['asks']:6}   in {result['elapsed_s']} s")
    for fault in result["faults"]:
        print(f"FAULT {fault}")
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
