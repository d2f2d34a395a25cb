"""docs/operations.md at three in the morning: from the alert to images that are judged, typed as the page has it."""

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image

from moderation.errors import Permanent, Poison, Transient, VetlineError
from moderation.services.child import free_port
from tests.acceptance.conftest import System
from tests.support.image_host import ImageHost, Visit
from tests.support.ledger import POLICY, attempts, row
from tests.support.metrics_command import exporter
from tests.support.pages import blocks, filled, section, typed
from tests.support.prometheus import RULES, Alerts, is_there, prometheus, rate_of, scraped
from tests.support.waiting import wait_for

PAGE, STORY = "docs/operations.md", "From an alert to images that are judged"
ALERT = "VetlineManyFail"
_EVERY_S = 0.12  # between two submissions: a service that goes on while its images' host is down


def _picture(visit: Visit) -> None:
    """One of its own for each path, so that each is judged for itself."""
    number = int(re.sub(r"\D", "", visit.path))
    out = io.BytesIO()
    Image.new("RGB", (32, 24), (number % 256, number // 256, 90)).save(out, "PNG")
    visit.answer(200, out.getvalue(), Connection="close")


def _down(visit: Visit) -> None:
    visit.answer(503, b"the storage behind it is gone", Connection="close")


class Service:
    """Submits images of one host, one after another, until it is stopped."""

    def __init__(self, system: System, host: ImageHost) -> None:
        self._system, self._host = system, host
        self.ids: list[UUID] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def submit(self) -> None:
        uri = self._host.uri(f"/{len(self.ids)}.png")
        self.ids.append(self._system.client.submit(uri, POLICY, batch="uploads").id)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join(20)

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            self.submit()


def _the_alert_fires(alerts: Alerts | None, worker: str) -> None:
    """By the rule's own condition on what the worker shows; and as Prometheus says it, where this machine has one."""
    share, least = (float(found) for found in re.findall(r"> ([\d.]+)", RULES[ALERT]["expr"]))
    wait_for(lambda: scraped(worker, "vetline_attempts_total", outcome="failed"), what="the first failure")
    before = scraped(worker, "vetline_attempts_total", outcome="done")
    failed = rate_of(lambda: scraped(worker, "vetline_attempts_total", outcome="failed"), 2)
    done = (scraped(worker, "vetline_attempts_total", outcome="done") - before) / 2
    assert failed > least
    assert failed / (failed + done) > share
    if alerts is not None:
        said = wait_for(lambda: alerts.firing().get(ALERT), timeout_s=40, what=f"{ALERT} firing")
        assert said is not None
        assert re.fullmatch(r"[\d.]+% of the images that end fail\.", said["summary"])
        assert "vetline failed" in said["next"]


def _the_alert_ends(alerts: Alerts | None, worker: str) -> None:
    assert rate_of(lambda: scraped(worker, "vetline_attempts_total", outcome="failed"), 0.5) == 0
    if alerts is not None:
        wait_for(lambda: ALERT not in alerts.firing(), timeout_s=40, what=f"{ALERT} resolved")


@contextmanager
def _watched(system: System, worker: str) -> Iterator[Alerts | None]:
    """Prometheus over the worker's probes and `vetline metrics`, where this machine has one."""
    if not is_there():
        yield None
        return
    with (
        exporter() as url,
        prometheus(worker, url.split("/")[2], alerts=(ALERT, "VetlineLedgerAway")) as alerts,
    ):
        yield alerts


def _first_of(shown: str) -> dict[str, str]:
    """What a person reads off the tables of `vetline failed`: CODE and HOST of the first, an ID of the second."""
    counted, _, items = shown.partition("\n\n")
    _, code, host, *_ = counted.splitlines()[1].split()
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", items)
    assert found is not None, shown
    return {"CODE": code, "HOST": host, "ID": found[0]}


@pytest.mark.timeout(300)  # ten commands in shells of their own
def test_from_the_alert_to_images_that_are_judged(system: System, tmp_path: Path) -> None:
    """Without Prometheus on PATH (Debian: apt install prometheus) the rule's condition alone is looked at."""
    failed, explain, retry_one, explained, dry_run, retry, watch, status, left, story = blocks(PAGE, STORY)

    def type_in(block: str, **values: str) -> str:
        return typed(filled(block, **values), tmp_path, system.env)

    port = free_port()
    worker = f"127.0.0.1:{port}"
    with ImageHost() as host:
        service = Service(system, host)
        host.fallback = _picture
        system.worker(
            VETLINE_FETCH_ALLOW_HOSTS="127.0.0.1",
            VETLINE_LEASE_MAX_ATTEMPTS="2",
            VETLINE_PROBE_PORT=str(port),
        )
        for _ in range(4):
            service.submit()
        system.wait_for_counts(done=4)
        with _watched(system, worker) as alerts:
            host.fallback = _down
            with service.going_on():
                _the_alert_fires(alerts, worker)
            count = len(service.ids) - 4
            system.wait_for_counts(done=4, failed=count)

            read = _first_of(type_in(failed))
            assert read["CODE"] == "host_unavailable"
            one, of_all = {"ID": read["ID"]}, {"CODE": read["CODE"], "HOST": read["HOST"]}
            told = type_in(explain, **one)
            assert "attempt 2 failed" in told
            assert "503" in told

            host.fallback = _picture  # the cause is mended
            assert "retried: 1" in type_in(retry_one, **one)
            wait_for(
                lambda: row(system.engine, UUID(read["ID"]))["state"] == "done", what="the first one judged"
            )
            assert "  done  " in type_in(explained, **one).splitlines()[0]
            assert f"would be retried: {count - 1}" in type_in(dry_run, **of_all)
            assert f"retried: {count - 1}" in type_in(retry, **of_all)
            assert '"open":0' in type_in(watch).splitlines()[-1]
            assert f"done {len(service.ids)}" in type_in(status)
            assert type_in(left, **of_all).strip() == "nothing failed that these filters mean"
            told = type_in(story, **one)
            assert told.index("attempt 2 failed") < told.index("attempt 3 done") < told.index("verdict: Safe")
            _the_alert_ends(alerts, worker)
    assert system.counts() == {"done": len(service.ids)}
    histories = [[a["outcome"] for a in attempts(system.engine, id_)] for id_ in service.ids[4:]]
    assert histories == [["retried", "failed", "done"]] * count


def test_the_page_names_each_code_that_an_item_can_fail_with() -> None:
    named = set(
        re.findall(
            r"`([a-z_]+)`", "".join(re.findall(r"^ *\| (`.*?) \|", section(PAGE, STORY), re.MULTILINE))
        )
    )
    kinds = [*_below(Transient), *_below(Permanent), Poison]
    assert named == {kind.code for kind in kinds}


def _below(kind: type[VetlineError]) -> Iterator[type[VetlineError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)
