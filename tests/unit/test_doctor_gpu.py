"""What `vetline doctor` says of a GPU host, with a scripted driver and a scripted SGLang."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.checkpoint import write_checkpoint
from tests.support.gpus import nvidia_smi
from worker.doctor.check import Check, CheckState
from worker.doctor.gpu import gpu_host
from worker.runtime.settings import RuntimeSettings

H100 = "NVIDIA H100 80GB HBM3, 81559, 580.82.07, 9.0, 4"
Look = Callable[..., dict[str, Check]]


def python_with(folder: Path, version: str, *, fault: str = "") -> Path:
    """An interpreter that has this sglang, whose import fails with `fault` where that is given."""
    script = folder / "python"
    imports = f"echo '{fault}' >&2; exit 1" if fault else "exit 0"
    script.write_text(f'#!/bin/sh\ncase "$2" in *metadata*) echo {version};; *) {imports};; esac\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    write_checkpoint(tmp_path / "weights")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))

    def checks(*gpus: str, version: str = "0.5.23", fault: str = "", **more: object) -> dict[str, Check]:
        monkeypatch.setenv("PATH", nvidia_smi(tmp_path / "bin", *gpus))
        named = {"model": str(tmp_path / "weights"), "python": python_with(tmp_path, version, fault=fault)}
        return {check.name: check for check in gpu_host(RuntimeSettings(**(named | more)))}

    return checks


def test_a_host_that_lacks_nothing_has_no_problem(look: Look) -> None:
    found = look(H100, H100)
    assert {name for name, check in found.items() if check.state is CheckState.PROBLEM} <= {"memory"}
    assert found["gpu"].says == "0: NVIDIA H100 80GB HBM3, 80 GiB; 1: NVIDIA H100 80GB HBM3, 80 GiB"
    assert (found["sglang"].state, found["sglang"].says) == (CheckState.OK, "0.5.23")
    assert found["weights"].state is CheckState.OK


def test_no_gpu_is_a_problem_with_a_way_out(look: Look) -> None:
    found = look()["gpu"]
    assert found.state is CheckState.PROBLEM
    assert "--judge open-nsfw" in found.advice


@pytest.mark.parametrize(
    ("gpu", "state", "words"),
    [
        ("Tesla P100, 16384, 580.1, 6.0, 0", CheckState.PROBLEM, "compute capability 6.0"),
        ("Tesla T4, 15360, 580.1, 7.5, 0", CheckState.NOTE, "slowly"),
        ("NVIDIA T400, 4096, 580.1, 7.5, 0", CheckState.PROBLEM, "4096 MiB are too few"),
        ("NVIDIA L4, 23034, 580.1, 8.9, 20000", CheckState.PROBLEM, "held by other programs"),
    ],
)
def test_a_gpu_that_does_not_fit_is_named_with_the_reason(
    look: Look, gpu: str, state: CheckState, words: str
) -> None:
    found = look(gpu)["gpu 0"]
    assert found.state is state
    assert words in found.says


def test_an_old_driver_is_told_by_the_cuda_that_is_installed(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "site" / "nvidia_cuda_runtime-13.0.96.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: nvidia-cuda-runtime\nVersion: 13.0.96\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = look("NVIDIA L4, 23034, 550.54, 8.9, 0")["driver"]
    assert (found.state, found.advice) == (CheckState.PROBLEM, "install driver 580 or newer")
    assert look(H100)["driver"].state is CheckState.OK


def test_an_sglang_that_cannot_be_imported_says_why(look: Look) -> None:
    found = look(H100, fault="ImportError: libcuda.so.1")["sglang"]
    assert found.state is CheckState.PROBLEM
    assert "libcuda.so.1" in found.says


def test_a_release_that_was_never_tried_is_noted(look: Look) -> None:
    assert look(H100, version="0.5.99")["sglang"].state is CheckState.NOTE


def test_no_sglang_says_what_to_install(look: Look) -> None:
    found = look(H100, python=Path("/nowhere/python"))["sglang"]
    assert found.state is CheckState.PROBLEM
    assert "pip install 'vetline[worker,gpu]'" in found.advice


def test_weights_that_are_not_here_are_downloaded_or_are_a_problem(look: Look, tmp_path: Path) -> None:
    absent = {"model": "someone/LlavaGuard"}
    assert look(H100, **absent)["weights"].state is CheckState.NOTE
    assert look(H100, offline=True, **absent)["weights"].state is CheckState.PROBLEM
    assert look(H100, model=str(tmp_path / "nothing"))["weights"].state is CheckState.PROBLEM
