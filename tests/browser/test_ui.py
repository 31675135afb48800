"""The web interface in a real Chromium, in front of a real local cluster with a nano checkpoint."""

from __future__ import annotations

import html
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect

from dream_cad.client import Client
from dream_cad.queue import JobQueue
from dream_cad.ui.progress import job_html
from tests.browser.ui_page import CHROMIUM, WAIT_MS, chromium, opened, pixels, share_drawn
from tests.cluster.conftest import Server, app_args, serving

pytest.importorskip("gradio", reason="the extra ui is not installed")
AXE = Path("build/node/node_modules/axe-core/axe.min.js")
PICTURES = os.environ.get("DREAM_CAD_TEST_PICTURES")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium or Chrome is installed"),
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # playwright leaves its pipe to the end
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("ui")
    models = [{"name": "triposr", "checkpoint": "nano"}, {"name": "echo"}]
    args = app_args(folder, models=models, finisher={"preview_size": 64})
    with serving(folder, args) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    return str(server.client.base_url)


def keep(page: Page, name: str, *, whole: bool = False) -> None:
    """Store a picture of the page where somebody wants to look at it."""
    if PICTURES is not None:
        page.screenshot(path=Path(PICTURES) / f"ui_{name}.png", full_page=whole)


def choose(page: Page, model: str, **options: str) -> None:
    """Choose a model and fill in its options."""
    page.locator(f'input[name="dc-model"][value="{model}"]').check()
    if not options:
        return
    marker = "hold" if model == "echo" else "resolution"
    expect(page.locator(f"#dc-option-{marker}")).to_be_attached()
    page.locator(".dc-options").evaluate("details => { details.open = true; }")
    for name, value in options.items():
        field = page.locator(f"#dc-option-{name}")
        if field.evaluate("element => element.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def describe(page: Page, prompt: str) -> None:
    page.get_by_label("What shall it be?").fill(prompt)


def generate(page: Page) -> None:
    page.get_by_role("button", name="Generate", exact=True).click()


def until_shown(page: Page, where: str = "#dc-stage") -> np.ndarray:
    """Wait for the mesh and return the viewer's pixels; the mesh must be among them."""
    page.locator(f'{where} [data-state="shown"]').wait_for(timeout=WAIT_MS)
    image = pixels(page.locator(f"{where} canvas"))
    assert share_drawn(image) > 0.02
    return image


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_words_become_a_mesh_that_turns_and_downloads(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        choose(page, "triposr", seed="1", resolution="64")
        describe(page, "a red wooden chair")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#dc-progress progress")).to_be_visible()
        before = until_shown(page)
        assert "checkpoint nano" in page.locator("figcaption").inner_text()
        assert "triangles" in page.locator(".dc-count").inner_text()
        keep(page, "result")
        page.locator("#dc-stage canvas").focus()
        page.keyboard.press("ArrowRight")
        assert (np.abs(pixels(page.locator("#dc-stage canvas")) - before).max(axis=2) > 30).any()
        page.get_by_role("button", name="Wireframe").click()
        expect(page.get_by_role("button", name="Wireframe")).to_have_attribute(
            "aria-pressed", "true"
        )
        expect(page.get_by_role("button", name="Shaded")).to_have_attribute("aria-pressed", "false")
        page.get_by_role("button", name="Normals").click()
        assert share_drawn(pixels(page.locator("#dc-stage canvas"))) > 0.02
        for name, start in (("GLB", b"glTF"), ("PLY", b"ply")):
            with page.expect_download() as download:
                page.get_by_role("button", name=name, exact=True).click()
            path = download.value.path()
            assert path.read_bytes().startswith(start)
            assert download.value.suggested_filename.startswith("a-red-wooden-chair-")


def test_a_running_job_is_cancelled(browser: Browser, server: Server, url: str) -> None:
    hold = server.hold()
    with opened(browser, url) as page:
        choose(page, "echo", hold=str(hold))
        describe(page, "a cube that takes long")
        generate(page)
        expect(page.locator("#dc-progress")).to_contain_text("holding", timeout=WAIT_MS)
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.locator("#dc-progress")).to_contain_text("Cancelled", timeout=WAIT_MS)
        expect(page.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
    hold.unlink()


def test_errors_say_what_to_do(browser: Browser, url: str) -> None:
    with opened(browser, url) as page:
        generate(page)
        expect(page.get_by_role("alert").first).to_contain_text("There is no description.")
        choose(page, "echo", fail="error")
        describe(page, "a round cube")
        generate(page)
        alert = page.get_by_role("alert").first
        expect(alert).to_contain_text("The cube came out round.", timeout=WAIT_MS)
        expect(alert).to_contain_text("Try another prompt.")


@pytest.mark.long
def test_a_picture_becomes_a_mesh(browser: Browser, url: str, tmp_path: Path) -> None:
    picture = Image.new("RGBA", (128, 128))
    ImageDraw.Draw(picture).rectangle((34, 30, 94, 100), fill=(200, 60, 40, 255))
    picture.save(tmp_path / "block.png")
    with opened(browser, url) as page:
        page.get_by_label("A picture", exact=True).check()
        page.locator('#dc-image input[type="file"]').set_input_files(tmp_path / "block.png")
        expect(page.locator("#dc-image img")).to_be_visible()
        choose(page, "triposr", resolution="64")
        assert page.locator("#dc-option-negative_prompt").count() == 0
        generate(page)
        until_shown(page)
        page.get_by_role("button", name="Wireframe").click()
        page.get_by_role("button", name="Check the mesh").click()
        expect(page.locator(".dc-report")).to_contain_text("Closed surface", timeout=WAIT_MS)
        keep(page, "picture", whole=True)


@pytest.mark.long
def test_another_seed_history_and_a_blind_comparison(browser: Browser, url: str) -> None:
    with opened(browser, url, dark=True) as page:
        choose(page, "echo")
        describe(page, "a purple crate")
        generate(page)
        until_shown(page)
        first = page.locator("#dc-stage figcaption").inner_text()
        page.get_by_role("button", name="Again with another seed").click()
        expect(page.locator("#dc-stage figcaption")).not_to_have_text(first, timeout=WAIT_MS)
        open_tab(page, "History")
        page.get_by_label("Search").fill("purple crate")
        rows = page.locator("#dc-history tbody tr")
        expect(rows).to_have_count(2)
        rows.first.get_by_role("button").click()
        until_shown(page, "#dc-old-stage")
        keep(page, "history")
        open_tab(page, "Compare")
        for label, place in (("One mesh", 0), ("Another mesh", 1)):
            page.get_by_label(label, exact=True).click()
            page.get_by_role("option").nth(place).click()
        page.get_by_role("button", name="Show side by side").click()
        until_shown(page, "#dc-left")
        until_shown(page, "#dc-right")
        assert "echo" not in page.locator("#dc-left").inner_text()
        keep(page, "compare")
        page.get_by_role("button", name="Left is better").click()
        expect(page.locator("#dc-verdict")).to_contain_text("Left: a purple crate")


@pytest.mark.long
def test_a_batch_is_watched_retried_and_downloaded(
    browser: Browser, url: str, tmp_path: Path
) -> None:
    rows = "prompt,model,option.fail\na crate,echo,\na box,echo,\na round box,echo,error\n"
    (tmp_path / "shop.csv").write_text(rows)
    with opened(browser, url) as page:
        open_tab(page, "Batch")
        page.locator('#dc-batch-file input[type="file"]').set_input_files(tmp_path / "shop.csv")
        expect(page.locator("#dc-batch-file")).to_contain_text("shop")
        page.get_by_role("button", name="Start the batch").click()
        state = page.locator("#dc-batch-state")
        expect(state).to_contain_text("2 completed, 1 failed", timeout=WAIT_MS)
        expect(state).to_contain_text("The cube came out round.")
        keep(page, "batch")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download zip").click()
        assert download.value.path().read_bytes().startswith(b"PK")
        page.get_by_role("button", name="Retry failed").click()
        expect(state).to_contain_text("2 completed, 1 failed", timeout=WAIT_MS)
        open_tab(page, "Cluster")
        expect(page.locator("#dc-cluster")).to_contain_text("Meshes a minute")
        expect(page.locator("#dc-cluster table")).to_contain_text("triposr")
        keep(page, "cluster")


@pytest.mark.long
def test_a_phone_shows_everything_in_its_width(browser: Browser, url: str) -> None:
    with opened(browser, url, width=390, height=844, dark=True) as page:
        choose(page, "triposr", resolution="64", seed="3")
        describe(page, "a yellow chair")
        generate(page)
        until_shown(page)
        for name in ("Create", "Batch"):
            open_tab(page, name)
            wide = page.evaluate(WIDE)
            assert wide == [], f"{name} is too wide: {wide}"
        open_tab(page, "Create")
        page.locator("#dc-progress").evaluate("part => part.scrollIntoView()")
        keep(page, "phone")


@pytest.mark.long
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(browser: Browser, url: str, dark: bool) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not in build/node (make setup installs it where npm is)")
    with opened(browser, url, dark=dark) as page:
        choose(page, "echo")
        describe(page, "a cube")
        generate(page)
        until_shown(page)
        page.locator(".dc-options").evaluate("details => { details.open = true; }")
        page.add_script_tag(path=AXE)
        for tab in ("Create", "Compare", "Batch", "History", "Cluster"):
            open_tab(page, tab)
            found = page.evaluate("axe.run(document)")["violations"]
            serious = [
                (rule["id"], [node["html"][:200] for node in rule["nodes"]])
                for rule in found
                if rule["impact"] in ("serious", "critical")
            ]
            assert serious == [], f"{tab}: {serious}"


@pytest.mark.long
def test_first_paint_and_orbiting_of_200_000_triangles(browser: Browser, url: str) -> None:
    """Measures; the numbers are printed (pytest -s), and only absurd ones fail."""
    with opened(browser, url) as page:
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        frames = page.evaluate(ORBIT)
    report = f"first paint {paint:.0f} ms, {frames['faces']} triangles at {frames['fps']:.1f} fps"
    os.write(1, f"\n{report}\n".encode())
    assert frames["faces"] >= 200_000
    assert frames["fps"] > 0
    assert frames["moved"]["width"] < frames["rested"] == frames["after"]  # lighter while it moves


@pytest.mark.long
def test_with_keys_a_visitor_signs_in_and_sees_their_own_jobs(
    browser: Browser, server: Server, url: str
) -> None:
    queue = JobQueue(f"sqlite:///{server.folder}/jobs.sqlite3")
    known, secret = queue.keys.create_key("artist")
    try:
        page = browser.new_page()
        page.goto(url)
        page.get_by_label("API key").fill(secret)
        page.get_by_role("button", name="Sign in").click()
        page.locator(".dc-card").first.wait_for(timeout=WAIT_MS)
        choose(page, "echo")
        describe(page, "a cube of my own")
        generate(page)
        until_shown(page)
        open_tab(page, "History")
        expect(page.locator("#dc-history tbody tr")).to_have_count(1)
        page.close()
    finally:
        queue.keys.revoke(known.id)
        queue.close()


@pytest.mark.long
def test_steps_are_seen_soon_after_the_server_tells_them(browser: Browser, url: str) -> None:
    """Measures; the median is printed (pytest -s)."""
    told: dict[str, float] = {}
    with opened(browser, url) as page:
        choose(page, "triposr", resolution="64")
        page.evaluate(WATCH)
        describe(page, "a blue vase")
        generate(page)
        job_id = page.locator("#dc-progress [data-job]").get_attribute("data-job")
        assert job_id is not None
        with Client(url) as client:
            for event in client.events(job_id):
                text = re.search(r"<span>(.*?)</span>", job_html(event.job))
                assert text is not None
                told.setdefault(key(text[1]), 1000 * time.time())
        until_shown(page)
        shown = page.evaluate("window.seen").items()
        seen = {key(text): at for text, at in reversed(list(shown))}  # the first sight counts
    lags = sorted(seen[step] - told[step] for step in told.keys() & seen.keys())
    assert lags, (told, seen)
    report = f"{len(seen)} stages seen, {len(lags)} compared: median {lags[len(lags) // 2]:.0f} ms"
    os.write(1, f"\n{report} behind the server's events\n".encode())


def key(shown: str) -> str:
    """The stage alone: the page and we follow the job by streams of their own."""
    return re.sub(r"[\d·].*", "", html.unescape(shown)).strip()


WATCH = """() => {
  window.seen = {};
  new MutationObserver(() => {
    const text = document.querySelector("#dc-progress .dc-job-head span")?.textContent;
    if (text && !(text in window.seen)) window.seen[text] = Date.now();
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""

WIDE = """[...document.querySelectorAll("body *")]
  .filter(part => part.getBoundingClientRect().right > 391)
  .filter(part => !part.closest(".dc-scroll, .visually-hidden"))
  .map(part => `${part.tagName}#${part.id}.${part.className}`).slice(0, 12)"""

ORBIT = """async () => {
  const side = 318, count = side * side, faces = 2 * (side - 1) ** 2;
  const position = new Float32Array(3 * count), index = new Uint32Array(3 * faces);
  for (let i = 0; i < count; i++) {
    const u = 2 * Math.PI * (i % side) / (side - 1);
    const v = 2 * Math.PI * Math.floor(i / side) / (side - 1);
    const ring = 0.35 + 0.15 * Math.cos(v);
    position.set([ring * Math.cos(u), 0.15 * Math.sin(v), ring * Math.sin(u)], 3 * i);
  }
  let at = 0;
  for (let y = 0; y < side - 1; y++) for (let x = 0; x < side - 1; x++) {
    const a = y * side + x;
    index.set([a, a + side, a + 1, a + 1, a + side, a + side + 1], at);
    at += 6;
  }
  const tree = {asset: {version: "2.0"}, scenes: [{nodes: [0]}], nodes: [{mesh: 0}],
    meshes: [{primitives: [{attributes: {POSITION: 0}, indices: 1}]}],
    accessors: [{bufferView: 0, componentType: 5126, count, type: "VEC3"},
      {bufferView: 1, componentType: 5125, count: index.length, type: "SCALAR"}],
    bufferViews: [{buffer: 0, byteOffset: 0, byteLength: position.byteLength},
      {buffer: 0, byteOffset: position.byteLength, byteLength: index.byteLength}]};
  let json = JSON.stringify(tree);
  json += " ".repeat((4 - json.length % 4) % 4);
  const head = new DataView(new ArrayBuffer(20));
  const size = 28 + json.length + position.byteLength + index.byteLength;
  [0x46546c67, 2, size, json.length, 0x4e4f534a].forEach((v, i) => head.setUint32(4 * i, v, true));
  const middle = new DataView(new ArrayBuffer(8));
  middle.setUint32(0, position.byteLength + index.byteLength, true);
  middle.setUint32(4, 0x004e4942, true);
  const glb = await new Blob([head, json, middle, position, index]).arrayBuffer();
  const canvas = document.createElement("canvas");
  canvas.style.cssText = "width:720px;height:560px;position:fixed;top:0;left:0";
  document.body.append(canvas);
  const view = await DreamCadViewer.mount(canvas, glb), pixel = new Uint8Array(4);
  const gl = canvas.getContext("webgl2"), began = performance.now();
  const turns = 20, rested = canvas.width;
  for (let i = 0; i < turns; i++) {
    canvas.onkeydown({key: "ArrowRight", preventDefault() {}});
    await new Promise(requestAnimationFrame);  // after the view's own, which draws
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
  }
  const fps = 1000 * turns / (performance.now() - began);
  const moved = view.pace();
  await new Promise(done => setTimeout(done, 2500));
  const after = canvas.width;
  view.close();
  canvas.remove();
  return {faces: view.faces, fps, rested, moved, after};
}"""
