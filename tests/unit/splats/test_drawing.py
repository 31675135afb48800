"""Which renderer draws, and what gsplat is told; gsplat itself runs in tests/gpu."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dream_cad.mesh.views import View, look_at
from dream_cad.splats import drawing
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.projection import MIP_FILTER, PLAIN_FILTER, ScreenFilter
from dream_cad.splats.rasterise import rasterise
from tests.unit.splats.test_tiles import VIEW, cloud

SIZE = 48


def rasterization(**told: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """gsplat's contract, kept by our exact renderer from nothing but what it is told."""
    parts = ("means", "opacities", "scales", "quats", "colors")
    splats = GaussianCloud(*(told[name].numpy() for name in parts))
    (matrix,), (camera,) = told["viewmats"].double().numpy(), told["Ks"].numpy()
    size = told["width"]
    assert told["height"] == size
    assert camera[0, 2] == camera[1, 2] == size / 2  # centres of pixels lie at halves
    assert camera[0, 0] == camera[1, 1]
    assert told["near_plane"] == 0.2
    is_mip = told["rasterize_mode"] == "antialiased"
    seen = rasterise(
        splats,
        matrix,
        size=size,
        fovy_deg=float(np.degrees(2 * np.arctan(size / 2 / camera[0, 0]))),
        background=(0, 0, 0),
        screen_filter=ScreenFilter(told["eps2d"], is_mip, told["tile_size"] if is_mip else None),
    )
    channels = np.concatenate([seen.image.transpose(1, 2, 0), seen.depth[..., None]], axis=2)
    assert told["render_mode"] == "RGB+D"
    radii = torch.from_numpy(np.stack([seen.radii, seen.radii // 2], axis=1))[None]
    alpha = torch.from_numpy(seen.alpha)[None, ..., None]
    return torch.from_numpy(channels)[None], alpha, {"radii": radii}


@pytest.mark.parametrize("screen_filter", [PLAIN_FILTER, MIP_FILTER])
def test_gsplat_is_told_the_cloud_the_camera_and_the_filter(screen_filter: ScreenFilter) -> None:
    splats, background = cloud(200), (0.2, 0.5, 0.9)
    gsplat = SimpleNamespace(rasterization=rasterization)
    drawn = drawing.draw_with_gsplat(
        gsplat, splats, VIEW, SIZE, background, screen_filter, device="cpu"
    )
    exact = rasterise(
        splats,
        VIEW.world_to_camera,
        size=SIZE,
        fovy_deg=VIEW.fov_deg,
        background=background,
        screen_filter=screen_filter,
    )
    for name in ("image", "alpha", "depth"):
        np.testing.assert_allclose(getattr(drawn, name), getattr(exact, name), atol=1e-4)
    np.testing.assert_array_equal(drawn.radii, exact.radii)


@pytest.fixture
def fresh() -> Iterator[None]:
    drawing.load_gsplat.cache_clear()
    yield
    drawing.load_gsplat.cache_clear()


def install(patch: pytest.MonkeyPatch, kernels: object) -> ModuleType:
    package, cuda, backend = (
        ModuleType(name) for name in ("gsplat", "gsplat.cuda", "gsplat.cuda._backend")
    )
    backend._C = kernels  # type: ignore[attr-defined]
    package.__spec__ = SimpleNamespace(name="gsplat")  # type: ignore[assignment]
    for module in (package, cuda, backend):
        patch.setitem(sys.modules, module.__name__, module)
    return package


@pytest.mark.usefixtures("fresh")
def test_gsplat_is_taken_where_its_kernels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    package = install(monkeypatch, kernels=object())
    assert drawing.load_gsplat() is package


@pytest.mark.usefixtures("fresh")
def test_gsplat_without_kernels_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, kernels=None)
    assert drawing.load_gsplat() is None
    assert "no CUDA toolkit" in caplog.text


def test_a_cpu_never_asks_for_gsplat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "load_gsplat", lambda: pytest.fail("asked"))
    picture = drawing.draw(cloud(20), View(look_at(np.array([0, -2, 0])), 40.0), size=16)
    assert picture.image.shape == (3, 16, 16)
