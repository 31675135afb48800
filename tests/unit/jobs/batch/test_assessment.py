from __future__ import annotations

import numpy as np

from dream_cad.mesh.data import MeshData
from jobs.batch.stages import assess
from tests.cluster.echo_model import _CORNERS, _FACES  # the cube of the cluster tests


def test_a_closed_cube_is_better_than_half_of_one() -> None:
    whole = MeshData(vertices=_CORNERS, faces=_FACES)
    half = MeshData(vertices=_CORNERS, faces=np.ascontiguousarray(_FACES[::2]))
    assert assess(whole) > 90
    assert assess(half) < 50
