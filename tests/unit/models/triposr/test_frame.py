from __future__ import annotations

import numpy as np

from dream_cad.models.triposr.frame import GLTF_FROM_MODEL, rotate, to_gltf, to_model


def test_front_and_up_of_both_frames() -> None:
    front, left, up = np.eye(3, dtype=np.float32)
    assert to_gltf(front[None]).tolist() == [[0, 0, 1]]
    assert to_gltf(left[None]).tolist() == [[1, 0, 0]]
    assert to_gltf(up[None]).tolist() == [[0, 1, 0]]


def test_round_trip_and_handedness() -> None:
    vertices = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    assert np.array_equal(to_model(to_gltf(vertices)), vertices)
    assert np.linalg.det(GLTF_FROM_MODEL) == 1
    assert to_gltf(vertices).dtype == np.float32
    assert to_gltf(vertices).flags.c_contiguous


def test_demo_frame_is_ours_turned_half_around_y() -> None:
    """The original demo faces -z: (x, y, z) -> (-y, z, -x)."""
    demo = np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]], dtype=np.float32)
    half_turn = np.diag(np.array([-1, 1, -1], dtype=np.float32))
    vertices = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    assert np.array_equal(rotate(vertices, demo), rotate(to_gltf(vertices), half_turn))
