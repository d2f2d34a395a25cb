"""How many ordinary photographs a second are fetched and decoded on this machine.

The photographs are the samples, cut and scaled at random to between 1 and 2 megapixels and saved as cameras
and sites do: JPEG of quality 75, 85 and 92, 4:2:0; with --turned, one in ten is turned by an EXIF orientation.

usage: python -m bench.intake [--files 300] [--children N] [--threads 16] [--pixels] [--http] [--turned]

Prints one JSON object. `cpu_ms_per_file` is what to compare between runs on a machine that others use too.
"""

import argparse
import io
import json
import os
import platform
import random
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import ExifTags, Image

from intake.decode import Decoder
from intake.fetch import Fetcher
from intake.settings import DecodeSettings, FetchSettings
from moderation.log import configure_logging

LARGEST = (1632, 1224)  # 4:3, so 2.0 megapixels; the smallest is 1156 x 867, 1.0
SAMPLES = Path(__file__).parent.parent / "samples"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--children", type=int, default=DecodeSettings().children)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--pixels", action="store_true", help="hand over RGB rows too, as for open-nsfw")
    parser.add_argument("--http", action="store_true", help="fetch each file from a server on loopback first")
    parser.add_argument(
        "--turned", action="store_true", help="one in ten needs turning, so a PNG is made of it"
    )
    options = parser.parse_args()
    configure_logging()  # to stderr, so that stdout holds the result alone
    photographs = make_photographs(options.files, turned=options.turned)
    decoder = Decoder(DecodeSettings(children=options.children))
    with serve(photographs) as port:
        fetcher = Fetcher(FetchSettings(allow_hosts=("127.0.0.1",)))
        for warm_up in photographs[: options.children]:
            decoder.decode(warm_up, pixels=False)
        uris = [f"http://127.0.0.1:{port}/{number}" for number in range(len(photographs))]

        def intake(number: int) -> None:
            data = fetcher.fetch(uris[number]).data if options.http else photographs[number]
            decoder.decode(data, pixels=options.pixels)

        started, cpu = time.perf_counter(), cpu_s()
        with ThreadPoolExecutor(options.threads) as threads:
            for _ in threads.map(intake, range(len(photographs))):
                pass
        elapsed_s = time.perf_counter() - started
        fetcher.close()
    decoder.close()
    report(vars(options), photographs, elapsed_s, cpu_s() - cpu)


def make_photographs(count: int, *, turned: bool) -> list[bytes]:
    sources = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.jpg"))]
    chance = random.Random(1)  # the same files in every run
    grain = Image.effect_noise(LARGEST, 12).convert("RGB")  # a sensor's: enlarged pictures compress too well
    return [
        photograph(chance.choice(sources), grain, chance, turned=turned and number % 10 == 0)
        for number in range(count)
    ]


def photograph(source: Image.Image, grain: Image.Image, chance: random.Random, *, turned: bool) -> bytes:
    width = chance.randint(1156, LARGEST[0])
    size = (width, width * 3 // 4)
    cut = chance.uniform(0.7, 1.0)
    box = (0, 0, int(source.width * cut), int(source.height * cut))
    exif = Image.Exif()
    if turned:
        exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    picture = Image.blend(source.resize(size, box=box), grain.crop((0, 0, *size)), 0.4)
    picture.save(file, "JPEG", quality=chance.choice((75, 85, 92)), exif=exif)
    return file.getvalue()


@contextmanager
def serve(photographs: list[bytes]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, photographs))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, photographs: list[bytes], *arguments: object) -> None:
        self.photographs = photographs
        super().__init__(*arguments)  # type: ignore[arg-type]  # the server passes them through

    def do_GET(self) -> None:
        data = self.photographs[int(self.path[1:])]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        pass


def cpu_s() -> float:
    """CPU of this process and of the children that have ended and been waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def report(options: dict[str, object], photographs: list[bytes], elapsed_s: float, spent_s: float) -> None:
    count = len(photographs)
    print(
        json.dumps(
            {
                **options,
                "files_per_s": round(count / elapsed_s, 1),
                "cpu_ms_per_file": round(1000 * spent_s / count, 2),
                "files_per_s_by_cpu": round(
                    (os.cpu_count() or 1) * count / spent_s, 1
                ),  # were nobody else here
                "mean_file_kb": round(sum(map(len, photographs)) / count / 1000),
                "cores": os.cpu_count(),
                "load_average_1m": round(os.getloadavg()[0], 1),
                "machine": platform.processor() or platform.machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
