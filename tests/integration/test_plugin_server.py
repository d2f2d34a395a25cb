"""The plugin inside a real SGLang server on a CPU: it is loaded, it answers, and it says what stock says.

VETLINE_TEST_SGLANG_CPU=FOLDER  holds the server (see tests/support/sglang_cpu.py)

pytest -m sglang tests/integration/test_plugin_server.py
"""

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.exactness import agreement, body
from bench.gpu.pictures import jpeg
from tests.support.sglang_cpu import CpuServer
from worker.judges.generation import generation_of
from worker.judges.probability import SAFE_ID, UNSAFE_ID, p_unsafe
from worker.runtime.plugin.launch import AFTER_START, ENVIRONMENT

FOLDER = os.environ.get("VETLINE_TEST_SGLANG_CPU")
pytestmark = [
    pytest.mark.sglang,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not FOLDER, reason="no real SGLang: set VETLINE_TEST_SGLANG_CPU to a folder with one"),
]
PROJECT = Path(__file__).parents[2]
IMAGES = [jpeg(size, seed) for seed, size in enumerate([(336, 336), (640, 480), (1300, 900), (200, 700)])]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sglang") / "ours.log"


@pytest.fixture(scope="module")
def ours(log: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "PYTHONPATH": str(PROJECT)}.items():
            patch.setenv(name, value)
        with CpuServer(Path(str(FOLDER)), log, "--disable-radix-cache", "--log-level", "info") as server:
            yield server.url


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("sglang") / "stock.log"
    with CpuServer(Path(str(FOLDER)), log, "--disable-radix-cache") as server:
        yield server.url


def post(url: str, path: str, sent: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url + path, json.dumps(sent).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def asked(url: str, image: bytes, tokens: int) -> Any:
    uri = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    return post(url, "/generate", {**body(tokens), "image_data": uri})


def test_the_same_images_get_the_same_tokens_and_logprobs_as_from_stock(ours: str, stock: str) -> None:
    answers = [{i: asked(url, image, 8) for i, image in enumerate(IMAGES)} for url in (stock, ours)]
    found = agreement(*answers)
    assert (found.images, found.identical_texts) == (len(IMAGES), len(IMAGES))
    assert found.any_token_difference == 0.0


def test_the_logits_that_it_notes_give_the_same_probability_as_logprobs(ours: str) -> None:
    """Random weights never rate, so the two rating tokens are made likely by the same amount: the odds stay the model's."""
    for image in IMAGES:
        drawn = _rated(ours, image, temperature=0.0) | _rated(ours, image, temperature=0.7)
        assert drawn
        for noted, by_logprobs in drawn.values():
            assert noted == pytest.approx(by_logprobs, abs=1e-4)


def _rated(url: str, image: bytes, *, temperature: float) -> dict[tuple[float, int], tuple[float, float]]:
    """P(unsafe) by what the sampler noted and by SGLang's own logprobs, at each position where a rating was drawn."""
    uri = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    sampling = {
        "temperature": temperature, "max_new_tokens": 8, "ignore_eos": True, "logit_bias": {"25663": 60.0, "78770": 60.0},
    }  # fmt: skip
    asked = {"text": body(8)["text"], "sampling_params": sampling, "image_data": uri}
    sent = asked | {"return_logprob": True, "token_ids_logprob": [SAFE_ID, UNSAFE_ID]}
    answer = generation_of(json.dumps(post(url, "/generate", sent)).encode(), elapsed_ms=0)
    found = {}
    for index, token in enumerate(answer.output_ids):
        noted, logprobs = answer.noted_rating(index), answer.rating_logprobs(index)
        assert (noted is not None) == (token in (SAFE_ID, UNSAFE_ID))
        assert logprobs is not None
        if noted is not None:
            given = p_unsafe(logprobs, temperature=temperature or 1.0)
            noted_p = p_unsafe(noted)
            assert given is not None
            assert noted_p is not None
            found[temperature, index] = noted_p, given
    return found


def test_bytes_that_are_no_image_are_refused_with_400(ours: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(ours, b"not an image", 1)
    assert refused.value.code == 400
    assert b"Error while processing image" in refused.value.read()


def test_a_prompt_may_be_sent_as_token_ids(ours: str) -> None:
    text = body(4)["text"]
    ids = post(ours, "/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
    uri = "data:image/jpeg;base64," + base64.b64encode(IMAGES[0]).decode()
    sent = {name: value for name, value in body(4).items() if name != "text"}
    by_ids = post(ours, "/generate", {**sent, "input_ids": ids, "image_data": uri})
    assert by_ids["output_ids"] == asked(ours, IMAGES[0], 4)["output_ids"]


def test_what_the_launch_data_asks_for_after_the_start_is_there(ours: str) -> None:
    for path in AFTER_START:
        request = urllib.request.Request(ours + path, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200


def test_sglang_ignored_none_of_our_modules(ours: str, log: Path) -> None:
    said = log.read_text("utf-8", "replace")
    assert "worker.runtime.plugin" not in said  # "Ignore import error when loading worker.runtime.plugin..."
    assert "is used" not in "".join(line for line in said.splitlines() if "Vetline" in line)
