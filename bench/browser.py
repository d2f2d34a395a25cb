"""What people see of a picture: Chromium shows it, headless, and its screen is photographed.

Needs Chromium (Debian: apt install chromium) and the package `playwright`; `find_chromium` says whether it is there.
"""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image
from playwright.sync_api import Page, Route, sync_playwright

MAX_SIDE = 1000  # pixels; what is larger is shown scaled down to this
_ORIGIN = "https://pictures.invalid/"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
)
_PAGE = (
    "<!doctype html><style>body{margin:0;display:flex;align-items:flex-start}img{display:block}</style>"
    "<div style='background:white'><img></div><div style='background:black'><img></div>"
)
_SHOW = """async ([source, side]) => {
    const images = [...document.images];
    for (const image of images) {
        const loaded = new Promise(done => { image.onload = () => done(true); image.onerror = () => done(false); });
        image.style.width = image.style.height = 'auto';
        image.src = source;
        if (!await loaded || image.naturalWidth === 0) return null;
        try { await image.decode(); } catch (error) { return null; }
    }
    const [width, height] = [images[0].naturalWidth, images[0].naturalHeight];
    const scale = Math.min(1, side / Math.max(width, height));
    const shown = [width, height].map(length => Math.max(1, Math.round(length * scale)));
    for (const image of images) [image.style.width, image.style.height] = shown.map(length => `${length}px`);
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return [width, height, ...shown];
}"""


@dataclass(frozen=True)
class Shown:
    """A picture on a white and on a black page, RGB. size: in pixels before it was scaled down to MAX_SIDE."""

    on_white: Image.Image
    on_black: Image.Image
    size: tuple[int, int]

    @property
    def is_empty(self) -> bool:
        """Whether both pages shine through everywhere."""
        white = ((255, 255),) * 3
        return self.on_black.getbbox() is None and self.on_white.getextrema() == white


def find_chromium() -> str | None:
    """The path of Chromium or Chrome, where one is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One page of one Chromium. Used by one thread."""

    def __init__(self, page: Page, version: str) -> None:
        self.version = version
        self._page = page
        self._served = b""
        self._media_type = ""
        self._count = 0
        page.route("**/*", self._serve)
        page.goto(_ORIGIN)

    def shows(self, data: bytes, media_type: str, *, after_ms: int = 0) -> Shown | None:
        """What people see after_ms after it loaded; None where Chromium shows nothing of it."""
        self._served, self._media_type = data, media_type
        self._count += 1
        size = self._page.evaluate(_SHOW, [f"{_ORIGIN}{self._count}", MAX_SIDE])
        if size is None:
            return None
        if after_ms:
            self._page.wait_for_timeout(after_ms)
        natural_width, natural_height, width, height = size
        screen = self._page.screenshot(
            clip={"x": 0, "y": 0, "width": 2 * width, "height": height}, animations="allow"
        )
        both = Image.open(io.BytesIO(screen)).convert("RGB")
        return Shown(
            on_white=both.crop((0, 0, width, height)),
            on_black=both.crop((width, 0, 2 * width, height)),
            size=(natural_width, natural_height),
        )

    def _serve(self, route: Route) -> None:
        if route.request.url == _ORIGIN:
            route.fulfill(body=_PAGE, content_type="text/html")
        else:
            route.fulfill(body=self._served, content_type=self._media_type)


@contextmanager
def browser(path: str) -> Iterator[Browser]:
    """A fresh Chromium that reaches no network: every request is answered here."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            page = chromium.new_page(viewport={"width": 2 * MAX_SIDE, "height": MAX_SIDE})
            yield Browser(page, chromium.version)
        finally:
            chromium.close()
