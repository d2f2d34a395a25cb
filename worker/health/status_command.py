"""`vetline worker-status`: asks the workers of this host how they are, and says it in words."""

import http.client
from collections.abc import Sequence

from pydantic import ValidationError

from moderation.cli.output import print_json, say
from moderation.exit_codes import FAILED, SERVICE_DOWN
from moderation.worker_status import WorkerStatus
from worker.health.probe_address import LOOPBACK, ProbeAddress, ProbeSettings, probe_addresses

_ANSWER_S = 3.0  # probes answer from memory
_EVERYWHERE = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - where one listens, not where one is asked


def worker_status(*, port: int | None, live_only: bool, as_json: bool) -> int:
    """Say how each worker is, on stdout. 0: all are ready (or live); 75: one waits for something; 1: one is not well.

    port: ask the one that answers there; None asks those of this folder, else at VETLINE_PROBE_PORT.
    """
    asked = _to_ask(port)
    reports = [(probe, _report(probe)) for probe in asked]
    if as_json:
        print_json([report or {"live": False, **probe.model_dump()} for probe, report in reports])
    elif not reports:
        say("no worker runs here")
    else:
        for probe, report in reports:
            say("\n".join(_words(probe, report)))
    return _code([report for _, report in reports], live_only=live_only)


def _to_ask(port: int | None) -> Sequence[ProbeAddress]:
    settings = ProbeSettings()
    if port is None and (probes := probe_addresses()):
        return probes
    wanted = port or settings.port
    return [ProbeAddress(pid=0, address=settings.address, port=wanted)] if wanted else []


def _report(probe: ProbeAddress) -> WorkerStatus | None:
    """None where nobody answers, or somebody else does."""
    address = _EVERYWHERE.get(probe.address, probe.address)
    connection = http.client.HTTPConnection(address, probe.port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/status")
        report = WorkerStatus.model_validate_json(connection.getresponse().read(1_000_000))
    except (OSError, http.client.HTTPException, ValidationError):
        return None
    finally:
        connection.close()
    return report if probe.pid in (0, report.pid) else None


def _words(probe: ProbeAddress, report: WorkerStatus | None) -> list[str]:
    if report is None:
        who = f"the worker with process number {probe.pid}" if probe.pid else "no worker"
        return [
            f"{who} does not answer on port {probe.port}"
            if probe.pid
            else f"{who} answers on port {probe.port}"
        ]
    state = "ready" if report.ready else "not ready" if report.live else "hangs"
    limit = f"{report.in_flight} of {report.in_flight_most} asked ({report.in_flight_phase})"
    head = f"{report.name} (process {report.pid}): {state}; {report.in_hand} of {report.in_hand_most} in hand, {limit}"
    waits = [f"  {wait}" for wait in report.waiting]
    return [head, *(f"  {line}" for line in report.hangs), *waits]


def _code(reports: Sequence[WorkerStatus | None], *, live_only: bool) -> int:
    if not reports or any(report is None or not report.live for report in reports):
        return FAILED
    return 0 if live_only or all(report is not None and report.ready for report in reports) else SERVICE_DOWN
