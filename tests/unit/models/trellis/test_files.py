from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dream_cad.exceptions import FileFormatError, StorageError
from dream_cad.models.trellis.files import read_latent


def latent(**changes: Any) -> bytes:
    arrays: dict[str, Any] = {
        "coords": np.array([[0, 1, 2, 3], [0, 1, 1, 0]], np.int32),
        "feats": np.arange(16, dtype=np.float32).reshape(2, 8),
        "resolution": np.array(8),
    } | changes
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_voxels_come_back_sorted_with_their_features(tmp_path: Path) -> None:
    (tmp_path / "latent.npz").write_bytes(latent())
    for source in (latent(), tmp_path / "latent.npz", str(tmp_path / "latent.npz")):
        stored = read_latent(source, 8, 8)
        assert stored.coords.tolist() == [[0, 1, 1, 0], [0, 1, 2, 3]]
        assert stored.feats[:, 0].tolist() == [8.0, 0.0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 broken",
        latent(resolution=np.array(64)),
        latent(resolution=np.array([1, 2])),
        latent(coords=np.zeros((2, 3), np.int32)),
        latent(coords=np.zeros((2, 4), np.float32)),
        latent(coords=np.zeros((0, 4), np.int32), feats=np.zeros((0, 8), np.float32)),
        latent(coords=np.array([[0, 1, 2, 8], [0, 1, 1, 0]])),
        latent(coords=np.array([[0, 1, 2, 3], [1, 1, 1, 0]])),
        latent(coords=np.array([[0, 1, 2, 3], [0, 1, 2, 3]])),
        latent(coords=np.array([[0, -1, 2, 3], [0, 1, 2, 3]])),
        latent(feats=np.full((2, 8), np.nan, np.float32)),
        latent(feats=np.zeros((2, 7), np.float32)),
        latent(feats=np.array([{}, {}], dtype=object)),
    ],
)
def test_what_is_no_latent_is_refused(data: bytes) -> None:
    with pytest.raises(FileFormatError):
        read_latent(data, 8, 8)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        read_latent(tmp_path / "none.npz", 8, 8)
