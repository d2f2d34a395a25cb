"""What a server is started with, and what is made of what it says when it does not start."""

import json
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from moderation.errors import BadSetting, Misuse, RuntimeUnavailable
from worker.runtime import versions
from worker.runtime.command import command, environment, key_file
from worker.runtime.diagnosis import BROKEN_POOL, cause
from worker.runtime.preflight import preflight
from worker.runtime.settings import RuntimeSettings, runtime_settings
from worker.runtime.weights import Weights
from worker.settings import WorkerSettings

WEIGHTS = Weights("org/model", Path("/weights"))


def line_of(settings: RuntimeSettings) -> list[str]:
    return command(settings, WEIGHTS, versions.newest(), port=1234, key_file=Path("/key.yaml"))


def value(line: list[str], flag: str) -> str:
    """The last one, as argparse takes it."""
    return line[len(line) - 1 - line[::-1].index(flag) + 1]


def test_it_serves_on_loopback_behind_a_key_with_room_for_the_longest_prompt() -> None:
    line = line_of(RuntimeSettings())
    assert line[:3] == [sys.executable, "-m", "sglang.launch_server"]
    assert [value(line, flag) for flag in ("--host", "--port")] == ["127.0.0.1", "1234"]
    assert value(line, "--config") == "/key.yaml"
    assert "--api-key" not in line, "anybody on the machine can read arguments"
    assert value(line, "--context-length") == "12288"
    assert value(line, "--chunked-prefill-size") == "-1"


def test_the_key_is_in_a_file_that_only_we_can_read_while_the_server_starts() -> None:
    with key_file("the key") as path:
        assert json.loads(path.read_text()) == {"api-key": "the key"}
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


def test_flags_of_ones_own_win() -> None:
    line = line_of(RuntimeSettings(flags="--attention-backend triton --context-length 4096"))
    assert value(line, "--attention-backend") == "triton"
    assert value(line, "--context-length") == "4096"


def test_a_cpu_gets_no_cuda_graphs() -> None:
    assert not any("cuda-graph" in word for word in line_of(RuntimeSettings(device="cpu")))


def test_the_server_is_given_no_way_into_the_ledger_and_no_credentials() -> None:
    around = {
        "PATH": "/bin", "DATABASE_URL": "x", "REDIS_URL": "x", "AWS_SECRET_ACCESS_KEY": "x", "HF_TOKEN": "x",
        "VETLINE_PLUGIN_IMAGE_THREADS": "4", "CUDA_VISIBLE_DEVICES": "1", "SGLANG_TIMEOUT_KEEP_ALIVE": "30",
    }  # fmt: skip
    given = environment(RuntimeSettings(), around)
    assert "x" not in given.values()
    assert (given["CUDA_VISIBLE_DEVICES"], given["VETLINE_PLUGIN_IMAGE_THREADS"]) == ("1", "4")
    assert given["HF_HUB_OFFLINE"] == "1"
    assert given["SGLANG_TIMEOUT_KEEP_ALIVE"] == "30", "set on purpose"
    assert given["SGLANG_EXTERNAL_MODEL_PACKAGE"]
    assert "SGLANG_EXTERNAL_MODEL_PACKAGE" not in environment(RuntimeSettings(plugin=False), around)


def test_an_unknown_release_warns_and_is_taken_for_the_nearest_older_one() -> None:
    with capture_logs() as logs:
        found = versions.traits_of("0.5.20.post1")
    assert [entry["event"] for entry in logs] == ["sglang_version_untried"]
    assert (found.known, found.clean_exit, found.needs_freeze) == (False, -9, True)
    assert versions.traits_of("0.6.1").needs_freeze is False
    assert versions.traits_of("what").clean_exit == -9, "nothing is older: the oldest"


def test_known_releases_are_told_apart_and_warn_of_nothing() -> None:
    with capture_logs() as logs:
        old, new = versions.traits_of("0.5.16"), versions.traits_of("0.5.23")
    assert not logs
    assert (old.pool_heals, new.pool_heals) == (False, True)
    assert versions.newest() == new


def test_an_interpreter_without_sglang_has_no_version() -> None:
    assert versions.installed(Path(sys.executable)) is None
    assert versions.installed(Path("/nowhere/python")) is None


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("huggingface_hub.errors.GatedRepoError: 403 Client Error.", "accept its licence at .*/org/model"),
        ("requests.HTTPError: 401 Client Error: Unauthorized", "does not accept HF_TOKEN"),
        ("launch_server.py: error: unrecognized arguments: --new-flag 3", "does not know --new-flag 3"),
        ("RuntimeError: No CUDA GPUs are available", "no usable GPU"),
        ("/opt/python: Error while finding module: No module named 'sglang'", r"vetline\[gpu\]"),
        ("OSError: [Errno 28] No space left on device", "no space is left"),
        ("safetensors_rust.SafetensorError: MetadataIncompleteBuffer", "damaged"),
    ],
)
def test_what_only_a_person_can_mend_is_said_with_what_to_do(said: str, advice: str) -> None:
    found = cause(["loading", said, "bye"], model="org/model", what="SGLang did not start")
    assert isinstance(found, BadSetting)
    with pytest.raises(BadSetting, match=advice):
        raise found


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", "memory is not free"),
        ("OSError: [Errno 98] Address already in use", "port was taken"),
        ("KeyError: 'odd'", "KeyError: 'odd'"),
        ("", "it said nothing"),
    ],
)
def test_what_another_start_may_mend_is_no_misuse(said: str, says: str) -> None:
    found = cause([said] if said else [], model="m", what="SGLang did not start")
    assert isinstance(found, RuntimeUnavailable)
    assert says in str(found)


def test_a_broken_pool_is_known_by_its_line() -> None:
    assert BROKEN_POOL.search("concurrent.futures.process.BrokenProcessPool: A process in the process pool")
    assert not BROKEN_POOL.search("GET /health 200 OK")


def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VETLINE_RUNTIME_STOP_S", "soon")
    with pytest.raises(BadSetting, match="VETLINE_RUNTIME_STOP_S"):
        runtime_settings()


def test_a_worker_with_neither_sglang_nor_a_server_is_told_what_it_can_do() -> None:
    with pytest.raises(Misuse, match=r"has no sglang: pip install .*--sglang-url.*--judge open-nsfw"):
        preflight(WorkerSettings())


def test_a_worker_that_starts_no_server_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    preflight(WorkerSettings(judge="open-nsfw"))
    preflight(WorkerSettings(sglang_url="http://127.0.0.1:1"))
    monkeypatch.setenv("VETLINE_SGLANG_URL", "http://127.0.0.1:1")
    preflight(WorkerSettings())
