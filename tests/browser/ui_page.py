"""The web interface in a Chromium, as tests drive it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Request, sync_playwright

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
WAIT_MS = 120_000


@contextmanager
def chromium() -> Iterator[Browser]:
    options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[Page]:
    """Open the page; every request must go to this machine, and no script may fail."""
    scheme = "dark" if dark else "light"
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(WAIT_MS)
    hosts: set[str] = set()
    errors: list[str] = []

    def note(request: Request) -> None:
        hosts.add(urlsplit(request.url).hostname or "")

    page.on("request", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    page.locator(".dc-card").first.wait_for()
    yield page
    page.close()
    assert hosts <= {"127.0.0.1", ""}, hosts
    assert errors == []


def pixels(canvas: Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(int)


def share_drawn(image: np.ndarray) -> float:
    """Part of the picture that differs from its corner."""
    return float((np.abs(image - image[3, 3]).max(axis=2) > 24).mean())
