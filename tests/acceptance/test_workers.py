"""Workers as `vetline watch` and `vetline status` show them: idle, waiting, killed, ended."""

from importlib.metadata import version
from typing import Any

from moderation.cli.watch import take_snapshot
from tests.acceptance.conftest import System
from tests.support.commands import run
from tests.support.waiting import wait_for


def seen(system: System) -> dict[str, Any] | None:
    """The only worker, as a look of `vetline watch` has it."""
    found = take_snapshot(system.engine, None).workers
    return found[0] if found else None


def is_seen(system: System, state: str) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        worker = seen(system)
        return worker if worker and worker["state"] == state else None

    found = wait_for(there, timeout_s=20, what=f"a worker that is {state}")
    assert found is not None
    return found


def test_a_worker_is_seen_idle_waiting_for_its_runtime_and_ended(system: System) -> None:
    worker = system.worker()
    idle = is_seen(system, "ready")
    assert (idle["worker"], idle["pid"], idle["version"]) == ("w1", worker.pid, version("vetline"))
    assert idle["runtime"].startswith("sglang 0.5")
    assert (idle["runtime_state"], idle["in_hand"], idle["in_hand_limit"]) == ("ready", 0, 8)

    system.server.stop_listening()  # and no image meets it
    waiting = is_seen(system, "waiting")
    (wait,) = waiting["waits"]
    assert wait["name"] == "judge"
    assert "SGLang" in wait["reason"]
    assert waiting["runtime_state"] == "lost"

    system.server.listen()
    assert is_seen(system, "ready")["runtime_state"] == "ready"
    assert worker.stop() == 0
    assert seen(system) is None


def test_a_worker_that_was_killed_is_silent(system: System) -> None:
    worker = system.worker()
    is_seen(system, "ready")
    worker.kill()
    assert 3 <= is_seen(system, "silent")["seen_s"] < 60, "the lease's three seconds"
    assert "workers: 1 not seen\n" in run(system.folder, "status").stdout
