from __future__ import annotations

import numpy as np
import pytest
import torch

from dream_cad.models.hunyuan3d_mini.paint.back_projection import back_project, depth_edges
from dream_cad.models.hunyuan3d_mini.paint.cameras import CAMERAS, camera_label, camera_matrices
from dream_cad.models.hunyuan3d_mini.paint.maps import RenderMesh, render_mesh, render_view
from dream_cad.models.hunyuan3d_mini.paint.rasterize import rasterize

SQUARE = np.float32([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
FACES = np.int32([[0, 1, 2], [0, 2, 3]])
UVS = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])


def flat_mesh() -> RenderMesh:
    """A square that faces the first camera."""
    return render_mesh(SQUARE, FACES, UVS)


def test_a_flat_surface_has_no_edges_of_depth() -> None:
    mesh = flat_mesh()
    inside = depth_edges(mesh, render_view(mesh, camera_matrices(CAMERAS[0]), 64))[20:44, 20:44]
    assert not inside.any()


def test_a_picture_lands_upright_and_unmirrored() -> None:
    mesh = flat_mesh()
    image = torch.zeros(256, 256, 3)
    image[:128, :, 0] = 1.0  # the upper half is red, the right half green
    image[:, 128:, 1] = 1.0
    view = render_view(mesh, camera_matrices(CAMERAS[0]), 256)
    put = back_project(mesh, view, image, 64)
    top, bottom = put.texture[16], put.texture[48]
    torch.testing.assert_close(top[16], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(top[48], torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(bottom[16], torch.tensor([0.0, 0.0, 0.0]))
    torch.testing.assert_close(put.cosine[32, 32], torch.tensor(1.0))


def test_the_back_is_not_painted_from_the_front() -> None:
    mesh = render_mesh(SQUARE, FACES[:, ::-1].copy(), UVS)
    view = render_view(mesh, camera_matrices(CAMERAS[0]), 128)
    put = back_project(mesh, view, torch.ones(128, 128, 3), 32)
    assert not put.cosine.any()


def test_nothing_in_the_image_is_nothing() -> None:
    clip = torch.tensor([[5.0, 5, 0, 1], [6, 5, 0, 1], [5, 6, 0, 1]])
    drawn = rasterize(clip, torch.tensor([[0, 1, 2]]), 8, 8)
    assert not drawn.covered.any()


def test_a_camera_without_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match="elevation is 45"):
        camera_label(45, 0)
