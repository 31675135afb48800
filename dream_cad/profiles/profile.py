"""What each profile asks for: budgets, texture sizes, hulls, unit and names."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from dream_cad.exceptions import InvalidConfigError

ProfileName = Literal["unity-mobile-prop", "unreal-hero", "web", "print-fdm"]
Kind = Literal["unity", "unreal", "web", "print"]
MAX_SIZE = 100_000.0
"""Of the longest side, in the profile's unit."""

_NAME_CHARS = 40
_ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True)
class Profile:
    """A destination of meshes.

    Attributes:
        name: as users write it.
        kind: decides names and files.
        about: one line for people.
        faces: triangles at most, for each level of detail from the finest on.
        texture_sizes: sides of each level's maps in texels, at most.
        hulls: convex collision hulls at most; 0 for none.
        hull_faces: triangles of a hull at most.
        unit: of lengths in the files: metres (glTF knows no other) or millimetres.
        size: of the longest side in that unit, unless the caller says otherwise.
        up: axis that points up.
        front: axis that the front faces.
    """

    name: ProfileName
    kind: Kind
    about: str
    faces: tuple[int, ...]
    texture_sizes: tuple[int, ...] = ()
    hulls: int = 0
    hull_faces: int = 0
    unit: Literal["m", "mm"] = "m"
    size: float = 1.0
    up: str = "+Y"
    front: str = "+Z"


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "unity-mobile-prop",
            "unity",
            "Unity, phones: three levels of detail and one convex collider.",
            faces=(5_000, 2_000, 600),
            texture_sizes=(512, 256, 128),
            hulls=1,
            hull_faces=255,  # of a convex MeshCollider (PhysX)
        ),
        Profile(
            "unreal-hero",
            "unreal",
            "Unreal Engine, close to the camera: four levels of detail and up to eight hulls.",
            faces=(50_000, 20_000, 8_000, 3_000),
            texture_sizes=(2_048, 1_024, 512, 256),
            hulls=8,
            hull_faces=64,
        ),
        Profile(
            "web",
            "web",
            "Web pages: a plain GLB and one compressed with Draco, and a small level of detail.",
            faces=(20_000, 4_000),
            texture_sizes=(1_024, 512),
        ),
        Profile(
            "print-fdm",
            "print",
            "3D printers: one closed body in millimetres on the bed, as STL and 3MF.",
            faces=(300_000,),
            unit="mm",
            size=100.0,
            up="+Z",
            front="-Y",
        ),
    )
}


def find_profile(name: str) -> Profile:
    """Return a profile by its name.

    Raises:
        InvalidConfigError: there is none of that name; says which there are.
    """
    if name not in PROFILES:
        raise InvalidConfigError(
            f"{name[:40]!r} is not a profile.",
            hint=f"Profiles: {', '.join(PROFILES)}.",
            details={"allowed": list(PROFILES)},
        )
    return PROFILES[name]


def name_words(title: str) -> list[str]:
    """Return the words that a name is made of: ASCII letters and digits, in lower case.

    Articles in front go; a title without any letter becomes ``mesh``.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    kept: list[str] = []
    for word in words:
        if sum(map(len, kept)) + len(kept) + len(word) > _NAME_CHARS:
            break
        kept.append(word)
    return kept if kept and kept[0][0].isalpha() else ["mesh", *kept]
