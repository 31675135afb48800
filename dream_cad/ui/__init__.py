"""The web interface: prompts and pictures in, meshes to look at and download out.

It talks to a server over HTTP through ``dream_cad.client`` alone. Gradio comes with the extra
``ui`` and is imported when an interface is created.
"""

from __future__ import annotations

from dream_cad.ui.model_selection import ModelSelectionUI

__all__ = ["ModelSelectionUI"]
