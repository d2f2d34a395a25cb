"""Each user of infra/redis can do its verbs, by the project's own functions where there are any, and no other."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from moderation.doorbell import Doorbell
from moderation.errors import BrokerRefused
from moderation.plain_queue import PlainQueue
from moderation.queue import make_app
from moderation.services.resolve import Services
from moderation.settings import QueueSettings
from tests.support.redis_users import SCRIPT, USERS, GuardedRedis, guarded_redis
from worker.doctor.check import CheckState
from worker.doctor.command import _redis as doctors_look

_OURS = {"producer", "worker", "flower", "watcher"}
_CELERY = {"worker", "flower"}
_LISTEN = ("/0.celeryev/*", "/0.celery.pidbox")


@dataclass(frozen=True)
class Call:
    uri: str = "s3://bucket/a.jpg"
    policy: str = "llavaguard-default@1"
    priority: int = 1
    crashes: int = 0
    submission_id: None = None
    id: Any = None


class Hand:
    """What a verb works with: a user's URL, and what it should leave nobody else's keys to."""

    def __init__(self, url: str, settings: QueueSettings) -> None:
        self.url, self.settings, self.prefix = url, settings, settings.key_prefix

    def bell(self, verb: Callable[[Doorbell], Any]) -> Any:
        with closing(Doorbell(self.url, self.settings)) as doorbell:
            return verb(doorbell)

    def say(self, *words: Any) -> Any:
        with redis.Redis.from_url(self.url, driver_info=None) as client:
            return client.execute_command(*words)

    def inspect(self) -> None:
        with make_app(self.url, self.settings) as app:
            assert app.control.inspect(timeout=0.05).ping() is None, "nobody is there"

    def tell(self) -> None:
        with make_app(self.url, self.settings) as app, app.events.default_dispatcher() as dispatcher:
            dispatcher.send("worker-online")

    def plain(self, verb: Callable[[PlainQueue], Any]) -> Any:
        with closing(PlainQueue(self.url, self.settings)) as queue:
            return verb(queue)

    def submit_plainly(self, queue: str = "vetline", priority: int = 0) -> None:
        app = Celery(broker=self.url)
        app.conf.broker_transport_options = {"global_keyprefix": self.prefix}
        with app:
            app.send_task(
                "vetline.assess",
                kwargs={"uri": "s3://b/k", "policy": "p"},
                queue=queue,
                priority=priority,
                retry=False,
            )


def _take_plain(queue: PlainQueue) -> None:
    """All that is done with them: some are put back, some are let go of, and what is overdue is looked for."""
    taken = queue.take(10)
    queue.put_back(taken[:1])
    queue.done(taken)
    queue.return_overdue()


def _ring(doorbell: Doorbell) -> None:
    doorbell.ring([Call(id=uuid4()), Call(id=uuid4(), priority=0)])


def _key(*words: str) -> Callable[[Hand], Any]:
    """A command on the queue, whose name stands where `Q` does."""
    return lambda hand: hand.say(*(f"{hand.prefix}vetline.due" if word == "Q" else word for word in words))


def _listen(hand: Hand) -> None:
    with redis.Redis.from_url(hand.url) as client, client.pubsub() as pubsub:
        pubsub.psubscribe(*(hand.prefix + channel for channel in _LISTEN))
        for _ in _LISTEN:
            assert pubsub.parse_response(timeout=5)


VERBS: dict[str, tuple[Callable[[Hand], Any], set[str]]] = {
    "ask how many wait": (lambda h: h.bell(Doorbell.depths), _OURS),
    "ring": (lambda h: h.bell(_ring), {"producer", "worker"}),
    "put back": (lambda h: h.bell(lambda bell: bell.put_back([uuid4()])), {"worker"}),
    "look for lost ones": (lambda h: h.bell(Doorbell.waiting), {"worker"}),
    "take a message": (_key("BRPOP", "Q", "0.01"), _CELERY),
    # A worker sets aside what it finds among the rows, and so may push what it may take.
    "submit by plain Celery": (lambda h: h.submit_plainly(), {"plain", "worker"}),
    "submit by it at a priority": (lambda h: h.submit_plainly(priority=9), {"plain", "worker"}),
    "submit by it, naming no queue": (lambda h: h.submit_plainly("celery"), {"plain", "worker"}),
    "ask how many plain ones wait": (lambda h: h.plain(PlainQueue.depths), {"plain", "worker", "watcher"}),
    "take plain ones": (lambda h: h.plain(_take_plain), {"worker"}),
    "ask workers": (lambda h: h.inspect(), _CELERY),
    "tell of tasks": (lambda h: h.tell(), _CELERY),
    "listen": (_listen, _CELERY),
    "examine Redis": (_key("INFO"), {"worker", "watcher"}),
    # Everybody's own, and nobody's.
    "read a message": (_key("LINDEX", "Q", "0"), set()),
    "change a message": (_key("LSET", "Q", "0", "x"), set()),
    "trim": (_key("LTRIM", "Q", "0", "1"), set()),
    "rename": (_key("RENAME", "Q", "other"), set()),
    "ask another key": (_key("LLEN", "other"), set()),
    "write another key": (_key("LPUSH", "other", "x"), set()),
    "write a value": (_key("SET", "Q", "x"), set()),
    "publish elsewhere": (_key("PUBLISH", "other", "x"), set()),
    "listen to everything": (_key("PSUBSCRIBE", "*"), set()),
    "list keys": (_key("KEYS", "*"), set()),
    "scan": (_key("SCAN", "0"), set()),
    "flush": (_key("FLUSHDB"), set()),
    "flush all": (_key("FLUSHALL"), set()),
    "run a text": (_key("EVAL", "return 1", "0"), set()),
    "flush scripts": (_key("SCRIPT", "FLUSH"), set()),
    "configure": (_key("CONFIG", "GET", "dir"), set()),
    "see users": (_key("ACL", "LIST"), set()),
    "watch commands": (_key("MONITOR"), set()),
    "list clients": (_key("CLIENT", "LIST"), set()),
    "kill clients": (_key("CLIENT", "KILL", "TYPE", "pubsub"), set()),
    "make a replica": (_key("REPLICAOF", "127.0.0.1", "1"), set()),
    "save": (_key("SAVE"), set()),
    "load a module": (_key("MODULE", "LIST"), set()),
    "shut down": (_key("SHUTDOWN", "NOSAVE"), set()),
}  # fmt: skip


@pytest.fixture(scope="module", params=["", "shop:"], ids=["no prefix", "prefix"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def guarded(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedRedis]:
    with guarded_redis(tmp_path_factory.mktemp("guarded"), prefix=prefix) as server:
        yield server


def may(verb: Callable[[Hand], Any], hand: Hand) -> bool:
    try:
        verb(hand)
    except (NoPermissionError, BrokerRefused):
        return False
    except OperationalError as exc:  # kombu's, around the same
        if "no permissions" not in str(exc).lower():
            raise
        return False
    return True


@pytest.mark.parametrize("user", sorted(_OURS | {"plain"}))
def test_a_user_can_do_its_verbs_and_no_other(guarded: GuardedRedis, prefix: str, user: str) -> None:
    hand = Hand(guarded.url_of(user), QueueSettings(key_prefix=prefix))
    can = {name for name, (verb, _) in VERBS.items() if may(verb, hand)}
    assert can == {name for name, (_, who) in VERBS.items() if user in who}


def test_nobody_comes_in_without_a_user_or_with_an_old_password(guarded: GuardedRedis) -> None:
    for who in ({}, {"password": "x"}, {"username": "worker", "password": "x"}):
        with (
            redis.Redis(port=guarded.port, retry=Retry(NoBackoff(), 0), **who) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


def test_what_kombu_sweeps_by_itself_is_allowed(guarded: GuardedRedis, prefix: str) -> None:
    """Its two scripts, with something overdue: a run would meet that only after an hour."""
    guarded.admin.acl_log_reset()
    for user in sorted(_CELERY):
        guarded.admin.zadd(f"{prefix}_kombu.binding_deadlines", {"reply.celery.pidbox": 1})
        guarded.admin.sadd(f"{prefix}_kombu.binding.reply.celery.pidbox", "gone")
        with (
            make_app(guarded.url_of(user), QueueSettings(key_prefix=prefix)) as app,
            app.connection() as there,
        ):
            assert there.default_channel.sweep_bindings() == 1
        assert not guarded.admin.exists(f"{prefix}_kombu.binding.reply.celery.pidbox")
    assert guarded.refused() == []


def test_the_doctor_says_what_it_may_not_ask(
    guarded: GuardedRedis, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("VETLINE_QUEUE_KEY_PREFIX", prefix)
    watched, *_ = doctors_look(services_at(guarded.url_of("watcher")))
    assert (watched.name, watched.state) == ("redis", CheckState.OK)
    asked, version = doctors_look(services_at(guarded.url_of("producer")))
    assert (asked.state, version.state) == (CheckState.OK, CheckState.NOTE)
    assert "'info'" in version.says
    with pytest.raises(BrokerRefused, match="Redis refuses this user"):
        list(doctors_look(services_at(guarded.url_of("plain"))))


def services_at(redis_url: str) -> Services:
    return Services("postgresql://unused", "configured", redis_url, "configured")


def test_a_user_without_a_password_is_left_out_and_a_prefix_that_is_a_pattern_refused() -> None:
    some = written({"REDIS_WORKER_PASSWORD": "x"})
    assert [line.split()[1] for line in some.stdout.splitlines()] == ["default", "worker"]
    odd = written({"REDIS_WORKER_PASSWORD": "x", "VETLINE_QUEUE_KEY_PREFIX": "a*"})
    assert (odd.returncode, odd.stdout) == (2, "")


def test_every_user_of_the_file_is_tried_and_none_has_a_password_in_it() -> None:
    lines = [
        line.split()
        for line in SCRIPT.with_suffix(".acl").read_text().splitlines()
        if line.startswith("user ")
    ]
    assert [words[1] for words in lines] == ["default", *USERS]
    assert not any(word.startswith((">", "#", "nopass")) for words in lines for word in words)


def written(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What users.sh says."""
    return subprocess.run(
        ["/bin/sh", str(SCRIPT)], env=env | {"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
