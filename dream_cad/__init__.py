"""Text prompts and pictures become 3D meshes: one API over several published models.

Importing this package is cheap: torch and the models are imported when a model is created.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "1.0.0"
__all__ = ["ModelFactory", "__version__"]

if TYPE_CHECKING:
    from dream_cad.models.factory import ModelFactory


def __getattr__(name: str) -> object:
    if name == "ModelFactory":
        from dream_cad.models.factory import ModelFactory

        return ModelFactory
    raise AttributeError(f"module 'dream_cad' has no attribute {name!r}")
