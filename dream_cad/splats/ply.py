"""Gaussian splats as ``.ply`` files that 3DGS viewers read (binary, without view dependence)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from dream_cad.exceptions import FileFormatError, StorageError
from dream_cad.splats.cloud import PRUNE_OPACITY, GaussianCloud

SH_DC = 0.28209479177387814
"""The constant spherical harmonic: colour = 0.5 + SH_DC * f_dc."""

_PROPERTIES = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4", "uint": "<u4"}
_MAX_HEADER = 65_536
_END = b"end_header\n"


def ply_bytes(cloud: GaussianCloud, min_opacity: float = PRUNE_OPACITY) -> bytes:
    """Return a 3DGS file: opacity as logit, scale as logarithm, colour as harmonic.

    Args:
        cloud: the Gaussians, in the frame that the file shall have.
        min_opacity: fainter ones are left out.
    """
    kept = cloud.pruned(min_opacity)
    opacity = np.clip(kept.opacities, np.float32(1e-6), np.float32(1 - 1e-6))
    columns = [
        kept.positions,
        (kept.colors - np.float32(0.5)) / np.float32(SH_DC),
        np.log(opacity / (1 - opacity))[:, None],
        np.log(kept.scales + np.float32(1e-8)),
        kept.rotations,
    ]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(kept)}"]
    lines += [f"property float {name}" for name in _PROPERTIES]
    header = "\n".join([*lines, "end_header", ""]).encode("ascii")
    return header + np.concatenate(columns, axis=1).astype("<f4").tobytes()


def parse_ply(data: bytes) -> GaussianCloud:
    """Read a 3DGS file; other properties (normals, higher harmonics) are left out.

    Raises:
        FileFormatError: no binary 3DGS ``.ply``, or shorter than it says.
    """
    names, count, start = _read_header(data)
    record = np.dtype(names)
    missing = [name for name in _PROPERTIES if name not in (record.names or ())]
    if missing:
        raise FileFormatError(f"The .ply holds no Gaussians: {', '.join(missing)} missing.")
    if len(data) < start + count * record.itemsize:
        raise FileFormatError("The .ply is shorter than its header says.", hint="Copy it again.")
    rows = np.frombuffer(data, dtype=record, count=count, offset=start)

    def columns(*wanted: str) -> NDArray[np.float32]:
        return np.stack([rows[name] for name in wanted], axis=-1).astype(np.float32)

    return GaussianCloud(
        columns("x", "y", "z"),
        expit(columns("opacity")[:, 0]),
        np.exp(columns("scale_0", "scale_1", "scale_2")),
        columns("rot_0", "rot_1", "rot_2", "rot_3"),
        columns("f_dc_0", "f_dc_1", "f_dc_2") * np.float32(SH_DC) + np.float32(0.5),
    )


def load_ply(path: Path) -> GaussianCloud:
    """Read a 3DGS file; see ``parse_ply``.

    Raises:
        StorageError: the file cannot be read.
        FileFormatError: it holds something else.
    """
    try:
        return parse_ply(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error


def _read_header(data: bytes) -> tuple[list[tuple[str, str]], int, int]:
    """Return properties with their types, the number of rows, and where they begin."""
    end = data[:_MAX_HEADER].find(_END)
    lines = data[: max(end, 0)].decode("ascii", errors="replace").split("\n")
    if end < 0 or lines[0].strip() != "ply":
        raise FileFormatError("This is no .ply file.")
    if "format binary_little_endian 1.0" not in [line.strip() for line in lines]:
        raise FileFormatError("The .ply is not binary little endian, as files of Gaussians are.")
    words = [line.split() for line in lines]
    elements = [line for line in words if line[:1] == ["element"]]
    try:
        (_, kind, count), properties = elements[0], [w for w in words if w[:1] == ["property"]]
        if kind != "vertex" or len(elements) != 1:
            raise FileFormatError("The .ply holds something else than a list of points.")
        return [(name, _TYPES[type_]) for _, type_, name in properties], int(count), end + len(_END)
    except (ValueError, KeyError, IndexError) as error:
        raise FileFormatError(f"The header of the .ply cannot be read: {error}") from error
