"""What a worker calls its GPU, in its own name and in its metrics."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gpus import h100s, nvidia_smi
from worker.gpu.name import gpu_name


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The name is found once in a process."""
    gpu_name.cache_clear()
    yield
    gpu_name.cache_clear()


@pytest.mark.parametrize(
    ("visible", "name"),
    [(None, "gpu0-h100"), ("1", "gpu1-rtx-a6000"), ("GPU-8a5c0d3e-11", "gpu-8a5c0d3e-h100"), ("", "")],
)
def test_it_is_the_visible_one_by_the_drivers_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, name: str
) -> None:
    for bus, model in (("0000:01:00.0", "NVIDIA H100 80GB HBM3"), ("0000:02:00.0", "RTX A6000")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 32\n")
    _see(monkeypatch, visible)
    assert gpu_name(tmp_path) == name


def test_without_the_drivers_files_nvidia_smi_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", h100s(tmp_path / "bin", 2))
    _see(monkeypatch, "1")
    assert gpu_name(tmp_path / "none") == "gpu1-h100"


def test_a_machine_without_a_gpu_has_no_name_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path / "bin", exit_code=9))
    _see(monkeypatch, None)
    assert gpu_name(tmp_path / "none") == ""


def _see(monkeypatch: pytest.MonkeyPatch, visible: str | None) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
