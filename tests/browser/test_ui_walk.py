"""A new visitor's walk to a textured chair in every look and format, by mouse and by keyboard."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from dream_cad.benchmark.mesh_files import read_mesh_file
from dream_cad.mesh.loading import load_mesh
from tests.browser.ui_page import CHROMIUM, WAIT_MS, chromium, opened, pixels, share_drawn
from tests.cluster.conftest import Server, app_args, serving

pytest.importorskip("gradio", reason="the extra ui is not installed")
PICTURES = os.environ.get("DREAM_CAD_TEST_PICTURES")
MOST_TABS = 120
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium or Chrome is installed"),
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # playwright leaves its pipe to the end
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("walk")
    models = [{"name": "stable-fast-3d", "checkpoint": "nano"}]
    args = app_args(folder, models=models, finisher={"preview_size": 64})
    with serving(folder, args) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def keep(page: Page, name: str) -> None:
    if PICTURES is not None:
        page.screenshot(path=Path(PICTURES) / f"walk_{name}.png")


def canvas_of(page: Page) -> np.ndarray:
    return pixels(page.locator("#dc-stage canvas"))


def fetch(page: Page, name: str, start: Callable[[], object]) -> Path:
    """Start a download, wait for it, and keep it under its own name."""
    with page.expect_download() as download:
        start()
    path = Path(download.value.path())
    named = path.with_name(f"{name}-{download.value.suggested_filename}")
    return path.rename(named)


def test_a_chair_in_every_look_and_format(browser: Browser, server: Server) -> None:
    with opened(browser, str(server.client.base_url)) as page:
        keep(page, "1_arrived")
        page.get_by_label("What shall it be?").fill("a red wooden chair")
        page.get_by_role("button", name="Generate", exact=True).click()
        page.locator('#dc-stage [data-state="shown"]').wait_for(timeout=WAIT_MS)
        looks = {"Shaded": canvas_of(page)}
        keep(page, "2_shaded")
        for look in ("Wireframe", "Normals", "UV", "Texture"):
            page.get_by_role("button", name=look, exact=True).click()
            looks[look] = canvas_of(page)
            keep(page, f"3_{look.lower()}")
            assert share_drawn(looks[look]) > 0.02, look
            assert (np.abs(looks[look] - looks["Shaded"]).max(axis=2) > 24).mean() > 0.005, look
        page.get_by_role("button", name="Turntable").click()
        turned = canvas_of(page)
        page.wait_for_function("new Promise(done => setTimeout(() => done(true), 400))")
        assert (np.abs(canvas_of(page) - turned).max(axis=2) > 24).any()
        page.get_by_role("button", name="Check the mesh").click()
        expect(page.locator("#dc-findings")).to_contain_text("faces", timeout=WAIT_MS)
        keep(page, "4_checked")
        counts = set()
        for name in ("GLB", "OBJ", "PLY", "STL"):
            button = page.get_by_role("button", name=name, exact=True)
            path = fetch(page, name, button.click)
            counts.add(len(faces_of(path)))
        drawn = page.get_by_role("button", name="picture.png", exact=True)
        assert fetch(page, "drawn", drawn.click).read_bytes()[1:4] == b"PNG"
        assert len(counts) == 1
        assert counts.pop() > 500


def faces_of(path: Path) -> np.ndarray:
    if path.suffix != ".zip":
        return read_mesh_file(path).faces
    with zipfile.ZipFile(path) as archive:  # an obj brings its material and texture
        archive.extractall(path.with_suffix(""))
    (inner,) = path.with_suffix("").glob("*.obj")
    return read_mesh_file(inner).faces


def test_a_profile_is_a_zip(browser: Browser, server: Server) -> None:
    with opened(browser, str(server.client.base_url)) as page:
        page.get_by_label("What shall it be?").fill("a blue vase")
        page.locator(".dc-options").evaluate("details => { details.open = true; }")
        page.locator("#dc-option-profile").select_option("web")
        page.get_by_role("button", name="Generate", exact=True).click()
        page.locator('#dc-stage [data-state="shown"]').wait_for(timeout=WAIT_MS)
        path = fetch(page, "web", page.get_by_role("button", name="ZIP", exact=True).click)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            assert archive.testzip() is None
            (first, *_) = [name for name in names if name.endswith(".glb")]
            inner = Path(archive.extract(first, path.with_suffix("")))
        keep(page, "5_profile")
    if "draco" not in first and "meshopt" not in first:
        assert len(load_mesh(inner).faces) > 100
    assert len(names) > 1


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element of that accessible name has the focus."""
    seen = []
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
              const element = document.activeElement;
              const label = element.labels && element.labels.length ? element.labels[0] : null;
              return (element.getAttribute("aria-label") || (label || element).textContent || "")
                .trim();
            }"""
        )
        seen.append(found)
        if found.startswith(name):
            return
    raise AssertionError(f"{name!r} is not reached by Tab; reached: {seen}")


def test_the_keyboard_alone_will_do(browser: Browser, server: Server) -> None:
    with opened(browser, str(server.client.base_url)) as page:
        tab_to(page, "What shall it be?")
        page.keyboard.type("a green round table")
        tab_to(page, "Generate")
        page.keyboard.press("Enter")
        page.locator('#dc-stage [data-state="shown"]').wait_for(timeout=WAIT_MS)
        tab_to(page, "3D view of")
        before = canvas_of(page)
        page.keyboard.press("ArrowRight")
        assert (np.abs(canvas_of(page) - before).max(axis=2) > 24).any()
        tab_to(page, "Wireframe")
        page.keyboard.press("Space")
        wireframe = page.get_by_role("button", name="Wireframe")
        expect(wireframe).to_have_attribute("aria-pressed", "true")
        expect(wireframe).to_be_focused()  # a sign of it is seen, and Tab goes on from there
        tab_to(page, "GLB")
        path = fetch(page, "keys", lambda: page.keyboard.press("Enter"))
        assert len(load_mesh(path).faces) > 500
        keep(page, "6_keyboard")
