"""The faults of a run, each done for real."""

import random
import threading
import time
from collections.abc import Callable

import redis

from bench.chaos.crew import Crew, Post
from bench.chaos.history import History
from bench.chaos.plan import Plan
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis

_BUSY_WITHIN_S = 30.0  # a worker that found no work by then is killed idle


class Monkey:
    """Does one fault at a time. busy: whether the worker of this name has work in hand."""

    def __init__(
        self,
        plan: Plan,
        crew: Crew,
        *,
        history: History,
        busy: Callable[[str], bool],
        postgres: LocalPostgres,
        redis_server: LocalRedis,
    ) -> None:
        self._plan = plan
        self._crew = crew
        self._history = history
        self._busy = busy
        self._postgres = postgres
        self._redis = redis_server
        self._random = random.Random(plan.seed)
        self._frozen: dict[int, threading.Thread] = {}

    def do(self, fault: str) -> None:
        match fault:
            case "kill" | "term":
                self._end_a_busy_worker(fault)
            case "freeze":
                self._freeze()
            case "flush":
                self._history.note("flush")
                with redis.Redis.from_url(self._redis.url) as client:
                    client.flushall()
            case "redis_kill":
                self._history.note("redis_kill")
                self._redis.kill()
                self._wait(0.5, 1.5)
                self._redis.restart()
            case "postgres_stop":
                self._history.note("postgres_stop")
                self._postgres.stop("immediate")
                self._wait(0.2, 1.0)
                self._postgres.restart()

    def rest(self) -> None:
        """Until every frozen worker goes on."""
        for thread in self._frozen.values():
            thread.join()

    def _end_a_busy_worker(self, fault: str) -> None:
        post = self._victim()
        self._wait(0, 0.25)
        took_s = self._crew.end(post, fault)
        if fault == "term":
            self._history.note("gone", worker=post.name, took_s=round(took_s, 2))

    def _victim(self) -> Post:
        end = time.monotonic() + _BUSY_WITHIN_S
        while True:
            awake = [post for post in self._crew.posts if post.number not in self._still_frozen()]
            post = self._random.choice(awake)
            if self._busy(post.name) or time.monotonic() > end:
                return post
            time.sleep(0.02)

    def _still_frozen(self) -> set[int]:
        return {number for number, thread in self._frozen.items() if thread.is_alive()}

    def _freeze(self) -> None:
        post = self._victim()
        seconds = self._plan.lease_s + 5
        thread = threading.Thread(target=self._crew.freeze, args=(post, seconds), daemon=True)
        self._frozen[post.number] = thread
        thread.start()

    def _wait(self, least_s: float, most_s: float) -> None:
        time.sleep(self._random.uniform(least_s, most_s))
