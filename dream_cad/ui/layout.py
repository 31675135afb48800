"""The interface put together: its tabs, and the Blocks that dress themselves when launched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from dream_cad.ui.batch_tab import BatchTab
from dream_cad.ui.cluster_tab import ClusterTab
from dream_cad.ui.compare_tab import CompareTab
from dream_cad.ui.create_tab import CreateTab
from dream_cad.ui.desk import Desk
from dream_cad.ui.history_tab import HistoryTab
from dream_cad.ui.page import TITLE, page_arguments

_HEADER = (
    '<header class="dc-header"><h1>dream_cad</h1><p>Words and pictures become 3D meshes.</p>'
    '<button type="button" class="dc-theme" data-act="theme">Dark / light</button></header>'
)
_CACHE_S = (3_600, 86_400)
"""How often Gradio looks for uploads to delete, and at what age."""


class DreamCadBlocks(gr.Blocks):  # type: ignore[misc]
    """Gradio Blocks that bring their own look wherever they are served.

    Args:
        shelf: folder that browsers may read.
    """

    def __init__(self, shelf: str) -> None:
        self._shelf = shelf
        super().__init__(
            title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=_CACHE_S
        )

    def serving_arguments(self) -> dict[str, Any]:
        """Return how the page is dressed and what it may read, for launching or mounting."""
        return {**page_arguments(), "allowed_paths": [self._shelf]}

    def launch(self, *args: Any, **kwargs: Any) -> Any:
        """Serve the interface; arguments are Gradio's, the look is the default."""
        return super().launch(*args, **{**self.serving_arguments(), **kwargs})


def build_interface(desk: Desk, votes: Path) -> DreamCadBlocks:
    """Return the interface of a server.

    Args:
        desk: the door to it.
        votes: file that blind votes are added to.
    """
    blocks = DreamCadBlocks(str(desk.shelf.folder))
    with blocks:
        gr.HTML(_HEADER, js_on_load=None)
        with gr.Tabs(elem_id="dc-tabs", overflow_behavior="wrap"):
            create, compare, batch, history, cluster = _tabs()
        with create:
            CreateTab(desk, blocks)
        with compare:
            CompareTab(desk, compare, votes)
        with batch:
            BatchTab(desk)
        with history:
            HistoryTab(desk, history)
        with cluster:
            ClusterTab(desk, cluster, [create, compare, batch, history])
    return blocks


def _tabs() -> list[Any]:
    names = ("Create", "Compare", "Batch", "History", "Cluster")
    return [gr.Tab(name, id=name.lower()) for name in names]
