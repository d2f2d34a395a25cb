"""The processes that decode: bounded in number, age, time, memory and reach, and none outlives its use."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.intake import cpu_s, make_photographs
from intake.decode import Decoder
from intake.decoder_process import DecoderProcess
from intake.settings import DecodeSettings
from moderation.errors import DecoderUnavailable, DecodeTimeout, Undecodable
from tests.support.pictures import (
    encode,
    gif_of_many_frames,
    png,
    quarters,
)
from tests.support.waiting import wait_for

LINUX = sys.platform == "linux"


def test_children_are_reused_and_no_more_than_allowed() -> None:
    decoder = Decoder(DecodeSettings(children=2))
    data = encode(quarters(), "JPEG")
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: decoder.decode(data, pixels=False), range(64)))
    first = decoder.pids
    assert 1 <= len(first) <= 2
    decoder.decode(data, pixels=False)
    assert decoder.pids == first
    decoder.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in first)


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_child_waits_for_its_image_whatever_timeout_new_sockets_have() -> None:
    """kombu sets one for the whole process while it closes a connection."""
    socket.setdefaulttimeout(0.5)
    try:
        process = DecoderProcess(DecodeSettings())
    finally:
        socket.setdefaulttimeout(None)
    stat = Path(f"/proc/{process.pid}/stat")
    wait_for(
        lambda: stat.read_text().rpartition(")")[2].split()[0] in "SZ", what="a child that waits, or ended"
    )
    answer, _ = process.ask({"media_type": "image/png", "pixels": False}, encode(quarters(), "PNG"))
    assert answer["ok"] is True
    process.kill()


def test_a_child_is_renewed_after_its_share() -> None:
    decoder = Decoder(DecodeSettings(children=1, decodes_per_child=2))
    seen = []
    for _ in range(5):
        decoder.decode(encode(quarters(), "PNG"), pixels=False)
        seen += decoder.pids
    assert len(set(seen)) >= 2
    decoder.close()


def test_a_child_that_was_killed_is_replaced_and_costs_no_image() -> None:
    decoder = Decoder(DecodeSettings(children=1))
    data = encode(quarters(), "PNG")
    decoder.decode(data, pixels=False)
    (pid,) = decoder.pids
    os.kill(pid, signal.SIGKILL)
    assert decoder.decode(data, pixels=False).width == 96
    assert decoder.pids != [pid]
    decoder.close()


def test_a_child_that_gets_no_cpu_is_killed_in_time_and_its_image_not_blamed() -> None:
    decoder = Decoder(DecodeSettings(children=1, wall_s=1))
    data = encode(quarters(), "PNG")
    decoder.decode(data, pixels=False)
    (pid,) = decoder.pids
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DecodeTimeout, match="longer than 1 s"):
        decoder.decode(data, pixels=False)
    assert not Path(f"/proc/{pid}").exists()
    assert decoder.decode(data, pixels=False).width == 96
    decoder.close()


def test_a_child_that_computes_without_end_is_killed_in_time() -> None:
    """490 megapixels of frames, from a file of 900 kB."""
    decoder = Decoder(DecodeSettings(children=1, cpu_s=1, wall_s=60))
    with pytest.raises(Undecodable, match="1 s of CPU"):
        decoder.decode(gif_of_many_frames(1000, (700, 700)), pixels=False)
    assert decoder.decode(encode(quarters(), "PNG"), pixels=False).width == 96
    decoder.close()


def test_a_picture_that_needs_more_memory_than_allowed_is_undecodable() -> None:
    decoder = Decoder(DecodeSettings(children=1, memory_bytes=200_000_000))
    with pytest.raises(Undecodable):
        decoder.decode(png(7000, 7000, bits=8, colour=2), pixels=False)
    assert decoder.decode(encode(quarters(), "PNG"), pixels=False).width == 96
    decoder.close()


def test_a_decoder_that_cannot_start_is_unavailable() -> None:
    decoder = Decoder(DecodeSettings(children=1, memory_bytes=20_000_000))  # Python itself needs more
    with pytest.raises(DecoderUnavailable):
        decoder.decode(encode(quarters(), "PNG"), pixels=False)
    decoder.close()


def test_waiting_for_a_busy_child_ends() -> None:
    decoder = Decoder(DecodeSettings(children=1, wait_s=0.1, wall_s=20))
    data = encode(quarters(), "PNG")
    decoder.decode(data, pixels=False)
    (pid,) = decoder.pids
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(decoder.decode, data, pixels=False)
        wait_for(lambda: decoder._seats.empty(), what="the only child to be taken")
        with pytest.raises(DecoderUnavailable, match="free"):
            decoder.decode(data, pixels=False)
        os.kill(pid, signal.SIGCONT)
        assert held.result(30).width == 96
    decoder.close()


def test_closing_ends_a_decode_in_hand() -> None:
    decoder = Decoder(DecodeSettings(children=1, wall_s=60))
    data = encode(quarters(), "PNG")
    decoder.decode(data, pixels=False)
    (pid,) = decoder.pids
    os.kill(pid, signal.SIGSTOP)
    errors: list[BaseException] = []

    def decode() -> None:
        try:
            decoder.decode(data, pixels=False)
        except DecoderUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=decode)
    thread.start()
    wait_for(lambda: decoder._seats.empty(), what="the child to be taken")
    decoder.close()
    thread.join(10)
    assert len(errors) == 1
    with pytest.raises(DecoderUnavailable):
        decoder.decode(data, pixels=False)


PARENT = """
    import os, signal, sys
    from tests.support.pictures import encode, quarters
    from intake.decode import Decoder
    decoder = Decoder()
    decoder.decode(encode(quarters(), "PNG"), pixels=False)
    print(*decoder.pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_child_dies_with_its_parent() -> None:
    command = [sys.executable, "-c", textwrap.dedent(PARENT)]
    parent = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert parent.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in parent.stdout.split() if pid.isdigit()]
    assert pids
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), timeout_s=10)


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_child_has_nothing_of_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:c4n4ry@host/db")
    decoder = Decoder(DecodeSettings(children=1))
    with Path(__file__).open() as held_open:
        os.set_inheritable(held_open.fileno(), True)
        decoder.decode(encode(quarters(), "PNG"), pixels=False)
    (pid,) = decoder.pids
    process = Path(f"/proc/{pid}")
    assert "c4n4ry" not in (process / "environ").read_text() + (process / "cmdline").read_text()
    files = {os.readlink(link) for link in (process / "fd").iterdir()}
    assert not any("test_decode" in file for file in files)
    assert os.getpgid(pid) == pid
    assert "1000000000" in next(
        line for line in (process / "limits").read_text().splitlines() if line.startswith("Max address space")
    )
    decoder.close()


@pytest.mark.skipif(
    not LINUX or os.uname().machine not in ("x86_64", "aarch64"), reason="no seccomp filter for it"
)
def test_a_child_is_in_its_sandbox_when_it_sees_a_strangers_bytes() -> None:
    decoder = Decoder(DecodeSettings(children=1))
    decoder.decode(encode(quarters(), "PNG"), pixels=False)
    (pid,) = decoder.pids
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    decoder.close()


def test_photographs_take_little_enough_cpu_for_sixty_a_second_on_two_cores() -> None:
    """By CPU time, which other work on the machine does not change much. Measured: 14 to 16 ms each."""
    photographs = make_photographs(20, turned=False) * 4
    decoder = Decoder(DecodeSettings(children=1))
    before = cpu_s()
    for data in photographs:
        picture = decoder.decode(data, pixels=False)
        assert 1_000_000 <= picture.width * picture.height <= 2_000_000
    decoder.close()  # a child's CPU, its start included, is counted when it has ended
    assert (cpu_s() - before) / len(photographs) < 2 / 60
