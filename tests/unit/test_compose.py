"""docker-compose.yml: well formed, closed to the outside, and in step with the commands and folders it names."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LASTING = {name: service for name, service in SERVICES.items() if service.get("restart") != "no"}
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
POSTGRES_LOGINS = ("worker", "flower", "watcher")
REDIS_USERS = ("admin", "producer", "worker", "flower", "watcher")
SECRETS = (
    "POSTGRES_PASSWORD",
    *(f"POSTGRES_{login.upper()}_PASSWORD" for login in POSTGRES_LOGINS),
    *(f"REDIS_{user.upper()}_PASSWORD" for user in REDIS_USERS),
    "FLOWER_PASSWORD",
    "GRAFANA_PASSWORD",
)


def each(services: dict[str, dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("service", services.values(), ids=services)


def test_it_follows_the_compose_specification() -> None:
    jsonschema.validate(COMPOSE, get_builtin_schema("vendor.compose-spec"))


def test_the_schema_refuses_what_compose_would() -> None:
    broken = {"services": {"worker": {"image": "vetline", "portz": ["5555:5555"]}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, get_builtin_schema("vendor.compose-spec"))


@pytest.mark.parametrize("name", SECRETS)
def test_a_password_has_no_default(name: str) -> None:
    used = re.findall(r"\$\{(" + name + r"[^}]*)\}", TEXT)
    assert used
    assert all(re.fullmatch(name + r":\?.+", use) for use in used)


def test_make_writes_every_password_and_nobody_else_reads_them(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run(
            ["make", "-f", ROOT / "Makefile", ".env"], cwd=tmp_path, check=True, capture_output=True
        )
    written = tmp_path / ".env"
    values = dict(line.split("=", 1) for line in written.read_text().splitlines())
    assert set(values) == set(SECRETS)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values.values())
    assert len(set(values.values())) == len(values)
    assert written.stat().st_mode & 0o077 == 0


def test_passwords_once_made_are_kept_and_those_of_a_new_release_added(tmp_path: Path) -> None:
    written = tmp_path / ".env"
    written.write_text("POSTGRES_PASSWORD=kept\nIMAGES=/srv/images")
    subprocess.run(["make", "-f", ROOT / "Makefile", ".env"], cwd=tmp_path, check=True, capture_output=True)
    first, second, *added = written.read_text().splitlines()
    assert (first, second) == ("POSTGRES_PASSWORD=kept", "IMAGES=/srv/images")
    assert {line.partition("=")[0] for line in added} == set(SECRETS) - {"POSTGRES_PASSWORD"}


@pytest.mark.parametrize(
    ("name", "login", "user"),
    [
        ("worker-cpu", "worker", "worker"),
        ("worker-gpu", "worker", "worker"),
        ("flower", "flower", "flower"),
        ("metrics", "watcher", "watcher"),
        (
            "vetline",
            "vetline",
            "producer",
        ),  # people's: what changes policies, pauses and retries is the owner's
        ("migrate", "vetline", None),
    ],
)
def test_each_container_has_its_own_login_and_user(name: str, login: str, user: str | None) -> None:
    env = SERVICES[name]["environment"]
    mine = "POSTGRES_PASSWORD" if login == "vetline" else f"POSTGRES_{login.upper()}_PASSWORD"
    assert env["DATABASE_URL"].startswith(f"postgresql://{login}:${{{mine}:?")
    if user is None:
        assert "REDIS_URL" not in env
    else:
        assert env["REDIS_URL"].startswith(f"redis://{user}:${{REDIS_{user.upper()}_PASSWORD:?")


def test_the_servers_are_given_every_password_that_a_container_uses() -> None:
    there = {*SERVICES["redis"]["environment"], *SERVICES["logins"]["environment"], "POSTGRES_PASSWORD"}
    used = {
        name
        for service in OURS.values()
        for name in re.findall(r"(\w+_PASSWORD):", str(service["environment"]))
    }
    assert used - {"FLOWER_PASSWORD"} <= there
    assert "admin" not in {user for user in REDIS_USERS if f"REDIS_{user.upper()}_PASSWORD" in used}


@each(SERVICES)
def test_nothing_is_reachable_from_outside(service: dict[str, Any]) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service.get("network_mode") is None
    assert not service.get("privileged")


@each(SERVICES)
def test_images_are_pinned(service: dict[str, Any]) -> None:
    if "build" not in service:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", service["image"])


@each(OURS)
def test_our_images_are_built_from_files_that_are_there(service: dict[str, Any]) -> None:
    text = (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE), "runs as root"
    for base in re.findall(r"^ARG \w+_IMAGE=(.+)$", text, re.MULTILINE):
        assert re.search(r":\d+\.\d+\.\d+-", base), f"{base} is not pinned"
    ignored = (ROOT / ".dockerignore").read_text()
    for copied in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in copied.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source.split('/')[0]}" in ignored, f"{source} does not reach the build"


@each(OURS)
def test_bytecode_that_is_not_written_at_a_start_is_written_at_the_build(service: dict[str, Any]) -> None:
    """Else each start would compile all that it imports."""
    text = (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).read_text()
    assert "PYTHONDONTWRITEBYTECODE=1" in text
    compiles, installs = text.find("UV_COMPILE_BYTECODE=1"), text.find("uv pip install")
    assert 0 < compiles < installs


@each(LASTING)
def test_what_lasts_has_a_health_check_and_bounded_logs(service: dict[str, Any]) -> None:
    if service.get("profiles") != ["command"]:
        assert service["healthcheck"]["test"]
    assert service["logging"]["options"]["max-size"]


@each(OURS)
def test_our_containers_hold_no_more_rights_than_they_need(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["init"] is True


def test_workers_start_after_the_tables_are_there() -> None:
    for name in ("worker-cpu", "worker-gpu", "flower", "metrics"):
        waits = SERVICES[name]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully"
        assert waits["logins"]["condition"] == "service_completed_successfully"
        assert waits["redis"]["condition"] == "service_healthy"
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert SERVICES["migrate"]["restart"] == "no"


@each(SERVICES)
def test_named_volumes_and_dependencies_exist(service: dict[str, Any]) -> None:
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    for volume in service.get("volumes", []):
        source = volume.split(":", 1)[0]
        assert source.startswith(("$", ".", "/")) or source in COMPOSE["volumes"]


def test_each_worker_has_a_profile_of_its_own_and_the_gpu_one_asks_for_a_gpu() -> None:
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_a_worker_has_longer_to_stop_than_it_needs_to_drain() -> None:
    from worker.settings import WorkerSettings

    for name in ("worker-cpu", "worker-gpu"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > WorkerSettings().drain_s + 5


def test_a_worker_is_healthy_when_it_is_ready_itself() -> None:
    from worker.health.probe_address import ProbeSettings

    for name in ("worker-cpu", "worker-gpu"):
        worker = SERVICES[name]
        assert worker["healthcheck"]["test"] == ["CMD", "vetline", "worker-status"]
        probes = ProbeSettings(
            **{
                setting.removeprefix("VETLINE_PROBE_").lower(): value
                for setting, value in worker["environment"].items()
                if setting.startswith("VETLINE_PROBE_")
            }
        )
        assert probes.address == "0.0.0.0", "other containers scrape its metrics"
        assert str(probes.port) not in str(worker.get("ports")), "and nobody else"


def test_the_commands_are_those_of_vetline() -> None:
    from typer.testing import CliRunner

    from moderation.cli.main import command_line

    lines = [
        service["command"]
        for service in OURS.values()
        if "entrypoint" not in service and "command" in service
    ]
    lines += [
        s["healthcheck"]["test"][2:]
        for s in OURS.values()
        if s.get("healthcheck", {}).get("test", "")[1:2] == ["vetline"]
    ]
    assert len(lines) >= 4
    for words in lines:
        plain = [word for word in words if not word.startswith("-")]
        depth = 2 if plain[0] == "db" else 1
        shown = CliRunner().invoke(command_line(), [*plain[:depth], "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, f"vetline {' '.join(words)}: {shown.output}"
        for option in (word for word in words if word.startswith("--")):
            assert option in shown.output, f"vetline {plain[0]} has no {option}"


def test_the_shell_in_the_command_of_redis_writes_its_users_and_runs_it(tmp_path: Path) -> None:
    """With a stand-in for redis-server that says what it was given; a real one loads such a file in another test."""
    shell, flag, script = SERVICES["redis"]["command"]
    assert (shell, flag) == ("sh", "-c")
    (mounted,) = (v for v in SERVICES["redis"]["volumes"] if v.startswith("./"))
    source, target, _ = mounted.split(":")
    script = script.replace("$$", "$").replace("/tmp/", f"{tmp_path}/").replace(target, str(ROOT / source))
    stand_in = tmp_path / "redis-server"
    stand_in.write_text('#!/bin/sh\ntest "$1" = --aclfile && cat "$2"\n')
    stand_in.chmod(0o755)
    passwords = {name: "x" for name, value in SERVICES["redis"]["environment"].items() if value}
    ran = subprocess.run(
        ["sh", "-c", script],
        env=passwords | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[1] for line in ran.stdout.splitlines()] == ["default", *REDIS_USERS]
    assert (tmp_path / "users.acl").stat().st_mode & 0o077 == 0


def test_what_prometheus_scrapes_is_served_there() -> None:
    config = yaml.safe_load((ROOT / "infra/prometheus/prometheus.yml").read_text())
    ledger, workers = config["scrape_configs"]
    (target,) = ledger["static_configs"][0]["targets"]
    service, port = target.split(":")
    assert port in SERVICES[service]["command"]
    (found,) = workers["dns_sd_configs"]
    assert set(found["names"]) == {"worker-gpu", "worker-cpu"} <= set(SERVICES)


@each({name: SERVICES[name] for name in ("prometheus", "grafana")})
def test_what_monitoring_is_provisioned_from_is_there(service: dict[str, Any]) -> None:
    mounted = [volume.split(":")[0] for volume in service["volumes"] if volume.startswith("./")]
    assert mounted
    for source in mounted:
        assert any((ROOT / source).rglob("*.*"))
