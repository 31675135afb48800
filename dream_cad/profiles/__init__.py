"""Output profiles: one mesh, as a game engine, a web page or a printer wants it, in one zip.

Importing this package is cheap: the mesh libraries are imported with what builds a package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream_cad.profiles.profile import PROFILES, Profile, ProfileName, find_profile

__all__ = ["PROFILES", "Package", "Profile", "ProfileName", "build_package", "find_profile"]

if TYPE_CHECKING:
    from dream_cad.profiles.package import Package, build_package


def __getattr__(name: str) -> object:
    if name in ("Package", "build_package"):
        from dream_cad.profiles import package

        return getattr(package, name)
    raise AttributeError(f"module 'dream_cad.profiles' has no attribute {name!r}")
