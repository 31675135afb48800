from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.trellis.frame import from_gltf, to_gltf
from dream_cad.models.trellis.preprocess import image_tensor, object_box, prepare_image, shrink
from dream_cad.models.trellis.voxelize import voxelize

CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)


def test_large_pictures_are_shrunk_in_proportion() -> None:
    assert shrink(Image.new("RGB", (3000, 1000))).size == (1024, 341)
    assert shrink(Image.new("RGB", (5000, 1))).size == (1024, 1)
    small = Image.new("RGB", (1024, 3))
    assert shrink(small) is small


def test_the_object_is_centred_on_black() -> None:
    rgba = Image.new("RGBA", (200, 100), (255, 0, 0, 0))
    rgba.paste((0, 255, 0, 255), (150, 20, 191, 61))
    picture = np.asarray(prepare_image(rgba, 96))
    assert picture.shape == (96, 96, 3)
    assert picture[48, 48].tolist() == [0, 255, 0]
    assert picture[0].max() == 0  # transparent red is gone
    rows, columns = np.nonzero(picture[..., 1] > 128)
    assert abs(rows.min() + rows.max() - 96) <= 4
    assert abs(columns.min() + columns.max() - 96) <= 4


def test_an_object_of_one_pixel_is_cropped() -> None:
    rgba = Image.new("RGBA", (9, 9), (0, 0, 0, 0))
    rgba.putpixel((4, 4), (255, 255, 255, 255))
    assert prepare_image(rgba, 14).size == (14, 14)


def test_faint_pixels_are_no_object() -> None:
    alpha = np.full((4, 4), 204, np.uint8)
    with pytest.raises(InvalidConfigError, match="no pixel is opaque"):
        object_box(alpha)
    alpha[1, 2] = 205
    assert object_box(alpha) == (2, 1, 2, 1)


def test_pictures_of_any_size_become_tensors() -> None:
    tensor = image_tensor(Image.new("RGBA", (30, 10), (255, 0, 51, 7)), 14)
    assert tensor.shape == (1, 3, 14, 14)
    torch.testing.assert_close(tensor[0, :, 7, 7], torch.tensor([1.0, 0.0, 0.2]))


def cube_faces() -> np.ndarray:
    import trimesh

    return np.asarray(trimesh.creation.box().faces)


def test_a_cube_is_its_shell() -> None:
    coords = voxelize(CUBE, cube_faces(), 8)
    inside = ((coords > 0) & (coords < 7)).all(axis=1)
    assert len(coords) == 8**3 - 6**3
    assert not inside.any()


def test_place_and_size_do_not_matter() -> None:
    first = voxelize(CUBE, cube_faces(), 8)
    second = voxelize(CUBE * 37.0 - 12.0, cube_faces(), 8)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, np.unique(first, axis=0))


def test_voxels_agree_with_dense_samples_of_the_surface() -> None:
    random = np.random.default_rng(0)
    vertices = random.normal(size=(3, 3))
    coords = voxelize(vertices, np.array([[0, 1, 2]]), 16)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    unit = (vertices - (low + high) / 2) / (high - low).max()
    weights = random.dirichlet((1, 1, 1), 200_000)
    touched = np.unique(np.floor((weights @ unit + 0.5) * 16).clip(0, 15), axis=0)
    found = {tuple(row) for row in coords.tolist()}
    assert {tuple(row) for row in touched.astype(int).tolist()} <= found
    assert len(found) <= 1.1 * len(touched)


@pytest.mark.parametrize(
    ("vertices", "faces"),
    [
        (CUBE, np.zeros((0, 3), int)),
        (np.zeros((3, 3)), np.array([[0, 1, 2]])),
        (np.full((3, 3), np.nan), np.array([[0, 1, 2]])),
    ],
)
def test_meshes_without_a_surface_are_refused(vertices: np.ndarray, faces: np.ndarray) -> None:
    with pytest.raises(InvalidConfigError, match="mesh has no"):
        voxelize(vertices, faces, 8)


def test_frames_are_inverse_and_keep_up() -> None:
    points = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(from_gltf(to_gltf(points)), points)
    np.testing.assert_array_equal(to_gltf(np.array([[0.0, 0, 1]])), [[0, 1, 0]])  # up
    np.testing.assert_array_equal(to_gltf(np.array([[0.0, -1, 0]])), [[0, 0, 1]])  # front
