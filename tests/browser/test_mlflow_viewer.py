"""The page of a mesh, inside MLflow's sandboxed frame, in a real Chromium."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import trimesh
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from dream_cad.benchmark import BenchmarkResult
from dream_cad.benchmark.comparison import comparison_page
from dream_cad.benchmark.pages import mesh_page
from dream_cad.benchmark.records import record_of
from dream_cad.benchmark.suites import text_cases
from dream_cad.benchmark.tracking import Tracking
from dream_cad.mesh.data import MeshData

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DEADLINE_S = 240.0
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium or Chrome is installed"),
    pytest.mark.timeout(600),
    # mlflow 3.17 still uses what its dependencies deprecate; playwright leaves its pipe to the end.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def torus() -> MeshData:
    shape = trimesh.creation.torus(0.35, 0.15)
    vertices = np.asarray(shape.vertices, np.float32)
    colors = np.tile(np.uint8([200, 40, 40]), (len(vertices), 1))
    return MeshData(vertices, np.asarray(shape.faces, np.int32), vertex_colors=colors)


def textured_quad() -> MeshData:
    corners = np.float32([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:, :32], texture[:, 32:] = (20, 160, 20), (20, 20, 200)
    uv = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])
    return MeshData(corners, np.int32([[0, 1, 2], [0, 2, 3]]), uv_coords=uv, texture=texture)


RESULT = BenchmarkResult("torus", "a red ring", True, 1.0, 0.0, 0.1, run_seconds=[1.0])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


def pixels(canvas: Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(int)


def share_of(image: np.ndarray, channel: int) -> float:
    """Part of the picture where one channel is far above the others."""
    rest = np.delete(image, channel, axis=2).max(axis=2)
    return float((image[..., channel] > rest + 60).mean())


def drag(page: Page, canvas: Locator) -> None:
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 90, box["y"] + box["height"] / 2 + 60)
    page.mouse.up()


def shown(frame: Page, page_text: str) -> Locator:
    frame.goto("about:blank")  # a page of its own: contents that follow share their scripts' names
    frame.set_content(page_text)
    frame.locator('[data-state="shown"]').first.wait_for(timeout=60_000)
    return frame.locator("canvas").first


def test_colours_and_textures_are_drawn_and_turn(page: Page) -> None:
    sheet = np.zeros((8, 8, 3), np.uint8)
    canvas = shown(page, mesh_page(torus(), sheet, "ring", {}))
    before = pixels(canvas)
    assert share_of(before, 0) > 0.05
    drag(page, canvas)
    turned = pixels(canvas)
    assert (np.abs(turned - before).max(axis=2) > 40).mean() > 0.01
    canvas.dblclick()
    assert (np.abs(pixels(canvas) - before).max(axis=2) > 40).mean() < 0.001
    quad = pixels(shown(page, mesh_page(textured_quad(), sheet, "quad", {})))
    assert share_of(quad, 1) > 0.02
    assert share_of(quad, 2) > 0.02


def test_the_comparison_opens_a_mesh_on_a_click(page: Page) -> None:
    records = [record_of(case, RESULT) for case in text_cases("smoke")[:2]]
    page.set_content(comparison_page("two", records, lambda _: torus()))
    assert page.locator("canvas").count() == 0
    page.locator(".stage").last.click()
    page.locator('[data-state="shown"]').wait_for(timeout=60_000)
    assert share_of(pixels(page.locator("canvas")), 0) > 0.05
    assert page.locator(".stage").first.locator("img").is_visible()


@pytest.fixture(scope="module")
def mlflow_ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Yield the address of a run's viewer page in a running MLflow UI, and the run."""
    tracking = Tracking(uri=f"sqlite:///{tmp_path_factory.mktemp('ui') / 'mlflow.db'}")
    folder = tmp_path_factory.mktemp("artifacts")
    experiment = tracking.client.create_experiment("browser", artifact_location=folder.as_uri())
    with tracking.suite("browser", name="pass", params={}, prompts=[]) as suite:
        run_id = suite.log_result(RESULT, mesh=torus())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", f"--port={port}", "--workers=1"],
        env={
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_BACKEND_STORE_URI": tracking.uri,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url)
        yield url, f"{url}/#/experiments/{experiment}/runs/{run_id}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("MLflow's UI did not come up")


def test_the_mesh_is_seen_and_turns_inside_mlflow(
    page: Page, mlflow_ui: tuple[str, str], tmp_path: Path
) -> None:
    _, run = mlflow_ui
    page.goto(f"{run}/artifacts/viewer.html")
    frame = page.frame_locator("iframe.mlflow-html-iframe")
    frame.locator('[data-state="shown"]').wait_for(timeout=120_000)
    assert page.locator("iframe.mlflow-html-iframe").get_attribute("sandbox") == "allow-scripts"
    canvas = frame.locator("canvas")
    before = pixels(canvas)
    assert share_of(before, 0) > 0.05
    drag(page, canvas)
    assert (np.abs(pixels(canvas) - before).max(axis=2) > 40).mean() > 0.01
    page.screenshot(path=tmp_path / "mlflow.png")
