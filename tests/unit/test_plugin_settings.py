"""The plugin's settings, and how SGLang is told to load it."""

import json
import subprocess
import sys

import pytest

from worker.runtime.plugin import launch
from worker.runtime.plugin.settings import PluginSettings


def test_defaults_change_nothing_of_what_the_model_sees() -> None:
    assert PluginSettings.read({}).max_image_side_px == 0


def test_each_setting_is_read_from_its_variable() -> None:
    given = {
        "VETLINE_PLUGIN_IMAGE_THREADS": "3",
        "VETLINE_PLUGIN_FUSED_TOWER": "0",
        "VETLINE_PLUGIN_IMAGE_TIMEOUT_S": "2.5",
    }
    read = PluginSettings.read(given)
    assert (read.image_threads, read.fused_tower, read.image_timeout_s) == (3, False, 2.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("IMAGE_THREADS", "many"), ("FUSED_TOWER", "perhaps"), ("TOWER_TILES", "-1"), ("IMAGE_TIMEOUT_S", "")],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"VETLINE_PLUGIN_{name}"):
        PluginSettings.read({f"VETLINE_PLUGIN_{name}": value})


def test_the_packages_named_for_sglang_are_importable_and_hold_one_module_each() -> None:
    import importlib
    import pkgutil

    for package in (launch.PROCESSORS, launch.MODELS):
        found = [name for _, name, _ in pkgutil.iter_modules(importlib.import_module(package).__path__)]
        assert found == ["llava"]  # SGLang imports every module it finds there


def test_decode_graphs_reach_up_to_the_number_running() -> None:
    flags = launch.flags(running=128)
    at = flags.index("--cuda-graph-bs-decode")
    sizes = [int(flag) for flag in flags[at + 1 :]]
    assert (sizes[0], sizes[-1]) == (1, 128)
    assert flags[flags.index("--max-running-requests") + 1] == "128"


@pytest.mark.parametrize("module", ["launch", "settings", "transport", "image_rows", "pixel_table"])
def test_the_plugin_brings_nothing_of_the_rest_into_sglang(module: str) -> None:
    program = f"import json, sys, worker.runtime.plugin.{module}; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(json.loads(said.stdout))
    ours = {name for name in loaded if name.split(".")[0] in ("worker", "moderation", "producer")}
    assert all(
        name in ("worker", "worker.runtime") or name.startswith("worker.runtime.plugin") for name in ours
    )
    assert loaded.isdisjoint(
        {"celery", "sqlalchemy", "sqlmodel", "redis", "pydantic", "structlog", "torch", "sglang"}
    )
