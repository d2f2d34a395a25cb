"""A real Prometheus on loopback with our rules, made quick; and what their conditions are about without one."""

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from moderation.services.child import free_port
from tests.support.waiting import wait_for

PROMETHEUS = Path(__file__).parents[2] / "infra" / "prometheus"
RULES: dict[str, Any] = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_FASTER = 200  # ten minutes of the rules are three seconds of the test
_LEAST_S = 4.0  # a window holds some scrapes


def is_there() -> bool:
    return shutil.which("prometheus") is not None


def quickened(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The same rule with each window and its `for` shortened."""

    def window(found: re.Match[str]) -> str:
        return f"[{max(_LEAST_S, int(found[1]) * _SECONDS[found[2]] / _FASTER):.0f}s]"

    pause = re.fullmatch(r"(\d+)([smh])", rule.get("for", "0s"))
    assert pause is not None
    shorter = f"{max(1, int(pause[1]) * _SECONDS[pause[2]] // _FASTER)}s"
    return {**rule, "expr": re.sub(r"\[(\d+)([smh])\]", window, rule["expr"]), "for": shorter}


class Alerts:
    """What a running Prometheus says."""

    def __init__(self, url: str) -> None:
        self._url = url

    def firing(self) -> dict[str, dict[str, str]]:
        """Annotations by the name of each alert that fires."""
        found = self._asked("/api/v1/alerts")["alerts"]
        return {a["labels"]["alertname"]: a["annotations"] for a in found if a["state"] == "firing"}

    def is_scraping(self, count: int) -> bool:
        active = self._asked("/api/v1/targets")["activeTargets"]
        return len([target for target in active if target["health"] == "up"]) == count

    def _asked(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self._url + path, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)["data"]
        return found


@contextmanager
def prometheus(*targets: str, alerts: tuple[str, ...]) -> Iterator[Alerts]:
    """Prometheus with these rules of ours, quickened, that scrapes these addresses (host:port) twice a second."""
    with tempfile.TemporaryDirectory(prefix="vetline-prometheus-") as name:
        folder = Path(name)
        port = free_port()
        _configure(folder, targets, [quickened(RULES[alert]) for alert in alerts])
        with (folder / "log").open("w") as log, _running(folder, port, log):
            url = f"http://127.0.0.1:{port}"
            wait_for(
                lambda: _is_ready(url),
                timeout_s=30,
                what=f"Prometheus: {(folder / 'log').read_text()[-500:]}",
            )
            found = Alerts(url)
            wait_for(lambda: found.is_scraping(len(targets)), timeout_s=30, what="the first scrapes")
            yield found


def _configure(folder: Path, targets: tuple[str, ...], rules: list[dict[str, Any]]) -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    config["scrape_configs"] = [{"job_name": "vetline", "static_configs": [{"targets": list(targets)}]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "tried", "rules": rules}]}))


@contextmanager
def _running(folder: Path, port: int, log: Any) -> Iterator[None]:
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=log,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/-/ready", timeout=5) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def scraped(address: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels, as /metrics of host:port shows it now."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def rate_of(look: Callable[[], float], over_s: float) -> float:
    """How much a counter grows a second, from two looks."""
    before, begun = look(), time.monotonic()
    wait_for(lambda: time.monotonic() - begun >= over_s, timeout_s=over_s + 5, what="the second look")
    return (look() - before) / (time.monotonic() - begun)
