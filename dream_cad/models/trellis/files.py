"""Save formats of the representations that are no meshes; all in TRELLIS's own world.

The world is the cube [-0.5, 0.5]^3 with z up; ``splats.ply`` and ``splats.splat`` are turned as
published, (x, y, z) -> (x, -z, y).
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.exceptions import FileFormatError, GenerationError, StorageError
from dream_cad.models.trellis.representations import PLY_COLUMNS, Gaussians, RadianceField
from dream_cad.models.trellis.source import StoredLatent
from dream_cad.nn.sparse.tensor import SparseTensor
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.splat_file import splat_bytes

SPLATS_PLY, SPLATS_SPLAT = "splats.ply", "splats.splat"
FIELD_FILE, LATENT_FILE = "field.npz", "latent.npz"
"""Names in ``GenerationResult.files``."""

_AABB = (-0.5, -0.5, -0.5, 1.0, 1.0, 1.0)
_MAX_SIDE = 1024


def gaussian_cloud(splats: Gaussians) -> GaussianCloud:
    """Return the splats as they are seen, in the frame of the published PLY."""
    table = splats.ply_table()
    return GaussianCloud(
        positions=table[:, :3],
        opacities=splats.opacities[:, 0].float().cpu().numpy(),
        scales=np.exp(table[:, 10:13]),
        rotations=table[:, 13:17],
        colors=splats.colors.float().cpu().numpy().clip(0, 1),
    )


def splat_files(splats: Gaussians) -> dict[str, bytes]:
    """Return the 3DGS ``.ply`` (17 float columns as published) and the ``.splat`` of viewers.

    Raises:
        GenerationError: a value is NaN or infinite.
    """
    raw = (splats.xyz, splats.raw_scaling, splats.raw_rotation, splats.raw_opacity)
    _require_finite("Gaussians are", splats.features_dc, *raw)
    table = splats.ply_table()
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    lines += [f"property float {name}" for name in PLY_COLUMNS]
    header = "\n".join([*lines, "end_header", ""]).encode("ascii")
    return {
        SPLATS_PLY: header + table.astype("<f4").tobytes(),
        SPLATS_SPLAT: splat_bytes(gaussian_cloud(splats)),
    }


def field_file(field: RadianceField) -> dict[str, bytes]:
    """Return the radiance field as ``field.npz``.

    Arrays: ``trivec`` (N, R, 3, D), ``density`` (N, R), ``features_dc`` (N, R, 1, 3), ``position``
    (N, 3) voxel centres in [0, 1], ``depth`` (N, 1) octree level, ``aabb`` (6,) origin and size of
    the world's cube; float32 but for depth (uint8).

    Raises:
        GenerationError: a value is NaN or infinite.
    """
    _require_finite("radiance field is", field.trivec, field.density, field.features_dc)
    arrays = {
        name: getattr(field, name).float().cpu().numpy()
        for name in ("trivec", "density", "features_dc", "position")
    }
    depth = field.depth.cpu().numpy()
    return {FIELD_FILE: _npz(**arrays, depth=depth, aabb=np.array(_AABB, np.float32))}


def latent_file(slat: SparseTensor, resolution: int) -> dict[str, bytes]:
    """Return the structured latent as ``latent.npz``.

    Arrays: ``coords`` (N, 4) int32 (batch 0, x, y, z), ``feats`` (N, 8) float32 as the decoders
    take them, ``resolution`` () int64.
    """
    coords = slat.voxels.coords.to("cpu").numpy().astype(np.int32)
    feats = slat.feats.float().cpu().numpy()
    return {LATENT_FILE: _npz(coords=coords, feats=feats, resolution=np.array(resolution))}


def read_latent(source: bytes | str | Path, resolution: int, channels: int) -> StoredLatent:
    """Read a ``latent.npz``, and check it before anything is decoded.

    Args:
        source: the file or its bytes.
        resolution: of the loaded decoders.
        channels: of their latent.

    Raises:
        StorageError: the file cannot be read.
        FileFormatError: it is no latent, or not one for these decoders.
    """
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise StorageError(f"{source!s} cannot be read: {error}") from error
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            coords, feats = stored["coords"], stored["feats"]
            side = int(stored["resolution"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise FileFormatError(f"This is no latent.npz of TRELLIS: {error}") from error
    if side != resolution or not 0 < side <= _MAX_SIDE:
        raise FileFormatError(
            f"The latent is of resolution {side}; the checkpoint decodes {resolution}."
        )
    return _checked(coords, feats, side, channels)


def _checked(
    coords: NDArray[np.generic], feats: NDArray[np.generic], side: int, channels: int
) -> StoredLatent:
    count = len(coords) if coords.ndim == 2 else 0
    fits = coords.shape == (count, 4) and feats.shape == (count, channels) and count > 0
    if not fits or coords.dtype.kind not in "iu" or feats.dtype.kind != "f":
        raise FileFormatError(
            f"coords are {coords.shape} {coords.dtype} and feats {feats.shape} {feats.dtype}; "
            f"expected (N, 4) integers and (N, {channels}) floats."
        )
    places, values = coords.astype(np.int64), feats.astype(np.float32)
    if places[:, 0].any() or places.min() < 0 or places.max() >= side:
        raise FileFormatError(f"The latent has voxels outside [0, {side}), or several objects.")
    if not np.isfinite(values).all() or len(np.unique(places, axis=0)) != count:
        raise FileFormatError("The latent is not finite, or has a voxel twice.")
    order = np.lexsort(places.T[::-1])
    return StoredLatent(places[order], values[order])


def _require_finite(what: str, *values: Tensor) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise GenerationError(
            f"The {what} not finite.",
            hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
        )


def _npz(**arrays: NDArray[np.generic]) -> bytes:
    """An npz file without the time of day in it: the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                np.lib.format.write_array(entry, np.asarray(array, order="C"), allow_pickle=False)
    return buffer.getvalue()
