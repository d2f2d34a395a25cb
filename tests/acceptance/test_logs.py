"""What a worker logs: JSON, one line for each item, with its id and what each step took."""

import json
import re

from tests.acceptance.conftest import System


def test_an_item_is_one_line_with_its_id_its_outcome_and_its_times(system: System) -> None:
    system.server.script(
        [{"when": {"ask": 1}, "do": {"kind": "text", "text": "no JSON", "finish_reason": "stop"}}]
    )
    ids = [
        str(system.client.submit(system.image(f"n{i}", (i, i, i)), "llavaguard-default").id) for i in range(3)
    ]
    gone = str(system.client.submit(f"file://{system.folder}/gone.png", "llavaguard-default").id)
    with system.worker(LOG_LEVEL="info") as worker:
        system.wait_for_counts(done=3, failed=1)
        worker.stop()
        # Celery says its farewell on the terminal, whatever logs are.
        lines = [json.loads(line) for line in worker.text.splitlines() if line.startswith("{")]
    assessed = [line for line in lines if line["event"] == "assessed"]
    items = {line["assessment"]: line for line in assessed}
    assert sorted(line["assessment"] for line in assessed) == sorted([*ids, gone])
    elsewhere = {line["event"] for line in lines if "assessment" in line} - {"assessed"}
    assert elsewhere <= {"decoder_started"}, "more than one line an item at info"
    for id_ in ids:
        assert items[id_]["outcome"] == "safe"
        assert items[id_]["attempt"] == 1
        assert {"fetch_ms", "decode_ms", "judge_ms", "record_ms"} <= set(items[id_])
    assert items[gone]["outcome"] == "failed:not_found"


def test_on_a_terminal_an_item_is_a_line_that_a_person_reads(system: System) -> None:
    id_ = system.client.submit(system.image("a"), "llavaguard-default").id
    with system.worker(VETLINE_LOG_STYLE="console") as worker:
        system.wait_for_counts(done=1)
        worker.stop()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", worker.text)
    (line,) = [line for line in plain.splitlines() if str(id_) in line and "assessed" in line]
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[info\s*\] assessed ", line)
    assert {"attempt=1", "outcome=safe"} <= set(line.split())
    assert re.search(r" judge_ms=\d", line)
    assert not line.startswith("{")
