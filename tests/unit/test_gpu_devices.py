"""GPUs as nvidia-smi lists them, and those that a person means."""

from pathlib import Path

import pytest

from moderation.errors import BadSetting
from tests.support.gpus import h100s, nvidia_smi
from worker.gpu.devices import GpuMissing, chosen, gpus


@pytest.fixture
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", h100s(tmp_path / "bin", 4))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("four")
def test_each_is_known_by_what_the_driver_says() -> None:
    first, *_ = gpus()
    assert (first.index, first.name, first.memory_mib) == (0, "NVIDIA H100 80GB HBM3", 81559)
    assert (first.driver, first.compute) == ("580.82.07", (9, 0))
    assert first.pin == {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("wanted", "meant"), [("all", [0, 1, 2, 3]), ("0,2", [0, 2]), (" 3 ", [3])])
def test_all_or_some_are_chosen(wanted: str, meant: list[int]) -> None:
    assert [gpu.index for gpu in chosen(wanted)] == meant


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("visible", "meant"), [("1,3", [1, 3]), ("GPU-2a3c", [2])])
def test_all_means_those_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str, meant: list[int]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.index for gpu in chosen("all")] == meant


@pytest.mark.usefixtures("four")
def test_where_none_is_visible_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(GpuMissing, match="CUDA_VISIBLE_DEVICES"):
        chosen("all")


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(("wanted", "error"), [("4", GpuMissing), ("0,0", BadSetting), ("", BadSetting)])
def test_what_is_not_there_is_said(wanted: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        chosen(wanted)


def test_a_driver_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, exit_code=9))
    with pytest.raises(GpuMissing, match="nvidia-smi lists no GPU"):
        gpus()


def test_a_machine_without_a_driver_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GpuMissing, match="no NVIDIA driver"):
        gpus()


def test_a_figure_that_is_not_known_does_not_hide_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, "NVIDIA GB10, [N/A], 580.95.05, 12.1, [N/A]"))
    assert gpus()[0].memory_mib == 0
