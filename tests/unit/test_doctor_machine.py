"""What `vetline doctor` says of the machine: image types and the disk of the model cache."""

import shutil
from pathlib import Path

import pytest
from PIL import features

from tests.support.checkpoint import write_checkpoint
from worker.doctor import machine, weights
from worker.doctor.check import Check, CheckState
from worker.runtime.settings import RuntimeSettings


def looked_at(runtime: RuntimeSettings) -> dict[str, Check]:
    return {check.name: check for check in weights.model(runtime)}


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """As many bytes on every disk."""
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12 - count, count)
    )


def test_weights_that_are_yet_to_come_need_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    free(monkeypatch, 9_000_000_000)
    found = looked_at(RuntimeSettings())
    assert found["weights"].state is CheckState.NOTE
    assert "HF_TOKEN" in found["weights"].advice
    assert (found["model cache"].state, found["model cache"].says) == (
        CheckState.OK,
        f"9.0 GB free for {tmp_path / 'hub' / 'hub'}",
    )
    free(monkeypatch, 3_000_000_000)
    found = looked_at(RuntimeSettings())
    assert found["model cache"].state is CheckState.PROBLEM
    assert "HF_HOME" in found["model cache"].advice


def test_weights_in_a_folder_need_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "weights")
    free(monkeypatch, 0)
    found = looked_at(RuntimeSettings(model=str(tmp_path / "weights")))
    assert {name: check.state for name, check in found.items()} == {"weights": CheckState.OK}


def test_types_that_phones_make_and_nothing_here_reads_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    monkeypatch.setattr(machine, "_version", lambda name: None if name == "pillow-heif" else "13.0.0")
    avif, heif = machine.image_types()
    assert (avif.state, heif.state) == (CheckState.NOTE, CheckState.NOTE)
    assert "unsupported_type" in avif.says
    assert (heif.says.split(",")[0], heif.advice) == ("HEIF", "vetline[heif]")
