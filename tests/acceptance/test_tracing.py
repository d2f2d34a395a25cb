"""Traces as a collector sees them: one for each assessment, from submit in one process to record in another."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.acceptance.conftest import System
from tests.support.otlp import Collector, Span
from tests.support.waiting import wait_for

STEPS = ["claim", "fetch", "decode", "judge", "record"]
SUBMIT = """
import sys
from producer import Client
with Client() as client:
    print(*(client.submit(uri, "llavaguard-default").id for uri in sys.argv[1:]), sep="\\n")
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def submit(system: System, *uris: str, **env: str) -> list[str]:
    """The ids, from a service of its own that traces."""
    plain = {k: os.environ[k] for k in ("PATH", "HOME") if k in os.environ}
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SUBMIT, *uris],
        env=plain | system.env | env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return said.stdout.split()


def trace_of(collector: Collector, id_: str) -> list[Span]:
    found = [span for span in collector.spans if span.trace == id_.replace("-", "")]
    return sorted(found, key=lambda span: span.start_ns)


def test_an_assessment_is_one_trace_from_submit_to_record(system: System, collector: Collector) -> None:
    to = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    with system.worker(**to) as worker:
        judged, gone = submit(system, system.image("a"), f"file://{system.folder}/gone.png", **to)
        system.wait_for_counts(done=1, failed=1)
        wait_for(lambda: len(trace_of(collector, judged)) == 7, timeout_s=20, what="the trace")
        worker.stop()
    spans = {span.name: span for span in trace_of(collector, judged)}
    assert set(spans) == {"submit", "attempt", *STEPS}
    assert (spans["submit"].service, spans["attempt"].service) == ("vetline-producer", "vetline-worker")
    assert spans["submit"].parent == ""
    assert spans["attempt"].parent == spans["submit"].id
    assert {spans[step].parent for step in STEPS} == {spans["attempt"].id}
    times = [(spans[step].start_ns, spans[step].end_ns) for step in STEPS]
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(times))
    assert spans["submit"].attributes["vetline.policy"] == "llavaguard-default@1"
    failed = {span.name: span for span in trace_of(collector, gone)}
    assert failed["attempt"].error == "not_found"
    assert set(failed) == {"submit", "attempt", "claim", "fetch", "record"}
    assert not [span for span in collector.spans if str(system.folder) in str(span)]


def test_a_share_of_assessments_is_traced_whole_or_not_at_all(system: System, collector: Collector) -> None:
    to = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "VETLINE_TRACING_RATIO": "0.3",
    }
    uris = [system.image(f"n{i}", (i, 2 * i, 3 * i)) for i in range(40)]
    with system.worker(**to) as worker:
        ids = submit(system, *uris, **to)
        system.wait_for_counts(done=40)
        assert worker.stop() == 0
    sizes = [len(trace_of(collector, id_)) for id_ in ids]
    assert set(sizes) == {0, 7}
    assert 1 <= sizes.count(7) <= 30


def test_a_collector_that_is_away_costs_nobody_a_verdict(system: System) -> None:
    to = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with system.worker(**to) as worker:
        submit(system, system.image("a"), **to)
        system.wait_for_counts(done=1)
        assert worker.stop() == 0
