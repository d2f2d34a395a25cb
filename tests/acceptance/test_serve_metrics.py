"""The metrics of a real `vetline serve`: on a port of their own, by route and status, without ids."""

import re
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from producer.serve.tokens import Role
from tests.support.commands import run
from tests.support.ledger import POLICY
from tests.support.serve import RunningApi

Counts = dict[tuple[str, ...], float]


@pytest.fixture
def seeded(services_env: dict[str, str]) -> dict[str, str]:
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    engine.dispose()
    return services_env


def read(url: str) -> Counts:
    """What it counts, by the name of the series and its labels' values."""
    families = text_string_to_metric_families(httpx.get(url, trust_env=False, timeout=30).text)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, *(v for k, v in sorted(s.labels.items()) if k != "le")): s.value for s in samples}


def test_requests_are_counted_by_route_and_status_and_submissions_by_policy(
    seeded: dict[str, str], tmp_path: Path
) -> None:
    with RunningApi(tmp_path, seeded, "--metrics-port", "0") as api:
        found = re.search(r"metrics: (http://127\.0\.0\.1:\d+/metrics)", api.log.read_text())
        assert found, "on loopback, and it says where"
        images = [
            {"uri": f"https://images.test/{n}.jpg", "policy": POLICY, "key": f"k{n}"} for n in (1, 2, 2)
        ]
        assert api.submit(images).status_code == 202
        assert api.submit({"uri": "no image"}).status_code == 422
        for _ in range(2):
            assert api.get(f"/v1/assessments/{uuid4()}").status_code == 404
        assert api.get("/v1/batches/a/b").status_code == 404
        assert api.http.get("/v1/batches/secret").status_code == 401
        assert api.get(f"/made-up/{uuid4()}").status_code == 404
        assert api.http.get("/metrics", headers=api.bearer(Role.ADMIN)).status_code == 404, (
            "not on its own port"
        )
        counted = read(found[1])
        requests = {key[1:]: n for key, n in counted.items() if key[0] == "vetline_door_seconds_count"}
    assert requests.pop(("/live", "200")) >= 1
    assert requests == {
        ("/v1/assessments", "202"): 1,
        ("/v1/assessments", "422"): 1,
        ("/v1/assessments/{id}", "404"): 2,
        ("/v1/batches/{name}", "404"): 1,
        ("/v1/batches/{name}", "401"): 1,
        ("none", "404"): 2,
    }
    assert (counted["vetline_accepted_total", POLICY], counted["vetline_known_total", POLICY]) == (2, 1)
    assert counted[("vetline_submit_seconds_count",)] == 1


def test_it_serves_no_metrics_unless_told_and_says_where_it_cannot(
    seeded: dict[str, str], tmp_path: Path
) -> None:
    with RunningApi(tmp_path, seeded) as api:
        assert "metrics: " not in api.log.read_text()
        taken = api.url.rpartition(":")[2]
        ended = run(tmp_path, "serve", "--no-tokens", "--port", "0", "--metrics-port", taken)
    assert ended.returncode == 2
    assert f"cannot serve metrics on 127.0.0.1 port {taken}" in ended.stderr
