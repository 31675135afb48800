"""Gaussian splats as ``.splat`` files: 32 bytes each, the weightiest first."""

from __future__ import annotations

import numpy as np

from dream_cad.exceptions import FileFormatError
from dream_cad.splats.cloud import GaussianCloud

_RECORD = np.dtype(
    [("position", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)]
)


def splat_bytes(cloud: GaussianCloud) -> bytes:
    """Return the file that web viewers stream: position, scale, RGBA, quaternion in 8 bits.

    Args:
        cloud: the Gaussians, in the frame that the file shall have.
    """
    weight = cloud.scales.prod(axis=1) * cloud.opacities
    kept = cloud.select(np.argsort(-weight, kind="stable"))
    records = np.zeros(len(kept), _RECORD)
    records["position"], records["scale"] = kept.positions, kept.scales
    rgba = np.concatenate((kept.colors, kept.opacities[:, None]), axis=1)
    records["color"] = np.rint(rgba.clip(0, 1) * 255)
    length = np.linalg.norm(kept.rotations, axis=1, keepdims=True).clip(1e-12)
    records["rotation"] = np.rint(kept.rotations / length * 128 + 128).clip(0, 255)
    return records.tobytes()


def parse_splat(data: bytes) -> GaussianCloud:
    """Read a ``.splat`` file.

    Raises:
        FileFormatError: it is not a whole number of records.
    """
    if len(data) % _RECORD.itemsize:
        raise FileFormatError(
            f"A .splat file has {_RECORD.itemsize} bytes for each Gaussian; this one has "
            f"{len(data)}."
        )
    records = np.frombuffer(data, _RECORD)
    rgba = np.divide(records["color"], 255, dtype=np.float32)
    rotations = np.divide(records["rotation"], 128, dtype=np.float32) - np.float32(1)
    return GaussianCloud(
        records["position"].astype(np.float32),
        rgba[:, 3],
        records["scale"].astype(np.float32),
        rotations,
        rgba[:, :3],
    )
