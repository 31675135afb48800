from __future__ import annotations

import numpy as np
import pytest

from dream_cad.exceptions import FileFormatError
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.splat_file import parse_splat, splat_bytes


def cloud(count: int = 20) -> GaussianCloud:
    random = np.random.default_rng(0)
    quaternions = random.normal(size=(count, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    return GaussianCloud(
        random.normal(size=(count, 3)).astype(np.float32),
        random.random(count).astype(np.float32),
        random.random((count, 3)).astype(np.float32),
        quaternions.astype(np.float32),
        random.random((count, 3)).astype(np.float32),
    )


def test_round_trip_within_eight_bits_weightiest_first() -> None:
    given = cloud()
    data = splat_bytes(given)
    assert len(data) == 32 * len(given)
    read = parse_splat(data)
    order = np.argsort(-given.scales.prod(axis=1) * given.opacities)
    np.testing.assert_array_equal(read.positions, given.positions[order])
    np.testing.assert_array_equal(read.scales, given.scales[order])
    np.testing.assert_allclose(read.opacities, given.opacities[order], atol=0.5 / 255)
    np.testing.assert_allclose(read.colors, given.colors[order], atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(read.rotations, given.rotations[order], atol=1 / 128)


def test_a_broken_file_is_told() -> None:
    with pytest.raises(FileFormatError, match="32 bytes"):
        parse_splat(splat_bytes(cloud())[:-1])
    assert len(parse_splat(b"")) == 0
