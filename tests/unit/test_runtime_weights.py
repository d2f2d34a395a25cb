"""Weights: found, looked over and named before a server starts; what is wrong is one line that says what to do."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from moderation.errors import BadSetting
from tests.support.checkpoint import write_checkpoint
from worker.runtime.settings import HubSettings, RuntimeSettings
from worker.runtime.weights import find

REPOSITORY = "org/model"


def in_cache(hub: Path, repository: str, commit: str = "c0ffee", **config: Any) -> Path:
    """A repository as huggingface_hub lays it out."""
    root = hub / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    return write_checkpoint(root / "snapshots" / commit, **config)


def test_a_folder_is_taken_as_it_is_and_named_by_the_digest_of_its_weights(tmp_path: Path) -> None:
    found = find(RuntimeSettings(model=str(write_checkpoint(tmp_path / "m"))))
    assert found.folder == tmp_path / "m"
    assert found.digest() == sha256(b"no weights").hexdigest()


def test_weights_that_are_replaced_in_place_are_told_by_their_stamp(tmp_path: Path) -> None:
    found = find(RuntimeSettings(model=str(write_checkpoint(tmp_path / "m"))))
    before = found.stamp()
    assert found.stamp() == before
    (tmp_path / "m" / "model.safetensors").write_bytes(b"other weights")
    assert found.stamp() != before


def test_weights_in_several_files_are_named_by_the_lines_of_sha256sum(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    for name in ("b", "a"):
        (folder / f"{name}.safetensors").write_bytes(name.encode())
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}'
    )
    lines = "".join(f"{sha256(name.encode()).hexdigest()}  {name}.safetensors\n" for name in "ab")
    assert find(RuntimeSettings(model=str(folder))).digest() == sha256(lines.encode()).hexdigest()


def test_a_repository_is_found_in_the_hubs_cache_with_its_tower(tmp_path: Path) -> None:
    folder = in_cache(tmp_path, REPOSITORY, mm_vision_tower="google/siglip-x")
    in_cache(tmp_path, "google/siglip-x")
    settings = RuntimeSettings(model=REPOSITORY, offline=True)
    assert find(settings, hub=HubSettings.model_construct(cache=tmp_path)).folder == folder


def test_what_is_not_there_is_fetched_once_model_and_tower(tmp_path: Path) -> None:
    fetched: list[tuple[str, str]] = []

    def fetch(repository: str, revision: str) -> None:
        fetched.append((repository, revision))
        in_cache(tmp_path, repository, mm_vision_tower="google/siglip-x")

    settings, hub = RuntimeSettings(model=REPOSITORY), HubSettings.model_construct(cache=tmp_path)
    for _ in range(2):
        find(settings, hub=hub, fetch=fetch)
    assert fetched == [(REPOSITORY, "main"), ("google/siglip-x", "main")]


def test_a_download_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    folder = in_cache(tmp_path, REPOSITORY)
    (folder / "model.safetensors").unlink()

    def fetch(repository: str, revision: str) -> None:
        (folder / "model.safetensors").write_bytes(b"whole")

    settings, hub = RuntimeSettings(model=REPOSITORY), HubSettings.model_construct(cache=tmp_path)
    assert find(settings, hub=hub, fetch=fetch).digest() == sha256(b"whole").hexdigest()


def test_offline_nothing_is_fetched_and_the_line_says_how_to(tmp_path: Path) -> None:
    def fetch(repository: str, revision: str) -> None:
        raise AssertionError("offline")

    settings = RuntimeSettings(model=REPOSITORY, offline=True)
    with pytest.raises(BadSetting, match=r"hf download org/model"):
        find(settings, hub=HubSettings.model_construct(cache=tmp_path), fetch=fetch)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architectures": ["LlavaOnevisionForConditionalGeneration"]}, "not those whose name ends in -HF"),
        ({"image_grid_pinpoints": "(1x1),...,(6x6)"}, "image_grid_pinpoints is no list"),
        ({"mm_vision_tower": None}, "names no vision tower"),
        ({"mm_vision_tower": "openai/clip-vit-large-patch14"}, "is no SigLIP"),
        ({"mm_vision_tower": "/nowhere/siglip"}, "its vision tower, /nowhere/siglip, is no folder"),
    ],
)
def test_weights_that_would_be_served_wrongly_are_refused(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadSetting, match=says):
        find(RuntimeSettings(model=str(write_checkpoint(tmp_path / "m", **config))))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "m")
    (folder / name).unlink()
    with pytest.raises(BadSetting, match=name):
        find(RuntimeSettings(model=str(folder)))
