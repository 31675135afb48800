"""Output profiles: one mesh, as a game engine, a web page or a printer wants it, in one zip."""

from __future__ import annotations

from dream_cad.profiles.package import Package, build_package
from dream_cad.profiles.profile import PROFILES, Profile, ProfileName, find_profile

__all__ = ["PROFILES", "Package", "Profile", "ProfileName", "build_package", "find_profile"]
