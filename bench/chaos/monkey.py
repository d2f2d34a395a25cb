"""The faults of a run, each done for real."""

import random
import threading
import time
from collections.abc import Callable

import redis

from bench.chaos.history import History
from bench.chaos.plan import Plan
from bench.chaos.workers import Workers, WorkerSlot
from moderation.services.postgres import LocalPostgres
from moderation.services.redis import LocalRedis

_READY_WITHIN_S = 60.0  # workers that an earlier fault keeps from work are not waited for longer
_LOOK_EVERY_S = 0.02


class Monkey:
    """Does one fault at a time.

    busy: the names of the workers that have work in hand.
    """

    def __init__(
        self,
        plan: Plan,
        workers: Workers,
        *,
        history: History,
        busy: Callable[[], set[str]],
        postgres: LocalPostgres,
        redis_server: LocalRedis,
    ) -> None:
        self._plan = plan
        self._workers = workers
        self._history = history
        self._busy = busy
        self._postgres = postgres
        self._redis = redis_server
        self._random = random.Random(plan.seed)
        self._next_at = 0.0  # monotonic
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

    def wait_for_the_workers(self) -> None:
        """Until the pace allows another fault and every worker that is not frozen is up.

        What is counted is what a death costs workers that is there, not how long a backlog waits where nobody lives
        long enough to take it: without this, two cores start workers and do little else.
        """
        time.sleep(max(0.0, self._next_at - time.monotonic()))
        end = time.monotonic() + _READY_WITHIN_S
        while not all(self._workers.is_up(post) for post in self._awake()) and time.monotonic() < end:
            time.sleep(_LOOK_EVERY_S)
        self._next_at = time.monotonic() + self._plan.pace_s

    def _end_a_busy_worker(self, fault: str) -> None:
        self._wait(0, 0.4)
        while (took_s := self._workers.end(post := self._victim(), fault)) is None:
            pass  # poison was faster
        if fault == "term":
            self._history.note("gone", worker=post.name, took_s=round(took_s, 2))

    def _victim(self) -> WorkerSlot:
        """A worker with work in hand, or any if none has for a long while."""
        end = time.monotonic() + _READY_WITHIN_S
        while True:
            awake, busy = self._awake(), self._busy()
            if at_work := [post for post in awake if post.name in busy]:
                return self._random.choice(at_work)
            if time.monotonic() > end:
                return self._random.choice(awake)
            time.sleep(_LOOK_EVERY_S)

    def _awake(self) -> list[WorkerSlot]:
        frozen = self._still_frozen()
        return [post for post in self._workers.posts if post.number not in frozen]

    def _still_frozen(self) -> set[int]:
        return {number for number, thread in self._frozen.items() if thread.is_alive()}

    def _freeze(self) -> None:
        seconds = self._plan.lease_s + 5
        while not self._workers.stop(post := self._victim(), seconds):
            pass
        thread = threading.Thread(target=self._workers.go_on_after, args=(post, seconds), daemon=True)
        self._frozen[post.number] = thread
        thread.start()

    def _wait(self, least_s: float, most_s: float) -> None:
        time.sleep(self._random.uniform(least_s, most_s))
