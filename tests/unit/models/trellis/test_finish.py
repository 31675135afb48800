from __future__ import annotations

import pytest

from dream_cad.models.trellis import RepresentationType, TrellisOptions
from dream_cad.models.trellis.finish import simplified_share


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({}, 0.95),
        ({"simplify": 0.2}, 0.2),
        ({"simplify": 0.0}, 0.0),
        ({"target_faces": 250}, 0.75),
        ({"target_faces": 250, "simplify": 0.1}, 0.75),
        ({"target_faces": 5000}, 0.0),
    ],
)
def test_share_of_faces_to_take_away(options: dict[str, object], share: float) -> None:
    parsed = TrellisOptions.parse(options)
    assert simplified_share(1000, parsed, 0.95) == pytest.approx(share)


def test_never_all_faces_are_taken_away() -> None:
    parsed = TrellisOptions.parse({"target_faces": 100})
    assert simplified_share(10_000_000, parsed, 0.0) == 0.999


def test_what_a_texture_is_baked_from_is_decoded() -> None:
    options = TrellisOptions.parse({"texture": True, "texture_source": "nerf"})
    assert options.needs(RepresentationType.NERF)
    assert not options.wants(RepresentationType.NERF)
    assert not options.needs(RepresentationType.GAUSSIAN_SPLATTING)
    assert not TrellisOptions.parse({}).needs(RepresentationType.GAUSSIAN_SPLATTING)
