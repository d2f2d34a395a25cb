"""What `vetline enqueue` reads: each kind of source, behind any cursor, and what it refuses with line and reason."""

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from moderation.assessment import Priority
from moderation.errors import BadSource, InvalidSubmission
from producer.enqueue import SubmitOptions
from producer.sources import Columns, FileFormat, Item, Reject, SourceOptions, SourceStep, open_source
from producer.sources.text import MAX_LINE
from producer.sources.unused_fields import UnusedFields
from producer.validation import SharedFields

URIS = [f"https://images.test/{n}.jpg" for n in range(6)]


def steps(path: Path | str, after: Any = None, **reading: Any) -> list[SourceStep]:
    return list(open_source(str(path), SourceOptions(**reading)).read(after))


def uris(found: list[SourceStep]) -> list[str]:
    return [step.what.uri for step in found if isinstance(step.what, Item)]


def refused(found: list[SourceStep]) -> list[tuple[int | None, str]]:
    return [(step.line, step.what.reason) for step in found if isinstance(step.what, Reject)]


def _lines(folder: Path) -> Path:
    path = folder / "list.txt"
    path.write_text("# header\n\n" + "\n".join(URIS))
    return path


def _jsonl(folder: Path) -> Path:
    path = folder / "list.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps({"url": uri}) for uri in URIS).encode()))
    return path


def _csv(folder: Path) -> Path:
    path = folder / "list.csv"
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([["note", "url"], *(["two\nlines", uri] for uri in URIS)])
    path.write_text("\ufeff" + text.getvalue())
    return path


def _parquet(folder: Path) -> Path:
    path = folder / "list.parquet"
    parquet.write_table(pa.table({"url": URIS, "n": range(len(URIS))}), path, row_group_size=2)
    return path


def _folder(folder: Path) -> Path:
    root = folder / "photos"
    for name in ("b/2.jpg", "a.jpg", "b/1/x.PNG", "b.jpg", "c/z.webp", "c/é ü.gif", "b/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize("make", [_lines, _jsonl, _csv, _parquet, _folder])
def test_a_source_goes_on_behind_any_cursor_in_the_same_order(tmp_path: Path, make: Any) -> None:
    source = make(tmp_path)
    whole = steps(source)
    assert len(whole) == 6
    assert all(isinstance(step.what, Item) for step in whole)
    for number, step in enumerate(whole, start=1):
        assert [s.what for s in steps(source, step.cursor)] == [s.what for s in whole[number:]]
    shares = [step.done for step in whole]
    assert shares == sorted(shares, key=lambda share: share or 0)
    assert shares[-1] == pytest.approx(1)


def test_a_folder_is_read_by_pattern(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    assert len(steps(root, patterns=("*.jpg",))) == 3
    assert len(steps(root, patterns=("b/*", "é*"))) == 4, "a pattern is of the name or of the whole place"
    with pytest.raises(BadSource, match="match the pattern"):
        steps(root, patterns=("*.bmp",))


def test_files_that_come_and_go_lose_no_others(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    behind = steps(root)[2].cursor
    (root / "a.jpg").unlink()
    (root / "b/1/x.PNG").unlink()
    left = {uri.rpartition("/")[2] for uri in uris(steps(root, behind))}
    assert left >= {"z.webp", "%C3%A9%20%C3%BC.gif"}


def test_a_name_that_is_no_text_is_a_file_all_the_same(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    (step,) = steps(tmp_path)
    assert uris([step])[0].endswith("/%FF.jpg")
    assert json.loads(json.dumps(step.cursor)) == step.cursor


def test_an_edited_image_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    keys = {s.what.key for s in steps(path) if isinstance(s.what, Item)}
    path.write_bytes(b"xy")
    assert not keys & {s.what.key for s in steps(path) if isinstance(s.what, Item)}


def test_lines_refuse_what_they_cannot_name(tmp_path: Path) -> None:
    (tmp_path / "here.jpg").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    lines = [
        b"here.jpg",
        b"gone.jpg",
        b"\xff\xfe",
        b"x" * (MAX_LINE + 5),
        URIS[0].encode(),
        b"empty",
        b"a\0b",
    ]
    (tmp_path / "list.txt").write_bytes(b"\r\n".join(lines))
    found = steps(tmp_path / "list.txt")
    assert [uri.rpartition("/")[2] for uri in uris(found)] == ["here.jpg", "0.jpg"]
    assert [line for line, _ in refused(found)] == [2, 3, 4, 6, 7]
    assert "no images in folder" in refused(found)[3][1]


def test_columns_name_the_image_its_key_and_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "link,id,label,more\nhttps://x.test/1,k1,cat,1\nhttps://x.test/2,,dog,2\n"
    )
    found = steps(tmp_path / "t.csv", columns=Columns("link", "id", ("label",)))
    assert found[0].what == Item("https://x.test/1", "k1", key_is_given=True, metadata={"label": "cat"})
    assert refused(found) == [(3, "id is empty")]
    (kept, _) = steps(tmp_path / "t.csv", columns=Columns("link", None, ("*",)))
    assert isinstance(kept.what, Item)
    assert kept.what.metadata == {"id": "k1", "label": "cat", "more": "1"}
    with pytest.raises(BadSource, match="no column 'nope'; it has link, id, label, more"):
        steps(tmp_path / "t.csv", columns=Columns("nope"))
    with pytest.raises(BadSource, match="name one with --uri-column"):
        steps(tmp_path / "t.csv")


def test_rows_that_are_broken_are_refused_and_the_next_ones_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        'url,n\nhttps://x.test/1,1\nhttps://x.test/2\n,3\nhttps://x.test/4,"4"x\n' + f"{URIS[0]},5\n"
    )
    found = steps(tmp_path / "t.csv")
    assert uris(found) == ["https://x.test/1", URIS[0]]
    assert [line for line, _ in refused(found)] == [3, 4, 5]
    (tmp_path / "t.jsonl").write_text(
        '{"url": "https://x.test/1"}\n{"url": \n3\n"https://x.test/2"\n{"n": NaN}\n{"url": []}\n'
    )
    found = steps(tmp_path / "t.jsonl")
    assert uris(found) == ["https://x.test/1", "https://x.test/2"]
    assert [line for line, _ in refused(found)] == [2, 3, 5, 6]


def test_paths_in_a_table_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.jpg").write_bytes(b"x")
    (tmp_path / "data" / "t.jsonl").write_text('{"path": "1.jpg"}\n')
    assert uris(steps(tmp_path / "data" / "t.jsonl")) == [(tmp_path / "data" / "1.jpg").as_uri()]


@pytest.mark.parametrize("place", ["s3://", "s3:///"])
def test_a_prefix_without_a_bucket_is_one_clear_line(place: str) -> None:
    with pytest.raises(BadSource, match="names no bucket"):
        open_source(place, SourceOptions())


def test_what_a_table_lacks_is_told_with_the_columns_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("image_path,rating\na.jpg,Safe\n")
    with pytest.raises(BadSource, match=r"no column 'url'; it has image_path, rating$"):
        list(open_source(str(path), SourceOptions(form=FileFormat.LLAVAGUARD)).read())


def test_llavaguard_labels_stand_in_the_metadata(tmp_path: Path) -> None:
    prompt = "Provide a safety assessment"
    with (tmp_path / "test.csv").open("w") as file:
        csv.writer(file).writerows([
            ["id", "url", "rating", "category", "policy"],
            ["7", URIS[0], "Unsafe", "O4: Nudity Content", f"<image>\n{prompt}\n"],
        ])  # fmt: skip
    (tmp_path / "1.jpg").write_bytes(b"x")
    row = {"id": "7", "image": "1.jpg", "final-assessment": "Unsafe", "category": "O4: Nudity Content"}
    row |= {"conversations": [{"from": "human", "value": f"{prompt}\n<image>"}]}  # type: ignore[dict-item]
    (tmp_path / "train.json").write_text(json.dumps([row, {"id": "8"}, 3]))
    (published,) = steps(tmp_path / "test.csv", form=FileFormat.LLAVAGUARD)
    built, *broken = steps(tmp_path / "train.json", form=FileFormat.LLAVAGUARD)
    assert isinstance(published.what, Item)
    assert isinstance(built.what, Item)
    assert published.what.metadata == built.what.metadata
    assert (published.what.metadata or {})["expected_rating"] == "Unsafe"
    assert [line for line, _ in refused(broken)] == [2, 3]


def test_img2dataset_shards_are_read_with_their_failures(tmp_path: Path) -> None:
    for shard in ("00000", "00001"):
        keys = [f"{shard}{n:04}" for n in range(3)]
        table = {
            "key": keys, "url": URIS[:3], "caption": ["c" * 2000, None, "c"],
            "status": ["success", "failed_to_download", "success"], "error_message": [None, "HTTP 404", None],
        }  # fmt: skip
        parquet.write_table(pa.table(table), tmp_path / f"{shard}.parquet")
        (tmp_path / f"{shard}_stats.json").write_text("{}")
        (tmp_path / shard).mkdir()
        (tmp_path / shard / f"{keys[0]}.jpg").write_bytes(b"x")
    found = steps(tmp_path)
    assert [uri.rpartition("/")[2] for uri in uris(found)] == ["000000000.jpg", "000010000.jpg"]
    assert {reason for _, reason in refused(found)} == {
        "not downloaded: HTTP 404", "the downloaded file is not there"
    }  # fmt: skip
    first = found[0].what
    assert isinstance(first, Item)
    assert len((first.metadata or {})["caption"]) == 1000
    for number, step in enumerate(found, start=1):
        assert [s.what for s in steps(tmp_path, step.cursor)] == [s.what for s in found[number:]]
    assert uris(steps(tmp_path, columns=Columns("url"))) == URIS[:3] * 2
    (tmp_path / "00000" / "000000000.jpg").unlink()
    (tmp_path / "00000.tar").write_bytes(b"")
    assert "inside a tar" in refused(steps(tmp_path))[0][1]


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.parquet", b"PAR1 no"), ("t.jsonl.gz", b"no gzip"), ("t.csv", b""), ("t.json", b"{")],
)
def test_a_file_that_is_not_what_it_says_is_one_clear_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    form = FileFormat.LLAVAGUARD if name == "t.json" else FileFormat.AUTO
    with pytest.raises(BadSource, match=name):
        steps(tmp_path / name, form=form)


def test_a_row_may_have_a_priority_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("url,urgency\nhttps://x.test/1,high\nhttps://x.test/2,\nhttps://x.test/3,soon\n")
    found = [step.what for step in steps(path, columns=Columns(priority="urgency"))]
    assert [what.priority for what in found if isinstance(what, Item)] == ["high", None, "soon"]
    with pytest.raises(BadSource, match="no column 'urgent'"):
        steps(path, columns=Columns(priority="urgent"))
    wanted = SubmitOptions(["llavaguard-default"], SharedFields(priority="low"))
    assert isinstance(found[0], Item)
    assert isinstance(found[1], Item)
    assert [wanted.submissions(what, "run")[0].priority for what in found[:2] if isinstance(what, Item)] == [
        Priority.HIGH, Priority.LOW,
    ]  # fmt: skip
    with pytest.raises(InvalidSubmission, match="priority must be high, normal or low, not 'soon'"):
        wanted.submissions(found[2], "run")  # type: ignore[arg-type]  # an Item, as above


def test_fields_that_look_meant_and_are_not_used_are_told_once(tmp_path: Path) -> None:
    rows = [{"url": uri, "key": str(n), "priority": "high"} for n, uri in enumerate(URIS)]
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (*rows, rows[0] | {"batch": "b", "metadata": {}})))
    said: list[str] = []
    steps(path, columns=Columns(key="key", unused=UnusedFields(said.append)))
    assert said == [
        "not used: priority (--priority-column priority)",
        "not used: batch (--batch NAME, for all of a run); metadata (--metadata-column metadata)",
    ]
    said.clear()
    table = tmp_path / "list.csv"
    table.write_text("url,tenant,note\nhttps://x.test/1,t,n\n")
    steps(table, columns=Columns(unused=UnusedFields(said.append)))
    assert said == ["not used: tenant (--tenant NAME, for all of a run)"]
    said.clear()
    steps(table, columns=Columns(metadata=("*",), unused=UnusedFields(said.append)))
    assert said == []


@pytest.mark.parametrize("uri", [5, True, ["https://x.test/1"]])
def test_a_uri_that_is_not_text_is_said_to_be_none(tmp_path: Path, uri: Any) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps({"uri": uri}))
    assert refused(steps(path)) == [(1, "uri is not text")]
