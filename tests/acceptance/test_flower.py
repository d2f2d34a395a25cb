"""Flower as a person sees it: a real Chromium, a real worker, a scripted SGLang.

SCREENSHOT=docs/flower.png takes the README's picture anew.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from celery import Celery
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect, sync_playwright
from sqlalchemy import text

from moderation.services.child import free_port
from tests.acceptance.conftest import System
from tests.support.gpus import h100s
from tests.support.image_host import ImageHost
from tests.support.ledger import row
from tests.support.waiting import wait_for

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AUTH = ("vetline", "a-password-for-tests")
SECRET = "0123456789abcdef0123456789abcdefSIGNED"


@contextmanager
def flower(system: System, *options: str, **env: str) -> Iterator[str]:
    """The URL of a running `vetline flower`."""
    port = free_port()
    log = system.folder / "flower.log"
    plain = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
    kept = {"FLOWER_BASIC_AUTH": ":".join(AUTH), "VETLINE_DATA_DIR": str(system.folder / "data")}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moderation.cli", "flower", "--port", str(port), *options],
            env=plain | system.env | kept | env,
            stdout=out,
            stderr=out,
        )
    with process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: status(f"{url}/healthcheck") == 200 or process.poll() is not None, timeout_s=40)
            assert process.poll() is None, log.read_text()[-2000:]
            yield url
        finally:
            process.terminate()


def status(url: str, *, auth: bool = True) -> int:
    try:
        with urllib.request.urlopen(asked(url, auth=auth), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as refused:
        with refused:
            return refused.code
    except OSError:
        return 0


def asked(url: str, *, auth: bool = True, **more: Any) -> urllib.request.Request:
    request = urllib.request.Request(url, **more)
    if auth:
        request.add_header("Authorization", "Basic " + b64encode(":".join(AUTH).encode()).decode())
    return request


def body(url: str) -> str:
    with urllib.request.urlopen(asked(url), timeout=10) as answer:
        return str(answer.read().decode())


@contextmanager
def chromium() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(
            http_credentials={"username": AUTH[0], "password": AUTH[1]},
            viewport={"width": 1800, "height": 620},
        )
        yield context.new_page()
        browser.close()


def picture(system: System, name: str, hue: int) -> str:
    path = system.folder / "photographs" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    image = Image.new("RGB", (320, 240), (hue, 120, 200 - hue))
    ImageDraw.Draw(image).ellipse((60, 40, 260, 200), fill=(240, hue, 90))
    image.save(path)
    return f"file://{path}"


def test_flower_says_which_image_where_it_is_and_what_came_of_it(system: System) -> None:
    with flower(system) as url, system.worker("--name", "sglang-gpu0-h100@host-1"):
        names = ("sunset", "harbour", "portrait", "market")
        tickets = {
            name: system.client.submit(picture(system, name, 20 * i), "llavaguard-default")
            for i, name in enumerate(names)
        }
        system.wait_for_counts(done=4)
        system.server.script(default={"rating": "Unsafe", "category": "O3: Sexual Content"})
        system.client.submit(picture(system, "statue", 40), "newsroom")
        system.wait_for_counts(done=5)
        system.server.script(default={"kind": "hang"})
        held = system.client.submit(picture(system, "in-hand", 90), "llavaguard-default")
        gone = system.client.submit(f"file://{system.folder}/photographs/gone.png", "llavaguard-default")
        plain = Celery(broker=system.env["REDIS_URL"])
        plain.conf.task_default_queue = "vetline"
        signed = f"https://user:{SECRET}@images.invalid/a.jpg?X-Amz-Signature={SECRET}"
        plain.send_task(
            "vetline.assess", kwargs={"uri": signed, "policy": "llavaguard-default"}, queue="vetline"
        )
        wait_for(lambda: '"JUDGE"' in body(f"{url}/api/tasks"), timeout_s=30, what="the state of a step")
        assert SECRET not in body(f"{url}/api/tasks")
        with chromium() as page:
            page.goto(f"{url}/tasks")
            row = lambda name: page.locator("#tasks-table tbody tr", has_text=name)  # noqa: E731
            expect(row("sunset.png")).to_contain_text("llavaguard-default@1")
            expect(row("sunset.png")).to_contain_text("SUCCESS")
            expect(row("statue.png")).to_contain_text("unsafe")
            expect(row("statue.png")).to_contain_text("newsroom@1")
            expect(row("gone.png")).to_contain_text("FAILURE")
            expect(row("gone.png")).to_contain_text("failed:not_found")
            expect(row("in-hand.png")).to_contain_text("JUDGE")
            expect(row("in-hand.png")).to_contain_text("sglang-gpu0-h100@")
            assert SECRET not in page.content()
            if target := os.environ.get("SCREENSHOT"):
                page.screenshot(path=target, clip={"x": 0, "y": 0, "width": 1800, "height": 620})
            page.goto(f"{url}/task/{tickets['sunset'].id}")
            expect(page.locator("#explain")).to_contain_text(f"vetline explain {tickets['sunset'].id}")
            expect(page.get_by_text("Terminate")).to_have_count(0)
            page.locator("#explain a").click()
            expect(page.locator("#verdict")).to_contain_text("Safe, NA: None applying")
            page.goto(f"{url}/explain/{gone.id}")
            expect(page.locator("#state")).to_have_text("failed: not_found")
            page.goto(f"{url}/task/{held.id}")
            expect(page.locator("#task-page")).to_contain_text("JUDGE")


def test_each_step_is_a_state_at_a_worker_named_after_its_gpu_and_host(system: System) -> None:
    """An image host that does not answer, a judge that does not, and a table of verdicts that somebody has locked."""
    slow = {
        "PATH": h100s(system.folder / "bin", 1),
        "CUDA_VISIBLE_DEVICES": "0",
        "VETLINE_FETCH_ALLOW_HOSTS": "127.0.0.1",
        "VETLINE_FETCH_FIRST_BYTE_TIMEOUT_S": "60",
        "VETLINE_FETCH_TOTAL_TIMEOUT_S": "60",
    }
    with (
        ImageHost() as host,
        flower(system) as url,
        system.worker("--name", "", **slow) as worker,
        system.engine.connect().execution_options(isolation_level="READ COMMITTED") as holder,
    ):
        holder.execute(text("LOCK TABLE verdict IN EXCLUSIVE MODE"))
        at = {"RECORD": system.client.submit(system.image("recorded"), "llavaguard-default").id}
        at["FETCH"] = system.client.submit(host.uri("/held"), "llavaguard-default").id
        wait_for(lambda: steps(url) == {str(at[step]): step for step in at}, timeout_s=30, what="two steps")
        system.server.script(default={"kind": "hang"})
        at["JUDGE"] = system.client.submit(system.image("judged", (1, 2, 3)), "llavaguard-default").id
        wait_for(lambda: steps(url) == {str(at[step]): step for step in at}, timeout_s=30, what="three steps")
        name = f"sglang-gpu0-h100-{worker.pid}@{socket.gethostname()}"
        assert {task["worker"] for task in tasks(url).values()} == {name}
        assert row(system.engine, at["FETCH"])["worker"] == name
        holder.rollback()
        wait_for(lambda: tasks(url)[str(at["RECORD"])]["state"] == "SUCCESS", timeout_s=20, what="a verdict")
    assert "Inspect method" not in (system.folder / "flower.log").read_text(), (
        "it asked before a worker was there"
    )


def tasks(url: str) -> dict[str, dict[str, Any]]:
    """Flower's tasks by id."""
    found: dict[str, dict[str, Any]] = json.loads(body(f"{url}/api/tasks"))
    return found


def steps(url: str) -> dict[str, str]:
    return {id_: task["state"] for id_, task in tasks(url).items()}


def test_flower_lets_nobody_in_unasked_commands_nothing_and_remembers(system: System) -> None:
    with ExitStack() as held:
        with flower(system) as url:
            held.enter_context(system.worker())  # after Flower: what nobody hears is not told
            done = system.client.submit(system.image("a"), "llavaguard-default")
            system.wait_for_counts(done=1)
            wait_for(lambda: status(f"{url}/task/{done.id}") == 200, timeout_s=20, what="the task")
            for page in ("/tasks", "/explain/" + str(done.id), "/api/tasks", "/metrics", "/broker"):
                assert status(url + page, auth=False) == 401
                assert status(url + page) == 200
            assert status(f"{url}/healthcheck", auth=False) == 200
            assert "flower_events_total" in body(f"{url}/metrics")
            broker = body(f"{url}/broker")
            assert all(
                f">{name}<" in broker.replace(" ", "").replace("\n", "")
                for name in ("vetline.due", "vetline.urgent")
            )
            assert status(f"{url}/explain/nothing") == 404
            with pytest.raises(HTTPError) as refused:
                urllib.request.urlopen(asked(f"{url}/api/worker/shutdown/w1", method="POST"), timeout=10)
            assert refused.value.code == 403
            refused.value.close()
        with flower(system) as url:
            assert status(f"{url}/task/{done.id}") == 200


@pytest.mark.parametrize(
    ("options", "told"),
    [(("--address", "0.0.0.0"), "would show images to anybody"), (("--control",), "must log in")],
)
def test_flower_is_not_opened_without_a_password(system: System, options: tuple[str, ...], told: str) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("FLOWER_")} | system.env
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "moderation.cli", "flower", *options],
        env=env | {"VETLINE_DATA_DIR": str(Path(system.folder) / "data")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 2
    assert told in ran.stderr
