"""The same pixels under the same policy revision, model and mode are judged once; and secrets go with the need."""

from moderation.errors import NotFound
from moderation.ledger.explain import explanation as tell_story
from moderation.ledger.outcomes import fail
from moderation.ledger.retry import cancel_queued
from moderation.ledger.selection import Selection
from tests.acceptance.conftest import System
from tests.support.ledger import POLICY, claimed, record, row, submitted, verdict

SECRET = "https://u:pw@images.test/a.jpg?X-Amz-Signature=c0ffee"


def asked(system: System) -> int:
    """Questions to the runtime about images."""
    return sum(request.image is not None for request in system.server.requests)


def test_known_pixels_are_judged_once_unless_it_is_said_otherwise(system: System) -> None:
    worker = system.worker()
    one, two, other = (
        system.image(*named) for named in (("one", (9, 9, 9)), ("two", (9, 9, 9)), ("x", (9, 9, 8)))
    )
    first = system.client.submit(one, POLICY)
    system.wait_for_counts(done=1)
    assert asked(system) == 1
    same = system.client.submit(two, POLICY)
    system.wait_for_counts(done=2)
    assert asked(system) == 1, worker.text[-1000:]
    system.client.submit(two, POLICY, reuse=False)
    system.client.submit(two, "strict")
    system.client.submit(other, POLICY)
    system.wait_for_counts(done=5)
    assert asked(system) == 4
    story = tell_story(system.engine, same.id)
    assert story is not None
    assert story["verdict"]["reused_from"] == first.id
    assert story["verdict"]["rating"] == "Safe"
    assert story["verdict"]["raw_output"], "a reused verdict explains itself"


def test_the_whole_uri_is_kept_only_while_it_may_be_fetched_again(system: System) -> None:
    done, failed = (claimed(system.engine, submitted(system.engine, SECRET)) for _ in range(2))
    cancelled = submitted(system.engine, SECRET)
    assert row(system.engine, done.id)["uri"] == SECRET
    record(system.engine, done, verdict(), worker="w1")
    fail(system.engine, failed, NotFound("404"), worker="w1", timings_ms={})
    cancel_queued(system.engine, Selection(ids=(cancelled,)))
    for id_ in (done.id, cancelled):
        assert "c0ffee" not in row(system.engine, id_)["uri"]
        assert "images.test/a.jpg" in row(system.engine, id_)["uri"]
    assert row(system.engine, failed.id)["uri"] == SECRET, "a failed item can be retried"
